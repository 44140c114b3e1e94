"""Dropout whose random bits cost little on a CPU, where torch's own takes as long as the rest of a small model."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dropout"]

STEPS = 256  # a byte decides over each activation


def dropout(x: Tensor, rate: float) -> Tensor:
    """Returns x with a share of `rate` of its numbers set to zero and the others scaled up by as much: the mean stays.

    On a CPU the rate is rounded to 256ths (0.1 is 26/256), because a byte is drawn for each number, eight at once: a tenth of
    the time of torch's Bernoulli draws. On other devices it is torch's own. The generator is torch's in both, so that a seed
    or a saved state repeats the draws.

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    scales = _compiled_scales if torch.compiler.is_compiling() else _scales
    return x * scales(x.detach(), rate)


def _scales(x: Tensor, rate: float) -> Tensor:
    """Returns zeros and 1 / (1 - rate), in the shape and type of x."""
    dropped = min(max(round(rate * STEPS), 1), STEPS - 1)
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    drawn = draws.view(torch.uint8)[: x.numel()].view(x.shape)
    return (drawn >= dropped).to(x.dtype).mul_(STEPS / (STEPS - dropped))


# The compiler sees one operation here: its own random numbers on a CPU are slower still.
_compiled_scales = torch.library.custom_op("groundup::dropout_scales", _scales, mutates_args=())
_compiled_scales.register_fake(lambda x, rate: torch.empty_like(x, memory_format=torch.contiguous_format))
