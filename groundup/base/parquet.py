"""Parquet files joined into one without decoding them: their row groups are copied as they are, and only the footer is written anew.

A footer is a struct in Thrift's compact protocol. Source: parquet.thrift and thrift-compact-protocol.md of Apache Parquet and Thrift.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from groundup.base.errors import DataError
from groundup.base.files import atomic_file

__all__ = ["join_parquet"]

MAGIC = b"PAR1"
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 7, 8, 9, 12  # Thrift's types; 4 to 6 are whole numbers
NUM_ROWS, ROW_GROUPS = 3, 4  # fields of FileMetaData
COLUMNS, GROUP_OFFSET, ORDINAL = 1, 5, 7  # of RowGroup
META_DATA, CHUNK_OFFSETS = 3, (2, 4, 6)  # of ColumnChunk
PAGE_OFFSETS = (9, 10, 11, 14)  # of ColumnMetaData
MOST_ORDINAL = (1 << 15) - 1


class _Value(NamedTuple):
    """A value of Thrift's: an int, raw bytes, (element type, list of _Value), or a struct as a dict from field numbers to _Value."""

    kind: int
    content: Any


class _Reader:
    """Takes a footer's bytes apart."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def _take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def _unsigned(self) -> int:
        result = shift = 0
        while (byte := self._take(1)[0]) > 127:
            result, shift = result | (byte & 127) << shift, shift + 7
        return result | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)

    def _list(self) -> tuple[int, list[_Value]]:
        (head,) = self._take(1)
        count, kind = head >> 4 if head < 0xF0 else self._unsigned(), head & 15
        return kind, [
            self.value(BYTE if kind <= FALSE else kind) for _ in range(count)
        ]  # a truth value in a list is a byte

    def fields(self) -> dict[int, _Value]:
        """Returns the struct that begins here."""
        found: dict[int, _Value] = {}
        number = 0
        while head := self._take(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = self.value(head & 15)
        return found

    def value(self, kind: int) -> _Value:
        """Returns the value that begins here."""
        if kind in (TRUE, FALSE):
            return _Value(kind, b"")
        if kind in (BYTE, DOUBLE):
            return _Value(kind, self._take(1 if kind == BYTE else 8))
        if kind < DOUBLE:
            return _Value(kind, self._signed())
        if kind == BINARY:
            return _Value(kind, self._take(self._unsigned()))
        if kind == LIST:
            return _Value(kind, self._list())
        if kind == STRUCT:
            return _Value(kind, self.fields())
        raise ValueError(f"a Parquet footer with a value of Thrift's type {kind}")


def _unsigned(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _packed(value: _Value) -> Iterator[bytes]:
    """Yields the bytes of a value."""
    kind, content = value
    if kind == STRUCT:
        last = 0
        for number, field in content.items():
            near = 0 < number - last < 16
            yield bytes([(number - last) << 4 | field.kind]) if near else bytes([field.kind]) + _unsigned(2 * number)
            yield from _packed(field)
            last = number
        yield b"\0"
    elif kind == LIST:
        element, values = content
        yield (
            bytes([len(values) << 4 | element])
            if len(values) < 15
            else bytes([0xF0 | element]) + _unsigned(len(values))
        )
        for item in values:
            yield from _packed(item)
    elif kind == BINARY:
        yield _unsigned(len(content)) + content
    else:
        yield content if isinstance(content, bytes) else _unsigned(2 * content if content >= 0 else -2 * content - 1)


def _shift(fields: dict[int, _Value], numbers: Sequence[int], by: int) -> None:
    """Moves places in the file; 0 stands for none."""
    for number in numbers:
        if number in fields and fields[number].content:
            fields[number] = _Value(fields[number].kind, fields[number].content + by)


def _move(group: dict[int, _Value], by: int, ordinal: int) -> None:
    """Notes that a row group is the `ordinal`-th and lies `by` bytes further on."""
    _shift(group, (GROUP_OFFSET,), by)
    for column in group[COLUMNS].content[1]:
        _shift(column.content, CHUNK_OFFSETS, by)
        _shift(column.content[META_DATA].content, PAGE_OFFSETS, by)
    if ORDINAL in group:
        group[ORDINAL] = _Value(
            group[ORDINAL].kind, min(ordinal, MOST_ORDINAL)
        )  # 16 bits; readers count for themselves


def _footer(path: Path, file: IO[bytes]) -> tuple[dict[int, _Value], int]:
    """Returns a file's footer and where it begins."""
    end = file.seek(0, 2) - 8
    file.seek(max(end, 0))
    size, magic = struct.unpack("<I4s", file.read() if end > 0 else bytes(8))
    if magic != MAGIC or size > end:
        raise DataError(f"{path}: not a whole Parquet file")
    file.seek(end - size)
    return _Reader(file.read(size)).fields(), end - size


def join_parquet(parts: Sequence[Path], target: Path) -> None:
    """Writes the rows of Parquet files of one schema into one, atomically; what else their footers hold is taken from the first.

    Memory: the largest part, and the footer of all. Raises: DataError for a file that isn't whole.
    """
    footer: dict[int, _Value] = {}
    groups, rows = list[_Value](), 0
    with atomic_file(target) as temporary, open(temporary, "wb") as out:
        out.write(MAGIC)
        for path in parts:
            with open(path, "rb") as part:
                fields, end = _footer(path, part)
                footer = footer or fields
                rows += fields[NUM_ROWS].content
                for group in fields[ROW_GROUPS].content[1]:
                    _move(group.content, out.tell() - len(MAGIC), len(groups))
                    groups.append(group)
                part.seek(len(MAGIC))
                out.write(part.read(end - len(MAGIC)))
        footer[NUM_ROWS] = _Value(footer[NUM_ROWS].kind, rows)
        footer[ROW_GROUPS] = _Value(LIST, (STRUCT, groups))
        packed = b"".join(_packed(_Value(STRUCT, footer)))
        out.write(packed + struct.pack("<I", len(packed)) + MAGIC)
