"""Bytes that training needs: weights, gradients, the optimiser's memory, and what the backward pass must find again."""

from typing import Literal

from groundup.model.config import ModelConfig
from groundup.model.loss import PIECE

__all__ = ["activation_bytes", "training_bytes"]

SCORES_KEPT = 1024  # tokens up to which attention in bf16 on a CPU keeps its weights, T for each query


def activation_bytes(model: ModelConfig, rows: int, precision: str = "fp32", device: str = "cpu") -> int:
    """Returns the bytes kept from the forward for the backward pass, for `rows` windows of the context; good to a quarter.

    Counted for each token of each block: what the two norms and the two layers behind them read (width C each); queries,
    keys and values as they come out, as they are normalised and turned, and the attention's output; the attention's
    weights (T for each head) unless a fused kernel makes them again; what the feed-forward layer's products and
    non-linearity read, of experts the active ones'. Norms work in fp32 whatever the precision.
    """
    size = 2 if precision == "bf16" else 4
    width, inside = model.d_model, model.ff_size * model.active_experts
    queries, keys = model.n_heads * model.head_size, model.kv_heads * model.head_size
    norms = 4 * 2 * width * (2 if precision == "bf16" else 1) + 4 * (queries + keys) * model.qk_norm
    states = 2 * width + (queries + 2 * keys) + queries
    turned = 2 * queries + 2 * keys if model.positions == "rope" else 0
    scores = 0
    if device == "cpu" and (model.dropout or (precision == "bf16" and model.context <= SCORES_KEPT)):
        scores = model.n_heads * model.context * (3 if model.dropout else 1)
    feed_forward = 4 * inside if model.activation == "swiglu" else 2 * inside
    dropped = 2 * width if model.dropout else 0
    # Of experts: the tokens in their order, and the answers twice.
    routed = 3 * width * model.active_experts if model.experts > 1 else 0
    block = norms + size * (states + turned + scores + feed_forward + dropped + routed)
    return rows * model.context * (model.n_layers * block + 8 * width)


def training_bytes(
    model: ModelConfig,
    rows: int,
    precision: str = "fp32",
    optimizer: Literal["adamw", "muon"] = "adamw",
    device: str = "cpu",
) -> dict[str, int]:
    """Returns {"weights", "gradients", "optimizer", "activations", "logits"} in bytes, for `rows` windows at once.

    Weights, gradients and the optimiser's memory are fp32; AdamW keeps two numbers for each weight, Muon one. The logits
    (V for each token, in fp32) are held three times at the peak: themselves, their softmax, its gradient. Beyond a number of
    them a piece is held in place of them all, and the output layer's gradient twice (see groundup.model.loss).
    """
    params = model.params()
    logits, table = rows * model.context * model.vocab_size, model.vocab_size * model.d_model
    whole = logits <= PIECE
    hidden = params - model.vocab_size * model.d_model * (1 if model.tie_embeddings else 2)
    kept = 2 * params - (hidden if optimizer == "muon" else 0)
    copies = 2 * params if precision == "bf16" else 0  # autocast keeps a bf16 copy of the matrices during a step
    return {
        "weights": 4 * params + copies,
        "gradients": 4 * params,
        "optimizer": 4 * kept,
        "activations": activation_bytes(model, rows, precision, device),
        "logits": 3 * 4 * logits if whole else 3 * 4 * PIECE + 2 * 4 * table,
    }
