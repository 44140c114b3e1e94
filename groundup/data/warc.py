"""WARC and WET files: the pages of a crawl, a record at a time; where a file is mixed up or damaged, reading goes on at the next."""

import io
import re
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import zstandard

from groundup.data.config import ReadConfig
from groundup.data.decode import Stream
from groundup.data.formats import Problem, Record, SourceFile, damage_of

__all__ = ["BEGIN", "Lost", "warc", "warc_records"]

PAGES = ("text/html", "application/xhtml+xml", "text/plain")
BEGIN = b"WARC/"  # of a record
MARK = re.compile(rb"WARC/1\.\d\r?\n")
MARK_BYTES = 10
KEPT_BYTES = 4 << 20  # of what was read last, to look for the next record in
# The commonest of the languages as Common Crawl names them, to their usual codes.
ISO_639_3 = {
    "ara": "ar", "bul": "bg", "ces": "cs", "dan": "da", "deu": "de", "ell": "el", "eng": "en", "fas": "fa", "fin": "fi", "fra": "fr",
    "heb": "he", "hin": "hi", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl", "nor": "no", "pol": "pl",
    "por": "pt", "ron": "ro", "rus": "ru", "spa": "es", "swe": "sv", "tha": "th", "tur": "tr", "ukr": "uk", "vie": "vi", "zho": "zh",
}  # fmt: skip


class Lost(NamedTuple):
    """A stretch of a file in which there is no record: what is wrong ("" where the file's end is the damage), and from where on."""

    message: str
    since: int = sys.maxsize  # a record that begins here or later may be wrong


class Window(io.RawIOBase):
    """A stream that remembers the last of what was read, so that a reader who lost the thread can take it up again."""

    def __init__(self, stream: io.BufferedReader | Stream) -> None:
        self._stream, self._again, self._at = stream, b"", 0
        self._last, self._kept = deque[bytes](), 0  # what was read last, as it came, and its bytes

    def readable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the bytes read."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, first with what is to be read again."""
        if self._again:
            data, self._again = self._again[: len(buffer)], self._again[len(buffer) :]
        else:
            data = self._stream.read(len(buffer)) or b""
        self._at += len(data)
        self._last.append(data)
        self._kept += len(data)
        while self._kept - len(self._last[0]) >= KEPT_BYTES:
            self._kept -= len(self._last.popleft())
        buffer[: len(data)] = data
        return len(data)

    def seek_record(self, after: int) -> bool:
        """Returns whether a record begins behind the place `after`, which is where reading then goes on."""
        data, start = b"".join(self._last), self._at - self._kept
        self._last.clear()
        self._kept = 0
        data, start = data[max(after - start, 0) :] + self._again, max(after, start)
        while (found := MARK.search(data)) is None:
            more = self._stream.read(1 << 20) or b""
            if not more:
                self._again, self._at = b"", start + len(data)
                return False
            start, data = start + len(data[:-MARK_BYTES]), data[-MARK_BYTES:] + more
        self._again, self._at = data[found.start() :], start + found.start()
        return True

    def resume(self) -> Lost | None:
        """Returns what a damage of the file has cost, None where it has none; reading goes on where a gzip member begins a record."""
        raw = self._stream.raw if isinstance(self._stream, io.BufferedReader) else self._stream
        if not isinstance(raw, Stream) or not raw.damage:
            return None
        self._last.clear()
        self._kept, since = 0, raw.sound()
        return Lost(raw.resume(BEGIN), since)


def warc_records(stream: io.BufferedReader | Stream, check: bool = False) -> Iterator[Any]:
    """Yields the records of a WARC file as fastwarc has them, and a `Lost` for each stretch that is none.

    check: for one who asks whether the file is whole: it ends at a damage, and the headers of HTTP stay in the records.
    """
    from fastwarc.warc import ArchiveIterator

    window, number, last, more = Window(stream), 0, 0, True
    while more:
        more = False
        try:
            for record in ArchiveIterator(window, parse_http=not check):
                number, last = number + 1, record.stream_pos
                yield record
        except OSError:
            more = window.seek_record(last + 1)
            last = window.tell()
            yield Lost(f"is mixed up after record {number}" + (": what stands there is no record" if more else ""))
        if not more and not check and (lost := window.resume()):
            more, last = bool(lost.message), window.tell()
            yield lost


