"""What happens inside a model while it reads: attention maps, the residual stream after each block, the neurons."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from groundup.model.transformer import Transformer

__all__ = ["Trace", "attention_weights", "trace"]


@dataclass
class Trace:
    """The inside of one forward pass; lists go by layer, tensors are float32 on the CPU."""

    attention: list[Tensor] = field(default_factory=list)  # (B, H, T, T): how much each query looked at each key
    residual: list[Tensor] = field(default_factory=list)  # (B, T, C): before the first block, then after each
    neurons: dict[int, Tensor] = field(default_factory=dict)  # layer -> (B, T, F): what the narrowing matrix reads
    logits: Tensor = field(default_factory=lambda: torch.empty(0))  # (B, T, V)


def attention_weights(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Returns the weights (B, H, T, S) with which PyTorch's fused attention, called like this, averages the values."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query.float() @ key.float().transpose(-1, -2) * (scale or 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        scores = scores.masked_fill(
            ~torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(), -math.inf
        )
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1)


class _Listener(TorchFunctionMode):
    """Listens in on every call of the fused attention, which itself never shows its weights."""

    def __init__(self, heard: list[Tensor]) -> None:
        super().__init__()
        self.heard = heard

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.heard.append(attention_weights(*args, **(kwargs or {})).cpu())
        return func(*args, **(kwargs or {}))


@contextmanager
def _fused(model: Transformer) -> Iterator[None]:
    """Makes the model use the fused attention for a while."""
    usual, model.implementation = model.implementation, "sdpa"
    try:
        yield
    finally:
        model.implementation = usual


@torch.no_grad()
def trace(model: Transformer, tokens: Tensor) -> Trace:
    """Returns what happened inside the model, as it is, while it read the tokens (B, T)."""
    found = Trace()

    def keep(x: Tensor) -> None:
        found.residual.append(x.float().cpu())

    with ExitStack() as stack:
        for layer, block in enumerate(model.blocks):
            if layer == 0:
                stack.callback(block.register_forward_pre_hook(lambda _, given: keep(given[0])).remove)
            stack.callback(block.register_forward_hook(lambda _, __, made: keep(made)).remove)
            if (narrow := getattr(getattr(block, "mlp", None), "down", None)) is not None:

                def hear(_: Any, given: tuple[Tensor, ...], layer: int = layer) -> None:
                    found.neurons[layer] = given[0].float().cpu()

                stack.callback(narrow.register_forward_pre_hook(hear).remove)
        stack.enter_context(_fused(model))
        with _Listener(found.attention):
            found.logits = model(tokens.to(next(model.parameters()).device)).float().cpu()
    return found
