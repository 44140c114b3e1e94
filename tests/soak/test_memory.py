"""Training keeps its memory flat, whatever it evaluates, samples and saves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def growth(*flags: str) -> float:
    """Resident memory at the end, as a share of that at the beginning, in percent."""
    done = subprocess.run(
        [sys.executable, "benchmarks/memory.py", *flags], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[0])["ours"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_flat_over_some_seconds() -> None:
    assert growth("--quick") < 104  # the allocator is still settling


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_flat_over_half_an_hour() -> None:
    assert growth() < 101
