"""What the quality classifier can be told. Never imports numpy."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.base.runs import open_run

__all__ = ["ClassifierScoreConfig", "ClassifierTrainConfig"]


@dataclass(frozen=True)
class ClassifierTrainConfig:
    """Learn from good and bad examples which documents are worth keeping."""

    good: tuple[Path, ...] = ()  # files of good examples: JSONL or Parquet with a text, or .txt with one a line
    bad: tuple[Path, ...] = ()  # files of bad ones, or of ordinary web text
    out: Path = Path("classifier.npz")  # the classifier to write
    ngram: int = 2  # runs of 1 to this many words are looked at
    buckets: int = 1 << 18  # places that runs of words are hashed to
    epochs: int = 10  # passes over the examples
    rate: float = 0.2  # AdaGrad's learning rate
    decay: float = 1e-4  # pull of every weight towards 0
    heldout: float = 0.1  # share of examples that it is tested on instead
    seed: int = 0  # of the order of the examples, and of the split

    def validate(self) -> None:
        """Raises: ConfigError naming the key with a value that can't be."""
        for key, paths in (("good", self.good), ("bad", self.bad)):
            if not paths:
                raise ConfigError(f"{key}: name at least one file of {key} examples, as in --{key} {key}.jsonl")
        for key, low in {"ngram": 1, "buckets": 1024, "epochs": 1}.items():
            if getattr(self, key) < low:
                raise ConfigError(f"{key}: expected at least {low}, not {getattr(self, key)}")
        if not 0 < self.heldout <= 0.5:
            raise ConfigError(f"heldout: expected a share above 0 and up to 0.5, not {self.heldout:g}")

    def describe(self) -> list[str]:
        """Returns what the command reads and would write."""
        return [*(f"read {path}" for path in (*self.good, *self.bad)), f"write {self.out}"]


@dataclass(frozen=True)
class ClassifierScoreConfig:
    """Score documents with a trained classifier."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    model: Path = Path("classifier.npz")  # the classifier
    name: str = "main"  # the data build whose documents are scored: kept, held out and dropped
    input: tuple[Path, ...] = ()  # score these files (JSONL, Parquet, txt) instead
    out: Path | None = None  # the Parquet file to write (default: PROJECT/scores.parquet)
    processes: int = 0  # worker processes (0: as many as cores, and one for small inputs)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files to score, the default filled in."""
        run = open_run(self.project, "data", self.name)
        return self.input or tuple(run.path / f"{place}.parquet" for place in ("documents", "heldout", "dropped"))

    @property
    def target(self) -> Path:
        """The file to write, the default filled in."""
        return self.out or self.project / "scores.parquet"

    def validate(self) -> None:
        """Raises: GroundupError for a build that isn't there."""
        if not self.input:
            open_run(self.project, "data", self.name).require_done(f"data build {self.project}")

    def describe(self) -> list[str]:
        """Returns what the command reads and would write."""
        return [f"read {self.model}", *(f"score {path}" for path in self.inputs), f"write {self.target}"]
