"""The flags of `groundup shards`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.base.runs import open_run

__all__ = ["ShardsConfig", "VerifyConfig"]


@dataclass(frozen=True)
class ShardsConfig:
    """Encodes the project's documents into token files."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    shard_tokens: int = 16_777_216  # tokens a file; 16.8M are 34 MB at two bytes each, and that is all the memory used
    threads: int = 0  # threads that encode; 0 for one a core
    data: str = "main"  # the data run whose documents are encoded
    tokenizer: str = "main"  # the tokenizer run that encodes them
    name: str = "main"  # the run's name

    def validate(self) -> None:
        """Raises: ConfigError naming the key."""
        if not 1024 <= self.shard_tokens <= 1 << 30:
            raise ConfigError(f"shard_tokens: {self.shard_tokens} is not between 1024 and {1 << 30}")
        if self.threads < 0:
            raise ConfigError(f"threads: {self.threads}; expected 0 (one a core) or more")

    def inputs(self) -> dict[str, Path]:
        """Returns what is read, by role."""
        data = open_run(self.project, "data", self.data).path
        return {"train": data / "documents.parquet", "heldout": data / "heldout.parquet",
                "tokenizer": open_run(self.project, "tokenizer", self.tokenizer).path / "tokenizer.json"}  # fmt: skip

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        folder = open_run(self.project, "shards", self.name).path
        return [f"read {path}" for path in self.inputs().values()] + [
            f"write {folder / split}/" for split in ("train", "heldout")
        ]


@dataclass(frozen=True)
class VerifyConfig:
    """Reads every byte of a project's token files."""

    project: Positional[Path] = Path(
        "my-llm"
    )  # the project folder, a folder of token files (index.json), or nanoGPT's train.bin
    name: str = "main"  # the run's name

    @property
    def places(self) -> list[Path]:
        """What is verified: the folder or file itself, or the project's."""
        if self.project.suffix == ".bin" or (self.project / "index.json").exists():
            return [self.project]
        folder = open_run(self.project, "shards", self.name).path
        return [folder / split for split in ("train", "heldout")]

    def validate(self) -> None:
        """Raises: GroundupError for a run's name that can't be one."""
        open_run(self.project, "shards", self.name)

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        return [f"read {path}" for path in self.places]
