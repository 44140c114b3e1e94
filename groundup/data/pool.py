"""Tasks on processes of this machine. Where a worker dies, what was under way is done again; a task that kills every worker is named."""

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

from groundup.base.errors import StorageError
from groundup.base.log import say

__all__ = ["Done", "Pool", "do", "get_ready", "name_of", "peak_bytes"]

# Workers are forked off a process that has imported what they need and done nothing else: its threads (OpenBLAS's, jemalloc's) have
# nothing to do yet and bear a fork, which those of a process at work may not. Elsewhere workers start from nothing: Windows has no
# fork, and macOS's own libraries don't bear one.
FORKS = sys.platform == "linux"
PRELOAD = ["groundup.data.ready"]
ATTEMPTS = 2  # of a task that was under way when a worker died, with no other beside it


class Done(NamedTuple):
    """A task's result, and the most memory that its worker has held so far."""

    result: Any
    peak_bytes: int


def peak_bytes() -> int:
    """Returns the most resident memory that this process has held (0 where the system doesn't tell)."""
    try:
        status = Path("/proc/self/status").read_text()  # of this program alone; getrusage counts its parent's start too
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def do(work: Callable[[Any], Any], task: Any) -> Done:
    """Returns what the work makes of a task, with the memory that it took: what a worker runs."""
    return Done(work(task), peak_bytes())


def name_of(work: Callable[[Any], Any], task: Any) -> str:
    """Returns what a task is called in messages: by its own `str` if it has one, else by the first file in it."""
    files = [part for part in task if isinstance(part, Path)] if isinstance(task, tuple) else []
    about = str(task) if type(task).__str__ is not object.__str__ and not isinstance(task, (int, str, bytes)) else ""
    what = work.__name__.strip("_")
    return f"{what} of {about or files[0]}" if about or files else what


def _follow(parent: Any) -> None:
    """Ends this process when its parent has ended."""
    parent.join()
    os._exit(1)


def _begin(prepared: str, environment: Mapping[str, str]) -> None:
    """Prepares a worker. It ends with its parent, however that ends: an orphan would wait for ever for the next task."""
    os.environ.update(environment)  # the process that it was forked off may be older than an address's password
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with open(prepared, "rb") as handle:
        initialise, arguments = pickle.load(handle)
    initialise(*arguments)


def get_ready() -> BaseContext:
    """Returns how workers are started. What they are forked off begins its imports, in another process; this one needn't wait for it."""
    if not FORKS:
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    resource_tracker.ensure_running()  # else it is started on the way, and lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is the parent's to handle
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@dataclass
class _Job:
    work: Callable[[Any], Any]
    task: Any
    future: "Future[Done]"

    def died(self) -> bool:
        """Waits for the task's end; returns whether its worker, or one beside it, died."""
        return isinstance(self.future.exception(), BrokenProcessPool)


class Pool:
    """A `groundup.data.engine.Map` over processes, each prepared by `initialise(*arguments)`.

    At most two tasks a process are under way, so that memory stays bounded however long the tasks' iterable is. A task whose worker dies
    even with no other beside it is given up; the rest goes on, then StorageError names it.
    """

    def __init__(self, processes: int, initialise: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.processes, self.peak_bytes = processes, 0
        # What prepares a worker goes by a file: through the pipe, a worker that dies before it has read it would leave us writing for ever.
        with tempfile.NamedTemporaryFile(prefix="groundup-", delete=False) as handle:
            pickle.dump((initialise, arguments), handle)
        self._prepared, self._lost, self._works, self._down = handle.name, list[str](), False, False
        self._executor = self._processes()

    def _processes(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.processes, get_ready(), _begin, (self._prepared, dict(os.environ)))

    def close(self) -> None:
        """Ends the workers; what hasn't begun isn't done."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        os.unlink(self._prepared)

    def __call__(self, work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yields the results in the tasks' order. Raises: StorageError, after all others, for a task that kills its worker."""
        waiting: deque[_Job] = deque()
        for task in tasks:
            waiting.append(_Job(work, task, self._submit(work, task)))
            if len(waiting) >= 2 * self.processes:
                yield from self._first(waiting)
        while waiting:
            yield from self._first(waiting)
        if self._lost:
            self._fail()

    def _submit(self, work: Callable[[Any], Any], task: Any) -> "Future[Done]":
        try:
            return self._executor.submit(do, work, task)
        except BrokenProcessPool as error:
            future: Future[Done] = Future()
            future.set_exception(error)
            return future

    def _first(self, waiting: deque[_Job]) -> Iterator[Any]:
        """Yields the first task's result, or nothing where it was given up."""
        if waiting[0].died():
            say("a worker process died; what was under way is done again, one at a time")
            self._down = True
            for job in [job for job in waiting if job.died()]:
                if not self._again(job):
                    waiting.remove(job)
            if not waiting:
                return
        done = waiting.popleft().future.result()
        self._works, self.peak_bytes = True, max(self.peak_bytes, done.peak_bytes)
        yield done.result

    def _again(self, job: _Job) -> bool:
        """Does a task with no other beside it, twice if it must be; returns whether that went well."""
        for _ in range(ATTEMPTS):
            if self._down:
                self._executor.shutdown(wait=True, cancel_futures=True)
                self._executor = self._processes()
            job.future = self._submit(job.work, job.task)
            self._down = job.died()
            if not self._down:
                self._works = True
                return True
        self._lost.append(name_of(job.work, job.task))
        if not self._works:  # nothing went well since the last that was given up: it isn't the task
            self._fail()
        self._works = False
        return False

    def _fail(self) -> None:
        lost, self._lost = self._lost, []
        raise StorageError(
            f"a worker process died of this, three times: {', '.join(lost)} (what it said stands above; if nothing, it was killed, most "
            "likely for want of memory); the rest is done, and the same command continues: "
            f"with --processes {max(1, self.processes // 2)}, or without that file"
        )
