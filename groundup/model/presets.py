"""Models by name: `--model.preset gpt2-124m` sets the whole [model] section, and what is said besides overrides it."""

from typing import Any, Literal

__all__ = ["PRESETS", "Preset"]

Preset = Literal[
    "none", "tiny", "shakespeare", "moe-small", "gpt2-124m", "gpt2-350m", "gpt2-774m", "gpt2-1.5b", "qwen3-0.6b",
    "llama-1b", "qwen3-30b-a3b",
]  # fmt: skip

GPT2 = {"family": "gpt2", "vocab_size": 50257, "context": 1024}
QWEN3 = {"vocab_size": 151936, "context": 40960, "head_dim": 128, "rope": {"theta": 1000000.0}}

PRESETS: dict[str, dict[str, Any]] = {
    # 0.2M parameters: to see that everything works.
    "tiny": {"context": 64, "d_model": 64, "n_layers": 3, "n_heads": 2},
    # 10.7M parameters on bytes, the size of nanoGPT's Shakespeare model; the recipes of that name train it. The text is read
    # several times, hence dropout.
    "shakespeare": {
        "family": "qwen3", "vocab_size": 256, "context": 256, "d_model": 384, "n_layers": 6, "n_heads": 6, "dropout": 0.1,
    },
    # A mixture of 16 experts that a CPU can train.
    "moe-small": {
        "family": "qwen3_moe", "vocab_size": 4096, "context": 256, "d_model": 256, "n_layers": 6, "n_heads": 4,
        "n_kv_heads": 2, "moe": {"experts": 16, "active": 2},
    },
    # As published: Radford et al. 2019, Yang et al. 2025 (Qwen3), Grattafiori et al. 2024 (Llama 3.2).
    "gpt2-124m": {**GPT2, "d_model": 768, "n_layers": 12, "n_heads": 12},
    "gpt2-350m": {**GPT2, "d_model": 1024, "n_layers": 24, "n_heads": 16},
    "gpt2-774m": {**GPT2, "d_model": 1280, "n_layers": 36, "n_heads": 20},
    "gpt2-1.5b": {**GPT2, "d_model": 1600, "n_layers": 48, "n_heads": 25},
    "qwen3-0.6b": {**QWEN3, "d_model": 1024, "n_layers": 28, "n_heads": 16, "n_kv_heads": 8, "d_ff": 3072},
    "llama-1b": {
        "family": "llama", "vocab_size": 128256, "context": 131072, "d_model": 2048, "n_layers": 16, "n_heads": 32,
        "n_kv_heads": 8, "d_ff": 8192, "variant": {"norm_eps": 1e-5},
        "rope": {"theta": 500000.0, "scaling": "llama3", "factor": 32.0, "original_context": 8192},
    },
    "qwen3-30b-a3b": {
        **QWEN3, "family": "qwen3_moe", "d_model": 2048, "n_layers": 48, "n_heads": 32, "n_kv_heads": 4, "d_ff": 768,
        "tie_embeddings": False, "moe": {"experts": 128, "active": 8, "balance": 0.001},
    },
}  # fmt: skip
