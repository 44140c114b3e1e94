"""The learning rate over a run, as a factor of its peak: warm-up, then cosine, linear, or warm-up-stable-decay (WSD)."""

import math
from typing import Literal, get_args

from groundup.base.errors import ConfigError

__all__ = ["Schedule", "lr_scale", "warmup_steps"]

Schedule = Literal["cosine", "wsd", "linear"]


def warmup_steps(warmup: float, steps: int) -> int:
    """Returns the warm-up in steps; below 1 it is given as a share of all steps."""
    return round(warmup * steps) if warmup < 1 else round(warmup)


def lr_scale(
    step: int, steps: int, warmup: int, kind: Schedule = "cosine", min_ratio: float = 0.1, decay: float = 0.4
) -> float:
    """Returns the factor of the peak learning rate at `step` (from 0) of `steps`.

    It rises linearly over `warmup` steps. Then `cosine` and `linear` fall to `min_ratio` at the end; `wsd` stays at 1 and
    falls linearly over the last share `decay` of the run, so that a run can be prolonged from before its decay.

    Raises: ConfigError for an unknown kind.
    Source: Loshchilov and Hutter 2017 (cosine); Hu et al. 2024, MiniCPM, section 4 (WSD)
    """
    if kind not in get_args(Schedule):
        raise ConfigError(f"schedule: expected one of {', '.join(get_args(Schedule))}, not {kind!r}")
    rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    start = steps * (1 - decay) if kind == "wsd" else float(warmup)
    fallen = min(1.0, max(0.0, (step - start) / (steps - start))) if steps > start else 0.0
    if kind == "cosine":
        fallen = (1 - math.cos(math.pi * fallen)) / 2
    return rise * (1 - (1 - min_ratio) * fallen)
