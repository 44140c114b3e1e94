"""The trainable classifier: it learns what examples differ in, scores reach `data build` as a column, and bad input is named."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.base.errors import ConfigError, DataError
from groundup.base.files import write_jsonl
from groundup.base.records import read_documents
from groundup.data.build import build
from groundup.data.classifier import Classifier, area, fit, hashed, read_texts, score, train
from groundup.data.config import BuildConfig, ScoresConfig
from groundup.data.config_classifier import ClassifierScoreConfig, ClassifierTrainConfig

COMMON = ("the", "of", "and", "with", "a", "house", "river", "people", "said", "day", "went", "have", "that")
GOOD, BAD = ("theorem", "energy", "history", "species"), ("cheap", "click", "bonus", "winner")


def examples(marks: tuple[str, ...], count: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    return [
        " ".join(dice.choices(COMMON, k=30) + dice.choices(marks, k=2) + dice.choices(COMMON, k=30))
        for _ in range(count)
    ]


@pytest.fixture
def trained(tmp_path: Path) -> ClassifierTrainConfig:
    for name, marks in (("good", GOOD), ("bad", BAD)):
        write_jsonl(tmp_path / f"{name}.jsonl", ({"text": text} for text in examples(marks, 100, 1)))
    config = ClassifierTrainConfig(
        good=(tmp_path / "good.jsonl",), bad=(tmp_path / "bad.jsonl",), out=tmp_path / "c.npz", buckets=4096
    )
    train(config)
    return config


def test_it_learns_what_the_examples_differ_in(
    trained: ClassifierTrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = Classifier.load(trained.out)
    good, bad = classifier.scores(examples(GOOD, 50, 2)), classifier.scores(examples(BAD, 50, 2))
    assert good.min() > 0.5 > bad.max()
    assert classifier.scores([""])[0] == pytest.approx(1 / (1 + np.exp(-classifier.weights[-1])))
    before = trained.out.read_bytes()
    train(trained)
    assert np.array_equal(
        Classifier.load(trained.out).weights, classifier.weights
    )  # the same examples, the same classifier
    assert len(before) == trained.out.stat().st_size


def test_a_step_follows_the_gradient() -> None:
    """One epoch of one example each, against AdaGrad written out in NumPy."""
    config = ClassifierTrainConfig(buckets=1024, epochs=1, ngram=1, seed=3)
    texts, labels = ["alpha beta beta", "gamma beta"], np.array([1.0, 0.0])
    weights, squares = np.zeros(1025), np.zeros(1025)
    for d in np.random.default_rng(3).permutation(2):
        ids, _ = hashed([texts[d]], 1, 1024)
        x = np.zeros(1025)
        x[ids], x[-1] = 1 / np.sqrt(len(ids)), 1.0
        slope = (1 / (1 + np.exp(-weights @ x)) - labels[d]) * x
        slope[ids] += config.decay * weights[ids]
        squares += slope**2
        weights -= config.rate * slope / np.sqrt(squares + 1e-8)
    assert np.allclose(fit(texts, labels, config).weights, weights, atol=1e-6)


def test_the_area_counts_pairs() -> None:
    assert area(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])) == 0.875
    assert area(np.array([0.1, 0.9]), np.array([1, 0])) == 0.0


def test_scores_reach_the_build(trained: ClassifierTrainConfig, tmp_path: Path) -> None:
    project = tmp_path / "p"
    rows = [{"id": f"g{k}", "text": text} for k, text in enumerate(examples(GOOD, 20, 4))]
    rows += [{"id": f"b{k}", "text": text} for k, text in enumerate(examples(BAD, 20, 4))]
    write_jsonl(project / "raw" / "a.jsonl", rows)
    config = BuildConfig(project=project, heldout=0.1)
    build(config)
    scoring = ClassifierScoreConfig(project=project, model=trained.out)
    scoring.validate()
    score(scoring)
    assert pq.read_metadata(scoring.target).num_rows == 40
    score(replace(scoring, processes=2, out=tmp_path / "again.parquet"))
    assert (tmp_path / "again.parquet").read_bytes() == scoring.target.read_bytes()
    build(replace(config, scores=ScoresConfig(path=scoring.target, least=0.5)))
    folder = project / "01-data" / "main"
    dropped = list(read_documents(folder / "dropped.parquet"))
    assert {d.id for d in dropped} == {f"a.jsonl:b{k}" for k in range(20)}
    assert {(d.meta["rule"], d.meta["threshold"]) for d in dropped} == {("score", 0.5)}
    assert all(d.meta["value"] == d.meta["score"] < 0.5 for d in dropped)


def test_of_two_duplicates_the_better_one_stays(tmp_path: Path) -> None:
    text = examples(GOOD, 1, 5)[0]
    write_jsonl(
        tmp_path / "p" / "raw" / "a.jsonl",
        [{"id": "long", "text": text + " and the end"}, {"id": "short", "text": text}],
    )
    pq.write_table(
        pa.table({"id": ["a.jsonl:long", "a.jsonl:short"], "perplexity": [90.0, 30.0]}), tmp_path / "s.parquet"
    )
    config = BuildConfig(project=tmp_path / "p", heldout=0.0)
    for better, kept in (("low", "short"), ("high", "long")):
        scores = ScoresConfig(path=tmp_path / "s.parquet", column="perplexity", better=better)  # type: ignore[arg-type]
        build(replace(config, scores=scores))
        assert [d.id for d in read_documents(tmp_path / "p" / "01-data" / "main" / "documents.parquet")] == [
            f"a.jsonl:{kept}"
        ]
    with pytest.raises(DataError, match=r"columns id and wrong \(scores.column\)"):
        build(replace(config, scores=ScoresConfig(path=tmp_path / "s.parquet", column="wrong")))


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="good: name at least one"):
        ClassifierTrainConfig().validate()
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match="good: 1 examples are too few"):
        train(ClassifierTrainConfig(good=(tmp_path / "a.jsonl",), bad=(tmp_path / "a.jsonl",)))
    with pytest.raises(DataError, match="no classifier"):
        Classifier.load(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="no such file"):
        Classifier.load(tmp_path / "missing.npz")
    write_jsonl(tmp_path / "b.jsonl", [{"label": "x"}])
    with pytest.raises(DataError, match="row 1: 'text' is missing"):
        list(read_texts(tmp_path / "b.jsonl"))
    with pytest.raises(DataError, match=r"expected \.jsonl"):
        list(read_texts(tmp_path / "b.csv"))
    with pytest.raises(ConfigError, match=r"scores\.path: .* is no file"):
        BuildConfig(scores=ScoresConfig(path=tmp_path / "none")).validate()
