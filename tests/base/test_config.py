"""Configs: the last word wins, mistakes are one line that helps, TOML goes round."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
from tyro.conf import Positional

from groundup.base.config import from_dict, keys, parse, to_toml
from groundup.base.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Model:
    """The shape."""

    d_model: int = 128  # width
    family: Literal["gpt2", "qwen3"] = "qwen3"  # block


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    steps: int = 100  # optimizer steps
    lr: float = 1e-3  # learning rate
    compile: bool = False  # compile
    files: tuple[Path, ...] = ()  # inputs
    limit: int | None = None  # at most
    model: Model = dataclasses.field(default_factory=Model)


def read(*argv: str) -> Verb:
    return parse(Verb, argv, "groundup verb", "A verb.")


def test_defaults_then_file_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('steps = 7\nlr = 1\nfiles = ["a"]\n[model]\nd_model = 64\n')
    config = read("here", "--config", str(file), "--steps", "9", "--model.family", "gpt2")
    assert config == Verb(Path("here"), 9, 1.0, False, (Path("a"),), None, Model(64, "gpt2"))


def test_toml_round_trip() -> None:
    import tomllib

    config = Verb(Path('odd "name"\\'), files=(Path("a"), Path("b")), limit=3, compile=True)
    assert from_dict(Verb, tomllib.loads(to_toml(config))) == config
    assert keys(Verb)["model.d_model"] is int


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stpes", "3"], "did you mean --steps"),
        (["--model.n_embd", "3"], "here that is --model.d-model"),
        (["--max_iters", "3"], "here that is --steps"),
        (["--steps", "three"], "--steps"),
        (["--model.family", "gtp2"], "gpt2"),
        (["--config"], "expected the path"),
        (["--config", "absent.toml"], "no such file"),
        (["a", "b"], "b"),
    ],
)
def test_flag_mistakes_are_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(*argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp = 3", "unknown key 'stesp'; did you mean 'steps'"),
        ("[model]\nhidden_size = 3", "here that is 'model.d_model'"),
        ('steps = "3"', "expected int"),
        ("steps = true", "expected int"),
        ("model = 3", "is a section"),
        ("steps =", "not TOML"),
        ('[model]\nfamily = "bert"', "expected one of gpt2, qwen3"),
    ],
)
def test_file_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read("--config", str(file))
    assert "c.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
