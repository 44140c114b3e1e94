"""What a worker does to a part of the corpus: `extract_part` (markup, cleaning), then `judge_part` (every rule that needs one document)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from groundup.base.files import atomic_file, read_json
from groundup.data.classify import unwanted_language
from groundup.data.clean import clean, line_key, remove_lines
from groundup.data.config import BuildConfig
from groundup.data.decode import NotText
from groundup.data.decontaminate import ProblemIndex, Question
from groundup.data.dedup import hash_functions, shingles, signature, words
from groundup.data.extract import Drop, extract, naive
from groundup.data.mix import unit_hash
from groundup.data.quality import blocked, false_arithmetic, gopher, read_blocklist, repetition, tokens, web
from groundup.data.read import Record

__all__ = ["HEADING_MARK", "Row", "begin", "extract_part", "judge_part", "judge_text", "read_part", "write_part"]

FURNITURE_LENGTH = 400  # longer lines aren't counted as furniture
HEADING_MARK, NO_PROSE = "\x01", "\n"
MOSTLY_CODE = 0.2  # a page with less prose than this share is judged as code


@dataclass(frozen=True)
class Row:
    """A document on its way: its text, its fate so far, and what the global decisions need of it."""

    id: str
    text: str
    source: str
    kind: str
    meta: dict[str, Any]
    drop: Drop | None
    share: float  # the hash that decides whether it is held out
    raw_bytes: int
    prose: str = ""  # the text without its code, where it has both
    raw: str = ""  # the naive text, kept where nothing is filtered
    lines: list[str] = field(default_factory=list)  # prose lines that may be furniture of its site, headings marked
    exact: int = 0  # hash of the final text
    signature: bytes = b""  # MinHash numbers, uint32


class _State(NamedTuple):
    config: BuildConfig
    problems: ProblemIndex
    blocked: tuple[str, ...]
    functions: tuple[np.ndarray, np.ndarray]


_state: list[_State] = []  # one entry a process, made by `begin`


def begin(config: BuildConfig, questions: Sequence[Question]) -> None:
    """Prepares this process for the parts of one build."""
    functions = hash_functions(config.dedup.bands * config.dedup.rows, config.dedup.seed)
    addresses = config.web.blocked_urls + read_blocklist(config.web.blocklist)
    _state[:] = [_State(config, ProblemIndex(questions, config.decontaminate), addresses, functions)]


def write_part(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows of a part as Parquet, atomically: a part that exists is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    string = pa.large_string()
    kinds = {"id": string, "text": string, "source": string, "kind": string, "meta": string, "drop": string, "share": pa.float64(),
             "raw_bytes": pa.int64(), "raw": string, "prose": string, "lines": pa.large_list(string), "exact": pa.uint64(),
             "signature": pa.large_binary()}  # fmt: skip
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in kinds}
    columns["meta"] = [json.dumps(row.meta, ensure_ascii=False) for row in rows]
    columns["drop"] = [json.dumps(row.drop, ensure_ascii=False) if row.drop else "" for row in rows]
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns, schema=pa.schema(list(kinds.items()))), temporary, compression="zstd")


def read_part(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Returns the rows of a part; columns that aren't asked for are empty."""
    import pyarrow.parquet as pq

    empty = asdict(Row("", "", "", "", {}, None, 0.0, 0))
    rows = []
    for values in pq.read_table(path, columns=list(columns) if columns else None).to_pylist():
        values["meta"] = json.loads(values.get("meta") or "{}")
        values["drop"] = Drop(*json.loads(values["drop"])) if values.get("drop") else None
        rows.append(Row(**{**empty, **values}))
    return rows


