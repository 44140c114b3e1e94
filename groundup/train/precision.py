"""In what precision to compute, and how fast this machine multiplies matrices."""

import contextlib
from functools import lru_cache

import torch

from groundup.base.files import read_json, write_json
from groundup.base.runs import Run
from groundup.parallel.mesh import World, set_threads
from groundup.plan.cost import best_time, faster_precision

__all__ = ["autocast", "peak_flops", "resolve", "resolve_once", "set_threads"]


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Returns the context in which matrix products run in bf16; for fp32, one that does nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def resolve(precision: str, device: torch.device, rows: int, width: int) -> str:
    """Returns "fp32" or "bf16": what was asked for; for "auto" the faster one for `rows` tokens of a model of that width."""
    return faster_precision(device, rows, width) if precision == "auto" else precision


def resolve_once(precision: str, run: Run, here: World, rows: int, width: int) -> str:
    """Returns `resolve`'s answer as it was given when the run began: a resumed run must not decide anew (resolved.json).

    Says so if threads or device are no longer those of the beginning: the run goes on, but not bit for bit.
    """
    file = run.path / "resolved.json"
    now = {"threads": torch.get_num_threads(), "device": here.device.type}
    if here.main and not file.exists():
        write_json(file, {"precision": resolve(precision, here.device, rows, width), **now})
    if not here.main:
        return here.share(None)
    then = read_json(file)
    for key, value in now.items():
        if then[key] != value:
            run.log(f"{key}: {then[key]} when the run began, {value} now; it continues, with other roundings")
    return here.share(then["precision"])


@lru_cache
def peak_flops(precision: str, device: torch.device) -> float:
    """Returns the floating-point operations a second of a large matrix product here: what MFU is a share of."""
    n = 4096 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / best_time(lambda: a @ a, device, 0.1)
