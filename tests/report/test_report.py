"""The report holds what the runs' files say, needs nothing from outside, and says what is missing."""

import re
from pathlib import Path

import pytest

from groundup.base.errors import DataError
from groundup.base.files import write_json
from groundup.base.runs import open_run, record
from groundup.cli import main
from groundup.report.compare import at, labels
from groundup.report.compare import render as compared
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


def trained(folder: Path, name: str, losses: list[float], lr: str, heldout: Path) -> Path:
    """A run of training as far as files go: a row of loss and a look at the held-out text every ten steps."""
    run = open_run(folder, "pretrain", name)
    with record(run, f'name = "{name}"\nprecision = "fp32"\n[train]\nlr = {lr}\n', {"heldout": heldout}):
        for i, loss in enumerate(losses, 1):
            run.metric(step=10 * i, tokens=1000 * i, wall_s=float(i), loss=loss, lr=1e-3, tokens_per_s=1000.0)
            run.metric(step=10 * i, tokens=1000 * i, heldout_loss=loss + 1, bits_per_byte=loss + 2)
        run.metric(step=20, alarm="spikes", text="the loss leaps up <b>")
    return run.path


def test_runs_are_compared_where_all_have_been(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, other = tmp_path / "text", tmp_path / "other"
    text.write_text("a")
    other.write_text("b")
    runs = [
        trained(tmp_path, "base", [3.0, 2.0, 1.0], "0.001", text),
        trained(tmp_path, "idea", [2.5, 1.5], "0.003", text),
    ]
    out = tmp_path / "compare.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page), "nothing is loaded from elsewhere"
    cells = [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    assert cells[0][5:8] == ["bits per byte", "after 2k tokens", "after 2 s"]
    assert [row[0] for row in cells[1:3]] == ["base", "idea"]
    assert cells[1][5:8] == ["3.0000", "4.0000", "4.0000"]
    assert cells[2][5:8] == ["3.5000", "3.5000", "3.5000"]
    assert cells[3:] == [["setting", "base", "idea"], ["<code>train.lr</code>", "0.001", "0.003"]]
    assert "Held-out text by seconds" in page
    assert "spikes" in page
    assert "hold out different text" not in page
    third = trained(tmp_path / "q", "base", [3.0], "0.001", other)
    assert "hold out different text" in compared([runs[0], third])
    assert "the same run twice" in _refusal([str(runs[0]), str(runs[0]) + "/."], capsys)
    assert "no run of training in it" in _refusal([str(runs[0]), str(tmp_path)], capsys)
    assert "no such folder" in _refusal([str(runs[0]), str(tmp_path / "absent")], capsys)


def _refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["report", *words]) == 2
    return capsys.readouterr().err


def test_alarms_of_the_doctor_stand_in_the_page(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a")
    trained(tmp_path, "main", [3.0], "0.001", text)
    assert "The doctor at step 20: the loss leaps up &lt;b&gt;" in render(tmp_path)


def test_curves_meet_where_both_have_been_and_names_are_short() -> None:
    curve = ([0.0, 10.0, 10.0, 20.0], [4.0, 2.0, 2.0, 1.0])
    assert [at(curve, x) for x in (0, 5, 10, 15, 20, 21)] == [4, 3, 2, 1.5, 1, None]
    assert labels([Path("/a/p/05-pretrain/x"), Path("/a/p/05-pretrain/y")]) == ["x", "y"]
    assert labels([Path("/a/p/05-pretrain/main"), Path("/a/q/05-pretrain/main")]) == ["p", "q"]
    assert labels([Path("/a/p/05-pretrain/main"), Path("/b/p/05-pretrain/main")]) == [
        "/a/p/05-pretrain/main",
        "/b/p/05-pretrain/main",
    ]


def test_bad_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="no stage has been run"):
        render(tmp_path)
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert main(["report", str(project(tmp_path / "p")), "--out", str(tmp_path)]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "no such folder" in errors[0]
    assert "is a folder" in errors[1]
