"""`groundup eval` on a project with two stages: files, table, differences, what is not repeated, and the user's mistakes."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from groundup.base.errors import CheckpointError, ConfigError, DataError
from groundup.base.files import write_json, write_jsonl
from groundup.base.records import Document, Problem, write_documents
from groundup.base.runs import open_run, record, write_checkpoint
from groundup.cli import main as cli_main
from groundup.evals.config import EvalConfig
from groundup.evals.harness import _pairs, compare, main, table
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save


@pytest.fixture
def project(tmp_path: Path, model: Transformer, tokenizer: Tokenizer, problems: list[Problem]) -> Path:
    """A project with an untrained base and an SFT model that knows ten of the problems."""
    for stage, made in (("pretrain", Transformer(model.config, seed=3)), ("sft", model)):
        run = open_run(tmp_path, stage)
        with record(run, "", {}, 0), write_checkpoint(run.path, 1) as folder:
            save_model(made, folder)
            save(tokenizer, folder / "tokenizer.json")
    write_jsonl(tmp_path / "tasks" / "problems-test.jsonl", [asdict(p) for p in problems])
    write_json(tmp_path / "tasks" / "world.json", {"entropy_bits_per_byte": 0.25})
    write_documents(
        tmp_path / "01-data" / "main" / "heldout.parquet", [Document(str(i), f"Text {i}.") for i in range(6)]
    )
    return tmp_path


def small(project: Path, **more: Any) -> EvalConfig:
    return EvalConfig(project, samples=2, max_tokens=4, **more)


def test_every_finished_stage_is_evaluated_once(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = main(small(project))
    shown = capfd.readouterr().out
    folder = project / "11-eval" / "main"
    assert sorted(p.name for p in folder.glob("*.json")) == ["base.json", "run.json", "sft.json"]
    stored = json.loads((folder / "sft.json").read_text())
    assert stored["exact_match"]["value"] >= 0.4
    assert len(stored["per_problem"]) == 25
    assert results["stages"]["base"]["exact_match"]["value"] == 0.0
    assert results["entropy_floor_bits_per_byte"] == 0.25
    difference = results["differences"]["base -> sft"]["exact_match"]
    assert difference["value"] == pytest.approx(stored["exact_match"]["value"])
    assert difference["low"] > 0
    assert json.loads((folder / "run.json").read_text())["results"]["stages"]["sft"]["bits_per_byte"]["value"] > 0.25
    for part in ("stage ", "bits/byte", "exact match", "sample@1", "entropy floor 0.250", "skill1", "base -> sft: exact match +", "better",
                 "next: "):  # fmt: skip
        assert part in shown, part
    before = (folder / "sft.json").stat().st_mtime_ns
    again = main(small(project))
    assert "sft: already evaluated" in capfd.readouterr().out
    assert (folder / "sft.json").stat().st_mtime_ns == before
    assert again["stages"]["sft"] == results["stages"]["sft"]
    main(small(project, stage="sft", seed=1))
    assert (folder / "sft.json").stat().st_mtime_ns > before
    assert (folder / "base.json").exists()


def test_another_run_of_a_stage_and_no_problems(project: Path) -> None:
    shutil.copytree(project / "06-sft" / "main", project / "06-sft" / "continued")
    (project / "tasks" / "problems-test.jsonl").unlink()
    results = main(small(project, stage="base,sft/continued"))
    assert list(results["stages"]) == ["base", "sft-continued"]
    assert set(results["stages"]["base"]) >= {"bits_per_byte"}
    assert "exact_match" not in results["stages"]["base"]
    assert results["differences"] == {}
    assert (project / "11-eval" / "main" / "sft-continued.json").exists()


def test_mistakes_are_named(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="not 'rlhf'"):
        EvalConfig(stage="rlhf").validate()
    with pytest.raises(ConfigError, match="samples: expected at least 1, not 0"):
        EvalConfig(samples=0).validate()
    with pytest.raises(CheckpointError, match="08-dpo/main: not there or not finished; run `groundup dpo` first"):
        main(small(project, stage="dpo"))
    with pytest.raises(CheckpointError, match="no finished stage"):
        main(EvalConfig(tmp_path / "empty"))
    rows = [
        {"id": "1", "skill": "x", "question": "What is 1 + 1?", "answer": "2"},
        {"id": "2", "skill": "x", "question": "?"},
    ]
    write_jsonl(tmp_path / "bad.jsonl", rows)
    assert cli_main(["eval", str(project), "--problems", str(tmp_path / "bad.jsonl")]) == 2
    error = capfd.readouterr().err
    assert "bad.jsonl, row 2: 'answer' is missing" in error
    assert error.count("\n") == 1
    write_jsonl(tmp_path / "twice.jsonl", [rows[0], rows[0]])
    with pytest.raises(DataError, match="an id occurs twice"):
        main(small(project, problems=tmp_path / "twice.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        main(small(project, documents=tmp_path / "none.parquet"))
    (project / "tasks" / "problems-test.jsonl").unlink()
    (project / "01-data" / "main" / "heldout.parquet").unlink()
    with pytest.raises(DataError, match="nothing to evaluate on"):
        main(small(project))


def test_which_stages_are_compared() -> None:
    assert _pairs(["base", "sft", "dpo", "grpo"]) == [("base", "sft"), ("sft", "dpo"), ("dpo", "grpo")]
    assert _pairs(["sft", "sft-continued", "grpo"]) == [
        ("sft", "grpo"),
        ("sft", "sft-continued"),
        ("sft-continued", "grpo"),
    ]
    assert _pairs(["sft-continued", "grpo"]) == [("sft-continued", "grpo")]
    assert _pairs(["sft", "sft-other"]) == [("sft", "sft-other")]
    assert _pairs(["base"]) == []


def test_a_comparison_needs_the_same_problems() -> None:
    rows = [{"id": str(i), "exact": i % 2, "correct": i % 3, "samples": 3} for i in range(10)]
    found = compare({"per_problem": rows}, {"per_problem": rows[::-1]})
    assert found == {m: {"value": 0.0, "low": 0.0, "high": 0.0} for m in ("exact_match", "sample_at_1")}
    with pytest.raises(DataError, match="no problem in common"):
        compare({"per_problem": rows}, {"per_problem": [{"id": "x", "exact": 1, "correct": 1, "samples": 1}]})


def test_table_shows_what_there_is() -> None:
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    lines = table(
        {
            "base": {"bits_per_byte": score},
            "sft": {"bits_per_byte": score, "exact_match": score | {"by_skill": {"a": score}}},
        }
    )
    assert lines[0].split() == ["stage", "bits/byte", "exact", "match"]
    assert lines[1].split() == ["base", "0.500", "[0.400,", "0.600]", "-"]
    assert lines[-1].split() == ["a", "-", "0.50"]


def test_dry_run_writes_nothing(project: Path, cli: Callable[..., Any]) -> None:
    shown = cli("eval", project, "--dry-run").stdout
    assert "base (" in shown
    assert "sft (" in shown
    assert not (project / "11-eval").exists()
