"""Which part of the documents is trained on, and how often: held-out split by hash, weights by source."""

import xxhash

__all__ = ["copies", "unit_hash"]


def unit_hash(text: str, seed: str = "") -> float:
    """Returns a number in [0, 1) that depends on the text alone: the same document falls on the same side everywhere."""
    return (xxhash.xxh64_intdigest(f"{seed}\0{text}".encode("utf-8", "surrogatepass")) >> 11) / (1 << 53)


def copies(identity: str, weight: float) -> int:
    """Returns how often a document of a source with this weight is trained on: 2.3 is twice, and a third time for 30% of them."""
    whole = int(weight)
    return whole + (unit_hash(identity, "mix") < weight - whole)
