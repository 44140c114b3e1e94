"""What documents repeat of each other within their texts: lines or paragraphs, and stretches of any kind; found out of core, then cut.

Lines and paragraphs meet by their hash. Stretches of at least `substring_chars` bytes meet by anchors: of every so many neighbouring
windows the one with the smallest hash (winnowing, Schleimer et al. 2003), which two equal stretches choose alike; then the bytes themselves
are compared, as far as they agree. A suffix array would need the whole corpus in memory. The first of equal things stays: in a held-out
document, else in the better one. Equal to: groundup.data.plain.without_repeated_lines, without_repeated_stretches
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numba import njit

from groundup.data.config import DedupConfig
from groundup.data.dedup import BEHIND
from groundup.data.engine import Map
from groundup.data.scan import BASE, mix
from groundup.data.shuffle import RECORD, gather, partitions_for, scatter

__all__ = ["CUT", "Texts", "cut", "find_stretches", "find_units"]

CUT = np.dtype(
    [("doc", "<u8"), ("start", "<u8"), ("stop", "<u8"), ("kept", "<u8")]
)  # bytes start:stop of a document, kept in another
COMPARED = 32  # occurrences of an anchor that another is compared with: the first ones
SEPARATOR = {"line": b"\n", "paragraph": b"\n\n"}


class Texts(NamedTuple):
    """Some documents of a part, their ranks, and their texts as UTF-8."""

    docs: np.ndarray
    ranks: np.ndarray
    texts: list[bytes]


Parts = Iterable[Callable[[], Texts]]


def _records(rows: list[tuple[int, int, int, int, int]]) -> np.ndarray:
    return np.array(rows, RECORD) if rows else np.zeros(0, RECORD)


def _scatter_units(task: tuple[Callable[[], Texts], Path, int, DedupConfig]) -> Path:
    make, path, partitions, dedup = task
    found, rows = make(), []
    for doc, rank, text in zip(found.docs.tolist(), found.ranks.tolist(), found.texts):
        at, separator = 0, SEPARATOR[dedup.units]
        for unit in text.split(separator):
            if len(unit) >= dedup.unit_chars:
                digest = xxhash.xxh3_128_intdigest(unit)
                rows.append(
                    (
                        digest >> 64,
                        digest & (1 << 64) - 1,
                        rank,
                        doc,
                        at << 32 | min(len(unit) + len(separator), len(text) - at),
                    )
                )
            at += len(unit) + len(separator)
    scatter(path, _records(rows), partitions)
    return path


def _reduce_units(task: tuple[Sequence[Path], int, int]) -> np.ndarray:
    """Returns the cuts of what was said before."""
    paths, partition, partitions = task
    records = gather(paths, partition, partitions)
    later = (records["key"][1:] == records["key"][:-1]) & (records["check"][1:] == records["check"][:-1])
    first = (
        np.maximum.accumulate(np.where(np.concatenate(([True], ~later)), np.arange(len(records)), 0))
        if len(records)
        else later
    )
    again = np.flatnonzero(later) + 1
    again = again[records["rank"][again] >= BEHIND]  # a held-out document stays whole
    cuts = np.zeros(len(again), CUT)
    cuts["doc"], cuts["kept"] = records["doc"][again], records["doc"][first[again]]
    cuts["start"] = records["item"][again] >> np.uint64(32)
    cuts["stop"] = cuts["start"] + (records["item"][again] & np.uint64((1 << 32) - 1))
    return cuts


def find_units(run_map: Map, parts: Parts, documents: int, folder: Path, dedup: DedupConfig) -> np.ndarray:
    """Returns the cuts (dtype CUT, sorted) of lines or paragraphs that a document shares with a better one, or with itself."""
    partitions = partitions_for(16 * documents, documents)
    paths = list(
        run_map(_scatter_units, ((make, folder / f"units-{k:06d}", partitions, dedup) for k, make in enumerate(parts)))
    )
    found = list(run_map(_reduce_units, ((paths, p, partitions) for p in range(partitions))))
    for path in paths:
        path.unlink()
    return np.sort(np.concatenate(found))


@njit(cache=True, nogil=True)
def _anchors(data, window, run, places, hashes):  # type: ignore[no-untyped-def]
    """Returns how many anchors there are: of each `run` neighbouring windows the last one with the smallest hash."""
    n = len(data) - window + 1
    if n < run:
        return 0
    rolling, top = np.empty(n, np.uint64), np.uint64(1)
    for _ in range(window - 1):
        top *= BASE
    h = np.uint64(0)
    for i in range(len(data)):
        if i >= window:
            h -= (np.uint64(data[i - window]) + np.uint64(1)) * top
        h = h * BASE + np.uint64(data[i]) + np.uint64(1)
        if i >= window - 1:
            rolling[i - window + 1] = mix(h)
    count, smallest = 0, -1
    for end in range(run - 1, n):
        begin = end - run + 1
        if smallest < begin:
            smallest = begin
            for i in range(begin, end + 1):
                if rolling[i] <= rolling[smallest]:
                    smallest = i
        elif rolling[end] <= rolling[smallest]:
            smallest = end
        if count == 0 or places[count - 1] != smallest:
            places[count], hashes[count] = smallest, rolling[smallest]
            count += 1
    return count


@njit(cache=True, nogil=True)
def _common(one, i, two, j):  # type: ignore[no-untyped-def]
    """Returns how far two texts agree to the left and to the right of the places i and j."""
    left = right = 0
    while i - left > 0 and j - left > 0 and one[i - left - 1] == two[j - left - 1]:
        left += 1
    while i + right < len(one) and j + right < len(two) and one[i + right] == two[j + right]:
        right += 1
    return left, right


def _scatter_anchors(task: tuple[Callable[[], Texts], Path, int, DedupConfig]) -> Path:
    """Writes a part's anchors, and beside them its texts with a table of where each lies."""
    make, path, partitions, dedup = task
    found, records = make(), []
    window = max(dedup.substring_chars // 2, 1)
    for doc, rank, text in zip(found.docs.tolist(), found.ranks.tolist(), found.texts):
        places, hashes = np.empty(len(text) + 1, np.int64), np.empty(len(text) + 1, np.uint64)
        count = _anchors(np.frombuffer(text, np.uint8), window, dedup.substring_chars - window + 1, places, hashes)
        rows = np.zeros(count, RECORD)
        rows["key"], rows["rank"], rows["doc"], rows["item"] = hashes[:count], rank, doc, places[:count]
        records.append(rows)
    scatter(path, np.concatenate(records) if records else np.zeros(0, RECORD), partitions)
    ends = np.cumsum([0, *map(len, found.texts)])
    np.savez(path.with_suffix(".npz"), docs=found.docs, ends=ends)
    path.with_suffix(".texts").write_bytes(b"".join(found.texts))
    return path


class _Shelf:
    """The texts of all parts, mapped: only what is compared is read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.first = [int(docs[0]) if len(docs := np.load(p.with_suffix(".npz"))["docs"]) else -1 for p in paths]
        self.order = [k for k, first in enumerate(self.first) if first >= 0]
        self.open: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def text(self, doc: int) -> np.ndarray:
        """Returns the bytes of a document."""
        part = self.order[int(np.searchsorted([self.first[k] for k in self.order], doc, side="right")) - 1]
        if part not in self.open:
            table = np.load(self.paths[part].with_suffix(".npz"))
            self.open[part] = (
                table["docs"],
                table["ends"],
                np.memmap(self.paths[part].with_suffix(".texts"), np.uint8, "r"),
            )
        docs, ends, data = self.open[part]
        k = int(np.searchsorted(docs, doc))
        return data[ends[k] : ends[k + 1]]


def _reduce_anchors(task: tuple[Sequence[Path], int, int, int]) -> np.ndarray:
    """Returns the cuts of stretches that occur before, of at least so many bytes."""
    paths, partition, partitions, least = task
    records, shelf, cuts = gather(paths, partition, partitions), _Shelf(paths), []
    edges = np.concatenate(([True], records["key"][1:] != records["key"][:-1], [True]))
    bounds = np.flatnonzero(edges).tolist() if len(records) else []
    for begin, end in pairwise(bounds):
        for k in range(begin + 1, end):
            row = records[k]
            if row["rank"] < BEHIND:
                continue
            for before in records[begin : min(k, begin + COMPARED)]:
                place = int(row["item"])
                left, right = _common(
                    shelf.text(int(before["doc"])), int(before["item"]), shelf.text(int(row["doc"])), place
                )
                if left + right >= least:
                    cuts.append((int(row["doc"]), place - left, place + right, int(before["doc"])))
    return np.unique(np.array(cuts, CUT))


def find_stretches(run_map: Map, parts: Parts, documents: int, folder: Path, dedup: DedupConfig) -> np.ndarray:
    """Returns the cuts (dtype CUT, sorted) of stretches that a document shares with a better one, or with itself."""
    partitions = partitions_for(32 * documents, documents)
    paths = list(
        run_map(
            _scatter_anchors, ((make, folder / f"anchors-{k:06d}", partitions, dedup) for k, make in enumerate(parts))
        )
    )
    found = list(run_map(_reduce_anchors, ((paths, p, partitions, dedup.substring_chars) for p in range(partitions))))
    for path in paths:
        for suffix in ("", ".npz", ".texts"):
            path.with_suffix(suffix).unlink()
    return np.sort(np.concatenate(found))


def _spans(cuts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the stretches to remove, overlapping ones joined, from the first on."""
    spans = sorted(zip(cuts["start"].tolist(), cuts["stop"].tolist()))
    begin, end = spans[0]
    for start, stop in spans[1:]:
        if start > end:
            yield begin, end
            begin, end = start, stop
        else:
            end = max(end, stop)
    yield begin, end


def cut(text: str, cuts: np.ndarray) -> str:
    """Returns a text without some stretches of its bytes; half characters stay, and lines that became empty go."""
    data, out, at = text.encode("utf-8", "surrogatepass"), [], 0
    for begin, end in _spans(cuts):
        while begin < end and data[begin] & 0xC0 == 0x80:
            begin += 1
        while end > begin and end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        out.append(data[at:begin])
        at = max(at, end)
    rest = b"".join((*out, data[at:])).decode("utf-8", "surrogatepass")
    lines = (line for line in rest.split("\n"))
    kept: list[str] = []
    for line in lines:
        if line.strip() or (kept and kept[-1].strip()):
            kept.append(line)
    return "\n".join(kept).strip()
