"""The compiled way from text to ids and back: tables that threads work with, and the batches they share out."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, pairwise

import numpy as np

from groundup.base.errors import TokenizerError
from groundup.tokenizer.count import cut
from groundup.tokenizer.kernels.join import join_bytes, total_size
from groundup.tokenizer.kernels.merge import (
    NEVER,
    OUT,
    ROOM,
    SCRATCH,
    SHORT,
    encode_words,
    fill_pairs,
    know_words,
    merge_symbols,
)  # fmt: skip
from groundup.tokenizer.kernels.split import rules_of
from groundup.tokenizer.kernels.words import MOST, SLOT, grow
from groundup.tokenizer.texts import Batch, batches, pack_bytes

__all__ = ["Engine", "Joiner", "Vocabulary", "merge"]

LARGEST = 20  # a word table has at most 2**20 slots, 32 MB; when it is full, it begins anew
ARENA = 1 << 22  # numbers in an arena at most, 16 MB
TASK_BYTES = 1 << 20  # what a thread takes at a time: it and its ids stay near the processor
MOST_SYMBOLS = 1 << 20


class Vocabulary:
    """The merges as arrays: a table of pairs, and a square for the pairs of single bytes, which every word begins with.

    `labels` are the ids that the symbols have in a foreign vocabulary, and `whole` its words with an id of their own.
    """

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        id_of_byte: bytes,
        labels: Sequence[int] | None = None,
        whole: Mapping[bytes, int] | None = None,
    ) -> None:
        self.size = 256 + len(merges)
        if self.size > MOST_SYMBOLS:
            raise TokenizerError(
                f"{self.size} symbols are more than the {MOST_SYMBOLS} that can be encoded by compiled code"
            )
        pairs = np.array(merges, np.int32).reshape(-1, 2)
        self.shift = 64 - max(4, (2 * len(pairs)).bit_length())
        self.pairs = np.full(1 << (64 - self.shift), 0xFFFFFFFFFFFFFFFF, np.uint64)
        fill_pairs(pairs, 256, self.pairs, self.shift)
        self.letters = np.frombuffer(id_of_byte, np.uint8).astype(np.int32)
        by_id = np.full((256, 256), NEVER, np.int32)
        single = (pairs < 256).all(axis=1)
        by_id[pairs[single, 0], pairs[single, 1]] = 256 + np.flatnonzero(single)
        self.squares = np.ascontiguousarray(by_id[np.ix_(self.letters, self.letters)]).ravel()
        self.labels = np.arange(self.size, dtype=np.int32) if labels is None else np.array(labels, np.int32)
        self.whole = pack_bytes(list(whole or ()))
        self.whole_labels = np.array([*(whole or {}).values()], np.int32)


class Bench:
    """What one thread works with: its table of words, and room for the word at hand."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary, self.used = vocabulary, np.zeros(4, np.int64)
        bits = max(13, (4 * len(vocabulary.whole_labels)).bit_length())
        self.shift, self.table = 64 - bits, np.zeros((1 << bits, SLOT), np.uint64)
        self.arena = np.empty((1 << 14) + int(vocabulary.whole.edges[-1]), np.int32)
        self.scratch = np.empty((6, 1 << 10), np.int32)
        self.heads = np.full((2, vocabulary.size), -1, np.int32)
        self.waiting = np.zeros((vocabulary.size >> 6) + 1, np.uint64)
        self.out = np.empty(TASK_BYTES + (1 << 16), np.int32)  # enough for the ids of a task, one for each byte at most
        self._forget()

    def make_room(self, wanted: int) -> None:
        """Makes room for what encode_words stopped for."""
        need = int(self.used[3])
        if wanted == SCRATCH:
            self.scratch = np.empty((6, 2 * need), np.int32)
        elif wanted == OUT:
            if need + 4 > len(self.out):
                self.out = np.empty(2 * need + 4, np.int32)
        elif wanted == ROOM:
            if self.used[1] + need > len(self.arena):
                self._widen(need)
            if 2 * int(self.used[0] + MOST) > len(self.table):
                self._lengthen()

    def _widen(self, need: int) -> None:
        size = max(2 * len(self.arena), need)
        if size > max(ARENA, need):
            self._forget()
        if len(self.arena) < need or size <= ARENA:
            arena = np.empty(size, np.int32)
            arena[: self.used[1]] = self.arena[: self.used[1]]
            self.arena = arena

    def _lengthen(self) -> None:
        if 64 - self.shift >= LARGEST:
            self._forget()
            return
        shift = self.shift - (2 if 64 - self.shift < 17 else 1)
        table = np.zeros((1 << (64 - shift), SLOT), np.uint64)
        grow(self.table, table, shift)
        self.table, self.shift = table, shift

    def _forget(self) -> None:
        words = self.vocabulary
        self.table[:], self.used[:] = 0, 0
        know_words(words.whole.buffer, words.whole.edges, words.whole_labels, self.table, self.shift, self.used, self.arena,
                   self.scratch)  # fmt: skip


