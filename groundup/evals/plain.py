"""Evaluation in its obvious form: bits per byte, pass@k, and intervals. Imports nothing of groundup."""

import math
import random
from collections.abc import Callable, Sequence

__all__ = ["bits_per_byte", "bootstrap_interval", "pass_at_k", "windows"]


def windows(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Returns the windows that predict each of tokens 1 .. length-1 once: (start, first predicted, end).

    A window reads tokens start .. end-2 and is asked for tokens first .. end-1. Those before `first` are context only,
    so that beyond the first window no prediction is made from less than `context - stride` tokens.
    """
    found, first = [], 1
    while first < length:
        start = 0 if first == 1 else first - 1 - (context - stride)
        end = min(start + context + 1, length)
        found.append((start, first, end))
        first = end
    return found


def bits_per_byte(
    logprobs: Callable[[Sequence[int]], Sequence[float]], documents: Sequence[str], encode: Callable[[str], list[int]],
    boundary: int, context: int, stride: int,
) -> float:  # fmt: skip
    """Returns the bits that a model needs for one byte of these texts, if it predicts each token from those before.

    Each document stands alone: the boundary token, its tokens, and the boundary token again, which is predicted too (a
    text is known only when its end is). `logprobs(tokens)` gives the natural logarithm of the probability of
    tokens[1], tokens[2], ...
    """
    bits, size = 0.0, 0
    for document in documents:
        tokens = [boundary, *encode(document), boundary]
        for start, first, end in windows(len(tokens), context, stride):
            predicted = logprobs(tokens[start:end])
            for position in range(first, end):
                bits -= predicted[position - start - 1] / math.log(2)
        size += len(document.encode("utf-8"))
    return bits / size


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Returns the probability that at least one of k answers, drawn from these samples without replacement, is correct.

    Unbiased where 1 - (1 - correct / samples) ** k is not. Source: Chen et al. 2021, eq. 1.
    """
    if samples - correct < k:
        return 1.0
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def bootstrap_interval(values: Sequence[float], resamples: int, seed: int) -> tuple[float, float]:
    """Returns the 95% interval of the mean: the middle 95% of the means of resamples drawn with replacement.

    Source: Efron and Tibshirani 1993, section 13.3 (the percentile interval).
    """
    generator, means = random.Random(seed), []
    for _ in range(resamples):
        drawn = [generator.choice(values) for _ in values]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))]