def _row(record: Record) -> Row:
    """Returns a record's document, cleaned, or dropped where it has none."""
    config = _state[0].config
    meta = {k: v for k, v in record.meta.items() if k not in ("charset", "path")}
    raw_bytes = len(record.payload if isinstance(record.payload, bytes) else record.payload.encode("utf-8", "replace"))
    base = Row(record.id, "", record.source, record.kind, meta, None, 0.0, raw_bytes)
    try:
        found = extract(record)
        raw = naive(record) if config.filters == "none" else ""
    except NotText as error:
        return replace(base, drop=Drop("extract", error.rule, str(error)))
    text, prose, placeholders = clean(found.blocks, record.kind, config.clean)
    meta = meta | found.meta | ({"placeholders": placeholders} if placeholders else {})
    drop = blocked(meta["url"], _state[0].blocked) if config.web.enabled and "url" in meta else None
    drop = drop or found.drop or (None if text else Drop("extract", "empty", 0, 1))
    lines: list[str] = []
    if record.kind == "html" and not drop:
        title = line_key(meta.get("title", ""))
        keys = {
            key for line in prose.split("\n") if (key := line_key(line)) and key not in title
        }  # a page's own title is no furniture
        headings = {line_key(h) for h in found.headings}
        lines = sorted(HEADING_MARK * (k in headings) + k for k in keys if len(k) <= FURNITURE_LENGTH)
    # The split is decided here, on what the page says, before any rule has looked at it.
    return replace(base, text=text, meta=meta, drop=drop, share=unit_hash(found.text), raw=raw, lines=lines,
                   prose="" if prose == text else prose or NO_PROSE)  # fmt: skip


def extract_part(task: tuple[Path, list[Record]]) -> Path:
    """Writes the extracted and cleaned rows of some records; returns the part's path."""
    path, records = task
    write_part(path, [_row(record) for record in records])
    return path


def judge_text(text: str, kind: str) -> tuple[Drop | None, str]:
    """Returns the first rule that a text breaks on its own, if any, and its language. Needs `begin`."""
    config, found, code = _state[0].config, tokens(text), ""
    if kind != "code":
        drop, code = unwanted_language(text, config.language)
        if not drop and config.gopher.enabled:
            drop = gopher(text, found, config.gopher)
        if not drop and config.repetition.enabled:
            drop = repetition(text, found, config.repetition)
        if not drop and config.web.enabled:
            drop = web(text, found, kind == "html", config.web) or false_arithmetic(text, config.web)
        if drop:
            return drop, code
    return None, code


def _judge(row: Row, edge: frozenset[str], anywhere: frozenset[str]) -> Row:
    """Returns the row without its site's furniture, with its fate and its signature."""
    config, problems = _state[0].config, _state[0].problems
    drop, text, meta = row.drop, row.text, row.meta
    if not drop and row.kind == "html" and config.clean.boilerplate:
        text, removed = remove_lines(text, edge, anywhere)
        meta = meta | ({"furniture_lines": removed} if removed else {})
        drop = None if text else Drop("clean", "only_furniture", removed, 0)
        text = text or row.text
    if not drop:
        prose = (
            remove_lines(row.prose, edge, anywhere)[0]
            if row.prose and row.kind == "html"
            else row.prose.strip() or text
        )
        listing = bool(row.prose) and len(prose) < MOSTLY_CODE * len(text)
        drop, code = judge_text(prose, "code" if listing else row.kind)  # code isn't held to the rules of prose
        meta = meta | ({"lang": code} if code else {})
    if drop and config.filters == "all":
        return replace(row, text=text, meta=meta, drop=drop, lines=[], prose="")
    found = words(text)
    hashes = shingles(found, config.dedup.ngram)
    if not drop:
        usable = hashes if config.dedup.ngram == config.decontaminate.min_words else None
        drop = problems.check(text, found, usable)
    numbers = signature(hashes, _state[0].functions).tobytes() if len(found) >= config.dedup.min_words else b""
    return replace(
        row,
        text=text,
        meta=meta,
        drop=drop,
        lines=[],
        prose="",
        exact=xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")),
        signature=numbers,
    )


def judge_part(task: tuple[Path, Path, Path]) -> Path:
    """Writes the judged rows of an extracted part (task: from, to, the sites' furniture); returns the new part's path."""
    source, target, furniture_file = task
    furniture = {
        site: (frozenset(edge), frozenset(anywhere)) for site, (edge, anywhere) in read_json(furniture_file).items()
    }
    nothing: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    rows = read_part(source)
    write_part(target, [_judge(row, *furniture.get(site_of(row), nothing)) for row in rows])
    return target


def site_of(row: Row) -> str:
    """Returns the site whose furniture a page shares: its host, or its source where it has no address."""
    rest = str(row.meta.get("url", "")).partition("://")[2]
    return rest.partition("/")[0] or row.source
