"""The README's commands, word for word and in their order, in a fresh clone: an hour or so, most of it the demos' minutes.

The names that the README leaves to its reader (FOLDER, MODEL, chats.jsonl, base.toml, idea.toml) are made up between the commands.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from groundup.base.files import write_jsonl, write_text

ROOT = Path(__file__).parent.parent.parent
IDEA = 'project = "my-llm"\n\n[model]\nd_model = 128\nn_layers = 4\nn_heads = 4\n\n[train]\nsteps = 40\nbatch_tokens = 2048\nlr = {lr}\n'


def commands() -> list[str]:
    """Returns the lines of the README's sh blocks without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return [line.partition("  #")[0].strip() for line in "".join(blocks).splitlines() if line.strip()]


def reader(clone: Path, data: Path) -> None:
    """Puts there what the README expects its reader to bring."""
    folder = clone / "FOLDER"
    folder.mkdir()
    for file in sorted((ROOT / "docs").glob("*.md")):
        shutil.copy(file, folder)
    shutil.copy(data / "text" / "tinyshakespeare.txt", folder)
    shutil.copytree(ROOT / "groundup", folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    ask = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}]
    write_jsonl(clone / "chats.jsonl", [{"messages": ask}] * 64)
    write_text(clone / "base.toml", IDEA.format(lr="1e-3"))
    write_text(clone / "idea.toml", IDEA.format(lr="3e-3"))


def serve(line: str, clone: Path) -> None:
    """Starts the server, waits for its health, and stops it as a user does."""
    with subprocess.Popen(line, shell=True, cwd=clone, start_new_session=True) as server:
        try:
            for _ in range(120):
                try:
                    with urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2) as answer:
                        assert answer.status == 200
                        return
                except OSError:
                    assert server.poll() is None, f"{line} ended with {server.returncode}"
                    time.sleep(0.5)
            pytest.fail(f"{line}: no answer for a minute")
        finally:
            os.killpg(server.pid, signal.SIGINT)


def run(line: str, clone: Path) -> None:
    """Runs one command as it stands; a chat is told one thing and left."""
    if "groundup serve" in line:
        serve(line, clone)
        return
    said = "What is 2 + 3?\n" if "groundup chat" in line else ""
    done = subprocess.run(line, shell=True, cwd=clone, input=said, text=True, timeout=1800, stderr=subprocess.STDOUT,
                          stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    assert done.returncode == 0, f"{line} -> {done.returncode}\n{done.stdout[-4000:]}"


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_the_commands_run_as_they_stand(
    tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE"):  # the tests' own
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    clone = tmp_path / "groundup"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (tmp_path / "shared").symlink_to(data_dir.parent)
    reader(clone, data_dir)
    for line in commands():
        if line == "make test":
            continue  # the tests run themselves elsewhere
        started = time.monotonic()
        with capfd.disabled():
            print(f"{line} ...", end=" ", flush=True, file=sys.stderr)
            run(line, clone)
            print(f"{time.monotonic() - started:.0f} s", flush=True, file=sys.stderr)
        exported = clone / "my-llm" / "12-export" / "main" / "huggingface"
        if exported.is_dir() and not (clone / "MODEL").exists():
            shutil.copytree(exported, clone / "MODEL")
