"""A vocabulary's merges as the arrays that the kernels look up."""

from collections.abc import Mapping, Sequence

import numpy as np

from groundup.base.errors import TokenizerError
from groundup.tokenizer.kernels.unicode import rules_of
from groundup.tokenizer.texts import pack_bytes

__all__ = ["NEVER", "Vocabulary"]

MOST_SYMBOLS = 1 << 20
NEVER = 0xFFFFFF  # the rank of a pair that no merge joins
MIXER = np.uint64(0x9E3779B97F4A7C15)
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)


class Vocabulary:
    """The merges: a table of pairs, and a square for the pairs of single bytes, which every word begins with.

    A slot of the table holds two symbols, 20 bits each, and the one they are joined to in 24; `likely` has a bit for each
    pair's hash, and so says of most other pairs at once that no merge joins them. `labels` are the ids that the
    symbols have in a foreign vocabulary, and `whole` its words with an id of their own.
    """

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        id_of_byte: bytes,
        pattern: str,
        labels: Sequence[int] | None = None,
        whole: Mapping[bytes, int] | None = None,
    ) -> None:
        self.size = 256 + len(merges)
        if self.size > MOST_SYMBOLS:
            raise TokenizerError(
                f"{self.size} symbols are more than the {MOST_SYMBOLS} that can be encoded by compiled code"
            )
        self.rules, self.kinds = rules_of(pattern)
        parts = np.array(merges, np.int32).reshape(-1, 2)
        self.shift = 64 - max(4, (2 * len(parts)).bit_length())
        keys = parts[:, 0].astype(np.uint64) << np.uint64(20) | parts[:, 1].astype(np.uint64)
        self.pairs = table_of(keys, self.shift)
        bits = np.zeros(1 << 19, bool)
        bits[((keys * MIXER) >> np.uint64(45)).astype(np.int64)] = True
        self.likely = np.packbits(bits, bitorder="little").view(np.uint64)
        self.letters = np.frombuffer(id_of_byte, np.uint8).astype(np.int32)
        by_id = np.full((256, 256), NEVER, np.int32)
        single = (parts < 256).all(axis=1)
        by_id[parts[single, 0], parts[single, 1]] = 256 + np.flatnonzero(single)
        self.squares = np.ascontiguousarray(by_id[np.ix_(self.letters, self.letters)]).ravel()
        self.labels = np.arange(self.size, dtype=np.int32) if labels is None else np.array(labels, np.int32)
        self.whole = pack_bytes(list(whole or ()))
        self.whole_labels = np.array([*(whole or {}).values()], np.int32)


def table_of(keys: np.ndarray, shift: int) -> np.ndarray:
    """Returns the table of pairs, each at the first free slot from its own on."""
    table, last = np.full(1 << (64 - shift), FREE), (1 << (64 - shift)) - 1
    values = keys << np.uint64(24) | np.arange(256, 256 + len(keys), dtype=np.uint64)
    slots = ((keys * MIXER) >> np.uint64(shift)).astype(np.int64)
    while len(values):  # those that find their slot free take it, the first of them where several do; the others go on
        _, first = np.unique(slots, return_index=True)
        first = first[table[slots[first]] == FREE]
        table[slots[first]] = values[first]
        left = np.ones(len(values), bool)
        left[first] = False
        values, slots = values[left], (slots[left] + 1) & last
    return table
