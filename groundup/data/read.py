"""The door: files of every kind become records, as they are. What can't be read is named, and the rest goes on."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from groundup.base.errors import DataError
from groundup.data.config import ReadConfig
from groundup.data.decode import NotText, Stream, decode, looks_binary
from groundup.data.formats import Problem, Record, SourceFile, jsonl, parquet, whole, wiki
from groundup.data.text import books, pieces
from groundup.data.warc import warc

__all__ = ["CODE", "Problem", "Record", "SourceFile", "find_files", "read_file", "sniff"]

CODE = {
    ".py": "Python", ".pyi": "Python", ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".hpp": "C++", ".rs": "Rust", ".go": "Go",
    ".java": "Java", ".js": "JavaScript", ".mjs": "JavaScript", ".ts": "TypeScript", ".tsx": "TypeScript", ".rb": "Ruby", ".php": "PHP",
    ".sh": "Shell", ".sql": "SQL", ".lua": "Lua", ".pl": "Perl", ".r": "R", ".jl": "Julia", ".scala": "Scala", ".kt": "Kotlin",
    ".swift": "Swift", ".cs": "C#", ".hs": "Haskell", ".ml": "OCaml", ".css": "CSS",
}  # fmt: skip
KINDS = {
    ".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".rst": "markdown", ".html": "html", ".htm": "html",
    ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".warc": "warc", ".wet": "warc", ".xml": "wiki",
}  # fmt: skip
COMPRESSED = (".gz", ".bz2", ".zst", ".zstd")
VENDORED = {
    "node_modules",
    "vendor",
    "third_party",
    "site-packages",
    "__pycache__",
    "bower_components",
    "dist",
    "build",
    "venv",
}
BLOCK_BYTES = 32 << 20  # a plain text larger than this is read in blocks


def _suffix(name: str) -> str:
    """Returns the extension that tells the kind, without that of a compression."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def find_files(inputs: Iterable[Path], config: ReadConfig) -> tuple[list[SourceFile], list[Problem]]:
    """Returns the files below the inputs in a fixed order, and what was left aside. Raises: DataError for a missing path."""
    found: list[SourceFile] = []
    aside: list[Problem] = []
    for root in inputs:
        if not root.exists():
            raise DataError(f"{root}: no such file or folder; put raw files there or name others with --input")
        if not root.is_dir():
            found.append(SourceFile(root, whole(root.name), asked=True))
            continue
        for folder, names, files in os.walk(root):
            where = Path(folder)
            for name in sorted(names):
                if name in VENDORED or name.startswith("."):
                    label = (where / name).relative_to(root).as_posix()
                    aside.append(Problem(label, "vendored", "generated or foreign files", False))
            names[:] = sorted(n for n in names if n not in VENDORED and not n.startswith("."))
            for name in sorted(files):
                label = whole((where / name).relative_to(root).as_posix())
                suffix = _suffix(name)
                if name.startswith("."):
                    continue
                if suffix in KINDS or (suffix in CODE and config.code):
                    found.append(SourceFile(where / name, label))
                else:
                    aside.append(Problem(label, "unknown_type", f"'{suffix}' is no text that groundup reads", False))
    labels = Counter(f.label for f in found)
    return [f if labels[f.label] == 1 else SourceFile(f.path, f.path.as_posix(), f.asked) for f in found], aside


def sniff(name: str, head: bytes) -> str:
    """Returns the kind of a file from its first bytes; the extension decides only where they can't. "" is nothing we read."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1024].lower()
    if head[:4] == b"PAR1":
        return "parquet"
    if start.startswith(b"warc/"):
        return "warc"
    if b"<mediawiki" in start:
        return "wiki"
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    suffix = _suffix(name)
    if suffix in CODE:
        return "code"
    kind = KINDS.get(suffix, "text")
    return "" if kind in ("parquet", "warc", "wiki") else kind  # "": the name promises what the bytes don't hold


def read_file(file: SourceFile, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the records of one file and the problems met. Never raises for what is wrong with the file."""
    try:
        stream = Stream(file.path, config.max_expansion)
    except OSError as error:
        yield Problem(file.label, "unreadable", f"can't be opened ({error.strerror or error})")
        return
    with stream:
        buffered: io.BufferedReader = cast(io.BufferedReader, io.BufferedReader(stream, 1 << 16))
        head = buffered.peek(4096)[:4096]
        if not head:
            quiet = _suffix(file.path.name) in CODE and not file.asked  # a package's empty __init__.py is no damage
            yield Problem(file.label, "damaged" if stream.damage else "empty", stream.damage or "is empty", not quiet)
            return
        kind = sniff(file.path.name, head)
        container = {"parquet": parquet, "warc": warc, "wiki": wiki, "jsonl": jsonl, "": _foreign}.get(kind)
        count = 0
        for item in container(file, buffered, config) if container else _text(file, buffered, config, kind):
            count += isinstance(item, Record)
            yield item
        if stream.damage:
            kept = f"; the {count} documents before that are used" if count else ""
            yield Problem(file.label, "damaged", stream.damage + kept)


def _foreign(file: SourceFile, stream: io.BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
    kind = KINDS[_suffix(file.path.name)]
    expected = {"parquet": "a Parquet file", "warc": "a WARC file"}.get(kind, "a MediaWiki dump")
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


def _source(file: SourceFile) -> str:
    """Returns what a single file is counted under: the first folder below the input, or its own name."""
    return file.label if file.asked else file.label.partition("/")[0]


def _text(file: SourceFile, stream: io.BufferedReader, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    """Yields plain text, Markdown, books, code and single HTML pages; long prose in pieces."""
    meta: dict[str, Any] = {"path": file.label}
    if kind in ("html", "code"):
        limit = config.max_record_mb << 20
        data = stream.read(limit + 1)
        if len(data) > limit:
            yield Problem(file.label, "too_large", f"is larger than {config.max_record_mb} MB (read.max_record_mb)")
        elif looks_binary(data):
            yield Problem(file.label, "binary", "isn't text (it has control characters)")
        elif kind == "html":
            yield Record(file.label, kind, data, _source(file), meta=meta)
        else:
            source = _source(file) if "/" in file.label else "code"
            yield Record(file.label, kind, data, source, meta=meta | {"lang": CODE[_suffix(file.path.name)]})
        return
    number = 0
    for data in _blocks(stream):
        try:
            text, encoding = decode(data)
        except NotText as error:
            yield Problem(file.label, error.rule, str(error))
            return
        extra = {} if encoding == "utf-8" else {"encoding": encoding}
        for before, body, title in books(text) if kind == "text" else [("", text, "")]:
            is_book = bool(before or title)
            about = meta | extra | ({"title": title, "licence": "Project Gutenberg"} if is_book else {})
            for part in pieces(body, config.max_chars):
                number += 1
                yield Record(f"{file.label}:{number}", "book" if is_book else kind, part, _source(file), before, about)
                before = ""
