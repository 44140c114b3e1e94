"""What `groundup export` and `groundup import` can be told. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.runs import STAGES, Run, latest_checkpoint, open_run, resolve_checkpoint

__all__ = ["CHAT_STAGES", "TENSORS", "ExportConfig", "GGUFConfig", "HuggingFaceConfig", "ImportConfig", "stage_of"]

CHAT_STAGES = ("grpo", "dpo", "sft")  # those that answer in chat form, the furthest first
TENSORS = "model.safetensors"


def stage_of(checkpoint: Path) -> str:
    """Returns the stage whose folder a checkpoint lies in, or "" for one that lies elsewhere."""
    names = {folder: stage for stage, folder in STAGES.items()}
    return next((names[part] for part in reversed(checkpoint.resolve().parts) if part in names), "")


@dataclass(frozen=True)
class ExportConfig:
    """Which model leaves, and where to."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    # Whose model leaves (auto: the furthest that is finished).
    stage: Literal["auto", "grpo", "dpo", "sft", "pretrain"] = "auto"
    checkpoint: Path | None = None  # a checkpoint, run or project folder, instead of a stage

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
        """Raises: ConfigError for a contradiction."""
        if self.checkpoint is not None and self.stage != "auto":
            raise ConfigError("stage, checkpoint: both name the model; give one of them")


@dataclass(frozen=True)
class HuggingFaceConfig(ExportConfig):
    """`groundup export huggingface`: a folder that transformers loads."""

    out: Path | None = None  # folder to write (none: huggingface/ in the run's folder, 12-export/main)

    @property
    def target(self) -> Path:
        """The folder that is written."""
        return self.out or open_run(self.project, "export", self.name).path / "huggingface"

    def validate(self) -> None:
        """Raises: ConfigError for a contradiction, or a target that holds something else."""
        super().validate()
        if self.target.is_file():
            raise ConfigError(f"out: {self.target} is a file; name a folder")
        if self.target.is_dir() and any(self.target.iterdir()) and not (self.target / TENSORS).exists():
            raise ConfigError(f"out: {self.target} holds other files; name a new folder or an earlier export")

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        again = " in place of the one there" if self.target.is_dir() else ""
        return [f"read {self.find()}", f"write config, weights, tokenizer and model card to {self.target}{again}"]


@dataclass(frozen=True)
class GGUFConfig(ExportConfig):
    """`groundup export gguf`: one file that llama.cpp and what is built on it (Ollama, LM Studio) load."""

    # Numbers of the matrices: 4 bytes each, 2, or 1 and a scale for every 32 (q8_0).
    dtype: Literal["f32", "f16", "q8_0"] = "f16"
    out: Path | None = None  # file to write (none: PROJECT-DTYPE.gguf in the run's folder, 12-export/main-DTYPE)

    @property
    def run(self) -> Run:
        """The run that is recorded: one for each kind of number, so that none replaces another."""
        return open_run(self.project, "export", f"{self.name}-{self.dtype}")

    @property
    def target(self) -> Path:
        """The file that is written."""
        return self.out or self.run.path / f"{self.project.resolve().name}-{self.dtype}.gguf"

    def validate(self) -> None:
        """Raises: ConfigError for a contradiction, or a target that isn't a GGUF file."""
        super().validate()
        if self.target.suffix != ".gguf":
            raise ConfigError(f"out: {self.target} is not the name of a .gguf file")
        if self.target.is_dir():
            raise ConfigError(f"out: {self.target} is a folder; name a file")

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        again = " in place of the one there" if self.target.exists() else ""
        return [
            f"read {self.find()}",
            f"write weights ({self.dtype}), tokenizer and chat template to {self.target}{again}",
        ]


@dataclass(frozen=True)
class ImportConfig:
    """`groundup import`: a model that others trained becomes a run of a project, from which every stage can go on."""

    source: Positional[Path] = Path()  # Hugging Face folder, or nanoGPT's ckpt.pt
    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # name of the runs that it becomes, in 02-tokenizer and 05-pretrain
    tokenizer: Path | None = None  # tokenizer file or folder, for a model that comes without (nanoGPT's)
    text: Path | None = None  # text whose characters are the vocabulary (nanoGPT's character models)
    chat: bool = True  # add the words of our chat form where the model brings none, so that it can be taught to chat

    def validate(self) -> None:
        """Raises: ConfigError for no source, or a run in the way that isn't an import."""
        if self.source == Path():
            raise ConfigError("source: name a Hugging Face folder, or nanoGPT's ckpt.pt")
        if self.tokenizer is not None and self.text is not None:
            raise ConfigError("tokenizer, text: both say what the tokens mean; give one of them")
        for stage in ("tokenizer", "pretrain"):
            run = open_run(self.project, stage, self.name)
            if run.info and "source" not in run.info["inputs"]:
                raise ConfigError(f"{run.path}: made by the project itself; give the import another --name")

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        runs = [open_run(self.project, stage, self.name).path for stage in ("tokenizer", "pretrain")]
        return [f"read {self.source}", *(f"write {path}" for path in runs)]
