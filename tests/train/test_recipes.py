"""The recipes that ship for `groundup pretrain --config`."""

import tomllib
from pathlib import Path

import pytest

import groundup.recipes
from groundup.base.config import from_dict, load_toml
from groundup.cli import main
from groundup.model.config import ModelConfig
from groundup.train.config import PretrainConfig

FOLDER = Path(groundup.recipes.__path__[0])


@pytest.mark.parametrize(
    ("name", "params"), [("tiny", 0.2e6), ("laptop", 12.6e6), ("shakespeare", 10.7e6), ("shakespeare_bpe", 3.5e6)]
)
def test_recipes_are_configs_of_the_size_they_say(name: str, params: float) -> None:
    config = from_dict(PretrainConfig, load_toml(FOLDER / f"{name}.toml"))
    config.validate()
    assert config.model.params() == pytest.approx(params, rel=0.05)
    assert config.train.batch_tokens % config.model.context == 0


def test_shakespeare_is_the_shape_that_is_compared() -> None:
    model = from_dict(PretrainConfig, load_toml(FOLDER / "shakespeare.toml")).model
    assert (model.n_layers, model.n_heads, model.d_model, model.context, model.family) == (6, 6, 384, 256, "qwen3")
    assert model == ModelConfig.from_dict({"preset": "shakespeare"})


def test_the_demo_trains_the_same_shape() -> None:
    demo = load_toml(FOLDER / "demo_shakespeare.toml")["pretrain"]["model"]
    assert ModelConfig.from_dict(demo) == ModelConfig.from_dict({"preset": "shakespeare"})


def test_a_recipe_is_known_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--config", "tiny", "--print-config"]) == 0
    shown = from_dict(PretrainConfig, tomllib.loads(capsys.readouterr().out))
    assert shown == from_dict(PretrainConfig, load_toml(FOLDER / "tiny.toml"))
    assert main(["pretrain", "--config", "tinny"]) == 2
    assert "not one of the recipes laptop, shakespeare, shakespeare_bpe, tiny" in capsys.readouterr().err
