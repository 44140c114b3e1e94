"""Bytes become text: packed files open with a bound, UTF-8 comes first, then what the bytes look like; binary isn't text."""

import bz2
import codecs
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from groundup.base.files import ZstdReader
from groundup.base.remote import open_bytes
from groundup.data.members import Members

__all__ = ["NotText", "Stream", "decode", "looks_binary"]

DAMAGED = (EOFError, zlib.error, zstandard.ZstdError, OSError, ValueError)
FREE_BYTES = 64 << 20  # expansion below this is never called a bomb
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
WRONG = re.compile("[\x80-\x9f\ufffd]")  # what the wrong encoding leaves behind


class NotText(ValueError):
    """The bytes aren't text; `rule` says why in one word."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def looks_binary(data: bytes) -> bool:
    """Returns whether these bytes are no text in an encoding that keeps ASCII: a zero byte, or 1% control characters."""
    head = data[: 1 << 16]
    if head.startswith(tuple(bom for bom, _ in BOMS)):
        return False
    return b"\0" in head or len(CONTROL.findall(head)) > len(head) / 100


def decode(data: bytes, hint: str = "") -> tuple[str, str]:
    """Returns the text and the encoding it was in.

    UTF-8 where it fits; else the encoding that the sender named (`hint`) or the bytes suggest; else UTF-8 with at most 1% of it
    unreadable, which is left out. Raises: NotText.
    """
    for bom, name in BOMS:
        if data.startswith(bom):
            try:
                return data.decode(name), "utf-8" if name == "utf-8-sig" else name
            except UnicodeDecodeError:
                break
    if looks_binary(data):
        raise NotText("binary", "isn't text (it has control characters)")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        at = error.start
    forced = data.decode("utf-8", "replace")
    multibyte = sum(ord(c) > 127 and c != "\ufffd" for c in forced)
    if 0 < forced.count("\ufffd") <= multibyte / 4:  # mostly UTF-8, damaged here and there
        return forced.replace("\ufffd", ""), "utf-8, damaged"
    from resiliparse.parse.encoding import detect_encoding

    for name in filter(None, (hint, detect_encoding(data), "cp1252")):
        try:
            text = data.decode(name)
        except (LookupError, UnicodeDecodeError):
            continue
        if len(WRONG.findall(text)) <= len(text) / 1000:
            return text, codecs.lookup(name).name
    if forced.count("\ufffd") <= len(forced) / 100:
        return forced.replace("\ufffd", ""), "utf-8, damaged"
    raise NotText("invalid_utf8", f"is neither UTF-8 (byte {at}) nor text in an encoding that can be recognised")


class Stream(io.RawIOBase):
    """A file, decompressed by its first bytes. Where it is damaged it ends, and says so in `damage`; a bomb is damage too."""

    def __init__(self, path: Path, max_expansion: int) -> None:
        self.file = open_bytes(path)
        magic = self.file.read(4)
        self.file.seek(0)
        self._next: Callable[[int], bytes | memoryview] = self.file.read
        self._members: Members | None = None
        self.packed = True
        if magic[:2] == b"\x1f\x8b":
            self._members = Members(self.file)
            self._next = self._members.read
        elif magic[:3] == b"BZh":
            self._next = bz2.BZ2File(self.file).read1  # read() would lose what stands before the damage
        elif magic == b"\x28\xb5\x2f\xfd":
            self._next = ZstdReader(self.file).read
        else:
            self.packed = False
        self._expansion = max_expansion if self.packed else 0
        self._at = self._end = 0
        self.damage = ""

    def readable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the bytes read, decompressed."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer; 0 at the end or at the damage."""
        if self.damage:
            return 0
        try:
            data = self._next(len(buffer))
        except DAMAGED as error:
            self.damage = f"truncated or corrupt ({' '.join(str(error).split())})"
            return 0
        self._at += len(data)
        if self._expansion and self._at > max(FREE_BYTES, self.file.tell() * self._expansion):
            self.damage = (
                f"expands to more than {self._expansion} times its size, which looks like a decompression bomb"
            )
            self._members = None  # nothing more of it
            return 0
        buffer[: len(data)] = data
        return len(data)

    def sound(self) -> int:
        """Returns how many of the bytes read, decompressed, stand before the gzip member that is being read: those have been checked."""
        return self._at - (self._members.given if self._members else 0)

    def resume(self, mark: bytes) -> str:
        """Goes on behind the damage, at the next gzip member that begins with `mark`; returns what is lost, "" where none follows."""
        if not self.damage or self._members is None:
            return ""
        start = self._members.start
        try:
            lost = self._members.skip(mark)
        except OSError:  # it is the disk; the damage says so
            return ""
        if not lost:
            return ""
        said = f"{self.damage}: {lost:,} bytes from byte {start:,} on are left out; what follows them is used"
        self.damage = ""
        return said

    def place(self) -> int:
        """Returns how many bytes of the file have been read, as they lie there."""
        return self._end if self.file.closed else self.file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._end = self.place()
        self.file.close()
        super().close()
