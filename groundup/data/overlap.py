"""What documents repeat of each other within their texts: lines or paragraphs, and stretches of any kind; found out of core, then cut.

Lines and paragraphs meet by their hash. Stretches of at least `substring_chars` bytes meet by anchors: each stretch of that very length has
one, the place in it where a shorter window has the smallest hash (winnowing, Schleimer et al. 2003), and equal stretches have it in one
place. So all that are equal meet at an anchor, where every stretch around it is compared: what a suffix array finds is found, and no worker
holds the corpus. The first of equal things stays: in a held-out document, else in the better one.
Equal to: groundup.data.plain.without_repeated_lines, without_repeated_stretches
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from groundup.base.kernels import kernel
from groundup.data.config import DedupConfig
from groundup.data.dedup import BEHIND
from groundup.data.engine import Map, batches
from groundup.data.scan import BASE, mix
from groundup.data.shuffle import RECORD, gather, partitions_for, scatter

__all__ = ["CUT", "Texts", "cut", "find_stretches", "find_units"]

CUT = np.dtype(
    [("doc", "<u8"), ("start", "<u8"), ("stop", "<u8"), ("kept", "<u8")]
)  # bytes start:stop of a document, kept in another
ROWS = 1 << 14  # occurrences of anchors that are compared at a time
MOST = 1 << 19  # of one anchor: the first of them only, where there are more
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


@kernel
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


@kernel
def _repeats(texts, lows, highs, groups, least, partners):  # type: ignore[no-untyped-def]
    """Sets partners[i, s] to the first row of i's group that has the bytes s:s + least of row i in the same place, -1 if that is row i.

    Row i holds text in lows[i]:highs[i]; group g is the rows groups[g]:groups[g + 1].
    """
    largest, top, stamp = 1, np.uint64(1), 0
    for g in range(len(groups) - 1):
        largest = max(largest, groups[g + 1] - groups[g])
    size = 4
    while size < 2 * largest:
        size *= 2
    keys, owners, stamps = np.empty(size, np.uint64), np.empty(size, np.int64), np.zeros(size, np.int64)
    rolling = np.zeros(len(texts), np.uint64)
    for _ in range(least - 1):
        top *= BASE
    for g in range(len(groups) - 1):
        size = 4
        while size < 2 * (groups[g + 1] - groups[g]):
            size *= 2
        mask = np.uint64(size - 1)
        for s in range(partners.shape[1]):
            stamp += 1
            for i in range(groups[g], groups[g + 1]):
                h = rolling[i]
                if s > 0:
                    h -= (np.uint64(texts[i, s - 1]) + np.uint64(1)) * top
                for k in range(s + least - 1 if s > 0 else 0, s + least):
                    h = h * BASE + np.uint64(texts[i, k]) + np.uint64(1)
                rolling[i], partners[i, s] = h, -1
                if s < lows[i] or s + least > highs[i]:
                    continue
                h = mix(h)
                at = h & mask
                while stamps[at] == stamp and keys[at] != h:
                    at = (at + np.uint64(1)) & mask
                if stamps[at] != stamp:
                    keys[at], owners[at], stamps[at] = h, i, stamp
                    continue
                j, k = owners[at], s
                if s > 0 and partners[i, s - 1] == j:
                    k = s + least - 1  # the bytes before were found equal with the stretch before
                while k < s + least and texts[i, k] == texts[j, k]:
                    k += 1
                if k == s + least:
                    partners[i, s] = j


def _scatter_anchors(task: tuple[Callable[[], Texts], Path, int, DedupConfig]) -> Path:
    """Writes a part's anchors, and beside them its texts with a table of where each lies."""
    make, path, partitions, dedup = task
    found, records = make(), []
    window = _window(dedup.substring_chars)
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
        held = [(int(docs[0]), path) for path in paths if len(docs := np.load(path.with_suffix(".npz"))["docs"])]
        self.paths, self.first = [path for _, path in held], np.array([first for first, _ in held])
        self.open: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def text(self, doc: int) -> np.ndarray:
        """Returns the bytes of a document."""
        part = int(np.searchsorted(self.first, doc, side="right")) - 1
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


