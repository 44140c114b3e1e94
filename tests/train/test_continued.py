"""Going on from weights that are there: the shape is the start's, older text is replayed, forgetting is measured."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.base.errors import CheckpointError, ConfigError, DataError, TokenizerError
from groundup.base.runs import checkpoints, latest_checkpoint, open_run, record
from groundup.cli import main as groundup
from groundup.model.config import ModelConfig
from groundup.model.weights import load_model
from groundup.shards.dataset import Replayed, TokenDataset
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train.config import CheckpointConfig, LoopConfig, PretrainConfig, ReplayConfig
from groundup.train.pretrain import main

SHAPE = ModelConfig(context=32, d_model=32, n_layers=2, n_heads=2)
LOOP = LoopConfig(steps=60, batch_tokens=512, lr=5e-3)
OTHER = ["Ein", "Fuchs", "sieht", "den", "Baum", "und", "schläft", "dann", "Gänse", "laufen"]


def add_shards(project: Path, name: str, tokenizer: Tokenizer, seed: int = 0, heldout: int = 5) -> None:
    """Writes token files of another language, as a run of their own."""
    rng, run = random.Random(seed), open_run(project, "shards", name)
    texts = [" ".join(rng.choice(OTHER) for _ in range(60)) for _ in range(25)]
    with record(run, "", {"tokenizer": open_run(project, "tokenizer").path / "tokenizer.json"}):
        write_texts(texts[5:], tokenizer, run.path / "train")
        write_texts(texts[:heldout], tokenizer, run.path / "heldout")


@pytest.fixture
def trained(make_project: Callable[..., Path], request: pytest.FixtureRequest) -> Path:
    """A project with a model of its text (of some steps' training), and token files of another text."""
    project = make_project(words=60)
    add_shards(project, "new", Tokenizer([], ("<|endoftext|>",), "bytes"))
    loop = replace(LOOP, steps=getattr(request, "param", 2))
    main(PretrainConfig(project, precision="fp32", model=SHAPE, train=loop))
    return project


def go_on(project: Path, name: str, replay: float, steps: int = 60) -> PretrainConfig:
    return PretrainConfig(
        project, name, shards="new", start=open_run(project, "pretrain").path, replay=ReplayConfig(replay, "main"),
        precision="fp32", train=LoopConfig(steps=steps, batch_tokens=512, lr=5e-3),
    )  # fmt: skip


@pytest.mark.parametrize("trained", [60], indirect=True)
def test_replay_forgets_less_and_learns_the_new_text_nonetheless(trained: Path) -> None:
    plain, replayed = main(go_on(trained, "plain", 0.0)), main(go_on(trained, "replayed", 0.25))
    assert plain["forgotten"] > 0.5
    assert replayed["forgotten"] < 0.3 * plain["forgotten"]
    assert abs(replayed["heldout_loss"] - plain["heldout_loss"]) < 0.2
    before = open_run(trained, "pretrain").results["heldout_loss"]
    assert plain["old_heldout_loss"] - plain["forgotten"] == pytest.approx(before, abs=1e-4)
    rows = [row for row in open_run(trained, "pretrain", "plain").metrics() if "forgotten" in row]
    assert rows[0]["forgotten"] < rows[-1]["forgotten"]


def test_it_begins_from_the_very_weights_and_takes_shape_and_tokenizer_along(trained: Path) -> None:
    main(go_on(trained, "one", 0.0, steps=1))
    run = open_run(trained, "pretrain", "one")
    start, one = latest_checkpoint(open_run(trained, "pretrain").path), latest_checkpoint(run.path)
    assert start is not None
    assert one is not None
    assert load_model(one).config == load_model(start).config
    before, after = load_model(start).state_dict(), load_model(one).state_dict()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved <= 0.011  # one step of AdamW at most lr, and a little decay
    assert run.info["inputs"]["start"]["path"].endswith(f"main/checkpoints/{start.name}")


def test_replayed_samples_are_spread_evenly_and_all_of_each_text_is_seen(trained: Path) -> None:
    folders = [open_run(trained, "shards", name).path / "train" for name in ("new", "main")]
    new, old = (TokenDataset(folder, 32, 3) for folder in folders)
    data = Replayed(folders[0], TokenDataset(folders[1], 32, 3), 0.3)
    kinds, seen = [], {0: 0, 1: 0}
    for n in range(50):
        tokens, _ = data.sample(n)
        kind = 1 if np.array_equal(tokens, old.sample(seen[1])[0]) else 0
        assert np.array_equal(tokens, (new, old)[kind].sample(seen[kind])[0])
        kinds.append(kind)
        seen[kind] += 1
    assert sum(kinds) == 15
    assert all(sum(kinds[i : i + 10]) == 3 for i in range(0, 50, 10))
    whole, halves = data.batch(6, 8), [data.batch(6, 8, rank, 2) for rank in range(2)]
    assert torch.equal(whole.tokens, torch.cat([half.tokens for half in halves]))


def test_mistakes_are_named_before_anything_is_written(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = str(open_run(trained, "pretrain").path)

    def refused(kind: type[Exception], message: str, **changes: object) -> None:
        config = {
            "project": trained,
            "name": "x",
            "shards": "new",
            "start": Path(start),
            "precision": "fp32",
            "train": LOOP,
        }
        with pytest.raises(kind, match=message):
            main(PretrainConfig(**config | changes))  # type: ignore[arg-type]

    refused(CheckpointError, "not there or not finished", start=trained / "05-pretrain" / "y")
    refused(ConfigError, "this very run", name="main")
    refused(ConfigError, "leave .model. out", model=ModelConfig(d_model=64))
    refused(ConfigError, "--replay.shards", replay=ReplayConfig(0.5))
    refused(DataError, "not there or not finished", replay=ReplayConfig(shards="y"))
    add_shards(trained, "bare", Tokenizer([], ("<|endoftext|>",), "bytes"), heldout=0)
    refused(DataError, "can't be measured", replay=ReplayConfig(shards="bare"))
    other = Tokenizer([(97, 98)], ("<|endoftext|>",), "gpt2")
    add_shards(trained, "other", other)
    refused(TokenizerError, "another tokenizer than the model's", shards="other")
    refused(TokenizerError, "another tokenizer than the new text", replay=ReplayConfig(shards="other"))
    save(other, open_run(trained, "tokenizer").path / "tokenizer.json")
    assert not (trained / "05-pretrain" / "x").exists()
    assert groundup(["pretrain", str(trained), "--name", "x", "--start", start, "--replay.share", "1.5"]) == 2
    assert "replay.share: expected a share" in capsys.readouterr().err
    assert groundup(["pretrain", str(trained), "--name", "x", "--start", start, "--dry-run"]) == 0
    assert f"go on from {start}" in capsys.readouterr().out


def test_an_interrupted_one_ends_in_the_very_same_weights(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = main(go_on(trained, "whole", 0.25, steps=12))
    config = go_on(trained, "broken", 0.25, steps=12)
    config = replace(config, train=replace(config.train, checkpoint=CheckpointConfig(every=5)))
    sample = Replayed.sample

    def broken(self: Replayed, n: int) -> Any:
        if 8 * 16 <= n < 11 * 16:  # a step has 16 windows, and the last batch is looked at beforehand
            raise RuntimeError("pulled the plug")
        return sample(self, n)

    monkeypatch.setattr(Replayed, "sample", broken)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main(config)
    monkeypatch.undo()
    assert [c.name for c in checkpoints(open_run(trained, "pretrain", "broken").path)] == ["step_000005"]
    again = main(config)
    assert again["parameter_hash"] == whole["parameter_hash"]
    assert again["forgotten"] == whole["forgotten"]
