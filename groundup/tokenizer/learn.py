"""Merges from counted words: the arrays that the kernel works on, and their growth."""

from collections.abc import Mapping, Sequence

import numpy as np

from groundup.base.errors import TokenizerError
from groundup.base.log import Progress
from groundup.tokenizer.kernels.learn import LEARNT, PAIRS, PLACES, ROOM, begin, merge_pairs

__all__ = ["BYTES_PER_SYMBOL", "learn", "learn_words"]

Pair = tuple[int, int]
BYTES_PER_SYMBOL = (
    64  # memory for each byte of the different words: cells 16, places 4 to 12, pairs up to 40 in the worst case
)
STEP = 256  # merges between two looks at the progress line
MOST_SYMBOLS = 4096  # single symbols to begin with: a square of so many is kept for their pairs


def learn(words: Mapping[Sequence[int], int], merges: int, first: int, bar: Progress | None = None) -> list[Pair]:
    """Returns up to `merges` pairs in the order learnt; pair i becomes symbol `first + i`. Fewer: none was left.

    The most frequent pair goes first; among equals the one with the smallest ids, left before right.
    Source: Sennrich et al. 2016, with counts kept up to date rather than taken anew.
    Equal to: groundup.tokenizer.plain.learn
    """
    sizes = np.fromiter(map(len, words), np.int64, len(words))
    counts = np.fromiter(words.values(), np.int64, len(words))
    symbols = np.fromiter((symbol for word in words for symbol in word), np.int32, int(sizes.sum()))
    return learn_words(symbols, sizes, counts, merges, first, bar)


def learn_words(
    symbols: np.ndarray,
    sizes: np.ndarray,
    counts: np.ndarray,
    merges: int,
    first: int = 256,
    bar: Progress | None = None,
) -> list[Pair]:
    """Returns the same from arrays: the words' symbols end to end, and for each word its size and its count.

    Raises: TokenizerError for words that are too much for 32-bit places: 2 GB of different ones.
    """
    cells_needed = len(symbols) + len(sizes) + 1
    if cells_needed >= 1 << 31 or first > MOST_SYMBOLS:
        raise TokenizerError("the different words are more than 2 GB: give --memory-gb to leave the rarest out")
    lengths = np.ones(first + merges, np.int32)
    ahead, behind = np.full((2, first + merges), -1, np.int32)
    learnt = np.empty((merges, 2), np.int32)
    cells = np.empty((cells_needed, 4), np.int32)
    weights = cells.view(np.int64)
    capacity = min(first * first, len(symbols)) + 1024
    keys, totals, spans = np.empty(capacity, np.uint64), np.empty(capacity, np.int64), np.empty((capacity, 2), np.int64)
    places, notes, heap = (
        np.empty(2 * len(symbols) + 1024, np.int32),
        np.empty((1 << 16, 2), np.int32),
        np.empty((capacity, 2), np.uint64),
    )
    state, square = np.zeros(6, np.int64), np.full(first * first, -1, np.int32)
    begin(symbols, sizes, counts, first, cells, weights, square, keys, totals, spans, places, state)
    while True:
        limit, before = min(merges, state[LEARNT] + STEP), state[LEARNT]
        whole = merge_pairs(limit, first, learnt, lengths, cells, weights, keys, totals, spans, places, notes, heap,
                            ahead, behind, state)  # fmt: skip
        if bar:
            bar.advance(int(state[LEARNT] - before))
        if whole and (state[LEARNT] < limit or limit == merges):
            return list(map(tuple, learnt[: state[LEARNT]].tolist()))
        room = int(state[ROOM])
        if state[PAIRS] + room > len(totals):
            capacity = 2 * len(totals) + room
            keys, totals, spans = (_grown(array, capacity) for array in (keys, totals, spans))
            heap = _grown(heap, capacity)
        if state[PLACES] + room > len(places):
            places = _grown(places, len(places) * 3 // 2 + room)
        if room > len(notes):
            notes = np.empty((2 * room, 2), np.int32)


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """Returns a longer array that begins with this one."""
    larger = np.empty((size, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
