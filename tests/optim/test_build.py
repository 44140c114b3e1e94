"""Which parameter goes to which optimiser, and which is decayed."""

import pytest
import torch

from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.optim import adamw, muon

FAMILIES = ("qwen3", "llama", "gpt2", "transformer2017")


def model(family: str, **given: object) -> Transformer:
    shape = {
        "vocab_size": 64,
        "context": 16,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "tie_embeddings": False,
        **given,
    }
    return Transformer(ModelConfig(family=family, **shape), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_adamw_decays_matrices_only(family: str) -> None:
    network = model(family)
    decayed, kept = adamw.build(network, 1e-3, 0.1).param_groups
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in kept["params"])
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_takes_the_blocks_matrices_and_adamw_all_else(family: str) -> None:
    network = model(family)
    first, second = muon.build(network, 1e-3, 0.02)
    names = {id(p): name for name, p in network.named_parameters()}
    hidden = {names[id(p)] for group in first.param_groups for p in group["params"]}
    rest = {names[id(p)] for group in second.param_groups for p in group["params"]}
    assert hidden == {n for n, p in network.named_parameters() if n.startswith("blocks.") and p.ndim == 2}
    assert hidden | rest == set(names.values())
    assert not hidden & rest


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_few_steps_learn(kind: str) -> None:
    network, tokens = model("qwen3"), torch.arange(16)[None].repeat(2, 1)
    optimizers = [adamw.build(network, 1e-2)] if kind == "adamw" else muon.build(network, 1e-2, 0.02)
    losses = []
    for _ in range(15):
        logits = network(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
