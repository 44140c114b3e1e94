"""How a run is asked to end: Ctrl-C and SIGTERM take effect after the present step, with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from groundup.base.errors import Terminated

__all__ = ["interruption", "stop_signals"]


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list to which SIGINT and SIGTERM are appended instead of stopping at once; a second one does stop."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(number, at_once)

    def at_once(number: int, frame: object) -> None:
        raise interruption([number])

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruption(asked: list[int]) -> KeyboardInterrupt:
    """Returns what to raise for the signals that came: SIGTERM has an exit code of its own."""
    return Terminated() if signal.SIGTERM in asked else KeyboardInterrupt()
