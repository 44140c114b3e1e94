"""Which part of the documents is trained on, and how often: held-out split by hash, weights or a temperature by source."""

import difflib
from collections.abc import Mapping

import xxhash

from groundup.base.log import say
from groundup.data.config import BuildConfig

__all__ = ["copies", "epochs", "unit_hash"]

SHOWN = 8  # sources


def unit_hash(text: str, seed: str = "") -> float:
    """Returns a number in [0, 1) that depends on the text alone: the same document falls on the same side everywhere."""
    return (xxhash.xxh64_intdigest(f"{seed}\0{text}".encode("utf-8", "surrogatepass")) >> 11) / (1 << 53)


def copies(identity: str, weight: float) -> int:
    """Returns how often a document of a source with this weight is trained on: 2.3 is twice, and a third time for 30% of them."""
    whole = int(weight)
    return whole + (unit_hash(identity, "mix") < weight - whole)


def epochs(sizes: Mapping[str, int], config: BuildConfig) -> dict[str, float]:
    """Returns how often each source is trained on, at most `max_epochs` times.

    A weight given for a source is its number of epochs. At a temperature T the others share their bytes in proportion to
    bytes^(1/T): 1 leaves them as they are, a high one makes all sources equal. What the bound holds back goes to nobody.
    """
    given = config.weights()
    for source in sorted(given.keys() - sizes.keys()):
        known = (
            difflib.get_close_matches(source, list(sizes), 1, 0.6)
            or sorted(sizes, key=lambda name: -sizes[name])[:SHOWN]
        )
        say(f"mix: no document of a source '{source}' is left, but of {', '.join(known)}")
    others = {source: size for source, size in sizes.items() if source not in given and size}
    powers = {source: size ** (1 / config.mix_temperature) for source, size in others.items()}
    whole = {s: sum(others.values()) * powers[s] / sum(powers.values()) / others[s] for s in others}
    if config.mix_temperature == 1:
        whole = dict.fromkeys(others, 1.0)
    return {source: min(times, config.max_epochs) for source, times in sorted({**whole, **given}.items())}
