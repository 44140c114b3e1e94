"""What `groundup sft`, `dpo` and `grpo` can be told. Never imports torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.base.runs import open_run
from groundup.train.config import Device, LoopConfig, Precision

__all__ = ["DPOConfig", "GRPOConfig", "RolloutConfig", "SFTConfig", "SampleConfig"]


def _at_least(config: object, lowest: float, *keys: str, prefix: str = "") -> None:
    """Raises: ConfigError naming the first key whose value is below `lowest` (or isn't a number)."""
    for key in keys:
        value = getattr(config, key)
        if not value >= lowest:
            raise ConfigError(f"{prefix}{key}: expected at least {lowest}, not {value}")


def _above(config: object, *keys: str, prefix: str = "") -> None:
    """Raises: ConfigError naming the first key whose value isn't above 0."""
    for key in keys:
        value = getattr(config, key)
        if not value > 0:
            raise ConfigError(f"{prefix}{key}: expected a number above 0, not {value}")


def _check_common(config: "SFTConfig | DPOConfig | GRPOConfig") -> None:
    """Raises: ConfigError for what all three stages have in common."""
    _at_least(config, 0, "threads")
    if others := config.train.only_pretraining():
        raise ConfigError(f"{others[0]}: pretraining alone knows it; this stage has a batch and a loss of its own")
    config.train.validate()


def start_run(project: Path, start: Path | None, stage: str) -> Path:
    """Returns the folder whose newest checkpoint a stage begins from: `start`, or the run `main` of the stage before it."""
    return start or open_run(project, stage).path


@dataclass(frozen=True)
class SFTConfig:
    """`groundup sft`: supervised fine-tuning on conversations."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    start: Path | None = None  # run or checkpoint to begin from (none: 05-pretrain/main)
    chats: Path | None = None  # JSONL of conversations in OpenAI's form (none: tasks/sft.jsonl in the project)
    batch: int = 64  # conversations a step
    replay: int = 2  # windows of pretraining text in each step, so that the model keeps what it knew (0: none)
    replay_weight: float = 0.5  # weight of their mean loss beside that of the conversations
    heldout: float = 0.01  # share of the conversations kept aside to measure the loss on
    device: Device = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    precision: Precision = "auto"  # fp32, bf16; auto races them on this machine
    threads: int = 0  # CPU threads (0: all cores)
    train: LoopConfig = field(default_factory=lambda: LoopConfig(steps=600, lr=1e-3))  # the loop

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        _at_least(self, 1, "batch")
        _at_least(self, 0, "replay", "replay_weight", "heldout")
        if self.heldout > 0.5:
            raise ConfigError(f"heldout: expected a share of at most 0.5, not {self.heldout}")
        _check_common(self)

    @property
    def chats_path(self) -> Path:
        """The JSONL file of conversations."""
        return self.chats or self.project / "tasks" / "sft.jsonl"

    @property
    def shards_path(self) -> Path:
        """The folder of token files that replayed text comes from."""
        return open_run(self.project, "shards").path / "train"

    @property
    def start_path(self) -> Path:
        """The folder whose newest checkpoint is the beginning."""
        return start_run(self.project, self.start, "pretrain")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        replay = f" and {self.replay} windows of 03-shards" if self.replay else ""
        return [
            f"begin from {self.start_path}",
            f"take {self.train.steps} steps of {self.batch} conversations of {self.chats_path}{replay}",
            f"write {open_run(self.project, 'sft', self.name).path}",
        ]


@dataclass(frozen=True)
class SampleConfig:
    """How DPO makes its own preferences: several answers a problem, told apart by the verifier."""

    problems: Path | None = None  # JSONL of problems (none: tasks/problems-train.jsonl in the project)
    count: int = 4096  # problems to answer (0: all)
    answers: int = 8  # answers a problem
    temperature: float = 1.0  # of sampling
    max_tokens: int = 32  # the most tokens of an answer


@dataclass(frozen=True)
class DPOConfig:
    """`groundup dpo`: direct preference optimisation."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    start: Path | None = None  # the run or checkpoint to begin from, also the frozen reference (none: 06-sft/main)
    preferences: Path | None = None  # JSONL rows of prompt, chosen, rejected (none: sampled from the model itself)
    beta: float = 0.1  # how closely to stay at the reference: higher is closer
    nll_weight: float = 1.0  # weight of the chosen answers' loss; with 0 (plain DPO) both answers may fade
    batch: int = 32  # pairs a step
    device: Device = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    precision: Precision = "auto"  # fp32, bf16; auto races them on this machine
    threads: int = 0  # CPU threads (0: all cores)
    sample: SampleConfig = field(default_factory=SampleConfig)  # preferences of the model's own
    train: LoopConfig = field(default_factory=lambda: LoopConfig(steps=150, lr=1e-4))  # the loop

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        _above(self, "beta")
        _at_least(self, 0, "nll_weight")
        _at_least(self, 1, "batch")
        _at_least(self.sample, 0, "count", prefix="sample.")
        _at_least(self.sample, 2, "answers", prefix="sample.")
        _at_least(self.sample, 1, "max_tokens", prefix="sample.")
        _above(self.sample, "temperature", prefix="sample.")
        _check_common(self)

    @property
    def problems_path(self) -> Path:
        """The JSONL file of problems to sample from."""
        return self.sample.problems or self.project / "tasks" / "problems-train.jsonl"

    @property
    def start_path(self) -> Path:
        """The folder whose newest checkpoint is the beginning and the reference."""
        return start_run(self.project, self.start, "sft")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        own = f"{self.sample.answers} answers to each of {self.sample.count or 'all'} problems of {self.problems_path}"
        return [
            f"begin from {self.start_path}, which is the reference too",
            f"read preferences from {self.preferences}" if self.preferences else f"sample {own}, and prefer right ones",
            f"take {self.train.steps} steps of {self.batch} pairs",
            f"write {open_run(self.project, 'dpo', self.name).path}",
        ]


@dataclass(frozen=True)
class RolloutConfig:
    """What the model tries in each step of GRPO."""

    questions: int = 48  # different questions a step
    answers: int = 8  # answers to each: the group whose average is the yardstick
    temperature: float = 1.0  # of sampling
    max_tokens: int = 32  # the most tokens of an answer


@dataclass(frozen=True)
class GRPOConfig:
    """`groundup grpo`: reinforcement from a verifier's reward, 1 for a right answer and 0 for a wrong one."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    start: Path | None = None  # the run or checkpoint to begin from, also the frozen reference (none: 08-dpo/main)
    problems: Path | None = None  # JSONL of problems (none: tasks/problems-train.jsonl in the project)
    clip: float = 0.2  # PPO's clip: no gain from moving a token's probability by a larger share
    kl_weight: float = 0.01  # weight of the divergence from the reference
    divide_by_std: bool = False  # divide advantages by the group's deviation (GRPO as published; Dr. GRPO doesn't)
    normalise: Literal["token", "sequence", "dr_grpo"] = "token"  # what a token weighs: see align/plain.py
    updates: int = 1  # optimiser steps on each set of answers; above 1 the clip begins to matter
    device: Device = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    precision: Precision = "auto"  # fp32, bf16; auto races them on this machine
    threads: int = 0  # CPU threads (0: all cores)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)  # the answers of each step
    train: LoopConfig = field(default_factory=lambda: LoopConfig(steps=150, lr=3e-4))  # the loop

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        _above(self, "clip")
        _at_least(self, 0, "kl_weight")
        _at_least(self, 1, "updates")
        every = self.train.checkpoint.every
        if self.updates > 1 and (every == 0 or every % self.updates):
            raise ConfigError(f"train.checkpoint.every: with updates {self.updates} give a multiple of it")
        _at_least(self.rollout, 1, "questions", "max_tokens", prefix="rollout.")
        _at_least(self.rollout, 2, "answers", prefix="rollout.")
        _above(self.rollout, "temperature", prefix="rollout.")
        _check_common(self)

    @property
    def problems_path(self) -> Path:
        """The JSONL file of problems to try."""
        return self.problems or self.project / "tasks" / "problems-train.jsonl"

    @property
    def start_path(self) -> Path:
        """The folder whose newest checkpoint is the beginning and the reference."""
        return start_run(self.project, self.start, "dpo")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        r = self.rollout
        return [
            f"begin from {self.start_path}, which is the reference too",
            f"take {self.train.steps} steps: {r.answers} answers to each of {r.questions} questions of {self.problems_path}",
            f"write {open_run(self.project, 'grpo', self.name).path}",
        ]
