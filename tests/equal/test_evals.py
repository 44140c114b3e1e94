"""evals/plain.py against the fast scores: bits per byte, windows, pass@k, intervals."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from groundup.evals import plain, score
from groundup.evals.perplexity import _windows, bits_per_byte
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer


def test_bits_per_byte() -> None:
    tokenizer = Tokenizer([(104, 101)], list(DEFAULT_SPECIALS), "qwen2")
    model = Transformer(
        ModelConfig(vocab_size=tokenizer.vocab_size, context=16, d_model=32, n_layers=2, n_heads=2), seed=0
    )
    rng = random.Random(0)
    texts = ["".join(rng.choice("the hé ") for _ in range(n)) for n in (1, 3, 15, 16, 17, 40, 100)]

    def logprobs(tokens: Sequence[int]) -> list[float]:
        logits = model(torch.tensor([tokens[:-1]]))[0].log_softmax(-1)
        return [float(logits[i, token]) for i, token in enumerate(tokens[1:])]

    with torch.no_grad():
        slow = plain.bits_per_byte(logprobs, texts, tokenizer.encode_ordinary, tokenizer.eot, 16, 8)
        fast = bits_per_byte(model, tokenizer, texts)
    assert fast["value"] == pytest.approx(slow, rel=1e-6)
    assert fast["low"] <= fast["value"] <= fast["high"]
    assert fast["bytes"] == sum(len(t.encode()) for t in texts)
    assert fast["tokens"] == sum(len(tokenizer.encode_ordinary(t)) + 1 for t in texts)


@pytest.mark.parametrize("length", [2, 3, 16, 17, 18, 24, 25, 26, 33, 100])
def test_windows(length: int) -> None:
    slow = plain.windows(length, context=16, stride=8)
    predicted = [place for start, first, end in slow for place in range(first, end)]
    assert predicted == list(range(1, length))  # each token but the first exactly once
    assert all(end - start <= 17 and (start == 0 or first - start >= 9) for start, first, end in slow)
    tokens = np.arange(length)
    fast = list(_windows([tokens[1:-1]], 0, 16))
    assert [(len(w), first) for _, w, first in fast] == [(end - start, first - start) for start, first, end in slow]


def test_pass_at_k() -> None:
    for samples in (1, 3, 8):
        for k in range(1, samples + 1):
            counts = list(range(samples + 1))
            assert score.pass_at_k(samples, counts, k) == pytest.approx(
                [plain.pass_at_k(samples, c, k) for c in counts]
            )
    assert plain.pass_at_k(10, 3, 2) == pytest.approx(1 - 7 / 10 * 6 / 9)  # two draws without replacement, by hand


def test_bootstrap_interval() -> None:
    rng = random.Random(1)
    values = [float(rng.random() < 0.7) for _ in range(200)]
    low, high = plain.bootstrap_interval(values, 2000, 0)
    fast = score.mean_interval(values)
    half_width = 1.96 * math.sqrt(fast.value * (1 - fast.value) / len(values))  # the normal approximation
    assert (fast.low, fast.high) == pytest.approx((low, high), abs=0.012)
    assert (fast.low, fast.high) == pytest.approx((fast.value - half_width, fast.value + half_width), abs=0.012)
