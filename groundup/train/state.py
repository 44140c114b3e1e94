"""What training needs beside the weights to go on as if nothing had happened: safetensors and JSON, never pickle."""

import platform
import shutil
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup import __version__
from groundup.base.errors import CheckpointError
from groundup.base.files import read_json, write_json
from groundup.base.runs import write_checkpoint
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.model.weights import fill, load_config, load_tensors, save_tensors
from groundup.optim.ema import Average

__all__ = ["Saver", "Snapshot", "load_checkpoint", "snapshot"]

Optimizers = Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, copied, so that training can go on while it is written.

    `weights` are what the model is used with: its average where one is kept; `raw` are then the weights that training goes on
    from. `progress` is JSON: steps, samples, seeds, schedule, versions.
    """

    config: ModelConfig
    tokenizer: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    raw: dict[str, Tensor]
    progress: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Fills a checkpoint folder: the model, its tokenizer, and state/. Raises: StorageError for a full disk."""
        save_tensors(self.weights, folder / "model.safetensors")
        write_json(folder / "config.json", {"format": "groundup", **self.config.to_dict()})
        shutil.copyfile(self.tokenizer, folder / "tokenizer.json")
        (folder / "state").mkdir()
        save_tensors(self.optimizer, folder / "state" / "optimizer.safetensors")
        if self.raw:
            save_tensors(self.raw, folder / "state" / "weights.safetensors")
        write_json(folder / "state" / "progress.json", self.progress)


def snapshot(
    model: Transformer,
    optimizers: Optimizers,
    tokenizer: Path,
    progress: dict[str, Any],
    average: Average | None = None,
) -> Snapshot:
    """Returns a copy of everything that training has at this moment, on the CPU."""
    tensors: dict[str, Tensor] = {}
    for number, optimizer in enumerate(optimizers):
        names = _names(model, optimizer)
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{number}.{key}.{names[index]}": _copy(value) for key, value in values.items()}
    raw = {name: _copy(tensor) for name, tensor in model.state_dict().items()}
    weights = raw if average is None else raw | {name: _copy(tensor) for name, tensor in average.tensors.items()}
    versions = {
        "groundup": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    facts = {"optimizers": _kinds(optimizers), "versions": versions}
    return Snapshot(model.config, tokenizer, weights, tensors, {} if average is None else raw, progress | facts)


def load_checkpoint(
    folder: Path, model: Transformer, optimizers: Optimizers, average: Average | None = None
) -> dict[str, Any]:
    """Returns the progress saved in a checkpoint, after copying weights, optimiser state and average into what is given.

    An average that the checkpoint doesn't hold begins with its weights. Raises: CheckpointError naming what is missing or belongs
    to another model.
    """
    if load_config(folder) != model.config:
        raise CheckpointError(f"{folder}: a checkpoint of another architecture; give this run another --name")
    progress = read_json(folder / "state" / "progress.json")
    if progress["optimizers"] != _kinds(optimizers):
        theirs = ", ".join(progress["optimizers"])
        raise CheckpointError(
            f"{folder}: its state belongs to another optimiser ({theirs}); give this run another --name"
        )
    weights, raw = folder / "model.safetensors", folder / "state" / "weights.safetensors"
    used = load_tensors(weights)
    fill(model, load_tensors(raw) if raw.exists() else used, raw if raw.exists() else weights)
    if average is not None:
        average.load(used)
    tensors = load_tensors(folder / "state" / "optimizer.safetensors")
    for number, optimizer in enumerate(optimizers):
        indices = {name: index for index, name in enumerate(_names(model, optimizer))}
        state: dict[int, dict[str, Tensor]] = {}
        for full, tensor in tensors.items():
            owner, key, name = full.split(".", 2)
            if int(owner) == number:
                state.setdefault(indices[name], {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


class Saver:
    """Writes checkpoints of a run in a thread of its own, one at a time; what goes wrong there is raised by the next call."""

    def __init__(self, run_path: Path, keep: int = 2) -> None:
        self.run_path, self.keep = run_path, keep
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def save(self, step: int, state: Snapshot, spare: Collection[int] = ()) -> None:
        """Begins to write a checkpoint, once the one before it is written; those of the steps in `spare` are never dropped.

        Raises: StorageError or OSError if the one before it couldn't be written.
        """
        self.wait()
        self.thread = threading.Thread(target=self._write, args=(step, state, spare), name="checkpoint")
        self.thread.start()

    def wait(self) -> None:
        """Returns when nothing is being written any more. Raises: what went wrong while it was."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def check(self) -> None:
        """Raises what has gone wrong, without waiting for what is being written."""
        if self.thread is not None and not self.thread.is_alive():
            self.wait()

    def _write(self, step: int, state: Snapshot, spare: Collection[int]) -> None:
        try:
            with write_checkpoint(self.run_path, step, self.keep, spare) as folder:
                state.write(folder)
        except BaseException as error:  # handed to the thread that trains
            self.error = error


def _names(model: Transformer, optimizer: torch.optim.Optimizer) -> list[str]:
    """Returns the names of an optimiser's parameters, in its own order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _kinds(optimizers: Optimizers) -> list[str]:
    return [type(optimizer).__name__ for optimizer in optimizers]


def _copy(value: Any) -> Tensor:
    """Returns a contiguous copy on the CPU that shares no memory with the original."""
    tensor = torch.as_tensor(value).detach()
    return (
        tensor.clone(memory_format=torch.contiguous_format)
        if tensor.device.type == "cpu"
        else tensor.cpu().contiguous()
    )
