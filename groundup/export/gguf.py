"""A trained model as one GGUF file, the form of llama.cpp: names and layouts of its own, vocabulary and template inside."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.base.config import to_toml
from groundup.base.errors import CheckpointError, ConfigError, TokenizerError
from groundup.base.files import atomic_file
from groundup.base.log import command, progress, quantity, say
from groundup.base.runs import record, unchanged
from groundup.export.config import GGUFConfig

if TYPE_CHECKING:
    from groundup.export.trained import Trained
    from groundup.model.config import ModelConfig
    from groundup.model.transformer import Transformer
    from groundup.tokenizer.encode import Tokenizer

__all__ = ["export", "main", "plain_template"]

# llama.cpp knows the patterns that cut a text into words by the names of the models that brought them.
PATTERNS = {"gpt2": "gpt-2", "cl100k": "dbrx", "o200k": "gpt-4o", "qwen2": "qwen2", "bytes": "gpt-2"}
ARCHITECTURES = {"gpt2": "GPT2", "llama": "LLAMA", "qwen3": "QWEN3", "qwen3_moe": "QWEN3MOE"}
EXPERT = re.compile(r"(.*\.experts)\.\d+\.(.*)")
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")  # GPT-2's, (in, out)
BLOCK = 32  # numbers that share one scale in Q8_0
NEVER = "ÿ ÿ"  # a merge of two bytes 255, which no UTF-8 text holds


def main(config: GGUFConfig) -> None:
    """Writes the file: as a run of the project, or, with --out, just there."""
    config.validate()
    checkpoint = config.find()
    _package()  # its absence is said before anything is written
    if config.out is not None:
        export(checkpoint, config.out, config.dtype, config.project.resolve().name)
        return
    run, inputs, toml = config.run, {"model": checkpoint}, to_toml(config)
    if unchanged(run, toml, inputs):
        return
    with record(run, toml, inputs) as results:
        results |= export(checkpoint, config.target, config.dtype, config.project.resolve().name)
    say(f"next: {command('report', config.project)}")


def _package() -> Any:
    """Returns the package gguf. Raises: ConfigError saying how it is installed."""
    try:
        import gguf
    except ImportError as error:
        raise ConfigError("this needs the package gguf; install it with: pip install 'groundup[gguf]'") from error
    return gguf


def export(checkpoint: Path, file: Path, dtype: str = "f16", name: str = "groundup") -> dict[str, Any]:
    """Returns {"path", "stage", "parameters", "bytes"} after writing the file, whole or not at all.

    Raises: CheckpointError for a model, TokenizerError for a tokenizer, that llama.cpp doesn't know.
    """
    from groundup.export.trained import load_trained

    gguf, trained = _package(), load_trained(checkpoint)
    config = trained.model.config
    tensors = _tensors(trained.model)
    with atomic_file(file) as temporary, progress("writing", config.params(), "parameters") as bar:
        arch = _arch(config)
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[arch])
        _describe(writer, config, name, dtype)
        _vocabulary(writer, trained)
        for tensor, matrix in tensors.items():
            kind = _kind(tensor, matrix, dtype)
            writer.add_tensor(tensor, gguf.quants.quantize(matrix, kind), raw_dtype=kind)
            bar.advance(matrix.size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    size = file.stat().st_size
    say(f"{file}: {config.family}, {dtype}, {quantity(config.params())} parameters, {quantity(size)}B")
    return {"path": str(file), "stage": trained.stage, "parameters": config.params(), "bytes": size}


def _arch(config: "ModelConfig") -> Any:
    """Returns llama.cpp's number for the architecture. Raises: CheckpointError for one that it doesn't have."""
    if config.family not in ARCHITECTURES:
        raise CheckpointError(f"llama.cpp has no {config.family} model; it has {', '.join(ARCHITECTURES)}")
    return getattr(_package().MODEL_ARCH, ARCHITECTURES[config.family])


def _describe(writer: Any, config: "ModelConfig", name: str, dtype: str) -> None:
    """Writes the model's shape."""
    gguf = _package()
    writer.add_name(name)
    writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
                          "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[dtype])  # fmt: skip
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ff_size)
    writer.add_head_count(config.n_heads)
    if config.family == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    if config.experts > 1:
        writer.add_expert_count(config.experts)
        writer.add_expert_used_count(config.active_experts)
        writer.add_expert_feed_forward_length(config.ff_size)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    _rotary(writer, config)


