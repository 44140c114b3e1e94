"""The engine: tasks go to workers and come back in order, a few at a time. A worker is this process, one beside it, or one of a cluster."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from groundup.base.errors import StorageError
from groundup.data.cluster import cluster
from groundup.data.pool import Pool, peak_bytes

__all__ = ["Map", "batches", "processes_for", "workers"]

T = TypeVar("T")
R = TypeVar("R")
SMALL_BYTES = 4 << 20  # below this much input starting processes costs more than it saves


class Map(Protocol):
    """What `workers` yields: apply a function of a module to each task, results in the tasks' order."""

    @property
    def processes(self) -> int:
        """How many tasks run at a time."""

    @property
    def peak_bytes(self) -> int:
        """The most memory that one worker has held so far."""

    def __call__(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yields the results in the tasks' order."""


class _Here:
    """A `Map` over this very process."""

    processes = 1

    @property
    def peak_bytes(self) -> int:
        return peak_bytes()

    def __call__(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        return map(work, tasks)


def processes_for(asked: int, input_bytes: int) -> int:
    """Returns how many processes to use: as asked, else one for small inputs and as many as the machine grants for others."""
    if asked:
        return asked
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if input_bytes < SMALL_BYTES else granted


def batches(items: Iterable[T], size: Callable[[T], int], limit: int, count: int) -> Iterator[list[T]]:
    """Yields the items in lists of at most `count` items and about `limit` bytes; the cuts depend on the items alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= limit or len(batch) >= count:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


@contextmanager
def workers(
    processes: int,
    initialise: Callable[..., None],
    arguments: tuple[Any, ...],
    engine: str = "local",
    address: str = "",
) -> Iterator[Map]:
    """Yields a `Map` over workers, each prepared by `initialise(*arguments)`: this process if it is to be one, else a pool, or Ray's.

    A task may be done twice where a worker dies, so its files must come out the same and whole.
    Raises: StorageError where a worker dies of the same task again and again; ConfigError where Ray can't be had.
    """
    if engine == "ray":
        with cluster(processes, initialise, arguments, address) as found:
            yield found
        return
    if processes == 1:
        initialise(*arguments)
        yield _Here()
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # This is a worker that imports the caller's script and would begin the whole work again; its pool would never start, nor end.
        raise StorageError(
            'a script that starts worker processes must do so under `if __name__ == "__main__":`, for they import it'
        )
    pool = Pool(processes, initialise, arguments)
    try:
        yield pool
    finally:
        pool.close()
