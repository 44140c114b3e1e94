"""What a worker does to a part of the corpus: `extract_part` (markup, cleaning), then `judge_part` (every rule that needs one document)."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from groundup.base.errors import DataError
from groundup.data.arithmetic import false_arithmetic
from groundup.data.classify import unwanted_language
from groundup.data.clean import clean, line_key, remove_lines
from groundup.data.config import BuildConfig, ScoresConfig
from groundup.data.decode import NotText
from groundup.data.decontaminate import ProblemIndex, Question
from groundup.data.extract import Drop, extract, naive
from groundup.data.furniture import LONGEST, NOTHING, Furniture
from groundup.data.measure import FEATURES, measure
from groundup.data.minhash import hash_functions, sign
from groundup.data.mix import unit_hash
from groundup.data.quality import blocked, first_broken, forbidden_words, read_list
from groundup.data.read import Record
from groundup.data.rows import HEADING_MARK, Row, is_whole, read_part, site_of, write_part

__all__ = ["KERNELS", "begin", "compile_kernel", "extract_part", "judge_part", "judge_texts"]

KERNELS = ("rules", "signatures")  # what judging compiles the first time on a machine
NO_PROSE = "\n"
LONGEST_TEXT = 16 << 20  # characters: measuring takes 80 times as much memory, and a worker has 2 GiB
MOSTLY_CODE = 0.2  # a page with less prose than this share is judged as code


class _State(NamedTuple):
    config: BuildConfig
    problems: ProblemIndex
    blocked: tuple[str, ...]
    forbidden: re.Pattern[str] | None
    functions: tuple[np.ndarray, np.ndarray]


_state: list[_State] = []  # one entry a process, made by `begin`


def begin(config: BuildConfig, questions: Sequence[Question]) -> None:
    """Prepares this process for the parts of one build."""
    functions = hash_functions(config.dedup.bands * config.dedup.rows, config.dedup.seed)
    addresses = config.web.blocked_urls + read_list(config.web.blocklist)
    forbidden = forbidden_words(read_list(config.web.words))
    config = config.effective()
    _state[:] = [_State(config, ProblemIndex(questions, config.decontaminate), addresses, forbidden, functions)]


def _row(record: Record) -> Row:
    """Returns a record's document, cleaned, or dropped where it has none."""
    config = _state[0].config
    meta = {k: v for k, v in record.meta.items() if k not in ("charset", "path")}
    raw_bytes = len(record.payload if isinstance(record.payload, bytes) else record.payload.encode("utf-8", "replace"))
    base = Row(record.id, "", record.source, record.kind, meta, None, 0.0, raw_bytes)
    try:
        found = extract(record, config.clean.extractor)
        raw = naive(record) if config.filters == "none" else ""
    except NotText as error:
        return replace(base, drop=Drop("extract", error.rule, str(error)))
    text, prose, placeholders = clean(found.blocks, record.kind, config.clean)
    meta = meta | found.meta | ({"placeholders": placeholders} if placeholders else {})
    drop = blocked(meta["url"], _state[0].blocked) if config.web.enabled and "url" in meta else None
    drop = drop or found.drop or (None if text else Drop("extract", "empty", 0, 1))
    if not drop and len(text) > LONGEST_TEXT and record.kind != "code":
        drop = Drop("extract", "too_long", len(text), LONGEST_TEXT)
    lines: list[str] = []
    if record.kind == "html" and not drop:
        title = line_key(meta.get("title", ""))
        keys = {
            key for line in prose.split("\n") if (key := line_key(line)) and key not in title
        }  # a page's own title is no furniture
        headings = {line_key(h) for h in found.headings}
        lines = sorted(HEADING_MARK * (k in headings) + k for k in keys if len(k) <= LONGEST)
    # The split is decided here, on what the page says, before any rule has looked at it.
    return replace(base, text=text, meta=meta, drop=drop, share=unit_hash(found.text), raw=raw, lines=lines,
                   prose="" if prose == text else prose or NO_PROSE)  # fmt: skip


def compile_kernel(kernel: str) -> None:
    """Compiles a kernel, or reads it from where it was kept: one worker does so for all, while others extract."""
    if kernel == "rules":
        judge_texts(["This is the end."], ["text"])
    else:
        config, functions = _state[0].config, _state[0].functions
        sign(
            ["This is the end."],
            config.dedup.ngram,
            functions,
            _state[0].problems.heads,
            config.decontaminate.min_words,
        )


def extract_part(task: tuple[Path, list[Record]]) -> Path:
    """Writes the extracted and cleaned rows of some records; returns the part's path."""
    path, records = task
    write_part(path, [_row(record) for record in records])
    return path


