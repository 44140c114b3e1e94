import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from groundup.base.errors import ConfigError
from groundup.base.files import write_jsonl
from groundup.cli import main
from groundup.serve.app import listen, questions


def test_the_page_is_whole(serve: Callable[..., Any]) -> None:
    response = httpx.get(serve().url + "/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)(?:https?:)?//""", response.text)
    for element in re.findall(r"<(?:button|input|textarea)\b[^>]*>", response.text):
        identity = re.search(r'id="([^"]+)"', element)
        labelled = "aria-label" in element or (identity and f'for="{identity[1]}"' in response.text)
        assert labelled or element.startswith("<button"), element


def test_a_server_from_the_command_line(make_project: Callable[..., Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "my-llm", context=4096)
    words = [sys.executable, "-m", "groundup", "serve", str(project), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]  # type: ignore[index]
        assert "my-llm" in line
        assert httpx.get(url + "/health", timeout=30).json()["model"] == "my-llm"
        body = {"prompt": "x", "max_tokens": 4000, "stream": True}
        with httpx.stream("POST", url + "/v1/completions", json=body, timeout=30) as response:
            next(response.iter_lines())
            start = time.monotonic()
            process.send_signal(signal.SIGINT)  # in the middle of an answer
            assert process.wait(20) == 0
            assert time.monotonic() - start < 6
        out, err = process.communicate()
        assert (out.splitlines()[-1], err) == ("stopped", "")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--port", "PORT"], "in use"),
        (["--port", "99999"], "port: expected a number from 0 to 65535"),
        (["--host", "no.such.host.invalid", "--port", "0"], "isn't an address of this machine"),
        (["absent", "--port", "0"], "no such folder"),
    ],
)
def test_refused_in_one_line(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", *(port if word == "PORT" else word for word in words)]) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert expected in heard.err
    assert len(heard.err.splitlines()) == 1


def test_listen() -> None:
    with listen("127.0.0.1", 0) as sock, pytest.raises(ConfigError, match="choose another with --port"):
        listen("127.0.0.1", sock.getsockname()[1])


def test_questions(tmp_path: Path) -> None:
    assert questions(tmp_path) == []
    rows = [{"id": str(i), "skill": f"s{i // 2}", "question": f"q{i}", "answer": "a"} for i in range(12)]
    write_jsonl(tmp_path / "tasks" / "problems-test.jsonl", rows)
    assert questions(tmp_path) == ["q0", "q2", "q4", "q6"]


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--dry-run"]) == 0
    assert "listen on http://127.0.0.1:8000" in capsys.readouterr().out
