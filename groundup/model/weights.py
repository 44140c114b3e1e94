"""Weights on disk: a folder with safetensors beside config.json."""

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.base.errors import CheckpointError, ConfigError, DataError
from groundup.base.files import atomic_file, os_error, read_json, write_json
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer

__all__ = ["load_config", "load_model", "load_tensors", "save_model", "save_tensors"]


def save_tensors(tensors: dict[str, Tensor], file: Path, shown: Path | None = None) -> None:
    """Writes a safetensors file. Raises: StorageError for a full disk; it names `shown`, where `file` is a temporary name.

    The library reports what the operating system says as an error of its own, which nobody else would recognise.
    """
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise os_error(OSError(int(number[1]), os.strerror(int(number[1]))), shown or file) from error


def save_model(model: Transformer, folder: Path | str) -> None:
    """Writes model.safetensors and config.json into the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(folder / "model.safetensors") as temporary:
        save_tensors(tensors, temporary, folder / "model.safetensors")
    write_json(folder / "config.json", {"format": "groundup", **model.config.to_dict()})


def load_config(folder: Path | str) -> ModelConfig:
    """Returns the config of a checkpoint folder. Raises: CheckpointError if there is none, or not one of ours."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; a checkpoint of groundup was expected there")
    try:
        values = read_json(file)
        if not isinstance(values, dict) or values.pop("format", None) != "groundup":
            raise CheckpointError(f'{file}: not a model of groundup (its "format" isn\'t "groundup")')
        return ModelConfig.from_dict(values, str(file))
    except (ConfigError, DataError) as error:
        raise CheckpointError(str(error)) from error


def load_tensors(file: Path | str) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file. Raises: CheckpointError naming a file that is missing, cut off or lying."""
    file = Path(file)
    if not file.is_file():
        raise CheckpointError(f"{file}: missing from the checkpoint")
    try:
        return load_file(file)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({str(error).splitlines()[0]})") from error


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> Transformer:
    """Returns the model of a checkpoint folder, in evaluation mode.

    Raises: CheckpointError naming the file, or the tensor that is missing, unknown or of another shape.
    """
    folder = Path(folder)
    config = load_config(folder)
    tensors = load_tensors(folder / "model.safetensors")
    model = Transformer(config, draw=False)  # faster, and the caller's random numbers are left alone
    fill(model, tensors, folder / "model.safetensors")
    return model.to(device).eval()


def fill(model: Transformer, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Copies tensors into the model. Raises: CheckpointError naming the first that is missing, unknown or misshapen."""
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{where}: tensor {name} is missing; the file belongs to another architecture")
        if tensors[name].shape != tensor.shape:
            shapes = f"{tuple(tensors[name].shape)}, the config expects {tuple(tensor.shape)}"
            raise CheckpointError(f"{where}: tensor {name} has shape {shapes}")
        if not tensors[name].is_floating_point():
            raise CheckpointError(
                f"{where}: tensor {name} has dtype {tensors[name].dtype}, numbers with a point were expected"
            )
    if extra := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(f"{where}: tensor {extra[0]} is unknown to a {model.config.family} model of this config")
    model.load_state_dict(tensors)
