"""Dropout whose random bits cost little on a CPU, where torch's own takes as long as the rest of a small model."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dropout"]

CHUNK = 1 << 18  # numbers that are hashed in the processor's cache, where nothing is compiled


def dropout(x: Tensor, rate: float) -> Tensor:
    """Returns x with a share of `rate` of its numbers set to zero and the others scaled up by as much: the mean stays.

    On a CPU two seeds are drawn from torch's generator, and whether a number stays is read from a hash of its place and of
    these: compiled code works it out again wherever it is needed, in registers, and the same numbers stay as in eager code. On
    other devices it is torch's own. A seed or a saved state of the generator repeats the draws everywhere.

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting". The hash: Wellons
    2018, "Prospecting for hash functions" (lowbias32), a second seed between its rounds.
    """
    if x.device.type != "cpu" or x.numel() >= 1 << 31:  # places are 32-bit numbers
        return F.dropout(x, rate)
    seeds, count = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32), x.numel()
    if torch.compiler.is_compiling():
        return x * _scales(torch.arange(count, dtype=torch.int32), seeds, rate).view(x.shape).to(x.dtype)
    scales, places = x.new_empty(count), torch.arange(min(CHUNK, count), dtype=torch.int32)
    for at in range(0, count, CHUNK):
        part = scales[at : at + CHUNK]
        part.copy_(_scales(places[: len(part)] + at, seeds, rate))
    return x * scales.view(x.shape)


def _scales(x: Tensor, seeds: Tensor, rate: float) -> Tensor:
    """Returns for each place in x, which it overwrites, zero or 1 / (1 - rate), (N,) float32.

    The shifts are of unsigned 32-bit numbers (the sign's copies are masked), the products wrap.
    """
    x ^= seeds[0]
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= seeds[1]
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return (x >= round(rate * 2**32) - 2**31) * (1 / (1 - rate))
