"""What training costs: floating-point operations by counting, seconds by trying it on this machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.config import load_toml
from groundup.model.config import ModelConfig

if TYPE_CHECKING:  # torch is loaded when something is timed, not when a plan's config is read
    import torch

__all__ = ["best_time", "faster_precision", "hardware", "muon_flops", "seconds_per_step", "seconds_to_read", "shape"]

HEAD = 64  # width of a head in the shapes that the planner proposes
PATIENCE = 10  # times the seconds asked for: a first step beyond that isn't followed by a second
TIMED_TOKENS = 8192  # of a step that is timed; a larger one is taken in proportion


def shape(width: int, like: ModelConfig) -> ModelConfig:
    """Returns a model of that width with a depth in proportion, and the family, context and vocabulary of `like`.

    About one block for each 64 of width, half as many again where that is few: the proportions of GPT-2 and its successors.
    """
    heads = max(2, width // HEAD) if width >= 4 * HEAD else max(2, width // (HEAD // 2))
    layers = max(2, round(width / HEAD * (1.0 if width >= 6 * HEAD else 1.5)))
    return replace(like, d_model=width, n_layers=layers, n_heads=heads, n_kv_heads=0, d_ff=0, head_dim=0)


def muon_flops(model: ModelConfig) -> float:
    """Returns the operations that Muon adds to a step: five rounds of three products for each hidden matrix."""
    queries, keys, width = model.n_heads * model.head_size, model.kv_heads * model.head_size, model.d_model
    matrices = [(queries, width), (keys, width), (keys, width), (width, queries)]
    expert = [(width, model.ff_size)] + [(model.ff_size, width)] * (2 if model.activation == "swiglu" else 1)
    matrices += expert * model.experts
    sides = [sorted(matrix) for matrix in matrices]
    return model.n_layers * sum(5.0 * (4 * short**2 * long + 2 * short**3) for short, long in sides)


def hardware() -> list[dict[str, Any]]:
    """Returns the devices of hardware.toml: {"name", "tflops", "memory_gb", "mfu"}."""
    return load_toml(Path(__file__).parent / "hardware.toml")["device"]


def _wait(device: "torch.device") -> None:
    """Waits until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def best_time(work: Callable[[], object], device: "torch.device", seconds: float = 0.02) -> float:
    """Returns the shortest seconds that `work` took in repeats over about `seconds` (at least 3), after one to warm up."""
    times: list[float] = []
    work()
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def faster_precision(device: "torch.device", rows: int, width: int) -> str:
    """Returns "fp32" or "bf16", whichever makes the matrix products of a model of that width faster here.

    On a GPU that knows bf16 it is bf16 without a race. Some CPUs have instructions for it, others only imitate it at a
    fraction of the speed; so a linear layer of `rows` tokens is timed in both, some milliseconds. Its weight is kept in fp32
    and cast, as autocast does.
    """
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    rows, width = min(rows, 512), min(width, 256)  # larger ones say the same, and take long where bf16 is imitated
    x, weight = torch.randn(rows, width), torch.randn(4 * width, width)
    times = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        cast = x.to(dtype)
        times[name] = best_time(lambda cast=cast, dtype=dtype: cast @ weight.to(dtype).T, device)  # type: ignore[misc]
    return "bf16" if times["bf16"] < 0.8 * times["fp32"] else "fp32"  # what lies between the products gains less


def seconds_per_step(
    model: ModelConfig, rows: int, device: "torch.device", precision: str = "fp32", seconds: float = 1.0
) -> float:
    """Returns the median seconds of a training step on this machine: random tokens, AdamW, clipping, everything.

    One step warms up, and may take several times as long as the next; then steps are timed until `seconds` have passed.
    A step of more rows than fill the cores is taken in proportion.
    """
    import torch

    from groundup.model.transformer import Transformer

    network = Transformer(model, seed=0).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    timed = min(rows, max(1, TIMED_TOKENS // model.context))
    tokens = torch.randint(0, model.vocab_size, (timed, model.context + 1), device=device)

    def step() -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = network.loss(tokens[:, :-1], tokens[:, 1:])[0] / (timed * model.context)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        return time.perf_counter() - start

    first = step()
    if first > PATIENCE * seconds:
        return first * rows / timed
    times, end = [step()], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(step())
    return statistics.median(times) * rows / timed


def seconds_to_read(model: ModelConfig, tokens: int, device: "torch.device") -> float:
    """Returns the seconds in which the model reads that many tokens here without learning from them, in 32-bit.

    One batch of a few thousand is timed, and the rest taken in proportion.
    """
    import torch

    from groundup.model.transformer import Transformer

    network = Transformer(model, seed=0).to(device).eval()
    rows = max(1, min(tokens, TIMED_TOKENS) // model.context)
    batch = torch.randint(0, model.vocab_size, (rows, model.context), device=device)
    with torch.inference_mode():
        return best_time(lambda: network.loss(batch, batch), device) * tokens / batch.numel()
