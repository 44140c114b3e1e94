"""What the decisions mean for a part: its documents go to training (as often as the mix says), to the held-out file or to the dropped."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groundup.base.files import atomic_file
from groundup.base.records import Document, write_documents
from groundup.data.config import BuildConfig
from groundup.data.decide import Decisions
from groundup.data.decontaminate import words
from groundup.data.dedup import RULES
from groundup.data.engine import batches
from groundup.data.extract import Drop
from groundup.data.measure import FEATURES
from groundup.data.mix import copies
from groundup.data.overlap import cut
from groundup.data.rows import Row, read_part

__all__ = ["PLACES", "Settled", "Task", "join_features", "settle_part", "tasks"]

SPANS = 20  # stretches named in a document's meta
GROUP_ROWS = 1 << 14  # of features
PLACES = ("documents", "heldout", "dropped")


class Task(NamedTuple):
    """One part with what was decided about it; `number` is that of its first document."""

    path: Path
    number: int
    drops: dict[int, Drop]
    leaks: dict[int, Drop]
    forced: int
    alone: bool  # one document is all there is, so its end is held out
    epochs: dict[str, float]
    cuts: np.ndarray  # dtype CUT, of these documents
    partners: dict[int, str]  # the ids of the documents that keep what is cut here
    config: BuildConfig


@dataclass
class Settled:
    """A part's sums, or those of several. funnel: (stage, rule) -> documents, bytes, the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    raw_bytes: int = 0
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    funnel: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    matches: list[dict[str, Any]] = field(default_factory=list)  # what stood in documents of the evaluation files

    def add(self, part: "Settled") -> None:
        """Adds the sums of the part that follows."""
        self.raw_bytes += part.raw_bytes
        for name in ("counts", "sizes", "languages", "changes"):
            getattr(self, name).update(getattr(part, name))
        for source, sums in part.sources.items():
            self.sources.setdefault(source, Counter()).update(sums)
        for key, (count, size, example) in part.funnel.items():
            entry = self.funnel.setdefault(key, [0, 0, example])
            entry[0], entry[1] = entry[0] + count, entry[1] + size
        self.matches += part.matches


def tasks(parts: list[Path], decided: Decisions, config: BuildConfig) -> Iterator[Task]:
    """Yields each part with what was decided about its documents."""

    def reasons(found: np.ndarray, start: int, stop: int) -> dict[int, Drop]:
        near = RULES.index("near")
        return {int(d["doc"]): Drop("duplicates", RULES[d["rule"]] + "_of_heldout" * bool(d["of_heldout"]), float(d["value"]),
                                    config.dedup.min_similarity if d["rule"] == near else 1.0, decided.partners[int(d["kept"])])
                for d in found[slice(*np.searchsorted(found["doc"], [start, stop]))]}  # fmt: skip

    for path, start, stop in zip(parts, decided.starts, decided.starts[1:]):
        cuts = decided.cuts[slice(*np.searchsorted(decided.cuts["doc"], [start, stop]))]
        partners = {int(k): decided.partners[int(k)] for k in np.unique(cuts["kept"])}
        yield Task(path, start, reasons(decided.drops, start, stop), reasons(decided.leaks, start, stop),
                   decided.forced, decided.kept == 1, decided.epochs, cuts, partners, config)  # fmt: skip


def _placed(row: Row, number: int, task: Task) -> Iterator[tuple[str, Document]]:
    """Yields where a row goes: to one place, or to training several times, or (split by tail) to training and held out."""
    config, raw = task.config, task.config.filters == "none"
    tail = config.split == "tail"
    heldout = (not tail and row.share < config.heldout) or number == task.forced
    drop = row.drop or task.drops.get(number)
    if raw and not (heldout and drop):
        drop = task.leaks.get(number)
    times = 1 if heldout else copies(row.id, task.epochs.get(row.source, 1.0))
    if not drop and not times:
        drop = Drop("mix", "weight", task.epochs[row.source], 1.0)
    if drop:
        yield "dropped", Document(row.id, row.text, row.source, row.meta | drop._asdict())
        return
    cut = config.heldout if config.heldout and not heldout and (tail or task.alone) else 0.0
    train, held = row.raw if raw else row.text, row.raw if raw and tail else row.text
    if heldout or cut:
        yield "heldout", Document(row.id, held[int(len(held) * (1 - cut)) if cut else 0 :], row.source, row.meta)
    for copy in range(0 if heldout else times):
        text = train[: int(len(train) * (1 - cut))] if cut else train
        yield "documents", Document(row.id if copy == 0 else f"{row.id}~{copy + 1}", text, row.source, row.meta)


