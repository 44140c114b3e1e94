"""Faults of preferences and reinforcement, planted in real runs of a model that adds digits; each is named, also while it trains."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from groundup.align import dpo, grpo
from groundup.align.config import DPOConfig, GRPOConfig, RolloutConfig, SampleConfig
from groundup.base.config import from_dict, load_toml
from groundup.base.files import write_jsonl
from groundup.base.runs import Run, open_run
from groundup.doctor.alignment import trend
from groundup.doctor.config import DoctorConfig
from groundup.doctor.live import Live
from groundup.doctor.run import examine, main
from groundup.train.config import LoopConfig
from groundup.train.watch import watched
from tests.doctor.planting import alarms, write_chat_project

HERE: dict[str, Any] = {"threads": 1, "precision": "fp32", "device": "cpu"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_project(tmp_path_factory.mktemp("alignment") / "p")


def practise(project: Path, name: str, lr: float = 1e-3, max_tokens: int = 4, **more: Any) -> Run:
    """Returns a run of GRPO, the doctor looking on."""
    rollout, loop = RolloutConfig(questions=16, max_tokens=max_tokens), LoopConfig(steps=16, lr=lr, log_every=1)
    with watched(Live()):
        grpo.main(GRPOConfig(project, name, open_run(project, "sft").path, rollout=rollout, train=loop, **HERE, **more))
    return open_run(project, "grpo", name)


def prefer(project: Path, name: str, lr: float = 5e-4, **more: Any) -> Run:
    """Returns a run of DPO, the doctor looking on."""
    own, loop = SampleConfig(max_tokens=4), LoopConfig(steps=24, lr=lr, log_every=1)
    with watched(Live()):
        dpo.main(DPOConfig(project, name, batch=16, sample=own, train=loop, **HERE, **more))
    return open_run(project, "dpo", name)


def found(run: Run) -> list[str]:
    """Returns the keys of the faults (notes left out)."""
    return [fault.key for fault, finding in examine(run.path, False)[1] if not finding.note]


def problems(to: Path, *sums: tuple[int, int]) -> Path:
    """Writes problems that ask these sums."""
    asked = [
        {"id": f"{a}+{b}", "skill": "addition", "question": f"What is {a} + {b}?", "answer": str(a + b)}
        for a, b in sums
    ]
    write_jsonl(to, asked)
    return to


@pytest.fixture(scope="module")
def healthy(project: Path) -> Run:
    return practise(project, "healthy")


def test_healthy_runs_have_no_fault(project: Path, healthy: Run) -> None:
    preferred = prefer(project, "healthy")
    assert found(healthy) == found(preferred) == []
    assert alarms(healthy) == alarms(preferred) == []


def test_a_rate_that_spoils_the_policy_is_said_while_it_trains(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = practise(project, "high", lr=0.3)
    assert found(run) == alarms(run) == ["reward-falls"]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("doctor: step")]
    assert len(said) == 1
    assert "the reward fell from" in said[0]
    assert "groundup doctor" in said[0]
    fixed = main(DoctorConfig(run.path, fix=True, out=tmp_path / "fixed.toml", weights=False))["fixed"]
    config = from_dict(GRPOConfig, load_toml(fixed))
    assert (config.train.lr, config.kl_weight) == (0.1, 0.04)


def test_a_rate_that_moves_nothing(project: Path) -> None:
    run = practise(project, "low", lr=1e-7)
    assert found(run) == ["reward-stands"]
    preferred = prefer(project, "low", lr=1e-8)
    assert found(preferred) == ["undecided"]
    assert examine(preferred.path, False)[1][0][1].changes == {"train.lr": 1e-7}


def test_answers_that_are_cut_off(project: Path) -> None:
    run = practise(project, "cut", max_tokens=1)
    assert found(run) == alarms(run) == ["cut-off"]


def test_questions_without_a_signal(project: Path, tmp_path: Path) -> None:
    run = practise(project, "hard", problems=problems(tmp_path / "hard.jsonl", *((i, 70_000) for i in range(16))))
    assert found(run) == alarms(run) == ["no-signal"]
    assert "too hard" in examine(run.path, False)[1][0][1].cause


def test_a_reward_that_pulls_the_model_away_from_what_it_was(project: Path, tmp_path: Path) -> None:
    one = problems(tmp_path / "one.jsonl", (4, 4))  # which it hardly ever answers rightly
    run = practise(project, "pulled", lr=3e-3, kl_weight=1e-4, problems=one)
    rewards = [row["reward"] for row in run.metrics() if "reward" in row]
    assert rewards[-1] > rewards[0] + 0.1, "by the reward alone all is well"
    assert found(run) == alarms(run) == ["drift"]
    assert examine(run.path, False)[1][0][1].changes == {"train.lr": 1e-3, "kl_weight": 0.04}


def test_answers_that_shrink_without_gain(healthy: Run, tmp_path: Path) -> None:
    shutil.copytree(healthy.path, tmp_path / "10-grpo" / "main")
    run = Run(tmp_path / "10-grpo" / "main")
    rows = [row | {"length": 20 / row["step"], "reward": 0.4} for row in run.metrics() if "reward" in row]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(run) == ["short-answers"]


def test_chosen_answers_that_fade_with_the_rejected_ones(project: Path) -> None:
    run = prefer(project, "plain", lr=2e-3, nll_weight=0.0)
    assert found(run) == alarms(run) == ["fading"]
    assert examine(run.path, False)[1][0][1].changes["nll_weight"] == 1.0


def test_pairs_that_contradict_each_other(project: Path, tmp_path: Path) -> None:
    own = [
        json.loads(line)
        for line in (open_run(project, "dpo", "healthy").path / "preferences.jsonl").read_text().splitlines()
    ]
    both = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in own] + own
    write_jsonl(tmp_path / "both.jsonl", both)
    run = prefer(project, "both", preferences=tmp_path / "both.jsonl", lr=2e-3)
    assert found(run) == ["undecided"]
    assert "contradict each other" in examine(run.path, False)[1][0][1].cause


def test_a_trend_and_its_error() -> None:
    first, last, error = trend([0.0, 0.1, 0.0, 0.1, 1.0, 1.1, 1.0, 1.1])
    assert (first, last) == (pytest.approx(0.05), pytest.approx(1.05))
    assert 0.05 < error < 0.2
    assert trend([2.0]) == (2.0, 2.0, 0.0)


def test_a_check_that_fails_does_not_end_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("groundup.doctor.live.diagnose", broken)
    run = practise(project, "broken")
    assert run.done
    assert (run.path / "log.txt").read_text().count("looks on at this run no more (ZeroDivisionError: a bug)") == 1
