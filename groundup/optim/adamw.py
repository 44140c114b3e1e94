"""AdamW with weight decay where it belongs, in torch's fused kernel."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["build", "decay_groups"]


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Returns two parameter groups: matrices (decayed) and vectors (not), each with its peak rate as `initial_lr`.

    A norm's gain or a bias has no direction to shrink along: pulling it to zero would only weaken the layer.
    """
    parameters = [p for _, p in named if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group | {"lr": lr, "initial_lr": lr} for group in groups if group["params"]]


def build(
    model: nn.Module, lr: float, weight_decay: float = 0.1, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8
) -> torch.optim.AdamW:
    """Returns AdamW over all of the model's parameters, with decay on matrices only.

    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019. Equal to: groundup.optim.plain.adamw_step
    """
    return torch.optim.AdamW(decay_groups(model.named_parameters(), lr, weight_decay), betas=betas, eps=eps, fused=True)
