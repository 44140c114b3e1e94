"""How sure a score is: percentile bootstrap intervals of means, ratios and paired differences, and pass@k."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

__all__ = ["Score", "mean_interval", "paired_interval", "pass_at_k", "ratio_interval"]

RESAMPLES = 2000  # the ends of a 95% interval then move by about a twentieth of its width from seed to seed


@dataclass(frozen=True)
class Score:
    """A value with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Returns {"value", "low", "high"}, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def _counts(size: int, resamples: int, seed: int) -> np.ndarray:
    """Returns how often each of `size` items is drawn in each resample. Shape: (resamples, size)."""
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), resamples)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> Score:
    """Returns sum(numerators) / sum(denominators) with its interval over items: bits per byte over documents, say.

    Raises: ValueError without items. Source: Efron and Tibshirani 1993, section 13.3.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if not len(above):
        raise ValueError("an interval needs at least one item")
    drawn = _counts(len(above), resamples, seed)
    low, high = np.quantile((drawn @ above) / (drawn @ below), [0.025, 0.975])
    return Score(float(above.sum() / below.sum()), float(low), float(high))


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """Returns the mean with its interval over items (problems). Equal to: groundup.evals.plain.bootstrap_interval"""
    return ratio_interval(values, np.ones(len(values)).tolist(), seed, resamples)


def paired_interval(
    before: Sequence[float], after: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> Score:
    """Returns the mean of after - before with its interval, item by item: the same problems, answered by two models.

    Far narrower than the difference of two separate intervals, for hard problems are hard for both.
    Raises: ValueError where the lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} scores against {len(after)}: a paired difference needs the same problems")
    return mean_interval((np.asarray(after, dtype=np.float64) - np.asarray(before)).tolist(), seed, resamples)


def pass_at_k(samples: int, correct: Sequence[int], k: int) -> list[float]:
    """Returns for each problem the chance that one of k answers is correct, from `correct` right ones among `samples`.

    Source: Chen et al. 2021, eq. 1. Equal to: groundup.evals.plain.pass_at_k
    """
    wrong = samples - np.asarray(correct, dtype=np.int64)
    places = np.arange(
        samples - k + 1, samples + 1
    )  # 1 - C(wrong, k) / C(samples, k), as a product that can't overflow
    missed = np.prod(np.clip((wrong[:, None] - samples + places) / places, 0, None), axis=1)
    return (1 - missed).tolist()
