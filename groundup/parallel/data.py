"""Data parallelism: each process has the whole model and a share of the batch; their gradients are summed."""

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from groundup.parallel.mesh import World

__all__ = ["sum_gradients", "same_parameters"]

BUCKET_BYTES = 32 * 2**20  # summed in one go: enough to fill a link, little enough to be copied twice


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yields gradients in groups of one dtype and at most a bucket's bytes (or one tensor that is larger)."""
    bucket: list[Tensor] = []
    held = 0
    for gradient in gradients:
        size = gradient.numel() * gradient.element_size()
        if bucket and (held + size > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += size
    if bucket:
        yield bucket


@torch.no_grad()
def sum_gradients(model: nn.Module, world: World) -> None:
    """Replaces each gradient by its sum over all processes; the caller divides by the global count of tokens.

    A sum, not an average of averages: processes may hold different numbers of scored tokens, and each token counts the same.
    Equal to: groundup.parallel.plain.average_gradients
    """
    if world.size == 1:
        return
    for parameter in model.parameters():  # one that a process didn't use still takes part, or the others would wait
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets(p.grad for p in model.parameters() if p.grad is not None):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


@torch.no_grad()
def same_parameters(model: nn.Module, world: World) -> None:
    """Gives every process rank 0's parameters."""
    if world.size > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.data, src=0)
