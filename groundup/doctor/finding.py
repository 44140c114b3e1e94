"""What a fault is, and what it is to have found one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from groundup.doctor.facts import Facts

__all__ = ["Fault", "Finding"]


@dataclass(frozen=True)
class Finding:
    """A fault as it shows in one run. A `note` costs time or money, but the model isn't worse for it."""

    seen: list[str]  # the evidence, with its numbers
    cause: str
    changes: dict[str, Any] = field(default_factory=dict)  # what --fix writes: {"train.lr": 0.003}
    commands: list[str] = field(default_factory=list)  # to be typed, the likeliest first
    note: bool = False


@dataclass(frozen=True)
class Fault:
    """A fault that the doctor knows. `check`'s docstring says how it is told, and why the limit lies where it does."""

    key: str
    symptom: str
    cause: str
    remedy: str
    check: Callable[[Facts], Finding | None]
    explains: tuple[str, ...] = ()  # faults that needn't be looked for any more when this one is found
    live: bool = (
        False  # whether it is looked for while the run trains, too: told by the figures alone, long before the end
    )
