"""The memory that a plan foresees against what autograd really keeps."""

import pytest
import torch

from groundup.model.config import ModelConfig, MoEConfig, VariantConfig
from groundup.model.transformer import Transformer
from groundup.plan.memory import activation_bytes, training_bytes

SHAPES = [
    ModelConfig(vocab_size=64, context=64, d_model=64, n_layers=4, n_heads=4),
    ModelConfig(vocab_size=64, context=64, d_model=128, n_layers=3, n_heads=4, n_kv_heads=2, dropout=0.1),
    ModelConfig(family="gpt2", vocab_size=64, context=32, d_model=96, n_layers=4, n_heads=4),
    ModelConfig(family="llama", vocab_size=64, context=128, d_model=64, n_layers=4, n_heads=2),
    ModelConfig(family="qwen3_moe", vocab_size=64, context=64, d_model=128, n_layers=3, n_heads=4, moe=MoEConfig(8, 2)),
    ModelConfig(
        vocab_size=64, context=64, d_model=80, n_layers=3, n_heads=4, variant=VariantConfig(activation="relu2")
    ),
]


def kept_bytes(config: ModelConfig, rows: int, precision: str) -> int:
    """Returns the bytes of the distinct tensors that the forward pass saves, weights left out."""
    model, found = Transformer(config, seed=0), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor  # held, or its place would be given to another
        return tensor

    tokens = torch.zeros(rows, config.context, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, precision == "bf16"),
    ):
        hidden = model.hidden(tokens)
    assert hidden.requires_grad
    return sum(t.untyped_storage().nbytes() for t in found.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.family}-{c.d_model}")
def test_activations_are_foreseen_within_a_quarter(config: ModelConfig, precision: str) -> None:
    measured = kept_bytes(config, 8, precision)
    assert activation_bytes(config, 8, precision) == pytest.approx(measured, rel=0.25)


def test_weights_and_optimiser() -> None:
    config = SHAPES[0]
    adamw, muon = (training_bytes(config, 8, optimizer=kind) for kind in ("adamw", "muon"))  # type: ignore[arg-type]
    assert adamw["weights"] == adamw["gradients"] == 4 * config.params()
    assert adamw["optimizer"] == 8 * config.params()
    assert 4 * config.params() < muon["optimizer"] < adamw["optimizer"]
    assert training_bytes(config, 16)["activations"] == 2 * adamw["activations"]
