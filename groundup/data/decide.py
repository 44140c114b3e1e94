"""The decisions that need all documents: duplicates, the held-out split, the mix. Only hashes and signatures are looked at.

Tasks read the columns that they need of one part; what comes back grows with the duplicates, not with the corpus.
"""

from collections import Counter
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.data.config import BuildConfig
from groundup.data.dedup import DROP, RULES, Member, find_near, find_same, rank
from groundup.data.engine import Map
from groundup.data.mix import epochs
from groundup.data.overlap import CUT, Texts, find_stretches, find_units
from groundup.data.rows import read_columns

__all__ = ["Decisions", "decide"]

NOBODY = -1
URL, NEAR = RULES.index("url"), RULES.index("near")


class Decisions(NamedTuple):
    """What was decided over all documents; a document's number is its place in the corpus.

    starts: the number of each part's first document, and the number of all; drops, leaks: dtype DROP, sorted by document (leaks: what raw
    mode keeps out of training because it is like a held-out document); forced: the document that is held out for want of others;
    kept: how many stay; partners: the ids of those that stay instead of others; epochs: how often each source is trained on;
    cuts: dtype CUT, sorted: stretches of text that leave.
    """

    starts: list[int]
    drops: np.ndarray
    leaks: np.ndarray
    forced: int
    kept: int
    partners: dict[int, str]
    epochs: dict[str, float]
    cuts: np.ndarray


class _Tally(NamedTuple):
    """A part's sums, of documents that no rule has dropped: how many, how many of them on the held-out side, the smallest share."""

    alive: int
    alive_heldout: int
    dropped_heldout: int
    least: tuple[float, int]
    bytes: dict[str, int]


def _sides(found: dict[str, np.ndarray], start: int, forced: int, config: BuildConfig) -> np.ndarray:
    """Returns which documents of a part are on the held-out side."""
    heldout = found["share"] < config.heldout if config.split == "hash" else np.zeros(len(found["share"]), bool)
    if start <= forced < start + len(heldout):
        heldout[forced - start] = True
    return heldout


def _tally(task: tuple[Path, int, np.ndarray, BuildConfig]) -> _Tally:
    """Returns a part's sums without its duplicates (numbers of documents)."""
    path, start, duplicates, config = task
    found = read_columns(path, ["drop", "share", "source", "size"])
    heldout, ruled = _sides(found, start, NOBODY, config), found["drop"] != ""
    alive = ~ruled
    alive[duplicates - start] = False
    least = min(((float(found["share"][k]), start + int(k)) for k in np.flatnonzero(alive)), default=(2.0, NOBODY))
    sizes: Counter[str] = Counter()
    for k in np.flatnonzero(alive & ~heldout).tolist():
        sizes[found["source"][k]] += int(found["size"][k])
    return _Tally(int(alive.sum()), int((alive & heldout).sum()), int((heldout & ~alive).sum()), least, dict(sizes))


def _members(path: Path, start: int, config: BuildConfig, forced: int, before: np.ndarray, found: np.ndarray, raw: bool,
             rule: int) -> Member:  # fmt: skip
    """Returns a part's documents that take part in a search for duplicates.

    Those stay away that this search has `found` already, and those dropped `before` it or by a rule; in raw mode the latter only where
    they are on the held-out side, for raw mode trains on the others. before, found: numbers of documents.
    """
    names = ["share", "drop", "words", "score", "signature" if rule == NEAR else "url" if rule == URL else "exact"]
    columns = read_columns(path, names)
    heldout, taking, values = _sides(columns, start, forced, config), columns["drop"] == "", columns[names[-1]]
    taking[before - start] = False
    if raw:
        taking |= ~heldout
    taking[found - start] = False
    taking &= np.array([len(value) > 0 for value in values], bool)
    chosen = np.flatnonzero(taking)
    joined = b"".join(values[chosen])
    keys = np.frombuffer(joined if rule != NEAR else b"", "<u8").reshape(-1, 2)
    functions = config.dedup.bands * config.dedup.rows
    signatures = np.frombuffer(joined if rule == NEAR else b"", "<u8").reshape(-1, functions)
    ranks = rank(heldout, columns["words"], columns["score"])[chosen]
    return Member((chosen + start).astype(np.uint64), ranks, keys, signatures)


def _find(run_map: Map, parts: list[Path], starts: list[int], folder: Path, config: BuildConfig, forced: int, drops: np.ndarray,
          raw: bool) -> np.ndarray:  # fmt: skip
    """Returns the drops among duplicates: of equal texts, of equal addresses, then of nearly equal texts."""
    dedup, found = config.dedup, np.zeros(0, DROP)
    for rule, wanted in enumerate((dedup.exact or raw, dedup.urls and not raw, dedup.near or raw)):
        if wanted:
            members = (partial(_members, path, start, config, forced, _within(drops, start, stop), _within(found, start, stop), raw, rule)
                       for path, start, stop in zip(parts, starts, starts[1:]))  # fmt: skip
            search = (run_map, members, starts[-1], folder)
            fresh = find_near(*search, config) if rule == NEAR else find_same(*search, rule)
            found = np.sort(np.concatenate((found, fresh)), order="doc")
    return found


