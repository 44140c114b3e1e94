"""What `data stats`, `data why`, `data peek` and `data retune` can be told. Never imports numpy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from groundup.base.config import from_dict, keys, load_toml, suggest
from groundup.base.errors import ConfigError
from groundup.base.runs import Run, open_run
from groundup.data.config import BuildConfig

__all__ = ["PeekConfig", "RetuneConfig", "StatsConfig", "WhyConfig", "built", "finished"]


def finished(config: Any) -> Run:
    """Returns the data build that a config names. Raises: DataError for one that isn't there."""
    return open_run(config.project, "data", config.name).require_done(f"data build {config.project}")


def built(run: Run) -> BuildConfig:
    """Returns the config that a data build was made with."""
    toml = run.path / "config.toml"
    return from_dict(BuildConfig, load_toml(toml), str(toml))


@dataclass(frozen=True)
class StatsConfig:
    """The funnel of a finished `data build`."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    html: Path | None = None  # also write a page: the funnel by rule and by source, lengths, languages, examples

    def validate(self) -> None:
        """Raises: GroundupError for a run's name that can't be one."""
        open_run(self.project, "data", self.name)

    def describe(self) -> list[str]:
        """Returns what the command reads and would write."""
        path = open_run(self.project, "data", self.name).path
        return [f"read {path}/stats.json", *([f"read {path}/*.parquet", f"write {self.html}"] if self.html else [])]


@dataclass(frozen=True)
class WhyConfig:
    """What happened to one document."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    document: Positional[str] = ""  # the document's id, or its address
    name: str = "main"  # the run's name

    def validate(self) -> None:
        """Raises: ConfigError when no document is named."""
        open_run(self.project, "data", self.name)
        if not self.document:
            raise ConfigError(
                "document: name one by its id or address, as in `groundup data why my-llm pages.warc.gz:17`"
            )

    def describe(self) -> list[str]:
        """Returns what the command reads."""
        return [f"look for {self.document} in {open_run(self.project, 'data', self.name).path}/*.parquet"]


@dataclass(frozen=True)
class PeekConfig:
    """Read a sample of the documents, kept or dropped, in a pager (plain text where the output isn't a terminal)."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    dropped: bool = False  # the documents that were turned away, with the reason, instead of those that stay
    stage: str = (
        ""  # only what this stage turned away: extract, url, clean, language, quality, decontaminate, duplicates, mix
    )
    rule: str = ""  # only what this rule turned away, as `data stats` names it
    source: str = ""  # only documents of this source
    n: int = 20  # documents shown
    chars: int = 2000  # characters shown of each (0: all)
    seed: int = 0  # another seed, another sample

    @property
    def place(self) -> Literal["kept", "dropped"]:
        """Which documents are meant: a stage or a rule speaks of dropped ones."""
        return "dropped" if self.dropped or self.stage or self.rule else "kept"

    def validate(self) -> None:
        """Raises: ConfigError naming the key with a value that can't be."""
        open_run(self.project, "data", self.name)
        for key, least in {"n": 1, "chars": 0}.items():
            if getattr(self, key) < least:
                raise ConfigError(f"{key}: expected at least {least}, not {getattr(self, key)}")

    def describe(self) -> list[str]:
        """Returns what the command reads."""
        path = open_run(self.project, "data", self.name).path
        chosen = [f"{key} {value}" for key in ("stage", "rule", "source") if (value := getattr(self, key))]
        return [f"show {self.n} {self.place} documents of {path}" + (f" ({', '.join(chosen)})" if chosen else "")]


@dataclass(frozen=True)
class RetuneConfig:
    """Try other thresholds of the quality rules on what they measured, without reading the text again."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    set: tuple[str, ...] = ()  # KEY=VALUE, keys as in `data build`: gopher.min_words=50 (none: list the keys)
    name: str = "main"  # the run's name
    n: int = 5  # documents shown that would leave, and that would come back
    apply: bool = False  # write the changed config to PROJECT/data.toml

    @property
    def target(self) -> Path:
        """The config that `apply` writes."""
        return self.project / "data.toml"

    def values(self) -> dict[str, str]:
        """Returns the text given for each key. Raises: ConfigError for an unknown key, or an entry that isn't KEY=VALUE."""
        known, found = list(keys(BuildConfig)), {}
        for entry in self.set:
            key, equals, text = entry.partition("=")
            if not equals or not text:
                raise ConfigError(f"set: expected KEY=VALUE, say gopher.min_words=50, not {entry!r}")
            if key not in known:
                raise ConfigError(f"set: unknown key '{key}'{suggest(key, known)}")
            found[key] = text
        return found

    def validate(self) -> None:
        """Raises: ConfigError naming the key with a value that can't be."""
        open_run(self.project, "data", self.name)
        if self.n < 0:
            raise ConfigError(f"n: expected 0 or more, not {self.n}")
        if self.apply and not self.set:
            raise ConfigError("apply: nothing is changed; say what with --set KEY=VALUE")
        self.values()

    def describe(self) -> list[str]:
        """Returns what the command reads and would write."""
        path = open_run(self.project, "data", self.name).path
        return [f"read {path}/features.parquet", *([f"write {self.target}"] if self.apply else [])]
