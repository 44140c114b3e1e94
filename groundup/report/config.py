"""The configs of `groundup report` and of the three views of `groundup inspect`. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.infer.config import Stage, reads

__all__ = ["InspectAttentionConfig", "InspectConfig", "InspectLogitsConfig", "InspectNeuronsConfig", "ReportConfig"]


@dataclass(frozen=True)
class ReportConfig:
    """`groundup report PROJECT`: one page about a project; `groundup report RUN RUN ...`: one that compares runs of training."""

    project: Positional[Path] = Path("my-llm")  # the project folder (or the first of several runs)
    others: Positional[
        tuple[Path, ...]
    ] = ()  # runs to compare with it: their folders, or projects for their pretraining
    out: Path | None = None  # the page's file; report.html in the project if not given, or compare.html where you are

    @property
    def target(self) -> Path:
        """The file that is written."""
        return self.out or (Path("compare.html") if self.others else self.project / "report.html")

    def validate(self) -> None:
        """Raises: ConfigError if the project or a run isn't a folder, or the target is one."""
        if not self.project.is_dir():
            raise ConfigError(f"{self.project}: no such folder; a project of groundup was expected")
        if missing := [path for path in self.others if not path.is_dir()]:
            raise ConfigError(
                f"{missing[0]}: no such folder; a run or project to compare {self.project} with was expected"
            )
        if self.target.is_dir():
            raise ConfigError(f"--out {self.target} is a folder; name a file such as report.html")

    def describe(self) -> list[str]:
        """Returns what would be read and written."""
        if self.others:
            return [f"compare {', '.join(map(str, (self.project, *self.others)))}", f"write {self.target}"]
        return [f"read the runs in {self.project}", f"write {self.target}"]


@dataclass(frozen=True)
class InspectConfig:
    """What a model reads while it is looked into; each of the three views adds what is its own."""

    project: Positional[Path] = Path("my-llm")  # the project folder (or a run or checkpoint in it)
    text: Positional[str] = ""  # the text that the model reads
    ids: tuple[int, ...] = ()  # token ids that it reads instead of a text
    chat: bool = False  # put the text to it as a question in its chat format
    stage: Stage = "auto"  # whose model: of pretrain, sft, dpo or grpo; auto is the furthest that has finished
    name: str = "main"  # the run's name (with --stage)
    device: str = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    out: Path = Path("inspect.html")  # the page's file

    def validate(self) -> None:
        """Raises: ConfigError if there is nothing to read, or too much of it, or the target is a folder."""
        if not self.text and not self.ids:
            raise ConfigError(
                'text: it is empty; give the model something to read: groundup inspect ... my-llm "Once upon a time"'
            )
        if self.ids and (self.text or self.chat):
            raise ConfigError("ids: token ids stand in the place of a text; leave --text and --chat out")
        if self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a folder; name a file such as inspect.html")

    def describe(self) -> list[str]:
        """Returns what would be read and written."""
        read = f"{len(self.ids)} token ids" if self.ids else f"{self.text!r}{' as a question' if self.chat else ''}"
        return [reads(self.project, self.stage, self.name), f"let it read {read}", f"write {self.out}"]


def _above(key: str, value: int, least: int) -> None:
    """Raises: ConfigError if a number is too small."""
    if value < least:
        raise ConfigError(f"{key}: expected at least {least}, not {value}")


@dataclass(frozen=True)
class InspectAttentionConfig(InspectConfig):
    """`groundup inspect attention`: which token looks at which, in every layer and head."""

    layer: int = -1  # only this layer's heads, counted from 0 (-1: all layers)
    head: int = -1  # only this head of each layer, counted from 0 (-1: all heads)
    seed: int = 0  # of the random tokens on which induction is measured
    out: Path = Path("inspect-attention.html")  # the page's file

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        super().validate()
        for key in ("layer", "head"):
            _above(key, getattr(self, key), -1)
        _above("seed", self.seed, 0)


@dataclass(frozen=True)
class InspectLogitsConfig(InspectConfig):
    """`groundup inspect logits`: what it expects next at every position, and after which layer it does."""

    top_k: int = 10  # how many of the likeliest tokens are listed
    neighbours: int = 8  # how many of the nearest tokens in the embedding are listed
    out: Path = Path("inspect-logits.html")  # the page's file

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        super().validate()
        for key in ("top_k", "neighbours"):
            _above(key, getattr(self, key), 1)


@dataclass(frozen=True)
class InspectNeuronsConfig(InspectConfig):
    """`groundup inspect neurons`: which neurons answer to this text most strongly, to which tokens, and what they say."""

    layer: int = -1  # only this layer's neurons, counted from 0 (-1: all layers)
    count: int = 12  # how many neurons of a layer are listed
    out: Path = Path("inspect-neurons.html")  # the page's file

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        super().validate()
        _above("layer", self.layer, -1)
        _above("count", self.count, 1)
