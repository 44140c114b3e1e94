"""What the loop does besides stepping: non-finite steps, averages, what it keeps, growing batches, dashboards, compiling."""

import math
import shutil
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.base.errors import ConfigError, DataError, StorageError
from groundup.base.files import read_json
from groundup.base.runs import Run, checkpoints
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.parallel.mesh import World
from groundup.shards.dataset import TokenDataset
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train import compiling, state
from groundup.train.config import CheckpointConfig, LoopConfig, OptimConfig, TrackConfig
from groundup.train.loop import train
from groundup.train.metrics import parameter_hash
from groundup.train.pretrain import PretrainSource
from groundup.train.state import Saver

SHAPE = ModelConfig(vocab_size=20, context=8, d_model=16, n_layers=2, n_heads=2, dropout=0.2)


class Counting:
    """Rows that count upwards; it notes which batches were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def batch(self, number: int) -> Tensor:
        self.asked.append(number)
        return (torch.arange(9) + number)[None].repeat(4, 1) % 20

    def tokens(self, batch: Tensor) -> int:
        return batch.numel()


def loss(model: Transformer, rows: Tensor) -> tuple[Tensor, int, dict[str, Any]]:
    logits = model(rows[:, :-1])
    total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
    return total, rows.shape[0] * (rows.shape[1] - 1), {}


def poisoned(*numbers: int) -> Callable[..., tuple[Tensor, int, dict[str, Any]]]:
    """A loss that is NaN for the batches of these numbers."""

    def found(model: Transformer, rows: Tensor) -> tuple[Tensor, int, dict[str, Any]]:
        total, count, metrics = loss(model, rows)
        return total * (math.nan if int(rows[0, 0]) in numbers else 1), count, metrics

    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    save(Tokenizer([], ("<|endoftext|>",), "bytes"), tmp_path / "tokenizer.json")
    found = Run(tmp_path / "06-sft" / "main")
    found.path.mkdir(parents=True)
    return found


def go(run: Run, config: LoopConfig, source: Any = None, function: Any = loss, **more: Any) -> dict[str, Any]:
    tokenizer = run.path.parents[1] / "tokenizer.json"
    model = Transformer(SHAPE, seed=0)
    return train(model, source or Counting(), function, config, run, tokenizer_path=tokenizer, **more)


def test_a_step_that_is_not_finite_is_left_out_and_counted(run: Run) -> None:
    config = LoopConfig(steps=8, lr=1e-2, log_every=1, clip=0)
    found = go(run, config, function=poisoned(3, 5))
    assert found["nonfinite_steps"] == 2
    assert found["steps"] == 8
    rows = [row for row in run.metrics() if "loss" in row]
    assert [row["step"] for row in rows if row["loss"] is None] == [4, 6]
    assert [row.get("nonfinite_steps") for row in rows] == [None] * 3 + [1, 1, 2, 2, 2]
    blamed = [row for row in run.metrics() if "nonfinite" in row]
    assert [(row["step"], row["nonfinite"]) for row in blamed] == [(4, "loss"), (6, "loss")]
    assert (
        "step 6: loss or gradient isn't finite; the step is left out (2 so far)" in (run.path / "log.txt").read_text()
    )
    assert math.isfinite(found["loss"])


def test_too_many_in_a_row_end_the_run(run: Run) -> None:
    with pytest.raises(ConfigError, match="step 12: the loss isn't finite, 10 times in a row"):
        go(run, LoopConfig(steps=20, lr=1e-2), function=poisoned(*range(2, 20)))


def test_a_rollback_takes_up_the_last_checkpoint_with_other_batches(run: Run) -> None:
    config = LoopConfig(steps=10, lr=1e-2, log_every=1, nonfinite="rollback", checkpoint=CheckpointConfig(4))
    source = Counting()
    found = go(run, config, source, poisoned(5))
    assert source.asked == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "the bad batch isn't met again, nor those before it"
    assert found["rollbacks"] == 1
    steps = [row["step"] for row in run.metrics() if "loss" in row]
    assert steps == list(range(1, 11)), "the rows are those of the steps that count"
    assert [(row["step"], row["nonfinite"]) for row in run.metrics() if "nonfinite" in row] == [(4, "loss")]
    assert read_json(checkpoints(run.path)[-1] / "state" / "progress.json")["drawn"] == 12


def test_rollbacks_to_the_same_place_end(run: Run) -> None:
    config = LoopConfig(steps=20, lr=1e-2, nonfinite="rollback", checkpoint=CheckpointConfig(4))
    with pytest.raises(ConfigError, match=r"--allow-change train.lr to go on from step_000004"):
        go(run, config, function=poisoned(*range(5, 20)))


def test_the_average_is_evaluated_saved_and_resumed(run: Run) -> None:
    config = LoopConfig(steps=8, lr=1e-2, optim=OptimConfig(ema=0.9), checkpoint=CheckpointConfig(3), eval_every=4)
    seen: list[str] = []

    def look(model: Transformer, step: int) -> dict[str, float]:
        seen.append(parameter_hash(model))
        return {}

    found = go(run, config, evaluate=look)
    last = checkpoints(run.path)[-1]
    assert parameter_hash(load_model(last)) == found["parameter_hash"] == seen[-1]
    raw = state.load_tensors(last / "state" / "weights.safetensors")
    plain, resumed = (Run(run.path.with_name(name)) for name in ("plain", "resumed"))
    plain.path.mkdir()
    without = go(plain, replace(config, optim=OptimConfig()))
    assert found["parameter_hash"] != without["parameter_hash"]
    model = Transformer(SHAPE, seed=0)
    model.load_state_dict(raw)
    assert parameter_hash(model) == without["parameter_hash"], "the average doesn't disturb the training"
    shutil.copytree(checkpoints(run.path)[0], resumed.path / "checkpoints" / "step_000006")
    assert go(resumed, config)["parameter_hash"] == found["parameter_hash"]
    assert "continuing from step_000006" in (resumed.path / "log.txt").read_text()


def test_what_is_kept(run: Run) -> None:
    losses = dict(zip(range(2, 13, 2), (3.0, 1.0, 2.0, 2.5, 2.4, 2.3), strict=True))
    config = LoopConfig(
        steps=12, lr=1e-2, eval_every=2, checkpoint=CheckpointConfig(100, keep=1, keep_every=5, best=True)
    )
    found = go(run, config, evaluate=lambda model, step: {"heldout_loss": losses[step]})
    assert [int(folder.name[5:]) for folder in checkpoints(run.path)] == [4, 5, 10, 12]
    assert (found["best_step"], found["best_heldout_loss"]) == (4, 1.0)
    progress = read_json(checkpoints(run.path)[-1] / "state" / "progress.json")
    assert progress["best"] == {"step": 4, "heldout_loss": 1.0}
    assert progress["versions"]["torch"] == torch.__version__
    assert progress["schedule"]["kind"] == "cosine"
    assert progress["rng"]["seed"] == 0


class _Slow:
    """A checkpoint that takes its time, or fails."""

    def __init__(self, gate: threading.Event, error: Exception | None = None) -> None:
        self.gate, self.error = gate, error

    def write(self, folder: Path) -> None:
        assert self.gate.wait(20)
        if self.error:
            raise self.error
        (folder / "model.safetensors").write_bytes(b"weights")


def test_checkpoints_are_written_beside_the_training_and_errors_come_back(tmp_path: Path) -> None:
    saver, gate = Saver(tmp_path), threading.Event()
    started = time.monotonic()
    saver.save(1, _Slow(gate))  # type: ignore[arg-type]
    saver.check()
    assert time.monotonic() - started < 5
    assert not checkpoints(tmp_path)
    gate.set()
    saver.wait()
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step_000001"]
    saver.save(2, _Slow(gate, StorageError("the disk is full")))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="full"):
        saver.save(3, _Slow(gate))  # type: ignore[arg-type]
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_000001"]


@pytest.fixture
def data(make_project: Callable[..., Path]) -> TokenDataset:
    return TokenDataset(make_project() / "03-shards" / "main" / "train", 32, seed=1)


def test_a_ramp_grows_the_batch_and_keeps_the_order(data: TokenDataset) -> None:
    source = PretrainSource(data, 8, doublings=2, ramp_batches=6)
    assert [source.size(number) for number in range(8)] == [2, 2, 2, 4, 4, 4, 8, 8]
    assert [source.samples(number) for number in range(8)] == [0, 2, 4, 6, 10, 14, 18, 26]
    rows = torch.cat([source.batch(number).tokens for number in range(7)])
    assert torch.equal(rows, data.batch(0, 26).tokens), "the same samples in the same order, in other batches"
    source.seek(7, 100)
    assert torch.equal(source.batch(7).tokens, data.batch(100, 8).tokens)
    halves = [PretrainSource(data, 8, 0, World(rank, 2), 2, 6).batch(3).tokens for rank in range(2)]
    assert torch.equal(torch.cat(halves), data.batch(6, 4).tokens)


def test_a_shard_that_changes_under_a_run_ends_it(data: TokenDataset, run: Run) -> None:
    source = PretrainSource(data, 4)
    source.check()
    file = next(data.shards.folder.glob("tokens_*.npy"))
    array = np.load(file)
    np.save(file, array[::-1])
    with pytest.raises(DataError, match="changed while it was being trained on"):
        source.check()
    file.unlink()
    with pytest.raises(DataError, match="no such file"):
        source.check()


def test_rows_go_to_a_dashboard(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []
    fake = types.ModuleType("trackio")
    fake.init = lambda **given: told.append(("init", given))  # type: ignore[attr-defined]
    fake.log = lambda row, step: told.append(("log", (step, row)))  # type: ignore[attr-defined]
    fake.finish = lambda: told.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", fake)
    go(run, LoopConfig(steps=4, lr=1e-2, log_every=2, track=TrackConfig("trackio", "mine")))
    assert [what for what, _ in told] == ["init", "log", "log", "finish"]
    assert told[0][1]["project"] == "mine"
    assert told[1][1][0] == 2
    assert {"loss", "lr", "tokens_per_s"} <= told[1][1][1].keys()
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r"trackio isn't installed; pip install 'groundup\[track\]'"):
        go(run, LoopConfig(steps=4, track=TrackConfig("trackio")))


def test_a_short_run_is_not_compiled_and_a_long_one_if_it_pays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model, here = Transformer(SHAPE, seed=0), World()
    compiled: list[bool] = []
    monkeypatch.setattr(compiling, "compile_blocks", lambda model, device: compiled.append(True))
    assert not compiling.worth_it(600)
    assert compiling.worth_it(3600)
    assert not compiling.choose("auto", model, lambda: None, 100, run, here)
    assert not compiled
    assert read_json(run.path / "resolved.json")["compile"] is False
    (run.path / "resolved.json").unlink()
    monkeypatch.setattr(compiling, "_seconds", lambda step: 0.1 if compiled else 0.2)
    assert compiling.choose("auto", model, lambda: time.sleep(1e-3), 10_000_000, run, here)
    assert read_json(run.path / "resolved.json")["compile"] is True
    assert "a compiled step takes 50% of the time" in (run.path / "log.txt").read_text()
    assert compiling.choose("auto", model, lambda: None, 1, run, here), "a resumed run has the same answer"
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler"):
        compiling.choose("on", model, lambda: None, 1, run, here)
    (run.path / "resolved.json").unlink()
    compiled.clear()
    assert not compiling.choose("auto", model, lambda: time.sleep(1e-3), 10_000_000, run, here)
    assert "not compiled: there is no C++ compiler" in (run.path / "log.txt").read_text()
