"""Models as transformers knows them: its names, layouts and config.json, both ways."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, ConfigError
from groundup.model.config import FAMILIES, ModelConfig, MoEConfig, RopeConfig, VariantConfig, WindowConfig
from groundup.model.transformer import Transformer

__all__ = ["CLASSES", "config_from_huggingface", "from_huggingface", "to_huggingface"]

# Their model_type and class. Mistral is their name for a Llama whose layers all have a window.
CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
           "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}  # fmt: skip
ACTIVATIONS = {"gelu": "gelu_new", "gelu_exact": "gelu", "relu": "relu", "relu2": "relu2"}  # ours -> theirs, in GPT-2

# Options of config.json that would change the computation in a way that our families don't know, and the only value we read.
ONLY: dict[str, dict[str, Any]] = {
    "gpt2": {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    "llama": {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu"},
    "mistral": {"hidden_act": "silu"},
    "qwen3": {"attention_bias": False, "hidden_act": "silu"},
    "qwen3_moe": {"attention_bias": False, "hidden_act": "silu", "decoder_sparse_step": 1, "mlp_only_layers": []},
}
# Buffers that older files carry and nobody needs: masks, rotary frequencies.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


class Pair(NamedTuple):
    """A tensor of ours and what it is called there: several, where ours is stacked of them by `rows`."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...]
    turned: bool = False  # GPT-2's linear layers keep their matrices transposed, (in, out)