def judge_texts(texts: Sequence[str], kinds: Sequence[str]) -> list[tuple[Drop | None, str, bytes, str]]:
    """Returns, for each text, the first rule that it breaks on its own, its language, its features, and what C4's rules leave of it.

    Code isn't held to the rules of prose. Needs `begin`.
    """
    config, forbidden = _state[0].config, _state[0].forbidden
    found: list[tuple[Drop | None, str, bytes, str]] = [(None, "", b"", text) for text in texts]
    prose = [k for k, kind in enumerate(kinds) if kind != "code"]
    measured = measure([texts[k] for k in prose], config)
    broken = first_broken(measured.values, [kinds[k] == "html" for k in prose], config, FEATURES)
    for at, k in enumerate(prose):
        drop, code = unwanted_language(texts[k], config.language)
        drop = drop or broken[at]
        if not drop and config.web.enabled:
            match = forbidden.search(texts[k]) if forbidden else None
            drop = (
                Drop("quality", "word_list", match[0], "not listed")
                if match
                else false_arithmetic(texts[k], config.web)
            )
        rest = measured.texts[at] if measured.texts else texts[k]
        found[k] = drop, code, measured.values[at].tobytes(), rest
    return found


def _prepare(row: Row, edge: frozenset[str], anywhere: frozenset[str]) -> tuple[Row, str, str]:
    """Returns the row without its site's furniture, the text that is judged, and as what it is judged."""
    text, meta, prose = row.text, row.meta, row.prose
    if row.drop:
        return row, "", "code"
    if row.kind == "html" and _state[0].config.clean.boilerplate:
        text, removed = remove_lines(text, edge, anywhere)
        meta = meta | ({"furniture_lines": removed} if removed else {})
        if not text:
            return replace(row, meta=meta, drop=Drop("clean", "only_furniture", removed, 0)), "", "code"
    if prose:
        prose = remove_lines(prose, edge, anywhere)[0] if row.kind == "html" else prose.strip() or text
    judged = prose if row.prose else text
    listing = bool(row.prose) and len(prose) < MOSTLY_CODE * len(text)
    return replace(row, text=text, meta=meta), judged, "code" if listing else row.kind


def _scores(rows: Sequence[Row], config: ScoresConfig) -> dict[str, float]:
    """Returns the scores that the file has for these documents. Raises: DataError for a file without such columns."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    if config.path is None:
        return {}
    try:
        table = ds.dataset(config.path, format="parquet").to_table(
            columns=["id", config.column], filter=ds.field("id").isin([row.id for row in rows])
        )
    except (pa.ArrowException, KeyError) as error:
        raise DataError(
            f"{config.path}: expected Parquet with the columns id and {config.column} (scores.column)"
        ) from error
    return {
        id_: float(score) for id_, score in zip(*(column.to_pylist() for column in table.columns)) if score is not None
    }


def _judge(prepared: Sequence[tuple[Row, str, str]]) -> list[Row]:
    """Returns the rows with their fate so far, their features and the hashes by which duplicates are found."""
    config, problems, functions = _state[0].config, _state[0].problems, _state[0].functions
    rows = [row for row, _, _ in prepared]
    scores = _scores(rows, config.scores)
    for k, found in enumerate(judge_texts([judged for _, judged, _ in prepared], [kind for _, _, kind in prepared])):
        row, (drop, code, features, rest) = rows[k], found
        if row.drop:
            continue
        if row.prose or not rest:
            rest = row.text  # C4's line rules are for texts without code
        meta, score = row.meta | ({"lang": code} if code else {}), scores.get(row.id, math.nan)
        if row.id in scores:
            meta["score"] = score
            if not drop and not config.scores.least <= score <= config.scores.most:
                drop = Drop(
                    "quality",
                    "score",
                    score,
                    config.scores.least if score < config.scores.least else config.scores.most,
                )
        better = score if config.scores.better == "high" else -score
        rows[k] = replace(row, text=rest, drop=drop, features=features, meta=meta, score=better)
    alive = [k for k, row in enumerate(rows) if not row.drop or config.filters == "none"]
    texts = [rows[k].text for k in alive]
    signed = sign(texts, config.dedup.ngram, functions, problems.heads, config.decontaminate.min_words)
    for at, k in enumerate(alive):
        row, count = rows[k], int(signed.words[at])
        drop = problems.check(row.text) if signed.touched[at] and not row.drop else row.drop
        signature = signed.signatures[at].tobytes() if count >= config.dedup.min_words else b""
        data, url = row.text.encode("utf-8", "surrogatepass"), str(row.meta.get("url", ""))
        rows[k] = replace(row, drop=drop, words=count, signature=signature, exact=xxhash.xxh3_128_digest(data), size=len(data),
                          url=xxhash.xxh3_128_digest(url.encode()) if url else b"")  # fmt: skip
    return [replace(row, lines=[], prose="") for row in rows]


def judge_part(task: tuple[Path, Path, Furniture]) -> Path:
    """Writes the judged rows of an extracted part (task: from, to, the sites' furniture); returns the new part's path."""
    source, target, furniture = task
    if is_whole(target):  # a killed run has left it
        return target
    rows = read_part(source)
    found = furniture.of(rows, _state[0].config.clean)
    write_part(target, _judge([_prepare(row, *found.get(site_of(row), NOTHING)) for row in rows]))
    return target