def _cuts(records: np.ndarray, groups: np.ndarray, shelf: _Shelf, least: int, window: int) -> np.ndarray:
    """Returns the cuts around some anchors: of each group (from groups[g] on) what an earlier record has in the same place."""
    before = least - window  # bytes that a stretch may begin before its anchor
    texts = np.zeros((len(records), before + least), np.uint8)
    lows, highs = np.zeros(len(records), np.int64), np.zeros(len(records), np.int64)
    for k, (doc, place) in enumerate(zip(records["doc"].tolist(), records["item"].tolist())):
        text = shelf.text(doc)
        start, stop = max(place - before, 0), min(place + least, len(text))
        lows[k], highs[k] = start - place + before, stop - place + before
        texts[k, lows[k] : highs[k]] = text[start:stop]
    partners = np.empty((len(records), before + 1), np.int32)
    _repeats(texts, lows, highs, groups, least, partners)
    partners[records["rank"] < BEHIND] = -1  # a held-out document stays whole
    edges = np.diff(partners, axis=1, prepend=-1, append=-1)  # runs of stretches that the same row has
    row, at = np.nonzero(edges)
    first = partners[row, np.minimum(at, before)] >= 0
    first &= at <= before
    last = np.zeros(len(row), bool)
    last[1:] = first[:-1]
    cuts = np.zeros(int(first.sum()), CUT)
    row, begin, end = row[first], at[first], at[last]
    offset = records["item"][row].astype(np.int64) - before
    cuts["doc"], cuts["start"], cuts["stop"] = records["doc"][row], offset + begin, offset + end - 1 + least
    cuts["kept"] = records["doc"][partners[row, begin]]
    return cuts


def _reduce_anchors(task: tuple[Sequence[Path], int, int, int]) -> np.ndarray:
    """Returns the cuts of stretches that occur before, of at least so many bytes."""
    paths, partition, partitions, least = task
    records, shelf = gather(paths, partition, partitions), _Shelf(paths)
    edges = np.flatnonzero(np.concatenate(([True], records["key"][1:] != records["key"][:-1], [True])))
    sizes = np.minimum(np.diff(edges), MOST)
    groups = [(int(a), int(n)) for a, n in zip(edges, sizes) if n > 1] if len(records) else []
    found = [np.zeros(0, CUT)]
    for some in batches(groups, lambda group: group[1], ROWS, ROWS):
        chosen = np.concatenate([np.arange(a, a + n) for a, n in some])
        starts = np.cumsum([0, *(n for _, n in some)])
        found.append(_cuts(records[chosen], starts, shelf, least, _window(least)))
    return _joined(np.concatenate(found))


def _window(least: int) -> int:
    """Returns the length of the windows among which anchors are chosen."""
    return max(least // 2, 1)


def _joined(cuts: np.ndarray) -> np.ndarray:
    """Returns the cuts sorted, those joined that touch and are kept in the same document."""
    if not len(cuts):
        return cuts
    cuts = np.sort(cuts)
    base = np.cumsum(np.concatenate(([0], cuts["doc"][1:] != cuts["doc"][:-1]))) << 40
    reach = np.maximum.accumulate(base + cuts["stop"].astype(np.int64))
    new = np.ones(len(cuts), bool)
    new[1:] = (base + cuts["start"].astype(np.int64))[1:] > reach[:-1]
    new[1:] |= cuts["kept"][1:] != cuts["kept"][:-1]
    first = np.flatnonzero(new)
    joined = cuts[first]
    joined["stop"] = np.maximum.reduceat(cuts["stop"], first)
    return joined


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
    return _joined(np.concatenate(found))


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
