"""Models by name: the published numbers of parameters, and how a preset meets files and flags."""

import typing
from pathlib import Path

import pytest

from groundup.base.config import parse, to_toml
from groundup.base.errors import ConfigError
from groundup.model.config import ModelConfig
from groundup.model.presets import PRESETS, Preset
from groundup.train.config import PretrainConfig

PUBLISHED = {
    "gpt2-124m": 124_439_808, "gpt2-350m": 354_823_168, "gpt2-774m": 774_030_080, "gpt2-1.5b": 1_557_611_200,
    "qwen3-0.6b": 596_049_920, "llama-1b": 1_235_814_400, "qwen3-30b-a3b": 30_532_122_624,
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    return ModelConfig.from_dict({"preset": name})


def test_every_name_has_a_model() -> None:
    assert ("none", *PRESETS) == typing.get_args(Preset)
    for name in PRESETS:
        assert preset(name).preset == name


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    assert preset(name).params() == PUBLISHED[name]


def test_sizes_of_our_own() -> None:
    assert preset("tiny").params() == pytest.approx(0.2e6, rel=0.1)
    assert preset("shakespeare").params() == pytest.approx(10.7e6, rel=0.01)
    assert preset("qwen3-30b-a3b").params(active=True) == pytest.approx(3.3e9, rel=0.02)  # "A3B"
    assert preset("gpt2-124m").params(active=True) == preset("gpt2-124m").params()
    small = preset("moe-small")
    assert small.params(active=True) < small.params() / 3


def run(*argv: str) -> ModelConfig:
    return parse(PretrainConfig, argv, "groundup pretrain", "").model


def test_flags_override_a_preset_wherever_they_stand() -> None:
    for words in (
        ("--model.d-model", "96", "--model.preset", "llama-1b"),
        ("--model.preset=llama-1b", "--model.d-model=96"),
    ):
        model = run(*words)
        assert (model.family, model.d_model, model.n_layers, model.rope.scaling) == ("llama", 96, 16, "llama3")


def test_a_preset_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model]\npreset = "llama-1b"\nn_layers = 2\n[model.rope]\nfactor = 8.0\n')
    model = run("--config", str(file))
    assert (model.n_layers, model.d_model, model.rope.factor, model.rope.theta) == (2, 2048, 8.0, 500000.0)
    other = run("--config", str(file), "--model.preset", "tiny")  # a flag sets the section anew
    assert other == preset("tiny")
    config = parse(PretrainConfig, ["--model.preset", "moe-small", "--model.moe.experts", "4"], "groundup pretrain", "")
    file.write_text(to_toml(config))  # as --print-config shows it, it is read back
    assert run("--config", str(file)) == config.model


def test_an_unknown_preset_is_one_line() -> None:
    for words in (["--model.preset", "gpt3"], ["--model.preset=gpt3"]):
        with pytest.raises(ConfigError, match=r"model.preset.*expected one of none, tiny, .*not 'gpt3'"):
            run(*words)
