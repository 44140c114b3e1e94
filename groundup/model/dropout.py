"""Dropout whose random bits cost little on a CPU, where torch's own takes as long as the rest of a small model."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dropout"]

CHUNK = 1 << 17  # numbers that are hashed in the processor's cache, where nothing is compiled


def dropout(x: Tensor, rate: float) -> Tensor:
    """Returns x with a share of `rate` of its numbers set to zero and the others scaled up by as much: the mean stays.

    On a CPU two seeds are drawn from torch's generator, and whether a number stays is read from a hash of its place and of
    these: compiled code works it out again wherever it is needed, in registers, and the same numbers stay as in eager code. On
    other devices it is torch's own. A seed or a saved state of the generator repeats the draws everywhere.

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting". The hash: Wellons
    2018, "Prospecting for hash functions" (lowbias32), a second seed between its rounds.
    """
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    seeds, count = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32), x.numel()
    if torch.compiler.is_compiling():
        kept = _kept(torch.arange(count, dtype=torch.int32), seeds, rate)
    else:
        chunks = [torch.arange(at, min(at + CHUNK, count), dtype=torch.int32) for at in range(0, count, CHUNK)]
        kept = torch.cat([_kept(places, seeds, rate) for places in chunks])
    return x * (kept.view(x.shape) * (1 / (1 - rate))).to(x.dtype)


def _kept(places: Tensor, seeds: Tensor, rate: float) -> Tensor:
    """Returns for each place whether its number stays, (N,) booleans.

    The shifts are of unsigned 32-bit numbers (the sign's copies are masked), the products wrap.
    """
    x = places ^ seeds[0]
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D ^ seeds[1]
    x = (x ^ (x >> 15 & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ (x >> 16 & 0xFFFF) >= round(rate * 2**32) - 2**31
