"""plain_numpy.py against plain.py: same weights, same logits, and the hand-written gradients are autograd's, in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model import plain
from groundup.model import plain_numpy as lesson

CONFIG = lesson.Config(vocab_size=60, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48)
NAMES = {"query": "attention.query", "key": "attention.key", "value": "attention.value", "out": "attention.out",
         "query_norm": "attention.query_norm", "key_norm": "attention.key_norm", "norm1": "norm1", "norm2": "norm2",
         "gate": "ff.gate", "up": "ff.up", "down": "ff.down"}  # fmt: skip
TOLERANCE = 1e-5  # of the largest number compared; what is met is 1e-12


def torch_name(name: str) -> str:
    layer, _, rest = name.rpartition(".")
    return f"blocks.{layer}.{NAMES[rest]}.weight" if layer else f"{name}.weight"


def stirred(seed: int = 0) -> lesson.Weights:
    """Returns weights off their start, so that a norm's gain of 1 hides nothing."""
    rng = np.random.default_rng(seed)
    return {n: w + 0.1 * rng.standard_normal(w.shape) for n, w in lesson.initialise(CONFIG, seed, np.float64).items()}


def twin(weights: lesson.Weights) -> plain.ModernTransformer:
    """Returns PyTorch's lesson with these weights."""
    model = plain.ModernTransformer(plain.ModernConfig(**vars(CONFIG))).double()
    model.load_state_dict({torch_name(name): torch.from_numpy(weight.copy()) for name, weight in weights.items()})
    return model


def apart(ours: np.ndarray, theirs: Tensor) -> float:
    """Returns the largest difference, as a share of the largest number."""
    mine, expected = np.asarray(ours), theirs.detach().numpy()
    assert mine.shape == expected.shape
    return float(np.abs(mine - expected).max() / np.abs(expected).max())


