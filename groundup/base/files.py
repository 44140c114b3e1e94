"""Files that are whole or absent: atomic writes, content hashes, JSON and JSONL (plain, .gz, .zst)."""

import contextlib
import errno
import glob
import gzip
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

import zstandard

from groundup.base.errors import DataError, GroundupError, StorageError
from groundup.base.remote import address, identity

__all__ = [
    "ZstdReader", "atomic_file", "atomic_folder", "fingerprint", "open_text", "os_error", "read_json", "read_jsonl", "sha256",
    "text_hash", "write_json", "write_jsonl", "write_text",
]  # fmt: skip

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)  # what a truncated or corrupt stream raises


def os_error(error: OSError, path: Path | str | None = None) -> GroundupError:
    """Returns the one-line form of an operating-system error, with its remedy."""
    where = path or error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{where}: the disk is full; free some space and run the same command again, it continues")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{where}: no permission; choose another folder or change the rights")
    if error.errno == errno.ENOENT:
        return DataError(f"{where}: no such file or folder")
    if error.errno == errno.EISDIR:
        return DataError(f"{where} is a folder, a file was expected")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f"{where}: a file stands where a folder is needed; move it or choose another folder")
    return StorageError(f"{where}: {error.strerror or error}")


def _sync_folder(path: Path) -> None:
    """Makes a rename in this folder survive a power cut (a folder can't be opened for that on Windows)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(path: Path) -> None:
    """Removes what a killed process left beside `path` while it wrote it."""
    for debris in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        owner = debris.name.split(".")[-2]
        if owner.isdigit() and int(owner) != os.getpid() and not _alive(int(owner)):
            shutil.rmtree(debris) if debris.is_dir() else debris.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Returns whether a process of this machine has this number (always True on Windows, where asking would end it)."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed into place, on any error removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success every file is synced and it replaces `path`, on error removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _sweep(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in (*sorted(temporary.rglob("*")), temporary):
            if file.is_dir():
                _sync_folder(file)  # or its names could be missing after a power cut
            elif file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, value: Any) -> None:
    """Writes indented JSON atomically; NaN and infinity are refused, for no other reader would accept them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Returns the value in a JSON file. Raises: DataError naming the file (and the line) that can't be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise os_error(error, path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; a JSON file was expected") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error


class ZstdReader(io.RawIOBase):
    """The bytes in a file's Zstandard frames. Reading raises EOFError where the last frame is cut off; the library's own doesn't."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._frame, self._rest = file, zstandard.ZstdDecompressor().decompressobj(), b""

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer; returns how many bytes it got, 0 at the end."""
        while not self._rest:
            if self._frame.eof and self._frame.unused_data:
                packed, self._frame = self._frame.unused_data, zstandard.ZstdDecompressor().decompressobj()
            elif packed := self._file.read(1 << 16):
                self._frame = zstandard.ZstdDecompressor().decompressobj() if self._frame.eof else self._frame
            elif self._frame.eof:
                return 0
            else:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            self._rest = self._frame.decompress(packed)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


@contextlib.contextmanager
def open_text(path: Path | str) -> Iterator[TextIO]:
    """Yields a UTF-8 text stream of a plain, .gz or .zst file. Raises: DataError naming a damaged or foreign file."""
    path = Path(path)
    try:
        with contextlib.ExitStack() as stack:
            raw: Any = stack.enter_context(open(path, "rb"))
            if path.suffix == ".gz":
                raw = stack.enter_context(gzip.GzipFile(fileobj=raw))
            elif path.suffix == ".zst":
                raw = stack.enter_context(io.BufferedReader(ZstdReader(raw)))
            yield stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"))
    except DAMAGED as error:
        raise DataError(f"{path}: truncated or corrupt ({error}); fetch or make it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start} of a block)") from error
    except OSError as error:
        raise os_error(error, path) from error


def read_jsonl(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSONL file (.gz and .zst too). Raises: DataError naming the file and the line."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: a JSON object was expected, not {type(row).__name__}")
            yield row


def write_jsonl(path: Path | str, rows: Iterable[dict[str, Any]]) -> int:
    """Writes one JSON object a line, atomically (compressed where the name ends in .gz or .zst); returns the count."""
    path, count = Path(path), 0
    with atomic_file(path) as temporary, contextlib.ExitStack() as stack:
        raw: Any = stack.enter_context(open(temporary, "wb"))
        if path.suffix == ".gz":
            raw = stack.enter_context(gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0))
        elif path.suffix == ".zst":
            raw = stack.enter_context(zstandard.ZstdCompressor().stream_writer(raw))
        for row in rows:
            raw.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
        stack.close()
    return count


def sha256(path: Path | str) -> str:
    """Returns the hex SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def text_hash(text: str) -> str:
    """Returns 16 hex digits that identify a text; stable across machines and runs, unlike `hash`."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fingerprint(path: Path | str) -> str:
    """Returns one hash for a file, or for a folder's file names and contents; the identity that `inputs` records."""
    if address(path):
        return identity(path)
    path = Path(path)
    if path.is_file():
        return sha256(path)[:16]
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()[:16]
