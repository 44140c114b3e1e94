"""Each fault is planted in a real, tiny run; the doctor names it, and nothing else; the corrected config trains better."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.base.config import from_dict, load_toml
from groundup.base.runs import Run, write_checkpoint
from groundup.doctor import faults, material, speed
from groundup.doctor.config import DoctorConfig
from groundup.doctor.facts import Facts
from groundup.doctor.inside import Inside
from groundup.doctor.run import examine, main
from groundup.model.weights import load_model, save_model
from groundup.shards.write import write_texts
from groundup.tokenizer import io
from groundup.tokenizer.encode import Tokenizer
from groundup.train import pretrain
from groundup.train.config import PretrainConfig
from tests.doctor.planting import alarms, configured, story, train, write_project


def found(run: Run, weights: bool = False) -> list[str]:
    """Returns the keys of the faults (notes left out)."""
    return [fault.key for fault, finding in examine(run.path, weights, "cpu")[1] if not finding.note]


def fixed(run: Run, out: Path, **more: Any) -> PretrainConfig:
    """Returns the config that --fix writes, `more` set in its [train]."""
    path = main(DoctorConfig(run=run.path, fix=True, out=out, device="cpu"))["fixed"]
    config = from_dict(PretrainConfig, load_toml(path))
    return replace(config, train=replace(config.train, **more))


def copy(run: Run, to: Path) -> Run:
    """Returns a copy of a run (and of its project's other stages) that a test may spoil."""
    project = run.path.parent.parent
    shutil.copytree(
        project,
        to,
        ignore=lambda folder, names: [n for n in names if Path(folder).name == "05-pretrain" and n != run.path.name],
    )
    return Run(to / "05-pretrain" / run.path.name)


def spoil(run: Run, change: Callable[[torch.nn.Module], None]) -> Run:
    """Changes the weights of the run's newest checkpoint, and writes them as a later one."""
    newest = sorted((run.path / "checkpoints").iterdir())[-1]
    model = load_model(newest)
    with torch.no_grad():
        change(model)
    with write_checkpoint(run.path, int(newest.name[5:]) + 1) as folder:
        save_model(model, folder)
        shutil.copyfile(newest / "tokenizer.json", folder / "tokenizer.json")
    return run


def test_a_healthy_run_has_no_fault(healthy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = main(DoctorConfig(run=healthy.path, device="cpu"))
    assert result["faults"] == alarms(healthy) == []
    assert ": healthy" in capsys.readouterr().out


def test_a_rate_too_low_is_named_and_mended(project: Path, tmp_path: Path) -> None:
    run = train(project, "low", train={"lr": 1e-6, "steps": 60})
    assert found(run) == ["rate-low"]
    config = fixed(run, tmp_path / "low.toml")
    assert config.train.lr == pytest.approx(4e-3)
    assert pretrain.main(config)["heldout_loss"] < run.results["heldout_loss"] - 1


def test_a_rate_too_high_is_named_and_mended(project: Path, tmp_path: Path) -> None:
    run = train(project, "high", train={"lr": 10.0, "steps": 60})
    assert found(run) == ["rate-high"]
    config = fixed(run, tmp_path / "high.toml")
    assert config.train.lr == pytest.approx(4e-3)
    assert pretrain.main(config)["heldout_loss"] < run.results["heldout_loss"] - 1


def test_numbers_that_are_none_are_traced_to_their_layer(project: Path, tmp_path: Path) -> None:
    planted = {"lr": 1e30, "clip": 0.0, "steps": 40, "nonfinite": "stop"}
    run = train(project, "nan", model={"family": "llama"}, train=planted)
    _, findings = examine(run.path, device="cpu")
    assert found(run) == ["not-finite"]
    row = next(row for row in run.metrics() if "nonfinite" in row)
    assert row["layer"]
    assert f"step {row['step']}, first in {row['layer']}" in findings[0][1].seen[0]
    config = fixed(run, tmp_path / "nan.toml")
    assert config.train.clip == 1.0
    assert pretrain.main(config)["heldout_loss"] < 3.5  # of 5.5


def test_bad_weights_are_named(healthy: Run, tmp_path: Path) -> None:
    run = spoil(copy(healthy, tmp_path / "p"), lambda m: m.blocks[1].mlp.down.weight[0, 0].fill_(float("nan")))
    _, findings = examine(run.path, device="cpu")
    assert findings[0][0].key == "not-finite"
    assert "blocks.1.mlp.down.weight" in findings[0][1].seen[0]


def test_too_small_a_model_is_widened(project: Path, tmp_path: Path) -> None:
    run = train(project, "small", model={"d_model": 8, "n_layers": 1, "n_heads": 1}, train={"lr": 4e-3, "steps": 100})
    assert found(run, weights=True) == ["too-small"]
    config = fixed(run, tmp_path / "small.toml")
    assert config.model.d_model == 64
    assert pretrain.main(config)["heldout_loss"] < run.results["heldout_loss"] - 0.5


def test_too_short_a_run_is_lengthened(project: Path, tmp_path: Path) -> None:
    run = train(project, "short", train={"steps": 12})
    assert found(run) == ["too-few-tokens"]
    config = fixed(run, tmp_path / "short.toml")
    assert config.train.steps == 48
    assert pretrain.main(config)["heldout_loss"] < run.results["heldout_loss"] - 0.3


def test_text_without_structure_is_no_fault_of_the_rate(tmp_path: Path) -> None:
    letters = random.Random(0)
    texts = ["".join(letters.choice("abcdefghij klmnop") for _ in range(600)) for _ in range(120)]
    run = train(write_project(tmp_path / "p", texts[:110], texts[110:]), "main", train={"steps": 20})
    assert found(run) == ["no-structure"]


def test_another_tokenizer_is_noticed(healthy: Run, tmp_path: Path) -> None:
    run = copy(healthy, tmp_path / "p")
    other = Tokenizer([(97, 110)], ("<|endoftext|>",), "gpt2")
    write_texts([story(i) for i in range(300)], other, tmp_path / "p" / "03-shards" / "main" / "train")
    io.save(other, tmp_path / "p" / "02-tokenizer" / "main" / "tokenizer.json")
    assert found(run, weights=True) == ["tokenizer"]


def test_copies_and_leaks_are_counted(tmp_path: Path) -> None:
    texts = [story(i % 30) for i in range(100)]
    run = train(write_project(tmp_path / "p", texts, [story(3), *(story(900 + i) for i in range(9))]), "main")
    assert set(found(run)) == {"copies", "leak"}
    facts = Facts(run)
    assert facts.corpus is not None
    assert facts.corpus.copies == pytest.approx(0.7, abs=0.02)
    assert facts.corpus.leaked == pytest.approx(0.1)


@pytest.mark.slow
def test_learning_by_heart_is_noticed_and_stopped(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p", [story(i, 20) for i in range(3)], [story(900 + i) for i in range(10)])
    run = train(project, "main", train={"steps": 300, "eval_every": 15, "lr": 4e-3})
    assert found(run) == alarms(run) == ["overfitting"]
    config = fixed(run, tmp_path / "fixed.toml")
    assert config.train.steps < 300
    assert config.train.checkpoint.best
    assert pretrain.main(config)["best_heldout_loss"] < run.results["heldout_loss"] - 0.2


def test_far_from_chinchilla(tmp_path: Path) -> None:
    tokenizer = Tokenizer([], ("<|endoftext|>", *(f"<|{i}|>" for i in range(8000))), "bytes")
    project = write_project(tmp_path / "p", [story(i) for i in range(20)], [story(99)], tokenizer)
    shape = {"context": 32, "d_model": 384, "n_layers": 4, "n_heads": 4}
    run = train(project, "main", model=shape, train={"steps": 3, "batch_tokens": 64})
    finding = material.unbalanced(Facts(run))
    assert finding is not None
    assert not finding.note
    assert "too large a model" in finding.cause
    assert found(run) == ["unbalanced"]


@pytest.mark.parametrize(
    ("family", "change", "key"),
    [
        ("gpt2", lambda m: m.blocks[1].mlp.up.bias[:200].fill_(-50), "dead-units"),
        ("llama", lambda m: m.blocks[0].attn.qkv.weight.mul_(200), "stuck-heads"),
        ("gpt2", lambda m: (m.norm.weight.mul_(30), m.norm.bias.mul_(30)), "loud-logits"),
    ],
    ids=["dead", "stuck", "loud"],
)
def test_faults_inside_the_network(
    project: Path, tmp_path: Path, family: str, change: Callable[[Any], None], key: str
) -> None:
    run = train(project, family, model={"family": family}, train={"steps": 40})
    before = found(run, weights=True)
    assert key not in before
    run = spoil(copy(run, tmp_path / "p"), change)
    assert key in found(run, weights=True)


def test_steps_that_wait_for_their_batch(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = pretrain.PretrainSource.batch

    def slow(self: Any, number: int) -> Any:
        time.sleep(0.2)
        return quick(self, number)

    monkeypatch.setattr(pretrain.PretrainSource, "batch", slow)
    run = train(project, "waiting", train={"steps": 8, "log_every": 1})
    assert "loader" in found(run)


def test_half_a_machine(healthy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copy(healthy, tmp_path / "p")
    monkeypatch.setattr(speed, "_cores", lambda counted: 8)
    assert found(run) == []  # one thread was asked for
    config = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text(config.replace("threads = 1\n", "threads = 0\n"))
    assert found(run) == ["idle"]


def test_a_run_that_slows_down_is_a_note(healthy: Run, tmp_path: Path) -> None:
    run = copy(healthy, tmp_path / "p")
    rows = run.metrics()
    for row in rows[len(rows) // 2 :]:
        if "tokens_per_s" in row:
            row["tokens_per_s"] /= 3
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = [fault.key for fault, finding in examine(run.path, False)[1] if finding.note]
    assert "slowing" in notes
    assert found(run) == []


def test_weeks_ahead(project: Path) -> None:
    timer = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(
                configured(project, "weeks", train={"steps": 100_000_000, "warmup": 10, "lr": 1e-3, "compile": "off"})
            )
    finally:
        timer.cancel()
    findings = examine(project / "05-pretrain" / "weeks", False)[1]
    assert [fault.key for fault, finding in findings if not finding.note] == ["weeks"]
    weeks = next(finding for _, finding in findings if not finding.note)
    assert "8 x H100 SXM" in "\n".join(weeks.seen)
    assert "torchrun --nproc_per_node=8" in weeks.commands[0]


def test_a_leap_of_the_loss_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = pretrain.PretrainSource.batch

    def damaged(self: Any, number: int) -> Any:
        batch = quick(self, number)
        if 80 <= number < 84:  # a stretch of text that is none
            noise = torch.randint(0, 256, batch.tokens.shape, generator=torch.Generator().manual_seed(number))
            return replace(batch, tokens=noise, targets=noise.roll(-1, 1))
        return batch

    monkeypatch.setattr(pretrain.PretrainSource, "batch", damaged)
    run = train(project, "leap", train={"clip": 0.0})
    _, findings = examine(run.path, False)
    assert [fault.key for fault, finding in findings if not finding.note] == alarms(run) == ["spikes"]
    assert "at step 84" in findings[0][1].seen[0]
    assert findings[0][1].changes["train.clip"] == 1.0


def test_every_fault_is_planted_here() -> None:
    here = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    for fault in faults.FAULTS:
        assert f'"{fault.key}"' in here or fault.check.__name__ in here, f"no test plants {fault.key}"
        assert {*fault.explains} <= {f.key for f in faults.FAULTS}


def test_a_standstill_is_said_of_an_unfinished_run(healthy: Run, tmp_path: Path) -> None:
    run = copy(healthy, tmp_path / "p")
    rows = [row | {"loss": 3.2} for row in run.metrics() if "loss" in row]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text(config.replace("steps = 120\n", "steps = 1200\n"))
    assert found(run) == ["standstill"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "llama"])
def test_healthy_runs_of_all_kinds_have_no_fault(project: Path, family: str, optimizer: str, seed: int) -> None:
    planned = {"seed": seed, "optim": {"kind": optimizer}, "lr": 4e-3, "steps": 160}
    run = train(project, f"{family}-{optimizer}-{seed}", model={"family": family}, train=planned)
    assert found(run, weights=True) == alarms(run) == []


@pytest.mark.slow
def test_shakespeare_is_healthy(data_dir: Path, tmp_path: Path) -> None:
    text = (data_dir / "text" / "tinyshakespeare.txt").read_text()
    cut = 9 * len(text) // 10
    project = write_project(tmp_path / "p", [text[:cut]], [text[cut:]])
    run = train(
        project,
        "main",
        model={"context": 128, "d_model": 96},
        train={"steps": 300, "batch_tokens": 2048, "optim": {"kind": "muon"}},
    )
    assert found(run, weights=True) == alarms(run) == []


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (
            ["nnaA sdif eth ppael ni hte tkichne. eoL nhsida eht bkoo yb teh vreir. mEam ndsei eth"],
            "read 0% like the text",
        ),
        (["Anna finds the apple by the river. " * 4], "repeat themselves"),
    ],
    ids=["gibberish", "repetition"],
)
def test_samples_that_do_not_read_like_the_text(healthy: Run, samples: list[str], words: str) -> None:
    facts = Facts(healthy, lambda facts: Inside(samples=samples, tokenizer=facts.corpus.train.tokenizer))
    findings = [finding for fault, finding in faults.diagnose(facts) if fault.key == "too-few-tokens"]
    assert words in findings[0].seen[0]
