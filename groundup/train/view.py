"""What a terminal shows below the line of progress while a run trains: losses, speed, the last sample; from its rows alone."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from groundup.base.log import quantity
from groundup.base.runs import Run

__all__ = ["View", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # columns of the curve
MOST = 4 * WIDTH  # losses that are kept: more are thinned out
OWN_LINE = frozenset({
    "step", "tokens", "wall_s", "loss", "tokens_per_s", "loader_s", "mfu", "lr", "grad_norm", "heldout_loss", "bits_per_byte",
    "nonfinite_steps", "rollbacks",
})  # fmt: skip


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Returns a curve of at most `width` characters, from ▁ at the lowest value to █ at the highest."""
    count = min(width, len(values))
    edges = [i * len(values) // max(1, count) for i in range(count + 1)]
    means = [statistics.fmean(values[a:b]) for a, b in pairwise(edges)]
    low, span = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
    return "".join(BARS[min(7, int(8 * (mean - low) / span))] if span else BARS[0] for mean in means)


class View:
    """Takes rows of metrics as they are written, and lays out the newest of each figure as (label, text)."""

    def __init__(self, run: Run, peak_flops: float = 0.0) -> None:
        """`peak_flops`: what MFU is a share of (0: not known)."""
        self.run, self.peak_flops = run, peak_flops
        self.now: dict[str, Any] = {}
        self.looked = 0  # step of the last look at the held-out text
        self.losses: list[float] = []
        for row in run.metrics():
            self(row)

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Takes a row."""
        self.now |= {key: value for key, value in row.items() if value is not None}
        self.looked = row["step"] if "heldout_loss" in row else self.looked
        if (loss := row.get("loss")) is not None and math.isfinite(loss):
            self.losses.append(loss)
        if len(self.losses) > MOST:
            self.losses = [statistics.fmean(self.losses[i : i + 2]) for i in range(0, MOST, 2)] + self.losses[MOST:]

    def lines(self) -> list[tuple[str, str]]:
        """Returns what is known so far, a line each."""
        now, found = self.now, list[tuple[str, str]]()
        if self.losses:
            found.append(("loss", f"{self.losses[-1]:.4f}  {sparkline(self.losses)}"))
        if "heldout_loss" in now:
            bits = f", {now['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in now else ""
            found.append(("held out", f"{now['heldout_loss']:.4f} nats{bits} at step {self.looked}"))
        if "tokens_per_s" in now:
            of = f" of {quantity(self.peak_flops / 1e9)} GFLOP/s measured here" if self.peak_flops else ""
            mfu = f", MFU {now['mfu']:.0%}{of}" if "mfu" in now else ""
            found.append(("speed", f"{quantity(now['tokens_per_s'])} tokens/s{mfu}"))
        if "lr" in now:
            bad = f", {now['nonfinite_steps']} steps left out" if now.get("nonfinite_steps") else ""
            found.append(("step", f"rate {now['lr']:.2g}, gradient norm {now['grad_norm']:.3g}{bad}"))
        others = [
            f"{key} {value:.3g}"
            for key, value in now.items()
            if key not in OWN_LINE and "." not in key and type(value) is float
        ]
        if others:
            found.append(("also", ", ".join(others)))
        if text := self._sample():
            found.append(("sample", text))
        return found

    def _sample(self) -> str:
        """Returns the last text that the run wrote, on one line."""
        files = sorted((self.run.path / "samples").glob("step_*.txt"))
        return " ".join(files[-1].read_text(encoding="utf-8", errors="replace").split()) if files else ""
