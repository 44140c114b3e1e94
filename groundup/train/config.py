"""What the training loop and `groundup pretrain` can be told. Never imports torch."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from groundup.base.config import from_dict, load_toml
from groundup.base.errors import ConfigError
from groundup.base.runs import open_run, start_checkpoint
from groundup.model.config import ModelConfig

__all__ = [
    "CheckpointConfig", "FREE", "LoopConfig", "OptimConfig", "PretrainConfig", "RampConfig", "ReplayConfig", "TrackConfig",
    "apply_plan",
]  # fmt: skip

Precision = Literal["auto", "fp32", "bf16"]
Attention = Literal["auto", "manual", "sdpa", "flex"]
Device = Literal["auto", "cpu", "cuda", "mps"]
# What may be changed while a run goes on, because its result doesn't depend on it (but for the last bits, with threads).
FREE = (
    "threads",
    "train.log_every",
    "train.checkpoint.every",
    "train.checkpoint.keep",
    "train.checkpoint.keep_every",
    "train.track",
)


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become steps."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon takes the hidden matrices and leaves the rest to adamw
    muon_lr: float = 0.02  # peak learning rate of muon's matrices
    weight_decay: float = 0.1  # share of a weight matrix lost in a step, times the learning rate
    beta1: float = 0.9  # how slowly AdamW forgets the direction of the gradient
    beta2: float = 0.95  # how slowly AdamW forgets its size
    eps: float = 1e-8  # the small number that AdamW's division is kept from zero by
    decay: float = 0.4  # share of the steps over which the rate of schedule wsd falls
    min_ratio: float = 0.1  # where the rate ends, as a share of its peak
    ema: float = 0.0  # above 0 a running average of the weights is kept, evaluated and saved: the share it keeps each step (0.999)
    z_loss: float = (
        0.0  # pretraining adds this times log(sum(exp(logits)))^2 to a token's loss: keeps logits small (1e-4)
    )

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        for key in ("weight_decay", "decay", "min_ratio", "z_loss"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"train.optim.{key}: expected a number from 0 to 1, not {getattr(self, key)}")
        for key in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"train.optim.{key}: expected a number from 0 to below 1, not {getattr(self, key)}")
        for key in ("muon_lr", "eps"):
            if not (getattr(self, key) > 0 and math.isfinite(getattr(self, key))):
                raise ConfigError(f"train.optim.{key}: expected a number above 0, not {getattr(self, key)}")


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept of a run, so that nothing is lost; checkpoints are written beside the training, which goes on."""

    every: int = 0  # steps between checkpoints (0: one a minute)
    keep: int = 2  # the newest so many are kept
    keep_every: int = 0  # besides, one is written and kept each time so many steps are done (0: none)
    best: bool = False  # besides, the one with the lowest loss on the held-out text

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        for key, least in (("every", 0), ("keep", 1), ("keep_every", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"train.checkpoint.{key}: expected at least {least}, not {getattr(self, key)}")


@dataclass(frozen=True)
class RampConfig:
    """A batch that begins small and doubles: early on a few tokens tell as well as many which way to go. Pretraining only."""

    doublings: int = 0  # the first steps take batch_tokens / 2^doublings (0: all steps take batch_tokens)
    share: float = 0.2  # of the steps, after which the batch is whole

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if not 0 <= self.doublings <= 16:
            raise ConfigError(f"train.ramp.doublings: expected a number from 0 to 16, not {self.doublings}")
        if not 0 < self.share <= 1:
            raise ConfigError(f"train.ramp.share: expected a number above 0, at most 1, not {self.share}")


@dataclass(frozen=True)
class TrackConfig:
    """Where the rows of metrics.jsonl are shown besides. Each needs its package: pip install 'groundup[track]'."""

    to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"  # tensorboard writes into the run's folder
    project: str = "groundup"  # the name under which wandb and trackio collect runs


@dataclass(frozen=True)
class LoopConfig:
    """The training loop, the same for every stage."""

    steps: int = 1000  # optimiser steps
    batch_tokens: int = (
        8192  # tokens of a step, over all devices (stages that batch conversations have a batch of their own)
    )
    micro_batch: int = 0  # rows computed at once on a device, to save memory; the step stays the same (0: all of them)
    lr: float = 1e-3  # peak learning rate
    warmup: float = 0.05  # steps over which the rate rises; below 1 it is a share of all steps
    schedule: Literal["cosine", "wsd", "linear"] = (
        "cosine"  # how the rate falls: cosine, late and straight (wsd), or straight
    )
    clip: float = 1.0  # longest gradient that a step follows; a longer one is shortened to it (0: no limit)
    nonfinite: Literal["skip", "rollback", "stop"] = (
        "skip"  # a step whose loss or gradient is infinite or no number: leave it out, go back to the last checkpoint, or stop
    )
    compile: Literal["auto", "on", "off"] = (
        "auto"  # torch.compile, which takes its time and repays it in long runs: auto compares. Pretraining only
    )
    eval_every: int = 0  # steps between looks at the held-out text (0: a tenth of the steps)
    log_every: int = 10  # steps between rows of metrics.jsonl
    seed: int = 0  # of the weights, the sample order and dropout
    optim: OptimConfig = field(default_factory=OptimConfig)  # the optimiser
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)  # what is kept
    ramp: RampConfig = field(default_factory=RampConfig)  # a growing batch
    track: TrackConfig = field(default_factory=TrackConfig)  # dashboards

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        for key in ("steps", "batch_tokens", "log_every"):
            if getattr(self, key) < 1:
                raise ConfigError(f"train.{key}: expected at least 1, not {getattr(self, key)}")
        for key in ("micro_batch", "eval_every", "seed", "warmup", "clip"):
            if not (getattr(self, key) >= 0 and math.isfinite(getattr(self, key))):
                raise ConfigError(f"train.{key}: expected at least 0, not {getattr(self, key)}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError(f"train.lr: expected a number above 0, not {self.lr}")
        for section in (self.optim, self.checkpoint, self.ramp):
            section.validate()

    def only_pretraining(self) -> list[str]:
        """Returns the keys that are set although they are pretraining's alone."""
        found = {
            "train.micro_batch": self.micro_batch > 0, "train.compile": self.compile == "on",
            "train.optim.z_loss": self.optim.z_loss > 0, "train.ramp.doublings": self.ramp.doublings > 0,
        }  # fmt: skip
        return [key for key, is_set in found.items() if is_set]


@dataclass(frozen=True)
class ReplayConfig:
    """Older text beside the new in continued pretraining, so that it isn't forgotten."""

    share: float = 0.0  # of each step's windows that are taken from the older text
    shards: str = ""  # run of token files with that text; how much of it is forgotten is measured, whatever the share

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range or missing."""
        if not 0 <= self.share < 1:
            raise ConfigError(f"replay.share: expected a share from 0 to below 1, not {self.share}")
        if self.share and not self.shards:
            raise ConfigError("replay.share: name the run of token files to replay with --replay.shards")


@dataclass(frozen=True)
class PretrainConfig:
    """`groundup pretrain`: train a base model on the project's token files.

    A value is taken from a flag, else from --config, else from the plan of the project, else it is the default below. The
    plan (04-plan/main/plan.toml) fits one shape: as soon as [model] says another one, the plan is set aside whole.
    """

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    plan: str = "main"  # the plan to follow where no other value is given; none ignores it
    shards: str = "main"  # the run of token files to train on
    start: Path | None = None  # run or checkpoint whose weights and shape to go on from (none: begin from scratch)
    device: Device = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    precision: Precision = "auto"  # fp32, bf16; auto races them on this machine
    attention: Attention = (
        "auto"  # manual: plain products; sdpa: PyTorch's fused kernel; flex: CUDA only; auto: by measured tables
    )
    threads: int = 0  # CPU threads (0: all cores)
    document_mask: bool = False  # let no token look back into the document before its own
    eval_tokens: int = 32768  # tokens of held-out text to measure the loss on (0: all of them)
    prompt: str = ""  # what the samples written during training continue (empty: the beginning of a document)
    model: ModelConfig = field(default_factory=ModelConfig)  # the model's shape; its vocabulary is the tokenizer's
    train: LoopConfig = field(default_factory=LoopConfig)  # the loop
    replay: ReplayConfig = field(default_factory=ReplayConfig)  # older text besides

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.threads < 0:
            raise ConfigError(f"threads: expected 0 (all cores) or more, not {self.threads}")
        if self.eval_tokens < 0:
            raise ConfigError(f"eval_tokens: expected 0 (all) or more, not {self.eval_tokens}")
        for section in (self.train, self.model, self.replay):
            section.validate()
        if self.attention == "flex" and (self.model.dropout or self.device in ("cpu", "mps")):
            raise ConfigError("attention: flex needs a CUDA device and a model.dropout of 0; take auto, manual or sdpa")

    @property
    def plan_path(self) -> Path | None:
        """The plan to follow, or None if it is to be ignored or there is none."""
        if self.plan == "none":
            return None
        path = open_run(self.project, "plan", self.plan).path / "plan.toml"
        return path if path.exists() else None

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        config = apply_plan(self)
        loop, shards = config.train, open_run(self.project, "shards", self.shards).path
        follows = f"follow {self.plan_path}" if config != self else "follow no plan"
        follows = follows if config.start is None else f"go on from {config.start}"
        return [
            f"read {shards / 'train'} and {shards / 'heldout'}; {follows}",
            f"train a {config.model.family} model of {config.model.params():,} parameters for {loop.steps} steps"
            f" of {loop.batch_tokens} tokens ({loop.steps * loop.batch_tokens:,} in all)",
            f"write {open_run(self.project, 'pretrain', self.name).path}",
        ]


def apply_plan(config: PretrainConfig) -> PretrainConfig:
    """Returns the config with the plan's values wherever it still had a default, or with the shape of what it starts from.

    The plan counts only if [model] is untouched or is the plan's own, and for a model from scratch alone.
    Raises: ConfigError for a damaged plan; CheckpointError for a start that isn't there.
    """
    if config.start is not None:
        return _continued(config, config.start)
    if config.plan_path is None:
        return config
    planned = from_dict(PretrainConfig, load_toml(config.plan_path), where=str(config.plan_path))
    theirs = replace(planned.model, vocab_size=config.model.vocab_size)
    if config.model not in (theirs, replace(ModelConfig(), vocab_size=config.model.vocab_size)):
        return config
    ours: dict[str, Any] = _changed(asdict(config.train), asdict(LoopConfig()))
    return replace(config, model=theirs, train=from_dict(LoopConfig, ours, base=planned.train))


def _continued(config: PretrainConfig, start: Path) -> PretrainConfig:
    """Returns the config with the shape of the checkpoint that it starts from, and that checkpoint named."""
    from groundup.model.weights import load_config  # torch, which no other config needs

    found = start_checkpoint(start, open_run(config.project, "pretrain", config.name), "pretrain")
    theirs = load_config(found)
    if config.model not in (theirs, ModelConfig()):
        raise ConfigError("model: the model of --start has a shape already; leave [model] out")
    return replace(config, model=theirs, start=found)


def _changed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns the values that differ from their defaults, nested as they were."""
    found = {k: _changed(v, defaults[k]) if isinstance(v, dict) else v for k, v in values.items() if v != defaults[k]}
    return {k: v for k, v in found.items() if v != {}}
