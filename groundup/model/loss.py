"""The loss of a large vocabulary in pieces: its logits, many times the size of the model, never stand all at once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["IGNORED", "output_loss", "widened"]

IGNORED = -100  # the target of a token that isn't scored
PIECE = 1 << 24  # logits that stand at once; fewer are taken in one piece, by torch's own loss


def output_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float = 0.0, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns the summed negative log-likelihood of the targets with the z-loss, and the same without it (and without a gradient).

    Shapes: hidden (N, C), what the output layer reads; weight (V, C); targets (N,), IGNORED where none is scored. The z-loss is
    z_loss * log(Z)^2 summed over the scored tokens, where Z is the sum that the softmax divides by.

    Beyond PIECE logits, the gradients of hidden and weight are worked out with the loss, piece after piece in the same memory:
    a CPU spends more on fetching fresh memory for 8,192 tokens' logits of 32,000 each than on all else of a small model's step.
    Source: Hsu et al. 2024, "Liger Kernel" (fused linear cross-entropy); Chowdhery et al. 2022 (PaLM), section 5 (z-loss).
    Equal to: groundup.train.plain.next_token_loss, z_loss
    """
    if len(hidden) * len(weight) > PIECE:
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        return _Pieces.apply(hidden, weight, targets, softcap, z_loss, torch.is_grad_enabled())  # type: ignore[no-any-return]
    logits = widened(F.linear(hidden, weight), softcap)
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    penalty = z_loss * logits.logsumexp(-1).square()[targets != IGNORED].sum() if z_loss else 0.0
    return nats + penalty, nats.detach()


def widened(logits: Tensor, softcap: float = 0.0) -> Tensor:
    """Returns the logits in float32 (a float64 model's stay wider), bent so that none exceeds `softcap` (0: no bound)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.tanh(logits / softcap) * softcap if softcap else logits


class _Pieces(torch.autograd.Function):
    """Both losses, and the gradients of the first in the same pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, z_loss: float, learning: bool
    ) -> tuple[Tensor, Tensor]:
        matrix, most = weight.to(hidden.dtype), max(1, PIECE // len(weight))
        raw = hidden.new_empty(most, len(weight))
        wide = raw.new_empty(raw.shape, dtype=torch.promote_types(raw.dtype, torch.float32))
        sure, total, nats = torch.empty_like(wide), wide.new_zeros(()), wide.new_zeros(())
        d_hidden = torch.empty_like(hidden)
        d_weight, product = torch.zeros_like(weight), torch.empty_like(matrix)
        for x, y, dx in zip(hidden.split(most), targets.split(most), d_hidden.split(most), strict=True):
            low, logits, logprobs = raw[: len(x)], wide[: len(x)], sure[: len(x)]
            logits.copy_(torch.mm(x, matrix.T, out=low))
            if softcap:
                logits.div_(softcap).tanh_().mul_(softcap)
            scored, place = (y != IGNORED).unsqueeze(1), y.clamp(min=0).unsqueeze(1)
            torch.log_softmax(logits, -1, out=logprobs)
            said = logprobs.gather(1, place)
            log_z = logits.gather(1, place) - said
            nats -= said[scored].sum()
            total += z_loss * log_z[scored].square().sum()
            if learning:
                slopes = logprobs.exp_().mul_((1 + 2 * z_loss * log_z) * scored)
                slopes.scatter_add_(1, place, -scored.to(slopes.dtype))
                if softcap:
                    slopes.mul_(1 - logits.div_(softcap).square_())
                torch.mm(low.copy_(slopes), matrix, out=dx)
                d_weight.add_(torch.mm(low.T, x, out=product))
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(nats)
        return total + nats, nats

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * slope.to(d_hidden.dtype), d_weight * slope.to(d_weight.dtype), None, None, None, None
