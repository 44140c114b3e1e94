"""Bytes become text: packed files open with a bound, UTF-8 comes first, then what the bytes look like; binary isn't text."""

import bz2
import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from groundup.base.files import ZstdReader
from groundup.base.remote import open_bytes

__all__ = ["NotText", "Stream", "decode", "looks_binary"]

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, OSError, ValueError)
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
        self._file = open_bytes(path)
        magic = self._file.read(4)
        self._file.seek(0)
        self._next: Callable[[int], bytes] = self._file.read
        self.packed = True
        if magic[:2] == b"\x1f\x8b":
            self._next = gzip.GzipFile(fileobj=self._file).read1  # read() would lose what stands before the damage
        elif magic[:3] == b"BZh":
            self._next = bz2.BZ2File(self._file).read1
        elif magic == b"\x28\xb5\x2f\xfd":
            self._next = ZstdReader(self._file).read
        else:
            self.packed = False
        self._expansion = max_expansion if self.packed else 0
        self._at = 0
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
        if self._expansion and self._at > max(FREE_BYTES, self._file.tell() * self._expansion):
            self.damage = (
                f"expands to more than {self._expansion} times its size, which looks like a decompression bomb"
            )
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
