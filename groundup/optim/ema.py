"""A running average of the weights: it forgets the noise of the last steps, and so is often better than any single step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Keeps the average of a model's parameters: each step a share `decay` of it stays, the rest comes from the weights.

    Early on, when the average holds little, less of it stays: (1 + n) / (10 + n) after n steps, so that it isn't held back by the
    random weights of the beginning. Equal to: groundup.optim.plain.ema_step
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        assert 0 <= decay < 1, decay
        self.decay, self.named = decay, dict(model.named_parameters())
        self.tensors = {name: p.detach().clone() for name, p in self.named.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Moves the average towards the weights as they are after `steps` earlier steps."""
        stays = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self.tensors.values()), list(self.named.values()), 1 - stays)

    @torch.no_grad()
    def exchange(self) -> None:
        """Puts the average into the model and the model's weights here; twice changes nothing."""
        for name, parameter in self.named.items():
            kept = parameter.clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)

    @contextmanager
    def inside(self, model: nn.Module) -> Iterator[nn.Module]:
        """Yields the model with the average as its weights."""
        self.exchange()
        try:
            yield model
        finally:
            self.exchange()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes the average from named tensors."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
