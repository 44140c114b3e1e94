"""What the user sees while a stage works: plain lines for what happened, one live line with rate and time left."""

import os
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Progress", "command", "duration", "fitted", "progress", "quantity", "say"]

_screen = threading.RLock()  # a line and a live line aren't written at once


def duration(seconds: float) -> str:
    """Returns seconds as people say them: 8 s, 3 min 05 s, 2 h 10 min."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def quantity(value: float) -> str:
    """Returns a count with a unit prefix and three significant digits: 812, 10.7k, 3.2M, 1.5G."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def fitted(text: str, columns: int) -> str:
    """Returns the beginning of a text that takes at most so many columns of a terminal, whatever a model has written into it.

    Control characters become dots, or they would move the cursor; wide ones count twice, those that combine not at all.
    """
    kept, used = [], 0
    for char in text:
        shown = "·" if unicodedata.category(char)[0] == "C" else char
        used += 0 if unicodedata.combining(shown) else 2 if unicodedata.east_asian_width(shown) in "WF" else 1
        if used > columns:
            break
        kept.append(shown)
    return "".join(kept)


def command(*words: object) -> str:
    """Returns a groundup command as it can be typed in this very shell and folder: `.venv/bin/groundup chat my-llm`."""
    script = Path(sys.executable).parent / "groundup"
    found = shutil.which("groundup")
    if found and Path(found).parent == script.parent:
        program = "groundup"
    elif script.exists():
        inside = script.is_relative_to(Path.cwd())
        program = os.path.relpath(script) if inside else str(script)
    else:
        program = f"{sys.executable} -m groundup"
    return " ".join([program, *(str(word) for word in words)])


def say(text: str = "", file: Path | None = None) -> None:
    """Prints a line (above a live line, if there is one) and appends it to `file`, a run's log.txt."""
    with _screen:
        if Progress.live is not None:
            Progress.live.erase()
        print(text, flush=True)
    if file is not None:
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")


class Progress:
    """A count towards a total. On a terminal it redraws one line, and under it the lines (label, text) that `below` returns;
    elsewhere it prints a line every ten seconds.
    """

    live: "Progress | None" = None

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.start, self.shown, self.note = 0.0, time.monotonic(), time.monotonic(), ""
        self.terminal = sys.stderr.isatty()
        self.below: Callable[[], Sequence[tuple[str, str]]] | None = None
        self.height = 0  # lines that stand on the screen

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Adds `amount` units; `note` (a loss, say) is shown behind the rate."""
        self.done += amount
        self.note = note or self.note
        now = time.monotonic()
        if now - self.shown >= (0.1 if self.terminal else 10):
            self.shown = now
            with _screen:
                self.draw()

    @contextmanager
    def follow(self, count: Callable[[], float]) -> Iterator[None]:
        """Looks twice a second at how far others have come, which `count` returns, while the caller waits for them."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.5):
                self.advance(count() - self.done)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def line(self) -> str:
        """Returns the line as shown: label, count, share, rate, time left, note."""
        spent = time.monotonic() - self.start
        parts = [f"{self.label}: {quantity(self.done)}"]
        if self.total:
            parts[0] += f" of {quantity(self.total)} {self.unit} ({min(self.done / self.total, 1):.0%})"
        else:
            parts[0] += f" {self.unit}"
        if spent > 0 and self.done:
            rate = self.done / spent
            parts.append(f"{quantity(rate)} {self.unit}/s")
            if self.total and self.total > self.done:
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        told = self.terminal and self.below is not None  # underneath, and better
        return ", ".join(parts + ([self.note] if self.note and not told else []))

    def draw(self) -> None:
        """Shows the line, and on a terminal what stands below it."""
        if not self.terminal:
            sys.stderr.write(self.line() + "\n")
        else:
            columns, rows = shutil.get_terminal_size()
            shown = [fitted(self.line(), columns - 1)]
            for label, text in self.below() if self.below else ():
                shown.append(f"\x1b[2m{label:>10}\x1b[0m  {fitted(text, columns - 13)}")
            shown = shown[: max(1, rows - 1)]  # what scrolls away can't be erased
            sys.stderr.write(self._clearing() + "\n".join(shown))
            self.height = len(shown)
        sys.stderr.flush()

    def erase(self) -> None:
        """Clears what is shown live so that a line can be printed."""
        if self.terminal:
            sys.stderr.write(self._clearing())
            sys.stderr.flush()
            self.height = 0

    def _clearing(self) -> str:
        """Returns what brings the cursor to where the live lines begin, and clears the screen from there."""
        return "\r" + (f"\x1b[{self.height - 1}A" if self.height > 1 else "") + "\x1b[J"


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "steps") -> Iterator[Progress]:
    """Yields a `Progress`; silent for work that ends within the first seconds, gone when the work is done."""
    outer, bar = Progress.live, Progress(label, total, unit)
    Progress.live = bar
    try:
        yield bar
    finally:
        bar.erase()
        Progress.live = outer