def _trimmed(row: Row, cuts: np.ndarray, task: Task) -> Row:
    """Returns a row without what other documents keep of it, dropped where too little is left."""
    text, partner = cut(row.text, cuts), task.partners[int(cuts["kept"][0])]
    share = 1 - len(text) / len(row.text)
    spans = [[int(start), int(stop)] for start, stop in zip(cuts["start"][:SPANS], cuts["stop"][:SPANS])]
    if len(words(text)) < task.config.dedup.min_words:
        return replace(row, drop=Drop("duplicates", "only_repeated", share, task.config.dedup.min_words, partner))
    return replace(
        row, text=text, meta=row.meta | {"cut_share": round(share, 4), "cut_bytes": spans, "cut_kept_in": partner}
    )


def settle_part(task: Task) -> Settled:
    """Writes documents, heldout, dropped and features of a part beside it; returns its sums."""
    found = Settled()
    rows = read_part(task.path)
    places: dict[str, list[Document]] = {place: [] for place in PLACES}
    for at, row in enumerate(rows):
        found.raw_bytes += row.raw_bytes
        cuts = task.cuts[slice(*np.searchsorted(task.cuts["doc"], [task.number + at, task.number + at + 1]))]
        if len(cuts):
            rows[at] = row = _trimmed(row, cuts, task)
        for place, document in _placed(row, task.number + at, task):
            places[place].append(document)
            _count(found, place, document)
    for place, documents in places.items():
        write_documents(task.path.with_name(f"{place}-{task.path.name}"), documents)
    _write_features(task.path.with_name(f"features-{task.path.stem}.arrow"), rows)
    return found


def _count(found: Settled, place: str, document: Document) -> None:
    """Adds a document to the sums."""
    size, meta = len(document.text.encode("utf-8", "replace")), document.meta
    found.counts[place] += 1
    found.sizes[place] += size
    if place == "documents":
        found.sources.setdefault(document.source, Counter()).update(documents=1, bytes=size)
        found.languages[meta.get("lang", "")] += 1
        found.changes.update({k: meta[k] for k in ("placeholders", "furniture_lines") if k in meta})
    elif place == "dropped":
        entry = found.funnel.setdefault((meta["stage"], meta["rule"]), [0, 0, document.id])
        entry[0], entry[1] = entry[0] + 1, entry[1] + size
        if meta["stage"] == "decontaminate":
            found.matches.append({"id": document.id, "words": meta["value"], "matched": meta["partner"]})


def _write_features(path: Path, rows: list[Row]) -> None:
    """Writes what the rules measured, one column a feature, for the documents that were measured."""
    import pyarrow as pa
    from pyarrow.feather import write_feather

    measured = [row for row in rows if row.features]
    values = np.frombuffer(b"".join(row.features for row in measured), np.float64).reshape(-1, len(FEATURES))
    columns: dict[str, Any] = {"id": pa.array([r.id for r in measured], pa.large_string()),
                               "source": pa.array([r.source for r in measured], pa.large_string()),
                               "page": pa.array([r.kind == "html" for r in measured], pa.bool_()),
                               "rule": pa.array([r.drop.rule if r.drop else "" for r in measured], pa.large_string())}  # fmt: skip
    columns |= {name: pa.array(values[:, k]) for k, name in enumerate(FEATURES)}
    write_feather(pa.table(columns), path, compression="uncompressed")


def join_features(parts: Sequence[Path], target: Path) -> None:
    """Writes what parts measured into one Parquet file, atomically; its row groups are large, for there are many columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.feather import read_table

    schema = read_table(parts[0]).schema
    with atomic_file(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for tables in batches(map(read_table, parts), lambda table: table.num_rows, GROUP_ROWS, GROUP_ROWS):
            writer.write_table(pa.concat_tables(tables), GROUP_ROWS)
