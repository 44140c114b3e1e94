"""PDF: the text of its pages as paragraphs, without running heads and page numbers; hyphens at line ends are gone."""

import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from io import BufferedReader
from typing import Any

from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, Record, SourceFile, damage_of
from groundup.data.text import pieces

__all__ = ["paragraphs", "pdf"]

HYPHEN = "\x02"  # what PDFium puts for a hyphen at a line's end, in place of the break
EDGE_LINES, EDGE_PAGES = 2, 3  # lines at a page's top and bottom; they are furniture if this many pages have them there
NUMBER = re.compile(r"\W*(?:page )?(?:\d{1,4}|[ivxlc]{1,7})(?: (?:of|/) \d+)?\W*", re.IGNORECASE)
ITEM = re.compile(
    r"(?:[•●▪◦‣–*-]|\(?(?:\d{1,3}|[a-z])[.)]|(?:\d{1,3}\.)+\d{1,3}\.?)\s"
)  # a list's item, a numbered heading
LEADERS = re.compile(r"\.(?: ?\.){4}")  # a table of contents
FULL = 0.85  # a line this full, counted with the next word, was broken by the width; fonts are proportional
DATE = re.compile(r"D:(\d{4})(\d{2})(\d{2})")


def pdf(file: SourceFile, stream: BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the text of a PDF file, a long one in pieces; what has none, is locked or broken is named."""
    if find_spec("pypdfium2") is None:
        yield Problem(file.label, "no_pdf_reader", "is a PDF file; to read such files: pip install 'groundup[pdf]'")
        return
    limit = config.max_record_mb << 20
    data = stream.read(limit + 1)
    if len(data) > limit:
        yield Problem(file.label, "too_large", f"is larger than {config.max_record_mb} MB (read.max_record_mb)")
        return
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        if not damage_of(stream):
            yield Problem(
                file.label,
                *(("locked", "is locked by a password") if locked else ("damaged", "isn't a whole PDF file")),
            )
        return
    try:
        meta, pages = _about(document), list(_pages(document, limit))
    finally:
        document.close()
    text = paragraphs(pages)
    if not text:
        yield Problem(file.label, "no_text", f"has no text on its {len(pages)} pages (pictures of text aren't read)")
        return
    for number, part in enumerate(pieces(text, config.max_chars), 1):
        yield Record(f"{file.label}:{number}", "pdf", part, file.source, meta={"path": file.label, **meta})


def _about(document: Any) -> dict[str, Any]:
    """Returns what the file says about itself: title, author, date."""
    known = document.get_metadata_dict()
    day = DATE.match(known.get("CreationDate", ""))
    meta = {
        "title": known.get("Title", ""),
        "author": known.get("Author", ""),
        "date": "-".join(day.groups()) if day else "",
    }
    return {key: " ".join(value.split()) for key, value in meta.items() if value.strip()}


def _pages(document: Any, limit: int) -> Iterator[list[str]]:
    """Yields the lines of each page, until there is more text than a record may have."""
    import pypdfium2

    total = 0
    for number in range(len(document)):
        try:
            page = document[number]
            words = page.get_textpage()
        except pypdfium2.PdfiumError:  # one broken page
            yield []
            continue
        text = words.get_text_bounded()
        words.close()
        page.close()
        total += len(text)
        yield [line.strip() for line in text.splitlines() if line.strip()]
        if total > limit:
            return


def _key(line: str) -> str:
    """Returns what a running head has on every page: all but its numbers."""
    return re.sub(r"[\d\W]+", " ", line).strip().lower()


def _body(pages: list[list[str]]) -> Iterator[str]:
    """Yields the lines without the furniture at the pages' edges."""
    tops = Counter(_key(line) for page in pages for line in page[:EDGE_LINES])
    bottoms = Counter(_key(line) for page in pages for line in page[-EDGE_LINES:])

    def furniture(line: str, counts: Counter[str]) -> bool:
        return bool(NUMBER.fullmatch(line)) or counts[_key(line)] >= EDGE_PAGES

    for number, page in enumerate(pages):
        start, stop = 0, len(page)
        while (
            number and start < min(EDGE_LINES, stop) and furniture(page[start], tops)
        ):  # on the first page it is the title
            start += 1
        while stop > max(len(page) - EDGE_LINES, start) and furniture(page[stop - 1], bottoms):
            stop -= 1
        yield from (line for line in page[start:stop] if not LEADERS.search(line))


def paragraphs(pages: list[list[str]]) -> str:
    """Returns the text of some pages, one paragraph a line.

    A line goes on in the next one if it was broken by the width: the next line's first word wouldn't have fitted on it.
    """
    lines = list(_body(pages))
    lengths = sorted(map(len, lines))
    width = lengths[int(len(lengths) * 0.9)] if lengths else 0
    out: list[str] = []
    before = ""
    for line in lines:
        full = len(before) + 1 + len(line.split(None, 1)[0]) > FULL * width
        if out and before.endswith(HYPHEN):
            out[-1] = out[-1].rstrip(HYPHEN) + line
        elif out and full and not ITEM.match(line):
            out[-1] += " " + line
        else:
            out.append(line)
        before = line
    return "\n".join(out).replace(HYPHEN, "")
