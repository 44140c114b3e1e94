"""The compiled way from text to ids and back: tables that threads work with, and the batches they share out."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, pairwise

import numpy as np

from groundup.tokenizer.bench import TASK_BYTES, Bench
from groundup.tokenizer.count import cut
from groundup.tokenizer.kernels.join import join_bytes, total_size
from groundup.tokenizer.kernels.merge import SHORT, merge_symbols
from groundup.tokenizer.native import Memory, NativeBench, library
from groundup.tokenizer.texts import Batch, batches
from groundup.tokenizer.vocabulary import Vocabulary

__all__ = ["Engine", "Joiner", "merge"]


class Engine:
    """Encodes batches for a tokenizer. Threads may share it: each call takes benches of its own, which know the same words."""

    def __init__(self, vocabulary: Vocabulary, native: bool = True) -> None:
        self.vocabulary, self._code = vocabulary, library() if native else None
        self._lock = threading.Lock()
        self._benches: list[Bench | NativeBench] = []
        self._memory: Memory | None = None  # what all NativeBenches know

    def _new_bench(self) -> Bench | NativeBench:
        if self._code and not self._memory:
            self._memory = Memory(self.vocabulary, self._code)
        return NativeBench(self._memory) if self._memory else Bench(self.vocabulary)

    @contextmanager
    def _bench(self) -> Iterator[Bench | NativeBench]:
        with self._lock:
            bench = self._benches.pop() if self._benches else self._new_bench()
        yield bench
        with self._lock:
            self._benches.append(bench)

    def _span(self, buffer: np.ndarray, edges: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of the texts between two edges, and how many there are up to each of the edges after."""
        with self._bench() as bench:
            return bench.encode(buffer, edges, first, last)

    def stream(self, batches: Iterable[Batch], threads: int = 1) -> Iterator[np.ndarray]:
        """Yields the ids of each text. While the threads encode a batch, the next is read."""
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[tuple[Batch, np.ndarray, list[Future]]] = deque()
            begun: list[np.ndarray] = []
            for batch in chain((batch for batch in batches if len(batch.edges) > 1), [None]):
                if batch is not None:
                    parts = max(1, min(4 * threads, int(batch.edges[-1]) // TASK_BYTES)) if threads > 1 else 1
                    edges, ranges = cut(batch, parts, self.vocabulary.kinds)
                    work = [pool.submit(self._span, batch.buffer, edges, *span) for span in pairwise(ranges)]
                    ahead.append((batch, edges, work))
                while ahead and (batch is None or len(ahead) > 2 * threads):
                    ready, edges, work = ahead.popleft()
                    texts = _texts(ready, edges, [future.result() for future in work])
                    begun.append(texts[0])
                    if len(texts) > 1 or not ready.joined:  # at its end, once: a text may come in thousands of batches
                        texts[0] = _joined(begun)
                        if ready.joined:
                            begun = [texts.pop()]
                        yield from texts
            if begun:
                yield _joined(begun)

    def encode(self, batch: Batch) -> list[np.ndarray]:
        """Returns the ids of each text of a batch."""
        return _texts(batch, batch.edges, [self._span(batch.buffer, batch.edges, 0, len(batch.edges) - 1)])

    def encode_texts(self, texts: Iterable[str], threads: int = 1) -> list[np.ndarray]:
        """Returns the ids of each text."""
        small = batches(texts, TASK_BYTES)
        return (
            list(self.stream(small, threads)) if threads > 1 else [ids for batch in small for ids in self.encode(batch)]
        )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Returns the parts as one, and empties the list meanwhile: a text's ids are never there twice."""
    if len(parts) == 1:
        return parts.pop()
    whole, at = np.empty(sum(map(len, parts)), np.int32), 0
    parts.reverse()
    while parts:
        part = parts.pop()
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


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
