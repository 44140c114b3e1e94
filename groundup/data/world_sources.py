"""The small world in the formats of the web: HTML pages in a WARC, a MediaWiki dump, a Gutenberg book, source code.

Everything here is a function of its arguments, byte for byte: no clock, no random identifiers.
"""

import bz2
import gzip
import hashlib
import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Page", "page_html", "write_book", "write_code", "write_warc", "write_wiki"]

DATE = "2025-03-01T12:00:00Z"
SITES = (
    "harbour-news",
    "village-diary",
    "small-stories",
    "quiet-corner",
    "market-letter",
    "tower-times",
    "barn-and-garden",
)
MENU = ("Home", "News", "Archive", "Shop", "Contact", "About us", "Log in")
ADVERTS = (
    "Advertisement: buy two lamps, pay for one!", "Sponsored: cheap flights to sunny islands from 19.99", "Win a phone today, click here",
    "Subscribe to our newsletter and never miss an offer", "Top 10 tricks that your dentist won't tell you",
)  # fmt: skip
COOKIES = ("We use cookies to improve your experience. Accept all cookies? Settings | Reject | Accept",
           "This website and its 214 partners store information on your device. Manage choices | Agree")  # fmt: skip
STYLE = "body{font-family:serif;margin:2em}nav li{display:inline}.ad{border:1px solid}"
SCRIPT = "window.dataLayer=window.dataLayer||[];function track(e){dataLayer.push(e)}track('view');"


@dataclass(frozen=True)
class Page:
    """A page before it has a format: what it is called, its paragraphs, and what kind of page it is."""

    title: str
    paragraphs: tuple[str, ...]
    kind: str
    language: str = "en"


def page_html(page: Page, number: int) -> str:
    """Returns the page as a website would send it; `number` chooses the site's layout and its clutter."""
    site = SITES[number % len(SITES)].replace("-", " ").title()
    menu = "".join(f'<li><a href="/{m.lower().replace(" ", "-")}">{m}</a></li>' for m in MENU)
    cookies, advert = COOKIES[number % 2], ADVERTS[number % len(ADVERTS)]
    body = "\n".join(f"<p>{html.escape(p, quote=False)}</p>" for p in page.paragraphs)
    title = html.escape(page.title)
    inner = (f'<article class="post"><h1>{title}</h1>\n{body}\n</article>', f'<main><h1>{title}</h1>\n{body}\n</main>',
             f'<div id="main-content" class="content"><h1>{title}</h1>\n{body}\n</div>')[number % 3]  # fmt: skip
    return (
        f'<!DOCTYPE html>\n<html lang="{page.language}"><head><meta charset="utf-8"><title>{title} | {site}</title>'
        f"<style>{STYLE}</style><script>{SCRIPT}</script></head>\n<body>\n"
        f'<div class="cookie-banner" id="cookie-consent">{cookies}</div>\n'
        f'<header class="site-header"><a href="/">{site}</a></header>\n<nav class="menu"><ul>{menu}</ul></nav>\n'
        f'{inner}\n<aside class="sidebar ad"><a href="/offer">{advert}</a></aside>\n'
        f'<footer class="footer">Copyright 2025 {site}. All rights reserved. <a href="/privacy">Privacy</a> <a href="/terms">Terms</a>'
        f'</footer>\n<noscript><img src="/pixel.gif" alt=""></noscript></body></html>\n'
    )


