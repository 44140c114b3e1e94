"""Tiny projects with a text of a small grammar, and runs trained on them, each made once for all tests."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groundup.base.config import from_dict
from groundup.base.runs import Run, open_run, record
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train.config import PretrainConfig

NAMES = "Anna Ben Carla David Emma Felix Greta Hugo Ida Jonas Klara Leo Mia Noah Olga Paul".split()
THINGS = "apple book candle door engine flower garden hammer island jacket kettle lantern mirror needle".split()
VERBS = "finds hides paints washes carries sells breaks mends borrows forgets admires buries".split()
PLACES = "in the kitchen|by the river|near the old mill|under the bridge|at the market|behind the church".split("|")
SHAPE = {"context": 64, "d_model": 64, "n_layers": 2, "n_heads": 2}


def story(seed: int, sentences: int = 12) -> str:
    """Returns a text of sentences that any small model learns to write."""
    rng = random.Random(seed)
    return " ".join(
        f"{rng.choice(NAMES)} {rng.choice(VERBS)} the {rng.choice(THINGS)} {rng.choice(PLACES)}."
        for _ in range(sentences)
    )


def write_project(project: Path, texts: Sequence[str], heldout: Sequence[str]) -> Path:
    """Makes a project up to its token files, on bytes."""
    tokenizer = Tokenizer([], ("<|endoftext|>",), "bytes")
    run = open_run(project, "tokenizer")
    with record(run, "", {}):
        save(tokenizer, run.path / "tokenizer.json")
    shards = open_run(project, "shards")
    with record(shards, "", {"tokenizer": run.path / "tokenizer.json"}):
        write_texts(texts, tokenizer, shards.path / "train")
        write_texts(heldout, tokenizer, shards.path / "heldout")
    return project


def configured(project: Path, name: str, **sections: Any) -> PretrainConfig:
    """Returns a config of a tiny run; sections are merged over its defaults."""
    train = {"steps": 200, "batch_tokens": 1024, "lr": 4e-3, "log_every": 5} | sections.pop("train", {})
    model = SHAPE | sections.pop("model", {})
    values = {"name": name, "precision": "fp32", "model": model, "train": train, **sections}
    return replace(from_dict(PretrainConfig, values), project=project)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 300 stories."""
    folder = tmp_path_factory.mktemp("doctor") / "p"
    return write_project(folder, [story(i) for i in range(300)], [story(10_000 + i) for i in range(20)])


@pytest.fixture(scope="session")
def trained(project: Path) -> Callable[..., Run]:
    """Trains a run of the project (once for each name) and returns it."""
    from groundup.base.errors import GroundupError
    from groundup.train.pretrain import main

    def train(name: str, on: Path = project, **sections: Any) -> Run:
        run = open_run(on, "pretrain", name)
        if not run.info:
            try:
                main(configured(on, name, **sections))
            except GroundupError:  # a run that stops because of what was planted
                assert run.rows if hasattr(run, "rows") else run.metrics()
        return run

    return train
