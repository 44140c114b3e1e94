"""Compiled loops over bytes: splitting, counting, learning, merging, decoding. Imported only where they are used."""
