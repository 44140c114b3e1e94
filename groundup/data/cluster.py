"""The same tasks on Ray: on this machine, or on a cluster whose nodes all see the inputs and the project under the same paths.

Ray decides where a task runs and runs it again if its worker or node is lost. Only file names and small sums travel; files are written
under another name and renamed, so a task that was done twice has left the same bytes.
"""

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from groundup import __version__
from groundup.base.errors import ConfigError, StorageError
from groundup.data.pool import Done, do, name_of

__all__ = ["Cluster", "cluster"]

RETRIES = 2  # of a task whose worker or node was lost
STORE_BYTES = 100 << 20  # of Ray's shared memory on this machine: next to nothing is kept in it

_ready: list[str] = []  # which build this worker is prepared for


def _do(build: str, prepared: list[Any], work: Callable[[Any], Any], task: Any) -> Done:
    """Returns what a task comes to, after preparing this worker if it is new to the build. Raises: ConfigError for another groundup."""
    if _ready != [build]:
        import ray

        version, initialise, arguments = ray.get(prepared[0])  # in a list, or Ray would fetch it for every task
        if version != __version__:
            raise ConfigError(
                f"a node of the cluster has groundup {__version__}, this one {version}; install the same on all"
            )
        initialise(*arguments)
        _ready[:] = [build]
    return do(work, task)


class Cluster:
    """A `groundup.data.engine.Map` over Ray's workers; at most two tasks for each are under way."""

    def __init__(self, ray: Any, processes: int, prepared: tuple[Any, ...]) -> None:
        self.processes, self.peak_bytes, self._ray = processes, 0, ray
        self._build, self._prepared = uuid.uuid4().hex, [ray.put((__version__, *prepared))]
        self._remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_do)

    def __call__(self, work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yields the results in the tasks' order. Raises: what a task raises; StorageError for one whose workers die."""
        waiting: deque[tuple[Any, str]] = deque()
        for task in tasks:
            waiting.append((self._remote.remote(self._build, self._prepared, work, task), name_of(work, task)))
            if len(waiting) >= 2 * self.processes:
                yield self._result(*waiting.popleft())
        while waiting:
            yield self._result(*waiting.popleft())

    def _result(self, reference: Any, name: str) -> Any:
        try:
            done = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            why = str(error).strip().partition("\n")[0]
            raise StorageError(
                f"Ray lost its worker of this, {RETRIES + 1} times: {name} ({why}); run the same command again, it continues"
            ) from error
        self.peak_bytes = max(self.peak_bytes, done.peak_bytes)
        return done.result


@contextmanager
def cluster(
    processes: int, initialise: Callable[..., None], arguments: tuple[Any, ...], address: str
) -> Iterator[Cluster]:
    """Yields a `Cluster`: of the running one at `address` ("auto" finds one of this machine), else one that lives as long as the work.

    processes: how many tasks at a time (0: as many as it has processors). Raises: ConfigError without Ray, or without a cluster there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "engine: Ray isn't installed; `pip install 'groundup[ray]'` brings it, or use --engine local"
        ) from error
    here: dict[str, Any] = {
        "num_cpus": processes or None,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
    }
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            **({} if address else here),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        where = (
            f"address: no Ray cluster answers at {address}" if address else "engine: Ray doesn't start on this machine"
        )
        raise ConfigError(f"{where} ({why})") from error
    try:
        found = int(ray.cluster_resources().get("CPU", 1))
        yield Cluster(ray, min(processes or found, found), (initialise, arguments))
    finally:
        ray.shutdown()
