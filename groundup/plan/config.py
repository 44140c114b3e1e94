"""What `groundup plan` can be told. Never imports torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.base.runs import open_run
from groundup.model.config import ModelConfig

__all__ = ["PlanConfig", "ShowConfig"]


@dataclass(frozen=True)
class PlanConfig:
    """`groundup plan`: a model and a number of steps for the time at hand."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    shards: str = "main"  # the run of token files to plan for
    minutes: float = 5.0  # training time on this machine
    heldout_tokens: int = (
        0  # held-out tokens that will be read besides (looks, the evaluation); their time is set aside
    )
    flops: float = 0.0  # plan for so many floating-point operations instead (0: for the minutes)
    steps: int = 0  # no more steps than these, though there were time for more (0: as many as fit)
    params: float = 0.0  # take the shape nearest to so many parameters (0: the one with the least expected loss)
    choose: bool = True  # choose width and depth; --no-choose keeps the shape of [model] and counts its steps
    batch_tokens: int = 8192  # tokens of an optimiser step
    optimizer: Literal["adamw", "muon"] = "adamw"  # what training will use
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where training will run
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the matrix products; auto tries both
    threads: int = 0  # CPU threads (0: all cores)
    model: ModelConfig = field(default_factory=ModelConfig)  # family and context, with --no-choose the whole shape

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if not self.minutes > 0 and not self.flops:
            raise ConfigError(f"minutes: expected a number above 0, not {self.minutes:g}")
        for key in ("heldout_tokens", "flops", "steps", "params", "threads"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key}: expected at least 0, not {getattr(self, key):g}")
        if self.params and not self.choose:
            raise ConfigError("params: with --no-choose the shape is given by [model]; leave out one of them")
        self.model.validate()
        if self.batch_tokens < self.model.context or self.batch_tokens % self.model.context:
            raise ConfigError(
                f"batch_tokens: {self.batch_tokens} is not a whole number of contexts of {self.model.context}"
            )

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        what = f"{self.flops:.3g} floating-point operations" if self.flops else f"{self.minutes:g} minutes of training"
        return [
            f"read {open_run(self.project, 'shards', self.shards).path / 'train' / 'index.json'}",
            f"time some training steps on this machine and plan for {what}",
            f"write {open_run(self.project, 'plan', self.name).path}",
        ]


@dataclass(frozen=True)
class ShowConfig:
    """`groundup model show`: a model's layers, parameters, operations and memory, and its block drawn."""

    what: Positional[str] = (
        "my-llm"  # a preset, a project, a run, a TOML file with a [model], or a folder of Hugging Face's
    )
    svg: Path | None = None  # the file to draw the block into
    rows: int = 8  # windows of the context that a step of training computes at once, for the memory
    precision: Literal["fp32", "bf16"] = "bf16"  # of training's matrix products
    optimizer: Literal["adamw", "muon"] = "adamw"  # what would train it
    device: Literal["cpu", "cuda"] = "cuda"  # where; a CPU keeps more for the backward pass

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.rows < 1:
            raise ConfigError(f"rows: expected at least 1, not {self.rows}")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        return [f"show the model of {self.what}", *([f"write {self.svg}"] if self.svg else [])]
