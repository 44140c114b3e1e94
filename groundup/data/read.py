"""The door: files of every kind become records, as they are. What can't be read is named, and the rest goes on."""

import bz2
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import zstandard

from groundup.base.errors import DataError
from groundup.data.config import ReadConfig
from groundup.data.decode import NotText, decode, looks_binary
from groundup.data.text import books, pieces

__all__ = ["CODE", "Problem", "Record", "SourceFile", "Stream", "find_files", "read_file", "sniff"]

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, OSError, ValueError)
CODE = {
    ".py": "Python", ".pyi": "Python", ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".hpp": "C++", ".rs": "Rust", ".go": "Go",
    ".java": "Java", ".js": "JavaScript", ".mjs": "JavaScript", ".ts": "TypeScript", ".tsx": "TypeScript", ".rb": "Ruby", ".php": "PHP",
    ".sh": "Shell", ".sql": "SQL", ".lua": "Lua", ".pl": "Perl", ".r": "R", ".jl": "Julia", ".scala": "Scala", ".kt": "Kotlin",
    ".swift": "Swift", ".cs": "C#", ".hs": "Haskell", ".ml": "OCaml", ".css": "CSS",
}  # fmt: skip
KINDS = {".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".rst": "markdown", ".html": "html", ".htm": "html",
         ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".warc": "warc", ".wet": "warc", ".xml": "wiki"}  # fmt: skip
COMPRESSED = (".gz", ".bz2", ".zst", ".zstd")
VENDORED = {"node_modules", "vendor", "third_party", "site-packages", "__pycache__", "bower_components", "dist", "build", "venv"}
TEXT_KEYS = ("text", "content", "body", "document")
BLOCK_BYTES = 32 << 20  # a plain text larger than this is read in blocks
FREE_BYTES = 256 << 20  # expansion below this is never called a bomb


@dataclass(frozen=True)
class SourceFile:
    """A file to read. `label` names it in ids and statistics: its path below the input folder, or its name."""

    path: Path
    label: str
    asked: bool = False  # named by the user, not found in a folder


@dataclass(frozen=True)
class Record:
    """One document as found: bytes or text, not yet extracted. `before` is text around a book that only a raw reading keeps."""

    id: str
    kind: str  # html, wiki, text, book, markdown, code
    payload: bytes | str
    source: str
    before: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()  # a wiki's own names for File:, Category: and so on


@dataclass(frozen=True)
class Problem:
    """Something that couldn't be read, or wasn't meant to be. `damage` tells the two apart."""

    file: str
    rule: str
    message: str
    damage: bool = True


