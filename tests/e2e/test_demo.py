"""`groundup demo` end to end: the whole path, its summary, its next commands as typed, and going on after a kill."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from groundup.base.errors import DataError
from groundup.base.files import write_json
from groundup.base.runs import STAGES, open_run, record
from groundup.recipes.config import DemoConfig
from groundup.recipes.summary import summarise

TINY = Path(__file__).parent / "tiny.toml"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}


def demo(folder: Path, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["groundup", "demo", "my-llm", "--recipe", str(TINY), "--threads", "1", *flags]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo(folder).stdout


def test_the_whole_path(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    summary = json.loads((folder / "my-llm" / "summary.json").read_text())
    assert list(summary["stages"]) == ["base", "sft", "dpo", "grpo"]
    for stage in summary["stages"].values():
        assert set(stage) == {"bits_per_byte", "exact_match", "sample_at_1", "pass_at_8"}
        assert stage["bits_per_byte"] > summary["entropy_floor_bits_per_byte"] > 0.1
        assert 0 <= stage["sample_at_1"] <= stage["pass_at_8"] <= 1
    assert summary["seed"] == 0
    assert summary["wall_s"] > 1
    assert [turn["role"] for turn in summary["conversation"]][:2] == ["user", "assistant"]
    for stage in ("data", "tokenizer", "shards", "plan", "pretrain", "sft", "dpo", "grpo", "eval", "export"):
        assert json.loads((folder / "my-llm" / STAGES[stage] / "main" / "run.json").read_text())["status"] == "done"
    for text in ("entropy floor", "exact match by skill", "first_letter", "sft -> dpo", "[11/11] export"):
        assert text in printed, text
    report = (folder / "my-llm" / "report.html").read_text()
    assert "false_arithmetic" in report
    assert "Reinforcement (GRPO)" in report


def test_a_rerun_does_nothing_and_says_so(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = (folder / "my-llm" / "10-grpo" / "main" / "run.json").read_bytes()
    printed = demo(folder).stdout
    assert printed.count("already done") >= 8
    assert (folder / "my-llm" / "10-grpo" / "main" / "run.json").read_bytes() == before


def test_the_next_commands_can_be_typed_as_they_stand(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    commands = [line.strip() for line in printed.partition("\nnext:\n")[2].splitlines() if line.strip()]
    verbs = [shlex.split(command)[1] for command in commands]
    assert verbs == ["chat", "serve", "data", "eval", "export"]
    for command, verb in zip(commands, verbs, strict=True):
        if verb == "serve":
            serve(folder, command)
            continue
        done = subprocess.run(
            command, shell=True, cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, timeout=120,
            input="What is the first letter of a b c?\n" if verb == "chat" else None, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip()


def serve(folder: Path, command: str) -> None:
    """Starts the server by the printed command (on a free port), asks for its health, and stops it."""
    process = subprocess.Popen(
        [*shlex.split(command), "--port", "0"], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("".join(lines))
        for _ in range(100):
            try:
                with urllib.request.urlopen(found[0] + "/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.1)
        pytest.fail("the server did not answer /health")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_it_goes_on_after_a_stop(tmp_path: Path, finished: tuple[Path, str], number: signal.Signals, code: int) -> None:
    command = ["groundup", "demo", "my-llm", "--recipe", str(TINY), "--threads", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics, limit = tmp_path / "my-llm" / "05-pretrain" / "main" / "metrics.jsonl", time.time() + 200
    while not metrics.exists() and process.poll() is None and time.time() < limit:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    printed = demo(tmp_path).stdout
    assert "already done" in printed
    whole, stopped = (
        json.loads((folder / "my-llm" / "05-pretrain" / "main" / "run.json").read_text())["results"]["parameter_hash"]
        for folder in (finished[0], tmp_path)
    )
    assert whole == stopped, "a run that was stopped ends in the very same weights"


def test_a_folder_of_mixed_files(tmp_path: Path, data_dir: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "book.txt").write_bytes((data_dir / "raw" / "gutenberg-books.txt").read_bytes()[:400_000])
    (corpus / "wiki.xml.bz2").write_bytes((data_dir / "raw" / "bgwiki-excerpt.xml.bz2").read_bytes())
    (corpus / "pages.warc.gz").write_bytes(
        (data_dir / "raw" / "docs.warc.gz").read_bytes()[:300_000]
    )  # cut in the middle
    rows = [
        json.loads(line)["response"] for line in (data_dir / "sft" / "dolly-1000.jsonl").read_text().splitlines()[:200]
    ]
    with gzip.open(corpus / "rows.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(rows))
    (corpus / "page.html").write_text(
        f"<html><body><nav>Home</nav><main><p>{rows[0]}</p><p>{rows[1]}</p></main></body></html>"
    )
    (corpus / "module.py").write_text(
        '"""A module."""\n\n\ndef double(x):\n    """Returns twice x."""\n    return 2 * x\n'
    )
    (corpus / "noise.bin").write_bytes(bytes(range(256)) * 40)
    command = ["groundup", "demo", "mine", "--threads", "1", "--corpus", str(corpus), "--max-minutes", "0.2"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    stats = json.loads((tmp_path / "mine" / "01-data" / "main" / "stats.json").read_text())
    assert len(stats["sources"]) >= 4
    assert "pages.warc.gz" in done.stdout + done.stderr, "the file that was cut off is named"
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert list(summary["stages"]) == ["base"]
    assert 0 < summary["stages"]["base"]["bits_per_byte"] < 8
    assert summary["entropy_floor_bits_per_byte"] is None


@pytest.mark.parametrize(
    "content", [None, b"", b"x", bytes(range(256)) * 8], ids=["empty folder", "empty file", "one byte", "binary"]
)
def test_a_corpus_that_holds_nothing_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "corpus").mkdir()
    if content is not None:
        (tmp_path / "corpus" / "a.txt").write_bytes(content)
    done = demo(tmp_path, "--corpus", "corpus", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "my-llm" / "01-data").exists() or not open_run(tmp_path / "my-llm", "data").done


def test_below_the_floor_is_a_leak_and_fails(tmp_path: Path) -> None:
    with record(open_run(tmp_path, "eval"), "", {}) as results:
        results.update(entropy_floor_bits_per_byte=0.5, differences={})
    write_json(
        open_run(tmp_path, "eval").path / "base.json", {"bits_per_byte": {"value": 0.4, "low": 0.3, "high": 0.5}}
    )
    with pytest.raises(DataError, match="leaked"):
        summarise(DemoConfig(tmp_path, corpus="python"), 1.0)
    assert json.loads((tmp_path / "summary.json").read_text())["stages"]["base"]["bits_per_byte"] == 0.4
