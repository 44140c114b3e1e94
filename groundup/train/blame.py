"""Where a number stopped being finite: asked once, after it has happened, so that healthy steps pay nothing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["first_nonfinite"]


def _tensors(value: Any) -> list[Tensor]:
    """Returns the tensors of a module's output."""
    if isinstance(value, Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, (tuple, list)) else []


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)


@torch.no_grad()
def first_nonfinite(model: nn.Module, forward: Callable[[], object]) -> str:
    """Returns the name of the layer where infinity or NaN begins ("blocks.2.mlp.down"), or "" if all is finite.

    A weight that is bad itself is named first; then the first module of the forward pass with finite inputs and a bad
    output; then, as the backward pass goes from the last layer to the first, the last layer with a bad gradient.
    `forward` runs the model on the step's batch once more.
    """
    for name, parameter in model.named_parameters():
        if not _finite([parameter]):
            return name
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and _finite(_tensors(inputs)) and not _finite(_tensors(output)):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(watch(name or "the output layer")) for name, module in model.named_modules()]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    graded = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    bad = [name for name, gradient in graded if not _finite([gradient])]
    return bad[-1] if bad else ""
