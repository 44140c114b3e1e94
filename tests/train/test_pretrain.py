"""`groundup pretrain` as a user meets it: results, reruns, kills, signals, mistakes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from groundup.base import runs
from groundup.base.runs import Run, checkpoints
from groundup.cli import main
from groundup.model import weights
from groundup.model.weights import load_model
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train.metrics import parameter_hash

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--model.context", "32", "--model.d-model", "32", "--model.n-layers", "2", "--model.n-heads", "2", "--model.dropout", "0.1",
         "--train.batch-tokens", "256", "--train.lr", "3e-3", "--threads", "1", "--eval-tokens", "512", "--precision", "fp32"]  # fmt: skip


@pytest.fixture
def groundup(capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs a command line in this process; returns exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capfd.readouterr()

    return run


def run_json(project: Path, name: str = "main") -> dict[str, Any]:
    return json.loads((project / "05-pretrain" / name / "run.json").read_text())


def test_trains_writes_all_and_does_nothing_twice(project: Path, groundup: Say) -> None:
    words = ("pretrain", project, *SMALL, "--train.steps", "30", "--train.log-every", "5", "--prompt", "the ")
    code, said, _ = groundup(*words)
    run = Run(project / "05-pretrain" / "main")
    assert code == 0
    results = run.results
    assert "held-out loss" in said
    assert said.rstrip().splitlines()[-1].startswith("next: ")
    rows = [row for row in run.metrics() if "loss" in row]
    assert [row["step"] for row in rows] == sorted({*range(3, 31, 3), *range(5, 31, 5)})
    assert {"lr", "grad_norm", "tokens", "tokens_per_s", "mfu", "wall_s"} <= rows[-1].keys()
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert results["tokens"] == 30 * 256
    assert results["heldout_loss"] == pytest.approx(
        results["bits_per_byte"] * 0.693, rel=0.02
    )  # a byte is a token here
    assert results["steps"] == 30
    assert results["peak_memory_bytes"] > 0
    last = checkpoints(run.path)[-1]
    assert {p.name for p in last.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "state",
        "MANIFEST.json",
        "DONE",
    }
    assert parameter_hash(load_model(last)) == results["parameter_hash"]
    assert (run.path / "samples" / "step_000030.txt").read_text().startswith("the ")
    assert "nothing to do" in groundup(*words)[1]
    assert run_json(project)["results"] == results


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_kill_9_and_resume_end_in_the_very_same_parameters(
    make_project: Callable[..., Path], groundup: Say, optimizer: str
) -> None:
    project, twin = make_project("killed"), make_project("whole")
    words = [*SMALL, "--train.steps", "60", "--train.checkpoint.every", "4", "--train.optim.kind", optimizer]
    process = subprocess.Popen(
        [sys.executable, "-m", "groundup", "pretrain", str(project), *words], stdout=subprocess.DEVNULL
    )
    run, deadline = Run(project / "05-pretrain" / "main"), time.monotonic() + 120
    while len(checkpoints(run.path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = int(checkpoints(run.path)[-1].name[5:])
    assert 0 < done < 60
    assert "continuing from step_" in groundup("pretrain", project, *words)[1]
    groundup("pretrain", twin, *words)
    assert run.results["parameter_hash"] == run_json(twin)["results"]["parameter_hash"]
    steps = [row["step"] for row in run.metrics()]
    assert steps == sorted(steps)
    assert (
        next(row for row in run.metrics() if row["step"] == 60)["loss"]
        == Run(twin / "05-pretrain" / "main").results["loss"]
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_last_state(project: Path, number: signal.Signals, code: int) -> None:
    words = [*SMALL, "--train.steps", "100000", "--train.checkpoint.every", "100000"]
    process = subprocess.Popen([sys.executable, "-m", "groundup", "pretrain", str(project), *words], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    run, deadline = Run(project / "05-pretrain" / "main"), time.monotonic() + 120
    while not (run.path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    assert "continues" in error
    assert "Traceback" not in error
    saved = checkpoints(run.path)
    assert len(saved) == 1
    assert run.info["status"] == "interrupted"
    assert run.metrics()[-1]["step"] == int(saved[0].name[5:])


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(project: Path, groundup: Say) -> None:
    words = ["pretrain", project, *SMALL, "--train.steps", "12", "--train.checkpoint.every", "4"]
    groundup(*words)
    run = Run(project / "05-pretrain" / "main")
    info = run.info
    (run.path / "run.json").write_text(json.dumps(info | {"status": "running"}))
    with open(run.path / "checkpoints" / "step_000012" / "model.safetensors", "r+b") as stream:
        stream.seek(200)
        stream.write(b"damage")
    said = groundup(*words)[1]
    assert "corrupt" in said
    assert "continuing from step_000008" in said
    assert run.results["parameter_hash"] == info["results"]["parameter_hash"]


def fails(groundup: Say, *words: object) -> str:
    code, out, error = groundup(*words)
    assert code == 2, out + error
    assert error.count("\n") == 1, error
    return error


def test_mistakes_are_one_line_and_leave_nothing(
    make_project: Callable[..., Path], groundup: Say, tmp_path: Path
) -> None:
    project = make_project()
    assert "run `groundup shards` first" in fails(groundup, "pretrain", tmp_path / "nowhere")
    assert "whole number of contexts" in fails(groundup, "pretrain", project, *SMALL, "--train.batch-tokens", "250")
    assert "context of at most" in fails(
        groundup, "pretrain", project, "--model.context", "65536", "--train.batch-tokens", "65536"
    )
    for rate in ("0", "-1"):
        assert "train.lr: expected a number above 0" in fails(groundup, "pretrain", project, *SMALL, "--train.lr", rate)
    large = fails(groundup, "pretrain", project, *SMALL, "--train.batch-tokens", "32000")
    assert re.search(
        r"a step of 1000 rows of 32 is more than the whole training text, which has (\d+); take at most", large
    )
    assert "8 rows can't be halved 4 times" in fails(
        groundup, "pretrain", project, *SMALL, "--train.ramp.doublings", "4"
    )
    assert "leave it out" in fails(groundup, "pretrain", project, *SMALL, "--model.vocab-size", "300")
    save(Tokenizer([(97, 98)], ("<|endoftext|>",), "qwen2"), project / "02-tokenizer" / "main" / "tokenizer.json")
    assert "run `groundup shards` again" in fails(groundup, "pretrain", project, *SMALL)
    assert not (project / "05-pretrain").exists()


def test_a_full_disk_leaves_the_last_whole_checkpoint(
    project: Path, groundup: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pretrain", project, *SMALL, "--train.steps", "12", "--train.checkpoint.every", "4"]
    written: list[object] = []

    def save_file(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        written.append(path)
        if len(written) > 2:
            raise SafetensorError(
                f'Error while serializing: I/O error: No space left on device (os error 28) at path "{path}"'
            )
        safetensors.torch.save_file(tensors, path, metadata)

    monkeypatch.setattr(weights, "save_file", save_file)
    assert "the disk is full; free some space and run the same command again" in fails(groundup, *words)
    run = Run(project / "05-pretrain" / "main")
    assert [c.name for c in (run.path / "checkpoints").iterdir()] == ["step_000004"]
    monkeypatch.undo()
    assert "continuing from step_000004" in groundup(*words)[1]


def test_a_file_in_the_way_is_said(project: Path, groundup: Say) -> None:
    (project / "05-pretrain").write_text("")
    assert "a file stands where a folder is needed" in fails(groundup, "pretrain", project, *SMALL)


def test_a_loss_that_explodes_is_said_with_its_remedy(project: Path, groundup: Say) -> None:
    error = fails(
        groundup,
        "pretrain",
        project,
        *SMALL,
        "--train.lr",
        "1e30",
        "--train.clip",
        "0",
        "--train.steps",
        "20",
        "--train.warmup",
        "0",
    )
    assert "isn't finite, 10 times in a row, beginning in blocks." in error
    assert "; lower train.lr (now 1e+30)" in error
    assert run_json(project)["status"] == "failed"


def test_a_tiny_heldout_text_is_no_obstacle(make_project: Callable[..., Path], groundup: Say) -> None:
    project = make_project(heldout=0)
    said = groundup("pretrain", project, *SMALL, "--train.steps", "2")[1]
    assert "held-out" not in said.splitlines()[-2]
    assert "03-shards/main/heldout: no held-out text, so no loss is measured on it" in said


def unfinished(project: Path) -> Run:
    """Makes a run look as if it had been killed before its end."""
    run = Run(project / "05-pretrain" / "main")
    (run.path / "run.json").write_text(json.dumps(run.info | {"status": "running"}))
    shutil.rmtree(checkpoints(run.path)[-1])
    return run


def test_an_unfinished_run_is_not_lost_to_a_changed_config(project: Path, groundup: Say) -> None:
    words = [
        "pretrain",
        project,
        *SMALL,
        "--train.steps",
        "12",
        "--train.checkpoint.every",
        "4",
        "--train.ramp.doublings",
        "1",
    ]
    assert groundup(*words)[0] == 0
    run = unfinished(project)
    before = run.results["parameter_hash"]
    changed = [*words, "--train.batch-tokens", "512", "--train.lr", "1e-3"]
    error = fails(groundup, *changed)
    assert (
        "unfinished (step 8) and was begun with other values: train.batch_tokens 256 -> 512, train.lr 0.003 -> 0.001"
        in error
    )
    assert "--allow-change train.batch_tokens,train.lr" in error
    said = groundup(*changed, "--allow-change", "train.batch_tokens,train.lr", "--train.log-every", "2")[1]
    assert "continuing from step_000008" in said
    assert run.info["changes"][0]["keys"]["train.lr"] == [0.003, 0.001]
    progress = json.loads((checkpoints(run.path)[-1] / "state" / "progress.json").read_text())
    assert progress["samples"] == 2 * 4 + 6 * 8 + 4 * 16, "the next sample is the next one, whatever the batch was"
    assert run.results["parameter_hash"] != before
    unfinished(project)
    said = groundup(*words, "--fresh")[1]
    assert "made anew, as --fresh asks" in said
    assert run.results["parameter_hash"] == before


def test_an_altered_token_file_is_named_and_not_learned_from(project: Path, groundup: Say) -> None:
    file = project / "03-shards" / "main" / "train" / "tokens_00000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert f"{file}: altered since it was written" in fails(groundup, "pretrain", project, *SMALL, "--train.steps", "2")


def test_permission_lost_keeps_the_last_checkpoint(
    project: Path, groundup: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pretrain", project, *SMALL, "--train.steps", "12", "--train.checkpoint.every", "4"]
    make = runs.atomic_folder

    def refuse(path: Path) -> Any:
        if path.name == "step_000008":
            raise PermissionError(13, "Permission denied", str(path))
        return make(path)

    monkeypatch.setattr(runs, "atomic_folder", refuse)
    assert "no permission; choose another folder or change the rights" in fails(groundup, *words)
    assert [c.name for c in checkpoints(project / "05-pretrain" / "main")] == ["step_000004"]


def test_tensorboard_reads_what_is_written(project: Path, groundup: Say) -> None:
    groundup(
        "pretrain", project, *SMALL, "--train.steps", "4", "--train.log-every", "2", "--train.track.to", "tensorboard"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(project / "05-pretrain" / "main" / "tensorboard"))
    events.Reload()
    rows = [row for row in Run(project / "05-pretrain" / "main").metrics() if "loss" in row]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (r["step"], pytest.approx(r["loss"], rel=1e-5)) for r in rows
    ]


def test_documents_may_be_kept_apart(project: Path, groundup: Say) -> None:
    groundup("pretrain", project, *SMALL, "--train.steps", "3")
    groundup("pretrain", project, *SMALL, "--train.steps", "3", "--name", "apart", "--document-mask")
    together, apart = (run_json(project, name)["results"] for name in ("main", "apart"))
    assert together["parameter_hash"] != apart["parameter_hash"]
    assert together["loss"] == pytest.approx(apart["loss"], rel=0.1)
