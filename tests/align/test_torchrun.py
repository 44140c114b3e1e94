"""Two processes under torchrun take the steps of one: the same losses, and each line said once."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.files import write_jsonl
from groundup.base.runs import open_run

ONE = [sys.executable, "-m", "groundup"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "groundup"]
LOOP = ["--train.steps", "4", "--train.log-every", "1", "--threads", "1", "--precision", "fp32", "--device", "cpu"]


def run(start: list[str], *words: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, *map(str, words), *LOOP], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("next: ") == 1


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(make_project: Callable[..., Path], tmp_path: Path) -> None:
    project = make_project()
    for name, start in (("main", ONE), ("two", TWO)):
        run(start, "sft", project, "--batch", 9, "--replay", 2, "--name", name)
    rows = [
        {"prompt": [{"role": "user", "content": f"Q{i}"}], "chosen": "yes" * (i + 1), "rejected": "no"}
        for i in range(6)
    ]
    write_jsonl(tmp_path / "preferences.jsonl", rows)
    for name, start in (("main", ONE), ("two", TWO)):
        run(start, "dpo", project, "--batch", 5, "--preferences", tmp_path / "preferences.jsonl", "--name", name)
    for stage in ("sft", "dpo"):
        one, two = (
            [row["loss"] for row in open_run(project, stage, name).metrics() if "loss" in row]
            for name in ("main", "two")
        )
        assert len(one) == 4
        assert two == pytest.approx(one, abs=1e-5), stage
        assert open_run(project, stage, "two").results["processes"] == 2
