"""Text that was once decoded wrongly: UTF-8 read as Windows-1252 (cafÃ©, donâ€™t) becomes what it was."""

import re

__all__ = ["mend"]


def _table() -> dict[str, int]:
    """Returns character -> byte for the upper half of Windows-1252; the five bytes that it leaves open stand for themselves."""
    table = {chr(byte): byte for byte in range(0x80, 0x100)}
    for byte in range(0x80, 0xA0):
        try:
            table[bytes([byte]).decode("cp1252")] = byte
        except UnicodeDecodeError:
            continue
    return table


BYTES = _table()
LATER = "".join(
    re.escape(c) for c, byte in BYTES.items() if byte < 0xC0
)  # what a character's second and later bytes look like
LEADS = "".join(re.escape(chr(byte)) for byte in range(0xC2, 0xF5))
SUSPECT = re.compile(f"[{LEADS}][{LATER}]")
SURE = re.compile(f"[ÂÃ][{LATER}]|â[€„\x80\x81\x84][{LATER}]|ðŸ[{LATER}]{{2}}")  # nobody writes these
UPPER = re.compile("[\x80-\uffff]")
SEQUENCES = 2  # a line is turned back as a whole if it holds at least this many


def _undone(text: str) -> str:
    """Returns the text as UTF-8 would have read it. Raises: UnicodeDecodeError, KeyError where it can't have been UTF-8."""
    return bytes(byte for c in text for byte in ((ord(c),) if ord(c) < 0x80 else (BYTES[c],))).decode("utf-8")


def _sure(match: re.Match[str]) -> str:
    try:
        return _undone(match[0])
    except UnicodeDecodeError:
        return match[0]


def _line(line: str) -> str:
    if len(UPPER.findall(line)) >= 2 * SEQUENCES:
        try:
            return _undone(
                line
            )  # every character above ASCII belongs to a sequence: in right text one hardly ever does
        except (UnicodeDecodeError, KeyError):
            pass
    return SURE.sub(_sure, line)


def mend(text: str) -> str:
    """Returns the text with wrongly decoded stretches set right, those that were so twice too; right text stays as it is.

    Sequences that nobody writes (Ã©, â€™) are mended wherever they stand; others (Ð¢ÐµÐºÑ) only where all of a line is like that.
    """
    for _ in range(2):
        if text.isascii() or not SUSPECT.search(text):
            break
        text = "\n".join(line if line.isascii() else _line(line) for line in text.split("\n"))
    return text
