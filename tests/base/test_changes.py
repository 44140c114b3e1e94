"""A run that was begun with another config: what differs is said, and nothing of worth is thrown away unasked."""

import contextlib
import json
from pathlib import Path

import pytest

from groundup.base.changes import covers, differences, listed, permit
from groundup.base.errors import ConfigError
from groundup.base.runs import Run, checkpoints, clear_debris, open_run, record, unchanged, write_checkpoint
from groundup.cli import main

OLD, NEW = "[train]\nlr = 0.001\nsteps = 10\n", "[train]\nlr = 0.003\nsteps = 10\n"


def begin(run: Run, toml: str, steps: int = 5) -> None:
    """A run that was interrupted after a checkpoint."""
    with contextlib.suppress(KeyboardInterrupt), record(run, toml, {}):
        if steps:
            with write_checkpoint(run.path, steps) as folder:
                (folder / "model.safetensors").write_bytes(b"weights")
        raise KeyboardInterrupt


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path, "pretrain")


def test_differences_name_keys_and_inputs(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("one")
    found = differences(OLD + "x = 1\n", 'project = "b"\n' + NEW, {"train": "1234"}, {"train": source})
    assert found["train.lr"] == (0.001, 0.003)
    assert found["train.x"] == (1, None)
    assert found["inputs.train"][0] == "1234"
    assert found.keys() == {"train.lr", "train.x", "inputs.train"}
    assert listed({"a": (None, ""), "b": (1, 2)}) == 'a not set -> "", b 1 -> 2'
    assert covers(["train"], "train.lr")
    assert not covers(["train.l"], "train.lr")


def test_an_unfinished_run_is_refused_with_a_diff(run: Run) -> None:
    begin(run, OLD)
    with pytest.raises(ConfigError) as error:
        unchanged(run, NEW, {})
    text = str(error.value)
    for part in ("unfinished (step 5)", "train.lr 0.001 -> 0.003", "--allow-change train.lr", "--fresh", "--name"):
        assert part in text
    assert "train.steps" not in text
    assert len(checkpoints(run.path)) == 1
    assert not unchanged(run, OLD, {}), "the old config goes on as ever"


def test_a_key_that_may_change_is_allowed_and_recorded(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    begin(run, OLD)
    with permit(allow=("train.lr",)):
        assert not unchanged(run, NEW, {})
    assert "goes on with train.lr 0.001 -> 0.003" in capsys.readouterr().out
    with record(run, NEW, {}):
        pass
    noted = run.info["changes"]
    assert noted[0]["keys"] == {"train.lr": [0.001, 0.003]}
    assert noted[0]["after"] == "step_000005"
    assert unchanged(run, NEW, {})
    with permit(allow=("train.steps",)), pytest.raises(ConfigError, match=r"is done .* train.lr 0.003 -> 0.001"):
        unchanged(run, OLD, {})


def test_a_finished_run_goes_on_only_where_that_is_asked_for(run: Run) -> None:
    begin(run, OLD)
    with record(run, OLD, {}):
        pass
    longer = OLD.replace("10", "20")
    with permit(allow=("train.steps",)):
        assert not unchanged(run, longer, {})
    assert checkpoints(run.path), "it goes on from its end"
    assert not unchanged(run, longer, {})
    assert not run.path.exists(), "without that it makes way for another, and comes back should that one fail"


def test_keys_without_influence_may_change_at_any_time(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    begin(run, OLD + "log_every = 1\n")
    assert not unchanged(run, OLD + "log_every = 5\n", {}, free=("train.log_every",))
    assert "goes on with train.log_every 1 -> 5" in capsys.readouterr().out
    with record(run, OLD + "log_every = 1\n", {}):
        pass
    assert unchanged(run, OLD + "log_every = 5\n", {}, free=("train.log_every",))
    assert "already done" in capsys.readouterr().out


def test_fresh_begins_anew_and_aside_keeps_what_there_was(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    begin(run, OLD)
    with permit(aside=True):
        assert not unchanged(run, NEW, {})
    assert "kept as" in capsys.readouterr().out
    kept = run.path.with_name("main-1")
    assert checkpoints(kept)
    assert not run.path.exists()
    begin(run, OLD)
    with permit(fresh=True):
        assert not unchanged(run, NEW, {})
    assert not run.path.exists()
    assert checkpoints(kept)


def test_without_a_checkpoint_there_is_nothing_to_lose(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    begin(run, OLD, steps=0)
    assert not unchanged(run, NEW, {})
    assert "made anew (train.lr 0.001 -> 0.003)" in capsys.readouterr().out


def test_checkpoints_that_are_spared_stay_and_debris_goes(tmp_path: Path) -> None:
    for step in range(1, 7):
        with write_checkpoint(tmp_path, step, keep=1, spare={2, 4}) as folder:
            (folder / "model.safetensors").write_bytes(b"weights")
    folder = tmp_path / "checkpoints"
    (folder / ".step_000009.1.tmp").mkdir()
    (folder / "step_000003").mkdir()  # half dropped: DONE goes first
    clear_debris(tmp_path)
    assert sorted(f.name for f in folder.iterdir()) == ["step_000002", "step_000004", "step_000006"]


@pytest.mark.parametrize("flags", [["--allow-change", "train.lrr"], ["--allow-change=tokens,train.lrr"]])
def test_an_unknown_key_is_named(flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "p", *flags, "--dry-run"]) == 2
    assert "no such key" in capfd.readouterr().err


def test_the_hash_of_a_config_is_that_of_its_values(run: Run, tmp_path: Path) -> None:
    begin(run, 'project = "a"\n' + OLD)
    first = json.loads((run.path / "run.json").read_text())["config_hash"]
    other = open_run(tmp_path, "sft")
    begin(other, 'project = "b"\n' + OLD)
    assert other.info["config_hash"] == first
