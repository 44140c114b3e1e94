"""Bytes become text: UTF-8 first, then what the bytes look like; binary data is told from text."""

import codecs
import re

__all__ = ["NotText", "decode", "looks_binary"]

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

    for name in (hint, detect_encoding(data), "cp1252"):
        try:
            text = data.decode(name) if name else "\ufffd"
        except (LookupError, UnicodeDecodeError):
            continue
        if len(WRONG.findall(text)) <= len(text) / 1000:
            return text, codecs.lookup(name).name
    if forced.count("\ufffd") <= len(forced) / 100:
        return forced.replace("\ufffd", ""), "utf-8, damaged"
    raise NotText("invalid_utf8", f"is neither UTF-8 (byte {at}) nor text in an encoding that can be recognised")
