"""Whether to compile the model's blocks, decided once in a run: compiling takes its time and only a long run repays it."""

import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from groundup.base.errors import ConfigError
from groundup.base.files import read_json, write_json
from groundup.base.log import duration
from groundup.base.runs import Run
from groundup.model.transformer import Transformer
from groundup.parallel.mesh import World

__all__ = ["as_written", "choose", "compile_blocks", "worth_it"]

COST_S = 60.0  # of compiling one block, forward and backward, where nothing is cached (20 to 60 s on two CPU cores)
GAIN = 0.15  # the share of a step that it saved at least (10.7M parameters in bf16, two CPU cores)
SAFETY = 2.0  # the gain must repay the cost so many times, as neither is known before
SLOWEST = (
    0.02  # of the machine's rate of matrix products: what any model reaches (19% at 0.9M parameters, two CPU cores)
)


def worth_it(run_s: float) -> bool:
    """Returns whether a run that would take so many seconds without compiling is long enough (above 13 minutes)."""
    return run_s * GAIN > SAFETY * COST_S


def choose(
    choice: str,
    model: Transformer,
    step: Callable[[], object],
    steps: int,
    run: Run,
    here: World,
    at_peak_s: float = math.inf,
) -> bool:
    """Returns whether the run is compiled, having compiled the blocks if so; `step` computes a step's gradients, and changes nothing.

    For "auto" a short run isn't, and a long one is if its compiled step turns out to be faster; the answer is kept in resolved.json, so
    that a resumed run has the same. `at_peak_s`: the run's seconds if it were all matrix products at their best rate; where
    fifty times that is short, nothing is timed, and the run costs what it costs with "off". Raises: ConfigError if "on" can't be.
    """
    file, found = run.path / "resolved.json", None
    if here.main:
        resolved = read_json(file) if file.exists() else {}
        if choice == "auto" and "compile" in resolved:
            found = resolved["compile"]
        else:
            auto = choice == "auto" and worth_it(at_peak_s / SLOWEST)
            found = choice == "on" or (auto and _auto(model, step, steps, run, here))
            write_json(file, resolved | {"compile": found})
    found = here.share(found)
    if found and not _compiled(model):
        if why := _impossible(model, here.device):
            raise ConfigError(f"train.compile: {why}; use --train.compile off")
        compile_blocks(model, here.device)
    return found


def _auto(model: Transformer, step: Callable[[], object], steps: int, run: Run, here: World) -> bool:
    """Returns whether compiling pays, by timing a step as it is and, for a long run, one that is compiled."""
    started = time.perf_counter()
    step()  # a first step takes longer than others: if the run is short by it, it is short
    if not worth_it(steps * (time.perf_counter() - started)) or not worth_it(steps * (eager_s := _seconds(step))):
        return False
    if why := _impossible(model, here.device):
        run.log(f"not compiled: {why}")
        return False
    run.log(f"compiling (the run would take about {duration(steps * eager_s)} without)")
    started = time.perf_counter()
    compile_blocks(model, here.device)
    step()
    took, compiled_s = time.perf_counter() - started, _seconds(step)
    run.log(f"a compiled step takes {compiled_s / eager_s:.0%} of the time; compiling took {duration(took)}")
    if compiled_s >= eager_s:
        _undo(model)
    return compiled_s < eager_s


def compile_blocks(model: Transformer, device: torch.device) -> None:
    """Lets each block be compiled when it is first used: all share one piece of code, so depth costs nothing.

    Compiled code is cached in ~/.cache/groundup, and on a CPU made to sum in one order: a resumed run ends in the same bits.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundup" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    options = None
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # Dropout as in eager code: the same seeds; and its hash is worked out again, not kept number by number for the way back.
        options = {"fallback_random": True}
        torch._functorch.config.ban_recompute_used_far_apart = False
    for block in model.blocks:
        block.compile(dynamic=False, options=options)


def as_written(model: Transformer) -> AbstractContextManager[object]:
    """Returns the context in which the model runs uncompiled: where shapes vary, each would be compiled anew."""
    return torch.compiler.set_stance("force_eager") if _compiled(model) else nullcontext()


def _compiled(model: Transformer) -> bool:
    return any(block._compiled_call_impl is not None for block in model.blocks)


def _undo(model: Transformer) -> None:
    """Lets the blocks run as they did before."""
    for block in model.blocks:
        block._compiled_call_impl = None


def _impossible(model: Transformer, device: torch.device) -> str:
    """Returns why nothing can be compiled here, or ""."""
    if model.config.experts > 1:
        return "each expert has as many tokens as the router sends it, so the shapes vary"
    if device.type == "mps":
        return "torch.compile isn't ready for mps"
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX") or "g++") and not shutil.which("clang++"):
        return "there is no C++ compiler (g++); install one and long runs get faster"
    return ""


def _seconds(step: Callable[[], object]) -> float:
    """Returns the seconds of a step: the faster of two."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)