def _rotary(writer: Any, config: "ModelConfig") -> None:
    """Writes the rotary positions. Raises: CheckpointError for a scaling that llama.cpp has for Llama alone."""
    kinds, rope = _package().RopeScalingType, config.rope
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(rope.theta)
    if rope.scaling == "llama3":
        if config.family != "llama":
            raise CheckpointError("model.rope.scaling: llama.cpp knows llama3 in Llama models alone")
        writer.add_tensor("rope_freqs.weight", _divisors(config))
    elif rope.scaling != "none":
        writer.add_rope_scaling_type(kinds.YARN if rope.scaling == "yarn" else kinds.LINEAR)
        writer.add_rope_scaling_factor(rope.factor)
    if rope.scaling == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.original_context or round(config.context / rope.factor))
        writer.add_rope_scaling_yarn_beta_fast(rope.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(rope.beta_slow)
        if rope.attention_factor:
            writer.add_rope_scaling_yarn_attn_factor(rope.attention_factor / (0.1 * math.log(rope.factor) + 1))


def _divisors(config: "ModelConfig") -> np.ndarray:
    """Returns how many times slower each rotary pair turns than it would unscaled, (D/2,)."""
    from groundup.model.config import RopeConfig
    from groundup.model.rope import rotary_speeds

    plain, _ = rotary_speeds(RopeConfig(config.rope.theta), config.head_size, config.context)
    scaled, _ = rotary_speeds(config.rope, config.head_size, config.context)
    return (plain / scaled).float().numpy()


def _tensors(model: "Transformer") -> dict[str, np.ndarray]:
    """Returns the tensors under llama.cpp's names and in its layouts. Raises: CheckpointError for what it can't compute."""
    from groundup.model.huggingface import to_huggingface

    config, theirs = model.config, to_huggingface(model)[0]
    if any(config.window_of(layer) for layer in range(config.n_layers)):
        raise CheckpointError("model.window: llama.cpp computes no sliding windows in such a model")
    if config.experts > 1 and not config.moe.normalise:
        raise CheckpointError("model.moe.normalise: llama.cpp always lets the weights of the chosen experts sum to 1")
    names = _package().get_tensor_name_map(_arch(config), config.n_layers)
    found: dict[str, list[np.ndarray]] = {}
    for name, tensor in theirs.items():
        stem, _, part = EXPERT.sub(r"\1.\2", name).rpartition(".")  # a layer's experts lie in one tensor
        found.setdefault(f"{names.get_name(stem)}.{part}", []).append(_layout(name, tensor.float().numpy(), config))
    return {name: np.stack(parts) if "_exps." in name else parts[0] for name, parts in found.items()}


def _layout(name: str, matrix: np.ndarray, config: "ModelConfig") -> np.ndarray:
    """Returns a tensor as llama.cpp lays it out.

    GPT-2's matrices turn round, (out, in); Llama's queries and keys have each rotary pair side by side, where ours (and
    Hugging Face's) has one half of the head after the other.
    """
    if config.family == "gpt2" and name.endswith(TRANSPOSED):
        matrix = matrix.T
    if config.family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        halves = matrix.reshape(-1, 2, config.head_size // 2, matrix.shape[1])  # (H, 2, D/2, C)
        matrix = halves.swapaxes(1, 2).reshape(matrix.shape)
    return np.ascontiguousarray(matrix)


def _kind(name: str, matrix: np.ndarray, dtype: str) -> Any:
    """Returns the kind of number for a tensor: vectors, positions and routers stay whole, as llama.cpp expects them."""
    kinds = _package().GGMLQuantizationType
    if dtype == "f32" or matrix.ndim == 1 or name.endswith(("position_embd.weight", "ffn_gate_inp.weight")):
        return kinds.F32
    return kinds.Q8_0 if dtype == "q8_0" and matrix.shape[-1] % BLOCK == 0 else kinds.F16


def _vocabulary(writer: Any, trained: "Trained") -> None:
    """Writes the tokens, the merges, the specials and the chat template. Raises: TokenizerError for a foreign pattern."""
    from groundup.tokenizer.io import to_huggingface

    tokenizer, kinds = trained.tokenizer, _package().TokenType
    words_first = getattr(tokenizer, "whole_words", False)
    known = {"cl100k": "llama-bpe"} if words_first else PATTERNS
    if tokenizer.pattern not in known:
        how = " with whole words first" if words_first else ""
        raise TokenizerError(f"llama.cpp can't cut text by {tokenizer.pattern!r}{how}; it can by {', '.join(known)}")
    file, size = to_huggingface(tokenizer), trained.model.config.vocab_size
    words, specials = file["model"]["vocab"], {entry["content"]: entry["id"] for entry in file["added_tokens"]}
    names, types = [f"[PAD{i}]" for i in range(size)], [kinds.UNUSED] * size  # a vocabulary may have gaps and padding
    for found, kind in ((words, kinds.NORMAL), (specials, kinds.CONTROL)):
        for token, i in found.items():
            names[i], types[i] = token, kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(known[tokenizer.pattern])
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges(
        [" ".join(merge) for merge in file["model"]["merges"]] or [NEVER]
    )  # an empty list isn't accepted
    writer.add_bos_token_id(tokenizer.eot)
    writer.add_pad_token_id(tokenizer.eot)
    writer.add_eos_token_id(tokenizer.special(trained.end))
    writer.add_add_bos_token(not trained.chats)  # in a chat the template writes it
    if trained.chats:
        writer.add_chat_template(plain_template(tokenizer))


def plain_template(tokenizer: "Tokenizer") -> str:
    """Returns the chat template in plain Jinja: `generation`, a tag for training alone, becomes an `if` that is true."""
    template = re.sub(r"(\{%[-+]?\s*)generation(\s*[-+]?%\})", r"\1if true\2", tokenizer.chat_template or "")
    return re.sub(r"(\{%[-+]?\s*)endgeneration(\s*[-+]?%\})", r"\1endif\2", template)
