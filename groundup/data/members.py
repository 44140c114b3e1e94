"""Gzip files, member by member. Who writes a WARC makes a member of each record, so behind a damaged one reading can go on."""

import re
import zlib
from collections.abc import Iterator
from typing import IO

__all__ = ["Members"]

CHUNK_BYTES = 1 << 13  # read at a time; a damage is found in the last of them
PIECE_BYTES = 1 << 16  # unpacked at a time
SEARCH_BYTES = 1 << 16  # searched at a time
HEAD_BYTES = 1 << 10  # of a member: its header, and what its first bytes are coded in
AGAIN = 4  # times the file, what is read again in search of members; so hostile files take linear time too
MAGIC = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")


class Members:
    """The bytes in a gzip file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.start = self.given = (
            0  # where the member that is being read begins in the file, and how much of it was given out
        )
        self._file, self._again = file, 0
        self._begin(0)

    def _begin(self, at: int) -> None:
        self._file.seek(at)
        self._pieces, self._ready = filter(None, self._unpacked()), memoryview(b"")

    def read(self, size: int) -> memoryview:
        """Returns at most `size` bytes, none at the end. Raises: EOFError, zlib.error for a member that isn't whole."""
        if not self._ready:
            self._ready = memoryview(next(self._pieces, b""))
            self.given += len(self._ready)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _behind_padding(self, packed: bytes) -> bytes:
        """Returns what follows the zeros that may stand behind a member, b"" at the end of the file."""
        while packed or (packed := self._file.read(CHUNK_BYTES)):
            if packed := packed.lstrip(b"\0"):
                break
        return packed

    def _unpacked(self) -> Iterator[bytes]:
        packed = b""
        while packed := self._behind_padding(packed):
            self.start, self.given, member = self._file.tell() - len(packed), 0, zlib.decompressobj(31)
            while not member.eof:
                packed = packed or self._file.read(CHUNK_BYTES)
                if not packed:
                    raise EOFError("it ends within a gzip member")
                yield member.decompress(packed, PIECE_BYTES)
                packed = member.unconsumed_tail
            packed = member.unused_data

    def skip(self, mark: bytes) -> int:
        """Goes on at the next member, behind the damaged one's first byte, that unpacks to what begins with `mark`.

        Returns the bytes of the file that are left out, 0 where no such member follows.
        """
        start, end = self.start, self._file.tell()
        behind = start + 1
        if self._again + end - behind > AGAIN * end:
            behind = end
        self._again += end - behind
        at = self._next_member(behind, mark)
        if at < 0:
            return 0
        self._begin(at)
        return at - start

    def _next_member(self, behind: int, mark: bytes) -> int:
        """Returns where the next member with this beginning stands, -1 where none does."""
        data, end = b"", self._file.seek(behind)
        while more := self._file.read(SEARCH_BYTES):
            data, end = data[-HEAD_BYTES:] + more, end + len(more)
            for found in MAGIC.finditer(data):
                if _unpacks_to(data[found.start() : found.start() + HEAD_BYTES], mark):
                    return end - len(data) + found.start()
        return -1


def _unpacks_to(packed: bytes, mark: bytes) -> bool:
    """Returns whether these bytes begin a gzip member that begins with `mark`."""
    try:
        return zlib.decompressobj(31).decompress(packed, len(mark)) == mark
    except zlib.error:
        return False
