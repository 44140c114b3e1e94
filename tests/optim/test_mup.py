"""muP: what a step changes inside the model doesn't depend on its width; without muP it grows."""

import pytest
import torch
import torch.nn.functional as F

from groundup.model.config import ModelConfig, VariantConfig
from groundup.model.transformer import Transformer
from groundup.optim import adamw, muon

WIDTHS = (32, 64, 128, 256)


def model(width: int, base: int, family: str = "qwen3") -> Transformer:
    shape = ModelConfig(family=family, vocab_size=64, context=32, d_model=width, n_layers=2, n_heads=width // 16,  # type: ignore[arg-type]
                        variant=VariantConfig(mup_base=base))  # fmt: skip
    return Transformer(shape, seed=0)


def moved(width: int, base: int, family: str, kind: str = "adamw") -> tuple[float, float]:
    """Returns by how much four steps change the logits and the last block's output, per number."""
    network, tokens = model(width, base, family), torch.randint(64, (8, 33), generator=torch.Generator().manual_seed(0))
    optimizers: list[torch.optim.Optimizer]
    if kind == "muon":
        optimizers = muon.build(network, 1e-2, 0.02, dtype=torch.float32)
    else:
        optimizers = [adamw.build(network, 1e-2, width_multiple=network.config.width_multiple)]
    ends: list[torch.Tensor] = []
    network.blocks[-1].register_forward_hook(lambda _, __, x: ends.append(x.detach()))
    first = network(tokens[:, :-1]).detach()
    for _ in range(4):
        F.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    last = network(tokens[:, :-1]).detach()
    return (last - first).abs().mean().item(), (ends[-1] - ends[0]).abs().mean().item()


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_coordinate_check(family: str) -> None:
    with_mup = [moved(width, 32, family) for width in WIDTHS]
    without = [moved(width, 0, family) for width in WIDTHS]
    for number, least in ((0, 0.4), (1, 0.75)):  # the fresh output layer's part of the logits falls as 1 / sqrt(m)
        sizes, grown = [m[number] for m in with_mup], [m[number] for m in without]
        assert least * sizes[0] < min(sizes) <= max(sizes) < 1.02 * sizes[0]
        assert grown[-1] > 2.5 * grown[0]


def test_muon_needs_it_only_for_the_rest() -> None:
    sizes = [moved(width, 32, "qwen3", "muon")[0] for width in WIDTHS]
    assert max(sizes) < 2 * min(sizes)


def test_what_is_summed_over_the_width_takes_smaller_steps_and_decays_as_before() -> None:
    network = model(128, 32)
    names = {id(p): name for name, p in network.named_parameters()}
    groups = adamw.build(network, 1e-2, 0.1, width_multiple=4.0).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    for group in groups:
        assert group["lr"] == group["initial_lr"]
        for p in group["params"]:
            summed = names[id(p)] == "norm.weight" or (names[id(p)].startswith("blocks.") and p.ndim == 2)
            assert group["lr"] == (2.5e-3 if summed else 1e-2)
            assert group["lr"] * group["weight_decay"] == pytest.approx(1e-3 if p.ndim == 2 else 0)
