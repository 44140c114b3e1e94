"""Tiny projects with a text of a small grammar, and runs trained on them with whatever fault is planted, the doctor looking on."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.align import sft
from groundup.align.config import SFTConfig
from groundup.base.config import from_dict
from groundup.base.errors import ConfigError
from groundup.base.files import write_jsonl
from groundup.base.runs import Run, open_run, record
from groundup.doctor.live import Live
from groundup.shards.write import write_texts
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train.config import LoopConfig, PretrainConfig
from groundup.train.pretrain import main
from groundup.train.watch import watched

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
            with watched(Live()):
                main(configured(project, name, **sections))
        except ConfigError:
            assert any("nonfinite" in row for row in run.metrics())
    return run


def alarms(run: Run) -> list[str]:
    """Returns what the doctor said while the run trained."""
    return [row["alarm"] for row in run.metrics() if "alarm" in row]


def write_chat_project(project: Path) -> Path:
    """Makes a project whose small model has learned to answer sums of digits, most of them rightly."""
    rng = random.Random(0)
    sums = [(rng.randrange(5), rng.randrange(5)) for _ in range(60)]
    texts = [" ".join(f"{a} and {b} make {a + b}." for a, b in sums)] * 3
    write_project(project, texts, texts[:1], Tokenizer([], DEFAULT_SPECIALS, "bytes"))
    train(project, "main", model={"d_model": 32}, train={"steps": 2})
    asked = [
        {"id": f"p{i}", "skill": "addition", "question": f"What is {a} + {b}?", "answer": str(a + b)}
        for i, (a, b) in enumerate(sums)
    ]
    chats = [
        {"messages": [{"role": "user", "content": p["question"]}, {"role": "assistant", "content": p["answer"]}]}
        for p in asked
    ]
    write_jsonl(project / "tasks" / "sft.jsonl", chats)
    write_jsonl(project / "tasks" / "problems-train.jsonl", asked)
    sft.main(
        SFTConfig(
            project, batch=32, replay=1, threads=1, precision="fp32", train=LoopConfig(steps=120, lr=5e-3, log_every=2)
        )
    )
    return project
