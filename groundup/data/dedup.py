"""Duplicates: MinHash signatures, locality-sensitive hashing, and the groups of documents that are nearly the same.

Equal to: groundup.data.plain.signature, near_duplicates
"""

import re
from collections.abc import Iterator

import numpy as np
import xxhash

from groundup.data.config import DedupConfig

__all__ = ["groups", "hash_functions", "links", "shingles", "signature", "words"]

WORD = re.compile(r"\w+")
CHUNK = 2048  # shingles at a time: their products with all hash functions stay in the cache


def words(text: str) -> list[str]:
    """Returns the words of a text, in lower case, without punctuation: what duplicates and contamination are judged by."""
    return WORD.findall(text.lower())


def shingles(found: list[str], n: int) -> np.ndarray:
    """Returns the XXH64 of each run of n words joined by spaces (of all words, where there are fewer). Shape: (runs,) uint64."""
    if not found:
        return np.zeros(0, np.uint64)
    joined = " ".join(found).encode()
    spaces = np.flatnonzero(np.frombuffer(joined, np.uint8) == 32)
    n = min(n, len(found))
    runs = map(slice, [0, *(spaces + 1).tolist()], [*spaces.tolist(), len(joined)][n - 1 :])
    return np.fromiter(map(xxhash.xxh64_intdigest, map(joined.__getitem__, runs)), np.uint64, len(found) - n + 1)


def hash_functions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns odd factors and summands of `count` functions h -> factor * h + summand (mod 2^64)."""
    digests = np.array([xxhash.xxh64_intdigest(f"{seed}:{k}".encode()) for k in range(2 * count)], np.uint64)
    return digests[:count] | np.uint64(1), digests[count:]


def signature(hashes: np.ndarray, functions: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns, for each hash function, the smallest value over the shingles, its upper 32 bits. Shape: (functions,) uint32.

    Source: Broder 1997. Two texts agree in a number with a probability that is the Jaccard similarity of their shingles.
    """
    factors, summands = functions
    least = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for at in range(0, len(hashes), CHUNK):
        values = hashes[at : at + CHUNK, None] * factors  # (shingles, functions), modulo 2^64
        values += summands
        np.minimum(least, values.min(axis=0), out=least)
    return (least >> np.uint64(32)).astype(np.uint32)


def links(signatures: np.ndarray, config: DedupConfig) -> Iterator[tuple[int, int, float]]:
    """Yields pairs (i, j, similarity), i < j, that share a band and whose signatures agree in at least `min_similarity`.

    Within a bucket each document is compared with the bucket's first and with its predecessor, not with all: linear, and the
    groups come out the same where similarity is transitive.
    Shapes: signatures (documents, bands * rows).
    """
    n = len(signatures)
    for band in range(config.bands if n > 1 else 0):
        part = np.ascontiguousarray(signatures[:, band * config.rows : (band + 1) * config.rows])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * part.shape[1]))).ravel()
        _, bucket = np.unique(keys, return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        same = bucket[order][1:] == bucket[order][:-1]
        firsts = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(n), 0))
        later = np.flatnonzero(same) + 1
        pairs = np.concatenate(
            (np.stack((order[firsts[later]], order[later]), 1), np.stack((order[later - 1], order[later]), 1))
        )
        pairs = np.unique(pairs, axis=0)
        for at in range(0, len(pairs), 1 << 16):
            left, right = pairs[at : at + (1 << 16)].T
            similar = (signatures[left] == signatures[right]).mean(axis=1)
            for k in np.flatnonzero(similar >= config.min_similarity).tolist():
                yield int(left[k]), int(right[k]), float(similar[k])


def groups(count: int, pairs: Iterator[tuple[int, int, float]]) -> tuple[list[int], dict[int, float]]:
    """Returns each document's group (the smallest index in it) and, for linked documents, their best similarity."""
    parent = list(range(count))
    best: dict[int, float] = {}

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j, similar in pairs:
        best[i], best[j] = max(best.get(i, 0.0), similar), max(best.get(j, 0.0), similar)
        a, b = find(i), find(j)
        parent[max(a, b)] = min(a, b)
    return [find(i) for i in range(count)], best
