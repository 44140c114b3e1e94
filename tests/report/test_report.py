"""The report holds what the runs' files say, needs nothing from outside, and says what is missing."""

import re
from pathlib import Path

import pytest

from groundup.base.errors import DataError
from groundup.base.files import write_json
from groundup.base.runs import open_run, record
from groundup.cli import main
from groundup.report.page import render


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def project(folder: Path, bits: float = 1.2) -> Path:
    """A project as far as files go: one trained stage, its evaluation, a data stage with a funnel."""
    run = open_run(folder, "pretrain")
    with record(run, "", {}, seed=3) as results:
        for step in range(1, 101):
            run.metric(step=step, loss=5 / step**0.5, lr=1e-3, grad_norm=1.0, tokens_per_s=1000.0)
        run.metric(step=100, heldout_loss=0.6)
        (run.path / "samples").mkdir()
        (run.path / "samples" / "step_000100.txt").write_text("Once <b>upon</b>")
        results.update(tokens=123456, steps=100, params=10, heldout_loss=0.6)
    data = open_run(folder, "data").path
    funnel = [{"stage": "quality", "rule": "false_arithmetic", "dropped": 7, "bytes": 700, "example_id": "pages:1"}]
    write_json(data / "stats.json", {"sources": {"<web>": {"documents": 90, "bytes": 9000}}, "funnel": funnel, "kept": 90,
               "kept_bytes": 9000, "heldout": 3, "raw_documents": 100, "raw_bytes": 10000})  # fmt: skip
    by_skill = {"sorting": score(0.5)}
    write_json(open_run(folder, "eval").path / "base.json", {
        "bits_per_byte": score(bits), "exact_match": score(0.4) | {"by_skill": by_skill}, "pass_at_8": score(0.9),
        "sample_at_1": score(0.3) | {"by_skill": by_skill}, "per_problem": [{"id": "a"}] * 4})  # fmt: skip
    write_json(
        folder / "summary.json",
        {"entropy_floor_bits_per_byte": 1.1, "conversation": [{"role": "user", "content": "<i>?"}]},
    )
    write_json(
        open_run(folder, "plan").path / "plan.json", {"tokens": 120000, "steps": 100, "time_s": 9.0, "params": 10}
    )
    return folder


def test_the_page_is_self_contained_and_tells_the_figures(tmp_path: Path) -> None:
    page = render(project(tmp_path))
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page), "nothing is loaded from elsewhere"
    for text in ("1.200", "[1.190, 1.210]", "false_arithmetic", "7.0%", "123k", "sorting", "0.50", "1.100", "pages:1"):
        assert text in page, text
    assert page.count("<svg") == 4
    assert "Once &lt;b&gt;upon" in page, "what a model or the web wrote is text, never markup"
    assert "<i>?" not in page


def test_below_the_floor_is_called_a_leak(tmp_path: Path) -> None:
    page = render(project(tmp_path, bits=1.0))
    assert "leaked into training" in page
    assert 'class="verdict bad"' in page


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), record(open_run(project(tmp_path), "sft"), "", {}):
        raise KeyboardInterrupt
    assert "Not finished: sft." in render(tmp_path)


def test_bad_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="no stage has been run"):
        render(tmp_path)
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert main(["report", str(project(tmp_path / "p")), "--out", str(tmp_path)]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "no such folder" in errors[0]
    assert "is a folder" in errors[1]
