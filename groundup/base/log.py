"""What the user sees while a stage works: plain lines for what happened, one live line with rate and time left."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Progress", "command", "duration", "progress", "quantity", "say"]


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
    if Progress.live is not None:
        Progress.live.erase()
    print(text, flush=True)
    if file is not None:
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")


class Progress:
    """A count towards a total. On a terminal it redraws one line; elsewhere it prints a line every ten seconds."""

    live: "Progress | None" = None

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.start, self.shown, self.note = 0.0, time.monotonic(), time.monotonic(), ""
        self.terminal = sys.stderr.isatty()

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Adds `amount` units; `note` (a loss, say) is shown behind the rate."""
        self.done += amount
        self.note = note or self.note
        now = time.monotonic()
        if now - self.shown >= (0.1 if self.terminal else 10):
            self.shown = now
            self.draw()

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
        return ", ".join(parts + ([self.note] if self.note else []))

    def draw(self) -> None:
        """Shows the line."""
        text = self.line()
        sys.stderr.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}" if self.terminal else text + "\n")
        sys.stderr.flush()

    def erase(self) -> None:
        """Clears the live line so that another can be printed."""
        if self.terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


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
