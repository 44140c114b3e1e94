"""What generation can be told: sampling parameters and the configs of `generate` and `chat`. Never imports torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.runs import STAGES, open_run, resolve_checkpoint

__all__ = ["ChatConfig", "GenerateConfig", "SamplingParams", "Stage", "locate"]

Stage = Literal["auto", "pretrain", "sft", "dpo", "grpo"]


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, and when to stop. An answer that ends on a stop id includes it."""

    temperature: float = 1.0  # 0 always takes the likeliest token; 1 samples the model's own distribution
    top_k: int = 0  # sample only from the k likeliest tokens (0: from all)
    top_p: float = 1.0  # sample only from the likeliest tokens that together hold this probability
    max_tokens: int = 64  # the most tokens to generate
    seed: int = 0  # the same seed gives the same text
    stop_ids: tuple[int, ...] = ()  # token ids that end an answer

    def validate(self) -> None:
        """Raises: ConfigError naming the parameter that is out of range."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature: expected a number of at least 0, not {self.temperature}")
        if self.top_k < 0:
            raise ConfigError(f"top_k: expected 0 (all tokens) or a positive number, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: expected a share above 0 and at most 1, not {self.top_p}")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens: expected at least 1, not {self.max_tokens}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected a whole number from 0 to 2^63 - 1, not {self.seed}")


def locate(project: Path, stage: Stage, name: str) -> Path:
    """Returns the folder that a project, a stage ("auto": the furthest) and a run's name mean, for `resolve_checkpoint`.

    Raises: CheckpointError naming the command that makes it.
    """
    if stage == "auto":
        return project
    run = open_run(project, stage, name)
    if not run.path.is_dir():
        there = [known for known in ("pretrain", "sft", "dpo", "grpo") if (project / STAGES[known]).is_dir()]
        have = f"; there are: {', '.join(there)}" if there else f"; run `groundup {stage} {project}` first"
        raise CheckpointError(f"{run.path}: no such run{have}")
    return run.path


def reads(project: Path, stage: Stage, name: str) -> str:
    """Returns the line of `--dry-run` that says which checkpoint would be read, or why none can be."""
    try:
        return f"read the checkpoint {resolve_checkpoint(locate(project, stage, name))}"
    except CheckpointError as error:
        return f"fail: {error}"


@dataclass(frozen=True)
class GenerateConfig:
    """`groundup generate`: continue a text."""

    project: Positional[Path] = Path("my-llm")  # the project folder (or a run or checkpoint in it)
    prompt: str = "Once"  # the text to continue; - reads it from standard input
    stage: Stage = "auto"  # whose model: of pretrain, sft, dpo or grpo; auto is the furthest that has finished
    name: str = "main"  # the run's name (with --stage)
    samples: int = 1  # how many continuations
    max_tokens: int = 200  # the most tokens of a continuation; it also ends at the model's context
    temperature: float = 0.8  # 0 always takes the likeliest token; 1 samples the model's own distribution
    top_k: int = 0  # sample only from the k likeliest tokens (0: from all)
    top_p: float = 1.0  # sample only from the likeliest tokens that together hold this probability
    seed: int = 0  # the same seed gives the same text
    device: str = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one

    def validate(self) -> None:
        """Raises: ConfigError naming the flag that is out of range."""
        self.sampling().validate()
        if self.samples < 1:
            raise ConfigError(f"samples: expected at least 1, not {self.samples}")

    def sampling(self) -> SamplingParams:
        """Returns the sampling parameters among the fields."""
        return SamplingParams(self.temperature, self.top_k, self.top_p, self.max_tokens, self.seed)

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        source = "standard input" if self.prompt == "-" else f"{self.prompt!r}"
        return [reads(self.project, self.stage, self.name),
                f"continue {source} {self.samples} time(s) by at most {self.max_tokens} tokens", "write nothing"]  # fmt: skip


@dataclass(frozen=True)
class ChatConfig:
    """`groundup chat`: talk to the model in the terminal."""

    project: Positional[Path] = Path("my-llm")  # the project folder (or a run or checkpoint in it)
    stage: Stage = "auto"  # whose model: of pretrain, sft, dpo or grpo; auto is the furthest that has finished
    name: str = "main"  # the run's name (with --stage)
    system: str = ""  # a system message to begin with
    max_tokens: int = 512  # the most tokens of an answer; it also ends at the model's context
    temperature: float = 0.7  # 0 always takes the likeliest token; 1 samples the model's own distribution
    top_k: int = 0  # sample only from the k likeliest tokens (0: from all)
    top_p: float = 1.0  # sample only from the likeliest tokens that together hold this probability
    seed: int = 0  # the same seed gives the same conversation
    device: str = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one

    def validate(self) -> None:
        """Raises: ConfigError naming the flag that is out of range."""
        self.sampling().validate()

    def sampling(self) -> SamplingParams:
        """Returns the sampling parameters among the fields."""
        return SamplingParams(self.temperature, self.top_k, self.top_p, self.max_tokens, self.seed)

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        return [reads(self.project, self.stage, self.name), "talk on standard input and output", "write nothing"]
