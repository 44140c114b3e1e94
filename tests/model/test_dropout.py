"""Dropout with cheap random bits: its share, its mean, its gradient, and the same draws from the same state."""

import pytest
import torch

from groundup.model.dropout import dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_and_the_scale(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kept = dropout(torch.ones(1000, 1003, dtype=dtype), rate).float()
    share = round(rate * 256) / 256
    assert (kept == 0).float().mean().item() == pytest.approx(share, abs=3e-3)
    assert kept.max().item() == pytest.approx(1 / (1 - share), rel=5e-3)  # of bf16
    assert kept.mean().item() == pytest.approx(1, abs=2e-2)


def test_no_number_depends_on_another() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(1 << 20), 0.25) > 0).float() - 0.75
    for lag in (1, 2, 7, 8, 9, 64):  # eight numbers share a draw
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 1e-3


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
def test_compiled_it_draws_the_same() -> None:
    compiled = torch.compile(lambda x: dropout(2 * x, 0.2) + 1)
    x = torch.randn(33, 17)
    torch.manual_seed(1)
    plain = dropout(2 * x, 0.2) + 1
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(x), plain)
