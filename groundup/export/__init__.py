"""To and from other people's formats: their models become runs, ours become what other programs load."""
