"""What is known of a run: its files read once, and the figures that several faults are told by. No torch."""

import statistics
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.align.config import DPOConfig, GRPOConfig, SFTConfig
from groundup.base.config import from_dict, load_toml
from groundup.base.errors import DataError
from groundup.base.files import read_json
from groundup.base.runs import STAGES, Run, checkpoints, open_run
from groundup.doctor.text import Corpus
from groundup.optim.schedule import lr_scale, warmup_steps
from groundup.train.config import PretrainConfig

__all__ = ["CONFIGS", "Facts", "find_run"]

CONFIGS: dict[str, Any] = {"pretrain": PretrainConfig, "sft": SFTConfig, "dpo": DPOConfig, "grpo": GRPOConfig}
INITIAL_SPREAD = 0.02  # the deviation that weights are drawn with; see groundup.model.transformer
SHOWN_TOKENS = 400_000  # of the training text, to compare samples with
END = 0.1  # the share of a run's rows that its last loss is the mean of


def find_run(path: Path) -> Run:
    """Returns the run that a user means by a run's folder, a checkpoint in it, a stage's folder or a project (its pretraining).

    Raises: DataError saying what was looked for.
    """
    path = Path(path)
    inside = [path, path.parent.parent] if path.parent.name == "checkpoints" else [path]
    for candidate in [*inside, path / "main", open_run(path, "pretrain").path]:
        if (candidate / "config.toml").exists() and (candidate / "run.json").exists():
            return Run(candidate)
    raise DataError(f"{path}: no run of training in it (config.toml, run.json); begin with `groundup pretrain {path}`")


class Facts:
    """One run. `inside` looks into a checkpoint (`groundup.doctor.inside.look`; None: not wanted); `rows` stand for its file's."""

    def __init__(
        self, run: Run, inside: Callable[["Facts"], Any] | None = None, rows: list[dict[str, Any]] | None = None
    ) -> None:
        self.run, self._look = run, inside
        stages = {folder: stage for stage, folder in STAGES.items()}
        values = load_toml(run.path / "config.toml")
        self.stage = stages.get(run.path.parent.name, "pretrain")  # trials of a sweep are pretraining too
        if self.stage not in CONFIGS:
            raise DataError(f"{run.path}: a run of `{self.stage}`; the doctor knows {', '.join(CONFIGS)}")
        self.config = from_dict(CONFIGS[self.stage], values, str(run.path / "config.toml"))
        numbered = run.path.parent.name in stages  # a project may have been moved since its config was written
        self.project = run.path.parent.parent if numbered else Path(self.config.project)
        self.loop = self.config.train
        self.info = run.info
        self.rows = run.metrics() if rows is None else rows

    def again(self, rows: list[dict[str, Any]]) -> "Facts":
        """Returns the facts of the same run as they are now, with these rows; what was counted of its text stays."""
        now = Facts(self.run, self._look, rows)
        if "corpus" in self.__dict__:
            now.corpus = self.corpus
        return now

    @property
    def pretraining(self) -> bool:
        """Whether the run learns from token files, rather than from conversations."""
        return self.stage == "pretrain"

    @cached_property
    def losses(self) -> list[tuple[int, float]]:
        """(step, training loss in nats per token) of each row that has one."""
        return [(r["step"], r["loss"]) for r in self.rows if r.get("loss") is not None]

    @cached_property
    def heldout(self) -> list[tuple[int, float]]:
        """(step, held-out loss) of each look at the held-out text."""
        return [(r["step"], r["heldout_loss"]) for r in self.rows if r.get("heldout_loss") is not None]

    def series(self, key: str) -> list[float]:
        """Returns a metric's values, row by row, without those that lack it."""
        return [row[key] for row in self.rows if row.get(key) is not None]

    @property
    def done(self) -> int:
        """Steps taken."""
        return max((row.get("step", 0) for row in self.rows if "nonfinite" not in row), default=0)

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.done >= self.loop.steps

    @property
    def warmup(self) -> int:
        """Steps of warm-up."""
        return warmup_steps(self.loop.warmup, self.loop.steps)

    @property
    def judged(self) -> bool:
        """Whether the run is far enough to be judged by what it has learned: at its end, or long past its warm-up."""
        return self.finished or self.done >= max(2 * self.warmup, 100)

    @cached_property
    def last_loss(self) -> float | None:
        """The mean loss over the last tenth of the rows."""
        values = [loss for _, loss in self.losses]
        return statistics.fmean(values[-max(1, round(END * len(values))) :]) if values else None

    @cached_property
    def params(self) -> int:
        """Trained parameters."""
        model = getattr(self.config, "model", None)
        return model.params() if model is not None else int(self.info.get("results", {}).get("params", 0))

    @property
    def planned_tokens(self) -> int:
        """Tokens that all the steps will have read."""
        return self.loop.steps * self.loop.batch_tokens

    @property
    def tokens_per_s(self) -> float:
        """The median rate over the rows."""
        rates = self.series("tokens_per_s")
        return statistics.median(rates) if rates else 0.0

    @cached_property
    def reach(self) -> float:
        """How far the steps taken could have moved a weight at most, if all had pointed the same way.

        AdamW moves a weight by about its rate in a step. Muon's step is a matrix whose singular values are its rate: an
        entry of it is the rate over the root of the width.
        """
        optim, steps = self.loop.optim, self.loop.steps
        scales = (
            lr_scale(i, steps, self.warmup, self.loop.schedule, optim.min_ratio, optim.decay) for i in range(self.done)
        )
        total = sum(scales)
        adam = total * self.loop.lr
        if optim.kind != "muon":
            return adam
        return max(adam, total * optim.muon_lr / self.config.model.d_model**0.5)

    @cached_property
    def corpus(self) -> Corpus | None:
        """The token files that the run reads, or None where they aren't there (any more)."""
        if not self.pretraining:
            return None
        folder = open_run(self.project, "shards", self.config.shards).path
        return Corpus(folder) if (folder / "train" / "index.json").exists() else None

    @cached_property
    def sample_of_text(self) -> str:
        """A part of the training text, as text; empty where the token files or their tokenizer aren't there."""
        if self.corpus is None:
            return ""
        from groundup.tokenizer.io import load

        entry = self.info.get("inputs", {}).get("tokenizer")
        path = self.run.path / entry["path"] if entry else open_run(self.project, "tokenizer").path / "tokenizer.json"
        if not path.exists() or (tokenizer := load(path)).fingerprint != self.corpus.train.tokenizer:
            return ""
        return tokenizer.decode(self.corpus.read[:SHOWN_TOKENS].tolist())

    @cached_property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint, or None."""
        found = checkpoints(self.run.path)
        return found[-1] if found else None

    @cached_property
    def inside(self) -> Any:
        """What the newest checkpoint's weights and activations show (`groundup.doctor.inside.Inside`), or None."""
        return self._look(self) if self._look is not None and self.checkpoint is not None else None

    @cached_property
    def plan(self) -> dict[str, Any] | None:
        """The content of the project's plan.json, or None."""
        path = open_run(self.project, "plan").path / "plan.json"
        return read_json(path) if path.exists() else None

    def samples(self, most: int = 3) -> Iterator[str]:
        """Yields the last texts that the run wrote while it trained."""
        for file in sorted((self.run.path / "samples").glob("*.txt"))[-most:]:
            yield file.read_text(encoding="utf-8", errors="replace")
