"""Fixtures that every room's tests share: real data, the command line as a user types it, and honest skips."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the test workers share the cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_SKIPS = ROOT / "tests" / "allowed_skips.txt"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: $GROUNDUP_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("GROUNDUP_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (set GROUNDUP_DATA)")
    return folder


@pytest.fixture(scope="session")
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m groundup WORDS` in a real process; `check=True` fails the test with the command's own words."""

    def run(
        *words: object, cwd: Path = ROOT, check: bool = True, timeout: float = 300, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "groundup", *map(str, words)],
            cwd=cwd, capture_output=True, text=True, timeout=timeout, env={**os.environ, "COLUMNS": "100", **(env or {})},
        )  # fmt: skip
        if check and done.returncode != 0:
            pytest.fail(f"groundup {' '.join(map(str, words))} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """In CI a skip counts as a failure unless its reason is on the allow-list."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        allowed = [line for line in ALLOWED_SKIPS.read_text().splitlines() if line and not line.startswith("#")]
        if not any(prefix in reason for prefix in allowed):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI without being on {ALLOWED_SKIPS.name}: {reason}"
    return report