class Stream(io.RawIOBase):
    """A file, decompressed by its first bytes. Where it is damaged it ends, and says so in `damage`; a bomb is damage too."""

    def __init__(self, path: Path, max_expansion: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 closed by close()
        magic = self._file.read(4)
        self._file.seek(0)
        self._inner: Any = self._file
        if magic[:2] == b"\x1f\x8b":
            self._inner = gzip.GzipFile(fileobj=self._file)
        elif magic[:3] == b"BZh":
            self._inner = bz2.BZ2File(self._file)
        elif magic == b"\x28\xb5\x2f\xfd":
            self._inner = zstandard.ZstdDecompressor().stream_reader(self._file, read_across_frames=True)
        self.packed = self._inner is not self._file
        self._limit = max(FREE_BYTES, path.stat().st_size * max_expansion) if self.packed else None
        self._at = 0
        self.damage = ""

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer; 0 at the end or at the damage."""
        if self.damage:
            return 0
        try:
            data = self._inner.read(len(buffer))
        except DAMAGED as error:
            self.damage = f"truncated or corrupt ({' '.join(str(error).split())})"
            return 0
        self._at += len(data)
        if self._limit is not None and self._at > self._limit:
            self.damage = f"expands to more than {self._limit >> 20} MB, which looks like a decompression bomb"
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


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
            found.append(SourceFile(root, root.name, asked=True))
            continue
        for folder, names, files in os.walk(root):
            where = Path(folder)
            for name in sorted(names):
                if name in VENDORED or name.startswith("."):
                    aside.append(Problem((where / name).relative_to(root).as_posix(), "vendored", "generated or foreign files", False))
            names[:] = sorted(n for n in names if n not in VENDORED and not n.startswith("."))
            for name in sorted(files):
                label = (where / name).relative_to(root).as_posix()
                suffix = _suffix(name)
                if name.startswith("."):
                    continue
                if suffix in KINDS or (suffix in CODE and config.code):
                    found.append(SourceFile(where / name, label))
                else:
                    aside.append(Problem(label, "unknown_type", f"'{suffix}' is no text that groundup reads", False))
    labels = [f.label for f in found]
    return [f if labels.count(f.label) == 1 else SourceFile(f.path, f.path.as_posix(), f.asked) for f in found], aside


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
    if kind == "parquet" or kind == "warc":
        return ""  # the name promises what the bytes don't hold
    return "text" if kind == "wiki" else kind


def read_file(file: SourceFile, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the records of one file and the problems met. Never raises for what is wrong with the file."""
    try:
        stream = Stream(file.path, config.max_expansion)
    except OSError as error:
        yield Problem(file.label, "unreadable", f"can't be opened ({error.strerror or error})")
        return
    with stream:
        buffered = io.BufferedReader(stream, 1 << 16)
        head = buffered.peek(4096)[:4096]
        if not head:
            yield Problem(file.label, "damaged" if stream.damage else "empty", stream.damage or "is empty")
            return
        kind = sniff(file.path.name, head)
        reader = {"parquet": _parquet, "warc": _warc, "wiki": _wiki, "jsonl": _jsonl, "": _foreign}.get(kind, _text)
        count = 0
        for item in reader(file, buffered, config, kind):
            count += isinstance(item, Record)
            yield item
        if stream.damage:
            kept = f"; the {count} documents before that are used" if count else ""
            yield Problem(file.label, "damaged", stream.damage + kept)


def _foreign(file: SourceFile, stream: BinaryIO, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    expected = "a Parquet file" if _suffix(file.path.name) == ".parquet" else "a WARC file"
    yield Problem(file.label, "foreign", f"isn't {expected}, whatever its name says")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
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


def _text(file: SourceFile, stream: BinaryIO, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
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
            yield Record(file.label, kind, data, file.label, meta=meta)
        else:
            source = file.label.partition("/")[0] if "/" in file.label else "code"
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
                yield Record(f"{file.label}:{number}", "book" if is_book else kind, part, file.label, before, about)
                before = ""


def _row(file: SourceFile, row: dict[str, Any], number: int) -> Record | None:
    """Returns the record of a JSONL or Parquet row, or None where no text is in it."""
    key = next((k for k in TEXT_KEYS if isinstance(row.get(k), str)), None)
    if key is None:
        return None
    nested = row.get("meta") or row.get("metadata") or {}
    if isinstance(nested, str):
        try:
            nested = json.loads(nested)
        except json.JSONDecodeError:
            nested = {}
    about = {**(nested if isinstance(nested, dict) else {}), **row}
    meta = {k: str(about[k]) for k in ("url", "lang", "licence", "title", "date") if about.get(k)}
    if "license" in about and about["license"]:
        meta["licence"] = str(about["license"])
    identity = row["id"] if isinstance(row.get("id"), (str, int)) else number
    kind = "code" if meta.get("lang") in CODE.values() else "text"
    return Record(f"{file.label}:{identity}", kind, row[key], str(row.get("source") or file.label), meta=meta)


def _jsonl(file: SourceFile, stream: BinaryIO, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    limit, number = config.max_record_mb << 20, 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            yield Problem(file.label, "too_large", f"line {number} is longer than {config.max_record_mb} MB (read.max_record_mb)")
            return
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Problem(file.label, "invalid_utf8", f"line {number} isn't UTF-8 (byte {error.start})")
            continue
        except (json.JSONDecodeError, RecursionError):
            if getattr(stream, "raw", None) is None or not stream.raw.damage:  # type: ignore[attr-defined]
                yield Problem(file.label, "not_json", f"line {number} isn't JSON")
            continue
        record = _row(file, row, number) if isinstance(row, dict) else None
        if record is None:
            shown = ", ".join(list(row)[:6]) if isinstance(row, dict) else type(row).__name__
            yield Problem(file.label, "no_text", f"line {number} has none of the keys {', '.join(TEXT_KEYS)} (it has {shown})")
            if number == 1:
                return
            continue
        yield record


def _parquet(file: SourceFile, stream: BinaryIO, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file.path)
        if not set(TEXT_KEYS) & set(table.schema_arrow.names):
            names = ", ".join(table.schema_arrow.names[:6])
            yield Problem(file.label, "no_text", f"has none of the columns {', '.join(TEXT_KEYS)} (it has {names})")
            return
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                if (record := _row(file, row, number)) is not None:
                    yield record
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        yield Problem(file.label, "damaged", f"isn't a whole Parquet file ({str(error).splitlines()[0]})")


def _warc(file: SourceFile, stream: BinaryIO, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
    limit, number = config.max_record_mb << 20, 0
    for record in ArchiveIterator(stream, record_types=wanted, parse_http=True):
        number += 1
        url = record.headers.get("WARC-Target-URI", "").strip("<> ")
        body = record.reader.read(limit + 1)
        if getattr(stream, "raw", None) is not None and stream.raw.damage:  # type: ignore[attr-defined]
            return  # this record is the one that was cut
        if len(body) > limit:
            yield Problem(file.label, "too_large", f"record {number} ({url}) is larger than {config.max_record_mb} MB")
            continue
        http = record.http_headers
        status = http.status_code if http is not None else 200
        content = (record.http_content_type or record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if status not in (200, None):
            yield Problem(f"{file.label}:{number}", "http_status", f"{url}: status {status}", False)
        elif content not in ("text/html", "application/xhtml+xml", "text/plain"):
            yield Problem(f"{file.label}:{number}", "content_type", f"{url}: {content or 'no content type'}", False)
        else:
            meta = {"url": url, "date": record.headers.get("WARC-Date", "")[:10], "charset": record.http_charset or ""}
            yield Record(f"{file.label}:{number}", "text" if content == "text/plain" else "html", body, file.label,
                         meta={k: v for k, v in meta.items() if v})  # fmt: skip
    if number == 0:
        yield Problem(file.label, "no_records", "has no response in it")


def _wiki(file: SourceFile, stream: BinaryIO, config: ReadConfig, kind: str) -> Iterator[Record | Problem]:
    """Yields the pages of a MediaWiki dump, redirects and other namespaces too: the next stage says why they leave."""
    base, language, names = "", "", {"File", "Image", "Category", "Media"}
    number, root = 0, None
    try:
        for event, element in ElementTree.iterparse(stream, events=("start", "end")):
            tag = element.tag.rpartition("}")[2]
            if root is None:
                root, language = element, element.get("{http://www.w3.org/XML/1998/namespace}lang", "")
            if event == "start":
                continue
            if tag == "base" and element.text:
                base = element.text.rpartition("/")[0] + "/"
            elif tag == "namespace" and element.text:
                names.add(element.text)
            elif tag == "page":
                number += 1
                found = {child.tag.rpartition("}")[2]: child for child in element}
                title = found["title"].text or "" if "title" in found else ""
                text = next((e.text or "" for e in element.iter() if e.tag.rpartition("}")[2] == "text"), "")
                meta = {"title": title, "url": base + title.replace(" ", "_") if base else "", "lang": language,
                        "page": found["id"].text if "id" in found else "", "licence": "CC BY-SA",
                        "namespace": found["ns"].text if "ns" in found and found["ns"].text != "0" else "",
                        "redirect": found["redirect"].get("title", "") if "redirect" in found else ""}  # fmt: skip
                yield Record(f"{file.label}:{number}", "wiki", text, file.label, meta={k: v for k, v in meta.items() if v},
                             namespaces=frozenset(names))  # fmt: skip
                root.clear()
    except ElementTree.ParseError as error:
        if not stream.raw.damage:  # type: ignore[attr-defined]
            kept = f"; the {number} pages before that are used" if number else ""
            yield Problem(file.label, "damaged", f"isn't whole XML ({error}){kept}")
