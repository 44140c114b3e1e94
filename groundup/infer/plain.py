"""The sampler in its obvious form: one distribution as a list of numbers, one prompt, one token after another.

A model here is any function from the tokens so far to the logits of the next one. Two are given: one that reads the
whole text again for each token, and one that keeps the keys and values of what it has read (the KV cache). Their texts are
the same; their costs are not: with T tokens read so far, the first does T times the work for the next one.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "Cache",
    "CachedModel",
    "TinyModel",
    "generate",
    "greedy",
    "pick",
    "probabilities",
    "softmax",
    "top_k",
    "top_p",
]


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Returns probabilities proportional to exp(logit / temperature). Below 1 the likely become likelier."""
    highest = max(logits)  # taken out first, so that exp never overflows; the result is the same
    weights = [math.exp((logit - highest) / temperature) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def top_k(logits: Sequence[float], k: int) -> list[float]:
    """Returns the logits with all but the k largest set to minus infinity. Those equal to the k-th stay."""
    kth = sorted(logits, reverse=True)[min(k, len(logits)) - 1]
    return [logit if logit >= kth else -math.inf for logit in logits]


def top_p(probabilities: Sequence[float], p: float) -> list[float]:
    """Returns the distribution cut down to its likeliest tokens: the fewest whose probabilities reach p.

    Source: Holtzman et al. 2020, section 3.1 (nucleus sampling).
    """
    order = sorted(
        range(len(probabilities)), key=lambda token: -probabilities[token]
    )  # of equals, the smaller id first
    kept, held = [0.0] * len(probabilities), 0.0
    for token in order:
        if held >= p:
            break
        kept[token] = probabilities[token]
        held += probabilities[token]
    return [probability / held for probability in kept]


def greedy(logits: Sequence[float]) -> int:
    """Returns the likeliest token; of equals, the smallest id."""
    return max(range(len(logits)), key=lambda token: logits[token])


def probabilities(logits: Sequence[float], temperature: float = 1.0, k: int = 0, p: float = 1.0) -> list[float]:
    """Returns the distribution that is sampled: temperature first, then top-k, then top-p (0 and 1 leave them out)."""
    if temperature == 0:
        likeliest = greedy(logits)
        return [float(token == likeliest) for token in range(len(logits))]
    if k:
        logits = top_k(logits, k)
    distribution = softmax(logits, temperature)
    return top_p(distribution, p) if p < 1 else distribution


def pick(probabilities: Sequence[float], uniform: float) -> int:
    """Returns the token in whose share of [0, 1) the number `uniform` falls, the shares laid end to end by id."""
    cumulative, last = 0.0, 0
    for token, probability in enumerate(probabilities):
        if probability:
            cumulative, last = cumulative + probability, token
            if uniform < cumulative:
                return token
    return last  # the shares sum to 1 only up to rounding


def generate(
    next_logits: Callable[[list[int]], Sequence[float]],
    prompt: Sequence[int],
    uniforms: Sequence[float],
    temperature: float = 1.0,
    k: int = 0,
    p: float = 1.0,
    stop_ids: Sequence[int] = (),
) -> list[int]:
    """Returns the tokens that follow the prompt: one for each number in `uniforms`, or up to and with a stop id."""
    tokens = list(prompt)
    for uniform in uniforms:
        token = pick(probabilities(next_logits(tokens), temperature, k, p), uniform)
        tokens.append(token)
        if token in stop_ids:
            break
    return tokens[len(prompt) :]


class TinyModel:
    """One attention layer between an embedding and its transpose: small enough to see what a KV cache saves."""

    def __init__(self, vocab_size: int, width: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(vocab_size, width, generator=generator)  # (V, C)
        self.query, self.key, self.value = (
            torch.randn(width, width, generator=generator) / width**0.5 for _ in range(3)
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Returns what one query (C,) reads from the tokens so far, (T, C) twice. Returns (C,)."""
        scores = keys @ query / query.numel() ** 0.5  # (T,)
        return scores.softmax(0) @ values  # (C,)

    def __call__(self, tokens: list[int]) -> list[float]:
        """Returns the logits after the last token, with all keys and values computed again."""
        x = self.embedding[tokens]  # (T, C)
        read = self.attend(x[-1] @ self.query, x @ self.key, x @ self.value)
        return (self.embedding @ (x[-1] + read)).tolist()


class Cache:
    """The keys and values of the tokens read so far."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.keys)

    def append(self, key: Tensor, value: Tensor) -> None:
        """Remembers one token's key and value, (C,) each."""
        self.keys.append(key)
        self.values.append(value)


class CachedModel:
    """The same model with a cache: a call computes keys and values only of the tokens that it hasn't read before.

    This works because a token's key and value depend on nothing that comes after it: that is what causal means.
    """

    def __init__(self, model: TinyModel) -> None:
        self.model, self.cache = model, Cache()

    def __call__(self, tokens: list[int]) -> list[float]:
        """Returns the logits after the last token; `tokens` must begin with those of the calls before."""
        model = self.model
        for token in tokens[len(self.cache) :]:
            x = model.embedding[token]  # (C,)
            self.cache.append(x @ model.key, x @ model.value)
        read = model.attend(x @ model.query, torch.stack(self.cache.keys), torch.stack(self.cache.values))
        return (model.embedding @ (x + read)).tolist()
