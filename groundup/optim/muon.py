"""Muon for the hidden matrices: momentum whose singular values are all made one, so that every direction is learned."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.model.layers import Block, FeedForward
from groundup.model.transformer import Transformer
from groundup.optim.adamw import decay_groups

__all__ = ["Muon", "build", "hidden_matrices", "orthogonalise"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; chosen by its author for speed near zero
ITERATIONS = 5
EPSILON = 1e-7


def orthogonalise(gradient: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Returns the matrices (..., m, n) with their singular values brought to about 1 (between 0.7 and 1.2).

    Five rounds of a Newton-Schulz iteration in `dtype`: matrix products alone, where an exact decomposition would cost
    many times a training step. Source: Jordan et al. 2024. Equal to: groundup.optim.plain.orthogonalise
    """
    a, b, c = COEFFICIENTS
    x = gradient.to(dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + EPSILON)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, for matrices given as (parameter, rows of each matrix stacked in it).

    A fused q, k, v is three matrices and each is made orthogonal for itself. Matrices of one shape are worked on together.
    A tall one is scaled by sqrt(rows / columns), so that a rate suits every shape.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Equal to: groundup.optim.plain.muon_step
    """

    def __init__(
        self, matrices: Sequence[tuple[nn.Parameter, tuple[int, ...]]], lr: float = 0.02, momentum: float = 0.95,
        weight_decay: float = 0.0, dtype: torch.dtype = torch.bfloat16,
    ) -> None:  # fmt: skip
        for parameter, rows in matrices:
            assert parameter.ndim == 2, f"Muon is for matrices, not for shape {tuple(parameter.shape)}"
            assert sum(rows) == parameter.shape[0], (tuple(parameter.shape), rows)
        self.rows, self.dtype = dict(matrices), dtype
        defaults = {"lr": lr, "initial_lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([parameter for parameter, _ in matrices], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes one step by the gradients."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            updates = [self._momentum(p, group["momentum"]) for p in params]
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p, update in zip(params, updates, strict=True):
                for matrix in update.split(self.rows[p]):
                    shapes.setdefault(matrix.shape, []).append(matrix)
            for (rows, columns), matrices in shapes.items():
                scale = math.sqrt(max(1.0, rows / columns))
                for matrix, changed in zip(matrices, orthogonalise(torch.stack(matrices), self.dtype), strict=True):
                    matrix.copy_(changed * scale)  # a view of its update
            for p, update in zip(params, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _momentum(self, p: nn.Parameter, beta: float) -> Tensor:
        """Updates the momentum of a parameter; returns it as Nesterov looks ahead."""
        assert p.grad is not None
        if "momentum" not in self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        momentum = self.state[p]["momentum"].lerp_(p.grad, 1 - beta)
        return p.grad.lerp(momentum, beta)


def hidden_matrices(model: Transformer) -> list[tuple[nn.Parameter, tuple[int, ...]]]:
    """Returns the weights of the blocks' linear layers, each with the rows of the matrices stacked in it.

    Not the embeddings and the output layer: their rows are looked up or compared one by one, and Adam suits them better.
    """
    config = model.config
    found: list[tuple[Tensor, tuple[int, ...]]] = []
    query, key = config.n_heads * config.head_size, config.kv_heads * config.head_size
    up = (config.ff_size, config.ff_size) if config.activation == "swiglu" else (config.ff_size,)
    for block in model.blocks:
        assert isinstance(block, Block)
        found += [(block.attn.qkv.weight, (query, key, key)), (block.attn.out.weight, (config.d_model,))]
        for layer in (part for part in block.modules() if isinstance(part, FeedForward)):  # one, or the experts
            found += [(layer.up.weight, up), (layer.down.weight, (config.d_model,))]
    return [(weight, rows) for weight, rows in found if isinstance(weight, nn.Parameter)]


def build(
    model: Transformer, lr: float, muon_lr: float = 0.02, weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8, dtype: torch.dtype = torch.bfloat16,
) -> list[torch.optim.Optimizer]:  # fmt: skip
    """Returns [Muon over the hidden matrices at `muon_lr`, AdamW over the rest at `lr` (undecayed)].

    Muon's steps have the same effect at every width; of muP it needs only what concerns the rest.
    """
    hidden = hidden_matrices(model)
    chosen = {id(p) for p, _ in hidden}
    others = ((n, p) for n, p in model.named_parameters() if id(p) not in chosen)
    rest = decay_groups(others, lr, 0.0, model.config.width_multiple)
    return [
        Muon(hidden, muon_lr, weight_decay=weight_decay, dtype=dtype),
        torch.optim.AdamW(rest, betas=betas, eps=eps, fused=True),
    ]
