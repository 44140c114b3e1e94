"""plain_jax.py against plain.py: same weights, same logits, same gradients, same learning."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model import plain
from groundup.model import plain_jax as lesson

jax.config.update("jax_disable_most_optimizations", True)  # compiling takes nearly all of these tests' time

CONFIG = lesson.Config(vocab_size=60, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48)
NAMES = {"query": "attention.query", "key": "attention.key", "value": "attention.value", "out": "attention.out",
         "query_norm": "attention.query_norm", "key_norm": "attention.key_norm", "norm1": "norm1", "norm2": "norm2",
         "gate": "ff.gate", "up": "ff.up", "down": "ff.down"}  # fmt: skip
TOLERANCE = 1e-5  # of the largest number compared, all in float32


def torch_name(name: str) -> str:
    layer, _, rest = name.rpartition(".")
    return f"blocks.{layer}.{NAMES[rest]}.weight" if layer else f"{name}.weight"


def stirred(seed: int = 0) -> lesson.Weights:
    """Returns weights off their start, so that a norm's gain of 1 hides nothing."""
    rng = np.random.default_rng(seed)
    weights = lesson.initialise(CONFIG, seed)
    return {name: w + 0.1 * rng.standard_normal(w.shape).astype(np.float32) for name, w in weights.items()}


def twin(weights: lesson.Weights) -> plain.ModernTransformer:
    """Returns PyTorch's lesson with these weights."""
    model = plain.ModernTransformer(plain.ModernConfig(**vars(CONFIG)))
    model.load_state_dict({torch_name(name): torch.tensor(np.array(weight)) for name, weight in weights.items()})
    return model


def apart(ours: jax.Array, theirs: Tensor) -> float:
    """Returns the largest difference, as a share of the largest number."""
    mine, expected = np.asarray(ours), theirs.detach().numpy()
    assert mine.shape == expected.shape
    return float(np.abs(mine - expected).max() / np.abs(expected).max())


def same(ours: jax.Array, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert apart(ours, theirs) <= tolerance


def test_logits_loss_and_gradients_equal_pytorchs(differ: Callable[[str, str, float, float], None]) -> None:
    weights, rng = stirred(), np.random.default_rng(1)
    model = twin(weights)
    tokens, targets = rng.integers(60, size=(2, 3, 11))
    logits = model(torch.from_numpy(tokens))
    forward = jax.jit(lambda w, rows: jax.vmap(lambda row: lesson.forward(w, row, CONFIG))(rows))
    differ("plain_jax.py, plain.py", "logits in float32", apart(forward(weights, tokens), logits), TOLERANCE)
    loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    loss.backward()
    mine, grads = jax.jit(jax.value_and_grad(lesson.next_token_loss), static_argnums=3)(
        weights, tokens, targets, CONFIG
    )
    assert float(mine) == pytest.approx(loss.item(), rel=1e-5)
    theirs = dict(model.named_parameters())
    assert {torch_name(name) for name in grads} == set(theirs)
    found = max(apart(grad, theirs[torch_name(name)].grad) for name, grad in grads.items())  # type: ignore[arg-type]
    differ("plain_jax.py, autograd", "gradients in float32", found, TOLERANCE)


def test_the_parts_one_by_one() -> None:
    """rms_norm, rotate, attention, attention_layer, swiglu and block."""
    weights = stirred(2)
    w, block = lesson.layer_weights(weights, 1), twin(weights).blocks[1]
    torch.manual_seed(2)
    x, (q, k, v) = torch.randn(1, 9, 32), torch.randn(3, 7, 8)
    row = jnp.asarray(x[0].numpy())
    same(lesson.rms_norm(row, w["norm1"]), block.norm1(x)[0])
    same(lesson.rotate(row, 100.0), plain.rotate(x, 100.0)[0])
    same(lesson.attention(*map(jnp.asarray, (q.numpy(), k.numpy(), v.numpy()))),
         plain.scaled_dot_product_attention(q, k, v, plain.causal_mask(7)))  # fmt: skip
    same(jax.jit(lesson.attention_layer, static_argnums=2)(row, w, CONFIG), block.attention(x)[0])
    same(lesson.swiglu(row, w), block.ff(x)[0])
    same(jax.jit(lesson.block, static_argnums=2)(row, w, CONFIG), block(x)[0])


def test_train_step_and_adamw_step_equal_torchs_and_compile_once() -> None:
    text, steps, lr = np.random.default_rng(4).integers(60, size=200), 10, 1e-2
    weights = stirred(4)
    model = twin(weights)
    compiled = lesson.train_step._cache_size()
    trained, losses = lesson.train(weights, CONFIG, text, steps, rows=2, context=8, lr=lr)
    assert lesson.train_step._cache_size() == compiled + 1
    groups = [{"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer, batches = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95)), lesson.windows(text, 2, 8)
    for step in range(1, steps + 1):
        tokens, targets = next(batches)
        assert (tokens[:, 1:] == targets[:, :-1]).all()
        loss = F.cross_entropy(model(torch.from_numpy(tokens)).flatten(0, 1), torch.from_numpy(targets).flatten())
        assert losses[step - 1] == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, step / 20) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
    for name, weight in trained.items():
        same(
            weight, dict(model.named_parameters())[torch_name(name)], 1e-3
        )  # Adam magnifies rounding where gradients are tiny


def test_one_adamw_step_is_exact() -> None:
    state = lesson.fresh_state({"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([3.0])})
    after = lesson.adamw_step(state, {"a": jnp.array([[0.5, -4.0]]), "b": jnp.array([1e-3])}, 0.1)
    np.testing.assert_allclose(
        after.weights["a"], [[0.99 - 0.1, -2 * 0.99 + 0.1]], rtol=1e-6
    )  # the first step is lr, whatever g
    np.testing.assert_allclose(after.weights["b"], [2.9], rtol=1e-6)
    assert int(after.step) == 1
    assert isinstance(after, lesson.State)


def test_initialise_draws_what_it_says() -> None:
    weights = lesson.initialise(lesson.Config(vocab_size=400, n_layers=3))
    for name, weight in weights.items():
        if weight.ndim == 1:
            assert (weight == 1).all()
        else:
            std = 0.02 / math.sqrt(6) if name.endswith(("out", "down")) else 0.02
            assert float(weight.std()) == pytest.approx(std, rel=0.05), name
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
    with pytest.raises(ValueError, match="token 60 is beyond the vocabulary of 60"):
        lesson.train(stirred(), CONFIG, np.arange(61), steps=1, context=8)


def test_a_text_shorter_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 64 are needed"):
        lesson.train(stirred(), CONFIG, np.arange(50), steps=1)
