"""What `groundup sweep` and `groundup race` can be told. Never imports torch."""

import math
import re
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from groundup.base.changes import flat
from groundup.base.config import from_dict, keys, load_toml, suggest
from groundup.base.errors import ConfigError
from groundup.train.config import PretrainConfig, apply_plan

__all__ = ["RaceConfig", "SweepConfig", "changed", "difference", "grid", "read_base", "rounds", "trial_steps"]

RANGE = re.compile(r"(.+)\.\.([^:]+)(?::(\d+))?")
RANGE_POINTS = 5


def read_base(path: Path) -> PretrainConfig:
    """Returns the config of pretraining that a TOML file holds (a run's config.toml is one), or a project's own, plan followed.

    Raises: ConfigError for what is neither.
    """
    if path.is_dir():
        return replace(apply_plan(PretrainConfig(project=path)), plan="none")
    if path.suffix != ".toml":
        raise ConfigError(f"{path}: expected a project's folder or a .toml file of `groundup pretrain`")
    return replace(apply_plan(from_dict(PretrainConfig, load_toml(path), str(path))), plan="none")


def changed(config: PretrainConfig, values: dict[str, Any], where: str = "over") -> PretrainConfig:
    """Returns the config with dotted keys set. Raises: ConfigError naming the key."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return from_dict(PretrainConfig, nested, where, base=config)


def _number(text: str, kind: Any) -> Any:
    """Returns a value as the key's type wants it."""
    if kind is bool and text in ("true", "false"):
        return text == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _values(entry: str) -> tuple[str, list[Any]]:
    """Returns the key and the values of "train.lr=1e-4,1e-3", or of the range "train.lr=1e-4..1e-2:5", even in the logarithm."""
    key, equals, text = entry.partition("=")
    known = {k: kind for k, kind in keys(PretrainConfig).items() if k not in ("project", "name", "plan")}
    if not equals or not text:
        raise ConfigError(f"over: expected KEY=VALUE,VALUE,... or KEY=FROM..TO:COUNT, not {entry!r}")
    if key not in known:
        raise ConfigError(f"over: unknown key '{key}'{suggest(key, list(known))}")
    if found := RANGE.fullmatch(text):
        try:
            low, high, count = float(found[1]), float(found[2]), int(found[3] or RANGE_POINTS)
        except ValueError:
            raise ConfigError(f"over: {entry!r}: a range goes from one number to another") from None
        if not 0 < low < high or count < 2:
            raise ConfigError(f"over: {entry!r}: a range rises from a number above 0, in two values or more")
        exact = [low * (high / low) ** (i / (count - 1)) for i in range(count)]
        return key, [round(n) for n in exact] if known[key] is int else [float(f"{n:.2g}") for n in exact]
    return key, [_number(value.strip(), known[key]) for value in text.split(",")]


