"""Duplicates, out of core: each part scatters what its documents share by hash, each partition finds who shares it.

A duplicate is dropped in favour of the best of its group: a held-out document, else the highest score (the longest text where nothing
is scored), else the first. Memory: a partition's records in each worker; in the parent only the edges of the duplicate graph.
Equal to: groundup.data.plain.exact_duplicates, near_duplicates
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.base.kernels import kernel
from groundup.data.config import BuildConfig
from groundup.data.engine import Map
from groundup.data.shuffle import RECORD, gather, partitions_for, scatter

__all__ = ["DROP", "RULES", "Member", "band_keys", "components", "find_near", "find_same", "rank"]

RULES = ("exact", "url", "near")
DROP = np.dtype([("doc", "<u8"), ("kept", "<u8"), ("rule", "u1"), ("of_heldout", "?"), ("value", "<f8")])
EDGE = np.dtype([("a", "<u8"), ("b", "<u8"), ("rank_a", "<u8"), ("rank_b", "<u8"), ("similar", "<f8")])
BEHIND = np.uint64(1 << 63)  # of the rank of a document that isn't held out
PAIRS = 1 << 15  # compared at a time


class Member(NamedTuple):
    """One part's documents that take part in the search; the arrays have one row each."""

    docs: np.ndarray  # their numbers in the corpus
    ranks: np.ndarray
    keys: np.ndarray  # (documents, 2) uint64: hashes of what must be equal
    signatures: np.ndarray  # (documents, functions) uint64


Members = Iterable[Callable[[], Member]]  # one for each part: called where the part is worked on


def rank(heldout: np.ndarray, words: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns each document's rank, the smallest is the best: held out first, then by score, where there is none by length."""
    bits = scores.astype(np.float32).view(np.uint32)
    ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)  # as the floats are ordered
    quality = np.where(np.isnan(scores), np.minimum(words, (1 << 31) - 1).astype(np.uint64), ordered)
    return np.where(heldout, np.uint64(0), BEHIND) | (np.uint64((1 << 32) - 1) - quality)


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Returns one hash for each band of each signature; equal bands of different number have different ones.

    Shapes: (documents, bands * rows) -> (documents, bands).
    """
    parts = signatures.reshape(len(signatures), bands, rows)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), parts.shape[:2]).copy()
    for row in range(rows):
        keys = (keys ^ parts[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys * np.uint64(0xBF58476D1CE4E5B9)


def _records(keys: np.ndarray, member: Member, checks: np.ndarray | int = 0) -> np.ndarray:
    records = np.zeros(len(keys), RECORD)
    records["key"], records["check"], records["rank"], records["doc"] = keys, checks, member.ranks, member.docs
    return records


def _scatter_same(task: tuple[Callable[[], Member], Path, int]) -> Path:
    make, path, partitions = task
    member = make()
    scatter(path, _records(member.keys[:, 0], member, member.keys[:, 1]), partitions)
    return path


def _reduce_same(task: tuple[Sequence[Path], int, int, int]) -> np.ndarray:
    """Returns the drops among documents with the same key: all but the first of each group."""
    paths, partition, partitions, rule = task
    records = gather(paths, partition, partitions)
    if len(records) < 2:
        return np.zeros(0, DROP)
    later = (records["key"][1:] == records["key"][:-1]) & (records["check"][1:] == records["check"][:-1])
    first = np.maximum.accumulate(np.where(np.concatenate(([True], ~later)), np.arange(len(records)), 0))
    drops = np.zeros(int(later.sum()), DROP)
    dropped, kept = records[1:][later], records[first[1:][later]]
    drops["doc"], drops["kept"], drops["rule"], drops["value"] = dropped["doc"], kept["doc"], rule, 1.0
    drops["of_heldout"] = (kept["rank"] < BEHIND) & (dropped["rank"] >= BEHIND)
    return drops


def find_same(run_map: Map, members: Members, documents: int, folder: Path, rule: int) -> np.ndarray:
    """Returns the drops (dtype DROP, sorted) among documents whose keys are the same."""
    partitions = partitions_for(documents, documents)
    paths = list(
        run_map(
            _scatter_same, ((make, folder / f"{RULES[rule]}-{k:06d}", partitions) for k, make in enumerate(members))
        )
    )
    found = list(run_map(_reduce_same, ((paths, p, partitions, rule) for p in range(partitions))))
    for path in paths:
        path.unlink()
    return np.sort(np.concatenate(found), order="doc")


def _scatter_bands(task: tuple[Callable[[], Member], Path, int, Path, BuildConfig]) -> Path:
    """Writes a part's bands, and its signatures into their places in the one file of all."""
    make, path, partitions, signatures, config = task
    member, dedup = make(), config.dedup
    if not len(member.docs):
        scatter(path, np.zeros(0, RECORD), partitions)
        return path
    keys = band_keys(member.signatures, dedup.bands, dedup.rows)
    many = Member(
        np.repeat(member.docs, dedup.bands), np.repeat(member.ranks, dedup.bands), member.keys, member.signatures
    )
    scatter(path, _records(keys.ravel(), many), partitions)
    row_bytes = 8 * dedup.bands * dedup.rows
    with open(signatures, "rb+") as handle:
        for doc, numbers in zip(member.docs.tolist(), member.signatures):
            handle.seek(doc * row_bytes)
            handle.write(numbers.tobytes())
    return path


