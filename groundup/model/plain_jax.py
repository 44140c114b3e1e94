"""A language model of today in JAX: functions of weights, and a training step that is differentiated,
then compiled, as a whole. The weights have the names of plain_numpy.py, so each can take the other's."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "Config", "State", "adamw_step", "attention", "attention_layer", "block", "fresh_state", "forward",
    "generate", "initialise", "layer_weights", "next_token_loss", "rms_norm", "rotate", "swiglu",
    "train", "train_step",
]  # fmt: skip

Array = jax.Array
Weights = dict[str, Array]  # "embed", "norm", and for each layer "0.query", "0.key", ...


@dataclass(frozen=True)
class Config:
    """The sizes of a model of today. Frozen, so that JAX can compile one program for each."""

    vocab_size: int = 256
    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2  # fewer keys and values than queries: a smaller cache
    d_ff: int = 192
    rope_theta: float = 10000.0


def initialise(config: Config, seed: int = 0) -> Weights:
    """Returns fresh weights: matrices from N(0, 0.02^2), those that write to the residual stream smaller.

    JAX keeps no hidden random state: a key is split, and each part is used once.
    """
    width, ff, head = config.d_model, config.d_ff, config.d_model // config.n_heads
    query, key = config.n_heads * head, config.n_kv_heads * head
    shapes = {"embed": (config.vocab_size, width), "norm": (width,)}
    for layer in range(config.n_layers):
        shapes |= {f"{layer}.{name}": shape for name, shape in {
            "query": (query, width), "key": (key, width), "value": (key, width), "out": (width, query),
            "gate": (ff, width), "up": (ff, width), "down": (width, ff),
            "norm1": (width,), "norm2": (width,), "query_norm": (head,), "key_norm": (head,),
        }.items()}  # fmt: skip
    weights = {}
    for part, (name, shape) in zip(jax.random.split(jax.random.key(seed), len(shapes)), shapes.items()):
        residual = name.endswith((".out", ".down"))
        std = 0.02 / math.sqrt(2 * config.n_layers) if residual else 0.02
        weights[name] = jnp.ones(shape) if len(shape) == 1 else std * jax.random.normal(part, shape)
    return weights


def layer_weights(weights: Weights, layer: int) -> Weights:
    """Returns one layer's weights by their short names."""
    start = f"{layer}."
    return {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}


# The model: nothing but functions, so JAX can differentiate, batch and compile it.


def rms_norm(x: Array, weight: Array) -> Array:
    """Returns x with a mean square of 1 along its last axis, times the weight."""
    return x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight


def rotate(x: Array, theta: float) -> Array:
    """Returns x (..., T, D) with pair (i, i + D/2) turned by t theta^(-2i/D) at time t.

    The angles are constants, worked out by NumPy in float64 when the function is compiled.
    Source: Su et al. 2021, eq. 34
    """
    time, width = x.shape[-2:]
    angle = np.arange(time)[:, None] * theta ** (-np.arange(0, width, 2) / width)  # (T, D/2)
    cos, sin = jnp.asarray(np.cos(angle), x.dtype), jnp.asarray(np.sin(angle), x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(query: Array, key: Array, value: Array) -> Array:
    """Returns for each query a mean of the values up to its own place, weighted by how well keys fit it.

    Shapes: query, key, value and result (T, D): one head of one sequence; `jax.vmap` does the rest.
    Source: Vaswani et al. 2017, eq. 1
    """
    time, width = query.shape
    scores = query @ key.T / math.sqrt(width)  # (T, T)
    weights = jax.nn.softmax(jnp.where(np.tri(time, dtype=bool), scores, -jnp.inf))
    return weights @ value


def attention_layer(x: Array, w: Weights, config: Config) -> Array:
    """Returns (T, C) from x (T, C): attention in which groups of queries share a key and a value."""

    def heads(y: Array, count: int) -> Array:
        return y.reshape(y.shape[0], count, -1).swapaxes(0, 1)  # (H, T, D)

    query = rms_norm(heads(x @ w["query"].T, config.n_heads), w["query_norm"])
    key = rms_norm(heads(x @ w["key"].T, config.n_kv_heads), w["key_norm"])
    value = heads(x @ w["value"].T, config.n_kv_heads)
    query, key = rotate(query, config.rope_theta), rotate(key, config.rope_theta)
    group = config.n_heads // config.n_kv_heads
    y = jax.vmap(attention)(query, key.repeat(group, axis=0), value.repeat(group, axis=0))  # (H, T, D)
    return y.swapaxes(0, 1).reshape(x.shape[0], -1) @ w["out"].T


def swiglu(x: Array, w: Weights) -> Array:
    """Returns (T, C): a feed-forward layer with a gate, silu(gate) * up. Source: Shazeer 2020"""
    return (jax.nn.silu(x @ w["gate"].T) * (x @ w["up"].T)) @ w["down"].T


def block(x: Array, w: Weights, config: Config) -> Array:
    """Returns (T, C): x plus what attention adds, plus what the feed-forward layer adds to that."""
    x = x + attention_layer(rms_norm(x, w["norm1"]), w, config)
    return x + swiglu(rms_norm(x, w["norm2"]), w)


def forward(weights: Weights, tokens: Array, config: Config) -> Array:
    """Returns the logits of each next token, (T, V), from the tokens of one sequence, (T,)."""
    x = weights["embed"][tokens]  # (T, C)
    for layer in range(config.n_layers):
        x = block(x, layer_weights(weights, layer), config)
    return rms_norm(x, weights["norm"]) @ weights["embed"].T


# Learning.


def next_token_loss(weights: Weights, tokens: Array, targets: Array, config: Config) -> Array:
    """Returns the mean of -log p(target), in nats. Shapes: tokens and targets (B, T)."""
    logits = jax.vmap(lambda row: forward(weights, row, config))(tokens)  # (B, T, V)
    logarithms = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logarithms, targets[..., None], axis=-1).mean()


