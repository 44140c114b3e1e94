"""GRPO: what a step tries, which answers it learns from, that reward rises, exact resuming, and the user's mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.align.config import GRPOConfig, RolloutConfig
from groundup.align.grpo import RolloutBatch, RolloutSource, grpo_loss, main
from groundup.base.errors import ConfigError
from groundup.base.files import write_jsonl
from groundup.base.records import read_problems
from groundup.base.runs import latest_checkpoint, open_run
from groundup.cli import main as cli_main
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load
from groundup.train.config import CheckpointConfig, LoopConfig


@pytest.fixture
def loaded(project: Path) -> tuple[Transformer, Tokenizer]:
    start = latest_checkpoint(project / "06-sft" / "main")
    assert start is not None
    return load_model(start), load(start)


def source(
    project: Path, loaded: tuple[Transformer, Tokenizer], reference: bool = True, **more: object
) -> RolloutSource:
    config = GRPOConfig(project, rollout=RolloutConfig(questions=12, answers=6, max_tokens=4))
    config = replace(config, **more)  # type: ignore[arg-type]
    problems = list(read_problems(project / "tasks" / "problems-train.jsonl"))
    return RolloutSource(loaded[0], loaded[0] if reference else None, loaded[1], problems, config)


def test_only_groups_with_a_signal_are_learnt_from(project: Path, loaded: tuple[Transformer, Tokenizer]) -> None:
    made = source(project, loaded)
    batch = made.batch(0)
    answers = len(batch.advantages)
    assert answers % 6 == 0
    assert batch.stats["used"] == pytest.approx(answers / 72)
    assert 0 < batch.stats["reward"] < 1
    assert batch.advantages.sum().item() == pytest.approx(0.0, abs=1e-5)
    assert batch.advantages.abs().min() > 0
    for part in batch.parts:
        assert part.reference is not None
        assert len(part.reference) == len(part.batch.targets)
        assert part.old is None
    good = torch.cat([part.batch.answers for part in batch.parts]).unique()
    assert good.tolist() == list(range(answers))


def test_a_step_s_answers_depend_on_the_step_and_the_model_alone(
    project: Path, loaded: tuple[Transformer, Tokenizer]
) -> None:
    first, again = source(project, loaded).batch(3), source(project, loaded).batch(3)
    for one, two in zip(first.parts, again.parts, strict=True):
        assert torch.equal(one.batch.tokens, two.batch.tokens)
    other = source(project, loaded).batch(4)
    assert other.stats != first.stats or other.tokens != first.tokens


def test_at_the_start_kl_is_zero_and_the_gradient_is_the_policy_gradient(
    project: Path, loaded: tuple[Transformer, Tokenizer]
) -> None:
    made = source(project, loaded, kl_weight=0.5)
    total, count, metrics = grpo_loss(loaded[0], made.batch(0), made.config)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["clipped"] == 0
    assert metrics["entropy"] > 0
    assert total.detach().item() / count == pytest.approx(0.0, abs=0.5)


def test_ranks_share_the_questions(project: Path, loaded: tuple[Transformer, Tokenizer]) -> None:
    made = source(project, loaded)
    both = []
    for rank in (0, 1):
        half = source(project, loaded)
        half.rank, half.world = rank, 2
        both += half.questions(0)
    assert sorted(p.id for p in both) == sorted(p.id for p in made.questions(0))


def test_updates_share_answers_and_remember_who_gave_them(project: Path, loaded: tuple[Transformer, Tokenizer]) -> None:
    made = source(project, loaded, updates=2)
    first = made.batch(0)
    assert made.batch(1) is first
    assert made.batch(2) is not first
    assert all(part.old is not None for part in first.parts)
    with pytest.raises(ConfigError, match=r"train\.checkpoint\.every"):
        GRPOConfig(updates=2, train=LoopConfig(checkpoint=CheckpointConfig(3))).validate()
    GRPOConfig(updates=2, train=LoopConfig(checkpoint=CheckpointConfig(4))).validate()


def test_a_step_without_any_signal_changes_nothing(project: Path, loaded: tuple[Transformer, Tokenizer]) -> None:
    total, count, _ = grpo_loss(loaded[0], RolloutBatch((), torch.empty(0), 0, {"reward": 1.0}), GRPOConfig())
    total.backward()
    assert (total.item(), count) == (0.0, 1)
    assert all(p.grad is None or not p.grad.any() for p in loaded[0].parameters())


def test_metrics_and_reward(project: Path) -> None:
    rows = open_run(project, "grpo").metrics()
    assert {"reward", "kl", "entropy", "length", "used", "clipped", "loss", "lr"} <= rows[0].keys()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert rows[-1]["kl"] > 0


def test_reward_rises(project: Path) -> None:
    loop = LoopConfig(steps=25, lr=2e-3, log_every=1, warmup=0)
    rollout = RolloutConfig(questions=24, answers=8, max_tokens=4)
    main(GRPOConfig(project, "more", project / "06-sft" / "main", rollout=rollout, train=loop))
    rewards = [row["reward"] for row in open_run(project, "grpo", "more").metrics()]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.05


def test_an_interrupted_run_continues_bit_for_bit(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rollout = RolloutConfig(questions=6, answers=4, max_tokens=4)
    config = GRPOConfig(
        project, "short", rollout=rollout, train=LoopConfig(steps=4, checkpoint=CheckpointConfig(2), log_every=1)
    )
    whole = main(config)["parameter_hash"]
    run = open_run(project, "grpo", "short")
    (run.path / "checkpoints" / "step_000004" / "DONE").unlink()
    (run.path / "run.json").write_text(json.dumps(run.info | {"status": "interrupted"}))
    assert main(config)["parameter_hash"] == whole
    assert "continuing from step_000002" in capfd.readouterr().out


def test_mistakes_are_one_line(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "keyless.jsonl", [{"id": "1", "question": "What is 1 + 1?", "answer": "2"}])
    for argv, message in (
        ([tmp_path], "08-dpo/main: not there or not finished; run `groundup dpo` first"),
        (
            [project, "--name", "x", "--problems", tmp_path / "keyless.jsonl"],
            "keyless.jsonl, row 1: 'skill' is missing",
        ),
        ([project, "--name", "x", "--problems", tmp_path / "none.jsonl"], "none.jsonl: no such file"),
        ([project, "--rollout.answers", 1], "rollout.answers: expected at least 2"),
        ([project, "--clip", 0], "clip: expected a number above 0"),
        ([project, "--normalise", "words"], "normalise"),
    ):
        assert cli_main(["grpo", *map(str, argv)]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1, error
