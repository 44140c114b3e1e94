"""The flags of `groundup tokenizer train` and `groundup tokenizer encode`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError, TokenizerError
from groundup.base.runs import open_run
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.pattern import check

__all__ = ["CompareConfig", "ConvertConfig", "EncodeConfig", "ShowConfig", "TrainConfig", "check_vocab_size"]

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
    pattern: str = "qwen2"  # where words end: qwen2, cl100k, o200k, gpt2, whitespace, bytes (256 bytes, no merges), or regex:EXPRESSION
    input: tuple[
        Path, ...
    ] = ()  # files or folders (.txt, .md, .jsonl, .parquet; .gz, .zst) in place of the project's documents
    invalid: str = (
        "strict"  # a text file that isn't UTF-8: strict refuses it, replace reads U+FFFD there, skip leaves it out
    )
    threads: int = 0  # threads that count words; 0 for one a core. The result is the same for any number
    memory_gb: float = (
        4.0  # the most memory the different words may take; the rarest are left out, and it says how many
    )
    data: str = "main"  # the data run whose documents are read
    name: str = "main"  # the run's name

    def validate(self) -> None:
        """Raises: ConfigError or TokenizerError naming the key."""
        check(self.pattern)
        check_invalid(self.invalid)
        if self.threads < 0:
            raise ConfigError(f"threads: {self.threads}; expected 0 (one a core) or more")
        if self.memory_gb < 0.01:
            raise ConfigError(f"memory_gb: {self.memory_gb:g}; expected 0.01 or more")
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


@dataclass(frozen=True)
class ShowConfig:
    """Shows what a vocabulary holds, how it serves a text, and how a token came to be."""

    project: Positional[Path] = Path(
        "my-llm"
    )  # a project, a checkpoint, or a tokenizer file: ours, Hugging Face's, tiktoken's
    token: str = ""  # draw the merge tree of each token in this text, nothing else
    id: int | None = None  # draw the merge tree of the token with this id, nothing else
    input: tuple[
        Path, ...
    ] = ()  # files or folders to measure on (.txt, .jsonl, .parquet) in place of the project's documents
    text: str = ""  # a text to measure on, typed here
    invalid: str = (
        "strict"  # a text file that isn't UTF-8: strict refuses it, replace reads U+FFFD there, skip leaves it out
    )
    sample_mb: float = 4.0  # how much of each source is read, in millions of characters
    top: int = 12  # how many tokens a list names
    html: Path | None = None  # a file for a page with the text's tokens in colours
    data: str = "main"  # the data run whose documents are read
    name: str = "main"  # the tokenizer run's name

    def validate(self) -> None:
        """Raises: ConfigError naming the key."""
        check_sample(self)
        if self.token and self.id is not None:
            raise ConfigError("id: give either a token's id or its text (token), not both")

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        return [
            f"read the tokenizer of {self.project}",
            *describe_sample(self.input, self.text, self.sample_mb, self.html),
        ]


@dataclass(frozen=True)
class CompareConfig:
    """Compares two vocabularies on the same text."""

    a: Positional[Path] = Path(
        "my-llm"
    )  # a project, a checkpoint, or a tokenizer file: ours, Hugging Face's, tiktoken's
    b: Positional[Path] = Path("my-llm")  # the other one
    input: tuple[
        Path, ...
    ] = ()  # files or folders to compare on (.txt, .jsonl, .parquet) in place of the first's documents
    text: str = ""  # a text to compare on, typed here
    invalid: str = (
        "strict"  # a text file that isn't UTF-8: strict refuses it, replace reads U+FFFD there, skip leaves it out
    )
    sample_mb: float = 4.0  # how much of each source is read, in millions of characters
    top: int = 8  # how many words are named on which the two differ most
    html: Path | None = None  # a file for a page with the text's tokens in colours, side by side
    data: str = "main"  # the data run whose documents are read
    name: str = "main"  # the tokenizer run's name, where a project is given

    def validate(self) -> None:
        """Raises: ConfigError naming the key."""
        check_sample(self)
        if self.a == self.b:
            raise ConfigError(
                f"b: {self.b} is the first one too; give two, as in `groundup tokenizer compare my-llm tokenizer.json`"
            )

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        return [f"read the tokenizers of {self.a} and {self.b}",
                *describe_sample(self.input, self.text, self.sample_mb, self.html)]  # fmt: skip


@dataclass(frozen=True)
class ConvertConfig:
    """Writes a vocabulary in another program's form, or another program's in ours."""

    project: Positional[Path] = Path(
        "my-llm"
    )  # a project, a checkpoint, or a tokenizer file: ours, Hugging Face's, tiktoken's
    out: Positional[Path] = Path()  # where it is written: a folder for Hugging Face, else a file; it mustn't exist yet
    to: str = (
        "huggingface"  # huggingface (tokenizer.json, with the chat template), tiktoken (a file of ranks), or groundup
    )
    name: str = "main"  # the tokenizer run's name, where a project is given

    def validate(self) -> None:
        """Raises: ConfigError naming the key."""
        if self.out == Path():
            raise ConfigError("out: say where, as in `groundup tokenizer convert my-llm my-tokenizer`")
        if self.to not in ("huggingface", "tiktoken", "groundup"):
            raise ConfigError(f"to: '{self.to}'; expected huggingface, tiktoken or groundup")
        if self.to == "groundup" and self.out.suffix != ".json":
            raise ConfigError(f"out: {self.out}; a file that ends in .json was expected")

    def describe(self) -> list[str]:
        """Returns the lines of --dry-run."""
        return [f"read the tokenizer of {self.project}", f"write {self.out} as {self.to} reads it"]


def check_invalid(invalid: str) -> None:
    """Raises: ConfigError for another way to treat a file that isn't UTF-8."""
    if invalid not in ("strict", "replace", "skip"):
        raise ConfigError(f"invalid: '{invalid}'; expected strict, replace or skip")


def check_sample(config: ShowConfig | CompareConfig) -> None:
    """Raises: ConfigError for a sample or a list of no length."""
    check_invalid(config.invalid)
    if not config.sample_mb > 0:
        raise ConfigError(f"sample_mb: {config.sample_mb} is no length; a positive number was expected")
    if config.top < 1:
        raise ConfigError(f"top: {config.top}; at least 1")


def describe_sample(paths: Sequence[Path], text: str, sample_mb: float, html: Path | None) -> list[str]:
    """Returns the lines of --dry-run about the text to look at, and what is written."""
    where = "the text given" if text else ", ".join(map(str, paths)) or "the project's documents"
    size = "" if text else f", at most {sample_mb:g} million characters of each source"
    return [f"cut {where}{size}", f"write {html}" if html else "print tables; write nothing"]