def to_huggingface(model: Transformer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the model as transformers knows it: (tensors, content of config.json), fused matrices split.

    Raises: CheckpointError for a model without a class there.
    """
    config = model.config
    if config.family not in CLASSES:
        known = ", ".join(sorted(CLASSES.keys() & FAMILIES.keys()))
        raise CheckpointError(f"a {config.family} model has no class in transformers; {known} have")
    for key in _departures(config):
        raise CheckpointError(f"model.{key}: no class in transformers has such a {config.family} model")
    ours = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    theirs: dict[str, Tensor] = {}
    for pair in _pairs(config):
        # What was trained without biases is the same with biases of zero.
        tensor = ours[pair.ours] if pair.ours in ours else torch.zeros(sum(pair.rows))
        for name, part in zip(pair.theirs, tensor.split(pair.rows), strict=True):
            theirs[name] = (part.t() if pair.turned else part).contiguous().clone()
    return theirs, _gpt2_json(config) if config.family == "gpt2" else _llama_json(config) | _windows_json(config)


def from_huggingface(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns the config and state of our model, given the content of a config.json and all tensors beside it.

    Weights become fp32, whatever they were. `Transformer(config).load_state_dict(state)` takes them.
    Raises: CheckpointError naming an architecture or an option that we don't know, or all tensors that are missing or unknown.
    """
    config = config_from_huggingface(values)
    given = _given(config, tensors)
    pairs = list(_pairs(config))
    names = [name for pair in pairs for name in pair.theirs]
    missing, extra = [n for n in names if n not in given], sorted(given.keys() - set(names))
    if missing or extra:
        said = [f"{what}: {_few(found)}" for what, found in (("missing", missing), ("unknown", extra)) if found]
        raise CheckpointError(f"the tensors aren't those of a {CLASSES[_kind(config)]}; {'; '.join(said)}")
    with torch.device("meta"):  # shapes without memory
        expected = Transformer(config).state_dict()
    state = {}
    for pair in pairs:
        parts = []
        for name, rows in zip(pair.theirs, pair.rows, strict=True):
            part, shape = given[name], (rows, *expected[pair.ours].shape[1:])
            if tuple(part.shape) != (shape[::-1] if pair.turned else shape):
                shown = shape[::-1] if pair.turned else shape
                raise CheckpointError(f"tensor {name} has shape {tuple(part.shape)}, the config expects {shown}")
            if not part.is_floating_point():
                raise CheckpointError(f"tensor {name} has dtype {part.dtype}; quantised weights can't be trained on")
            parts.append((part.t() if pair.turned else part).float())
        state[pair.ours] = torch.cat(parts) if len(parts) > 1 else parts[0].contiguous()
    return config, state


def _few(names: list[str], most: int = 3) -> str:
    """Returns the first few of the names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _given(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors under their full names, without buffers and without an output layer that is the embedding."""
    prefix = "transformer." if config.family == "gpt2" else "model."
    bare = not any(name.startswith(prefix) for name in tensors)  # as the folder of OpenAI's GPT-2 has them
    given = {}
    for name, tensor in tensors.items():
        if name.endswith(BUFFERS) or (name == "lm_head.weight" and config.tie_embeddings):
            continue
        given[prefix + name if bare and name != "lm_head.weight" else name] = tensor
    return given


def _departures(config: ModelConfig) -> list[str]:
    """Returns the fields that depart from what the family's class in transformers has."""
    plain = replace(config, variant=VariantConfig())
    known = {"variant.bias"} if config.family == "gpt2" else set()
    if config.family == "gpt2" and config.activation in ACTIVATIONS:  # its class takes any activation but a gated one
        known.add("variant.activation")
    keys = ("positions", "qk_norm", "activation", "bias")
    found = [f"variant.{key}" for key in keys if getattr(config, key) != getattr(plain, key)]
    if config.variant.logit_softcap:
        found.append("variant.logit_softcap")
    windows = {config.window_of(layer) for layer in range(config.n_layers)}
    if windows != {0} and (config.family == "gpt2" or (config.family != "qwen3" and 0 in windows)):
        found.append("window")  # Llama (as Mistral) and Qwen3-MoE have windows in all layers or in none
    return [key for key in found if key not in known]


def _kind(config: ModelConfig) -> str:
    """Returns their model_type of a config of ours."""
    return "mistral" if config.family == "llama" and config.window_of(0) else config.family


def _pairs(config: ModelConfig) -> Iterator[Pair]:
    """Yields each tensor of ours with its names there."""
    return _gpt2_pairs(config) if config.family == "gpt2" else _llama_pairs(config)


def _llama_pairs(config: ModelConfig) -> Iterator[Pair]:
    """Yields the names of Llama, Qwen3 and Qwen3-MoE: separate matrices for q, k, v and for gate and up."""
    width, inside = config.d_model, config.ff_size
    q, kv = config.n_heads * config.head_size, config.kv_heads * config.head_size
    yield Pair("embed.weight", ("model.embed_tokens.weight",), (config.vocab_size,))
    for layer in range(config.n_layers):
        a, b = f"blocks.{layer}.", f"model.layers.{layer}."
        yield Pair(a + "attn_norm.weight", (b + "input_layernorm.weight",), (width,))
        yield Pair(a + "attn.qkv.weight", tuple(f"{b}self_attn.{name}_proj.weight" for name in "qkv"), (q, kv, kv))
        if config.qk_norm:
            for name in "qk":
                yield Pair(f"{a}attn.{name}_norm.weight", (f"{b}self_attn.{name}_norm.weight",), (config.head_size,))
        yield Pair(a + "attn.out.weight", (b + "self_attn.o_proj.weight",), (width,))
        yield Pair(a + "mlp_norm.weight", (b + "post_attention_layernorm.weight",), (width,))
        if config.experts > 1:
            yield Pair(a + "mlp.router.weight", (b + "mlp.gate.weight",), (config.experts,))
        for expert in [f"experts.{i}." for i in range(config.experts)] if config.experts > 1 else [""]:
            c, d = f"{a}mlp.{expert}", f"{b}mlp.{expert}"
            yield Pair(c + "up.weight", (d + "gate_proj.weight", d + "up_proj.weight"), (inside, inside))
            yield Pair(c + "down.weight", (d + "down_proj.weight",), (width,))
    yield Pair("norm.weight", ("model.norm.weight",), (width,))
    if not config.tie_embeddings:
        yield Pair("head.weight", ("lm_head.weight",), (config.vocab_size,))


def _gpt2_pairs(config: ModelConfig) -> Iterator[Pair]:
    """Yields GPT-2's names; it always has biases."""
    width = config.d_model
    yield Pair("embed.weight", ("transformer.wte.weight",), (config.vocab_size,))
    yield Pair("positions.weight", ("transformer.wpe.weight",), (config.context,))
    linear = {"attn.qkv": ("attn.c_attn", 3 * width), "attn.out": ("attn.c_proj", width),
              "mlp.up": ("mlp.c_fc", config.ff_size), "mlp.down": ("mlp.c_proj", width)}  # fmt: skip
    for layer in range(config.n_layers):
        a, b = f"blocks.{layer}.", f"transformer.h.{layer}."
        for our, (their, rows) in linear.items():
            yield Pair(f"{a}{our}.weight", (f"{b}{their}.weight",), (rows,), turned=True)
            yield Pair(f"{a}{our}.bias", (f"{b}{their}.bias",), (rows,))
        for our, their in (("attn_norm", "ln_1"), ("mlp_norm", "ln_2")):
            for part in ("weight", "bias"):
                yield Pair(f"{a}{our}.{part}", (f"{b}{their}.{part}",), (width,))
    for part in ("weight", "bias"):
        yield Pair(f"norm.{part}", (f"transformer.ln_f.{part}",), (width,))
    if not config.tie_embeddings:
        yield Pair("head.weight", ("lm_head.weight",), (config.vocab_size,))


def _llama_json(config: ModelConfig) -> dict[str, Any]:
    """Returns config.json of Llama, Mistral, Qwen3 or Qwen3-MoE, but for the windows."""
    kind = _kind(config)
    values: dict[str, Any] = {
        "architectures": [CLASSES[kind]], "model_type": kind, "vocab_size": config.vocab_size,
        "hidden_size": config.d_model, "intermediate_size": config.ff_size, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "num_key_value_heads": config.kv_heads, "head_dim": config.head_size,
        "hidden_act": "silu", "max_position_embeddings": config.context, "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta, "rope_scaling": _scaling_json(config), "attention_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
        "tie_word_embeddings": config.tie_embeddings, "dtype": "float32",
    }  # fmt: skip
    if kind == "llama":
        values["mlp_bias"] = False
    if config.family == "qwen3_moe":
        values |= {
            "num_experts": config.experts, "num_experts_per_tok": config.active_experts, "norm_topk_prob": config.moe.normalise,
            "moe_intermediate_size": config.ff_size, "router_aux_loss_coef": config.moe.balance, "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }  # fmt: skip
    return values


def _windows_json(config: ModelConfig) -> dict[str, Any]:
    """Returns the entries on sliding windows."""
    if config.family == "llama":
        return {"sliding_window": config.window_of(0)} if config.window_of(0) else {}
    windows = [config.window_of(layer) for layer in range(config.n_layers)]
    values: dict[str, Any] = {"use_sliding_window": any(windows), "sliding_window": max(windows) or None}
    full_first = windows.index(max(windows)) if any(windows) else config.n_layers
    values["max_window_layers"] = full_first  # what older programs read: so many full layers, then windows
    if config.family == "qwen3" and any(windows):
        values["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windows]
    return values


def _scaling_json(config: ModelConfig) -> dict[str, Any] | None:
    """Returns the entry "rope_scaling"."""
    rope = config.rope
    if rope.scaling == "none":
        return None
    values: dict[str, Any] = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling in ("llama3", "yarn"):
        values["original_max_position_embeddings"] = rope.original_context or round(config.context / rope.factor)
    if rope.scaling == "llama3":
        values |= {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
    if rope.scaling == "yarn":
        values |= {"beta_slow": rope.beta_slow, "beta_fast": rope.beta_fast}
        values |= {"attention_factor": rope.attention_factor} if rope.attention_factor else {}
    return values


def _gpt2_json(config: ModelConfig) -> dict[str, Any]:
    """Returns config.json of GPT2LMHeadModel."""
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.vocab_size, "n_positions": config.context,
        "n_ctx": config.context, "n_embd": config.d_model, "n_layer": config.n_layers, "n_head": config.n_heads,
        "n_inner": config.ff_size, "activation_function": ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps, "attn_pdrop": config.dropout, "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout, "initializer_range": 0.02, "use_cache": True,
        "tie_word_embeddings": config.tie_embeddings, "dtype": "float32",
    }  # fmt: skip


def config_from_huggingface(values: Mapping[str, Any]) -> ModelConfig:
    """Returns our config for the content of a config.json. Raises: CheckpointError for what our families don't know."""
    named = str((values.get("architectures") or [values.get("model_type")])[0])
    kind = next((name for name, theirs in CLASSES.items() if named in (name, theirs)), None)
    if kind is None:
        raise CheckpointError(
            f"config.json: architecture {named!r} is unknown; {', '.join(CLASSES.values())} are known"
        )
    if quantised := values.get("quantization_config"):
        raise CheckpointError(
            f"config.json: weights quantised by {quantised.get('quant_method', 'something')} are unknown"
        )
    for key, only in ONLY[kind].items():
        if (values[key] if values.get(key) is not None else only) != only:
            raise CheckpointError(f"config.json: {key} = {values[key]!r} is unknown to us, {only!r} was expected")
    try:
        config = _read_gpt2(values) if kind == "gpt2" else _read_llama(kind, values)
        config.validate()
    except KeyError as error:
        raise CheckpointError(f"config.json: {error.args[0]} is missing") from error
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"config.json: {error}") from error
    return config


def _read_gpt2(values: Mapping[str, Any]) -> ModelConfig:
    """Returns the config of a GPT2LMHeadModel."""
    ours = {theirs: our for our, theirs in ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu"}
    named = values.get("activation_function", "gelu_new")
    if named not in ours:
        raise CheckpointError(f"config.json: activation_function {named!r} is unknown; {', '.join(ours)} are known")
    activation: Any = ours[named]
    return ModelConfig(
        "gpt2", vocab_size=values["vocab_size"], context=values["n_positions"], d_model=values["n_embd"],
        n_layers=values["n_layer"], n_heads=values["n_head"], d_ff=values.get("n_inner") or 4 * values["n_embd"],
        dropout=values.get("resid_pdrop", 0.1), tie_embeddings=values.get("tie_word_embeddings", True),
        variant=VariantConfig(
            norm_eps=values.get("layer_norm_epsilon", 1e-5), activation="family" if activation == "gelu" else activation
        ),
    )  # fmt: skip


def _read_llama(kind: str, values: Mapping[str, Any]) -> ModelConfig:
    """Returns the config of a Llama, Mistral, Qwen3 or Qwen3-MoE; what the file leaves out is as transformers has it."""
    heads, width, context = values["num_attention_heads"], values["hidden_size"], values["max_position_embeddings"]
    head_dim = values.get("head_dim") or (128 if kind == "qwen3" else width // heads)
    inside = values["moe_intermediate_size" if kind == "qwen3_moe" else "intermediate_size"]
    family: Any = "llama" if kind == "mistral" else kind
    return ModelConfig(
        family, vocab_size=values["vocab_size"], context=context, d_model=width, n_layers=values["num_hidden_layers"],
        n_heads=heads, n_kv_heads=values.get("num_key_value_heads") or heads, head_dim=head_dim,
        d_ff=inside, tie_embeddings=values.get("tie_word_embeddings", False),
        rope=_read_rope(values, context), window=_read_windows(kind, values), moe=_read_moe(kind, values),
        variant=VariantConfig(norm_eps=values.get("rms_norm_eps", 1e-6)),
    )  # fmt: skip


def _read_moe(kind: str, values: Mapping[str, Any]) -> MoEConfig:
    """Returns the experts of a Qwen3-MoE."""
    if kind != "qwen3_moe":
        return MoEConfig()
    return MoEConfig(
        values.get("num_experts") or values["num_local_experts"], values["num_experts_per_tok"],
        values.get("norm_topk_prob", False), values.get("router_aux_loss_coef", 0.001),
    )  # fmt: skip


def _read_windows(kind: str, values: Mapping[str, Any]) -> WindowConfig:
    """Returns which layers have a window: of a Mistral all, of a Qwen3 its `layer_types`, or all from `max_window_layers` on."""
    used = values.get("use_sliding_window", kind == "mistral") and kind != "llama"
    if not used or not (size := values.get("sliding_window", 4096)):
        return WindowConfig()
    if kind != "qwen3":
        return WindowConfig(size, "W")
    layers, kinds = values["num_hidden_layers"], {"sliding_attention": "W", "full_attention": "F"}
    full_first = min(values.get("max_window_layers", 28), layers)
    named = values.get("layer_types") or ["full_attention"] * full_first + ["sliding_attention"] * (layers - full_first)
    if len(named) != layers or set(named) - kinds.keys():
        raise CheckpointError(f"config.json: layer_types: {layers} of {' or '.join(kinds)} were expected")
    return WindowConfig(size, "".join(kinds[kind] for kind in named))


def _read_rope(values: Mapping[str, Any], context: int) -> RopeConfig:
    """Returns the rotary positions of a config.json, in its old form (rope_theta, rope_scaling) or the new (rope_parameters)."""
    scaling = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    theta = float(scaling.pop("rope_theta", values.get("rope_theta", 10000.0)))
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    scaling.pop("type", None)
    if kind in ("default", "dynamic"):  # dynamic scaling begins beyond the context, where our models end
        return RopeConfig(theta)
    if kind not in ("linear", "llama3", "yarn"):
        raise CheckpointError(f"config.json: rope type {kind!r} is unknown; linear, dynamic, llama3 and yarn are known")
    original = scaling.pop("original_max_position_embeddings", context if kind != "linear" else 0)
    known = {"factor", "low_freq_factor", "high_freq_factor", "beta_slow", "beta_fast", "attention_factor"}
    if extra := sorted(key for key in scaling.keys() - known if scaling[key] is not None):
        raise CheckpointError(f"config.json: {extra[0]} of rope type {kind} is unknown to us")
    numbers = {key: float(value) for key, value in scaling.items() if key in known and value is not None}
    return RopeConfig(theta, kind, original_context=original, **numbers)  # type: ignore[arg-type]