@jax.tree_util.register_dataclass
@dataclass
class State:
    """What learning changes: the weights, and AdamW's running means of gradients and of their squares."""

    weights: Weights
    means: Weights
    squares: Weights
    step: Array  # steps taken


def fresh_state(weights: Weights) -> State:
    """Returns the state before the first step."""
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return State(weights, zeros, zeros, jnp.zeros((), jnp.int32))


def adamw_step(state: State, grads: Weights, lr: Array | float, decay: float = 0.1) -> State:
    """Returns the state after one step by these gradients. Source: Loshchilov and Hutter 2019, algorithm 2"""
    step = state.step + 1
    means = jax.tree.map(lambda mean, g: 0.9 * mean + 0.1 * g, state.means, grads)
    squares = jax.tree.map(lambda square, g: 0.95 * square + 0.05 * g**2, state.squares, grads)

    def moved(weight: Array, mean: Array, square: Array) -> Array:
        direction = mean / (1 - 0.9**step) / (jnp.sqrt(square / (1 - 0.95**step)) + 1e-8)
        kept = 1 - lr * decay if weight.ndim == 2 else 1.0  # a norm's gain has no direction to shrink along
        return kept * weight - lr * direction

    return State(jax.tree.map(moved, state.weights, means, squares), means, squares, step)


@partial(jax.jit, static_argnames="config")
def train_step(
    state: State, tokens: Array, targets: Array, lr: Array | float, config: Config
) -> tuple[State, Array]:  # fmt: skip
    """Returns the state after a step, and the loss before it. Compiled once for each shape of batch."""
    loss, grads = jax.value_and_grad(next_token_loss)(state.weights, tokens, targets, config)
    return adamw_step(state, grads, lr), loss


def windows(text: np.ndarray, rows: int, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields tokens and their targets, the tokens one place further on, without end: both (B, T)."""
    if len(text) <= context:
        raise ValueError(f"the text has {len(text)} tokens, more than {context} are needed")
    rng = np.random.default_rng(0)
    while True:
        starts = rng.integers(0, len(text) - context, size=rows)
        found = text[starts[:, None] + np.arange(context + 1)]
        yield found[:, :-1], found[:, 1:]


def train(
    weights: Weights, config: Config, text: np.ndarray, steps: int, rows: int = 8, context: int = 64, lr: float = 3e-3
) -> tuple[Weights, list[float]]:
    """Returns the trained weights, and the loss of every step."""
    if text.max() >= config.vocab_size:  # compiled code can't complain: it would take another row in silence
        raise ValueError(f"token {text.max()} is beyond the vocabulary of {config.vocab_size}")
    state, losses, batches = fresh_state(weights), [], windows(text, rows, context)
    for step in range(1, steps + 1):
        rate = lr * min(1.0, step / 20) * (1 + math.cos(math.pi * step / steps)) / 2  # up, then half a wave down
        state, loss = train_step(state, *next(batches), rate, config)
        losses.append(loss)  # still on the device: to look at each would make Python wait for it
    return state.weights, [float(loss) for loss in losses]


def generate(weights: Weights, config: Config, tokens: list[int], count: int) -> list[int]:
    """Returns the tokens with `count` more behind them, each time the likeliest.

    The row has its full length from the start, so one program is compiled and not one for each length;
    what still follows a token is zeros, which it can't see.
    """
    logits = jax.jit(partial(forward, config=config))
    row = np.zeros(len(tokens) + count, np.int32)
    row[: len(tokens)] = tokens
    for place in range(len(tokens), len(row)):
        row[place] = logits(weights, row)[place - 1].argmax()
    return row.tolist()
