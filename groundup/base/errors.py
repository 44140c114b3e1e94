"""What can go wrong through no fault of the code: the user's mistakes and the machine's limits.

    ValueError
    └── GroundupError          one line, exit code 2
        ├── ConfigError        a key, a flag or a combination of values
        ├── DataError          an input file, folder or row
        ├── TokenizerError     a tokenizer file, a vocabulary, an id
        ├── CheckpointError    a checkpoint that is missing, partial, corrupt or of another architecture
        └── StorageError       a full disk, a folder that can't be written

A message names the file, key or row, what was expected, and the remedy. Bugs of our own are asserts, never these.
"""

__all__ = [
    "GroundupError", "ConfigError", "DataError", "TokenizerError", "CheckpointError", "StorageError", "Terminated",
]  # fmt: skip


class GroundupError(ValueError):
    """A mistake that the user can mend; printed as one line, exit code 2."""


class ConfigError(GroundupError):
    """A misspelt key, a value of the wrong type, or values that contradict one another."""


class DataError(GroundupError):
    """An input that is missing, empty, truncated or not what its name says."""


class TokenizerError(GroundupError):
    """A tokenizer file or vocabulary that can't be used, or an id outside it."""


class CheckpointError(GroundupError):
    """A checkpoint that is missing, incomplete, corrupt, or doesn't fit the model."""


class StorageError(GroundupError):
    """The disk is full, or the folder can't be written."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: treated like Ctrl-C (what is on disk is whole, and the same command continues), with an exit code of its own."""
