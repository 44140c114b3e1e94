"""The learning rate over a run."""

import pytest

from groundup.base.errors import ConfigError
from groundup.optim.schedule import lr_scale, warmup_steps


def test_warmup_is_steps_or_a_share() -> None:
    assert warmup_steps(0.05, 1000) == 50
    assert warmup_steps(20, 1000) == 20
    assert warmup_steps(0, 1000) == 0
    assert warmup_steps(1, 1000) == 1


@pytest.mark.parametrize("kind", ["cosine", "wsd", "linear"])
def test_rises_peaks_falls_to_the_ratio(kind: str) -> None:
    rates = [lr_scale(step, 1000, 100, kind, 0.1, 0.4) for step in range(1001)]  # type: ignore[arg-type]
    assert rates[0] == pytest.approx(0.01)
    assert rates[:100] == sorted(rates[:100])
    assert max(rates) == pytest.approx(1.0)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[1000] == pytest.approx(0.1)


def test_shapes_of_the_fall() -> None:
    assert lr_scale(550, 1000, 100, "cosine", 0.0) == pytest.approx(0.5)
    assert lr_scale(550, 1000, 100, "linear", 0.0) == pytest.approx(0.5)
    assert lr_scale(599, 1000, 100, "wsd", 0.0, 0.4) == 1.0
    assert lr_scale(800, 1000, 100, "wsd", 0.0, 0.4) == pytest.approx(0.5)


def test_short_runs_do_not_divide_by_zero() -> None:
    for kind in ("cosine", "wsd", "linear"):
        assert 0 < lr_scale(0, 1, 1, kind, 0.1, 0.0) <= 1  # type: ignore[arg-type]
        assert 0 < lr_scale(1, 2, 2, kind, 0.1, 1.0) <= 1  # type: ignore[arg-type]


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="expected one of cosine, wsd, linear, not 'step'"):
        lr_scale(0, 10, 1, "step")  # type: ignore[arg-type]
