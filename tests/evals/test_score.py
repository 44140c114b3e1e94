"""Intervals: that they cover what they should, shrink with more items, and see a paired difference that separate ones hide."""

import numpy as np
import pytest

from groundup.evals.score import mean_interval, paired_interval, pass_at_k, ratio_interval


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = (rng.random(300) < 0.3).astype(float)
        found = mean_interval(values.tolist(), seed=trial, resamples=400)
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 199


def test_more_items_make_an_interval_narrower_and_the_seed_fixes_it() -> None:
    few, many = mean_interval([0.0, 1.0] * 20), mean_interval([0.0, 1.0] * 500)
    assert many.high - many.low < 0.3 * (few.high - few.low)
    assert mean_interval([0.0, 1.0] * 20) == few
    assert str(many).startswith("0.500 [0.4")


def test_a_ratio_weighs_items_by_their_size() -> None:
    found = ratio_interval([10.0, 1.0], [5.0, 1.0])
    assert found.value == pytest.approx(11 / 6)
    assert (found.low, found.high) == pytest.approx((1.0, 2.0))


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(1)
    before = (rng.random(1000) < 0.5).astype(float)
    after = np.maximum(before, rng.random(1000) < 0.06)  # gets a few more right and none wrong
    first, second, difference = mean_interval(before), mean_interval(after), paired_interval(before, after)
    assert difference.low > 0
    assert first.high > second.low  # side by side they overlap
    with pytest.raises(ValueError, match="same problems"):
        paired_interval([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_pass_at_k_of_all_samples_asks_whether_any_is_right() -> None:
    assert pass_at_k(8, [0, 1, 8], 8) == [0.0, 1.0, 1.0]
    assert pass_at_k(8, [0, 4, 8], 1) == [0.0, 0.5, 1.0]
