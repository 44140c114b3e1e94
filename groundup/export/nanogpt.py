"""A checkpoint of nanoGPT (ckpt.pt), read without running anything in it."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, ConfigError, TokenizerError
from groundup.base.files import open_text
from groundup.export.incoming import Incoming, read_words
from groundup.model.config import ModelConfig, VariantConfig
from groundup.model.transformer import Transformer
from groundup.tokenizer.encode import EOT, Tokenizer

__all__ = ["characters", "read_nanogpt"]

NAMES = {"wte": "embed", "wpe": "positions", "ln_f": "norm", "ln_1": "attn_norm", "attn.c_attn": "attn.qkv",
         "attn.c_proj": "attn.out", "ln_2": "mlp_norm", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}  # fmt: skip
NAME = re.compile(r"(?:_orig_mod\.)?transformer\.(?:h\.(\d+)\.)?(.+)\.(weight|bias)")
IGNORED = re.compile(
    r"(?:_orig_mod\.)?(lm_head\.weight|.*\.attn\.bias)"
)  # the embedding once more; masks of old versions
UNHEARD = -20.0  # logit of a byte that the model has never met: about a billionth of the likely ones


def read_nanogpt(file: Path, tokenizer: Path | None, text: Path | None) -> Incoming:
    """Returns the model of a checkpoint, with the tokenizer in a file, or the characters of the text it was trained on.

    Raises: CheckpointError for what isn't a checkpoint of nanoGPT, TokenizerError where the vocabulary isn't the model's.
    """
    config, state = _model(file)
    if text is not None:
        return _by_characters(config, state, text, str(file))
    if tokenizer is not None:
        return Incoming(config, state, read_words(tokenizer), str(file))
    wanted = "--tokenizer FILE (GPT-2's vocab.bpe, gpt2.tiktoken or tokenizer.json)"
    if config.vocab_size < 50257:
        wanted = "--text FILE (the text whose characters they are)"
    raise TokenizerError(
        f"{file}: {config.vocab_size} tokens and no word of what they mean (meta.pkl is a pickle, and not opened); give {wanted}"
    )


def _model(file: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns our config and state for a checkpoint. Raises: CheckpointError naming what is missing, unknown or misshapen."""
    saved = _load(file)
    if not isinstance(saved, dict) or not {"model", "model_args"} <= saved.keys():
        raise CheckpointError(f"{file}: not a checkpoint of nanoGPT (no 'model' and 'model_args' in it)")
    config = _config(saved["model_args"], file)
    state = {_ours(name): tensor for name, tensor in saved["model"].items() if not IGNORED.fullmatch(name)}
    with torch.device("meta"):  # shapes without memory
        expected = Transformer(config).state_dict()
    if wrong := sorted(expected.keys() ^ state.keys()):
        what = "missing" if wrong[0] in expected else "unknown"
        raise CheckpointError(
            f"{file}: tensor {wrong[0]} is {what} ({len(wrong)} such names); not nanoGPT's architecture"
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape or not state[name].is_floating_point():
            found = f"{tuple(state[name].shape)} {state[name].dtype}"
            raise CheckpointError(f"{file}: tensor {name} is {found}, its model_args expect {tuple(tensor.shape)}")
    return config, {name: state[name].float() for name in expected}


def _load(file: Path) -> Any:
    """Returns the tensors and plain values of a file that torch.save wrote. Raises: CheckpointError for anything else in it."""
    try:
        if zipfile.is_zipfile(file):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes in the reader
        raise CheckpointError(
            f"{file}: not tensors and plain values alone, or damaged; nothing else is opened"
        ) from error
    raise CheckpointError(f"{file}: not a file of torch.save's; nothing else is opened")


def _config(sizes: Mapping[str, Any], file: Path) -> ModelConfig:
    """Returns our config for `model_args`. nanoGPT computes GELU exactly, GPT-2 by its tanh form."""
    try:
        variant = VariantConfig(activation="gelu_exact", bias="family" if sizes["bias"] else "no")
        config = ModelConfig(
            "gpt2", vocab_size=sizes["vocab_size"], context=sizes["block_size"], d_model=sizes["n_embd"],
            n_layers=sizes["n_layer"], n_heads=sizes["n_head"], dropout=sizes["dropout"], variant=variant,
        )  # fmt: skip
        config.validate()
    except KeyError as error:
        raise CheckpointError(f"{file}: model_args has no {error.args[0]}; not a checkpoint of nanoGPT") from error
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{file}: model_args: {error}") from error
    return config


def _ours(name: str) -> str:
    """Returns our name of a tensor, or the same name where it is none of nanoGPT's."""
    found = NAME.fullmatch(name)
    if found is None or found[2] not in NAMES:
        return name
    return f"{f'blocks.{found[1]}.' if found[1] else ''}{NAMES[found[2]]}.{found[3]}"


# A model of characters. Our tokenizers begin from bytes, so the characters' rows move to where their bytes stand.


def characters(text: str) -> tuple[Tokenizer, list[str]]:
    """Returns a tokenizer in which each character of the text is one token, and the characters in nanoGPT's order.

    A character of several bytes is made by merges, which never reach beyond it.
    """
    found = sorted(set(text))
    symbols: dict[bytes, int] = {bytes([byte]): byte for byte in range(256)}
    merges: list[tuple[int, int]] = []
    for raw in (character.encode() for character in found):
        for end in range(2, len(raw) + 1):
            if raw[:end] not in symbols:
                symbols[raw[:end]] = 256 + len(merges)
                merges.append((symbols[raw[: end - 1]], raw[end - 1]))
    return Tokenizer(merges, (EOT,), "gpt2" if merges else "bytes"), found


def _by_characters(config: ModelConfig, state: dict[str, Tensor], file: Path, source: str) -> Incoming:
    """Returns the model with its characters' rows where a byte-level vocabulary has them; their logits stay what they were."""
    with open_text(file) as stream:
        tokenizer, found = characters(stream.read().replace("\r\n", "\n").replace("\r", "\n"))  # as nanoGPT reads it
    if len(found) != config.vocab_size:
        raise TokenizerError(
            f"{file}: {len(found)} different characters, the model has {config.vocab_size}; not the text it learnt"
        )
    if not state["norm.weight"].abs().min() > 1e-4:
        raise CheckpointError(
            f"{source}: a weight of its last norm is 0; such a model of characters can't be carried over"
        )
    config = replace(config, vocab_size=tokenizer.vocab_size, tie_embeddings=False)
    if not config.bias:  # zeros do the same, and the last norm needs one
        config = replace(config, variant=replace(config.variant, bias="family"))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()} | state
    ids, rows = [tokenizer.encode_ordinary(character)[0] for character in found], state["embed.weight"]
    embed = rows.mean(0).repeat(tokenizer.vocab_size, 1)
    embed[ids] = rows
    if "\n" in found:  # where nanoGPT begins to write
        embed[tokenizer.eot] = rows[found.index("\n")]
    head, bias = _output_layer(rows, ids, tokenizer.vocab_size, state["norm.weight"], state["norm.bias"])
    return Incoming(config, state | {"embed.weight": embed, "head.weight": head, "norm.bias": bias}, tokenizer, source)


def _output_layer(rows: Tensor, ids: list[int], size: int, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Returns an output layer of `size` rows, and the bias of the norm before it: the rows at `ids` give the logits that
    `rows` gave, all others give UNHEARD, whatever was read.

    A LayerNorm's output h = w z + b, its z summing to zero, has the same product with n = 1 / w always: n.h = n.b. So a
    row along n is a bias of the output layer. The norm's own b moves along w until n.b = C, and `rows` are corrected for that.
    """
    wide, w, b, width = rows.double(), weight.double(), bias.double(), len(weight)
    n = 1 / w
    shift = w * (1 - n @ b / width)
    head = (UNHEARD / width * n).repeat(size, 1)
    head[ids] = wide - torch.outer(wide @ shift, n) / width
    return head.float(), (b + shift).float()