def grid(over: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns each combination of the keys' values: [{"train.lr": 1e-4}, ...]. Raises: ConfigError for what can't be read."""
    axes = dict(_values(entry) for entry in over)
    if len(axes) < len(over):
        raise ConfigError("over: one key stands there twice")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


@dataclass(frozen=True)
class SweepConfig:
    """`groundup sweep`: which value of a setting trains best, found by successive halving.

    All values are tried with a share of the steps, the better part with more, the last ones with all; each trial is a whole
    run, its learning rate falling to the end, because a high rate looks bad until it falls.
    Source: Jamieson and Talwalkar 2016.
    """

    base: Positional[Path] = Path("my-llm")  # a .toml of pretraining (a run's config.toml, say), or a project's folder
    # KEY=VALUE,VALUE,... or KEY=FROM..TO:COUNT; of several keys every combination (3e-4 is the usual first guess for AdamW)
    over: tuple[str, ...] = ("train.lr=1e-4,3e-4,1e-3,3e-3,1e-2",)
    name: str = "main"  # the sweep's name; its files go to PROJECT/sweeps/NAME
    steps: int = 0  # of the last and longest trials (0: the base's)
    keep: int = 3  # one in so many goes on to the next round, which has so many times the steps
    range_test: bool = False  # instead: one run whose learning rate rises until the loss breaks away
    range_steps: int = 100  # steps of that run

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.steps < 0:
            raise ConfigError(f"steps: expected 0 (the base's) or more, not {self.steps}")
        if self.keep < 2:
            raise ConfigError(f"keep: expected at least 2, not {self.keep}")
        if self.range_steps < 20:
            raise ConfigError(f"range_steps: expected at least 20, not {self.range_steps}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(f"name: letters, digits, '.', '_' and '-' only, not {self.name!r}")
        if len(grid(self.over)) < 2 and not self.range_test:
            raise ConfigError("over: give two values or more, or there is nothing to compare")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        config = read_base(self.base)
        folder = config.project / "sweeps" / self.name
        if self.range_test:
            return [f"train {self.range_steps} steps, the learning rate rising a thousandfold", f"write {folder}"]
        steps, counts = self.steps or config.train.steps, rounds(len(grid(self.over)), self.keep)
        lines = [
            f"round {i}: {count} runs of {trial_steps(steps, self.keep, i, len(counts))} steps"
            for i, count in enumerate(counts, 1)
        ]
        return [*lines, f"write {folder}"]


def rounds(count: int, keep: int) -> list[int]:
    """Returns how many trials each round has: 9, 3, 1 where one in three is kept."""
    found = [count]
    while found[-1] > 1:
        found.append(max(1, found[-1] // keep))
    return found


def trial_steps(steps: int, keep: int, number: int, of: int) -> int:
    """Returns the steps of a trial in round `number` (from 1) of `of`."""
    return max(1, math.ceil(steps / keep ** (of - number)))


@dataclass(frozen=True)
class RaceConfig:
    """`groundup race`: is a change real? Two configs train on the same batches in turns, over several seeds.

    The verdict is a paired t interval over the seeds' differences of held-out bits per byte.
    """

    base: Positional[Path] = Path("base.toml")  # the .toml of pretraining to be beaten (or a project's folder)
    idea: Positional[Path] = Path("idea.toml")  # the one with the change
    seeds: int = 3  # pairs of runs, each with another initialisation and order of the text
    minutes: float = 20.0  # for everything; the steps are chosen so that it fits (0: the base's steps)
    equal: Literal["tokens", "seconds"] = "tokens"  # what both get the same amount of
    confidence: float = 0.95  # of the interval
    looks: int = 10  # at the held-out text, in each run
    name: str = "main"  # the race's name; its files go to PROJECT/races/NAME

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.seeds < 2:
            raise ConfigError(
                f"seeds: {self.seeds} can't tell a difference from noise; 2 at least, 3 or more are better"
            )
        if not (self.minutes >= 0 and math.isfinite(self.minutes)):
            raise ConfigError(f"minutes: expected 0 (the base's steps) or more, not {self.minutes}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence: expected a number from 0.5 to below 1, not {self.confidence}")
        if self.looks < 1:
            raise ConfigError(f"looks: expected at least 1, not {self.looks}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(f"name: letters, digits, '.', '_' and '-' only, not {self.name!r}")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        base, idea = read_base(self.base), read_base(self.idea)
        folder = base.project / "races" / self.name
        what = ", ".join(difference(base, idea)) or "nothing"
        return [
            f"the idea changes {what}",
            f"train both in turns on the same batches, {self.seeds} times, {self.minutes:g} minutes in all",
            f"write {folder}",
        ]


def difference(base: PretrainConfig, idea: PretrainConfig) -> list[str]:
    """Returns what sets two configs apart, as "train.lr 0.001 -> 0.003"; not their names."""
    ours, theirs = flat(asdict(base)), flat(asdict(idea))
    return [f"{k} {ours[k]} -> {theirs[k]}" for k in ours if ours[k] != theirs[k] and k not in ("name", "plan")]
