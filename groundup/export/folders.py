"""A Hugging Face folder, read: config.json, the tensors (in one file or sharded), the tokenizer. Never a pickle."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.base.errors import CheckpointError, DataError
from groundup.base.files import read_json
from groundup.base.log import progress
from groundup.export.config import TENSORS
from groundup.export.incoming import Incoming, read_words
from groundup.model.huggingface import from_huggingface
from groundup.model.weights import load_tensors

__all__ = ["read_folder", "read_tensors"]

INDEX = "model.safetensors.index.json"
SAFE = "load it once in transformers and write it with save_pretrained(folder), which gives model.safetensors"


def read_folder(folder: Path, tokenizer: Path | None = None) -> Incoming:
    """Returns the model of a Hugging Face folder, its tokenizer from `tokenizer` instead where that is given.

    Raises: CheckpointError or TokenizerError naming the file and what is missing, unknown or damaged.
    """
    values = _config(folder)
    tensors = read_tensors(folder)
    try:
        config, state = from_huggingface(values, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return Incoming(config, state, read_words(tokenizer or folder), str(folder))


def _config(folder: Path) -> dict[str, Any]:
    """Returns the content of config.json."""
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "adapter_config.json").exists():
            raise CheckpointError(f"{folder}: an adapter (LoRA), not a model; merge it into its base model first")
        raise CheckpointError(f"{file}: missing; a Hugging Face folder or nanoGPT's ckpt.pt was expected")
    try:
        values = read_json(file)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: a JSON object was expected")
    if values.get("format") == "groundup":
        raise CheckpointError(
            f"{folder}: a checkpoint of groundup's own; give it to a verb as it is (--start, --checkpoint)"
        )
    return values


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Returns all tensors of a folder. Raises: CheckpointError naming a shard, or a tensor in it, that isn't there."""
    if (folder / TENSORS).exists() or not (folder / INDEX).exists():
        _refuse_pickle(folder)
        return load_tensors(folder / TENSORS)
    tensors: dict[str, Tensor] = {}
    shards = _index(folder / INDEX)
    with progress("reading", len(shards), "files") as bar:
        for name, expected in shards.items():
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder / name}: missing; {INDEX} names it for {len(expected)} tensors")
            found = load_tensors(folder / name)
            if absent := sorted(expected - found.keys()):
                raise CheckpointError(f"{folder / name}: tensor {absent[0]} isn't in it, although {INDEX} says so")
            if extra := sorted(found.keys() - expected):
                raise CheckpointError(f"{folder / name}: tensor {extra[0]} is in it, although {INDEX} doesn't say so")
            tensors |= found
            bar.advance()
    return tensors


def _index(file: Path) -> dict[str, set[str]]:
    """Returns the shards' names with the tensors that each holds."""
    try:
        named = read_json(file)["weight_map"]
        pairs = [(str(tensor), str(shard)) for tensor, shard in named.items()]
    except (DataError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: not an index of safetensors files (no 'weight_map' in it)") from error
    shards: dict[str, set[str]] = {}
    for tensor, shard in pairs:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{file}: {shard!r} isn't the name of a safetensors file beside it")
        shards.setdefault(shard, set()).add(tensor)
    return dict(sorted(shards.items()))


def _refuse_pickle(folder: Path) -> None:
    """Raises: CheckpointError for weights that only a pickle holds."""
    if (folder / TENSORS).exists():
        return
    if found := next(_pickles(folder), None):
        raise CheckpointError(f"{found}: a pickle, which can run anything when it is opened; {SAFE}")


def _pickles(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder that older versions of transformers wrote weights to."""
    for pattern in ("*.bin", "*.pt", "*.pth", "*.bin.index.json"):
        yield from sorted(folder.glob(pattern))
