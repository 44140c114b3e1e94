"""The door: files of every kind become records, as they are. What can't be read is named, and the rest goes on."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from groundup.base.errors import DataError
from groundup.base.remote import address
from groundup.data.config import ReadConfig
from groundup.data.decode import NotText, Stream, decode, looks_binary
from groundup.data.formats import Problem, Record, SourceFile, jsonl, parquet, wiki
from groundup.data.kinds import CODE, KINDS, sniff, suffix_of
from groundup.data.pdf import pdf
from groundup.data.repository import blobs, is_bare
from groundup.data.sources import find_files
from groundup.data.text import Book, books, chapter_at, chapters, pieces
from groundup.data.warc import BEGIN, warc

__all__ = ["CODE", "Problem", "Record", "SourceFile", "find_files", "read_file", "sniff"]

BLOCK_BYTES = 32 << 20  # a plain text larger than this is read in blocks


def read_file(file: SourceFile, config: ReadConfig, opened: list[Stream] | None = None) -> Iterator[Record | Problem]:
    """Yields the records of one file and the problems met. Never raises for what is wrong with the file.

    opened: gets the stream that is read from, which tells its place.
    """
    if not address(file.path) and is_bare(file.path):
        yield from _repository(file, config)
        return
    if (
        not address(file.path) and file.path.exists() and not file.path.is_file()
    ):  # to open a pipe is to wait for its writer
        yield Problem(file.label, "unreadable", "is a pipe, a socket or a device, not a file")
        return
    try:
        stream = Stream(file.path, config.max_expansion)
    except DataError as error:
        yield Problem(file.label, "unreadable", str(error).removeprefix(f"{address(file.path)}: "))
        return
    except OSError as error:
        yield Problem(file.label, "unreadable", f"can't be opened ({error.strerror or error})")
        return
    if opened is not None:
        opened.append(stream)
    with stream:
        buffered: io.BufferedReader = cast(io.BufferedReader, io.BufferedReader(stream, 1 << 16))
        head = buffered.peek(4096)[:4096]
        if not head and (lost := stream.resume(BEGIN)):  # only a WARC's first record is damaged
            yield Problem(file.label, "damaged", lost)
            head = buffered.peek(4096)[:4096]
        if not head:
            quiet = suffix_of(file.path.name) in CODE and not file.asked  # a package's empty __init__.py is no damage
            yield Problem(file.label, "damaged" if stream.damage else "empty", stream.damage or "is empty", not quiet)
            return
        kind = sniff(file.path.name, head)
        container = {"parquet": parquet, "warc": warc, "wiki": wiki, "jsonl": jsonl, "pdf": pdf, "": _foreign}.get(kind)
        count = 0
        for item in container(file, buffered, config) if container else _text(file, buffered, config, kind):
            count += isinstance(item, Record)
            yield item
        if stream.damage:
            kept = f"; the {count} documents before that are used" if count else ""
            yield Problem(file.label, "damaged", stream.damage + kept)


def _repository(file: SourceFile, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the text files of a git repository without a work tree."""
    for item in blobs(file, config):
        if isinstance(item, Problem):
            yield item
            continue
        inner, stream, about = item
        kind = sniff(inner.path.name, stream.peek(4096)[:4096])
        if kind in ("text", "markdown", "html", "code"):
            for found in _text(inner, stream, config, kind):
                yield replace(found, meta=about | found.meta) if isinstance(found, Record) else found
        elif kind == "jsonl":
            yield from jsonl(inner, stream, config)
        else:
            yield Problem(inner.label, "unknown_type", "isn't read out of a repository", False)


def _foreign(file: SourceFile, stream: io.BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
    kind = KINDS[suffix_of(file.path.name)]
    names = {"parquet": "a Parquet file", "warc": "a WARC file", "pdf": "a PDF file"}
    expected = names.get(kind, "a MediaWiki dump")
    loose = kind == "wiki" and not file.asked and file.path.suffix.lower() == ".xml"  # other XML lies about everywhere
    yield Problem(file.label, "foreign", f"isn't {expected}, whatever its name says", not loose)


def _blocks(stream: io.BufferedReader) -> Iterator[bytes]:
    """Yields a stream in blocks that end at a line's end where there is one."""
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        data = rest + block
        cut = data.rfind(b"\n\n") + 2 if len(data) >= BLOCK_BYTES else 0
        cut = cut if cut > 1 else data.rfind(b"\n") + 1 or len(data)
        if len(block) < BLOCK_BYTES:
            cut = len(data)
        yield data[:cut]
        rest = data[cut:]
    if rest:
        yield rest


def _text(file: SourceFile, stream: io.BufferedReader, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    """Yields plain text, Markdown, books, code and single HTML pages; long prose in pieces."""
    meta: dict[str, Any] = {"path": file.label} | ({"licence": file.licence} if file.licence else {})
    if kind in ("html", "code"):
        limit = config.max_record_mb << 20
        data = stream.read(limit + 1)
        if len(data) > limit:
            yield Problem(file.label, "too_large", f"is larger than {config.max_record_mb} MB (read.max_record_mb)")
        elif looks_binary(data):
            yield Problem(file.label, "binary", "isn't text (it has control characters)")
        elif kind == "html":
            yield Record(file.label, kind, data, file.source, meta=meta)
        else:
            yield Record(file.label, kind, data, file.source, meta=meta | {"lang": CODE[suffix_of(file.path.name)]})
        return
    number = 0
    for data in _blocks(stream):
        try:
            text, encoding = decode(data)
        except NotText as error:
            yield Problem(file.label, error.rule, str(error))
            return
        extra = {} if encoding == "utf-8" else {"encoding": encoding}
        for book in books(text) if kind == "text" else [Book("", text)]:
            is_book, before, place = bool(book.before or book.title), book.before, 0
            said = {key: getattr(book, key) for key in ("title", "author", "lang", "date") if getattr(book, key)}
            about = meta | extra | ({"licence": "Project Gutenberg"} | said if is_book else {})
            found = chapters(book.text) if is_book else []
            for part in pieces(book.text, config.max_chars, [start for start, _ in found]):
                number += 1
                chapter = chapter_at(found, place + len(part) - len(part.lstrip()))
                here = about | ({"chapter": chapter} if chapter else {})
                yield Record(f"{file.label}:{number}", "book" if is_book else kind, part, file.source, before, here)
                before, place = "", place + len(part)
