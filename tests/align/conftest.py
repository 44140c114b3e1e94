"""A project small enough for tests: a byte tokenizer with chat tokens, token files, tasks, and an untrained base model."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from groundup.base.files import write_json, write_jsonl
from groundup.base.runs import open_run, record, write_checkpoint


def problem(rng: random.Random, number: int) -> dict[str, str]:
    a, b = rng.randrange(5), rng.randrange(5)
    return {"id": f"p{number}", "skill": "addition", "question": f"What is {a} + {b}?", "answer": str(a + b)}


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that makes a project up to its (untrained) base model."""
    from groundup.model.config import ModelConfig
    from groundup.model.transformer import Transformer
    from groundup.tokenizer.chat import DEFAULT_SPECIALS
    from groundup.tokenizer.encode import Tokenizer
    from groundup.tokenizer.io import save
    from groundup.train.state import snapshot

    def make(specials: tuple[str, ...] = DEFAULT_SPECIALS, context: int = 64) -> Path:
        project, rng = tmp_path_factory.mktemp("project"), random.Random(0)
        tokenizer = Tokenizer([], list(specials), "bytes")
        save(tokenizer, project / "tokenizer.json")
        text = " ".join(f"{a} and {b} make {a + b}." for a in range(5) for b in range(5))
        tokens = np.array([tokenizer.eot, *tokenizer.encode_ordinary(text)] * 3, dtype=np.uint16)
        shards = project / "03-shards" / "main" / "train"
        shards.mkdir(parents=True)
        np.save(shards / "part_0.npy", tokens)
        np.save(shards / "doc_starts.npy", np.flatnonzero(tokens == tokenizer.eot))
        write_json(shards / "index.json", {
            "dtype": "uint16", "tokenizer": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size, "tokens": len(tokens),
            "bytes": len(tokens), "documents": 3, "files": [{"name": "part_0.npy", "tokens": len(tokens), "sha256": ""}],
        })  # fmt: skip
        problems = [problem(rng, i) for i in range(60)]
        chats = [
            {"messages": [{"role": "user", "content": p["question"]}, {"role": "assistant", "content": p["answer"]}]}
            for p in problems
        ]
        write_jsonl(project / "tasks" / "sft.jsonl", chats)
        write_jsonl(project / "tasks" / "problems-train.jsonl", problems)
        run = open_run(project, "pretrain")
        model = Transformer(
            ModelConfig(vocab_size=tokenizer.vocab_size, context=context, d_model=32, n_layers=2, n_heads=2), seed=0
        )
        with record(run, "", {}, 0) as results, write_checkpoint(run.path, 1) as folder:
            snapshot(model, [], project / "tokenizer.json", {"step": 1}).write(folder)
            results["steps"] = 1
        return project

    return make


@pytest.fixture(scope="session")
def project(make_project: Callable[..., Path]) -> Path:
    """A project whose small model has been fine-tuned, aligned and reinforced by the verbs themselves."""
    from groundup.align import dpo, grpo, sft
    from groundup.align.config import DPOConfig, GRPOConfig, RolloutConfig, SampleConfig, SFTConfig
    from groundup.train.config import LoopConfig

    made = make_project()
    sft.main(SFTConfig(made, batch=32, replay=1, train=LoopConfig(steps=120, lr=5e-3, log_every=1)))
    own = SampleConfig(max_tokens=4)
    dpo.main(DPOConfig(made, batch=16, sample=own, train=LoopConfig(steps=6, lr=5e-4, log_every=1)))
    rollout = RolloutConfig(questions=16, max_tokens=4)
    grpo.main(GRPOConfig(made, rollout=rollout, train=LoopConfig(steps=6, lr=1e-3, log_every=1)))
    return made
