"""A project up to its token files: a made-up text, a byte tokenizer, no verb run but written by the rooms' own functions."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.runs import open_run, record
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save

WORDS = [
    "the",
    "a",
    "small",
    "old",
    "fox",
    "dog",
    "river",
    "tree",
    "sees",
    "follows",
    "finds",
    "under",
    "over",
    "near",
    "and",
    "then",
    "it",
    "sleeps",
    "runs",
]


def text(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words)) + "."


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes the project; `words` in each of 20 documents."""

    def make(name: str = "p", words: int = 60, heldout: int = 3) -> Path:
        project = tmp_path / name
        tokenizer = Tokenizer([], ("<|endoftext|>",), "bytes")
        run = open_run(project, "tokenizer")
        with record(run, "", {}):
            save(tokenizer, run.path / "tokenizer.json")
        shards = open_run(project, "shards")
        with record(shards, "", {"tokenizer": run.path / "tokenizer.json"}):
            write_texts([text(i, words) for i in range(20)], tokenizer, shards.path / "train")
            write_texts([text(100 + i, words) for i in range(heldout)], tokenizer, shards.path / "heldout")
        return project

    return make


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    """The project."""
    return make_project()
