"""What evaluation files hold doesn't reach training, and what matched is listed; sources are mixed by weight or temperature."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.errors import ConfigError, DataError
from groundup.base.files import read_jsonl, write_jsonl
from groundup.base.records import read_documents
from groundup.data.build import build
from groundup.data.config import BuildConfig, DecontaminateConfig
from groundup.data.decontaminate import ProblemIndex, Question
from groundup.data.mix import epochs

QUESTION = "A farmer has twelve sheep and buys seven more at the market on Monday, how many sheep has the farmer now?"
WORDS = "the of and with house river people said day went have that winter engine letter cloud".split()  # noqa: SIM905 a list of words reads best as words


def test_what_matched_is_listed(tmp_path: Path) -> None:
    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS, k=60)) for _ in range(12)]
    texts[7] += " " + QUESTION.lower()
    write_jsonl(tmp_path / "p" / "raw" / "a.jsonl", ({"id": f"d{k}", "text": text} for k, text in enumerate(texts)))
    write_jsonl(tmp_path / "eval.jsonl", [{"question": QUESTION}])
    config = BuildConfig(
        project=tmp_path / "p", heldout=0.0, decontaminate=DecontaminateConfig(paths=(tmp_path / "eval.jsonl",))
    )
    run = build(config)
    (match,) = read_jsonl(run.path / "contamination.jsonl")
    assert match == {
        "id": "a.jsonl:d7",
        "words": 13,
        "matched": "a farmer has twelve sheep and buys seven more at the market on",
    }
    assert [d.id for d in read_documents(run.path / "dropped.parquet")] == ["a.jsonl:d7"]
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no problems in it"):
        build(replace(config, decontaminate=DecontaminateConfig(paths=(tmp_path / "empty.jsonl",))))


def test_from_thirteen_words_on() -> None:
    """Case and marks don't hide a problem; twelve of its words in a row are no proof; a short one must be there whole."""
    asked, short = [f"word{k}" for k in range(30)], "name the capital city of France"
    index = ProblemIndex([Question(" ".join(asked)), Question(short), Question("too short")], DecontaminateConfig())
    around = "something before {} and after"
    for start in (0, 9, 17):
        assert index.check(around.format(" ".join(asked[start : start + 12]))) is None
        drop = index.check(around.format(", ".join(asked[start : start + 13]).upper()))
        assert drop is not None
        assert drop[:4] == ("decontaminate", "problem_overlap", 13, 13)
        assert drop.partner == " ".join(asked[start : start + 13])
    assert index.check("Name the capital city of Spain, too short a list") is None
    found = index.check("Quiz: name the CAPITAL city of France!")
    assert found is not None
    assert found.partner == short.lower()
    once = ProblemIndex([Question(" ".join(asked), whole=True)], DecontaminateConfig())
    assert once.check(" ".join(asked[:29])) is None, "templates share runs of words by design"
    assert once.check(around.format(" ".join(asked))) is not None


def test_temperature_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"web": 9_000, "wiki": 1_000}
    assert epochs(sizes, BuildConfig()) == {"web": 1.0, "wiki": 1.0}
    hot = epochs(sizes, BuildConfig(mix_temperature=2.0))
    assert hot == pytest.approx(
        {"web": 7_500 / 9_000, "wiki": 2_500 / 1_000}
    )  # sqrt(9) to sqrt(1): three quarters and a quarter
    assert sum(sizes[s] * hot[s] for s in sizes) == pytest.approx(10_000)
    assert epochs(sizes, BuildConfig(mix_temperature=1e5, max_epochs=4.0))["wiki"] == 4.0  # 5 times would be too often
    assert epochs(sizes, BuildConfig(mix=("wiki=3",), mix_temperature=2.0)) == {"web": 1.0, "wiki": 3.0}
    assert not capsys.readouterr().out
    assert epochs(sizes, BuildConfig(mix=("wikki=3", "books=2")))["web"] == 1.0
    assert capsys.readouterr().out == (
        "mix: no document of a source 'books' is left, but of web, wiki\nmix: no document of a source 'wikki' is left, but of wiki\n"
    )
    with pytest.raises(ConfigError, match="max_epochs"):
        BuildConfig(mix=("wiki=5",), max_epochs=4.0).validate()
    with pytest.raises(ConfigError, match="mix_temperature"):
        BuildConfig(mix_temperature=0.5).validate()
