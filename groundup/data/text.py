"""Plain text: books with a licence around them, their chapters, and long texts cut at chapters or between paragraphs."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Book", "books", "chapter_at", "chapters", "pieces"]

MARK = re.compile(
    r"^\*{3}\s*(START|END) OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[ ,:]*(.*?)\s*\*{3}[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
LAST_LINE = re.compile(
    r"\n\s*End of (?:the )?Project Gutenberg(?:'s|’s)?(?: EBook)?\b[^\n]*(?:\n[^\n]+)*\s*\Z", re.IGNORECASE
)
HEADER_FIELD = re.compile(r"^(Title|Author|Language|Release Date):[ \t]*(.+)$", re.MULTILINE | re.IGNORECASE)
LANGUAGES = {"english": "en", "french": "fr", "german": "de", "spanish": "es", "italian": "it", "dutch": "nl", "portuguese": "pt",
             "finnish": "fi", "latin": "la", "greek": "el", "danish": "da", "swedish": "sv", "polish": "pl", "hungarian": "hu"}  # fmt: skip
YEAR = re.compile(r"\b(1[5-9]\d\d|20\d\d)\b")
NUMBERED = (
    r"(?:CHAPTER|Chapter|BOOK|Book|PART|Part|ACT|Act|SCENE|Scene|LETTER|Letter|STAVE|Stave|CANTO|Canto|ADVENTURE)[ \t]+"
    r"(?:[IVXLCDM]+|\d+|[A-Z]+|(?:Th|F|S|N|T|O|E)[a-z]+)\b(?!,)\.?[^\n]{0,80}"
)
TITLED = r"[IVXLC]+\.[ \t]+[A-Z][A-Z',. -]{3,80}"
# A heading stands alone between empty lines; a line in capitals below it is its title.
CHAPTER = re.compile(
    rf"(?:\A|(?<=\n\n))[ \t]*({NUMBERED}|{TITLED})\n(?:\s*\n[ \t]*([A-Z][^a-z\n]{{3,80}})(?=\n))?(?=\s*\n)"
)


class Book(NamedTuple):
    """A Project Gutenberg book: what stands around it, the book itself, and what its header says."""

    before: str
    text: str
    title: str = ""
    author: str = ""
    lang: str = ""
    date: str = ""  # the year of its release there


def books(text: str) -> Iterator[Book]:
    """Yields each Project Gutenberg book in a text; a text without marks once.

    A book reaches from its START line to its END line; licence, donation appeals and the next book's header lie outside.
    """
    marks = list(MARK.finditer(text))
    starts = [m for m in marks if m[1].upper() == "START"]
    if not starts:
        yield Book("", text)
        return
    outside = 0
    for number, start in enumerate(starts):
        limit = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        end = next((m for m in marks if m[1].upper() == "END" and start.end() <= m.start() < limit), None)
        stop = end.start() if end else limit
        before = text[outside : start.end()] + "\n"
        said = {key.lower(): value.strip() for key, value in HEADER_FIELD.findall(before)}
        year = YEAR.search(said.get("release date", ""))
        yield Book(before, LAST_LINE.sub("\n", text[start.end() : stop]), said.get("title") or start[2].title(), said.get("author", ""),
                   LANGUAGES.get(said.get("language", "").lower(), ""), year[1] if year else "")  # fmt: skip
        outside = stop


def chapters(text: str) -> list[tuple[int, str]]:
    """Returns where the chapters of a book begin, and what they are called: (place, "CHAPTER I: THE GREAT MIGRATION")."""
    return [
        (m.start(1), ": ".join(" ".join(part.split()) for part in m.groups() if part)) for m in CHAPTER.finditer(text)
    ]


def chapter_at(found: Sequence[tuple[int, str]], place: int) -> str:
    """Returns the chapter in which a place lies, "" before the first."""
    at = bisect_right(found, place, key=lambda chapter: chapter[0])
    return found[at - 1][1] if at else ""


def pieces(text: str, max_chars: int, breaks: Sequence[int] = ()) -> Iterator[str]:
    """Yields a text in pieces of at most `max_chars` characters, cut at one of the `breaks`, after a blank line, a line or a space:
    at the first of these that there is in the second half of a piece."""
    at = 0
    while len(text) - at > max_chars:
        window = text[at : at + max_chars]
        cut = max_chars
        last = bisect_left(breaks, at + max_chars) - 1
        if last >= 0 and breaks[last] > at + max_chars // 2:
            cut = breaks[last] - at
        else:
            for mark in ("\n\n", "\n", " "):
                if (place := window.rfind(mark, max_chars // 2)) > 0:
                    cut = place + len(mark)
                    break
        yield text[at : at + cut]
        at += cut
    yield text[at:]
