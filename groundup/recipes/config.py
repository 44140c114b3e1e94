"""The config of `groundup demo`, and recipes: TOML files with one section for each verb."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from tyro.conf import Positional

from groundup.base.config import from_dict, load_toml
from groundup.base.errors import ConfigError, DataError

__all__ = ["CORPORA", "DemoConfig", "fill", "read_recipe"]

CORPORA = ("world", "shakespeare", "python")  # anything else is a folder or a file of the user's
V = TypeVar("V")


@dataclass(frozen=True)
class DemoConfig:
    """What the demo builds, and how much time it may take."""

    project: Positional[Path] = Path("my-llm")  # the folder in which everything is made
    corpus: str = "world"  # world, shakespeare, python (the standard library's sources), or a folder of your own files
    max_minutes: float = 8.0  # the whole demo fits into this on the machine at hand; training steps are planned for it
    seed: int = 0  # of the world, the weights, the sample order and the sampling
    recipe: Path | None = None  # a TOML file with a section for each verb, in place of the corpus's own recipe
    control: bool = False  # also continue SFT for GRPO's CPU time, to show what reinforcement itself bought
    ablate_data: bool = False  # also train on the raw text, to show what cleaning bought
    threads: int = 0  # CPU threads; 0 means all cores

    def validate(self) -> None:
        """Raises: ConfigError or DataError naming the field."""
        if self.max_minutes <= 0:
            raise ConfigError(f"--max-minutes must be above 0, not {self.max_minutes:g}")
        if self.threads < 0:
            raise ConfigError(f"--threads must be 0 (all cores) or more, not {self.threads}")
        if self.project.is_file():
            raise ConfigError(f"{self.project} is a file; the demo needs a folder of its own")
        if self.corpus not in CORPORA and not Path(self.corpus).exists():
            raise DataError(f"--corpus {self.corpus}: no such folder or file, and not one of {', '.join(CORPORA)}")
        if self.corpus != "world" and (self.control or self.ablate_data):
            flag = "--control" if self.control else "--ablate-data"
            raise ConfigError(f"{flag} needs the small world's tasks and noise; leave --corpus at world")

    def describe(self) -> list[str]:
        """Returns the stages in their order."""
        trained = "pretrain, sft, dpo, grpo" if self.corpus == "world" else "pretrain"
        return [
            f"take the corpus: {self.corpus}",
            f"go through data, tokenizer, shards, plan, {trained}, eval, export, report in {self.project}",
            f"take at most {self.max_minutes:g} minutes; a rerun continues where it was stopped",
        ]


def read_recipe(config: DemoConfig) -> dict[str, Any]:
    """Returns the sections of the demo's recipe: the user's file, or the one that ships for the corpus.

    Raises: ConfigError for a file that isn't there or isn't TOML.
    """
    name = config.corpus if config.corpus in CORPORA[:2] else "files"
    return load_toml(config.recipe or Path(__file__).parent / f"demo_{name}.toml")


def fill(cls: type[V], section: dict[str, Any], **given: Any) -> V:
    """Returns a verb's config from a recipe's section, over what the demo itself decides (of the fields that the verb has)."""
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    base = cls(**{name: value for name, value in given.items() if name in names})
    return from_dict(cls, section, where="recipe", base=base)