def same(ours: np.ndarray, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert apart(ours, theirs) <= tolerance


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def same_gradients(y: Tensor, inputs: list[Tensor], ours: list[np.ndarray], d_y: Tensor) -> None:
    for mine, theirs in zip(ours, torch.autograd.grad(y, inputs, d_y), strict=True):
        same(mine, theirs, 1e-10)


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def test_logits_loss_and_every_gradient_equal_autograds(differ: Callable[[str, str, float, float], None]) -> None:
    weights, rng = stirred(), np.random.default_rng(1)
    model = twin(weights)
    tokens, targets = rng.integers(60, size=(2, 3, 11))
    logits, saved = lesson.forward(weights, tokens, CONFIG)
    loss, d_logits = lesson.cross_entropy(logits, targets)
    grads = lesson.backward(d_logits, saved, weights, CONFIG)
    expected = model(torch.from_numpy(tokens))
    differ("plain_numpy.py, plain.py", "logits in float64", apart(logits, expected), TOLERANCE)
    cost = F.cross_entropy(expected.flatten(0, 1), torch.from_numpy(targets).flatten())
    assert loss == pytest.approx(cost.item(), rel=1e-10)
    cost.backward()
    theirs = dict(model.named_parameters())
    assert {torch_name(name) for name in grads} == set(theirs)
    found = max(apart(grad, theirs[torch_name(name)].grad) for name, grad in grads.items())  # type: ignore[arg-type]
    differ("plain_numpy.py, autograd", "gradients in float64", found, TOLERANCE)


def test_each_parts_gradient() -> None:
    """linear, rms_norm, rotate, softmax and attention, each with its _backward."""
    torch.manual_seed(2)
    x, weight, gain, d_y = random(2, 3, 8), random(5, 8), random(8), random(2, 3, 8).detach()
    d_wide = random(2, 3, 5).detach()
    mine = lesson.linear_backward(*arrays(d_wide, x, weight))
    same(lesson.linear(*arrays(x, weight)), F.linear(x, weight), 1e-12)
    same_gradients(F.linear(x, weight), [x, weight], list(mine), d_wide)
    norm = plain.RMSNorm(8).double()
    norm.weight = torch.nn.Parameter(gain)
    y, saved = lesson.rms_norm(*arrays(x, gain))
    same(y, norm(x), 1e-12)
    same_gradients(norm(x), [x, norm.weight], list(lesson.rms_norm_backward(d_y.numpy(), saved)), d_y)
    same(lesson.rotate(x.detach().numpy(), 100.0), plain.rotate(x, 100.0), 1e-12)
    same_gradients(plain.rotate(x, 100.0), [x], [lesson.rotate(d_y.numpy(), 100.0, -1.0)], d_y)
    same(lesson.softmax(1000 * x.detach().numpy()), (1000 * x).softmax(-1), 1e-12)
    qkv = [random(2, 4, 7, 8) for _ in range(3)]
    y, saved = lesson.attention(*arrays(*qkv))
    expected = plain.scaled_dot_product_attention(*qkv, plain.causal_mask(7))
    same(y, expected, 1e-12)
    d_y = torch.randn_like(expected)
    same_gradients(expected, qkv, list(lesson.attention_backward(d_y.numpy(), saved)), d_y)
    assert lesson.merge_heads(lesson.split_heads(x.detach().numpy(), 4)).tolist() == x.tolist()


def test_layers_and_block_with_their_gradients() -> None:
    """attention_layer, swiglu and block, each with its _backward."""
    weights = stirred(3)
    w, block = lesson.layer_weights(weights, 1), twin(weights).blocks[1]
    torch.manual_seed(3)
    x, d_y = random(2, 9, 32), random(2, 9, 32).detach()
    pairs = [
        (block.attention, lambda a: lesson.attention_layer(a, w, CONFIG), lambda d, s: lesson.attention_layer_backward(d, s, w, CONFIG)),
        (block.ff, lambda a: lesson.swiglu(a, w), lambda d, s: lesson.swiglu_backward(d, s, w)),
        (block, lambda a: lesson.block(a, w, CONFIG), lambda d, s: lesson.block_backward(d, s, w, CONFIG)),
    ]  # fmt: skip
    for module, ahead, back in pairs:
        y, saved = ahead(x.detach().numpy())
        same(y, module(x), 1e-12)
        d_x, grads = back(d_y.numpy(), saved)
        same_gradients(module(x), [x, *module.parameters()], [d_x, *in_order(grads, module)], d_y)


def in_order(grads: lesson.Weights, module: torch.nn.Module) -> list[np.ndarray]:
    """Returns the gradients in the order of the module's parameters."""
    found = [name.removesuffix(".weight").rpartition(".")[2] for name, _ in module.named_parameters()]
    assert sorted(found) == sorted(grads)
    return [grads[name] for name in found]


def test_train_and_adamw_step_equal_torchs_on_the_same_windows() -> None:
    text, steps, lr = np.random.default_rng(4).integers(60, size=200), 30, 1e-2
    weights = stirred(4)
    model = twin(weights)
    losses = lesson.train(weights, CONFIG, text, steps, rows=2, context=8, lr=lr)
    groups = [{"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer, rng = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95)), np.random.default_rng(0)
    for step in range(1, steps + 1):
        tokens, targets = lesson.draw_windows(text, 2, 8, rng)
        assert (tokens[:, 1:] == targets[:, :-1]).all()
        loss = F.cross_entropy(model(torch.from_numpy(tokens)).flatten(0, 1), torch.from_numpy(targets).flatten())
        assert losses[step - 1] == pytest.approx(loss.item(), rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, step / 20) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
    for name, weight in weights.items():
        same(weight, dict(model.named_parameters())[torch_name(name)])


def test_initialise_draws_what_it_says() -> None:
    config = lesson.Config(vocab_size=400, n_layers=3, d_model=64)
    weights = lesson.initialise(config)
    for name, weight in weights.items():
        if weight.ndim == 1:
            assert (weight == 1).all()
        else:
            std = 0.02 / math.sqrt(6) if name.endswith(("out", "down")) else 0.02
            assert weight.std() == pytest.approx(std, rel=0.05), name
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    named = {torch_name(n): tuple(w.shape) for n, w in lesson.initialise(CONFIG).items()}
    assert named == {
        n: tuple(p.shape) for n, p in plain.ModernTransformer(plain.ModernConfig(**vars(CONFIG))).named_parameters()
    }


def test_generate_takes_the_likeliest() -> None:
    weights = stirred(5)
    tokens = lesson.generate(weights, CONFIG, [3, 1], 5)
    logits = twin(weights)(torch.tensor([tokens[:-1]]))
    assert tokens[:2] == [3, 1]
    assert tokens[2:] == logits[0, 1:].argmax(-1).tolist()


def test_a_token_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(IndexError, match="60 is out of bounds"):
        lesson.train(stirred(), CONFIG, np.full(20, 60), steps=1, context=8)


def test_a_text_shorter_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 64 are needed"):
        lesson.train(stirred(), CONFIG, np.arange(50), steps=1)
