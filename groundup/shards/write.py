"""Documents to token files: each as <|endoftext|> and its tokens, end to end, in files of NumPy's own format."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.config import to_toml
from groundup.base.errors import DataError
from groundup.base.files import atomic_folder, os_error, sha256, write_json
from groundup.base.log import Progress, command, progress, quantity
from groundup.base.runs import open_run, record, unchanged
from groundup.shards.config import ShardsConfig
from groundup.tokenizer.encode import Tokenizer, whole
from groundup.tokenizer.io import load

__all__ = ["main", "write_arrays", "write_texts"]

SHARD_TOKENS = ShardsConfig.shard_tokens
BATCH = 1 << 20  # characters encoded together


class _Writer:
    """Fills files of `shard_tokens` tokens in a folder; one such buffer is all the memory it needs."""

    def __init__(self, folder: Path, dtype: np.dtype, shard_tokens: int) -> None:
        self.folder, self.buffer, self.used = folder, np.empty(shard_tokens, dtype), 0
        self.files: list[dict[str, Any]] = []

    @property
    def tokens(self) -> int:
        """The tokens taken so far."""
        return sum(file["tokens"] for file in self.files) + self.used

    def add(self, ids: np.ndarray) -> None:
        """Appends tokens, writing a file whenever one is full."""
        while len(ids):
            room = min(len(ids), len(self.buffer) - self.used)
            self.buffer[self.used : self.used + room] = ids[:room]
            self.used, ids = self.used + room, ids[room:]
            if self.used == len(self.buffer):
                self.flush()

    def flush(self) -> None:
        """Writes what the buffer holds as the next file."""
        if self.used:
            path = self.folder / f"tokens_{len(self.files):05d}.npy"
            np.save(path, self.buffer[: self.used])
            self.files.append({"name": path.name, "tokens": self.used, "sha256": sha256(path)})
            self.used = 0


def write_texts(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    folder: Path | str,
    shard_tokens: int = SHARD_TOKENS,
    bar: Progress | None = None,
) -> dict[str, Any]:
    """Returns the index of the folder that it writes, as `write_arrays` does. Texts are taken a few at a time."""
    arrays = (ids for batch in _batches(map(whole, texts)) for ids in tokenizer.encode_batch(batch))
    return write_arrays(arrays, tokenizer, folder, shard_tokens, bar)


def write_arrays(
    arrays: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    folder: Path | str,
    shard_tokens: int = SHARD_TOKENS,
    bar: Progress | None = None,
) -> dict[str, Any]:
    """Returns the index of the folder that it writes: tokens_*.npy, doc_starts.npy and index.json, whole or not at all.

    Each array holds the ids of one document. uint16 where the vocabulary has at most 65,536 ids, else uint32.
    """
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    begin = np.array([tokenizer.eot], dtype)
    sizes = np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)], np.int32)
    starts: list[int] = []
    size = tokens = 0
    with atomic_folder(folder) as temporary:
        writer = _Writer(temporary, dtype, shard_tokens)
        for ids in arrays:
            starts.append(tokens)
            writer.add(begin)
            writer.add(ids)
            tokens += 1 + len(ids)
            size += int(sizes[ids].sum())
            if bar:
                bar.advance(1, f"{quantity(tokens)} tokens")
        writer.flush()
        path = temporary / "doc_starts.npy"
        np.save(path, np.array(starts, np.int64))
        index = {
            "dtype": dtype.name, "tokenizer": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size,
            "eot": tokenizer.eot, "tokens": tokens, "bytes": size, "documents": len(starts), "files": writer.files,
            "starts_sha256": sha256(path),
        }  # fmt: skip
        write_json(temporary / "index.json", index)
    return index


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields texts in groups of about BATCH characters."""
    batch: list[str] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text)
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _count(path: Path) -> int:
    """Returns the number of documents in a Parquet file. Raises: DataError for one that is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a whole Parquet file; make it anew with `groundup data build`") from error
    except OSError as error:
        raise os_error(error, path) from error


def main(config: ShardsConfig) -> None:
    """Encodes the project's documents: `groundup shards`."""
    open_run(config.project, "data", config.data).require_done("data build")
    open_run(config.project, "tokenizer", config.tokenizer).require_done("tokenizer train")
    run, inputs, toml = open_run(config.project, "shards", config.name), config.inputs(), to_toml(config)
    tokenizer, counts = load(inputs["tokenizer"]), {split: _count(inputs[split]) for split in ("train", "heldout")}
    if not counts["train"]:
        raise DataError(f"{inputs['train']}: no documents in it, so there is nothing to train on")
    if unchanged(run, toml, inputs):
        return
    with record(run, toml, inputs) as results:
        for left in run.path.glob(".*.tmp"):  # of a run that was killed
            shutil.rmtree(left)
        for split, count in counts.items():
            with progress(f"encoding {split}", count, "documents") as bar:
                arrays = tokenizer.encode_files([inputs[split]], config.threads)
                index = write_arrays(arrays, tokenizer, run.path / split, config.shard_tokens, bar)
            results[split] = {key: index[key] for key in ("tokens", "bytes", "documents")}
            counted = f"{quantity(index['tokens'])} tokens from {quantity(index['bytes'])} bytes"
            run.log(f"{split}: {index['documents']} documents, {counted}")
    run.log(f"next: {command('plan', config.project)}")
