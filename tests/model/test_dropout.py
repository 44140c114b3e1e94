"""Dropout with cheap random bits: its share, its mean, its gradient, and the same draws from the same state, compiled or not."""

import pytest
import torch

from groundup.model.config import ModelConfig
from groundup.model.dropout import CHUNK, dropout
from groundup.model.transformer import Transformer
from groundup.train.compiling import compile_blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_and_the_scale(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kept = dropout(torch.ones(1000, 1003, dtype=dtype), rate).float()
    assert (kept == 0).float().mean().item() == pytest.approx(rate, abs=2e-3)
    assert kept.max().item() == pytest.approx(1 / (1 - rate), rel=5e-3)  # of bf16
    assert kept.mean().item() == pytest.approx(1, abs=2e-2)


def test_no_number_depends_on_another() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(1 << 20), 0.25) > 0).float() - 0.75
    for lag in (1, 2, 3, 7, 8, 64, 256, 384, 65536, CHUNK):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 1e-3
    counts = torch.bincount((kept.view(-1, 8) > 0).int() @ (2 ** torch.arange(8)).int(), minlength=256) / (1 << 17)
    chances = torch.tensor([0.75 ** bin(k).count("1") * 0.25 ** (8 - bin(k).count("1")) for k in range(256)])
    assert (((counts - chances) ** 2 / chances).sum() * (1 << 17)).item() < 350  # chi squared, 255 degrees: 331 at 0.1%


def test_no_draw_depends_on_another() -> None:
    torch.manual_seed(0)
    draws = torch.stack([(dropout(torch.ones(5000), 0.5) > 0).float() - 0.5 for _ in range(200)])
    between = (draws @ draws.T / 5000).fill_diagonal_(0)
    assert between.abs().max() < 6 * 0.25 / 5000**0.5  # six deviations, of 20,000 pairs
    assert draws.mean(0).abs().max() < 6 * 0.5 / 200**0.5  # no place is preferred


def test_the_gradient_passes_where_the_number_passed() -> None:
    x = torch.randn(64, 65, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), y.detach())


def test_the_same_state_gives_the_same_draws() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = dropout(torch.ones(999), 0.2)
    assert not torch.equal(first, dropout(torch.ones(999), 0.2))
    torch.set_rng_state(state)
    assert torch.equal(first, dropout(torch.ones(999), 0.2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's compiler says it of itself
def test_compiled_it_drops_the_same() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return dropout(dropout(2 * x, 0.2) + 1, 0.2)

    compiled = torch.compile(
        twice, options={"fallback_random": True}
    )  # seeds from torch's generator, as eager code has
    x, found = torch.randn(33, 17, requires_grad=True), []
    for function in (twice, compiled):
        torch.manual_seed(1)
        y = function(x)
        found.append((y, *torch.autograd.grad(y.sin().sum(), x)))
    torch.testing.assert_close(found[0], found[1])
    first, again = compiled(torch.ones(1000)), compiled(torch.ones(1000))
    assert not torch.equal(first, again)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated", "ignore:The .grad attribute of a Tensor")
def test_a_compiled_model_drops_what_the_eager_one_drops() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    config = ModelConfig(vocab_size=50, context=16, d_model=32, n_layers=2, n_heads=2, dropout=0.3)
    model, tokens, found = Transformer(config, seed=0).train(), torch.randint(0, 50, (3, 16)), []
    try:
        for compiled in (False, True):
            if compiled:
                compile_blocks(model, torch.device("cpu"))
            torch.manual_seed(1)
            loss, _ = model.loss(tokens, tokens)
            found.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    finally:
        torch.use_deterministic_algorithms(before)
    torch.testing.assert_close(found[0], found[1])
