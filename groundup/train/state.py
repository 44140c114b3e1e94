"""What training needs beside the weights to go on as if nothing had happened: safetensors and JSON, never pickle."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from groundup.base.errors import CheckpointError
from groundup.base.files import read_json, write_json
from groundup.model.transformer import Transformer
from groundup.model.weights import fill, load_config, load_tensors, save_model

__all__ = ["load_checkpoint", "save_checkpoint"]


def _names(model: Transformer, optimizer: torch.optim.Optimizer) -> list[str]:
    """Returns the names of an optimiser's parameters, in its own order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


@contextmanager
def _system_errors(folder: Path) -> Iterator[None]:
    """Turns what safetensors says of a full disk into the OSError that it was, so that the user is told as everywhere."""
    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise


def _kinds(optimizers: Sequence[torch.optim.Optimizer]) -> list[str]:
    return [type(optimizer).__name__ for optimizer in optimizers]


def save_checkpoint(
    folder: Path,
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    tokenizer: Path,
    progress: dict[str, Any],
) -> None:
    """Fills a checkpoint folder: the model, its tokenizer, and state/ with the optimisers' tensors and `progress`."""
    with _system_errors(folder):
        save_model(model, folder)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    tensors: dict[str, torch.Tensor] = {}
    for number, optimizer in enumerate(optimizers):
        names, state = _names(model, optimizer), optimizer.state_dict()["state"]
        for index, values in state.items():
            for key, value in values.items():
                tensors[f"{number}.{key}.{names[index]}"] = torch.as_tensor(value).detach().cpu().contiguous()
    (folder / "state").mkdir()
    with _system_errors(folder):
        save_file(tensors, folder / "state" / "optimizer.safetensors")
    write_json(
        folder / "state" / "progress.json", progress | {"optimizers": _kinds(optimizers), "torch": torch.__version__}
    )


def load_checkpoint(folder: Path, model: Transformer, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Returns the progress saved in a checkpoint, after copying weights and optimiser state into what is given.

    Raises: CheckpointError naming what is missing or belongs to another model.
    """
    if load_config(folder) != model.config:
        raise CheckpointError(f"{folder}: a checkpoint of another architecture; give this run another --name")
    fill(model, load_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    progress = read_json(folder / "state" / "progress.json")
    if progress["optimizers"] != _kinds(optimizers):
        raise CheckpointError(
            f"{folder}: its state belongs to another optimiser ({', '.join(progress['optimizers'])}); give this run another --name"
        )
    tensors = load_tensors(folder / "state" / "optimizer.safetensors")
    for number, optimizer in enumerate(optimizers):
        indices = {name: index for index, name in enumerate(_names(model, optimizer))}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for full, tensor in tensors.items():
            owner, key, name = full.split(".", 2)
            if int(owner) == number:
                state.setdefault(indices[name], {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress
