"""AdamW with weight decay where it belongs, in torch's fused kernel."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["build", "decay_groups"]


def decay_groups(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float, width_multiple: float = 1.0
) -> list[dict[str, Any]]:
    """Returns the parameter groups: matrices (decayed) and vectors (not), each with its peak rate as `initial_lr`.

    A norm's gain or a bias has no direction to shrink along: pulling it to zero would only weaken the layer.

    With muP, `width_multiple` times wider than where the rate was tuned, the blocks' matrices and the gain before the output
    layer are summed over that many more inputs: their steps are that many times smaller. (Decay is taken out of that, or a
    wide model would hardly decay.) Source: Yang et al. 2022, table 8
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, p in named:
        if p.requires_grad:
            summed = (name.startswith("blocks.") and p.ndim >= 2) or name.startswith("norm.")
            groups.setdefault((p.ndim >= 2, summed and width_multiple != 1), []).append(p)
    made = []
    for (matrix, summed), params in sorted(groups.items(), key=lambda group: (not group[0][0], group[0][1])):
        slower = width_multiple if summed else 1.0
        rate, decay = lr / slower, weight_decay * slower if matrix else 0.0
        made.append({"params": params, "weight_decay": decay, "lr": rate, "initial_lr": rate})
    return made


def build(
    model: nn.Module, lr: float, weight_decay: float = 0.1, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
    width_multiple: float = 1.0,
) -> torch.optim.AdamW:  # fmt: skip
    """Returns AdamW over all of the model's parameters, with decay on matrices only.

    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019. Equal to: groundup.optim.plain.adamw_step
    """
    groups = decay_groups(model.named_parameters(), lr, weight_decay, width_multiple)
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True)
