"""The engine: tasks go to local processes and come back in order, a few at a time; finished parts are found again after a kill."""

import multiprocessing
import os
import pickle
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from groundup.base.errors import StorageError

__all__ = ["Map", "batches", "processes_for", "workers"]

T = TypeVar("T")
R = TypeVar("R")
SMALL_BYTES = 4 << 20  # below this much input starting processes costs more than it saves


class Map(Protocol):
    """What `workers` yields: apply a function of a module to each task, results in the tasks' order."""

    def __call__(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yields the results in the tasks' order."""


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


def _begin(prepared: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with open(prepared, "rb") as handle:
        initialise, arguments = pickle.load(handle)
    initialise(*arguments)


@contextmanager
def workers(processes: int, initialise: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[Map]:
    """Yields a `Map` over a pool of processes, each prepared by `initialise(*arguments)`; with one process, over this one.

    At most two tasks a process are under way, so that memory stays bounded however long the tasks' iterable is.
    Raises: StorageError where a worker was killed.
    """
    if processes == 1:
        initialise(*arguments)
        yield lambda work, tasks: map(work, tasks)
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # This is a worker that imports the caller's script and would begin the whole work again; its pool would never start, nor end.
        raise StorageError(
            'a script that starts worker processes must do so under `if __name__ == "__main__":`, for they import it'
        )
    context = multiprocessing.get_context("spawn")  # fork would copy the threads of Arrow in an unknown state
    # What prepares a worker goes by a file: through the pipe, a worker that dies before it has read it would leave us writing for ever.
    with tempfile.NamedTemporaryFile(prefix="groundup-", delete=False) as handle:
        pickle.dump((initialise, arguments), handle)
    pool = ProcessPoolExecutor(processes, context, _begin, (handle.name,))

    def run(work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) >= 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield run
    except BrokenProcessPool as error:
        raise StorageError("a worker process died (what it said stands above; if nothing, it was killed, most likely for want of memory); "
                           f"run the same command with --processes {max(1, processes // 2)}, it continues") from error  # fmt: skip
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        os.unlink(handle.name)
