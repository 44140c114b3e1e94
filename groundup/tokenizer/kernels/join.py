"""From ids to bytes: every token's bytes, copied side by side."""

import numpy as np

from groundup.tokenizer.kernels.machine import kernel, prefetch, store64, word64

__all__ = ["join_bytes", "total_size"]

AHEAD = 16  # tokens: how far ahead a token's bytes are asked for


@kernel
def total_size(ids, sizes):
    """Returns how many bytes the ids stand for; -1 - k if the id at place k has none."""
    total = np.int64(0)
    for k in range(len(ids)):
        token = np.int64(ids[k])
        if token < 0 or token >= len(sizes):
            return -1 - k
        total += sizes[token]
    return total


@kernel
def join_bytes(ids, sizes, places, tokens, out):
    """Writes the bytes of each id into `out`, which has room for 16 bytes more; returns where they end."""
    source, target, done = tokens.ctypes.data, out.ctypes.data, 0
    for k in range(len(ids)):
        if k + AHEAD < len(ids):
            prefetch(source + np.int64(places[np.int64(ids[k + AHEAD])]))
        token = np.int64(ids[k])
        place, size = np.int64(places[token]), np.int64(sizes[token])
        store64(target + done, 0, word64(source, place))
        store64(target + done + 8, 0, word64(source, place + 8))
        for more in range(16, size, 8):
            store64(target + done + more, 0, word64(source, place + more))
        done += size
    return done
