"""The examples of the model's lessons in NumPy and JAX run as a reader would run them, and learn."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("name", ["numpy_llm.py", pytest.param("jax_llm.py", marks=pytest.mark.slow)])
def test_it_learns_a_rhyme_by_heart(name: str, tmp_path: Path) -> None:
    assert (EXAMPLES / name).read_text(encoding="utf-8").count("\n") <= 40
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    before, after = map(float, re.search(r"loss: ([\d.]+) -> ([\d.]+)", done.stdout).groups())  # type: ignore[union-attr]
    assert after < 0.5 < 5 < before
    assert "How I wonder what you are!" in done.stdout