def warc(file: SourceFile, stream: io.BufferedReader, config: ReadConfig) -> Iterator[Record | Problem]:
    """Yields the pages of a WARC (or WET) file; other answers of the servers are set aside."""
    from fastwarc.warc import WarcRecordType

    wanted = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion)
    number = place = 0
    held: Record | Problem | None = (
        None  # the last page, until what stands behind it shows that its gzip member is whole
    )
    for record in warc_records(stream):
        if isinstance(record, Lost):
            held = None if place >= record.since else held
            if record.message and not damage_of(stream):
                yield Problem(file.label, "damaged", record.message)
            continue
        if held:
            yield held
        held, place = None, record.stream_pos
        if record.record_type not in wanted:
            continue
        number += 1
        found = _page(record, f"{file.label}:{number}", file, config)
        if isinstance(found, Problem) and found.rule == "damaged" and damage_of(stream):
            continue  # the whole loss is told where reading goes on
        held = found
    if held:
        yield held
    if number == 0:
        yield Problem(file.label, "no_records", "has no response in it")


def _page(record: Any, id_: str, file: SourceFile, config: ReadConfig) -> Record | Problem:
    """Returns the page in a WARC record, or why it is none."""
    from fastwarc.warc import WarcRecordType

    number = id_.rpartition(":")[2]
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    limit, length = config.max_record_mb << 20, record.content_length  # of the body, now that the HTTP headers are read
    body = record.reader.read(limit + 1)
    if len(body) < min(length, limit + 1):
        return Problem(file.label, "damaged", f"ends within record {number} ({url})")
    http = record.http_headers
    if http is not None:
        body = _unpacked(
            body, (http.get("Transfer-Encoding") or "").lower(), (http.get("Content-Encoding") or "").lower(), limit
        )
    if len(body) > limit:
        return Problem(file.label, "too_large", f"record {number} ({url}) is larger than {config.max_record_mb} MB")
    status = http.status_code if http is not None else 200
    content = (record.http_content_type or record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if status not in (200, None):
        return Problem(id_, "http_status", f"{url}: status {status}", False)
    if content not in PAGES:
        return Problem(id_, "content_type", f"{url}: {content or 'no content type'}", False)
    conversion = record.record_type == WarcRecordType.conversion
    languages = (record.headers.get("WARC-Identified-Content-Language") or "").split(",")
    meta = {"url": url, "date": (record.headers.get("WARC-Date") or "")[:10], "charset": record.http_charset or "",
            "lang": ISO_639_3.get(languages[0], "")}  # fmt: skip
    kind = "text" if content == "text/plain" and not conversion else "html"
    return Record(id_, kind, body, file.source, meta={k: v for k, v in meta.items() if v}, bare=conversion)


def _unpacked(body: bytes, transfer: str, encoding: str, limit: int) -> bytes:
    """Returns an HTTP body without its chunks and compression, at most limit + 1 bytes; as it is where it hasn't got what its headers say.

    Some archives keep the body as it came over the line, others keep only the headers so.
    """
    if "chunked" in transfer:
        body = _joined(body)
    try:
        if encoding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
            return zlib.decompressobj(31).decompress(body, limit + 1)
        if encoding == "deflate" and body[:1] == b"\x78":
            return zlib.decompressobj().decompress(body, limit + 1)
        if encoding == "zstd" and body[:4] == b"\x28\xb5\x2f\xfd":
            with zstandard.ZstdDecompressor().stream_reader(body) as reader:
                return reader.read(limit + 1)
    except (zlib.error, zstandard.ZstdError):
        pass
    return body


def _joined(body: bytes) -> bytes:
    """Returns a chunked body in one piece; as it is where it isn't chunked."""
    parts: list[bytes] = []
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        try:
            size = int(body[at:end].partition(b";")[0], 16)
        except ValueError:
            return body
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts) or body
