"""Fixtures that every room's tests share: real data, the command line as a user types it, and honest skips."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the test workers share the cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_SKIPS = ROOT / "tests" / "allowed_skips.txt"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: a gzip header holds the second it was made in, and workers must agree on names."""
    return argname if isinstance(val, bytes) else None


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


@pytest.fixture(scope="session")
def make_project() -> Callable[..., Path]:
    """Makes a project whose model, whatever it reads, writes any of `letters` alike, and so never ends by itself.

    `end` is the logit of <|end|>, beside the 1 of each letter.
    """
    import torch

    from groundup.base.files import write_json
    from groundup.base.runs import STAGES, write_checkpoint
    from groundup.model.config import ModelConfig
    from groundup.model.transformer import Transformer
    from groundup.model.weights import save_model
    from groundup.tokenizer import io
    from groundup.tokenizer.chat import DEFAULT_SPECIALS
    from groundup.tokenizer.encode import Tokenizer

    def make(
        folder: Path, stage: str = "sft", context: int = 256, letters: str = "abcdefgh ", end: float = -50.0
    ) -> Path:
        tokenizer = Tokenizer([], DEFAULT_SPECIALS, "bytes")
        config = ModelConfig(family="gpt2", vocab_size=tokenizer.vocab_size, context=context, d_model=16, n_layers=1,
                             n_heads=2, tie_embeddings=False)  # fmt: skip
        model = Transformer(config, seed=0)
        with torch.no_grad():  # the last norm gives (1, 0, 0, ...) always, so the head's first column are the logits
            model.norm.weight.zero_()
            model.norm.bias.zero_()[0] = 1
            model.head.weight.zero_()[:, 0] = -50
            model.head.weight[list(letters.encode()), 0] = 1
            model.head.weight[tokenizer.specials["<|end|>"], 0] = end
        run = folder / STAGES[stage] / "main"
        with write_checkpoint(run, 1) as checkpoint:
            save_model(model, checkpoint)
            io.save(tokenizer, checkpoint)
        write_json(run / "run.json", {"status": "done"})
        return folder

    return make


@pytest.fixture
def differ(request: pytest.FixtureRequest) -> Callable[[str, str, float, float], None]:
    """Asserts that what was found between two computations is at most so large, and notes it for the table of `--differences`."""

    def check(what: str, of: str, found: float, most: float) -> None:
        request.node.user_properties.append(("difference", (what, of, found, most)))
        assert found <= most, f"{what}: {of} differ by {found:.1e}, more than {most:.1e}"

    return check


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--differences`: `make parity` prints the table."""
    parser.addoption("--differences", action="store_true", help="print the largest differences that were found")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints, if asked, the largest differences of each comparison, and what is allowed."""
    if not config.getoption("--differences"):
        return
    table: dict[tuple[str, str, float], float] = {}
    for report in (r for name in ("passed", "failed") for r in terminalreporter.stats.get(name, [])):
        for what, of, found, most in (value for name, value in report.user_properties if name == "difference"):
            table[what, of, most] = max(found, table.get((what, of, most), 0.0))
    terminalreporter.section("largest differences")
    terminalreporter.write_line(f"{'':66}{'found':>10}{'allowed':>10}")
    for (what, of, most), found in sorted(table.items()):
        terminalreporter.write_line(f"{f'{what}: {of}':66}{found:>10.1e}{most:>10.0e}")


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
