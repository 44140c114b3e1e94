"""Weights on disk: our own folder (safetensors beside config.json), and the names and layouts of Hugging Face."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.base.errors import CheckpointError, ConfigError, DataError
from groundup.base.files import atomic_file, os_error, read_json, write_json
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer

__all__ = ["load_config", "load_model", "load_tensors", "save_model", "save_tensors", "to_huggingface"]


def save_tensors(tensors: dict[str, Tensor], file: Path, shown: Path | None = None) -> None:
    """Writes a safetensors file. Raises: StorageError for a full disk; it names `shown`, where `file` is a temporary name.

    The library reports what the operating system says as an error of its own, which nobody else would recognise.
    """
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise os_error(OSError(int(number[1]), os.strerror(int(number[1]))), shown or file) from error


def save_model(model: Transformer, folder: Path | str) -> None:
    """Writes model.safetensors and config.json into the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(folder / "model.safetensors") as temporary:
        save_tensors(tensors, temporary, folder / "model.safetensors")
    write_json(folder / "config.json", {"format": "groundup", **model.config.to_dict()})


def load_config(folder: Path | str) -> ModelConfig:
    """Returns the config of a checkpoint folder. Raises: CheckpointError if there is none, or not one of ours."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; a checkpoint of groundup was expected there")
    try:
        values = read_json(file)
        if not isinstance(values, dict) or values.pop("format", None) != "groundup":
            raise CheckpointError(f'{file}: not a model of groundup (its "format" isn\'t "groundup")')
        return ModelConfig.from_dict(values, str(file))
    except (ConfigError, DataError) as error:
        raise CheckpointError(str(error)) from error


def load_tensors(file: Path | str) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file. Raises: CheckpointError naming a file that is missing, cut off or lying."""
    file = Path(file)
    if not file.is_file():
        raise CheckpointError(f"{file}: missing from the checkpoint")
    try:
        return load_file(file)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({str(error).splitlines()[0]})") from error


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> Transformer:
    """Returns the model of a checkpoint folder, in evaluation mode.

    Raises: CheckpointError naming the file, or the tensor that is missing, unknown or of another shape.
    """
    folder = Path(folder)
    config = load_config(folder)
    tensors = load_tensors(folder / "model.safetensors")
    model = Transformer(config, seed=0)  # a seed of its own: loading must not disturb the caller's random numbers
    fill(model, tensors, folder / "model.safetensors")
    return model.to(device).eval()


