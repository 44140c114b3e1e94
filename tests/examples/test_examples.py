"""Every example runs as a reader would run it, and shows what it promises."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_plain_llm_learns_a_rhyme_and_answers_questions(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "plain_llm.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, re.search(r"pretraining: ([\d.]+) -> ([\d.]+)", done.stdout).groups())  # type: ignore[union-attr]
    assert after < 0.5 < before
    assert "killed the rat" in done.stdout
    right, asked = map(int, re.search(r"fine-tuning: (\d+) of (\d+)", done.stdout).groups())  # type: ignore[union-attr]
    assert right >= 0.8 * asked


def test_plain_llm_takes_a_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog.\n" * 40)
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "plain_llm.py", text], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "brown fox" in done.stdout.split("it continues")[1]


def test_experts_share_the_letters_among_them() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "experts.py"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    losses = [float(number) for number in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert losses[0] > 4.5
    assert losses[1] < 1.0
    shares = [int(number) for number in re.findall(r"\d+", done.stdout.split("expert [")[2].split("]")[0])]
    assert len(shares) == 4
    assert max(shares) < 2 * sum(shares) / 4
    assert done.stdout.count("expert ") >= 5
