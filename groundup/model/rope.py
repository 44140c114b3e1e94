"""Rotary positions: each pair of a head's numbers is turned by an angle that grows with the token's position."""

import torch
from torch import Tensor

__all__ = ["rotate", "rotary_tables", "sinusoids"]


def rotary_tables(context: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Returns cosines and signed sines, both (context, D), for `rotate`.

    Pair i is (i, i + D/2), the "half-split" order of Hugging Face, and turns by position * theta^(-2i/D). The first half
    of the sines is negative, so that one multiplication serves both halves.
    Source: Su et al. 2021 (RoFormer), eq. 34.
    """
    speed = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(context, dtype=torch.float64), speed)  # (T, D/2)
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns x (..., D) with its pairs turned; `cos` and `sin` are rows of `rotary_tables`, broadcast against x.

    Equal to: groundup.model.plain.rotate
    """
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


def sinusoids(context: int, d_model: int) -> Tensor:
    """Returns the fixed position vectors of 2017, (context, C): sines in even columns, cosines in odd ones.

    Source: Vaswani et al. 2017, section 3.5
    Equal to: groundup.model.plain.sinusoidal_positions
    """
    speed = 10000.0 ** -(torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angle = torch.outer(torch.arange(context, dtype=torch.float64), speed)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
