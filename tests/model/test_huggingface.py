"""The mapping to transformers' names and back: nothing is lost, and whatever doesn't fit is named in one line."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.base.errors import CheckpointError
from groundup.model.config import ModelConfig, MoEConfig, RopeConfig, VariantConfig, WindowConfig
from groundup.model.huggingface import config_from_huggingface, from_huggingface, to_huggingface
from groundup.model.transformer import Transformer

SIZES: dict[str, Any] = {"vocab_size": 50, "context": 24, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48}
YARN = RopeConfig(500.0, "yarn", 2.0, original_context=12, beta_fast=16.0, attention_factor=1.5)
CONFIGS = {
    "gpt2": ModelConfig("gpt2", **SIZES),
    "gpt2-relu2": ModelConfig("gpt2", **SIZES, dropout=0.1, tie_embeddings=False, variant=VariantConfig(activation="relu2")),
    "llama": ModelConfig("llama", **SIZES, n_kv_heads=2, head_dim=16, rope=RopeConfig(500.0, "llama3", 4.0, 6)),
    "llama-untied": ModelConfig("llama", **SIZES, tie_embeddings=False, variant=VariantConfig(norm_eps=1e-5)),
    "mistral": ModelConfig("llama", **SIZES, n_kv_heads=2, window=WindowConfig(5, "W"), tie_embeddings=False),
    "qwen3": ModelConfig("qwen3", **SIZES, n_kv_heads=1, rope=YARN),
    "qwen3-window": ModelConfig("qwen3", **SIZES | {"n_layers": 3}, window=WindowConfig(5, "FWF")),
    "qwen3_moe": ModelConfig("qwen3_moe", **SIZES, n_kv_heads=2, moe=MoEConfig(4, 2, False, 0.02)),
    "qwen3_moe-window": ModelConfig("qwen3_moe", **SIZES, window=WindowConfig(5, "W"), tie_embeddings=False),
    "qwen3-linear": ModelConfig("qwen3", **SIZES, rope=RopeConfig(500.0, "linear", 2.0)),
}  # fmt: skip


def resolved(config: ModelConfig) -> dict[str, Any]:
    """Returns the config with nothing left to the family, so that equal models compare equal."""
    return config.to_dict() | {key: getattr(config, key) for key in ("norm_eps", "activation")} | {
        "n_kv_heads": config.kv_heads, "head_dim": config.head_size * (config.positions == "rope"), "variant": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(name: str) -> None:
    model = Transformer(CONFIGS[name], seed=1)
    tensors, values = to_huggingface(model)
    config, state = from_huggingface(
        values, {name: tensor.to(torch.bfloat16).double() for name, tensor in tensors.items()}
    )
    assert resolved(config) == resolved(model.config)
    back = Transformer(config)
    back.load_state_dict(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor.to(torch.bfloat16).float())


def test_names_of_older_files() -> None:
    """OpenAI's GPT-2 has no prefix and carries masks; a tied output layer may be written out."""
    model = Transformer(CONFIGS["gpt2"], seed=1)
    tensors, values = to_huggingface(model)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 24, 24), "lm_head.weight": tensors["transformer.wte.weight"]}
    assert torch.equal(from_huggingface(values, bare)[1]["embed.weight"], model.embed.weight)


def test_a_model_without_biases_has_biases_of_zero_there() -> None:
    tensors, values = to_huggingface(Transformer(ModelConfig("gpt2", **SIZES, variant=VariantConfig(bias="no"))))
    assert tensors["transformer.h.1.attn.c_attn.bias"].tolist() == [0.0] * 96
    assert from_huggingface(values, tensors)[0].bias


def test_a_mistral_without_a_window_is_a_llama() -> None:
    values = to_huggingface(Transformer(CONFIGS["mistral"]))[1]
    assert (values["model_type"], values["sliding_window"]) == ("mistral", 5)
    older = values | {"sliding_window": None}
    assert config_from_huggingface(older) == replace(config_from_huggingface(values), window=WindowConfig())
    left_out = {key: value for key, value in values.items() if key != "sliding_window"}
    assert config_from_huggingface(left_out).window == WindowConfig(4096, "W"), "as transformers has it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture 'MambaForCausalLM' is unknown; GPT2LMHeadModel, LlamaFor"),
        ({"architectures": None, "model_type": None}, "architecture 'None' is unknown"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is unknown to us, 'silu' was expected"),
        ({"attention_bias": True}, "attention_bias = True is unknown"),
        ({"num_key_value_heads": 3}, "not divisible by n_kv_heads"),
        ({"hidden_size": "wide"}, "config.json: "),
        ({"num_attention_heads": ...}, "num_attention_heads is missing"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope type 'longrope' is unknown"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}}, "mscale of rope type yarn is unknown"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by awq"),
    ],
)  # fmt: skip
def test_what_a_config_may_not_say(change: dict[str, Any], message: str) -> None:
    tensors, values = to_huggingface(Transformer(CONFIGS["llama-untied"]))
    values = {key: value for key, value in (values | change).items() if value is not ...}
    with pytest.raises(CheckpointError) as caught:
        from_huggingface(values, tensors)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_missing_and_unknown_tensors_are_named_at_once() -> None:
    tensors, values = to_huggingface(Transformer(CONFIGS["qwen3"]))
    wrong = {n: t for n, t in tensors.items() if "layers.1" not in n} | {"model.layers.0.mlp.lora_A": torch.ones(1)}
    with pytest.raises(CheckpointError) as caught:
        from_huggingface(values, wrong)
    message = str(caught.value)
    for words in (
        "Qwen3ForCausalLM",
        "missing: model.layers.1.input_layernorm.weight,",
        "and 8 more",
        "unknown: model.layers.0.mlp.lora_A",
    ):
        assert words in message
    wrong = tensors | {"model.layers.1.mlp.up_proj.weight": torch.ones(3, 32)}
    with pytest.raises(CheckpointError, match=r"up_proj.weight has shape \(3, 32\), the config expects \(48, 32\)"):
        from_huggingface(values, wrong)
    wrong = tensors | {"model.norm.weight": torch.ones(32, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match=r"model.norm.weight has dtype torch.int8; quantised"):
        from_huggingface(values, wrong)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig("transformer2017", **SIZES), "a transformer2017 model has no class in transformers; gpt2, llama, qwen3, qwen3_moe h"),
        (ModelConfig("qwen3", **SIZES, variant=VariantConfig(activation="relu2")), "model.variant.activation: no class"),
        (ModelConfig("qwen3", **SIZES, variant=VariantConfig(positions="learned")), "model.variant.positions: no class"),
        (ModelConfig("llama", **SIZES, variant=VariantConfig(bias="yes")), "model.variant.bias: no class"),
        (ModelConfig("gpt2", **SIZES, variant=VariantConfig(qk_norm="yes")), "model.variant.qk_norm: no class"),
        (ModelConfig("qwen3", **SIZES, variant=VariantConfig(logit_softcap=15.0)), "model.variant.logit_softcap: no class"),
        (ModelConfig("llama", **SIZES, window=WindowConfig(8, "WF")), "model.window: no class"),
        (ModelConfig("qwen3_moe", **SIZES, window=WindowConfig(8, "WF")), "model.window: no class"),
    ],
)  # fmt: skip
def test_what_no_class_there_has(config: ModelConfig, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        to_huggingface(Transformer(config))
