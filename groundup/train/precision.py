"""In what precision to compute, with how many threads, and how fast this machine multiplies matrices."""

import contextlib
import os
import time
from collections.abc import Callable
from functools import lru_cache

import torch

__all__ = ["autocast", "best_time", "peak_flops", "resolve", "set_threads"]


def set_threads(threads: int) -> int:
    """Returns the number of CPU threads that torch now uses; 0 asks for all that this process may use (or OMP_NUM_THREADS).

    The last bits of a sum depend on how it is shared among threads, so a resumed run asks for the same number.
    """
    if threads <= 0:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = int(os.environ.get("OMP_NUM_THREADS") or allowed)
    torch.set_num_threads(threads)
    return threads


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Returns the context in which matrix products run in bf16; for fp32, one that does nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def best_time(work: Callable[[], object], device: torch.device, seconds: float = 0.02) -> float:
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


def _wait(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _product(rows: int, width: int, columns: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """Returns the work of a linear layer: weights kept in fp32, cast to `dtype` as autocast does, and multiplied."""
    x = torch.randn(rows, width, device=device, dtype=dtype)
    weight = torch.randn(columns, width, device=device)
    return lambda: torch.nn.functional.linear(x, weight.to(dtype))


def resolve(precision: str, device: torch.device, rows: int, width: int) -> str:
    """Returns "fp32" or "bf16": what was asked for, or for "auto" the faster one for this model's matrix products.

    On a GPU that knows bf16 it is bf16 without a race. On a CPU some have instructions for it and some only imitate it, at a
    fraction of the speed; a product of `rows` tokens with a matrix (4 width, width) is timed in both, some milliseconds.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    rows = min(rows, 4096)
    full = best_time(_product(rows, width, 4 * width, torch.float32, device), device)
    half = best_time(_product(rows, width, 4 * width, torch.bfloat16, device), device)
    return "bf16" if half < 0.8 * full else "fp32"  # the casts around the products cost something too


@lru_cache
def peak_flops(precision: str, device: torch.device) -> float:
    """Returns the floating-point operations a second of a large matrix product here: what MFU is a share of."""
    n = 4096 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / best_time(lambda: a @ a, device, 0.1)
