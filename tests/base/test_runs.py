"""A run is done once, is made anew when its inputs change, and its checkpoints are whole or passed over."""

from pathlib import Path

import pytest

from groundup.base.errors import CheckpointError, DataError, GroundupError
from groundup.base.runs import (
    Run,
    checkpoints,
    latest_checkpoint,
    open_run,
    record,
    resolve_checkpoint,
    unchanged,
    write_checkpoint,
)


def finish(run: Run, toml: str, inputs: dict[str, Path]) -> None:
    with record(run, toml, inputs, seed=1) as results:
        results["answer"] = 42


def test_a_finished_stage_does_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.txt"
    source.write_text("one")
    run = open_run(tmp_path, "data")
    assert not unchanged(run, "a = 1\n", {"raw": source})
    finish(run, "a = 1\n", {"raw": source})
    assert run.done
    assert run.results == {"answer": 42}
    assert run.info["inputs"]["raw"]["hash"]
    assert unchanged(run, "a = 1\n", {"raw": source})
    assert "already done" in capsys.readouterr().out
    source.write_text("two")
    assert not unchanged(run, "a = 1\n", {"raw": source})
    assert not run.path.exists()


def test_a_project_can_be_moved(tmp_path: Path) -> None:
    finish(open_run(tmp_path / "a", "data"), 'project = "a"\nx = 1\n', {})
    (tmp_path / "a").rename(tmp_path / "b")
    assert unchanged(open_run(tmp_path / "b", "data"), 'project = "b"\nx = 1\n', {})


def test_a_good_run_survives_a_failed_attempt_to_replace_it(tmp_path: Path) -> None:
    run = open_run(tmp_path, "tokenizer")
    finish(run, "a = 1\n", {})
    (run.path / "tokenizer.json").write_text("good")
    assert not unchanged(run, "a = 2\n", {})
    with pytest.raises(DataError), record(run, "a = 2\n", {}):
        raise DataError("vocabulary larger than the corpus supports")
    assert run.done
    assert (run.path / "tokenizer.json").read_text() == "good"
    assert not unchanged(run, "a = 3\n", {})
    finish(run, "a = 3\n", {})
    assert [p.name for p in run.path.parent.iterdir()] == ["main"]


def test_failure_and_interruption_are_recorded(tmp_path: Path) -> None:
    run = open_run(tmp_path, "data")
    for error, status in ((DataError("empty"), "failed"), (KeyboardInterrupt(), "interrupted")):
        with pytest.raises(type(error)), record(run, "", {}):
            raise error
        assert run.info["status"] == status
        assert not run.done
    with pytest.raises(DataError, match="groundup data build"):
        run.require_done("data build")


def test_metrics_survive_a_cut_line_and_are_truncated_on_resume(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in range(4):
        run.metric(step=step, loss=float("nan") if step == 2 else 1.0)
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 4, "lo')
    run.truncate_metrics(2)
    assert [row["step"] for row in run.metrics()] == [0, 1, 2]
    assert run.metrics()[2]["loss"] is None


def test_checkpoints_are_whole_or_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (10, 20, 30):
        with write_checkpoint(tmp_path, step) as folder:
            (folder / "model.safetensors").write_bytes(b"weights" * step)
    assert [f.name for f in checkpoints(tmp_path)] == ["step_000020", "step_000030"]
    newest = checkpoints(tmp_path)[-1]
    (newest / "model.safetensors").write_bytes(b"weightz" * 30)
    assert latest_checkpoint(tmp_path) == checkpoints(tmp_path)[0]
    assert "corrupt" in capsys.readouterr().out
    (checkpoints(tmp_path)[0] / "DONE").unlink()
    (newest / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        resolve_checkpoint(tmp_path)


def test_a_project_means_its_furthest_finished_stage(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_checkpoint(tmp_path / "absent")
    for stage in ("pretrain", "sft", "dpo"):
        run = open_run(tmp_path, stage)
        with write_checkpoint(run.path, 1) as folder:
            (folder / "model.safetensors").write_bytes(stage.encode())
        if stage != "dpo":  # still running
            finish(run, "", {})
    assert resolve_checkpoint(tmp_path).parent.parent == open_run(tmp_path, "sft").path
    assert resolve_checkpoint(open_run(tmp_path, "pretrain").path).name == "step_000001"


def test_run_names_can_not_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match="--name"):
        open_run(tmp_path, "sft", "../elsewhere")
