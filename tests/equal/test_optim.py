"""Plain optimisers against the fast ones."""

import pytest
import torch
from torch import nn

from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.optim import adamw, muon, plain
from groundup.optim.ema import Average


def small(seed: int = 0, **given: object) -> Transformer:
    shape = {"vocab_size": 40, "context": 8, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, **given}
    return Transformer(ModelConfig(**shape), seed=seed)  # type: ignore[arg-type]


def test_adamw_step_equals_the_fused_kernel() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 7)
    lr, decay, betas, eps = 3e-3, 0.1, (0.9, 0.95), 1e-8
    optimizer = adamw.build(layer, lr, decay, betas, eps)
    mine = {
        name: (p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)) for name, p in layer.named_parameters()
    }
    for step in range(1, 8):
        for name, p in layer.named_parameters():
            p.grad = torch.randn_like(p)
            weight, mean, square = mine[name]
            mine[name] = plain.adamw_step(
                weight, p.grad, mean, square, step, lr, betas, eps, decay if p.ndim == 2 else 0.0
            )
        optimizer.step()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(p.detach(), mine[name][0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 20), (1, 6)])
def test_orthogonalise_equals_plain_and_makes_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    fast = muon.orthogonalise(matrix[None], torch.float32)[0]
    torch.testing.assert_close(fast, plain.orthogonalise(matrix), atol=1e-5, rtol=1e-4)
    values = torch.linalg.svdvals(fast)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_step_equals_plain_with_the_stacked_matrices_taken_apart() -> None:
    model = small()
    hidden = muon.hidden_matrices(model)
    assert [tuple(p.shape) for p, _ in hidden[:3]] == [(64, 32), (32, 32), (2 * model.config.ff_size, 32)]
    assert hidden[0][1] == (32, 16, 16)
    optimizer = muon.Muon(hidden, lr=0.02, weight_decay=0.05, dtype=torch.float32)
    mine = [[(m.clone(), torch.zeros_like(m)) for m in p.detach().split(rows)] for p, rows in hidden]
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        for (p, rows), parts in zip(hidden, mine, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            for i, gradient in enumerate(p.grad.split(rows)):
                weight, momentum = parts[i]
                parts[i] = plain.muon_step(weight, gradient, momentum, 0.02, 0.95, 0.05)
        optimizer.step()
    for (p, _), parts in zip(hidden, mine, strict=True):
        torch.testing.assert_close(p.detach(), torch.cat([w for w, _ in parts]), atol=1e-5, rtol=1e-4)


def test_muon_agrees_with_torch_on_a_matrix() -> None:
    theirs, ours = (nn.Parameter(torch.randn(16, 8, generator=torch.Generator().manual_seed(3))) for _ in range(2))
    peer = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original")
    mine = muon.Muon([(ours, (16,))], lr=0.02)
    for step in range(3):
        gradient = torch.randn(16, 8, generator=torch.Generator().manual_seed(10 + step))
        theirs.grad, ours.grad = gradient.clone(), gradient.clone()
        peer.step()
        mine.step()
    assert (theirs - ours).abs().max() < 0.02 * 3 * 0.05  # both work in bf16; steps are about 0.02


def test_ema_step_is_the_running_average_and_torchs() -> None:
    layer = nn.Linear(4, 3)
    average, decay = Average(layer, 0.8), 0.8
    mine = {name: p.detach().clone() for name, p in layer.named_parameters()}
    peer = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))
    peer.update_parameters(layer)  # its first call copies
    for step in range(60):
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(torch.randn_like(p))
        average.update(step)
        mine = {name: plain.ema_step(mine[name], p.detach(), step, decay) for name, p in layer.named_parameters()}
        if step == 40:  # from here on nothing is left of the beginning's smaller share
            peer.module.load_state_dict(average.tensors)
        elif step > 40:
            peer.update_parameters(layer)
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor, mine[name], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tensor, peer.module.state_dict()[name], atol=1e-5, rtol=1e-5)
    with average.inside(layer):
        assert torch.equal(layer.weight, average_of(average, peer)), "the model holds the average inside"
    assert not torch.allclose(layer.weight, average.tensors["weight"])


def average_of(average: Average, peer: torch.optim.swa_utils.AveragedModel) -> torch.Tensor:
    """The average as it was before it was exchanged with the weights: what the peer holds, to rounding."""
    weights = average.named["weight"].detach()
    torch.testing.assert_close(weights, peer.module.weight.detach(), atol=1e-5, rtol=1e-5)
    return weights