def _texts(path: Path, start: int, config: BuildConfig, forced: int, before: np.ndarray) -> Texts:
    """Returns the texts of a part that are still there. before: numbers of documents that were dropped."""
    found = read_columns(path, ["share", "drop", "words", "score", "text"])
    heldout, alive = _sides(found, start, forced, config), found["drop"] == ""
    alive[before - start] = False
    chosen, ranks = np.flatnonzero(alive), rank(heldout, found["words"], found["score"])
    return Texts(
        (chosen + start).astype(np.uint64),
        ranks[chosen],
        [found["text"][k].encode("utf-8", "surrogatepass") for k in chosen],
    )


def _cuts(run_map: Map, parts: list[Path], starts: list[int], folder: Path, config: BuildConfig, forced: int,
          drops: np.ndarray) -> np.ndarray:  # fmt: skip
    """Returns what the documents that stay repeat of each other: lines or paragraphs, and stretches of any kind."""
    found = [np.zeros(0, CUT)]
    for find, wanted in ((find_units, config.dedup.units != "none"), (find_stretches, config.dedup.substring_chars)):
        if wanted and config.filters != "none":
            texts = (partial(_texts, path, start, config, forced, _within(drops, start, stop))
                     for path, start, stop in zip(parts, starts, starts[1:]))  # fmt: skip
            found.append(find(run_map, texts, starts[-1], folder, config.dedup))
    return np.sort(np.concatenate(found))


def _within(drops: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Returns the numbers of the dropped documents from `start` up to `stop`."""
    return drops["doc"][slice(*np.searchsorted(drops["doc"], [start, stop]))].astype(np.int64)


def _ids(task: tuple[Path, list[int]]) -> list[str]:
    """Returns the ids of some rows of a part."""
    found = read_columns(task[0], ["id"])["id"]
    return [str(found[k]) for k in task[1]]


def _leaks(found: np.ndarray) -> np.ndarray:
    """Returns the drops of documents like a held-out one, and of what is the same as one of those."""
    direct = found[found["of_heldout"]]
    indirect = found[~found["of_heldout"] & np.isin(found["kept"], direct["doc"])]
    place = np.searchsorted(direct["doc"], indirect["kept"])
    for name in ("kept", "rule", "value", "of_heldout"):
        indirect[name] = direct[name][place]
    return np.sort(np.concatenate((direct, indirect)), order="doc")


def decide(run_map: Map, parts: list[Path], folder: Path, config: BuildConfig) -> Decisions:
    """Returns what becomes of the documents of judged parts; `folder` is for files on the way.

    A document on the held-out side is never trained on, nor is a duplicate of one: of a group of duplicates the held-out document
    stays. Where nothing is filtered (`filters = "none"`) the held-out documents are the same ones, and everything else is trained on but
    for their duplicates and what the split by hash excludes.
    """
    import pyarrow.parquet as pq

    starts = list(accumulate((pq.read_metadata(path).num_rows for path in parts), initial=0))
    nothing = np.zeros(0, DROP)
    drops, leaks, forced = _find(run_map, parts, starts, folder, config, NOBODY, nothing, False), nothing, NOBODY
    bounds = list(zip(parts, starts, starts[1:]))
    tallies = list(run_map(_tally, ((p, a, _within(drops, a, b), config) for p, a, b in bounds)))
    kept, heldout = sum(t.alive for t in tallies), sum(t.alive_heldout for t in tallies)
    if config.heldout and config.split == "hash" and kept > 1 and not heldout:
        forced, heldout = min(t.least for t in tallies)[1], 1  # a small corpus has a held-out document too
    if config.filters == "none":
        gone = sum(t.dropped_heldout for t in tallies)
        if heldout:
            leaks = _leaks(_find(run_map, parts, starts, folder, config, forced, drops, True))
        kept = starts[-1] - gone - len(leaks)
    cuts = _cuts(run_map, parts, starts, folder, config, forced, drops)
    stay = np.unique(np.concatenate((drops["kept"], leaks["kept"], cuts["kept"]))).astype(np.int64)
    asked = [(path, (stay[(stay >= a) & (stay < b)] - a).tolist()) for path, a, b in bounds]
    asked = [(path, rows) for path, rows in asked if rows]
    partners = dict(zip(stay.tolist(), (name for names in run_map(_ids, iter(asked)) for name in names)))
    sizes: Counter[str] = Counter()
    for tally in tallies:
        sizes.update(tally.bytes)
    return Decisions(starts, drops, leaks, forced, kept, partners, epochs(sizes, config), cuts)
