"""Containers of documents: JSONL, Parquet and MediaWiki dumps, one record at a time; what is damaged is named."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

from groundup.data.config import ReadConfig
from groundup.data.decode import Stream

__all__ = ["Problem", "Record", "SourceFile", "damage_of", "jsonl", "parquet", "whole", "wiki"]

TEXT_KEYS = ("text", "content", "body", "document")


@dataclass(frozen=True)
class SourceFile:
    """A file to read. `label` names it in ids: its path below the input folder, or its name. `source` is what it is counted under."""

    path: Path
    label: str
    asked: bool = False  # named by the user, not found in a folder
    licence: str = ""  # of the source tree that it lies in, where that is known
    source: str = ""


@dataclass(frozen=True)
class Record:
    """One document as found: bytes or text, not yet extracted. `before` is text around a book that only a raw reading keeps."""

    id: str
    kind: str  # html, wiki, text, book, markdown, code, pdf
    payload: bytes | str
    source: str
    before: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()  # a wiki's own names for File:, Category: and so on
    bare: bool = False  # a page whose markup is gone already, as in a WET file


@dataclass(frozen=True)
class Problem:
    """Something that couldn't be read, or wasn't meant to be. `damage` tells the two apart."""

    file: str
    rule: str
    message: str
    damage: bool = True


def damage_of(stream: BufferedReader) -> str:
    """Returns what is wrong with the file under a buffered `Stream`, "" if nothing is."""
    raw = stream.raw
    return raw.damage if isinstance(raw, Stream) else ""


def whole(text: str) -> str:
    """Returns the text without halves of characters (lone surrogates), which JSON and file names may hold and UTF-8 may not."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


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
    meta = {k: whole(str(about[k])) for k in ("url", "lang", "licence", "title", "date") if about.get(k)}
    if about.get("license"):
        meta["licence"] = whole(str(about["license"]))
    identity = row["id"] if isinstance(row.get("id"), (str, int)) else number
    source = whole(str(row.get("source") or file.source))
    return Record(whole(f"{file.label}:{identity}"), "text", whole(row[key]), source, meta=meta)


def jsonl(file: SourceFile, stream: BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the rows of a JSONL file that hold text."""
    limit, number = config.max_record_mb << 20, 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            yield Problem(
                file.label, "too_large", f"line {number} is longer than {config.max_record_mb} MB (read.max_record_mb)"
            )
            return
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Problem(file.label, "invalid_utf8", f"line {number} isn't UTF-8 (byte {error.start})")
            continue
        except (json.JSONDecodeError, RecursionError):
            if not damage_of(stream):
                yield Problem(file.label, "not_json", f"line {number} isn't JSON")
            continue
        record = _row(file, row, number) if isinstance(row, dict) else None
        if record is None:
            shown = ", ".join(list(row)[:6]) if isinstance(row, dict) else type(row).__name__
            yield Problem(
                file.label, "no_text", f"line {number} has no text under {', '.join(TEXT_KEYS)} (its keys: {shown})"
            )
            if number == 1:
                return
            continue
        yield record


def parquet(file: SourceFile, stream: BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the rows of a Parquet file that hold text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(cast(Stream, stream.raw).file, pre_buffer=False)  # which would hold many row groups
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


def wiki(file: SourceFile, stream: BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
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
                        "date": next((e.text or "" for e in element.iter() if e.tag.endswith("timestamp")), "")[:10],
                        "namespace": found["ns"].text if "ns" in found and found["ns"].text != "0" else "",
                        "redirect": found["redirect"].get("title", "") if "redirect" in found else ""}  # fmt: skip
                yield Record(f"{file.label}:{number}", "wiki", text, file.source, meta={k: v for k, v in meta.items() if v},
                             namespaces=frozenset(names))  # fmt: skip
                root.clear()
    except ElementTree.ParseError as error:
        if not damage_of(stream):
            kept = f"; the {number} pages before that are used" if number else ""
            yield Problem(file.label, "damaged", f"isn't whole XML ({error}){kept}")
