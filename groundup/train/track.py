"""Dashboards besides metrics.jsonl: TensorBoard, Weights & Biases, trackio. Each is asked for by name and imported only then."""

import importlib
from typing import Any

from groundup.base.errors import ConfigError
from groundup.base.runs import Run
from groundup.train.config import TrackConfig

__all__ = ["Tracker", "open_tracker"]


class Tracker:
    """Takes rows of metrics and does nothing with them; what the dashboards' trackers have in common."""

    def __call__(self, row: dict[str, Any]) -> None:
        """Shows a row: its numbers, at its step."""

    def close(self) -> None:
        """Flushes what is left."""


class _TensorBoard(Tracker):
    """Event files in the run's folder: `tensorboard --logdir my-llm`."""

    def __init__(self, config: TrackConfig, run: Run) -> None:
        writer = importlib.import_module("torch.utils.tensorboard")
        self.writer = writer.SummaryWriter(str(run.path / "tensorboard"))

    def __call__(self, row: dict[str, Any]) -> None:
        for key, value in _numbers(row).items():
            self.writer.add_scalar(key, value, row["step"])

    def close(self) -> None:
        self.writer.close()


class _Online(Tracker):
    """Weights & Biases, or trackio, which has the same functions. A resumed run goes on under its name."""

    def __init__(self, config: TrackConfig, run: Run) -> None:
        self.module = importlib.import_module(config.to)
        stage, name = run.path.parent, run.path.name
        known = {"id": f"{stage.parent.name}-{stage.name}-{name}"} if config.to == "wandb" else {}
        self.module.init(
            project=config.project, name=f"{stage.parent.name}/{stage.name}/{name}", resume="allow", **known
        )

    def __call__(self, row: dict[str, Any]) -> None:
        self.module.log(_numbers(row), step=row["step"])

    def close(self) -> None:
        self.module.finish()


def open_tracker(config: TrackConfig, run: Run, main: bool = True) -> Tracker:
    """Returns the tracker that the config names; on processes that write nothing, one that does nothing.

    Raises: ConfigError naming the package that is missing.
    """
    if config.to == "none" or not main:
        return Tracker()
    try:
        return _TensorBoard(config, run) if config.to == "tensorboard" else _Online(config, run)
    except ImportError as error:
        raise ConfigError(f"train.track.to: {config.to} isn't installed; pip install 'groundup[track]'") from error


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """Returns the row's numbers besides its step."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) and key != "step"}
