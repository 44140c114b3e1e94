"""Plain text: books with a licence around them, and long texts cut between paragraphs."""

import re
from collections.abc import Iterator

__all__ = ["books", "pieces"]

MARK = re.compile(
    r"^\*{3}\s*(START|END) OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[ ,:]*(.*?)\s*\*{3}[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
LAST_LINE = re.compile(
    r"\n\s*End of (?:the )?Project Gutenberg(?:'s|’s)?(?: EBook)?\b[^\n]*(?:\n[^\n]+)*\s*\Z", re.IGNORECASE
)
HEADER_FIELD = re.compile(r"^Title:\s*(.+)$", re.MULTILINE)


def books(text: str) -> Iterator[tuple[str, str, str]]:
    """Yields (what stands around it, the book, its title) for each Project Gutenberg book in a text; a text without marks once.

    A book reaches from its START line to its END line; licence, donation appeals and the next book's header lie outside.
    """
    marks = list(MARK.finditer(text))
    starts = [m for m in marks if m[1].upper() == "START"]
    if not starts:
        yield "", text, ""
        return
    outside = 0
    for number, start in enumerate(starts):
        limit = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        end = next((m for m in marks if m[1].upper() == "END" and start.end() <= m.start() < limit), None)
        stop = end.start() if end else limit
        before = text[outside : start.end()] + "\n"
        fields = HEADER_FIELD.findall(before)
        yield before, LAST_LINE.sub("\n", text[start.end() : stop]), fields[-1].strip() if fields else start[2].title()
        outside = stop


def pieces(text: str, max_chars: int) -> Iterator[str]:
    """Yields a text in pieces of at most `max_chars` characters, cut after a blank line, a line or a space, whichever there is."""
    at = 0
    while len(text) - at > max_chars:
        window = text[at : at + max_chars]
        cut = max_chars
        for mark in ("\n\n", "\n", " "):
            if (place := window.rfind(mark, max_chars // 2)) > 0:
                cut = place + len(mark)
                break
        yield window[:cut]
        at += cut
    yield text[at:]
