"""Sweeps: values are read as written, the best is found, a killed sweep goes on, a value that breaks down is passed over."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groundup.base.config import from_dict, load_toml, to_toml
from groundup.base.errors import ConfigError
from groundup.base.files import read_json
from groundup.base.runs import checkpoints
from groundup.train import sweep as room
from groundup.train.config import PretrainConfig
from groundup.train.config_sweep import SweepConfig, changed, grid, read_base, rounds, trial_steps


def write_base(project: Path, **train: Any) -> Path:
    """Returns the TOML of a tiny run of the project."""
    model = {"context": 32, "d_model": 32, "n_layers": 1, "n_heads": 2}
    loop = {"steps": 18, "batch_tokens": 256, "lr": 3e-3, "log_every": 2} | train
    config = from_dict(PretrainConfig, {"precision": "fp32", "threads": 1, "model": model, "train": loop})
    path = project.parent / f"{project.name}.toml"
    path.write_text(to_toml(replace(config, project=project)), encoding="utf-8")
    return path


def test_values_and_ranges_are_read_as_written() -> None:
    assert grid(("train.lr=1e-4,3e-4",)) == [{"train.lr": 1e-4}, {"train.lr": 3e-4}]
    assert [v["train.lr"] for v in grid(("train.lr=1e-4..1e-2:3",))] == [1e-4, 1e-3, 1e-2]
    assert [v["model.d_model"] for v in grid(("model.d_model=64..256:3",))] == [64, 128, 256]
    assert grid(("train.schedule=wsd,cosine", "document_mask=true,false"))[1] == {
        "train.schedule": "wsd",
        "document_mask": False,
    }
    assert rounds(9, 3) == [9, 3, 1]
    assert rounds(5, 3) == [5, 1]
    assert [trial_steps(900, 3, i, 3) for i in (1, 2, 3)] == [100, 300, 900]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("train.lr", "expected KEY=VALUE"),
        ("train.rl=1,2", "did you mean 'train.lr'"),
        ("learning_rate=1,2", "here that is 'train.lr'"),
        ("train.lr=1e-2..1e-4", "a range rises"),
        ("train.lr=a..b", "from one number to another"),
        ("train.lr=1e-3", "two values or more"),
    ],
)
def test_values_that_cannot_be_are_refused_in_one_line(over: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SweepConfig(over=(over,)).validate()
    assert "\n" not in str(caught.value)


def test_a_value_of_the_wrong_type_is_refused_before_anything_is_trained(project: Path) -> None:
    config = SweepConfig(base=write_base(project), over=("model.d_model=64,many",))
    with pytest.raises(ConfigError, match="d_model"):
        room.main(config)
    assert not (project / "sweeps").exists()


def test_the_planted_best_wins_and_its_config_is_written(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_base(project)
    found = room.main(SweepConfig(base=base, over=("train.lr=1e-6,5e-3,30",)))
    assert found["best"] == {"train.lr": 5e-3}
    winner = from_dict(PretrainConfig, load_toml(found["config"]))
    assert winner == replace(changed(read_base(base), {"train.lr": 5e-3}), name="main-best")
    folder = project / "sweeps" / "main"
    assert (folder / "sweep.png").stat().st_size > 5000
    assert "train.lr" in (folder / "sweep.svg").read_text()
    assert not list(folder.rglob("checkpoints"))
    said = capsys.readouterr().out
    assert "* train.lr=0.005" in said
    assert "widen" not in said


def test_a_killed_sweep_goes_on_where_it_was(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SweepConfig(base=write_base(project), over=("train.lr=1e-3,3e-3,1e-2",))
    really, tried = room.try_values, list[dict[str, Any]]()

    def killed(config: Any, values: Any, steps: int, folder: Path) -> Any:
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(values)
        return really(config, values, steps, folder)

    monkeypatch.setattr(room, "try_values", killed)
    with pytest.raises(KeyboardInterrupt):
        room.main(config)
    tried.clear()
    monkeypatch.setattr(room, "try_values", lambda *a: tried.append(a[1]) or really(*a))  # type: ignore[func-returns-value]
    room.main(config)
    assert len(tried) == 2  # the third value, and the winner at full length
    assert tried[0] == {"train.lr": 1e-2}
    with pytest.raises(ConfigError, match="another base"):
        room.main(replace(config, base=write_base(project, batch_tokens=128)))


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_within_the_trial_and_ends_alike(project: Path) -> None:
    base, state = write_base(project, steps=90, checkpoint={"every": 5}), project / "sweeps" / "killed" / "sweep.json"
    words = [sys.executable, "-m", "groundup", "sweep", str(base), "--over", "train.lr=1e-3,3e-3", "--name", "killed"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = state.parent / "30-steps" / "train.lr=0.003"
    while process.poll() is None and not checkpoints(second):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was killed in the middle of its second trial"
    assert len(read_json(state)["trials"]) == 1
    found = [room.main(SweepConfig(base=base, over=("train.lr=1e-3,3e-3",), name=name)) for name in ("killed", "whole")]
    assert "continuing from step_" in (second / "log.txt").read_text()
    assert found[0]["best"] == found[1]["best"]
    scores = [[trial["score"] for trials in one["rounds"] for trial in trials] for one in found]
    assert scores[0] == scores[1], "bit for bit, as if nothing had happened"


def test_a_value_that_breaks_down_is_passed_over_and_an_edge_is_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_base(project, clip=0.0, nonfinite="stop")
    found = room.main(SweepConfig(base=base, over=("train.lr=1e-4,3e-3,1e30", "model.family=llama")))
    last = found["rounds"][0][-1]
    assert (last["values"]["train.lr"], last["score"]) == (1e30, None)
    assert "broke down" in capsys.readouterr().out
    done = [[{"values": {"train.lr": v}} for v in (3e-3, 1e-3, 1e-4)], [{"values": {"train.lr": 3e-3}}]]
    assert "--over train.lr=0.003,0.009,0.03" in str(room._edge(done))


def test_a_range_test_finds_where_the_loss_falls_and_where_it_breaks(project: Path) -> None:
    found = room.main(SweepConfig(base=write_base(project), range_test=True, range_steps=60))
    assert 1e-4 < found["fastest"] <= found["lowest"] < 0.9
    assert found["rates"][0] == pytest.approx(1e-5, rel=0.01)
    assert (project / "sweeps" / "main" / "range.png").exists()
