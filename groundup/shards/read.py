"""Token files read by memory map, and the order in which training sees them."""

from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.errors import DataError
from groundup.base.files import os_error, read_json, sha256

__all__ = ["Shards", "permutation"]

GPT2_EOT, GPT2_VOCAB = 50_256, 50_257  # <|endoftext|> closes a document in nanoGPT's files
BLOCK = 1 << 24  # tokens looked at together
KEYS = {"dtype": str, "tokenizer": str, "vocab_size": int, "tokens": int, "bytes": int, "documents": int, "files": list}


class Shards:
    """A folder of token files as one long array, of which only the slices asked for are read.

    `tokens` counts the tokens, `bytes` the UTF-8 bytes of the text they came from (for bits per byte), `tokenizer` is
    the fingerprint of the tokenizer that made them. With `verify` every file is hashed first.
    A nanoGPT file (train.bin: GPT-2's ids, two bytes each) opens in the same way; its `bytes` and `documents` are 0: nothing tells them.
    Raises: DataError naming the file that is missing, foreign, truncated or (with `verify`) altered.
    """

    def __init__(self, folder: Path | str, verify: bool = False) -> None:
        self.folder = Path(folder)
        self._starts: np.ndarray | None = None
        if self.folder.suffix == ".bin":
            self._open_bin(self.folder)
            return
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
        if verify and index.get("starts_sha256") not in (None, sha256(self._path_of_starts())):
            raise DataError(
                f"{self._path_of_starts()}: altered since it was written; make the token files anew with `groundup shards`"
            )

    def _path_of_starts(self) -> Path:
        """Returns the file with the documents' beginnings. Raises: DataError where it isn't there."""
        path = self.folder / "doc_starts.npy"
        if not path.exists():
            raise DataError(f"{path}: missing or damaged; make the token files anew with `groundup shards`")
        return path

    def _open_bin(self, path: Path) -> None:
        """Takes a nanoGPT file for the token files. Source: github.com/karpathy/nanoGPT, data/openwebtext/prepare.py."""
        size = path.stat().st_size if path.is_file() else 0
        if not size or size % 2:
            raise DataError(f"{path}: {'not tokens of two bytes each' if size else 'no such file, or nothing in it'}")
        self.dtype, self.tokens, self.vocab_size = np.dtype(np.uint16), size // 2, GPT2_VOCAB
        self.bytes, self.documents, self.tokenizer = 0, 0, ""
        self.folder, self._entries = path.parent, [{"name": path.name}]
        self._files, self._ends = [np.memmap(path, np.uint16, "r")], np.array([self.tokens])

    def _starts_of_bin(self) -> np.ndarray:
        """Returns where the documents of a nanoGPT file begin: at 0, and behind each <|endoftext|> but a last one."""
        tokens = self._files[0]
        found = [np.flatnonzero(tokens[at : at + BLOCK] == GPT2_EOT) + at + 1 for at in range(0, self.tokens, BLOCK)]
        starts = np.concatenate([np.zeros(1, np.int64), *found])
        return starts[starts < self.tokens]

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

    def __reduce__(self) -> tuple[type["Shards"], tuple[Path]]:
        """Pickled, it is its place, and opens the files again: a process that a DataLoader starts gets no copy of the tokens."""
        return Shards, (self.folder,)

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
        if self._starts is None and self._entries and self._entries[0]["name"].endswith(".bin"):
            self._starts = self._starts_of_bin()
        elif self._starts is None:
            path = self._path_of_starts()
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
