"""Texts on their way to the kernels: strings, files and folders become batches of UTF-8 in one padded array."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from groundup.base.errors import ConfigError, DataError
from groundup.base.files import open_text, os_error, read_jsonl
from groundup.tokenizer.encode import whole

__all__ = ["INVALID", "Batch", "batches", "find_texts", "pack", "pack_bytes", "read_batches", "strings"]

BATCH_BYTES = 16 << 20
PADDING = 64  # bytes after the text that a kernel may read
KINDS = (".txt", ".text", ".md", ".jsonl", ".parquet")
INVALID = ("strict", "replace", "skip")  # what becomes of a file that isn't UTF-8


class NotText(DataError):
    """A file that isn't UTF-8."""


class Batch(NamedTuple):
    """Texts end to end; text i is buffer[edges[i] : edges[i + 1]]. `joined` says that the last one goes on in the next."""

    buffer: np.ndarray
    edges: np.ndarray
    joined: bool = False


def pack(texts: Sequence[str]) -> Batch:
    """Returns the texts as one batch."""
    try:
        return pack_bytes([text.encode() for text in texts])
    except UnicodeEncodeError:
        return pack_bytes([whole(text).encode() for text in texts])


def pack_bytes(parts: Sequence[bytes]) -> Batch:
    """Returns UTF-8 as one batch."""
    edges = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=edges[1:])
    return Batch(np.frombuffer(b"".join([*parts, bytes(PADDING)]), np.uint8), edges)


def batches(texts: Iterable[str], size: int = BATCH_BYTES) -> Iterator[Batch]:
    """Yields the texts in batches of about `size` characters."""
    waiting: list[str] = []
    length = 0
    for text in texts:
        waiting.append(text)
        length += len(text)
        if length >= size:
            yield pack(waiting)
            waiting, length = [], 0
    if waiting:
        yield pack(waiting)


def strings(corpus: Iterable[Batch]) -> Iterator[str]:
    """Yields the texts of batches as strings, each whole."""
    begun: list[bytes] = []
    for batch in corpus:
        for start, stop in pairwise(batch.edges.tolist()):
            begun.append(batch.buffer[start:stop].tobytes())
            if not (batch.joined and stop == batch.edges[-1]):
                yield b"".join(begun).decode()
                begun = []
    if begun:
        yield b"".join(begun).decode()


def find_texts(paths: Iterable[Path]) -> list[Path]:
    """Returns the files meant by files and folders, in a fixed order. Raises: DataError if one is missing or empty."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p) in KINDS)
            if not inside:
                raise DataError(f"{path}: no text in this folder (expected {', '.join(KINDS)}; .gz and .zst too)")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file")
    return found


def _kind(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


def read_batches(path: Path, invalid: str = "strict") -> Iterator[Batch]:
    """Yields the texts of a file: a Parquet or JSONL file's under the key 'text', any other file as one text.

    Raises: DataError naming the file, and the row, where that isn't so; for text that isn't UTF-8 unless `invalid` is
    "replace" (bytes that mean nothing become U+FFFD) or "skip" (such a file is left out).
    """
    if invalid not in INVALID:
        raise ConfigError(f"invalid: '{invalid}'; expected one of {', '.join(INVALID)}")
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet(path)
    elif kind == ".jsonl":
        yield from batches(_jsonl(path))
    elif invalid != "skip" or _is_text(path):
        yield from _plain(path, invalid == "replace")


def _jsonl(path: Path) -> Iterator[str]:
    for number, row in enumerate(read_jsonl(path), 1):
        if not isinstance(row.get("text"), str):
            raise DataError(f"{path}, row {number}: no text under the key 'text'")
        yield row["text"]


def _parquet(path: Path) -> Iterator[Batch]:
    """Yields Arrow's own bytes, never made into strings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise DataError(f"{path}: no column 'text' (it has: {', '.join(file.schema_arrow.names)})")
            for rows in file.iter_batches(batch_size=4096, columns=["text"]):
                texts = rows.column(0).cast(pa.large_string()).fill_null("")
                texts.validate(full=True)
                _, offsets, data = texts.buffers()
                edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
                size = int(edges[-1] - edges[0])
                buffer = np.zeros(size + PADDING, np.uint8)
                if size:
                    buffer[:size] = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]]
                yield Batch(_sealed(buffer), edges - edges[0])
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a whole Parquet file with texts ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise os_error(error, path) from error


def _is_text(path: Path) -> bool:
    try:
        for _ in _plain(path, False):
            pass
    except NotText:
        return False
    return True


def _plain(path: Path, replace: bool) -> Iterator[Batch]:
    """Yields a text file of any size in blocks, cut where no piece can be changed by the cut."""
    from groundup.tokenizer.kernels.split import safe_cut, valid
    from groundup.tokenizer.kernels.unicode import rules_of

    kinds, rest, size, place = rules_of("o200k")[1], np.empty(0, np.uint8), BATCH_BYTES, 0
    with open_text(path) as stream:
        while True:
            buffer, held = np.empty(len(rest) + size + PADDING, np.uint8), len(rest)
            buffer[:held] = rest
            known = held + _fill(stream.buffer, memoryview(buffer)[held : held + size])  # type: ignore[arg-type]
            last = known < held + size
            buffer = _sealed(buffer)
            good = valid(buffer, 0, known)
            rest = buffer[good:known]  # the beginning of a character that the block's end cuts, unless it's no text
            if len(rest) > 3 or (last and len(rest)):
                if not replace:
                    raise NotText(f"{path}: not UTF-8 at byte {place + good}; --invalid replace or skip goes on")
                whole_bytes = known if last else known - 3
                text = bytes(buffer[:whole_bytes]).decode("utf-8", "replace").encode()
                rest, good = buffer[whole_bytes:known], len(text)
                buffer = np.frombuffer(text + bytes(PADDING), np.uint8)
            cut = good if last else safe_cut(buffer, max(1, good - (1 << 16)), good, kinds)
            endless = cut == good and not last  # one endless word so far: read on
            rest = np.concatenate([buffer[0 if endless else cut : good], rest])
            if endless:
                size *= 2
                continue
            if cut:
                yield Batch(buffer, np.array([0, cut]), joined=not last)
            if last:
                return
            place, size = place + cut, BATCH_BYTES


def _sealed(buffer: np.ndarray) -> np.ndarray:
    """Returns the array for reading only, as those of strings are: a kernel is compiled anew for every kind of array."""
    buffer.flags.writeable = False
    return buffer


def _fill(stream: BinaryIO, room: memoryview) -> int:
    """Returns how many bytes were read; fewer than there is room only at the end."""
    done = 0
    while done < len(room) and (got := stream.readinto(room[done:])):  # type: ignore[attr-defined]
        done += got
    return done
