"""`groundup model show`: the table's sums are the config's counts; the drawing is SVG; whatever it is pointed at."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from groundup.base.errors import GroundupError
from groundup.model.config import ModelConfig, VariantConfig, WindowConfig
from groundup.model.presets import PRESETS
from groundup.model.show import draw, layers
from groundup.plan.config import ShowConfig
from groundup.plan.show import find, main

MODELS = {name: find(name) for name in PRESETS} | {
    "2017": ModelConfig("transformer2017", tie_embeddings=False),
    "biased": ModelConfig(
        "qwen3", n_kv_heads=2, variant=VariantConfig(bias="yes", activation="relu2", logit_softcap=9.0)
    ),
    "learned": ModelConfig("gpt2", variant=VariantConfig(bias="no", qk_norm="yes"), window=WindowConfig(16)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_sums_are_the_counts(name: str) -> None:
    model = MODELS[name]
    assert sum(row.params for row in layers(model)) == model.params()
    assert sum(row.flops for row in layers(model)) == pytest.approx(model.flops_per_token(), rel=1e-12)
    assert sum(row.flops for row in layers(model, 17)) == pytest.approx(model.flops_per_token(17), rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_drawing_says_what_the_model_is(name: str) -> None:
    model = MODELS[name]
    drawn = ET.fromstring(draw(model))
    words = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert f"x {model.n_layers}" in words
    assert any(str(model.ff_size) in text for text in words)
    assert sum(text in ("RMSNorm", "LayerNorm") for text in words) == 2 + model.pre_norm
    assert any("experts" in text for text in words) == (model.experts > 1)
    # No text is wider than the drawing: about 0.62 of its size for each character.
    width = float(drawn.get("width", 0))
    for text in drawn.iter("{http://www.w3.org/2000/svg}text"):
        assert 0.6 * float(text.get("font-size", 0)) * len(text.text or "") < 0.8 * width, text.text


def test_a_run_a_file_a_recipe_and_a_folder_of_hugging_faces(
    make_project: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundup.model.huggingface import to_huggingface
    from groundup.model.transformer import Transformer

    project = make_project(tmp_path / "p")
    assert find(str(project)).family == find(str(project / "06-sft" / "main")).family == "gpt2"
    recipes = Path(__file__).parents[2] / "groundup" / "recipes"
    assert find(str(recipes / "laptop.toml")).d_model == 384
    assert find(str(recipes / "demo_shakespeare.toml")).d_model == 384
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(
        json.dumps(to_huggingface(Transformer(replace(MODELS["tiny"])))[1])
    )
    assert find(str(tmp_path / "theirs")).params() == MODELS["tiny"].params()
    main(ShowConfig(str(project), svg=tmp_path / "block.svg"))
    ET.parse(tmp_path / "block.svg")
    out = capsys.readouterr().out
    for words in (f"{find(str(project)).params():,} parameters", "attn.qkv", "KV cache", "training", "block.svg"):
        assert words in out


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("gpt3", "gpt3: neither a file nor a run; the presets are tiny, "),
        ("absent.toml", "absent.toml"),
        ("wrong.toml", r"wrong.toml: there is no section \[model\]"),
        ("odd.toml", "odd.toml: .*not divisible"),
        ("config.json", "architecture 'rwkv' is unknown"),
        ("list.json", "list.json: not a model's config, but a list"),
    ],
)
def test_mistakes_are_one_line(what: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.toml").write_text("[train]\nsteps = 3\n")
    Path("odd.toml").write_text("[model]\nd_model = 33\n")
    Path("config.json").write_text('{"model_type": "rwkv"}')
    Path("list.json").write_text("[]")
    with pytest.raises(GroundupError, match=message) as caught:
        main(ShowConfig(what))
    assert "\n" not in str(caught.value)


def test_as_it_is_typed(cli: Callable[..., CompletedProcess[str]]) -> None:
    shown = cli("model", "show", "moe-small")
    assert "mlp.router" in shown.stdout
    assert "model show moe-small --svg block.svg" in shown.stdout + shown.stderr
    assert cli("model", "show", "tiny", "--rows", "0", check=False).returncode == 2
