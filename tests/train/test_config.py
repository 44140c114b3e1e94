"""What a plan, a file and flags say, and who wins."""

from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.config import from_dict
from groundup.base.errors import ConfigError
from groundup.cli import main
from groundup.model.config import ModelConfig
from groundup.train.config import LoopConfig, OptimConfig, PretrainConfig, apply_plan

PLAN = """
[model]
vocab_size = 300
context = 64
d_model = 96
n_layers = 3

[train]
steps = 77
lr = 0.004
batch_tokens = 1024
"""


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    folder = tmp_path / "04-plan" / "main"
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(PLAN)
    return tmp_path


def test_the_plan_fills_what_was_not_given(planned: Path) -> None:
    config = apply_plan(PretrainConfig(planned))
    assert (config.model.d_model, config.model.n_layers, config.model.context) == (96, 3, 64)
    assert (config.train.steps, config.train.lr, config.train.batch_tokens) == (77, 0.004, 1024)
    assert config.train.clip == LoopConfig().clip


def test_what_was_given_wins_key_by_key(planned: Path) -> None:
    given = LoopConfig(steps=5, optim=OptimConfig(kind="muon"))
    config = apply_plan(PretrainConfig(planned, train=given))
    assert (config.train.steps, config.train.lr) == (5, 0.004)
    assert config.train.optim == OptimConfig(kind="muon")


def test_another_shape_sets_the_plan_aside_and_the_same_one_does_not(planned: Path) -> None:
    other = PretrainConfig(planned, model=ModelConfig(d_model=64))
    assert apply_plan(other) == other
    same = PretrainConfig(planned, model=ModelConfig(d_model=96, n_layers=3, context=64))
    assert apply_plan(same).train.steps == 77
    assert apply_plan(replace(PretrainConfig(planned), plan="none")).train.steps == LoopConfig().steps


def test_a_damaged_plan_is_named(planned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = planned / "04-plan" / "main" / "plan.toml"
    path.write_text("[train]\nstesp = 3\n")
    assert main(["pretrain", str(planned), "--dry-run"]) == 2
    assert f"{path}: unknown key 'train.stesp'; did you mean 'train.steps'?" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("clip", -1.0),
        ("warmup", float("inf")),
        ("batch_tokens", 0),
        ("seed", -1),
    ],
)
def test_loop_validate_names_the_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"train.{key}: "):
        replace(LoopConfig(), **{key: value}).validate()  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "value"), [("beta1", 1.0), ("muon_lr", 0.0), ("decay", 1.5), ("min_ratio", -0.1)])
def test_optim_validate_names_the_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"train.optim.{key}: "):
        LoopConfig(optim=replace(OptimConfig(), **{key: value})).validate()  # type: ignore[arg-type]


def test_toml_with_sections() -> None:
    config = from_dict(PretrainConfig, {"train": {"optim": {"kind": "muon"}, "steps": 3}})
    assert config.train.optim.kind == "muon"


def test_flex_attention_is_refused_where_it_can_not_run(capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--device", "cpu"], ["--model.dropout", "0.1"]):
        assert main(["pretrain", "--attention", "flex", *words, "--dry-run"]) == 2
        assert "attention: flex needs a CUDA device and a model.dropout of 0" in capfd.readouterr().err
