"""Records on their way from the parts that made them to the partitions that compare them: one file a part, cut by hash.

A partition is read whole, so it bounds the memory of whoever reduces it; how many there are depends on the number of records alone,
and no result depends on how many there are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["PARTITION_BYTES", "RECORD", "gather", "partition_of", "partitions_for", "scatter"]

PARTITION_BYTES = 32 << 20  # of records; sorting and pairing them takes about eight times as much
SPREAD = 2000  # documents for each further partition: enough of them for every worker
# key: what equal things share; check: more bits of it; rank: the smallest of a group stays; item: the place within the document.
RECORD = np.dtype([("key", "<u8"), ("check", "<u8"), ("rank", "<u8"), ("doc", "<u8"), ("item", "<u8")])


def partitions_for(records: int, documents: int) -> int:
    """Returns how many partitions so many records need."""
    return max(1, -(-records * RECORD.itemsize // PARTITION_BYTES), min(16, documents // SPREAD))


def partition_of(keys: np.ndarray, partitions: int) -> np.ndarray:
    """Returns the partition of each key, by its highest bits. Shapes: (keys,) uint64 -> (keys,) int64."""
    return (((keys >> np.uint64(32)) * np.uint64(partitions)) >> np.uint64(32)).astype(np.int64)


def scatter(path: Path, records: np.ndarray, partitions: int) -> None:
    """Writes a part's records sorted by partition, after a table of where each partition begins."""
    where, starts = partition_of(records["key"], partitions), np.zeros(partitions + 1, "<i8")
    np.cumsum(np.bincount(where, minlength=partitions), out=starts[1:])
    with open(path, "wb") as handle:
        handle.write(starts.tobytes())
        handle.write(records[np.argsort(where, kind="stable")].tobytes())


def gather(paths: Sequence[Path], partition: int, partitions: int) -> np.ndarray:
    """Returns one partition's records of all parts, sorted by key, rank, document and item."""
    found = []
    for path in paths:
        with open(path, "rb") as handle:
            starts = np.frombuffer(handle.read(8 * (partitions + 1)), "<i8")
            handle.seek(int(starts[partition]) * RECORD.itemsize, 1)
            found.append(
                np.frombuffer(handle.read(int(starts[partition + 1] - starts[partition]) * RECORD.itemsize), RECORD)
            )
    records = np.concatenate(found) if found else np.zeros(0, RECORD)
    return records[np.lexsort([records[name] for name in ("item", "doc", "rank", "check", "key")])]
