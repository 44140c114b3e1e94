"""Who looks on while a run trains. The doctor lives on a floor above: the command line brings him, the loop asks whoever is there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from groundup.base.runs import Run

__all__ = ["Watcher", "watched", "watcher"]

Watcher = Callable[[Run, dict[str, Any]], None]  # called with each row of metrics (rank 0); says and logs what it sees


def _nobody(run: Run, row: dict[str, Any]) -> None:
    """Sees nothing."""


_watcher: ContextVar[Watcher] = ContextVar("watcher", default=_nobody)


def watcher() -> Watcher:
    """Returns who looks on at present."""
    return _watcher.get()


@contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """Lets someone look on at whatever trains inside."""
    token = _watcher.set(by)
    try:
        yield
    finally:
        _watcher.reset(token)
