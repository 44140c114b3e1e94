"""What happens inside a model while it reads: attention maps, the residual stream after each block, the neurons."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from groundup.model.layers import Experts
from groundup.model.transformer import Transformer

__all__ = ["Neurons", "Trace", "attention_weights", "trace"]


class Neurons(NamedTuple):
    """What the neurons of a feed-forward layer did, or those of one expert: tokens are counted through the batch."""

    tokens: Tensor  # (N,): which tokens they read; an expert reads only those that are sent to it
    activations: (
        Tensor  # (N, F): what the narrowing matrix reads; an expert's, times the weight that the router gave it
    )
    matrix: Tensor  # (C, F): the narrowing matrix, a column of which each neuron adds to the stream
    expert: int | None = None


@dataclass
class Trace:
    """The inside of one forward pass; lists go by layer, tensors are float32 on the CPU."""

    attention: list[Tensor] = field(default_factory=list)  # (B, H, T, T): how much each query looked at each key
    residual: list[Tensor] = field(default_factory=list)  # (B, T, C): before the first block, then after each
    neurons: list[list[Neurons]] = field(default_factory=list)  # one of a layer, or one of each expert that had to do
    routes: dict[int, tuple[Tensor, Tensor]] = field(
        default_factory=dict
    )  # layer -> weights and experts, both (B T, K)
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


def _hear(stack: ExitStack, found: Trace, layer: int, mlp: nn.Module) -> None:
    """Notes what a feed-forward layer's neurons do, until the stack is closed."""
    if not isinstance(mlp, Experts):

        def all_tokens(narrow: nn.Module, given: tuple[Tensor, ...]) -> None:
            activations = given[0].flatten(0, -2).float().cpu()
            found.neurons[layer].append(Neurons(torch.arange(len(activations)), activations, _matrix(narrow)))

        stack.callback(mlp.get_submodule("down").register_forward_pre_hook(all_tokens).remove)
        return

    def route(mlp: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(mlp, Experts)
        weights, chosen, _ = mlp.route(given[0].flatten(0, -2))
        found.routes[layer] = weights.float().cpu(), chosen.cpu()

    stack.callback(mlp.register_forward_pre_hook(route).remove)
    for number, expert in enumerate(mlp.experts):

        def its_tokens(narrow: nn.Module, given: tuple[Tensor, ...], number: int = number) -> None:
            weights, chosen = found.routes[layer]
            tokens, place = (chosen == number).nonzero(as_tuple=True)  # in the order in which the expert reads them
            if len(tokens):
                activations = given[0].float().cpu() * weights[tokens, place, None]
                found.neurons[layer].append(Neurons(tokens, activations, _matrix(narrow), number))

        stack.callback(expert.get_submodule("down").register_forward_pre_hook(its_tokens).remove)


def _matrix(linear: nn.Module) -> Tensor:
    """Returns the weights of a linear layer."""
    return linear.get_parameter("weight").detach().float().cpu()


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
            found.neurons.append([])
            _hear(stack, found, layer, block.mlp)  # type: ignore[arg-type]
        stack.enter_context(_fused(model))
        with _Listener(found.attention):
            found.logits = model(tokens.to(next(model.parameters()).device)).float().cpu()
    return found
