"""Pull the plug as often as you like: the run ends in the very same bits, and no checkpoint that calls itself whole is not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.runs import Run, checkpoints, verify_checkpoint

SMALL = ["--model.context", "64", "--model.d-model", "64", "--model.n-layers", "2", "--model.n-heads", "2", "--model.dropout", "0.1",
         "--train.batch-tokens", "1024", "--train.lr", "3e-3", "--eval-tokens", "2048", "--threads", "2"]  # fmt: skip
ROOT = Path(__file__).parents[2]
STEPS = 240
MODES = [(compiled, precision) for compiled in ("off", "on") for precision in ("fp32", "bf16")]


def start(project: Path, compiled: str, precision: str) -> subprocess.Popen[bytes]:
    words = [
        "--train.steps",
        str(STEPS),
        "--train.checkpoint.every",
        "3",
        "--train.optim.kind",
        "muon",
        "--train.optim.ema",
        "0.9",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "groundup", "pretrain", str(project), *SMALL, *words, "--precision", precision,
         "--train.compile", compiled], stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip


def newest(run: Run) -> int:
    """The step of the newest checkpoint, 0 without one."""
    found = checkpoints(run.path)
    return int(found[-1].name[5:]) if found else 0


def kill(process: subprocess.Popen[bytes], run: Run, rng: random.Random) -> None:
    """Kills at a random moment: of its start in one case of four, else somewhere after its first step."""
    before, wait = newest(run), rng.uniform(0, 6) if rng.random() < 0.25 else None
    deadline = time.monotonic() + (600 if wait is None else wait)
    while process.poll() is None and time.monotonic() < deadline and (wait is not None or newest(run) == before):
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.4) if wait is None else 0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for folder in checkpoints(run.path):
        verify_checkpoint(folder)


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def killed_and_whole(make_project: Callable[[str], Path], compiled: str, precision: str, times: int) -> None:
    """Trains with `times` kills and without any, and compares the parameters."""
    killed, whole = make_project("killed"), make_project("whole")
    run, rng = Run(killed / "05-pretrain" / "main"), random.Random(times)
    for _ in range(times):
        process = start(killed, compiled, precision)
        if newest(run) > STEPS * 0.9:
            process.kill()
            process.wait()
            break
        kill(process, run, rng)
    for project in (killed, whole):
        assert start(project, compiled, precision).wait() == 0
    ours, theirs = (
        json.loads((p / "05-pretrain" / "main" / "run.json").read_text())["results"] for p in (killed, whole)
    )
    assert ours["parameter_hash"] == theirs["parameter_hash"]
    for key in ("loss", "heldout_loss", "tokens", "steps"):
        assert ours[key] == theirs[key], key
    metrics = (
        [(row["step"], row["loss"]) for row in Run(p / "05-pretrain" / "main").metrics() if "loss" in row]
        for p in (killed, whole)
    )
    assert next(metrics) == next(metrics)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("compiled", "precision", "times"), [("off", "bf16", 3), ("on", "fp32", 2)])
def test_a_few_kills(make_project: Callable[[str], Path], compiled: str, precision: str, times: int) -> None:
    killed_and_whole(make_project, compiled, precision, times)


@needs_compiler
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("compiled", "precision"), MODES)
def test_twenty_kills(make_project: Callable[[str], Path], compiled: str, precision: str) -> None:
    killed_and_whole(make_project, compiled, precision, 20)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_kills_while_checkpoints_are_written() -> None:
    done = subprocess.run([sys.executable, "benchmarks/checkpoint.py", "--only", "kills"], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip
    claim = json.loads(done.stdout.splitlines()[0])
    assert (claim["ours"], claim["n"]) == (200, 200)
    assert claim["peers"]["one file, overwritten in place"] < 200, "the test kills at moments that matter"
