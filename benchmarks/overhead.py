"""What a run spends beside its steps; writes benchmarks/results/overhead_HARDWARE_DATE.json.

    python benchmarks/overhead.py            a minute: the demo's shape (919k parameters), 150 steps, then short runs in turns
    python benchmarks/overhead.py --quick    half a minute

Three shares of one run's time: getting batches, writing rows of metrics (each layer's gradient norm included), and the doctor who looks
on. Then whole runs of 25 steps in turns, `--train.compile auto` against `off`, in CPU-seconds: what deciding costs a run that is too short
to be compiled.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import claim, save
from memory import make_project

from groundup.base.config import from_dict
from groundup.base.runs import open_run
from groundup.doctor.live import Live
from groundup.train import loop
from groundup.train.config import PretrainConfig
from groundup.train.pretrain import main as pretrain
from groundup.train.watch import watched

SHAPE = {"context": 128, "d_model": 128, "n_layers": 4, "n_heads": 4}
FLAGS = [word for key, value in SHAPE.items() for word in (f"--model.{key.replace('_', '-')}", str(value))]
FLAGS += ["--train.batch-tokens", "2048", "--train.optim.kind", "muon", "--precision", "bf16", "--eval-tokens", "4096"]


class Stopwatch:
    """Sums the seconds that functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function with the watch running while it works."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def shares(project: Path, steps: int) -> dict[str, float]:
    """Returns {"batches", "rows", "doctor"}: percent of the wall time of a run in this process."""
    values = {"precision": "bf16", "model": SHAPE, "eval_tokens": 4096, "name": "shares"}
    values["train"] = {"steps": steps, "batch_tokens": 2048, "optim": {"kind": "muon"}, "compile": "off"}
    live, rows = Live(), Stopwatch()
    loop.Journal.row = rows.around(loop.Journal.row)  # type: ignore[method-assign]
    loop.gradient_norms = rows.around(loop.gradient_norms)
    with watched(live):
        pretrain(replace(from_dict(PretrainConfig, values), project=project))
    run = open_run(project, "pretrain", "shares")
    found = [row for row in run.metrics() if "loader_s" in row]
    wall_s, bedside = found[-1]["wall_s"], live.at
    assert bedside is not None
    loader_s = steps * statistics.fmean(row["loader_s"] for row in found)
    spent = {"batches": loader_s, "rows": rows.seconds - bedside.spent_s, "doctor": bedside.spent_s}
    return {key: 100 * seconds / wall_s for key, seconds in spent.items()}


def short_run(project: Path, choice: str, number: int, steps: int) -> float:
    """Returns the CPU-seconds of a whole command, start of Python included."""
    words = [*FLAGS, "--train.steps", str(steps), "--train.compile", choice, "--name", f"{choice}-{number}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "groundup", "pretrain", str(project), *words], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert open_run(project, "pretrain", f"{choice}-{number}").done
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures, prints the claims, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and turns; nothing is written")
    asked = parser.parse_args()
    steps, turns = (60, 1) if asked.quick else (150, 3)
    with tempfile.TemporaryDirectory(prefix="groundup-overhead-") as folder:
        make_project(Path(folder))
        parts = shares(Path(folder), steps)
        times = {choice: [0.0] * turns for choice in ("off", "auto")}
        for turn in range(turns):
            for choice in ("off", "auto") if turn % 2 else ("auto", "off"):
                times[choice][turn] = short_run(Path(folder), choice, turn, 25)
    names = {"batches": "getting batches", "rows": "writing rows of metrics", "doctor": "the doctor's looks"}
    claims = [
        claim(
            f"{name}, of the time of {steps} steps of the demo's model",
            round(parts[key], 3),
            {"allowed": 1.0},
            "%",
            1,
            higher=False,
        )
        for key, name in names.items()
    ]
    off, auto = (statistics.median(times[choice]) for choice in ("off", "auto"))
    text = "a run of 25 steps with --train.compile auto, start of Python included"
    claims.append(
        claim(text, round(auto, 2), {"--train.compile off": round(off, 2)}, "CPU-seconds", turns, higher=False)
    )
    if not asked.quick:
        save("overhead", {"claims": claims, "cpu_seconds": times})


if __name__ == "__main__":
    main()
