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
from groundup.model.weights import load_tensors
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


POISONED = """
import sys
from groundup.cli import main
from groundup.parallel.mesh import world
from groundup.train import pretrain

clean = pretrain.pretrain_loss


def poisoned(model, batch, z_loss=0.0):
    \"\"\"The loss, which is infinite for one row of the third batch: on one process of two only.\"\"\"
    total, count, more = clean(model, batch, z_loss)
    poisoned.calls += model.training
    return total * (float("inf") if model.training and poisoned.calls == {call} and {here} else 1), count, more


poisoned.calls = 0
pretrain.pretrain_loss = poisoned
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_step_that_is_not_finite_on_one_process_is_left_out_on_all(tmp_path: Path, policy: str) -> None:
    flags = [
        "--train.steps",
        "8",
        "--train.optim.ema",
        "0.9",
        "--train.nonfinite",
        policy,
        "--train.checkpoint.every",
        "1",
    ]
    runs = []
    for name, start, here in (("one", ONE, "True"), ("two", TWO, "__import__('os').environ['RANK'] == '1'")):
        script = tmp_path / f"{name}.py"
        script.write_text(POISONED.replace("{call}", "4").replace("{here}", here))
        runs.append(pretrain([*start[:-2], str(script)], make_project(tmp_path / name), *flags))
    one, two = runs
    for run in runs:
        assert run.results["nonfinite_steps"] == 1
        assert run.results["rollbacks"] == (policy == "rollback")
        assert [row["nonfinite"] for row in run.metrics() if "nonfinite" in row] == ["loss"]
    for key in ("loss", "heldout_loss"):
        ours, theirs = ([row[key] for row in run.metrics() if key in row] for run in (two, one))
        assert ours == pytest.approx(theirs, abs=1e-5), key
    tensors = [load_tensors(checkpoints(run.path)[-1] / "model.safetensors") for run in runs]
    for name, ours in tensors[1].items():  # the running average is what is saved
        assert ours.sub(tensors[0][name]).abs().max() < 1e-4, name


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
