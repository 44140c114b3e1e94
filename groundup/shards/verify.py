"""`groundup shards verify`: are the token files those that were written, and do their documents begin where the index says?"""

import numpy as np

from groundup.base.errors import DataError
from groundup.base.log import quantity, say
from groundup.shards.config import VerifyConfig
from groundup.shards.read import BLOCK, Shards

__all__ = ["main", "verify"]


def verify(shards: Shards) -> int:
    """Returns the number of documents. Raises: DataError for an id beyond the vocabulary, or for beginnings that can't be."""
    starts, place = shards.doc_starts, shards.folder
    if shards.documents and len(starts) != shards.documents:
        raise DataError(f"{place}: its index says {shards.documents:,} documents, doc_starts.npy {len(starts):,}")
    if len(starts) and (starts[0] != 0 or starts[-1] >= shards.tokens or (np.diff(starts) <= 0).any()):
        raise DataError(f"{place}: its documents don't begin one behind the other within its {shards.tokens:,} tokens")
    for at in range(0, shards.tokens, BLOCK):
        if (highest := int(shards.slice(at, min(at + BLOCK, shards.tokens)).max())) >= shards.vocab_size:
            raise DataError(f"{place}: a token {highest:,}, where the vocabulary has {shards.vocab_size:,}")
    return len(starts)


def main(config: VerifyConfig) -> None:
    """Verifies each folder and says what it holds. Raises: DataError naming the first file that isn't whole."""
    for place in config.places:
        shards = Shards(place, verify=True)
        text = f" from {quantity(shards.bytes)} bytes" if shards.bytes else ""
        say(f"{place}: {quantity(shards.tokens)} tokens in {verify(shards):,} documents{text}; every file is whole")
