"""`torchrun --nproc_per_node=2 -m groundup pretrain`: the loss curve of one process, to 1e-5, and a clean end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.base.runs import Run, checkpoints, open_run, record
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save

FLAGS = ["--model.context", "32", "--model.d-model", "32", "--model.n-layers", "2", "--model.n-heads", "2", "--threads", "1",
         "--train.batch-tokens", "256", "--train.log-every", "1", "--precision", "fp32", "--eval-tokens", "512",
         "--device", "cpu"]  # fmt: skip
ONE = [sys.executable, "-m", "groundup"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "groundup"]


def make_project(project: Path) -> Path:
    tokenizer, rng = Tokenizer([], ("<|endoftext|>",), "bytes"), random.Random(0)
    run, shards = open_run(project, "tokenizer"), open_run(project, "shards")
    with record(run, "", {}):
        save(tokenizer, run.path / "tokenizer.json")
    with record(shards, "", {"tokenizer": run.path / "tokenizer.json"}):
        for split in ("train", "heldout"):
            texts = [" ".join(rng.choice(("one", "two", "three", "four")) for _ in range(60)) for _ in range(20)]
            write_texts(texts, tokenizer, shards.path / split)
    return project


def pretrain(start: list[str], project: Path, *flags: str) -> Run:
    done = subprocess.run(
        [*start, "pretrain", str(project), *FLAGS, *flags], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "terminate called" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("next: ") == 1
    return Run(project / "05-pretrain" / "main")


# Without the balance loss: that is each process's own, over the tokens that it routes.
EXPERTS = [
    "--model.family",
    "qwen3_moe",
    "--model.moe.experts",
    "4",
    "--model.moe.balance",
    "0",
    "--model.window.size",
    "9",
]


@pytest.mark.parametrize(
    "changed",
    [
        ["--train.optim.kind", "adamw"],
        ["--train.optim.kind", "muon"],
        pytest.param(["--train.optim.kind", "muon", *EXPERTS], marks=pytest.mark.slow),
    ],
    ids=["adamw", "muon", "experts and windows"],
)
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path, changed: list[str]) -> None:
    flags = ["--train.steps", "20", *changed]
    one = pretrain(ONE, make_project(tmp_path / "one"), *flags)
    two = pretrain(TWO, make_project(tmp_path / "two"), *flags, "--train.micro-batch", "3")
    for key in ("loss", "heldout_loss", "lr"):
        ours, theirs = ([row[key] for row in run.metrics() if key in row] for run in (two, one))
        assert len(ours) >= 10
        assert ours == pytest.approx(theirs, abs=1e-5), key
    assert two.results["tokens"] == one.results["tokens"] == 20 * 256
    assert two.results["processes"] == 2


def test_sigterm_saves_the_last_state(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    flags = [*FLAGS, "--train.steps", "100000", "--train.checkpoint.every", "100000"]
    job = subprocess.Popen([*TWO, "pretrain", str(project), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    run, deadline = Run(project / "05-pretrain" / "main"), time.monotonic() + 120
    while not (run.path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=120)
    assert job.returncode != 0
    assert run.info["status"] == "interrupted"
    assert len(checkpoints(run.path)) == 1


def test_a_batch_that_cannot_be_shared_is_said(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    done = subprocess.run([*TWO, "pretrain", str(project), *FLAGS, "--train.batch-tokens", "96"], capture_output=True, text=True,
                          timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode != 0
    assert "groundup: train.batch_tokens: 3 rows of 32 can't be shared evenly by 2 processes" in done.stderr
    assert not (project / "05-pretrain").exists()
