"""A project small enough to be trained hundreds of times."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.runs import open_run, record
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that makes a project up to its token files."""

    def make(name: str) -> Path:
        rng, tokenizer = random.Random(0), Tokenizer([], ("<|endoftext|>",), "bytes")
        words = [
            "the",
            "a",
            "small",
            "old",
            "fox",
            "river",
            "tree",
            "sees",
            "follows",
            "finds",
            "under",
            "and",
            "then",
            "it",
            "sleeps",
        ]
        run, shards = open_run(tmp_path / name, "tokenizer"), open_run(tmp_path / name, "shards")
        with record(run, "", {}):
            save(tokenizer, run.path / "tokenizer.json")
        with record(shards, "", {"tokenizer": run.path / "tokenizer.json"}):
            for split, count in (("train", 60), ("heldout", 6)):
                texts = [" ".join(rng.choice(words) for _ in range(200)) for _ in range(count)]
                write_texts(texts, tokenizer, shards.path / split)
        return tmp_path / name

    return make