class Engine:
    """Encodes batches for a tokenizer. Threads may share it: each call takes benches of its own."""

    def __init__(self, vocabulary: Vocabulary, pattern: str) -> None:
        self.vocabulary, (self.rules, self.kinds) = vocabulary, rules_of(pattern)
        self._lock = threading.Lock()
        self._benches: list[Bench] = []

    @contextmanager
    def _bench(self) -> Iterator[Bench]:
        with self._lock:
            bench = self._benches.pop() if self._benches else None
        bench = bench or Bench(self.vocabulary)
        yield bench
        with self._lock:
            self._benches.append(bench)

    def _span(self, buffer: np.ndarray, edges: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of the texts between two edges, and how many there are up to each of the edges after."""
        words, marks = self.vocabulary, np.zeros(len(edges), np.int64)
        at = np.array([first, edges[first], 0, 0], np.int64)
        found: list[np.ndarray] = []
        with self._bench() as bench:
            while True:
                stopped = encode_words(
                    buffer, edges, last, at, self.rules, self.kinds, words.letters, words.squares, words.pairs, words.shift, words.labels,
                    bench.table, bench.shift, bench.used, bench.arena, bench.scratch, bench.heads, bench.waiting, bench.out,
                    marks,
                )  # fmt: skip
                if not stopped or stopped == OUT:
                    found.append(bench.out[: at[2]].copy())
                    at[2], at[3] = 0, at[3] + at[2]
                if not stopped:
                    break
                bench.make_room(stopped)
        return (found[0] if len(found) == 1 else np.concatenate(found)), marks[first + 1 : last + 1]

    def stream(self, batches: Iterable[Batch], threads: int = 1) -> Iterator[np.ndarray]:
        """Yields the ids of each text. While the threads encode a batch, the next is read."""
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[tuple[Batch, np.ndarray, list[Future]]] = deque()
            begun: list[np.ndarray] = []
            for batch in chain((batch for batch in batches if len(batch.edges) > 1), [None]):
                if batch is not None:
                    parts = max(1, min(4 * threads, int(batch.edges[-1]) // TASK_BYTES)) if threads > 1 else 1
                    edges, ranges = cut(batch, parts, self.kinds)
                    work = [pool.submit(self._span, batch.buffer, edges, *span) for span in pairwise(ranges)]
                    ahead.append((batch, edges, work))
                while ahead and (batch is None or len(ahead) > 2 * threads):
                    ready, edges, work = ahead.popleft()
                    texts = _texts(ready, edges, [future.result() for future in work])
                    if begun:
                        texts[0] = np.concatenate([*begun, texts[0]])
                    begun = [texts.pop()] if ready.joined else []
                    yield from texts
            yield from begun

    def encode(self, batch: Batch) -> list[np.ndarray]:
        """Returns the ids of each text of a batch."""
        return _texts(batch, batch.edges, [self._span(batch.buffer, batch.edges, 0, len(batch.edges) - 1)])

    def encode_texts(self, texts: Iterable[str], threads: int = 1) -> list[np.ndarray]:
        """Returns the ids of each text."""
        small = batches(texts, TASK_BYTES)
        return (
            list(self.stream(small, threads)) if threads > 1 else [ids for batch in small for ids in self.encode(batch)]
        )


def _texts(batch: Batch, edges: np.ndarray, spans: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Returns the ids of each text, from those of the stretches that the batch was cut into."""
    if len(batch.edges) == 1:
        return []
    ids = spans[0][0] if len(spans) == 1 else np.concatenate([ids for ids, _ in spans])
    counts = np.concatenate([np.diff(marks, prepend=0) for _, marks in spans])
    places = np.concatenate([[0], np.cumsum(counts)])
    return np.split(ids, places[np.searchsorted(edges, batch.edges[1:-1])])


class Joiner:
    """Turns arrays of ids into bytes."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.sizes = np.array([len(token) for token in tokens], np.int32)
        self.places = np.cumsum(self.sizes, dtype=np.int64) - self.sizes
        self.tokens = np.frombuffer(b"".join(tokens) + bytes(16), np.uint8)

    def stranger(self, ids: np.ndarray) -> int | None:
        """Returns the first id that is out of range, if there is one."""
        size = total_size(ids, self.sizes)
        return int(ids[-1 - size]) if size < 0 else None

    def join(self, ids: np.ndarray) -> np.ndarray:
        """Returns the bytes of the ids, none of which is out of range."""
        size = total_size(ids, self.sizes)
        out = np.empty(size + 16, np.uint8)
        join_bytes(ids, self.sizes, self.places, self.tokens, out)
        return out[:size]


def merge(ids: Iterable[int], vocabulary: Vocabulary, long: bool) -> list[int]:
    """Returns the symbols after all merges, by the way for short words or that for long ones; for tests."""
    symbols = np.fromiter(ids, np.int32)
    assert long or len(symbols) <= SHORT
    scratch = np.empty((6, len(symbols) + 65), np.int32)
    scratch[0, : len(symbols)] = symbols
    heads = np.full((2, vocabulary.size), -1, np.int32)
    waiting = np.zeros((vocabulary.size >> 6) + 1, np.uint64)
    if not len(symbols):
        return []
    count = merge_symbols(len(symbols), long, scratch, heads, waiting, vocabulary.pairs, vocabulary.shift)
    assert (heads == -1).all()
    return scratch[0, :count].tolist()