def _reduce_bands(task: tuple[Sequence[Path], int, int, Path, int, float]) -> np.ndarray:
    """Returns the edges between documents that share a band and are similar enough.

    Within a bucket each is compared with the first and with its predecessor, not with all: linear, and the groups come out the same
    where similarity is transitive.
    """
    paths, partition, partitions, file, functions, least = task
    records = gather(paths, partition, partitions)
    records = records[np.lexsort((records["doc"], records["key"]))]
    same = records["key"][1:] == records["key"][:-1]
    first = (
        np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(len(records)), 0))
        if len(records)
        else same
    )
    later = np.flatnonzero(same) + 1
    pairs = np.concatenate((np.stack((first[later], later), 1), np.stack((later - 1, later), 1)))
    docs = records["doc"]
    pairs = (
        pairs[np.unique(np.stack((docs[pairs[:, 0]], docs[pairs[:, 1]]), 1), axis=0, return_index=True)[1]]
        if len(pairs)
        else pairs
    )
    if not len(pairs):
        return np.zeros(0, EDGE)
    signatures = np.memmap(file, "<u8", "r").reshape(-1, functions)
    edges = []
    for at in range(0, len(pairs), PAIRS):
        left, right = records[pairs[at : at + PAIRS, 0]], records[pairs[at : at + PAIRS, 1]]
        similar = (signatures[left["doc"]] == signatures[right["doc"]]).mean(axis=1)
        edge = np.zeros(len(left), EDGE)
        edge["a"], edge["rank_a"], edge["similar"] = left["doc"], left["rank"], similar
        edge["b"], edge["rank_b"] = right["doc"], right["rank"]
        edges.append(edge[similar >= least])
    return np.concatenate(edges)


@kernel
def _union(parent, a, b):  # type: ignore[no-untyped-def]
    """Joins the groups of a[k] and b[k] for every k; afterwards parent[i] is the smallest member of i's group."""
    for k in range(len(a)):
        x, y = a[k], b[k]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        parent[max(x, y)] = min(x, y)
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]


def components(edges: np.ndarray) -> np.ndarray:
    """Returns the drops (dtype DROP, sorted) of a graph of similar documents: all but the best of each connected component."""
    docs, numbers = np.unique(np.concatenate((edges["a"], edges["b"])), return_inverse=True)
    a, b = numbers[: len(edges)], numbers[len(edges) :]
    ranks, similar, parent = np.zeros(len(docs), np.uint64), np.zeros(len(docs)), np.arange(len(docs))
    ranks[a], ranks[b] = edges["rank_a"], edges["rank_b"]
    np.maximum.at(similar, numbers, np.concatenate((edges["similar"], edges["similar"])))
    _union(parent, a, b)
    order = np.lexsort((docs, ranks, parent))  # each component's best comes first
    _, first = np.unique(parent[order], return_index=True)
    best = np.zeros(len(docs), np.int64)
    best[parent[order[first]]] = order[first]
    kept = best[parent]
    drops = np.zeros(len(docs), DROP)
    drops["doc"], drops["kept"], drops["rule"], drops["value"] = (
        docs,
        docs[kept],
        RULES.index("near"),
        np.round(similar, 4),
    )
    drops["of_heldout"] = (ranks[kept] < BEHIND) & (ranks >= BEHIND)
    return drops[kept != np.arange(len(docs))]


def find_near(run_map: Map, members: Members, documents: int, folder: Path, config: BuildConfig) -> np.ndarray:
    """Returns the drops (dtype DROP, sorted) among nearly equal documents."""
    dedup = config.dedup
    functions = dedup.bands * dedup.rows
    partitions = partitions_for(documents * dedup.bands, documents)
    signatures = folder / "signatures"
    with open(signatures, "wb") as handle:
        handle.truncate(8 * functions * documents)  # sparse: what takes no part takes no space
    scattering = ((make, folder / f"bands-{k:06d}", partitions, signatures, config) for k, make in enumerate(members))
    paths = list(run_map(_scatter_bands, scattering))
    reducing = ((paths, p, partitions, signatures, functions, dedup.min_similarity) for p in range(partitions))
    edges = np.concatenate(list(run_map(_reduce_bands, reducing)))
    (drops,) = run_map(components, (edges,))
    for path in (*paths, signatures):
        path.unlink()
    return drops
