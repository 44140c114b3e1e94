"""What `groundup eval` can be told. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.base.runs import open_run

__all__ = ["EvalConfig", "PerplexityConfig", "STAGE_NAMES", "stage_run"]

STAGE_NAMES = {"base": "pretrain", "sft": "sft", "dpo": "dpo", "grpo": "grpo"}  # as results name it -> as the verb does


def stage_run(stage: str) -> tuple[str, str]:
    """Returns (stage, run) of "sft", "base", "pretrain" or "sft/continued". Raises: ConfigError for another word."""
    word, _, name = stage.partition("/")
    known = {**STAGE_NAMES, "pretrain": "pretrain"}
    if word not in known:
        raise ConfigError(f"stage: expected all, {', '.join(STAGE_NAMES)}, or a run as in sft/main, not {stage!r}")
    return known[word], name or "main"


@dataclass(frozen=True)
class EvalConfig:
    """`groundup eval`: how good is each stage's model?"""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the evaluation run's name
    stage: str = "all"  # base, sft, dpo, grpo, one run of a stage as in sft/continued, several with commas, or all
    problems: Path | None = None  # JSONL of held-out problems (none: tasks/problems-test.jsonl in the project)
    documents: Path | None = None  # Parquet of held-out documents (none: 01-data/main/heldout.parquet)
    limit: int = 0  # use only the first so many problems (0: all)
    most_bytes: int = 0  # read only so much of the held-out text, in whole documents (0: all)
    samples: int = 8  # sampled answers a problem, at temperature 1
    max_tokens: int = 32  # the most tokens of an answer
    seed: int = 0  # of sampling and of the bootstrap
    device: str = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    threads: int = 0  # CPU threads (0: all cores)

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        for key in ("samples", "max_tokens"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}: expected at least 1, not {getattr(self, key)}")
        for key in ("limit", "most_bytes", "threads", "seed"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key}: expected at least 0, not {getattr(self, key)}")
        if self.stage != "all":
            for stage in self.stage.split(","):
                stage_run(stage)

    @property
    def problems_path(self) -> Path:
        """The JSONL file of problems."""
        return self.problems or self.project / "tasks" / "problems-test.jsonl"

    @property
    def documents_path(self) -> Path:
        """The Parquet file of held-out documents."""
        return self.documents or self.project / "01-data" / "main" / "heldout.parquet"

    def stages(self) -> list[tuple[str, Path]]:
        """Returns (name in the results, run folder) of each stage asked for; with "all", of each that has finished."""
        if self.stage == "all":
            runs = {name: open_run(self.project, verb) for name, verb in STAGE_NAMES.items()}
            return [(name, run.path) for name, run in runs.items() if run.done]
        found = []
        for stage in self.stage.split(","):
            verb, run_name = stage_run(stage)
            label = next(name for name, known in STAGE_NAMES.items() if known == verb)
            label += "" if run_name == "main" else f"-{run_name}"
            found.append((label, open_run(self.project, verb, run_name).path))
        return found

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        stages = ", ".join(f"{name} ({path})" for name, path in self.stages()) or "no finished stage yet"
        return [
            f"evaluate {stages}",
            f"read {self.documents_path} (bits per byte) and {self.problems_path} ({1 + self.samples} answers a problem)",
            f"write {open_run(self.project, 'eval', self.name).path}/<stage>.json",
        ]


@dataclass(frozen=True)
class PerplexityConfig:
    """`groundup eval perplexity`: how well a model of ours foretells each document, as a column to filter on."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    stage: str = "base"  # whose model: base, sft, ..., or one run of a stage as in pretrain/small
    model: Path | None = None  # a run's folder or a checkpoint instead, of any project
    name: str = "main"  # the data build whose documents are read: kept, held out and dropped
    input: tuple[Path, ...] = ()  # read these Parquet files of documents instead
    out: Path | None = None  # the Parquet file to write: id, bits_per_byte (default: PROJECT/perplexity.parquet)
    max_chars: int = 4000  # only the beginning of a longer document is read (0: all of it)
    device: str = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one
    threads: int = 0  # CPU threads (0: all cores)

    @property
    def run(self) -> Path:
        """The folder of the model's run."""
        if self.model is not None:
            return self.model
        stage, name = stage_run(self.stage)
        return open_run(self.project, stage, name).path

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files to read, the default filled in."""
        build = open_run(self.project, "data", self.name).path
        return self.input or tuple(build / f"{place}.parquet" for place in ("documents", "heldout", "dropped"))

    @property
    def target(self) -> Path:
        """The file to write, the default filled in."""
        return self.out or self.project / "perplexity.parquet"

    def validate(self) -> None:
        """Raises: GroundupError for a number below 0, a stage that there isn't, or a build that isn't there."""
        for key in ("max_chars", "threads"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key}: expected at least 0, not {getattr(self, key)}")
        if self.model is None:
            stage_run(self.stage)
        if not self.input:
            open_run(self.project, "data", self.name).require_done(f"data build {self.project}")

    def describe(self) -> list[str]:
        """Returns what the command reads and would write."""
        return [f"read the model of {self.run}", *(f"score {path}" for path in self.inputs), f"write {self.target}"]
