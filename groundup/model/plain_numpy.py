"""A language model of today in NumPy alone, learning included: every gradient is worked out by hand.

Each part comes as a pair. `part` returns its output and what its gradient will need; `part_backward`
takes `d_y`, the gradient of the loss by that output, and returns the gradients by what went in.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Config", "adamw_step", "attention", "attention_backward", "attention_layer",
    "attention_layer_backward", "backward", "block", "block_backward", "cross_entropy", "draw_windows",
    "forward", "generate", "initialise", "layer_weights", "linear", "linear_backward", "merge_heads",
    "rms_norm", "rms_norm_backward", "rotate", "softmax", "split_heads", "swiglu", "swiglu_backward",
    "train",
]  # fmt: skip

Array = np.ndarray
Weights = dict[str, Array]  # "embed", "norm", and for each layer "0.query", "0.key", ...
Saved = Any  # what a part keeps for its gradient: a tuple that only its own backward looks into


@dataclass(frozen=True)
class Config:
    """The sizes of a model of today."""

    vocab_size: int = 256
    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2  # fewer keys and values than queries: a smaller cache
    d_ff: int = 192
    rope_theta: float = 10000.0


def initialise(config: Config, seed: int = 0, dtype: type = np.float32) -> Weights:
    """Returns fresh weights: matrices from N(0, 0.02^2), those that write to the residual stream smaller."""
    rng, width, ff = np.random.default_rng(seed), config.d_model, config.d_ff
    head = width // config.n_heads
    query, key = config.n_heads * head, config.n_kv_heads * head
    matrices = {
        "query": (query, width), "key": (key, width), "value": (key, width), "out": (width, query),
        "gate": (ff, width), "up": (ff, width), "down": (width, ff),
    }  # fmt: skip
    weights = {"embed": rng.normal(0, 0.02, (config.vocab_size, width)), "norm": np.ones(width)}
    for layer in range(config.n_layers):
        for name, shape in matrices.items():
            std = 0.02 / math.sqrt(2 * config.n_layers) if name in ("out", "down") else 0.02
            weights[f"{layer}.{name}"] = rng.normal(0, std, shape)
        for name, size in (("norm1", width), ("norm2", width), ("query_norm", head), ("key_norm", head)):
            weights[f"{layer}.{name}"] = np.ones(size)
    return {name: weight.astype(dtype) for name, weight in weights.items()}


def layer_weights(weights: Weights, layer: int) -> Weights:
    """Returns one layer's weights by their short names."""
    start = f"{layer}."
    return {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}


# The parts, each with its gradient.


def linear(x: Array, weight: Array) -> Array:
    """Returns x W^T: (..., out) from x (..., in) and W (out, in)."""
    return x @ weight.T


