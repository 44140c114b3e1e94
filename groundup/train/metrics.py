"""The figures of a run: what is averaged between two rows of metrics.jsonl, rates, memory."""

import hashlib
import sys
from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["Window", "parameter_hash", "peak_memory_bytes"]


class Window:
    """What has happened since the last row: sums of loss and of the loss function's own metrics, tokens, seconds."""

    def __init__(self) -> None:
        self.loss = self.count = self.tokens = self.seconds = 0.0
        self.steps = 0
        self.extra: dict[str, float] = {}

    def add(self, loss: float, count: float, tokens: float, seconds: float, extra: Mapping[str, float]) -> None:
        """Adds a step: its summed loss over `count` scored tokens, the tokens read, and its other metrics."""
        self.loss, self.count, self.tokens = self.loss + loss, self.count + count, self.tokens + tokens
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1
        for key, value in extra.items():
            self.extra[key] = self.extra.get(key, 0.0) + float(value)

    def row(self) -> dict[str, float]:
        """Returns {"loss", "tokens_per_s", ...}: the loss per scored token, the other metrics per step."""
        rates = {"loss": self.loss / max(self.count, 1), "tokens_per_s": self.tokens / max(self.seconds, 1e-9)}
        return rates | {key: value / self.steps for key, value in self.extra.items()}


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most memory held so far: the device's, or on a CPU the process's resident memory (0 where it isn't told)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parameter_hash(model: nn.Module) -> str:
    """Returns 16 hex digits of all parameters' bits: equal losses can hide different parameters, this can't."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
