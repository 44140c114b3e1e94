"""Rotary positions: each pair of a head's numbers is turned by an angle that grows with the token's position."""

import math

import torch
from torch import Tensor

from groundup.model.config import RopeConfig

__all__ = ["rotary_speeds", "rotary_tables", "rotate", "sinusoids"]


def rotary_speeds(rope: RopeConfig, head_dim: int, context: int) -> tuple[Tensor, float]:
    """Returns the angle by which each pair turns from one token to the next, (D/2,) float64, and a factor of cos and sin.

    Unscaled, pair i turns by theta^(-2i/D). To read further than it was trained to, a model may turn its pairs more
    slowly: all of them (linear), or only those that never turned fully in the original context, whose larger angles
    it has never seen, with a blend in between (llama3: by turns; yarn: by the pair's number, and attention sharpened).
    Source: Su et al. 2021, eq. 15; Chen et al. 2023 (linear); Grattafiori et al. 2024 (Llama 3); Peng et al. 2023 (YaRN).
    """
    speed = rope.theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    original = rope.original_context or round(context / rope.factor)
    sharpened = 1.0
    if rope.scaling == "none":
        kept = torch.ones_like(speed)
    elif rope.scaling == "linear":
        kept = torch.zeros_like(speed)
    elif rope.scaling == "llama3":
        turns = original * speed / (2 * math.pi)
        kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    else:

        def pair(turns: float) -> float:
            """Returns the number of the pair that turns so often in the original context, a broken one."""
            return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

        first, last = max(math.floor(pair(rope.beta_fast)), 0), min(math.ceil(pair(rope.beta_slow)), head_dim - 1)
        number = torch.arange(head_dim // 2, dtype=torch.float64)
        kept = 1 - (number - first) / (last - first if last != first else 0.001)
        sharpened = rope.attention_factor or 0.1 * math.log(rope.factor) + 1
    kept = kept.clamp(0, 1)
    return speed * kept + speed / rope.factor * (1 - kept), sharpened


def rotary_tables(context: int, head_dim: int, rope: RopeConfig) -> tuple[Tensor, Tensor]:
    """Returns cosines and signed sines, both (context, D), for `rotate`.

    Pair i is (i, i + D/2), the "half-split" order of Hugging Face. The first half of the sines is negative, so that one
    multiplication serves both halves.
    Source: Su et al. 2021 (RoFormer), eq. 34.
    """
    speed, factor = rotary_speeds(rope, head_dim, context)
    angle = torch.outer(torch.arange(context, dtype=torch.float64), speed)  # (T, D/2)
    cos, sin = (angle.cos() * factor).float(), (angle.sin() * factor).float()
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
