"""What `groundup doctor` and `groundup machine` can be told. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.errors import ConfigError

__all__ = ["DoctorConfig", "MachineConfig"]


@dataclass(frozen=True)
class DoctorConfig:
    """`groundup doctor`: read a run's figures, text and weights, and say what is wrong with it and what mends it."""

    run: Positional[Path] = Path("my-llm")  # a run's folder; of a project, its run of pretraining
    fix: bool = False  # write the corrected config, and say the command that uses it
    out: Path = Path("")  # where --fix writes it (empty: NAME-fixed.toml in the project's folder)
    weights: bool = True  # look into the newest checkpoint too; --no-weights reads the files only
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where the checkpoint is looked at

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if str(self.out) not in (".", "") and self.out.suffix != ".toml":
            raise ConfigError(f"out: expected the path of a .toml file, not {self.out}")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        looks = "config.toml, run.json, metrics.jsonl, samples and token files"
        if self.weights:
            looks += ", and the newest checkpoint"
        return [f"read {self.run}: {looks}", "say each fault with its numbers, cause and remedy"] + (
            ["write the corrected config"] if self.fix else []
        )


@dataclass(frozen=True)
class MachineConfig:
    """`groundup machine`: measure what this machine can do for training, in half a minute."""

    out: Path = Path("")  # write the figures to this .json file too (empty: don't)
    folder: Path = Path(".")  # the folder whose disk is measured
    disk_mb: int = 256  # megabytes written and read back to time the disk
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # what is measured
    threads: int = 0  # CPU threads (0: all cores)
    context: int = 256  # tokens of a window of the training step that is timed
    d_model: int = 384  # width of the model whose step is timed

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.threads < 0:
            raise ConfigError(f"threads: expected 0 (all cores) or more, not {self.threads}")
        for key in ("disk_mb", "context"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}: expected at least 1, not {getattr(self, key)}")
        if self.d_model < 64 or self.d_model % 64:
            raise ConfigError(f"d_model: expected a multiple of 64, not {self.d_model}")
        if not self.folder.is_dir():
            raise ConfigError(f"folder: {self.folder} is not a folder")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        return [
            "time matrix products in fp32 and bf16, memory, a training step and the disk",
            f"write {self.disk_mb} MB to {self.folder} and remove them again",
        ]
