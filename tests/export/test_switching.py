"""docs/switching.md: its commands run, in their order, and its tables name flags that are there."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.base.config import KNOWN_ELSEWHERE, keys
from groundup.base.files import write_jsonl
from groundup.base.runs import latest_checkpoint, open_run
from groundup.cli import VERBS, load
from groundup.cli import main as groundup
from groundup.model.weights import load_model
from groundup.tokenizer.encode import EOT
from groundup.tokenizer.io import alphabet
from groundup.tokenizer.train import train

Make = Callable[..., Any]
PAGE = (Path(__file__).parents[2] / "docs" / "switching.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, their_folder: Make, nanogpt: Make, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that the page's commands read."""
    monkeypatch.chdir(tmp_path)
    their_folder(tmp_path / "their-model")
    shakespeare = (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    text, old = shakespeare[:500_000], shakespeare[500_000:]
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    (tmp_path / "old.txt").write_text(old, encoding="utf-8")
    nanogpt(tmp_path / "out-shakespeare-char" / "ckpt.pt", len(set(text)))
    words, letters = train([text[:50_000]], 300, specials=(EOT,), pattern="gpt2"), alphabet()
    rows = [
        " ".join("".join(letters[byte] for byte in words.token_bytes(part)) for part in pair) for pair in words.merges
    ]
    (tmp_path / "vocab.bpe").write_text("\n".join(["#version: 0.2", *rows]) + "\n", encoding="utf-8")
    nanogpt(tmp_path / "out" / "ckpt.pt", 304)
    asked = [{"role": "user", "content": "2 + 2 ="}]
    write_jsonl(tmp_path / "chats.jsonl", [{"messages": [*asked, {"role": "assistant", "content": "4"}]}] * 20)
    write_jsonl(tmp_path / "preferences.jsonl", [{"prompt": asked, "chosen": "4", "rejected": "5"}] * 20)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run_as_they_stand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 15
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "groundup"
        assert groundup(words) == 0, (command, capsys.readouterr())
        if words[:3] == ["data", "build", "theirs"]:
            assert re.search(r"next: .*groundup shards theirs\n", capsys.readouterr().out), "its tokenizer came with it"
    kept = open_run(folder / "theirs", "pretrain", "kept")
    assert kept.results["forgotten"] < 1
    assert (folder / "theirs/12-export/main-q8_0/theirs-q8_0.gguf").exists()
    assert json.loads((folder / "for-trl/config.json").read_text())["model_type"] == "qwen3"
    found = latest_checkpoint(open_run(folder / "gpt", "pretrain").path)
    assert found is not None
    assert load_model(found).config.activation == "gelu_exact"


def test_the_tables_name_flags_that_are_there_and_the_hints_agree() -> None:
    known = {verb: keys(load(VERBS[verb].config)) for verb in ("pretrain", "sft", "dpo", "grpo")}
    rows = re.findall(r"^\| `(\w+)` \| `--([\w.-]+)`", PAGE, re.MULTILINE)
    assert len(rows) > 30
    for theirs, flag in rows:
        ours = flag.replace("-", "_")
        assert any(ours in found for found in known.values()), flag
        if theirs != ours.rpartition(".")[2]:
            assert KNOWN_ELSEWHERE[theirs] == ours.rpartition(".")[2]
    for verb in re.findall(r"`(?:torchrun -m )?groundup ((?:data |tokenizer |export )?\w+)", PAGE):
        assert verb in VERBS, verb


def test_a_flag_of_nanogpts_is_answered_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert groundup(["pretrain", "--n-embd", "64"]) == 2
    assert "--model.d-model" in capsys.readouterr().err
