"""What one thread encodes with, by the kernels of Numba: its table of words, and room for the word at hand."""

import numpy as np

from groundup.tokenizer.kernels.merge import OUT, ROOM, SCRATCH, encode_words, know_words
from groundup.tokenizer.kernels.words import MOST, SLOT, grow
from groundup.tokenizer.vocabulary import Vocabulary

__all__ = ["TASK_BYTES", "Bench"]

LARGEST = 20  # a word table has at most 2**20 slots, 32 MB; when it is full, it begins anew
ARENA = 1 << 22  # numbers in an arena at most, 16 MB
TASK_BYTES = 1 << 20  # what a thread takes at a time: it and its ids stay near the processor


class Bench:
    """Turns texts into ids."""

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

    def encode(self, buffer: np.ndarray, edges: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of the texts between two edges, and how many there are up to each of the edges after."""
        words, marks = self.vocabulary, np.zeros(len(edges), np.int64)
        at = np.array([first, edges[first], 0, 0], np.int64)
        found: list[np.ndarray] = []
        while True:
            stopped = encode_words(
                buffer, edges, last, at, words.rules, words.kinds, words.letters, words.squares, words.pairs, words.shift,
                words.labels, self.table, self.shift, self.used, self.arena, self.scratch, self.heads, self.waiting, self.out,
                marks,
            )  # fmt: skip
            if not stopped or stopped == OUT:
                found.append(self.out[: at[2]].copy())
                at[2], at[3] = 0, at[3] + at[2]
            if not stopped:
                break
            self._make_room(stopped)
        return (found[0] if len(found) == 1 else np.concatenate(found)), marks[first + 1 : last + 1]

    def _make_room(self, wanted: int) -> None:
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
