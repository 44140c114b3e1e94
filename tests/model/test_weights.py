"""Checkpoints on disk: there and back, and every way in which one can be wrong."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.base.errors import CheckpointError
from groundup.model.config import FAMILIES, ModelConfig
from groundup.model.huggingface import to_huggingface
from groundup.model.transformer import Transformer
from groundup.model.weights import load_config, load_model, load_tensors, save_model

CONFIG = ModelConfig(vocab_size=50, context=24, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(Transformer(CONFIG, seed=1), tmp_path)
    return tmp_path


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(family: str, tie: bool, tmp_path: Path) -> None:
    model = Transformer(
        ModelConfig(family, vocab_size=50, context=24, d_model=32, n_layers=2, tie_embeddings=tie), seed=1
    )
    save_model(model, tmp_path)
    state = torch.get_rng_state()
    back = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert back.config == model.config
    assert not back.training
    assert {k: v.tolist() for k, v in back.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    assert json.loads((tmp_path / "config.json").read_text())["format"] == "groundup"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, str(folder)):
        assert word in message


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Rewrites the weights with some tensors replaced, added or (None) removed."""
    state = load_file(folder / "model.safetensors") | {name.replace("__", "."): t for name, t in tensors.items()}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, folder / "model.safetensors")


def test_missing_extra_and_misshapen_tensors_are_named(folder: Path) -> None:
    change(folder, norm__weight=None)
    refused(folder, "norm.weight", "missing")
    change(folder, norm__weight=torch.ones(31))
    refused(folder, "norm.weight", "(31,)", "(32,)")
    change(folder, norm__weight=torch.ones(32, dtype=torch.int32))
    refused(folder, "norm.weight", "int32")
    change(folder, norm__weight=torch.ones(32), surprise=torch.ones(1))
    refused(folder, "surprise", "unknown")
    change(folder, surprise=None)
    assert load_model(folder).config == CONFIG


def test_another_architecture_is_named(folder: Path) -> None:
    values = CONFIG.to_dict() | {"format": "groundup"}
    for other, word in (
        ({"family": "gpt2", "n_kv_heads": 0}, "missing"),
        ({"d_model": 64}, "(50, 32)"),
        ({"n_layers": 1}, "blocks.1."),
    ):
        (folder / "config.json").write_text(json.dumps(values | other))
        refused(folder, word)


def test_a_config_that_is_not_ours(folder: Path) -> None:
    file = folder / "config.json"
    for content, word in (
        ('{"model_type": "gpt2"}', "not a model of groundup"), ("[]", "not a model of groundup"), ("{", "not JSON"),
        ('{"format": "groundup", "n_embd": 3}', "n_embd"), ('{"format": "groundup", "d_model": "wide"}', "d_model"),
        ('{"format": "groundup", "d_model": 33}', "not divisible"),
    ):  # fmt: skip
        file.write_text(content)
        refused(folder, word)
    file.unlink()
    refused(folder, "config.json", "missing")
    with pytest.raises(CheckpointError, match="missing"):
        load_config(folder / "elsewhere")


def test_damaged_files(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    lying = json.loads(json.dumps(header))
    lying["norm.weight"]["data_offsets"][1] += 4 * 10**9
    bent = json.loads(json.dumps(header))
    bent["norm.weight"]["shape"] = [64]
    for content in (
        b"", b"x", whole[:-10], whole[: len(whole) // 2], whole + b"more", struct.pack("<Q", 10**12) + whole[8:],
        struct.pack("<Q", length) + b"{" * length + whole[8 + length :],
        *(struct.pack("<Q", len(h)) + h + whole[8 + length :] for h in (json.dumps(lying).encode(), json.dumps(bent).encode())),
    ):  # fmt: skip
        file.write_bytes(content)
        refused(folder, "not a whole safetensors file")
    file.unlink()
    refused(folder, "missing")
    with pytest.raises(CheckpointError, match="missing"):
        load_tensors(file)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk; it would hold for this whole process, so another runs it."""
    code = f"""
import resource
from pathlib import Path
from groundup.base.errors import StorageError
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
model, folder = Transformer(ModelConfig(vocab_size=50, d_model=64), seed=1), Path({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    save_model(model, folder)
except StorageError as error:
    assert str(error).startswith(str(folder / "model.safetensors")), error
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_2017_has_no_class_at_hugging_face() -> None:
    with pytest.raises(CheckpointError, match="no class in transformers"):
        to_huggingface(Transformer(ModelConfig("transformer2017", vocab_size=50, d_model=32)))
