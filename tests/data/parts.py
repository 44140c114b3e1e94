"""Texts as the parts that the search for repeats takes, and the words that the tests make texts of."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from groundup.data.dedup import BEHIND
from groundup.data.overlap import Texts

WORDS = "the of and with a house river people said day went have that winter engine letter".split()  # noqa: SIM905 a list of words reads best as words


def nothing() -> None:
    """What workers with nothing to set up begin with."""


def parts_of(texts: list[bytes], sizes: int, heldout: tuple[int, ...] = ()) -> Iterator[partial[Texts]]:
    """Yields the texts as parts of `sizes`; the held-out rank first, then the texts in their order."""
    for at in range(0, len(texts), sizes):
        docs = np.arange(at, min(at + sizes, len(texts)), dtype=np.uint64)
        ranks = np.array([0 if int(d) in heldout else int(BEHIND) + int(d) for d in docs], np.uint64)
        yield partial(Texts, docs, ranks, [texts[int(d)] for d in docs])
