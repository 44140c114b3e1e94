"""The loop without a verb around it: time limits, sources of any kind, what a resume restores."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.runs import Run, checkpoints
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.parallel.mesh import World
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train.config import CheckpointConfig, LoopConfig, OptimConfig
from groundup.train.loop import build_optimizers, train
from groundup.train.metrics import MemoryMeter, Window, parameter_hash
from groundup.train.precision import autocast, peak_flops, resolve, resolve_once
from groundup.train.state import load_checkpoint, snapshot

SHAPE = ModelConfig(vocab_size=20, context=8, d_model=16, n_layers=2, n_heads=2, dropout=0.2)
CPU = torch.device("cpu")


class Counting:
    """Rows that count upwards; `model` is looked at, as a source that generates would."""

    def __init__(self, model: Transformer | None = None, broken_at: int = -1) -> None:
        self.model, self.broken_at, self.asked = model, broken_at, []  # type: ignore[var-annotated]

    def batch(self, step: int) -> Tensor:
        if step == self.broken_at:
            raise RuntimeError("power cut")
        self.asked.append(step)
        return (torch.arange(9) + step)[None].repeat(4, 1) % 20

    def tokens(self, batch: Tensor) -> int:
        return batch.numel()


def loss(model: Transformer, rows: Tensor) -> tuple[Tensor, int, dict[str, float]]:
    logits = model(rows[:, :-1])
    total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
    return total, rows.shape[0] * (rows.shape[1] - 1), {"accuracy": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    save(Tokenizer([], ("<|endoftext|>",), "bytes"), tmp_path / "tokenizer.json")
    found = Run(tmp_path / "06-sft" / "main")
    found.path.mkdir(parents=True)
    return found


def go(run: Run, model: Transformer, source: Counting, config: LoopConfig, **more: Any) -> dict[str, Any]:
    return train(model, source, loss, config, run, tokenizer_path=run.path.parent.parent / "tokenizer.json", **more)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_crash_at_any_step_changes_nothing(run: Run, kind: str, precision: str, tmp_path: Path) -> None:
    config = LoopConfig(steps=9, checkpoint=CheckpointConfig(2), log_every=2, lr=1e-2, optim=OptimConfig(kind=kind))  # type: ignore[arg-type]
    for broken_at in (1, 6):
        with pytest.raises(RuntimeError, match="power cut"):
            go(run, Transformer(SHAPE, seed=0), Counting(broken_at=broken_at), config, precision=precision)
    source = Counting()
    found = go(run, Transformer(SHAPE, seed=0), source, config, precision=precision)
    assert source.asked == [6, 7, 8]
    other = Run(tmp_path / "whole")
    other.path.mkdir()
    whole = train(Transformer(SHAPE, seed=0), Counting(), loss, config, other, tokenizer_path=tmp_path / "tokenizer.json",
                  precision=precision)  # fmt: skip
    assert found["parameter_hash"] == whole["parameter_hash"]
    ours, theirs = ([(row["step"], row["loss"]) for row in r.metrics()] for r in (run, other))
    assert ours == theirs == sorted(ours)
    assert found["tokens"] == whole["tokens"] == 9 * 36
    assert len(checkpoints(run.path)) == 2


def test_max_seconds_ends_early_with_a_checkpoint(run: Run) -> None:
    looks: list[int] = []

    def look(model: Transformer, step: int) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        looks.append(step)
        return {"heldout_loss": 1.5}

    config = LoopConfig(steps=10_000_000, lr=1e-2)
    found = go(run, Transformer(SHAPE, seed=0), Counting(), config, max_seconds=0.2, evaluate=look)
    assert 0 < found["steps"] < config.steps
    assert found["train_s"] >= 0.2
    assert looks == [found["steps"]]
    assert found["heldout_loss"] == 1.5
    assert found["accuracy"] == 0.5
    assert checkpoints(run.path)[-1].name == f"step_{found['steps']:06d}"
    again = go(run, Transformer(SHAPE, seed=0), Counting(), config, max_seconds=0.2, evaluate=look)
    assert again["parameter_hash"] == found["parameter_hash"]


def test_a_finished_run_that_lost_its_end_reports_again(run: Run) -> None:
    config = LoopConfig(steps=3, lr=1e-2)
    first = go(run, Transformer(SHAPE, seed=0), Counting(), config, evaluate=lambda model, step: {"heldout_loss": 2.0})
    again = go(run, Transformer(SHAPE, seed=0), Counting(), config, evaluate=lambda model, step: {"heldout_loss": 2.0})
    for key in ("loss", "heldout_loss", "steps", "tokens", "parameter_hash", "lr"):
        assert again[key] == first[key]


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were(run: Run) -> None:
    model = Transformer(SHAPE, seed=0)
    before = parameter_hash(model)

    def broken(model: Transformer, rows: Tensor) -> tuple[Tensor, int, dict[str, float]]:
        total, count, _ = loss(model, rows)
        return total * math.nan, count, {}

    with pytest.raises(ConfigError, match=r"step 1: the loss isn't finite, beginning in norm\.weight; lower train\.lr"):
        train(
            model,
            Counting(),
            broken,
            LoopConfig(steps=3, nonfinite="stop"),
            run,
            tokenizer_path=run.path.parent.parent / "tokenizer.json",
        )
    assert parameter_hash(model) == before
    assert not checkpoints(run.path)


def test_a_checkpoint_of_another_architecture_is_refused(run: Run) -> None:
    go(run, Transformer(SHAPE, seed=0), Counting(), LoopConfig(steps=2, lr=1e-2))
    other = replace(SHAPE, d_model=32)
    with pytest.raises(CheckpointError, match="a checkpoint of another architecture"):
        go(run, Transformer(other, seed=0), Counting(), LoopConfig(steps=4, lr=1e-2))


def test_optimiser_state_of_another_optimiser_is_refused(run: Run) -> None:
    muon, adamw = (LoopConfig(steps=2, optim=OptimConfig(kind=kind)) for kind in ("muon", "adamw"))  # type: ignore[arg-type]
    go(run, Transformer(SHAPE, seed=0), Counting(), muon)
    with pytest.raises(CheckpointError, match="belongs to another optimiser"):
        go(run, Transformer(SHAPE, seed=0), Counting(), adamw)


def test_state_survives_the_round_trip(tmp_path: Path) -> None:
    save(Tokenizer([], ("<|endoftext|>",), "bytes"), tmp_path / "tokenizer.json")
    config = LoopConfig(optim=OptimConfig(kind="muon"))
    model = Transformer(SHAPE, seed=0)
    optimizers = build_optimizers(model, config, "fp32")
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.step()
    (tmp_path / "checkpoint").mkdir()
    snapshot(model, optimizers, tmp_path / "tokenizer.json", {"step": 1}).write(tmp_path / "checkpoint")
    assert not list(tmp_path.rglob("*.pt"))
    fresh = Transformer(SHAPE, seed=1)
    restored = build_optimizers(fresh, config, "fp32")
    assert load_checkpoint(tmp_path / "checkpoint", fresh, restored)["step"] == 1
    assert parameter_hash(fresh) == parameter_hash(model)
    for ours, theirs in zip(restored, optimizers, strict=True):
        for index, values in theirs.state_dict()["state"].items():
            for key, value in values.items():
                assert torch.equal(ours.state_dict()["state"][index][key], value)


def test_window_averages_by_item_and_by_step() -> None:
    window = Window()
    window.add(10.0, 5, 100, 0.5, {"reward": 1.0})
    window.add(2.0, 1, 20, 0.5, {"reward": 0.0})
    assert window.row() == {"loss": 2.0, "tokens_per_s": 120.0, "reward": 0.5}


def test_memory_meter_sees_what_is_held() -> None:
    meter = MemoryMeter(CPU)
    held = torch.ones(30_000_000)
    assert meter.bytes() > 0.9 * held.numel() * 4


def test_precision(tmp_path: Path) -> None:
    assert resolve("bf16", CPU, 64, 32) == "bf16"
    assert resolve("auto", CPU, 64, 32) in ("fp32", "bf16")
    with autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    run = Run(tmp_path)
    assert resolve_once("bf16", run, World(), 64, 32) == "bf16"
    assert resolve_once("fp32", run, World(), 64, 32) == "bf16"  # as it was decided when the run began
    (tmp_path / "resolved.json").write_text('{"precision": "bf16", "threads": 99, "device": "cpu"}')
    assert resolve_once("fp32", run, World(), 64, 32) == "bf16"
    assert "threads: 99 when the run began" in (tmp_path / "log.txt").read_text()
    assert peak_flops("fp32", CPU) > 1e8
