"""Real documents for the curation benchmarks: the HTML of named Debian documentation packages, and books; no document twice.

`corpus(folder, count)` fetches the packages with apt, keeps `count` pages chosen by hash, and writes pages.warc.gz and texts.jsonl.
"""

import contextlib
import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import xxhash
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

PACKAGES = ("python3.11-doc", "postgresql-doc-15", "linux-doc-6.1", "git-doc", "sqlite3-doc", "erlang-doc", "python-django-doc",
            "python-scipy-doc", "python-sympy-doc", "octave-doc", "qtbase5-doc-html", "libglib2.0-doc", "libgtk-3-doc", "cmake-doc",
            "libstdc++-12-doc", "libboost1.74-doc", "openjdk-17-doc", "debian-reference-en",
            "developers-reference", "bash-doc")  # fmt: skip
DATA = Path(os.environ.get("GROUNDUP_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
BOOKS = DATA / "raw" / "gutenberg-books.txt"
PAGE_BYTES = (2_000, 400_000)
BOOK_CHARS = 8_000


def pages(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (address, HTML) of every page of the packages."""
    debs = folder / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        tree = folder / "html" / package
        if not tree.exists():
            if not list(debs.glob(f"{package}_*.deb")):
                subprocess.run(["apt-get", "download", "-q", package], cwd=debs, check=True, capture_output=True)
            tree.mkdir(parents=True)
            archive = subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", next(debs.glob(f"{package}_*.deb"))], stdout=subprocess.PIPE
            )
            subprocess.run(
                ["tar", "-x", "-C", tree, "--wildcards", "*.html"], stdin=archive.stdout, stderr=subprocess.DEVNULL
            )
        for path in sorted(p for p in tree.rglob("*.html") if p.is_file() and not p.is_symlink()):
            data = path.read_bytes()
            if PAGE_BYTES[0] <= len(data) <= PAGE_BYTES[1]:
                yield f"https://{package}.example/{path.relative_to(tree).as_posix()}", data


def texts_of_books() -> Iterator[tuple[str, str]]:
    """Yields (id, text): the books in pieces."""
    if BOOKS.exists():
        text = BOOKS.read_text(encoding="utf-8", errors="replace")
        for at in range(0, len(text), BOOK_CHARS):
            yield f"book:{at}", text[at : at + BOOK_CHARS]


def corpus(folder: Path, count: int) -> tuple[Path, Path]:
    """Returns the WARC and the JSONL of `count` distinct documents (books only in the JSONL), made where they are missing."""
    warc, rows = folder / f"pages-{count}.warc.gz", folder / f"texts-{count}.jsonl"
    if rows.exists():
        return warc, rows
    chosen = sorted(pages(folder), key=lambda page: xxhash.xxh64_intdigest(page[0].encode()))
    seen: set[str] = set()
    with (
        gzip.open(warc.with_suffix(".part"), "wb", 1) as archive,
        open(rows.with_suffix(".part"), "w", encoding="utf-8") as out,
    ):

        def put(name: str, text: str) -> bool:
            if len(text) < 200 or text in seen:
                return False
            seen.add(text)
            out.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            return True

        for name, text in texts_of_books():
            put(name, text)
        for address, data in chosen:
            if len(seen) >= count:
                break
            text = ""
            with contextlib.suppress(ValueError):
                text = extract_plain_text(HTMLTree.parse_from_bytes(data, "utf-8"), main_content=True, alt_texts=False)
            if put(address, text):
                http = (
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
                    % len(data)
                    + data
                )
                fields = {"WARC-Type": "response", "WARC-Target-URI": address, "WARC-Date": "2025-01-01T00:00:00Z",
                          "WARC-Record-ID": f"<urn:uuid:{xxhash.xxh128_hexdigest(address.encode())}>",
                          "Content-Type": "application/http; msgtype=response", "Content-Length": str(len(http))}  # fmt: skip
                head = "WARC/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in fields.items()) + "\r\n"
                archive.write(head.encode() + http + b"\r\n\r\n")
    warc.with_suffix(".part").rename(warc)
    rows.with_suffix(".part").rename(rows)
    return warc, rows
