"""Mixtures of experts: routing, the balance loss, the account of what was sent where, and training with them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from groundup.model.config import ModelConfig, MoEConfig
from groundup.model.layers import Experts, FeedForward
from groundup.model.transformer import Transformer
from groundup.optim import muon

SIZES: dict[str, Any] = {"vocab_size": 50, "context": 24, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 24}


def draw(*shape: int) -> torch.Tensor:
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(3))


def test_with_all_experts_alike_it_is_one_feed_forward_layer() -> None:
    config = ModelConfig("qwen3_moe", **SIZES, moe=MoEConfig(4, 2))
    layer, one = Experts(config), FeedForward(config)
    for parameter in [*one.parameters(), layer.router.weight]:
        torch.nn.init.normal_(parameter, std=0.3)
    for expert in layer.experts:
        expert.load_state_dict(one.state_dict())
    x = torch.randn(2, 7, 32)
    assert torch.allclose(layer(x), one(x), atol=1e-6)


def test_every_expert_has_a_gradient_even_without_a_token() -> None:
    model = Transformer(ModelConfig("qwen3_moe", **SIZES, moe=MoEConfig(16, 1)), seed=1)
    model(draw(1, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    idle = [i for i, n in enumerate(model.expert_tokens()[0]) if n == 0]
    assert len(idle) >= 13
    assert not model.blocks[0].mlp.experts[idle[0]].down.weight.grad.any()


def test_the_account_of_tokens() -> None:
    model = Transformer(ModelConfig("qwen3_moe", **SIZES), seed=1)
    assert model.balance() is None
    model.eval()(draw(2, 9))
    assert model.expert_tokens() == [[0] * 8] * 2  # counted in training only
    model.train()
    for _ in range(2):
        model(draw(2, 9))
    assert [sum(layer) for layer in model.expert_tokens()] == [2 * 2 * 18] * 2
    assert model.expert_tokens() == [[0] * 8] * 2
    assert Transformer(ModelConfig(**SIZES)).expert_tokens() == []
    assert Transformer(ModelConfig(**SIZES)).balance() is None


def test_balance_is_least_when_all_experts_are_equally_busy() -> None:
    layer = Experts(ModelConfig("qwen3_moe", **SIZES, moe=MoEConfig(4, 2)))
    x = torch.eye(4, 32).repeat(8, 1)  # a router that sends token i to experts i and i + 1
    layer.router.weight.data = 20 * torch.eye(4, 32) + 19 * torch.eye(4, 32).roll(1, 0)
    layer.route(x)
    assert layer.balance is not None
    assert layer.balance.item() == pytest.approx(2.0, abs=1e-3)
    layer.route(x[:1].expand(32, 32))  # all to the same two of four
    assert layer.balance.item() == pytest.approx(4.0, abs=1e-3)


def test_the_balance_loss_makes_a_lopsided_router_even() -> None:
    model = Transformer(ModelConfig("qwen3_moe", **SIZES, moe=MoEConfig(8, 2, balance=0.1)), seed=1)
    with torch.no_grad():
        model.embed.weight += 0.1  # all tokens look a little alike,
        for layer in model.expert_layers():
            layer.router.weight[:2] = 0.1  # and the first two experts are everybody's choice
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens, shares = draw(8, 24), []
    for _ in range(60):
        logits = model(tokens[:, :-1])
        balance = model.balance()
        assert balance is not None
        (F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()) + balance).backward()
        optimizer.step()
        optimizer.zero_grad()
        counts = torch.tensor(model.expert_tokens()).float()
        shares.append(float((counts.amax(1) / counts.mean(1)).max()))
    assert max(shares[:3]) > 2.5
    assert shares[-1] < 2.0


def test_muon_trains_the_experts_and_leaves_the_router_to_adam() -> None:
    model = Transformer(ModelConfig("qwen3_moe", **SIZES, moe=MoEConfig(4, 2)), seed=1)
    hidden = {id(weight) for weight, _ in muon.hidden_matrices(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in hidden}
    assert "blocks.1.mlp.experts.3.up.weight" in names
    assert not any("router" in name for name in names)
    assert len(names) == 2 * (2 + 4 * 2)
    before = model.blocks[0].mlp.experts[0].up.weight.clone()
    for optimizer in muon.build(model, 1e-3, dtype=torch.float32):
        model(draw(2, 9)).logsumexp(-1).sum().backward()
        optimizer.step()
    assert not torch.equal(before, model.blocks[0].mlp.experts[0].up.weight)
