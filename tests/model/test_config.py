"""Shapes, counts and impossible configs."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.base.errors import ConfigError
from groundup.model.config import FAMILIES, ModelConfig, MoEConfig, RopeConfig, VariantConfig, WindowConfig
from groundup.model.transformer import Transformer


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_params_is_the_exact_number(family: str, tie: bool) -> None:
    config = ModelConfig(family, vocab_size=50, context=24, d_model=32, n_layers=3, n_heads=4, tie_embeddings=tie)
    assert config.params() == sum(p.numel() for p in Transformer(config).parameters())


def test_params_with_heads_of_their_own_width_and_shared_keys() -> None:
    config = ModelConfig(
        vocab_size=50, context=24, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=40
    )
    assert config.params() == sum(p.numel() for p in Transformer(config).parameters())


def test_published_sizes() -> None:
    gpt2 = ModelConfig("gpt2", vocab_size=50257, context=1024, d_model=768, n_layers=12, n_heads=12)
    assert gpt2.params() == 124_439_808
    heads = {"n_heads": 16, "n_kv_heads": 8, "head_dim": 128}
    qwen = ModelConfig(vocab_size=151936, context=40960, d_model=1024, n_layers=28, d_ff=3072, **heads)
    assert qwen.params() == 596_049_920


@pytest.mark.parametrize("bias", ["yes", "no"])
@pytest.mark.parametrize("activation", ["swiglu", "gelu", "gelu_exact", "relu", "relu2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_params_of_departures(family: str, activation: str, bias: str) -> None:
    variant = VariantConfig(activation=activation, bias=bias, qk_norm="yes")  # type: ignore[arg-type]
    config = ModelConfig(family, vocab_size=50, context=24, d_model=32, n_layers=2, variant=variant)  # type: ignore[arg-type]
    with torch.device("meta"):
        assert config.params() == sum(p.numel() for p in Transformer(config).parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_what_pytorch_counts(family: str) -> None:
    config = ModelConfig(family, vocab_size=64, context=32, d_model=32, n_layers=2, n_heads=4)  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        Transformer(config, implementation="manual")(torch.zeros(2, 32, dtype=torch.long)).sum().backward()
    assert config.flops_per_token() == pytest.approx(counter.get_total_flops() / 64, rel=1e-6)
    assert config.flops_per_token(8) < config.flops_per_token()
    windowed = replace(config, window=WindowConfig(8, "WF"))
    assert windowed.flops_per_token() == pytest.approx((config.flops_per_token() + config.flops_per_token(8)) / 2)


def test_families_resolve_their_zeros() -> None:
    assert (ModelConfig(d_model=128).ff_size, ModelConfig("gpt2", d_model=128).ff_size) == (384, 512)
    assert (ModelConfig().kv_heads, ModelConfig(n_kv_heads=2).kv_heads, ModelConfig().head_size) == (4, 2, 32)
    qwen, _, llama, gpt2, old = (ModelConfig(family) for family in FAMILIES)
    assert [c.qk_norm for c in (qwen, llama, gpt2, old)] == [True, False, False, False]
    assert [c.norm for c in (qwen, llama, gpt2, old)] == ["rms", "rms", "layer", "layer"]
    assert [c.activation for c in (qwen, llama, gpt2, old)] == ["swiglu", "swiglu", "gelu", "relu"]
    assert [c.positions for c in (qwen, llama, gpt2, old)] == ["rope", "rope", "learned", "sinusoidal"]
    assert [c.pre_norm for c in (qwen, llama, gpt2, old)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 130}, "model.d_model: 130 is not divisible by n_heads = 4"),
        ({"n_kv_heads": 3}, "model.n_heads: 4 is not divisible by n_kv_heads = 3"),
        ({"head_dim": 31}, "model.head_dim: rotary positions turn pairs, so it must be even, not 31"),
        ({"d_model": 4, "n_heads": 4}, "must be even, not 1"),
        ({"n_layers": 0}, "model.n_layers: at least 1"),
        ({"d_ff": -1}, "model.d_ff: 0"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"rope": RopeConfig(0.0)}, "model.rope.theta"),
        ({"family": "gpt2", "n_kv_heads": 2}, "gpt2 knows neither"),
        ({"family": "transformer2017", "head_dim": 64}, "transformer2017 knows neither"),
        ({"family": "transformer2017", "d_model": 5, "n_heads": 1}, "come in pairs"),
        ({"family": "rnn"}, "model.family"),
        ({"moe": MoEConfig(4)}, "model.moe: qwen3 has no experts; model.family qwen3_moe has"),
        ({"family": "qwen3_moe", "moe": MoEConfig(1, 1)}, "model.moe.experts: at least 2"),
        ({"family": "qwen3_moe", "moe": MoEConfig(4, 5)}, "model.moe.active: from 1 to experts = 4 is needed, not 5"),
        ({"family": "qwen3_moe", "moe": MoEConfig(balance=-1.0)}, "model.moe.balance"),
        ({"window": WindowConfig(-1)}, "model.window.size"),
        (
            {"window": WindowConfig(8, "WX")},
            "model.window.layers: W (window) and F (full) are expected, as in WWWF, not 'WX'",
        ),
        ({"window": WindowConfig(8, "")}, "model.window.layers"),
        ({"rope": RopeConfig(scaling="linear", factor=0.5)}, "model.rope.factor: 1 or more"),
        ({"rope": RopeConfig(factor=2.0)}, "model.rope.factor: 2.0 has no effect without model.rope.scaling"),
        ({"rope": RopeConfig(scaling="llama3", low_freq_factor=4.0)}, "model.rope.low_freq_factor"),
        ({"rope": RopeConfig(scaling="yarn", beta_slow=32.0)}, "model.rope.beta_slow"),
        ({"rope": RopeConfig(original_context=-1)}, "model.rope.original_context"),
        ({"family": "gpt2", "rope": RopeConfig(500.0)}, "model.rope: the model's positions are learned, not rotary"),
        ({"rope": RopeConfig(scaling="ntk")}, "model.rope.scaling: 'ntk' is not one of none, linear, llama3, yarn"),
        (
            {"variant": VariantConfig(activation="gleu")},
            "model.variant.activation: 'gleu' is not one of family, swiglu, ",
        ),
        ({"variant": VariantConfig(qk_norm=True)}, "model.variant.qk_norm: True is not one of family, yes, no"),
        ({"variant": VariantConfig(norm_eps=1.0)}, "model.variant.norm_eps"),
        ({"variant": VariantConfig(logit_softcap=-1.0)}, "model.variant.logit_softcap"),
    ],
)
def test_impossible_shapes_are_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        ModelConfig(**values).validate()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        Transformer(ModelConfig(**values))


def test_there_and_back_as_json() -> None:
    config = ModelConfig("llama", d_model=96, n_heads=6, n_kv_heads=2, dropout=0.1)
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown key 'n_embd'; here that is 'd_model'"):
        ModelConfig.from_dict({"n_embd": 3})
    with pytest.raises(ConfigError, match="not divisible"):
        ModelConfig.from_dict({"d_model": 129})


def test_the_config_needs_no_torch() -> None:
    code = "import sys; from groundup.model.config import ModelConfig as M; M().params(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
