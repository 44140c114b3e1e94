"""Bytes that training needs: weights, gradients, the optimiser's memory, and what the backward pass must find again."""

from typing import Literal

from groundup.model.config import ModelConfig

__all__ = ["activation_bytes", "training_bytes"]

MANUAL_ATTENTION = 512  # tokens up to which the CPU's attention keeps its weights, T for each query


def activation_bytes(model: ModelConfig, rows: int, precision: str = "fp32", device: str = "cpu") -> int:
    """Returns the bytes kept from the forward for the backward pass, for `rows` windows of the context.

    Counted from the model's own operations: for each token of each block four states of width C (two residuals, two norms),
    queries, keys and values before and after their rotation, the attention's output, its weights (T for each head, unless a
    fused kernel makes them again), and what the feed-forward layer's product and non-linearity need.
    """
    size = 2 if precision == "bf16" else 4
    width, inside = model.d_model, model.ff_size
    queries, keys = model.n_heads * model.head_size, model.kv_heads * model.head_size
    attention = 2 * queries + 3 * keys + 2 * queries  # qkv, q and k as multiplied, the output
    if device == "cpu" and model.context <= MANUAL_ATTENTION:
        attention += model.n_heads * model.context * (2 if model.dropout else 1)
    feed_forward = 4 * inside if model.activation == "swiglu" else 2 * inside
    dropped = 2 * width if model.dropout else 0
    token = (4 * width + attention + feed_forward + dropped) * model.n_layers + 2 * width
    return rows * model.context * token * size


def training_bytes(
    model: ModelConfig,
    rows: int,
    precision: str = "fp32",
    optimizer: Literal["adamw", "muon"] = "adamw",
    device: str = "cpu",
) -> dict[str, int]:
    """Returns {"weights", "gradients", "optimizer", "activations", "logits"} in bytes, for `rows` windows at once.

    Weights, gradients and the optimiser's memory are fp32; AdamW keeps two numbers for each weight, Muon one. The logits
    (V for each token, in fp32) are held three times at the peak: themselves, their softmax, its gradient.
    """
    params = model.params()
    hidden = params - model.vocab_size * model.d_model * (1 if model.tie_embeddings else 2)
    kept = 2 * params - (hidden if optimizer == "muon" else 0)
    copies = 2 * params if precision == "bf16" else 0  # autocast keeps a bf16 copy of the matrices during a step
    return {
        "weights": 4 * params + copies,
        "gradients": 4 * params,
        "optimizer": 4 * kept,
        "activations": activation_bytes(model, rows, precision, device),
        "logits": 3 * 4 * rows * model.context * model.vocab_size,
    }
