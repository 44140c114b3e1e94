"""How often each different word of a corpus occurs, counted by several threads within a bound of memory."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise

import numpy as np

from groundup.base.log import Progress
from groundup.tokenizer.kernels.split import safe_cut
from groundup.tokenizer.kernels.unicode import rules_of
from groundup.tokenizer.kernels.words import MOST, SLOT, add_words, count_words, grow, lay_out
from groundup.tokenizer.pattern import splitter
from groundup.tokenizer.texts import Batch, strings

__all__ = ["Counted", "CountedPieces", "Words", "count_batches", "count_custom", "cut", "threads_here"]

ROUND_PIECES = 1 << 12  # words of a custom expression between two looks at the bound


def threads_here() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cut(batch: Batch, parts: int, kinds: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Returns the edges of the batch's texts, more where a text is long, and the edges that divide it into equal parts."""
    edges = batch.edges
    wanted = np.arange(1, parts) * edges[-1] // parts
    extra = []
    for place in wanted.tolist():
        text = min(int(np.searchsorted(edges, place, "right")), len(edges) - 1)
        start, stop = int(edges[text - 1]), int(edges[text])
        if stop - start > (1 << 16):
            extra.append(safe_cut(batch.buffer, max(place, start + 1), stop, kinds))
    edges = np.unique(np.concatenate([edges, np.array(extra, np.int64)])) if extra else edges
    inner = np.searchsorted(edges, wanted).tolist()
    return edges, [0, *inner, len(edges) - 1]


