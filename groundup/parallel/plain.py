"""Parallel training in its obvious form, after Megatron: every process runs this same code. Nothing of groundup.

Start several processes with `torchrun --nproc_per_node=2 file.py` and call `torch.distributed.init_process_group("gloo")`.
Two ways to share the work: each process takes a part of the batch (data parallel), or a part of every matrix (tensor
parallel).
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ColumnParallelLinear", "CopyToAll", "ParallelFeedForward", "RowParallelLinear", "SumOverAll", "average_gradients",
           "my_share"]  # fmt: skip


def my_share(tensor: Tensor, dim: int = 0) -> Tensor:
    """Returns this process's equal part of a tensor along a dimension."""
    return tensor.chunk(dist.get_world_size(), dim)[dist.get_rank()]


def average_gradients(model: nn.Module, count: int) -> None:
    """Replaces each gradient of a summed loss by its mean over all tokens of all processes.

    `count` is the number of tokens that this process scored. Adding up first and dividing once makes the result the same as
    that of a single process with the whole batch, even if the shares are unequal.
    """
    total = torch.tensor(float(count))
    dist.all_reduce(total)  # now every process holds the sum
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= total


class CopyToAll(torch.autograd.Function):
    """Megatron's f: forward nothing happens; backward the gradients of all processes are added.

    Every process has used the same x for its own part of a product, so x is responsible for all the parts.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Returns x."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Returns the sum of the gradients."""
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class SumOverAll(torch.autograd.Function):
    """Megatron's g: forward the processes' results are added; backward nothing happens.

    The derivative of a sum by each of its terms is one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Returns the sum over all processes."""
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Returns the gradient."""
        return gradient


class ColumnParallelLinear(nn.Module):
    """A linear layer of which each process computes some of the outputs: y = x W^T, W cut along its outputs.

    (The name is Megatron's, who write y = x A with A = W^T and cut A's columns.)
    """

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(my_share(whole.weight.detach(), 0).clone())  # (outputs / processes, inputs)
        self.bias = None if whole.bias is None else nn.Parameter(my_share(whole.bias.detach(), 0).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Returns this process's part of the outputs: (..., inputs) -> (..., outputs / processes)."""
        return F.linear(CopyToAll.apply(x), self.weight, self.bias)


class RowParallelLinear(nn.Module):
    """A linear layer of which each process has some of the inputs; its result is a term of the sum that is the output."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(my_share(whole.weight.detach(), 1).clone())  # (outputs, inputs / processes)
        self.bias = None if whole.bias is None else nn.Parameter(whole.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Returns the whole outputs, on every process: (..., inputs / processes) -> (..., outputs)."""
        y = SumOverAll.apply(F.linear(x, self.weight))
        return y if self.bias is None else y + self.bias  # after the sum, or it would be added once for each process


class ParallelFeedForward(nn.Module):
    """A feed-forward layer on several processes: one sum forward and one backward, however wide it is.

    The outputs that a process has of the first layer are the very inputs that it needs for the second, and the
    non-linearity between them works on each number alone.
    Source: Shoeybi et al. 2019, section 3
    """

    def __init__(self, up: nn.Linear, down: nn.Linear) -> None:
        super().__init__()
        self.up, self.down = ColumnParallelLinear(up), RowParallelLinear(down)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., C)."""
        return self.down(F.gelu(self.up(x)))
