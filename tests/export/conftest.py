"""Models as others write them: a Hugging Face folder, a checkpoint of nanoGPT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT = (
    "The apple is in the box. Anna takes the apple and puts it into the bag. Where is the apple? 12 + 30 = 42.\n" * 20
)
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.0},
    "llama": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 64},
    "mistral": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 12,
                "num_key_value_heads": 2, "max_position_embeddings": 64, "sliding_window": 9},
    "qwen3": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 24,
              "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True},
    "qwen3_moe": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
                  "num_key_value_heads": 2, "max_position_embeddings": 64, "num_experts": 4, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 32, "norm_topk_prob": True},
}  # fmt: skip
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe(chat: bool = False) -> Any:
    """A byte-level BPE that `tokenizers` trained, as transformers wraps it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", *(["<|im_start|>", "<|im_end|>"] if chat else [])]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([TEXT], trainer)
    end = "<|im_end|>" if chat else "<|endoftext|>"
    given = {"bos_token": "<|endoftext|>", "eos_token": end, "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=CHATML if chat else None, **given)


def write_folder(folder: Path, family: str = "qwen3", chat: bool = False, **how: Any) -> Any:
    """Returns a model of transformers with random weights, after writing it with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = bpe(chat)
    config = AutoConfig.for_model(
        family, vocab_size=304, bos_token_id=0, eos_token_id=0, pad_token_id=0, **SIZES[family]
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape)
    model.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    return model


class NanoGPT(nn.Module):
    """nanoGPT's architecture under nanoGPT's names: exact GELU, biases or none, tied output."""

    def __init__(self, vocab: int, bias: bool, width: int = 32, heads: int = 4, context: int = 48) -> None:
        super().__init__()
        self.heads, self.args = heads, {"n_layer": 2, "n_head": heads, "n_embd": width, "block_size": context,
                                        "bias": bias, "vocab_size": vocab, "dropout": 0.0}  # fmt: skip

        def block() -> nn.ModuleDict:
            attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width, bias), "c_proj": nn.Linear(width, width, bias)})
            mlp = nn.ModuleDict(
                {"c_fc": nn.Linear(width, 4 * width, bias), "c_proj": nn.Linear(4 * width, width, bias)}
            )
            return nn.ModuleDict({"ln_1": nn.LayerNorm(width, bias=bias), "attn": attn,
                                  "ln_2": nn.LayerNorm(width, bias=bias), "mlp": mlp})  # fmt: skip

        parts = {
            "wte": nn.Embedding(vocab, width),
            "wpe": nn.Embedding(context, width),
            "h": nn.ModuleList([block(), block()]),
        }
        self.transformer = nn.ModuleDict({**parts, "ln_f": nn.LayerNorm(width, bias=bias)})
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens: Tensor) -> Tensor:
        batch, time = tokens.shape
        x = self.transformer["wte"](tokens) + self.transformer["wpe"].weight[:time]
        for block in self.transformer["h"]:  # type: ignore[attr-defined]
            q, k, v = (
                block["attn"]["c_attn"](block["ln_1"](x))
                .view(batch, time, 3 * self.heads, -1)
                .transpose(1, 2)
                .chunk(3, 1)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, -1)
            x = x + block["attn"]["c_proj"](y)
            x = x + block["mlp"]["c_proj"](F.gelu(block["mlp"]["c_fc"](block["ln_2"](x))))
        return self.lm_head(self.transformer["ln_f"](x))


def write_checkpoint(file: Path, vocab: int, bias: bool = True, compiled: bool = False) -> NanoGPT:
    """Returns a model with random weights, after writing it as nanoGPT's train.py does."""
    torch.manual_seed(1)
    model = NanoGPT(vocab, bias).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    state = {("_orig_mod." if compiled else "") + name: tensor for name, tensor in model.state_dict().items()}
    file.parent.mkdir(exist_ok=True)
    saved = {"model": state, "model_args": model.args, "iter_num": 5000, "best_val_loss": torch.tensor(1.47),
             "optimizer": torch.optim.AdamW(model.parameters()).state_dict(), "config": {"dataset": "x", "compile": compiled}}  # fmt: skip
    torch.save(saved, file)
    return model


@pytest.fixture(scope="session")
def their_tokenizer() -> Callable[..., Any]:
    """Returns a function that makes a tokenizer of theirs."""
    return bpe


@pytest.fixture(scope="session")
def their_folder() -> Callable[..., Any]:
    """Returns a function that writes a Hugging Face folder, and returns the model in it."""
    return write_folder


@pytest.fixture(scope="session")
def nanogpt() -> Callable[..., NanoGPT]:
    """Returns a function that writes a checkpoint of nanoGPT, and returns the model in it."""
    return write_checkpoint
