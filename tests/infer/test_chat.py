import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.infer.chat import Conversation
from groundup.infer.config import ChatConfig
from groundup.infer.engine import Engine
from groundup.infer.terminal import visible


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Says something to a model through standard input; returns the lines of the conversation."""

    def run(project: Path, said: bytes) -> list[str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
        assert main(["chat", str(project), "--max-tokens", "20"]) == 0
        heard = capsys.readouterr()
        assert heard.err == ""
        return heard.out.splitlines()

    return run


def test_through_a_pipe(project: Path) -> None:
    words = [sys.executable, "-m", "groundup", "chat", str(project), "--max-tokens", "20"]
    said = "hello\n/reset\nhello\n\n/what\n/exit\nnever read\n"
    done = subprocess.run(words, input=said, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("tiny (sft): ")
    assert "/reset forgets" in lines[1]
    assert lines[2] == lines[4]  # the same seed, the same words, nothing remembered
    assert len(lines[2]) == 20
    assert lines[3] == "forgotten"
    assert lines[5].startswith("/what isn't a command")
    assert len(lines) == 6


def test_bytes_that_are_no_text(chat: Callable[..., list[str]], project: Path) -> None:
    assert len(chat(project, b"\xff\xfe hello\n")) == 3


def test_a_long_conversation_loses_its_beginning(chat: Callable[..., list[str]], project: Path) -> None:
    lines = chat(project, b"a question of some length\n" * 8 + b"x" * 300 + b"\nand on it goes\n")
    assert any("no longer sees the oldest messages" in line for line in lines)
    assert any(line.startswith("(the prompt has 3") for line in lines)
    assert len(lines[-1]) == 20


def test_a_base_model_continues_the_text(
    chat: Callable[..., list[str]], make_project: Callable[..., Path], tmp_path: Path
) -> None:
    project = make_project(tmp_path / "base", stage="pretrain")
    lines = chat(project, b"once\nmore\n" + b"z" * 300 + b"\n")
    assert "hasn't been taught to chat" in lines[1]
    assert [len(line) for line in lines[3:]] == [20, 20, 20]
    conversation = Conversation(Engine.load(project), ChatConfig(max_tokens=5))
    first = "".join(conversation.say("once"))
    second = "".join(conversation.say("more"))
    assert conversation.text == "once" + first + "more" + second


def test_history(project: Path) -> None:
    conversation = Conversation(Engine.load(project), ChatConfig(system="be brief", max_tokens=5))
    answer = "".join(conversation.say("hello"))
    stopped = conversation.say("again")
    part = next(stopped)
    stopped.close()
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("system", "be brief"), ("user", "hello"), ("assistant", answer), ("user", "again"), ("assistant", part),
    ]  # fmt: skip
    conversation.reset()
    assert len(conversation.messages) == 1


class Terminal:
    """A process's terminal, read up to the words that are waited for."""

    def __init__(self, handle: int) -> None:
        self.handle, self.heard = handle, b""

    def listen(self, timeout_s: float) -> None:
        if select.select([self.handle], [], [], timeout_s)[0]:
            self.heard += os.read(self.handle, 65536)

    def expect(self, word: bytes, timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while word not in self.heard and time.monotonic() < end:
            self.listen(0.1)
        assert word in self.heard, self.heard
        self.heard = self.heard.partition(word)[2]


def listen_to_ctrl_c() -> None:
    """What a shell runs in the background inherits a deaf ear for SIGINT, these tests included; a terminal's programs have none."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_and_ctrl_d(make_project: Callable[..., Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "long", context=16384, letters="a")
    ours, theirs = pty.openpty()
    terminal = Terminal(ours)
    words = [sys.executable, "-m", "groundup", "chat", str(project), "--max-tokens", "16000"]
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=listen_to_ctrl_c
    )
    try:
        terminal.expect(b"> ")
        os.write(ours, b"hello\n")
        terminal.expect(b"aaa")
        process.send_signal(signal.SIGINT)
        terminal.expect(b"[stopped]")
        terminal.expect(b"> ")
        # Between showing its prompt and listening, readline is deaf to a signal: whoever types presses again.
        presses = 0
        while b"leaves" not in terminal.heard and (presses := presses + 1) < 30:
            process.send_signal(signal.SIGINT)
            terminal.listen(1)
        terminal.expect(b"leaves")
        terminal.expect(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("text", "shown"), [("a\tb\n", "a\tb\n"), ("\x1b[31m\r\x07\x9b", "\ufffd[31m\ufffd\ufffd\ufffd"), ("é😀", "é😀")]
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
