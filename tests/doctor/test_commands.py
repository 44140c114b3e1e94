"""`groundup doctor` and `groundup machine` as typed; the page that tells the faults; bad input."""

import importlib.util
import json
from pathlib import Path

import pytest

from groundup.base.runs import Run, open_run, record
from groundup.cli import main
from groundup.doctor import machine
from groundup.doctor.config import DoctorConfig
from groundup.doctor.faults import FAULTS
from groundup.doctor.run import main as doctor
from tests.doctor.planting import alarms, train

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_the_doctors_own_list() -> None:
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs" / "generate_troubleshooting.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert page == module.page(), "docs/troubleshooting.md is out of date; run `make docs`"
    for fault in FAULTS:
        assert f"## {fault.key}\n" in page
    for words in ("Sweep it", "Clip the gradient", "128 -> 384", "Data parallel (DDP)"):
        assert words in page


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["doctor", "nowhere"], "no run of training in it"),
        (["doctor", "nowhere", "--out", "x.json"], "expected the path of a .toml"),
        (["machine", "--d-model", "100"], "multiple of 64"),
        (["machine", "--folder", "nowhere"], "is not a folder"),
        (["machine", "--out", "x.txt"], "expected the path of a .json"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_without_rows_or_with_foreign_files_is_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = open_run(tmp_path, "pretrain")
    with record(run, 'name = "main"\n', {}):
        pass
    assert doctor(DoctorConfig(run=tmp_path))["faults"] == []
    (run.path / "config.toml").write_text("learning_rate = 3\n")
    assert main(["doctor", str(tmp_path)]) == 2
    assert "unknown key 'learning_rate'" in capfd.readouterr().err


def test_doctor_as_typed_writes_a_config_that_pretrain_reads(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(project, "low", train={"lr": 1e-6, "steps": 60})
    out = tmp_path / "fixed.toml"
    assert main(["doctor", str(run.path), "--fix", "--out", str(out), "--no-weights"]) == 0
    said = capfd.readouterr().out
    assert "FAULT" in said
    assert "train.lr = 1e-06 -> 0.004" in said
    assert f"pretrain --config {out}" in said
    assert main(["pretrain", "--config", str(out), "--dry-run"]) == 0
    assert "low-fixed" in capfd.readouterr().out


def test_a_healthy_run_has_nothing_to_fix(healthy: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(healthy.path), "--fix", "--no-weights"]) == 0
    assert "nothing to fix" in capfd.readouterr().out
    newest = sorted((healthy.path / "checkpoints").iterdir())[-1]
    assert main(["doctor", str(newest), "--no-weights"]) == 0


def test_the_doctor_looks_on_at_what_is_typed(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shape = [
        "--model.context",
        "64",
        "--model.d-model",
        "32",
        "--model.n-layers",
        "1",
        "--model.n-heads",
        "2",
        "--threads",
        "1",
    ]
    words = [
        "--name",
        "typed",
        *shape,
        "--train.steps",
        "200",
        "--train.batch-tokens",
        "512",
        "--train.lr",
        "10",
        "--train.log-every",
        "4",
    ]
    assert main(["pretrain", str(project), "--precision", "fp32", *words]) == 0
    run = open_run(project, "pretrain", "typed")
    assert alarms(run) == ["rate-high"]
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("doctor: step")]
    assert len(said) == 1, "once, though it was seen at every examination"
    step = next(row["step"] for row in run.metrics() if "alarm" in row)
    assert 100 <= step < 200, "while there was still something to save"
    assert f"step {step}: the loss is flat, or was lower before" in said[0]
    assert said[0] in (run.path / "log.txt").read_text()


@pytest.mark.slow
def test_machine_measures_what_is_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "machine.json"
    small = ["--disk-mb", "4", "--d-model", "64", "--context", "64", "--device", "cpu", "--threads", "1"]
    assert main(["machine", "--folder", str(tmp_path), "--out", str(out), *small]) == 0
    found = json.loads(out.read_text())
    assert found["threads"] == 1
    assert 0 < found["step"]["mfu"] < 1
    assert found["disk"]["write"] > 1e5
    assert found["products"]["fp32"]["256"] > 1e8
    assert [p.name for p in tmp_path.iterdir()] == ["machine.json"]
    assert "plan --minutes 30 --precision" in capfd.readouterr().out
    assert machine._largest(found | {"free_bytes": 2 * 10**9}, 256) < machine._largest(
        found | {"free_bytes": 2 * 10**10}, 256
    )
