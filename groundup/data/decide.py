"""The decisions that need all documents: duplicates, the held-out split, the mix. Only hashes and signatures are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundup.data.config import BuildConfig
from groundup.data.dedup import groups, links
from groundup.data.extract import Drop
from groundup.data.mix import copies
from groundup.data.stages import Row

__all__ = ["Fate", "decide"]


@dataclass(frozen=True)
class Fate:
    """Where a document ends: trained on `copies` times, held out, or dropped; `cut` is the share of its end that is held out."""

    raw_bytes: int
    copies: int = 0
    heldout: bool = False
    drop: Drop | None = None
    cut: float | None = None


def decide(rows: Sequence[Row], config: BuildConfig) -> list[Fate]:
    """Returns each document's fate.

    A document on the held-out side is never trained on, nor is a duplicate of one: of a group of duplicates the held-out document
    stays, else the first. Where nothing is filtered (`filters = "none"`) the held-out documents are the same ones, and everything
    else is trained on but for their duplicates and what the split by hash excludes.
    """
    tail = config.split == "tail"
    side = [not tail and row.share < config.heldout for row in rows]
    drops: dict[int, Drop] = {i: row.drop for i, row in enumerate(rows) if row.drop is not None}
    alive = [i for i in range(len(rows)) if i not in drops]
    drops |= _duplicates(rows, alive, side, config, exact=config.dedup.exact, near=config.dedup.near)
    kept = [i for i in alive if i not in drops]
    if config.heldout and not tail and len(kept) > 1 and not any(side[i] for i in kept):
        side[min(kept, key=lambda i: rows[i].share)] = True  # a small corpus has a held-out document too
    held = {i for i in kept if side[i]}
    if config.filters == "none":
        drops = {i: d for i, d in drops.items() if side[i]}
        everything = sorted(held | {i for i in range(len(rows)) if not side[i]})
        found = _duplicates(rows, everything, side, config, exact=bool(held), near=bool(held))
        leaks = {rows[i].id: d for i, d in found.items() if d.rule.endswith("_of_heldout")}
        for i, d in found.items():  # ... and what is the same as a document near a held-out one
            if leak := leaks.get(rows[i].id) or leaks.get(d.partner):
                drops[i] = leak
        kept = [i for i in range(len(rows)) if i not in drops]
    fates = [Fate(row.raw_bytes, drop=drops.get(i)) for i, row in enumerate(rows)]
    weights = config.weights()
    for i in kept:
        number = 1 if i in held else copies(rows[i].id, weights.get(rows[i].source, 1.0))
        cut = config.heldout if config.heldout and (tail or len(kept) == 1) else None
        if i in held:
            fates[i] = replace(fates[i], heldout=True)
        elif number:
            fates[i] = replace(fates[i], copies=number, cut=cut)
        else:
            fates[i] = replace(fates[i], drop=Drop("mix", "weight", weights[rows[i].source], 1.0))
    return fates


def _duplicates(
    rows: Sequence[Row], alive: Sequence[int], side: Sequence[bool], config: BuildConfig, exact: bool, near: bool
) -> dict[int, Drop]:
    """Returns the drops among the living: first of equal texts, then of nearly equal ones."""
    drops: dict[int, Drop] = {}

    def drop(i: int, kept: int, rule: str, value: float, threshold: float) -> None:
        rule += "_of_heldout" if side[kept] and not side[i] else ""
        drops[i] = Drop("duplicates", rule, value, threshold, rows[kept].id)

    if exact:
        first: dict[int, int] = {}
        for i in sorted(alive, key=lambda i: (not side[i], i)):
            kept = first.setdefault(rows[i].exact, i)
            if kept != i:
                drop(i, kept, "exact", 1.0, 1.0)
    if near:
        left = [i for i in alive if i not in drops and rows[i].signature]
        if not left:
            return drops
        signatures = np.frombuffer(b"".join(rows[i].signature for i in left), np.uint32).reshape(len(left), -1)
        group, similar = groups(len(left), links(signatures, config.dedup))
        best: dict[int, int] = {}
        for k in sorted(range(len(left)), key=lambda k: (not side[left[k]], k)):
            kept = best.setdefault(group[k], left[k])
            if kept != left[k]:
                drop(left[k], kept, "near", round(similar[k], 4), config.dedup.min_similarity)
    return drops
