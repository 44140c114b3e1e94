"""What `groundup export huggingface` can be told. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.runs import STAGES, latest_checkpoint, open_run, resolve_checkpoint

__all__ = ["CHAT_STAGES", "HuggingFaceConfig", "stage_of"]

CHAT_STAGES = ("grpo", "dpo", "sft")  # those that answer in chat form, the furthest first
TENSORS = "model.safetensors"


def stage_of(checkpoint: Path) -> str:
    """Returns the stage whose folder a checkpoint lies in, or "" for one that lies elsewhere."""
    names = {folder: stage for stage, folder in STAGES.items()}
    return next((names[part] for part in reversed(checkpoint.resolve().parts) if part in names), "")


@dataclass(frozen=True)
class HuggingFaceConfig:
    """`groundup export huggingface`: a folder that transformers loads."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    stage: Literal["auto", "grpo", "dpo", "sft", "pretrain"] = (
        "auto"  # whose model (auto: the furthest that is finished)
    )
    checkpoint: Path | None = None  # a checkpoint, run or project folder, instead of a stage
    out: Path | None = None  # folder to write (none: huggingface/ in the run's folder, 12-export/main)

    @property
    def target(self) -> Path:
        """The folder that is written."""
        return self.out or open_run(self.project, "export", self.name).path / "huggingface"

    def find(self) -> Path:
        """Returns the checkpoint folder that is meant. Raises: CheckpointError saying what was looked for."""
        if self.checkpoint is not None:
            return resolve_checkpoint(self.checkpoint)
        stages = (*CHAT_STAGES, "pretrain") if self.stage == "auto" else (self.stage,)
        for stage in stages:
            run = open_run(self.project, stage, self.name)
            if run.done and (found := latest_checkpoint(run.path)):
                return found
        looked = " or ".join(f"{STAGES[stage]}/{self.name}" for stage in stages)
        raise CheckpointError(f"{self.project}: no finished model in {looked}; train one first, or name a --checkpoint")

    def validate(self) -> None:
        """Raises: ConfigError for a contradiction, or a target that holds something else."""
        if self.checkpoint is not None and self.stage != "auto":
            raise ConfigError("stage, checkpoint: both name the model; give one of them")
        if self.target.is_file():
            raise ConfigError(f"out: {self.target} is a file; name a folder")
        if self.target.is_dir() and any(self.target.iterdir()) and not (self.target / TENSORS).exists():
            raise ConfigError(f"out: {self.target} holds other files; name a new folder or an earlier export")

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        again = " in place of the one there" if self.target.is_dir() else ""
        return [f"read {self.find()}", f"write config, weights, tokenizer and model card to {self.target}{again}"]
