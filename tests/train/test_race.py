"""Races: the statistics are Student's, an A/A race finds nothing, a planted gain is found, both see the same batches."""

import random
from pathlib import Path
from typing import Any

import pytest

from groundup.base.errors import ConfigError
from groundup.parallel.mesh import World
from groundup.train import race as room
from groundup.train.config_sweep import RaceConfig, read_base
from groundup.train.verdict import interval, judge, pairs_needed, t_quantile
from tests.train.test_sweep import write_base


@pytest.mark.parametrize(
    ("within", "freedom", "t"),
    [
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.99, 2, 9.925),
        (0.8, 10, 1.372),
        (0.95, 30, 2.042),
    ],
)
def test_students_t(within: float, freedom: int, t: float) -> None:
    assert t_quantile(within, freedom) == pytest.approx(t, abs=6e-4)  # as printed in tables


@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_one_race_in_twenty_between_equals_finds_a_difference(pairs: int) -> None:
    rng = random.Random(pairs)
    real = 0
    for _ in range(3000):
        mean, half = interval([rng.gauss(0, 1) for _ in range(pairs)], 0.95)
        real += abs(mean) > half
    assert 0.038 < real / 3000 < 0.062  # three standard deviations about 0.05


def test_so_many_pairs_do_find_it_in_four_races_of_five() -> None:
    needed = pairs_needed(0.5, 1.0, 0.95)
    assert needed is not None
    rng, found = random.Random(0), 0
    for _ in range(400):
        mean, half = interval([rng.gauss(0.5, 1) for _ in range(needed)], 0.95)
        found += mean > half
    assert 0.73 < found / 400 < 0.87
    assert pairs_needed(0.0, 1.0, 0.95) is None
    assert pairs_needed(1e-6, 1.0, 0.95) is None


def test_verdicts_in_words() -> None:
    assert str(judge([1.0, 1.1, 1.05], [0.99, 1.085, 1.038])).startswith(
        "better by 0.0123 ± 0.0063 bits per byte (95%, 3 seeds)"
    )
    assert str(judge([0.99, 1.085, 1.038], [1.0, 1.1, 1.05])).startswith("worse by 0.0123 ± 0.0063")
    assert str(judge([1.0, 1.1, 1.05], [0.99, 1.105, 1.048])).endswith("about 84 seeds would decide")
    assert judge([1.0, 2.0], [1.0, 2.0]).identical


def run(project: Path, **idea: Any) -> dict[str, Any]:
    """Returns what a race of a tiny base against an idea comes to."""
    base = write_base(project, log_every=1)
    other = base.rename(base.with_name("base.toml"))
    second = write_base(project, log_every=1, **idea)
    return room.main(RaceConfig(base=other, idea=second, minutes=0, looks=3, confidence=0.99))


def test_a_race_of_equals_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(project)
    assert found["verdict"].startswith("identical")
    assert not found["real"]
    assert "the idea changes nothing" in capsys.readouterr().out


def test_a_change_without_effect_is_noise(project: Path) -> None:
    found = run(project, micro_batch=3)  # sums in another order: other roundings, no other method
    assert not found["real"]
    assert found["verdict"].startswith(("noise", "identical"))
    assert abs(found["mean"]) < 1e-4


def test_a_planted_gain_is_found_and_a_second_call_trains_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(project, lr=1e-2)
    assert found["verdict"].startswith("better")
    assert "the idea changes train.lr 0.003 -> 0.01" in capsys.readouterr().out
    folder = Path(found["folder"])
    assert (folder / "race.png").stat().st_size > 10_000
    assert found["mean"] == pytest.approx(sum(b[-1][2] - i[-1][2] for b, i in found["pairs"]) / 3)
    monkeypatch.setattr(room, "race", None)
    (project.parent / f"{project.name}.toml").rename(project.parent / "idea.toml")
    again = RaceConfig(
        base=project.parent / "base.toml", idea=project.parent / "idea.toml", minutes=0, looks=3, confidence=0.99
    )
    assert room.main(again)["verdict"] == found["verdict"]


def test_both_see_the_same_batches_in_turns(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, turns = read_base(write_base(project)), list[str]()
    runners = [room.Runner(config, project / "races" / side, World(), "fp32") for side in ("base", "idea")]
    for step in (0, 5, 17):
        batches = [runner.loop.source.batch(step) for runner in runners]
        assert batches[0].tokens.equal(batches[1].tokens)
    really = room.Runner.step
    monkeypatch.setattr(room.Runner, "step", lambda self: turns.append(self.loop.run.path.name) or really(self))  # type: ignore[func-returns-value]
    room.race(runners, looks=3)
    assert turns.count("base") == turns.count("idea") == 18
    assert all(turns[i] != turns[i + 1] for i in range(0, 36, 2))  # each pair of turns has one of both
    assert turns[:2] != turns[2:4]  # and who begins changes
    assert [len(runner.looks) for runner in runners] == [4, 4]
    assert [look[0] for look in runners[0].looks] == [0, 6 * 256, 12 * 256, 18 * 256]


def test_what_cannot_be_judged_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="can't tell a difference from noise"):
        RaceConfig(seeds=1).validate()
    base = write_base(project)
    with pytest.raises(ConfigError, match=r"minutes: 0\.001 leave"):
        room.main(RaceConfig(base=base, idea=base, minutes=0.001))
    with pytest.raises(ConfigError, match="expected a project's folder or"):
        RaceConfig(base=project / "none", idea=base).describe()