def _record(kind: str, headers: Sequence[tuple[str, str]], body: bytes, name: str) -> bytes:
    """Returns one WARC/1.1 record in a gzip member of its own, as the specification asks for."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    uuid = f"{identity[:8]}-{identity[8:12]}-{identity[12:16]}-{identity[16:20]}-{identity[20:32]}"
    rows = [("WARC-Type", kind), ("WARC-Record-ID", f"<urn:uuid:{uuid}>"), ("WARC-Date", DATE), *headers,
            ("Content-Length", str(len(body)))]  # fmt: skip
    head = "WARC/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in rows) + "\r\n"
    return gzip.compress(head.encode() + body + b"\r\n\r\n", compresslevel=4, mtime=0)


def write_warc(path: Path, pages: Iterable[Page]) -> None:
    """Writes pages as a crawler stores them: a warcinfo record, requests and responses, some of them not pages at all."""
    with open(path, "wb") as out:
        info = b"software: groundup\r\nformat: WARC File Format 1.1\r\ndescription: the small world\r\n"
        out.write(_record("warcinfo", [("Content-Type", "application/warc-fields")], info, "info"))
        for number, page in enumerate(pages):
            url = f"https://{SITES[number % len(SITES)]}.example/{page.language}/{number}.html"
            if number % 50 == 0:
                request = f"GET /{number}.html HTTP/1.1\r\nHost: {SITES[number % len(SITES)]}.example\r\n\r\n".encode()
                headers = [("WARC-Target-URI", url), ("Content-Type", "application/http; msgtype=request")]
                out.write(_record("request", headers, request, f"request {number}"))
            status, kind = ("404 Not Found", "text/html") if page.kind == "error" else ("200 OK", "text/html")
            payload = page_html(page, number).encode()
            http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(payload)}\r\n\r\n"
            headers = [("WARC-Target-URI", url), ("Content-Type", "application/http; msgtype=response"),
                       ("WARC-Payload-Digest", f"sha256:{hashlib.sha256(payload).hexdigest()}")]  # fmt: skip
            out.write(_record("response", headers, http.encode() + payload, f"response {number}"))
        pixel = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 6\r\n\r\nGIF89a"
        headers = [
            ("WARC-Target-URI", "https://small-stories.example/pixel.gif"),
            ("Content-Type", "application/http; msgtype=response"),
        ]
        out.write(_record("response", headers, pixel, "pixel"))


def _wiki_markup(page: Page, links: Sequence[str]) -> str:
    """Returns the page as wiki text: an infobox, links on the first mention of known names, a reference, categories."""
    lines = [f"{{{{Infobox place\n| name = {page.title}\n| area = unknown\n}}}}"]
    for i, paragraph in enumerate(page.paragraphs):
        for name in links:
            if f" {name} " in paragraph:
                paragraph = paragraph.replace(f" {name} ", f" [[{name}|{name}]] " if i % 2 else f" [[{name}]] ", 1)
        if i == 0:
            paragraph = f"{paragraph}<ref>{{{{cite web |url=https://small-stories.example/ |title=Stories}}}}</ref>"
        lines.append(paragraph)
    lines.append("== See also ==\n* [[Small world]]\n\n== References ==\n{{Reflist}}\n\n[[Category:Small world]]")
    return "\n\n".join(lines)


def write_wiki(path: Path, pages: Sequence[Page], links: Sequence[str]) -> None:
    """Writes a MediaWiki export (schema 0.11, bzip2) with articles, a redirect and a talk page."""

    def entry(number: int, title: str, namespace: int, text: str, redirect: str = "") -> str:
        extra = f'    <redirect title="{html.escape(redirect)}" />\n' if redirect else ""
        return (
            f"  <page>\n    <title>{html.escape(title)}</title>\n    <ns>{namespace}</ns>\n    <id>{number}</id>\n{extra}"
            f"    <revision>\n      <id>{number + 1000}</id>\n      <timestamp>{DATE}</timestamp>\n"
            f"      <contributor><username>Chronicler</username><id>7</id></contributor>\n      <model>wikitext</model>\n"
            f'      <format>text/x-wiki</format>\n      <text bytes="{len(text.encode())}" xml:space="preserve">'
            f"{html.escape(text, quote=False)}</text>\n    </revision>\n  </page>\n"
        )

    parts = [
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n',
        "  <siteinfo><sitename>Small World Wiki</sitename><dbname>smallwiki</dbname></siteinfo>\n",
        entry(1, "The world", 0, "#REDIRECT [[Small world]]", "Small world"),
        entry(2, "Talk:Small world", 1, "Please sign your posts. ~~~~"),
        *(entry(number, page.title, 0, _wiki_markup(page, links)) for number, page in enumerate(pages, 10)),
        "</mediawiki>\n",
    ]
    path.write_bytes(bz2.compress("".join(parts).encode()))


def write_book(path: Path, chapters: Sequence[Page]) -> None:
    """Writes the chapters as a plain-text e-book: licence before and after, lines of 72 characters."""
    head = (
        "The Project Gutenberg eBook of The Small World\n\nThis ebook is for the use of anyone anywhere at no cost and with\n"
        "almost no restrictions whatsoever.\n\nTitle: The Small World\n\nAuthor: A. Chronicler\n\nLanguage: English\n\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK THE SMALL WORLD ***\n\n\nTHE SMALL WORLD\n\n"
    )
    foot = (
        "\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE SMALL WORLD ***\n\nUpdated editions will replace the previous one.\n"
        "This text is made up; it only wears the dress of such a file.\n"
    )
    parts = []
    for number, chapter in enumerate(chapters, 1):
        wrapped = [textwrap.fill(p, 72, break_long_words=False, break_on_hyphens=False) for p in chapter.paragraphs]
        parts.append("\n\n".join([f"CHAPTER {number}", chapter.title, *wrapped]))
    path.write_text(head + "\n\n\n".join(parts) + foot, encoding="utf-8", newline="\n")


def write_code(folder: Path, modules: Sequence[tuple[str, Sequence[tuple[int, int]]]]) -> None:
    """Writes a small package of Python: one module a thing, which adds up pairs of amounts."""
    folder.mkdir()
    (folder / "__init__.py").write_text(
        '"""Counting the things of the small world."""\n', encoding="utf-8", newline="\n"
    )
    for thing, pairs in modules:
        checks = "\n".join(f"    assert add_{thing}s({a}, {b}) == {a + b}" for a, b in pairs)
        text = (
            f'"""How many {thing}s there are."""\n\n\ndef add_{thing}s(here, there):\n'
            f'    """Returns how many {thing}s there are in two places together."""\n    return here + there\n\n\n'
            f"def test_add_{thing}s():\n{checks}\n"
        )
        (folder / f"{thing}s.py").write_text(text, encoding="utf-8", newline="\n")
