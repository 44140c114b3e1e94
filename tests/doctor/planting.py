"""Tiny projects with a text of a small grammar, and runs trained on them with whatever fault is planted."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.base.config import from_dict
from groundup.base.errors import ConfigError
from groundup.base.runs import Run, open_run, record
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train.config import PretrainConfig
from groundup.train.pretrain import main

NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Klara", "Leo")
THINGS = ("apple", "book", "candle", "door", "engine", "flower", "garden", "hammer", "island", "jacket")
VERBS = ("finds", "hides", "paints", "washes", "carries", "sells", "breaks", "mends", "borrows", "forgets")
PLACES = ("in the kitchen", "by the river", "near the old mill", "under the bridge", "at the market")
SHAPE = {"context": 64, "d_model": 64, "n_layers": 2, "n_heads": 2}


def story(seed: int, sentences: int = 12) -> str:
    """Returns a text of sentences that any small model learns to write."""
    rng = random.Random(seed)
    return " ".join(
        f"{rng.choice(NAMES)} {rng.choice(VERBS)} the {rng.choice(THINGS)} {rng.choice(PLACES)}."
        for _ in range(sentences)
    )


def write_project(
    project: Path, texts: Sequence[str], heldout: Sequence[str], tokenizer: Tokenizer | None = None
) -> Path:
    """Makes a project up to its token files; on bytes, unless a tokenizer is given."""
    tokenizer = tokenizer or Tokenizer([], ("<|endoftext|>",), "bytes")
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
    train = {"steps": 120, "batch_tokens": 1024, "lr": 6e-3, "log_every": 4} | sections.pop("train", {})
    model = SHAPE | sections.pop("model", {})
    values = {"name": name, "precision": "fp32", "threads": 1, "model": model, "train": train, **sections}
    return replace(from_dict(PretrainConfig, values), project=project)


def train(project: Path, name: str, **sections: Any) -> Run:
    """Returns the run of that name, trained if it wasn't; one that breaks down because of what was planted is returned too."""
    run = open_run(project, "pretrain", name)
    if not run.info:
        try:
            main(configured(project, name, **sections))
        except ConfigError:
            assert any("nonfinite" in row for row in run.metrics())
    return run