def fill(model: Transformer, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Copies tensors into the model. Raises: CheckpointError naming the first that is missing, unknown or misshapen."""
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{where}: tensor {name} is missing; the file belongs to another architecture")
        if tensors[name].shape != tensor.shape:
            shapes = f"{tuple(tensors[name].shape)}, the config expects {tuple(tensor.shape)}"
            raise CheckpointError(f"{where}: tensor {name} has shape {shapes}")
        if not tensors[name].is_floating_point():
            raise CheckpointError(
                f"{where}: tensor {name} has dtype {tensors[name].dtype}, numbers with a point were expected"
            )
    if extra := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(f"{where}: tensor {extra[0]} is unknown to a {model.config.family} model of this config")
    model.load_state_dict(tensors)


def to_huggingface(model: Transformer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the model as transformers knows it: (state dict, content of config.json), fused matrices split.

    Raises: CheckpointError for a family without a class there.
    """
    config = model.config
    if config.family not in ("qwen3", "llama", "gpt2"):
        raise CheckpointError(f"a {config.family} model has no class in transformers; qwen3, llama and gpt2 do")
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    convert = _gpt2_tensors if config.family == "gpt2" else _llama_tensors
    state = {name: tensor.contiguous().clone() for name, tensor in convert(config, tensors).items()}
    return state, _gpt2_config(config) if config.family == "gpt2" else _llama_config(config)


def _llama_tensors(config: ModelConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns Llama's and Qwen3's names: separate matrices for q, k, v and for gate and up."""
    theirs = {"model.embed_tokens.weight": ours["embed.weight"], "model.norm.weight": ours["norm.weight"]}
    if not config.tie_embeddings:
        theirs["lm_head.weight"] = ours["head.weight"]
    q, kv = config.n_heads * config.head_size, config.kv_heads * config.head_size
    for layer in range(config.n_layers):
        a, b = f"blocks.{layer}.", f"model.layers.{layer}."
        for name, rows in zip("qkv", ours[a + "attn.qkv.weight"].split((q, kv, kv)), strict=True):
            theirs[f"{b}self_attn.{name}_proj.weight"] = rows
        if config.qk_norm:
            theirs |= {f"{b}self_attn.{name}_norm.weight": ours[f"{a}attn.{name}_norm.weight"] for name in "qk"}
        gate, up = ours[a + "mlp.up.weight"].chunk(2)
        theirs |= {
            b + "self_attn.o_proj.weight": ours[a + "attn.out.weight"], b + "input_layernorm.weight": ours[a + "attn_norm.weight"],
            b + "mlp.gate_proj.weight": gate, b + "mlp.up_proj.weight": up, b + "mlp.down_proj.weight": ours[a + "mlp.down.weight"],
            b + "post_attention_layernorm.weight": ours[a + "mlp_norm.weight"],
        }  # fmt: skip
    return theirs


def _llama_config(config: ModelConfig) -> dict[str, Any]:
    """Returns config.json of LlamaForCausalLM or Qwen3ForCausalLM."""
    name = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[config.family]
    values: dict[str, Any] = {
        "architectures": [name], "model_type": config.family, "vocab_size": config.vocab_size, "hidden_size": config.d_model,
        "intermediate_size": config.ff_size, "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_size, "hidden_act": "silu",
        "max_position_embeddings": config.context, "rms_norm_eps": config.norm_eps, "rope_theta": config.rope_theta,
        "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
        "tie_word_embeddings": config.tie_embeddings, "dtype": "float32",
    }  # fmt: skip
    if config.family == "qwen3":
        return values | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": config.n_layers}
    return values | {"mlp_bias": False}


def _gpt2_tensors(config: ModelConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns GPT-2's names; its linear layers keep their matrices transposed, (in, out)."""
    theirs = {"transformer.wte.weight": ours["embed.weight"], "transformer.wpe.weight": ours["positions.weight"]}
    theirs |= {f"transformer.ln_f.{part}": ours[f"norm.{part}"] for part in ("weight", "bias")}
    if not config.tie_embeddings:
        theirs["lm_head.weight"] = ours["head.weight"]
    linear = {"attn.qkv": "attn.c_attn", "attn.out": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    for layer in range(config.n_layers):
        a, b = f"blocks.{layer}.", f"transformer.h.{layer}."
        for our, their in linear.items():
            theirs[f"{b}{their}.weight"] = ours[f"{a}{our}.weight"].t()
            theirs[f"{b}{their}.bias"] = ours[f"{a}{our}.bias"]
        for our, their in (("attn_norm", "ln_1"), ("mlp_norm", "ln_2")):
            theirs |= {f"{b}{their}.{part}": ours[f"{a}{our}.{part}"] for part in ("weight", "bias")}
    return theirs


def _gpt2_config(config: ModelConfig) -> dict[str, Any]:
    """Returns config.json of GPT2LMHeadModel."""
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.vocab_size, "n_positions": config.context,
        "n_ctx": config.context, "n_embd": config.d_model, "n_layer": config.n_layers, "n_head": config.n_heads,
        "n_inner": config.ff_size, "activation_function": "gelu_new", "layer_norm_epsilon": config.norm_eps,
        "attn_pdrop": config.dropout, "embd_pdrop": config.dropout, "resid_pdrop": config.dropout, "initializer_range": 0.02,
        "use_cache": True, "tie_word_embeddings": config.tie_embeddings, "dtype": "float32",
    }  # fmt: skip
