"""The view below the line of progress: what it lays out, that it redraws in place, and that no text of a model can move the cursor."""

import io
import os
import shutil
from pathlib import Path

import pytest

from groundup.base import log
from groundup.base.log import fitted, progress, say
from groundup.base.runs import Run
from groundup.train.view import MOST, View, sparkline


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def become_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns and 5 lines; progress is drawn at once."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((60, 5)))
    return screen


def test_a_curve_of_characters() -> None:
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert sparkline([1.0] * 3) == "▁▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)))) == 40


def test_the_newest_of_each_figure(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metric(step=10, loss=5.0, lr=1e-3, grad_norm=2.0, tokens_per_s=2e4, mfu=0.31)
    view = View(run, 9.4e11)  # as a run that goes on: it knows the rows on disk
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step_000020.txt").write_text("Anna\nfinds the apple")
    view(
        {
            "step": 20,
            "loss": 3.0,
            "lr": 1e-3,
            "grad_norm": 0.5,
            "nonfinite_steps": 2,
            "reward": 0.5,
            "grad_norm.embed": 1.0,
        }
    )
    view({"step": 20, "heldout_loss": 3.2, "bits_per_byte": 1.5})
    view({"step": 30, "loss": None})
    assert dict(view.lines()) == {
        "loss": "3.0000  █▁", "held out": "3.2000 nats, 1.5000 bits per byte at step 20",
        "speed": "20k tokens/s, MFU 31% of 940 GFLOP/s measured here", "step": "rate 0.001, gradient norm 0.5, 2 steps left out",
        "also": "reward 0.5", "sample": "Anna finds the apple",
    }  # fmt: skip
    for step in range(5000):
        view({"step": step, "loss": float(step)})
    assert len(view.losses) <= MOST + 1, "a long run's curve is thinned out"
    assert view.losses[-1] == 4999


def test_it_is_redrawn_in_place_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch)
    with progress("pretrain", 10, "steps") as bar:
        bar.below = lambda: [("loss", "3.0"), ("sample", "\x1b[2Jred\r" + "x" * 200), *[("more", "")] * 9]
        bar.advance(3, note="loss 3.0")
        bar.draw()
        drawn = terminal.getvalue()
        assert drawn.count("\n") == 3, "no taller than the screen, or it couldn't be erased"
        assert "loss 3.0" not in drawn.split("\n")[0], "the figures stand below, not in the line too"
        assert "·[2Jred·" in drawn
        assert max(len(fitted(line, 999)) for line in drawn.split("\n")) <= 60 + len("·[2m·[0m")
        say("step 3")
        bar.draw()
    after = terminal.getvalue().removeprefix(drawn)
    assert after.startswith("\r\x1b[3A\x1b[Jstep 3\n\r\x1b[Jpretrain")
    assert after.endswith("\r\x1b[3A\x1b[J")
    assert log.Progress.live is None


def test_what_fits_into_columns() -> None:
    assert fitted("abcdef", 3) == "abc"
    assert fitted("語語語", 5) == "語語"
    assert fitted("e\u0301x", 1) == "e\u0301"
    assert fitted("a\tb\x00", 9) == "a·b·"
