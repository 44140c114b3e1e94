"""`groundup plan`: what it writes, who reads it, and what it refuses."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.base.errors import ConfigError
from groundup.base.files import write_json
from groundup.base.runs import open_run, record
from groundup.cli import main
from groundup.model.config import ModelConfig
from groundup.plan import budget, cost
from groundup.plan.config import PlanConfig
from groundup.train.config import PretrainConfig, apply_plan

GIGAFLOPS = 50.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine of 50 GFLOP/s, whatever the real one is doing; returns the shapes that were timed."""
    timed: list[str] = []

    def seconds(model: ModelConfig, rows: int, *rest: object) -> float:
        timed.append(f"{model.d_model} x {model.n_layers}")
        return model.flops_per_token() * rows * model.context / (GIGAFLOPS * 1e9)

    monkeypatch.setattr(budget, "seconds_per_step", seconds)
    monkeypatch.setattr(budget, "faster_precision", lambda *rest: "fp32")
    return timed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    run = open_run(tmp_path, "shards")
    with record(run, "", {}):
        write_json(run.path / "train" / "index.json", {"tokens": 2_000_000, "vocab_size": 400})
    return tmp_path


def config(**given: object) -> PlanConfig:
    return PlanConfig(model=ModelConfig(context=128), **given)  # type: ignore[arg-type]


def test_minutes_become_steps_of_a_given_shape(machine: list[str]) -> None:
    found = budget.plan(config(minutes=10, choose=False, batch_tokens=4096), 2_000_000)
    per_step = found.model.flops_per_token() * 4096 / (GIGAFLOPS * 1e9)
    assert found.row.steps == pytest.approx(0.9 * 600 / per_step, abs=1)
    assert found.row.time_s == pytest.approx(600, rel=0.01)
    assert found.row.tokens == found.row.steps * 4096
    assert machine == ["128 x 4"]


def test_reading_the_held_out_text_is_set_aside(machine: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "seconds_to_read", lambda model, tokens, device: tokens / 1000)
    without = budget.plan(config(minutes=10, choose=False), 10**6).row
    found = budget.plan(config(minutes=10, choose=False, heldout_tokens=300_000), 10**6).row
    assert found.steps == pytest.approx(without.steps / 2, abs=1)
    assert found.time_s == pytest.approx(600, rel=0.01)
    with pytest.raises(ConfigError, match=r"minutes: 4 is too little.*reading the held-out text 5 min"):
        budget.plan(config(minutes=4, choose=False, heldout_tokens=300_000), 10**6)


def test_the_model_is_timed_reading() -> None:
    model = ModelConfig(context=32, d_model=32, n_layers=1)
    few, many = (cost.seconds_to_read(model, tokens, torch.device("cpu")) for tokens in (10_000, 10_000_000))
    assert 0 < few < many


def test_wanted_steps_are_taken_if_there_is_time(machine: list[str]) -> None:
    most = budget.plan(config(minutes=1, choose=False), 10**9).row.steps
    assert budget.plan(config(minutes=1, choose=False, steps=most - 10), 10**9).row.steps == most - 10
    assert budget.plan(config(minutes=1, choose=False, steps=most + 10), 10**9).row.steps == most


def test_the_larger_the_budget_the_larger_the_shape(machine: list[str]) -> None:
    taken = [budget.plan(config(minutes=m), 10**12).row.params for m in (1, 60, 6000)]
    assert taken == sorted(taken)
    assert len(set(taken)) == 3


def test_a_small_corpus_asks_for_a_smaller_budget_of_tokens_per_parameter(machine: list[str]) -> None:
    little, much = (budget.plan(config(minutes=600), tokens).row for tokens in (10**6, 10**12))
    assert little.epochs > 1 > much.epochs
    assert little.params >= much.params  # repeating a text teaches less, so the time goes into width


def test_flops_and_params(machine: list[str]) -> None:
    found = budget.plan(config(flops=1e15), 10**9)
    assert found.row.flops == pytest.approx(1e15, rel=0.1)
    nearest = budget.plan(config(params=10_000_000), 10**9)
    assert 5e6 < nearest.row.params < 20e6
    assert machine[-1:] == [nearest.row.name]


def test_muon_costs_more_than_adamw(machine: list[str]) -> None:
    adamw, muon = (budget.plan(config(choose=False, optimizer=kind), 10**9).row for kind in ("adamw", "muon"))
    assert 1.0 < muon.seconds_per_step / adamw.seconds_per_step < 1.3


def test_the_verb_writes_what_pretrain_and_report_read(
    machine: list[str], project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(project), "--minutes", "3", "--model.context", "128", "--batch-tokens", "2048"]) == 0
    said = capfd.readouterr().out
    assert "<- taken" in said
    assert "20 tokens a parameter" in said
    assert said.rstrip().splitlines()[-1].startswith("next: ")
    content = json.loads((project / "04-plan" / "main" / "plan.json").read_text())
    assert {
        "params",
        "tokens",
        "steps",
        "time_s",
        "memory_bytes",
        "loss",
        "alternatives",
        "rule",
        "devices",
    } <= content.keys()
    assert content["loss"] is None  # the law doesn't speak of a vocabulary of 400
    assert content["model"]["vocab_size"] == 400
    tomllib.loads((project / "04-plan" / "main" / "plan.toml").read_text())
    followed = apply_plan(PretrainConfig(project))
    assert followed.train.steps == content["steps"]
    assert followed.model.d_model == content["model"]["d_model"]
    assert followed.train.batch_tokens == 2048
    timed = len(machine)
    assert main(["plan", str(project), "--minutes", "3", "--model.context", "128", "--batch-tokens", "2048"]) == 0
    assert "nothing to do" in capfd.readouterr().out
    assert len(machine) == timed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--minutes", "0"], "minutes: expected a number above 0"),
        (["--batch-tokens", "1000"], "batch_tokens: 1000 is not a whole number of contexts of 256"),
        (["--params", "1e6", "--no-choose"], "leave out one of them"),
        (["--model.n-heads", "3", "--no-choose"], "not divisible by n_heads"),
    ],
)
def test_mistakes(project: Path, flags: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(project), *flags]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_shards_and_a_corpus_below_one_context(
    tmp_path: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(tmp_path / "nowhere")]) == 2
    assert "run `groundup shards` first" in capfd.readouterr().err
    write_json(project / "03-shards" / "main" / "train" / "index.json", {"tokens": 99, "vocab_size": 400})
    assert main(["plan", str(project)]) == 2
    assert "99 tokens, fewer than one context of 256" in capfd.readouterr().err
    assert not (project / "04-plan" / "main" / "plan.toml").exists()


def test_shapes_are_possible_and_grow() -> None:
    shapes = [cost.shape(width, ModelConfig(context=128)) for width in budget.WIDTHS]
    for shape in shapes:
        shape.validate()
    sizes = [shape.params() for shape in shapes]
    assert sizes == sorted(sizes)


def test_a_real_step_is_timed() -> None:
    import torch

    tiny = ModelConfig(vocab_size=32, context=16, d_model=16, n_layers=1, n_heads=2)
    seconds = cost.seconds_per_step(tiny, 4, torch.device("cpu"), "fp32", 0.01)
    assert 0 < seconds < 5
    assert cost.faster_precision(torch.device("cpu"), 64, 32) in ("fp32", "bf16")
    wider = replace(tiny, d_model=64)
    assert cost.muon_flops(wider) > cost.muon_flops(tiny) > 0


def test_hardware() -> None:
    for device in cost.hardware():
        assert device.keys() == {"name", "tflops", "memory_gb", "mfu"}
        assert 0 < device["mfu"] < 1