def portions(batch: Batch, most: int, kinds: np.ndarray) -> Iterator[Batch]:
    """Yields a batch in parts of about `most` bytes, or of the 64 kB that are cut no further."""
    edges, ranges = cut(batch, max(1, -(-int(batch.edges[-1]) // most)), kinds)
    for first, last in pairwise(ranges):
        if last > first:
            yield Batch(batch.buffer[edges[first] :], edges[first : last + 1] - edges[first])


def least_kept(counts: np.ndarray, sizes: np.ndarray, most_bytes: int) -> int:
    """Returns how often a word must occur to be kept, so that those kept are at most half of the bound together."""
    order = np.argsort(-counts, kind="stable")
    kept = np.cumsum(sizes[order]) <= most_bytes // 2
    return 1 if kept.all() else int(counts[order][np.count_nonzero(kept)]) + 1


class Words:
    """A table of words and counts that grows as it must."""

    def __init__(self) -> None:
        self.used = np.zeros(4, np.int64)  # words, bytes of arena, bytes of all words together, bytes wanted
        self.shift, self.arena = 64 - 13, np.empty(1 << 15, np.uint8)
        self.slots = np.zeros((1 << 13, SLOT), np.uint64)

    def __len__(self) -> int:
        return int(self.used[0])

    @property
    def size(self) -> int:
        """The length of all different words together."""
        return int(self.used[2])

    def count(
        self, buffer: np.ndarray, edges: np.ndarray, first: int, last: int, rules: int, kinds: np.ndarray
    ) -> None:
        """Counts the words between two edges."""
        at = np.array([first, edges[first]], np.int64)
        while not count_words(buffer, edges, last, at, rules, kinds, self.slots, self.shift, self.used, self.arena):
            self._make_room(MOST)

    def add(self, other: "Words", least: int = 1) -> None:
        """Adds the words of another table that occur at least so often there.

        They come in the order of their hashes, so a table that is too small would have them all at its beginning: looking for a
        free slot there takes time in the square of their number.
        """
        coming = int(np.count_nonzero(other.slots[:, 2] >= np.uint64(least)))
        if coming > len(self.slots) // 2:
            self._widen(coming)
        slot = 0
        while slot < len(other.slots):
            slot = add_words(other.slots, other.arena, slot, least, self.slots, self.shift, self.used, self.arena)
            if slot < len(other.slots):
                self._make_room(1)

    def _make_room(self, words: int) -> None:
        if self.used[0] + words > len(self.slots) // 2:
            self._widen(len(self.slots) * (2 if self.shift > 46 else 1))
        if self.used[1] + self.used[3] > len(self.arena):
            arena = np.empty(2 * len(self.arena) + int(self.used[3]), np.uint8)
            arena[: self.used[1]] = self.arena[: self.used[1]]
            self.arena = arena

    def _widen(self, words: int) -> None:
        """Moves the words to a table that has room for so many."""
        shift = 64 - max(1, 2 * words - 1).bit_length()
        slots = np.zeros((1 << (64 - shift), SLOT), np.uint64)
        grow(self.slots, slots, shift)
        self.slots, self.shift = slots, shift

    def items(self) -> dict[bytes, int]:
        """Returns word -> count."""
        symbols, sizes, counts = self.laid_out()
        text, ends = symbols.tobytes(), np.cumsum(sizes)
        rows = zip((ends - sizes).tolist(), ends.tolist(), counts.tolist(), strict=True)
        return {text[start:end]: count for start, end, count in rows}

    def laid_out(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns all words' bytes end to end, each word's size, and its count."""
        symbols = np.empty(self.size, np.uint8)
        sizes, counts = np.empty((2, len(self)), np.int64)
        lay_out(self.slots, self.arena, symbols, sizes, counts)
        return symbols, sizes, counts


class Counted:
    """The words of a corpus within a bound; what was left out to keep it is in `dropped` and `dropped_count`.

    Threads count into tables of their own. Those are joined after so many bytes of text, and if the words are too many
    then, the rarest go. Where that happens depends on the text alone, so the result is the same for any number of threads.
    """

    def __init__(self, pattern: str, threads: int, most_bytes: int | None) -> None:
        self.rules, self.kinds = rules_of(pattern)
        self.threads, self.most_bytes = threads, most_bytes
        self.round_bytes = (most_bytes // 2) if most_bytes else None
        self.words, self.own = Words(), [Words() for _ in range(threads)]
        self.dropped = self.dropped_count = self.waiting = 0

    def add(self, batch: Batch, pool: ThreadPoolExecutor) -> list[Future]:
        """Begins to count a batch; it is done when the futures are."""
        edges, parts = cut(batch, self.threads, self.kinds)
        return [
            pool.submit(table.count, batch.buffer, edges, first, last, self.rules, self.kinds)
            for table, (first, last) in zip(self.own, pairwise(parts), strict=True)
        ]

    def join(self) -> None:
        """Brings the threads' tables together, and drops the rarest words if they are too many."""
        if not len(self.words):  # the first table is taken as it is
            self.words, self.own[0] = self.own[0], Words()
        for i, table in enumerate(self.own):
            self.words.add(table)
            self.own[i] = Words()
        self.waiting = 0
        if self.most_bytes is None or self.words.size <= self.most_bytes:
            return
        counts, sizes = self._sizes()
        least = least_kept(counts, sizes, self.most_bytes)
        gone = counts < least
        self.dropped, self.dropped_count = self.dropped + int(gone.sum()), self.dropped_count + int(counts[gone].sum())
        smaller = Words()
        smaller.add(self.words, least)
        self.words = smaller

    def round_ended(self) -> None:
        """Joins the tables if enough text was counted since the last time."""
        if self.round_bytes is not None and self.waiting >= self.round_bytes:
            self.join()

    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        full = self.words.slots[self.words.slots[:, 1] != 0]
        long = full[:, 1] >> np.uint64(56) == 255
        sizes = np.where(long, full[:, 1] & np.uint64((1 << 56) - 1), full[:, 1] >> np.uint64(56))
        return full[:, 2].astype(np.int64), sizes.astype(np.int64)


class Pieces(Counter[bytes]):
    """The words of a custom expression and their counts."""

    def laid_out(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns all words' bytes end to end, each word's size, and its count."""
        sizes, counts = np.array([*map(len, self)], np.int64), np.array([*self.values()], np.int64)
        return np.frombuffer(b"".join(self), np.uint8), sizes, counts


class CountedPieces:
    """`Counted` for a custom expression, which the `regex` module cuts some twenty times slower. A text is held whole."""

    def __init__(self, pattern: str, most_bytes: int | None) -> None:
        self.split, self.most_bytes, self.words = splitter(pattern), most_bytes, Pieces()
        self.dropped = self.dropped_count = self.waiting = 0

    def add(self, text: str) -> None:
        """Counts a text's words."""
        pieces = (piece.encode() for piece in self.split(text))
        while some := list(islice(pieces, ROUND_PIECES)):
            self.words.update(some)
            self.waiting += sum(map(len, some))
            if self.most_bytes is not None and self.waiting >= self.most_bytes // 2:
                self.bound(self.most_bytes)

    def bound(self, most_bytes: int) -> None:
        """Drops the rarest words if they are too many."""
        self.waiting = 0
        _, sizes, counts = self.words.laid_out()
        if sizes.sum() <= most_bytes:
            return
        least = least_kept(counts, sizes, most_bytes)
        gone = counts < least
        self.dropped, self.dropped_count = self.dropped + int(gone.sum()), self.dropped_count + int(counts[gone].sum())
        self.words = Pieces({word: count for word, count in self.words.items() if count >= least})


def count_custom(
    corpus: Iterable[Batch], pattern: str, most_bytes: int | None = None, bar: Progress | None = None
) -> CountedPieces:
    """Returns the words of a custom expression; `most_bytes` bounds them as in `count_batches`."""
    counted = CountedPieces(pattern, most_bytes)
    for text in strings(corpus):
        counted.add(text)
        if bar:
            bar.advance(len(text))
    if most_bytes is not None:
        counted.bound(most_bytes)
    return counted


def count_batches(
    batches: Iterable[Batch], pattern: str, threads: int = 0, most_bytes: int | None = None, bar: Progress | None = None
) -> Counted:
    """Returns the words of the batches, counted by so many threads (0: one a core).

    `most_bytes` bounds the length of all different words together; the rarest are left out to keep it.
    """
    counted = Counted(pattern, threads or threads_here(), most_bytes)
    with ThreadPoolExecutor(counted.threads) as pool:
        work: list[Future] = []
        if counted.round_bytes is not None:  # what is counted between two looks follows the bound
            batches = (part for batch in batches for part in portions(batch, counted.round_bytes, counted.kinds))
        for batch in batches:  # the next batch is read while the threads count this one
            for future in work:
                future.result()
            counted.round_ended()
            work = counted.add(batch, pool)
            size = int(batch.edges[-1])
            counted.waiting += size
            if bar:
                bar.advance(size)
        for future in work:
            future.result()
    counted.join()
    return counted
