"""AdamW and Muon in their obvious form: one weight at a time, one formula after another. Imports nothing of groundup."""

import math

import torch
from torch import Tensor

__all__ = ["adamw_step", "ema_step", "muon_step", "orthogonalise"]


def adamw_step(
    weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, lr: float, betas: tuple[float, float],
    eps: float, weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Returns the new weight, and the new running means of the gradient and of its square. `step` counts from 1.

    Source: Loshchilov and Hutter 2019, algorithm 2
    """
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient  # where the gradient has been pointing lately
    square = beta2 * square + (1 - beta2) * gradient**2  # how large it has been lately, weight by weight
    # Both began at zero and are too small at first; the division makes up for that.
    unbiased_mean = mean / (1 - beta1**step)
    unbiased_square = square / (1 - beta2**step)
    # The decay isn't part of the gradient (that is the W of AdamW): otherwise it would be divided too.
    weight = weight - lr * weight_decay * weight
    # A weight whose gradients are steady moves by about lr a step, however small they are.
    weight = weight - lr * unbiased_mean / (torch.sqrt(unbiased_square) + eps)
    return weight, mean, square


def orthogonalise(matrix: Tensor) -> Tensor:
    """Returns a matrix with the same singular vectors and all singular values near 1.

    If M = U S V^T, then aM + b(MM^T)M + c(MM^T)^2M = U (aS + bS^3 + cS^5) V^T: a polynomial of a matrix acts on its
    singular values alone. Applied five times, this one lifts every value between about 0.002 and 1 to near 1.
    Source: Jordan et al. 2024
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)  # now no singular value is above 1
    for _ in range(5):
        x = a * x + b * (x @ x.T) @ x + c * (x @ x.T) @ (x @ x.T) @ x
    return x


def muon_step(
    weight: Tensor, gradient: Tensor, momentum: Tensor, lr: float, beta: float, weight_decay: float
) -> tuple[Tensor, Tensor]:
    """Returns the new weight matrix and the new momentum.

    A gradient matrix is dominated by a few directions; Adam's step mostly repeats those. Making the step orthogonal gives
    the rare directions the same length.
    Source: Jordan et al. 2024
    """
    momentum = beta * momentum + (1 - beta) * gradient
    looking_ahead = beta * momentum + (1 - beta) * gradient  # Nesterov: as if the next momentum were known
    rows, columns = weight.shape
    step = orthogonalise(looking_ahead) * math.sqrt(max(1, rows / columns))
    weight = weight - lr * weight_decay * weight
    return weight - lr * step, momentum


def ema_step(average: Tensor, weight: Tensor, step: int, decay: float) -> Tensor:
    """Returns the new running average of a weight. `step` counts from 0.

    Steps jump to and fro across the valley's floor; their average lies nearer to its middle. At first little of the average stays, for
    it still holds the random weights of the beginning.
    """
    stays = min(decay, (1 + step) / (10 + step))
    return stays * average + (1 - stays) * weight
