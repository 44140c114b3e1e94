"""The flags of `groundup tokenizer train` and `groundup tokenizer encode`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError, TokenizerError
from groundup.base.runs import open_run
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.pattern import check

__all__ = ["EncodeConfig", "TrainConfig", "check_vocab_size"]

SMALLEST = 256 + len(DEFAULT_SPECIALS)


def check_vocab_size(size: int, specials: Sequence[str]) -> None:
    """Raises: TokenizerError if the bytes and the specials alone are more than `size`."""
    if size < 256 + len(specials):
        least = f"at least {256 + len(specials)} (256 bytes and {len(specials)} specials)"
        raise TokenizerError(f"vocab_size: {size} is too small; {least}")


@dataclass(frozen=True)
class TrainConfig:
    """Learns which pieces of text deserve an id of their own."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    vocab_size: int = 512  # how many ids, special tokens included; 512 for the small world, 32000 for real text
    pattern: str = "qwen2"  # where words end: qwen2, cl100k, o200k, gpt2, whitespace, or bytes (256 bytes, no merges)
    input: tuple[Path, ...] = ()  # files to learn from (.txt, .jsonl, .parquet) in place of the project's documents
    data: str = "main"  # the data run whose documents are read
    name: str = "main"  # the run's name

    def validate(self) -> None:
        """Raises: ConfigError or TokenizerError naming the key."""
        check(self.pattern)
        if self.pattern != "bytes":
            check_vocab_size(self.vocab_size, DEFAULT_SPECIALS)

    def inputs(self) -> dict[str, Path]:
        """Returns what is read, by role."""
        if self.input:
            return {f"input_{i}": path for i, path in enumerate(self.input)}
        folder = open_run(self.project, "data", self.data).path
        return {"documents": folder / "documents.parquet", "heldout": folder / "heldout.parquet"}

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        size = (
            f"{SMALLEST} ids, the bytes and the specials"
            if self.pattern == "bytes"
            else f"{self.vocab_size} ids, pattern {self.pattern}"
        )
        return [f"read {path}" for path in self.inputs().values()] + [
            f"learn a vocabulary of {size}",
            f"write {open_run(self.project, 'tokenizer', self.name).path / 'tokenizer.json'}",
        ]


@dataclass(frozen=True)
class EncodeConfig:
    """Shows a text as the model sees it."""

    project: Positional[Path] = Path("my-llm")  # a project folder, a checkpoint, or a tokenizer.json
    text: Positional[str] = ""  # the text; - reads it from standard input
    specials: bool = False  # whether the names of special tokens in the text become special tokens
    name: str = "main"  # the tokenizer run's name

    def validate(self) -> None:
        """Raises: ConfigError if there is no text."""
        if not self.text:
            raise ConfigError(
                'text: give one, as in `groundup tokenizer encode my-llm "some text"`, or - for standard input'
            )

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        return [f"read the tokenizer of {self.project}", "print the tokens of the text, and their ids; write nothing"]
