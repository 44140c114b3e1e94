"""What the doctor beside a run remembers of it: bounded, and no steps that were taken back."""

from pathlib import Path

import pytest

from groundup.base.config import to_toml
from groundup.base.runs import Run
from groundup.doctor import live
from groundup.doctor.live import Live
from tests.doctor.planting import configured, write_project


@pytest.fixture
def run(tmp_path: Path) -> Run:
    project = write_project(tmp_path / "p", ["abc " * 500], ["abc " * 50])
    run = Run(project / "05-pretrain" / "main")
    run.path.mkdir(parents=True)
    (run.path / "config.toml").write_text(to_toml(configured(project, "main")))
    return run


def tell(watcher: Live, run: Run, step: int, loss: float) -> None:
    """Writes a row as the loop does."""
    watcher(run, run.metric(step=step, loss=loss, grad_norm=1.0, tokens_per_s=1e3))


def test_what_it_remembers_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST", 64)
    watcher = Live()
    for step in range(1, 1001):
        tell(watcher, run, step, 3.0 - step / 1000)
    assert watcher.at is not None
    assert not watcher.at.over
    steps = [row["step"] for row in watcher.at.rows]
    assert len(steps) <= 64
    assert steps[0] == 1
    assert steps[-32:] == list(range(969, 1001))
    assert steps == sorted(set(steps))
    assert watcher.at.facts.done >= 1000 - live.ROWS


def test_steps_that_were_taken_back_are_forgotten(run: Run) -> None:
    watcher = Live()
    for step in (1, 2, 3, 4, 2, 3):
        tell(watcher, run, step, 3.0)
    assert watcher.at is not None
    assert [row["step"] for row in watcher.at.rows] == [1, 2, 2, 3]


def test_a_run_that_goes_on_is_known_from_its_file(run: Run) -> None:
    tell(Live(), run, 1, 3.0)
    watcher = Live()
    tell(watcher, run, 2, 2.9)
    assert watcher.at is not None
    assert [row["step"] for row in watcher.at.rows] == [1, 2]
