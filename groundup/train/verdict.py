"""Is a difference real? The paired t interval, and how many pairs it would take to decide. Standard library only."""

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Verdict", "interval", "judge", "pairs_needed", "t_quantile", "t_within"]

POWER = 0.8  # the chance to find a difference as large as the one seen, when saying how many pairs would decide
MOST_PAIRS = 1000


def t_within(t: float, freedom: int) -> float:
    """Returns the probability that Student's t, with so many degrees of freedom, lies between -t and t.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4, exact for whole degrees
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    first = 1 if freedom % 2 else 0
    term, total = (cosine, 0.0) if first else (1.0, 0.0)
    for k in range(2 + first, freedom + 1, 2):  # for even degrees 1, 1/2 cos^2, 1*3/(2*4) cos^4, ...
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if first else sine * total


def t_quantile(within: float, freedom: int) -> float:
    """Returns the t with `t_within(t, freedom)` equal to `within`: 4.303 for 0.95 and 2 degrees of freedom.

    From 200 degrees on the normal distribution's, which is then within one per cent.
    """
    if freedom >= 200:
        return statistics.NormalDist().inv_cdf((1 + within) / 2)
    low, high = 0.0, 1.0
    while t_within(high, freedom) < within:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < within else (low, middle)
    return high


def pairs_needed(mean: float, spread: float, confidence: float) -> int | None:
    """Returns how many pairs would find a mean difference of that size, given the spread of one; None for more than 1,000.

    n pairs tell it from nothing with `confidence`, in 80% of the races: n >= ((t_confidence + t_power) * spread / mean)^2.
    """

    def enough(n: int) -> bool:
        reach = t_quantile(confidence, n - 1) + t_quantile(2 * POWER - 1, n - 1)
        return n * mean**2 >= (reach * spread) ** 2

    if mean == 0 or not enough(MOST_PAIRS):
        return None
    return 2 + bisect.bisect_left(range(2, MOST_PAIRS + 1), True, key=enough)


@dataclass(frozen=True)
class Verdict:
    """Mean difference, base minus idea, so that above 0 the idea is better; half the interval's width; what would decide."""

    mean: float
    half: float
    pairs: int
    confidence: float
    needed: int | None

    @property
    def real(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half

    @property
    def identical(self) -> bool:
        """Whether there is no difference at all: the two trained bit for bit alike."""
        return self.mean == 0 and self.half == 0

    def __str__(self) -> str:
        interval = f"{abs(self.mean):.4f} ± {self.half:.4f} bits per byte ({self.confidence:.0%}, {self.pairs} seeds)"
        if self.identical:
            return "identical: base and idea train bit for bit alike"
        if self.real:
            return f"{'better' if self.mean > 0 else 'worse'} by {interval}"
        side = "better" if self.mean > 0 else "worse"
        decide = (
            f"about {self.needed} seeds would decide" if self.needed else "no sensible number of seeds would decide"
        )
        return f"noise: {side} by {interval}; {decide}"


def interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Returns the mean and half the width of its t interval: the true mean lies within t * s / sqrt(n) of the one seen.

    Source: Student 1908
    """
    half = t_quantile(confidence, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half


def judge(base: Sequence[float], idea: Sequence[float], confidence: float = 0.95) -> Verdict:
    """Returns the verdict on paired results, lower ones being better.

    The pairs share seed and batches, so what these do to both cancels in the difference. The differences of n pairs, being
    means over many tokens, are taken as normal. The interval is about seeds and order of the text, on this held-out text.
    """
    differences = [b - i for b, i in zip(base, idea, strict=True)]
    mean, half = interval(differences, confidence)
    needed = None if abs(mean) > half else pairs_needed(mean, statistics.stdev(differences), confidence)
    return Verdict(mean, half, len(differences), confidence, needed)
