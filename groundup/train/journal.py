"""Where a run's rows of metrics go: its file, a dashboard, the terminal, and whoever looks on."""

from typing import Any

from groundup.base.log import Progress
from groundup.base.runs import Run
from groundup.train.config import TrackConfig
from groundup.train.track import open_tracker
from groundup.train.view import View
from groundup.train.watch import watcher

__all__ = ["Journal"]


class Journal:
    """Keeps what a run says of itself. Only the process that is `main` writes; on the others nothing happens."""

    def __init__(self, run: Run, track: TrackConfig, main: bool) -> None:
        self.run, self.main = run, main
        self.tracker, self.look_on = open_tracker(track, run, main), watcher()
        self.view: View | None = None

    def show(self, bar: Progress, peak_flops: float) -> None:
        """Lets the line of progress show the newest figures underneath, where it is on a terminal."""
        if bar.terminal:
            self.view = View(self.run, peak_flops)
            bar.below = self.view.lines

    def row(self, **values: Any) -> None:
        """Writes a row of metrics."""
        if self.main:
            row = self.run.metric(**values)
            self.tracker(values)
            if self.view is not None:
                self.view(values)
            self.look_on(self.run, row)

    def say(self, text: str) -> None:
        """Says and logs a line."""
        if self.main:
            self.run.log(text)

    def close(self) -> None:
        """Lets the dashboard write what is left."""
        self.tracker.close()
