"""The loss in pieces is the loss, with the same gradients, in a fraction of its memory."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from groundup.model import loss as loss_module
from groundup.model.loss import IGNORED, output_loss, widened

CASES = [(cap, z, ignored) for cap in (0.0, 3.0) for z in (0.0, 0.02) for ignored in (False, True)]


def drawn(dtype: torch.dtype, ignored: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 8, generator=dice, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 8, generator=dice, dtype=dtype, requires_grad=True)
    targets = torch.randint(50, (37,), generator=dice)
    if ignored:
        targets[::3] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize(("cap", "z", "ignored"), CASES)
def test_pieces_come_to_the_whole(cap: float, z: float, ignored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = drawn(torch.float64, ignored)
    logits = widened(hidden @ weight.T, cap)
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    expected = nats + z * logits.logsumexp(-1).square()[targets != IGNORED].sum()
    slopes = torch.autograd.grad(expected / 7, (hidden, weight))
    for piece in (1, 50 * 5, 50 * 37):  # a row at a time, pieces of five and a rest, torch's own
        monkeypatch.setattr(loss_module, "PIECE", piece)
        found, reported = output_loss(hidden, weight, targets, cap, z)
        torch.testing.assert_close((found, reported), (expected, nats))
        assert not reported.requires_grad
        torch.testing.assert_close(torch.autograd.grad(found / 7, (hidden, weight)), slopes)


@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_in_bf16_it_is_as_near_as_torchs_own(cap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = drawn(torch.float32, True)
    exact = torch.autograd.grad(output_loss(hidden, weight, targets, cap)[0], (hidden, weight))
    errors = {}
    for piece in (50 * 5, 50 * 37):
        monkeypatch.setattr(loss_module, "PIECE", piece)
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = output_loss(hidden, weight, targets, cap)
        slopes = torch.autograd.grad(found, (hidden, weight))
        assert [s.dtype for s in slopes] == [torch.float32] * 2
        errors[piece] = max((s - e).norm() / e.norm() for s, e in zip(slopes, exact, strict=True))
    assert errors[50 * 5] < max(1.2 * errors[50 * 37], 4e-3)


def test_without_gradients_and_with_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = drawn(torch.float64, False)
    expected = output_loss(hidden, weight, targets)[0]
    monkeypatch.setattr(loss_module, "PIECE", 200)
    with torch.no_grad():
        assert torch.allclose(output_loss(hidden, weight, targets)[0], expected)
    found = output_loss(hidden.detach(), weight, targets)[0]
    whole = torch.autograd.grad(expected, weight)
    torch.testing.assert_close(torch.autograd.grad(found, weight), whole)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_the_logits_never_stand_all_at_once() -> None:
    script = """
import resource, torch
from groundup.model.loss import PIECE, output_loss
hidden, weight = torch.randn(8192, 64, requires_grad=True), torch.randn(32000, 64, requires_grad=True)
output_loss(hidden[:8], weight, torch.zeros(8, dtype=torch.long))[0].backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
output_loss(hidden, weight, torch.zeros(8192, dtype=torch.long))[0].backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * PIECE))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 5  # pieces in fp32; all the logits would be 15.6, and are held three times
