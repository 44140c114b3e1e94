"""Token files read by memory map, and the order in which training sees them."""

from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.errors import DataError
from groundup.base.files import os_error, read_json, sha256

__all__ = ["Shards", "permutation"]

KEYS = {"dtype": str, "tokenizer": str, "vocab_size": int, "tokens": int, "bytes": int, "documents": int, "files": list}


class Shards:
    """A folder of token files as one long array, of which only the slices asked for are read.

    `tokens` counts the tokens, `bytes` the UTF-8 bytes of the text they came from (for bits per byte), `tokenizer` is
    the fingerprint of the tokenizer that made them. With `verify` every file is hashed first.
    Raises: DataError naming the file that is missing, foreign, truncated or (with `verify`) altered.
    """

    def __init__(self, folder: Path | str, verify: bool = False) -> None:
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.exists():
            raise DataError(f"{self.folder}: no token files in it (no index.json); make them with `groundup shards`")
        index: Any = read_json(path)
        for key, kind in KEYS.items():
            if not isinstance(index, dict) or not isinstance(index.get(key), kind):
                raise DataError(f"{path}: not an index of token files (no '{key}' in it)")
        self.tokens: int = index["tokens"]
        self.bytes: int = index["bytes"]
        self.documents: int = index["documents"]
        self.vocab_size: int = index["vocab_size"]
        self.tokenizer: str = index["tokenizer"]
        self.dtype = np.dtype(index["dtype"])
        self._entries = index["files"]
        self._files = [self._map(file, verify) for file in self._entries]
        self._ends = np.cumsum([len(file) for file in self._files], dtype=np.int64)
        if (held := int(self._ends[-1]) if self._files else 0) != self.tokens:
            raise DataError(
                f"{path}: says {self.tokens} tokens, its files hold {held}; make them anew with `groundup shards`"
            )
        self._starts: np.ndarray | None = None

    def _map(self, file: dict[str, Any], verify: bool) -> np.ndarray:
        path = self.folder / file["name"]
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(f"{path}: missing; make the token files anew with `groundup shards`") from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: truncated or not a NumPy file; make the token files anew with `groundup shards`"
            ) from error
        if array.dtype != self.dtype or array.shape != (file["tokens"],):
            raise DataError(
                f"{path}: holds {array.dtype} {array.shape}, the index says {self.dtype} ({file['tokens']},)"
            )
        if verify and sha256(path) != file["sha256"]:
            raise DataError(
                f"{path}: altered since it was written (its hash isn't the index's); make the token files anew"
            )
        return array

    def stamp(self) -> list[tuple[int, int, int]]:
        """Returns what tells whether the files on disk are still those that were opened: of each its number, size and time."""
        try:
            found = [(self.folder / file["name"]).stat() for file in self._entries]
        except OSError as error:
            raise os_error(error) from error
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found]

    @property
    def doc_starts(self) -> np.ndarray:
        """Where each document begins, ascending, int64."""
        if self._starts is None:
            path = self.folder / "doc_starts.npy"
            try:
                self._starts = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(
                    f"{path}: missing or damaged; make the token files anew with `groundup shards`"
                ) from error
        return self._starts

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Returns tokens [start, stop) as a copy, whichever files they lie in; it must be inside [0, tokens]."""
        assert 0 <= start <= stop <= self.tokens, (start, stop, self.tokens)
        out = np.empty(stop - start, self.dtype)
        done, number = 0, int(np.searchsorted(self._ends, start, side="right"))
        while done < len(out):
            file = self._files[number]
            at = start + done - (int(self._ends[number]) - len(file))
            part = file[at : at + len(out) - done]
            out[done : done + len(part)] = part
            done, number = done + len(part), number + 1
        return out


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of n samples in an epoch: a function of its arguments alone, on any machine, int64.

    It sorts raw 64-bit draws, because NumPy promises that those never change, which it doesn't of `permutation`.
    """
    draws = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(n)
    return np.argsort(draws, kind="stable")