def linear_backward(d_y: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """Returns d_x = d_y W and d_W = d_y^T x, summed over all places where the weight was used."""
    d_weight = d_y.reshape(-1, d_y.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return d_y @ weight, d_weight


def rms_norm(x: Array, weight: Array) -> tuple[Array, Saved]:
    """Returns x r weight with r = 1 / sqrt(mean(x^2)): every vector has a mean square of 1, then a gain."""
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    return x * r * weight, (x * r, r, weight)


def rms_norm_backward(d_y: Array, saved: Saved) -> tuple[Array, Array]:
    """Returns d_x and d_weight. A change along x itself is undone by the norm, so it is taken out of d_x."""
    unit, r, weight = saved
    d_unit = d_y * weight
    d_x = r * (d_unit - unit * (d_unit * unit).mean(axis=-1, keepdims=True))
    d_weight = (d_y * unit).reshape(-1, weight.size).sum(axis=0)
    return d_x, d_weight


def rotate(x: Array, theta: float, direction: float = 1.0) -> Array:
    """Returns x (..., T, D) with pair (i, i + D/2) turned by t theta^(-2i/D) at time t.

    Its gradient is the same turn backwards: `direction` -1. Source: Su et al. 2021, eq. 34
    """
    time, width = x.shape[-2:]
    speed = theta ** (-np.arange(0, width, 2) / width)
    angle = direction * np.arange(time)[:, None] * speed  # (T, D/2)
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(x: Array) -> Array:
    """Returns exp(x) / sum(exp(x)) along the last axis; the largest x is taken off so that nothing overflows."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def attention(query: Array, key: Array, value: Array) -> tuple[Array, Saved]:
    """Returns for each query a mean of the values up to its own place, weighted by how well keys fit it.

    Shapes: query, key, value and result (B, H, T, D). Source: Vaswani et al. 2017, eq. 1
    """
    time, width = query.shape[-2:]
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(width)  # (B, H, T, T)
    weights = softmax(np.where(np.tri(time, dtype=bool), scores, -np.inf))
    return weights @ value, (query, key, value, weights)


def attention_backward(d_y: Array, saved: Saved) -> tuple[Array, Array, Array]:
    """Returns d_query, d_key and d_value."""
    query, key, value, weights = saved
    d_value = weights.swapaxes(-1, -2) @ d_y
    d_weights = d_y @ value.swapaxes(-1, -2)
    # Softmax: the weights share a sum of 1, so each gains only by what it is worth above their mean.
    d_scores = weights * (d_weights - (d_weights * weights).sum(axis=-1, keepdims=True))
    d_scores = d_scores / math.sqrt(query.shape[-1])
    return d_scores @ key, d_scores.swapaxes(-1, -2) @ query, d_value


def split_heads(x: Array, heads: int) -> Array:
    """Returns (B, H, T, D) from (B, T, H D)."""
    batch, time, _ = x.shape
    return x.reshape(batch, time, heads, -1).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """Returns (B, T, H D) from (B, H, T, D)."""
    batch, _, time, _ = x.shape
    return x.swapaxes(1, 2).reshape(batch, time, -1)


def attention_layer(x: Array, w: Weights, config: Config) -> tuple[Array, Saved]:
    """Returns (B, T, C): attention in which groups of queries share a key and a value."""
    group = config.n_heads // config.n_kv_heads
    query, saved_query = rms_norm(split_heads(linear(x, w["query"]), config.n_heads), w["query_norm"])
    key, saved_key = rms_norm(split_heads(linear(x, w["key"]), config.n_kv_heads), w["key_norm"])
    value = split_heads(linear(x, w["value"]), config.n_kv_heads)
    query, key = rotate(query, config.rope_theta), rotate(key, config.rope_theta)
    y, saved = attention(query, key.repeat(group, axis=1), value.repeat(group, axis=1))
    heads = merge_heads(y)
    return linear(heads, w["out"]), (x, saved_query, saved_key, saved, heads)


def attention_layer_backward(d_y: Array, kept: Saved, w: Weights, config: Config) -> tuple[Array, Weights]:
    """Returns d_x and the gradients by the layer's weights."""
    x, saved_query, saved_key, saved, heads = kept
    grads: Weights = {}
    d_heads, grads["out"] = linear_backward(d_y, heads, w["out"])
    d_query, d_key, d_value = attention_backward(split_heads(d_heads, config.n_heads), saved)
    batch, _, time, width = d_key.shape
    shared = (batch, config.n_kv_heads, -1, time, width)  # a key that served a group hears from all of it
    d_key, d_value = d_key.reshape(shared).sum(axis=2), d_value.reshape(shared).sum(axis=2)
    d_query, d_key = (rotate(d, config.rope_theta, -1.0) for d in (d_query, d_key))
    d_query, grads["query_norm"] = rms_norm_backward(d_query, saved_query)
    d_key, grads["key_norm"] = rms_norm_backward(d_key, saved_key)
    d_x = np.zeros_like(x)
    for name, d in (("query", d_query), ("key", d_key), ("value", d_value)):
        part, grads[name] = linear_backward(merge_heads(d), x, w[name])
        d_x += part
    return d_x, grads


def swiglu(x: Array, w: Weights) -> tuple[Array, Saved]:
    """Returns (B, T, C): a feed-forward layer with a gate, silu(gate) * up. Source: Shazeer 2020"""
    gate, up = linear(x, w["gate"]), linear(x, w["up"])
    open_ = (1 + np.tanh(gate / 2)) / 2  # the sigmoid, in a form that can't overflow
    hidden = gate * open_ * up
    return linear(hidden, w["down"]), (x, gate, up, open_, hidden)


def swiglu_backward(d_y: Array, saved: Saved, w: Weights) -> tuple[Array, Weights]:
    """Returns d_x and the gradients by the layer's weights."""
    x, gate, up, open_, hidden = saved
    d_hidden, d_down = linear_backward(d_y, hidden, w["down"])
    d_up = d_hidden * gate * open_
    d_gate = d_hidden * up * open_ * (1 + gate * (1 - open_))  # the derivative of gate * sigmoid(gate)
    by_gate, d_gate = linear_backward(d_gate, x, w["gate"])
    by_up, d_up = linear_backward(d_up, x, w["up"])
    return by_gate + by_up, {"gate": d_gate, "up": d_up, "down": d_down}


def block(x: Array, w: Weights, config: Config) -> tuple[Array, Saved]:
    """Returns (B, T, C): x plus what attention adds, plus what the feed-forward layer adds to that."""
    normed, saved1 = rms_norm(x, w["norm1"])
    y, saved_attention = attention_layer(normed, w, config)
    x = x + y
    normed, saved2 = rms_norm(x, w["norm2"])
    y, saved_ff = swiglu(normed, w)
    return x + y, (saved1, saved_attention, saved2, saved_ff)


def block_backward(d_y: Array, saved: Saved, w: Weights, config: Config) -> tuple[Array, Weights]:
    """Returns d_x and the gradients by the block's weights. Beside each part a gradient passes unchanged."""
    saved1, saved_attention, saved2, saved_ff = saved
    d_normed, grads = swiglu_backward(d_y, saved_ff, w)
    d_x, grads["norm2"] = rms_norm_backward(d_normed, saved2)
    d_y = d_y + d_x
    d_normed, more = attention_layer_backward(d_y, saved_attention, w, config)
    d_x, grads["norm1"] = rms_norm_backward(d_normed, saved1)
    return d_y + d_x, grads | more


# The language model, its loss and its learning.


def forward(weights: Weights, tokens: Array, config: Config) -> tuple[Array, Saved]:
    """Returns the logits of each next token, (B, T, V), from tokens (B, T)."""
    x, kept = weights["embed"][tokens], []  # (B, T, C)
    for layer in range(config.n_layers):
        x, saved = block(x, layer_weights(weights, layer), config)
        kept.append(saved)
    x, saved_norm = rms_norm(x, weights["norm"])
    return linear(x, weights["embed"]), (tokens, kept, saved_norm, x)


def backward(d_logits: Array, saved: Saved, weights: Weights, config: Config) -> Weights:
    """Returns the gradient of every weight. The embedding was used twice and hears from both ends."""
    tokens, kept, saved_norm, x = saved
    grads: Weights = {}
    d_x, grads["embed"] = linear_backward(d_logits, x, weights["embed"])
    d_x, grads["norm"] = rms_norm_backward(d_x, saved_norm)
    for layer in reversed(range(config.n_layers)):
        d_x, found = block_backward(d_x, kept[layer], layer_weights(weights, layer), config)
        grads |= {f"{layer}.{name}": grad for name, grad in found.items()}
    np.add.at(grads["embed"], tokens, d_x)
    return grads


def cross_entropy(logits: Array, targets: Array) -> tuple[float, Array]:
    """Returns the mean of -log p(target), in nats, and its gradient by the logits: p, less 1 at the target."""
    p = softmax(logits)
    rows = targets[..., None]
    loss = -np.log(np.take_along_axis(p, rows, axis=-1)).mean()
    np.put_along_axis(p, rows, np.take_along_axis(p, rows, axis=-1) - 1, axis=-1)
    return float(loss), p / targets.size


def adamw_step(
    weights: Weights, grads: Weights, means: Weights, squares: Weights, step: int, lr: float, decay: float = 0.1
) -> None:
    """Moves every weight by its gradient, in place; `step` counts from 1. Source: Loshchilov and Hutter 2019"""
    for name, weight in weights.items():
        means[name] += 0.1 * (grads[name] - means[name])
        squares[name] += 0.05 * (grads[name] ** 2 - squares[name])
        mean, square = means[name] / (1 - 0.9**step), squares[name] / (1 - 0.95**step)
        if weight.ndim == 2:  # a norm's gain has no direction to shrink along
            weight *= 1 - lr * decay
        weight -= lr * mean / (np.sqrt(square) + 1e-8)


def draw_windows(text: Array, rows: int, context: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Returns tokens and their targets, the tokens one place further on: both (B, T)."""
    if len(text) <= context:
        raise ValueError(f"the text has {len(text)} tokens, more than {context} are needed")
    starts = rng.integers(0, len(text) - context, size=rows)
    windows = text[starts[:, None] + np.arange(context + 1)]
    return windows[:, :-1], windows[:, 1:]


def train(
    weights: Weights, config: Config, text: Array, steps: int, rows: int = 8, context: int = 64, lr: float = 3e-3
) -> list[float]:
    """Returns the loss of every step, after training the weights in place on random windows of the text."""
    rng, losses = np.random.default_rng(0), []
    means = {name: np.zeros_like(weight) for name, weight in weights.items()}
    squares = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for step in range(1, steps + 1):
        tokens, targets = draw_windows(text, rows, context, rng)
        logits, saved = forward(weights, tokens, config)
        loss, d_logits = cross_entropy(logits, targets)
        grads = backward(d_logits, saved, weights, config)
        rate = lr * min(1.0, step / 20) * (1 + math.cos(math.pi * step / steps)) / 2  # up, then half a wave down
        adamw_step(weights, grads, means, squares, step, rate)
        losses.append(loss)
    return losses


def generate(weights: Weights, config: Config, tokens: list[int], count: int) -> list[int]:
    """Returns the tokens with `count` more behind them, each time the likeliest."""
    for _ in range(count):
        logits, _ = forward(weights, np.array([tokens]), config)
        tokens = [*tokens, int(logits[0, -1].argmax())]
    return tokens
