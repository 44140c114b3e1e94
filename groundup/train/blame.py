"""Where a number stopped being finite: asked once, after it has happened, so that healthy steps pay nothing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.base.runs import Run, latest_checkpoint
from groundup.train.config import LoopConfig

__all__ = ["first_nonfinite", "hopeless"]


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


def hopeless(run: Run, config: LoopConfig, step: int, in_row: int) -> str:
    """Returns what to say when a step that isn't finite ends a run: where it began, and the remedies as they can be typed."""
    rows = [row for row in run.metrics() if "nonfinite" in row]
    what, layer = (rows[-1]["nonfinite"], rows[-1]["layer"]) if rows else ("loss", "")
    often, where = f", {in_row} times in a row" if in_row > 1 else "", f", beginning in {layer}" if layer else ""
    saved = latest_checkpoint(run.path)
    change = f", add --allow-change train.lr to go on from {saved.name} (or --fresh)" if saved else ""
    return (
        f"step {step}: the {what} isn't finite{often}{where}; lower train.lr (now {config.lr:g}) or raise train.warmup "
        f"(now {config.warmup:g}){change} and run the same command again"
    )
