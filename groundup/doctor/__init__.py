"""The doctor: what is wrong with a run, by which numbers, and the command that mends it; and what this machine can do."""
