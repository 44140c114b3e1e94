"""The figures of a run: what is averaged between two rows of metrics.jsonl, rates, memory."""

import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

__all__ = ["MemoryMeter", "Window", "gradient_norms", "parameter_hash"]


@dataclass
class Window:
    """What has happened since the last row: sums of loss and of the loss function's own metrics, tokens, seconds."""

    loss: float = 0.0
    count: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    extra: dict[str, float] = field(default_factory=dict)

    def add(self, loss: float, count: float, tokens: float, seconds: float, extra: Mapping[str, float]) -> None:
        """Adds a step: its summed loss over `count` scored tokens, the tokens read, and its other metrics that are finite."""
        self.loss, self.count, self.tokens = self.loss + loss, self.count + count, self.tokens + tokens
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1
        for key, value in extra.items():
            if math.isfinite(value):
                self.extra[key] = self.extra.get(key, 0.0) + float(value)

    def row(self) -> dict[str, float]:
        """Returns {"loss", "tokens_per_s", ...}: the loss per scored token (NaN if there is none), the other metrics per step."""
        loss = self.loss / self.count if self.count else math.nan
        rates = {"loss": loss, "tokens_per_s": self.tokens / max(self.seconds, 1e-9)}
        return rates | {key: value / self.steps for key, value in self.extra.items()}


class MemoryMeter:
    """The most memory that the work since the meter's creation has held, beyond what was held before it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: lets the peak begin anew
        except OSError:
            pass
        self.before = _status_bytes("VmRSS") or _peak_bytes()

    def bytes(self) -> int:
        """Returns the peak in bytes: of the device's memory, or of this process's resident memory."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, (_status_bytes("VmHWM") or _peak_bytes()) - self.before)


def _status_bytes(key: str) -> int:
    """Returns a figure of Linux's account of this process, or 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(key + ":")), 0)


def _peak_bytes() -> int:
    """Returns the process's peak since its start (0 on Windows, which doesn't tell)."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@torch.no_grad()
def gradient_norms(model: nn.Module, count: float) -> dict[str, float]:
    """Returns {"grad_norm.embed", "grad_norm.blocks.0", ...}: the norm of each layer's gradient, divided by `count`."""
    layers: dict[str, list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            first, _, rest = name.partition(".")
            layer = f"{first}.{rest.partition('.')[0]}" if first == "blocks" else first
            layers.setdefault(layer, []).append(parameter.grad)
    norms = torch.stack([torch.nn.utils.get_total_norm(gradients) for gradients in layers.values()]) / count
    return {f"grad_norm.{layer}": norm for layer, norm in zip(layers, norms.tolist(), strict=True)}


def parameter_hash(model: nn.Module) -> str:
    """Returns 16 hex digits of all parameters' bits: equal losses can hide different parameters, this can't."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
