"""`groundup tokenizer train` and `encode` as a user types them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.files import write_json
from groundup.base.records import Document, write_documents
from groundup.cli import main
from groundup.tokenizer.io import load, save
from groundup.tokenizer.train import train

STORY = "The cat sat on the mat, and the dog sat on the log. Then the cat ran to the dog. "
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose data stage is done."""
    folder = tmp_path / "my-llm" / "01-data" / "main"
    folder.mkdir(parents=True)
    write_documents(folder / "documents.parquet", [Document(str(i), STORY * 3 + str(i)) for i in range(20)])
    write_documents(folder / "heldout.parquet", [Document("h", STORY)])
    write_json(folder / "run.json", {"status": "done"})
    return tmp_path / "my-llm"


def test_train_then_encode(cli: Cli, project: Path) -> None:
    done = cli("tokenizer", "train", project, "--vocab-size", "280").stdout
    assert "280 ids" in done
    assert "bytes per token on held-out text" in done
    assert "longest tokens:" in done
    assert f"shards {project}" in done.splitlines()[-1]
    run = project / "02-tokenizer" / "main"
    results = json.loads((run / "run.json").read_text())["results"]
    assert results["fingerprint"] == load(run).fingerprint
    assert results["bytes_per_token"] > 2
    assert "nothing to do" in cli("tokenizer", "train", project, "--vocab-size", "280").stdout
    shown = cli("tokenizer", "encode", project, "the cat\n<|end|>").stdout.splitlines()
    ids = [int(word) for word in shown[1].split()]
    assert load(run).decode(ids) == "the cat\n<|end|>"
    assert " cat|\\n|" in shown[0]
    assert shown[2].startswith(f"{len(ids)} tokens, 15 bytes")
    special = cli("tokenizer", "encode", run, "the<|end|>", "--specials").stdout.splitlines()
    assert special[1].split()[-1] == str(load(run).special("<|end|>"))


def test_files_in_place_of_the_projects_documents(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text(STORY, encoding="utf-8")
    project = str(tmp_path / "p")
    assert main(["tokenizer", "train", project, "--vocab-size", "280", "--input", str(tmp_path / "a.txt")]) == 0
    assert "on the text it was learnt from" in capfd.readouterr().out
    assert load(tmp_path / "p" / "02-tokenizer" / "main").vocab_size == 280


def test_bytes_need_no_size(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "train", str(project), "--pattern", "bytes"]) == 0
    assert "261 ids, 1.000 bytes per token" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vocab-size", "100"], "vocab_size: 100 is too small; at least 261"),
        (["--vocab-size", "9000"], "more than this corpus supports; at most "),
        (["--pattern", "gtp2"], "did you mean 'gpt2'"),
        (["--input", "absent.txt"], "absent.txt: no such file"),
        (["--data", "other"], "run `groundup data build` first"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_tokenizer(
    project: Path, capfd: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["tokenizer", "train", str(project), *flags]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(project.rglob("tokenizer.json"))
    assert not list(project.rglob("*.tmp"))


def test_encoding_without_a_tokenizer_or_a_text_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "encode", str(tmp_path), "text"]) == 2
    assert "make one with `groundup tokenizer train`" in capfd.readouterr().err
    assert main(["tokenizer", "encode", str(tmp_path)]) == 2
    assert "text: give one" in capfd.readouterr().err


def test_encode_loads_nothing_heavy(project: Path) -> None:
    """What keeps the answer under half a second: no torch, no NumPy, no Arrow, no compilation."""
    assert main(["tokenizer", "train", str(project), "--vocab-size", "280"]) == 0
    code = (
        "import sys\nfrom groundup.cli import main\n"
        f"assert main(['tokenizer', 'encode', {str(project)!r}, 'the cat']) == 0\n"
        "assert not {'torch', 'numpy', 'pyarrow', 'numba', 'jinja2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_convert_there_and_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = train([STORY], 280, "cl100k")
    save(tokenizer, tmp_path / "ours.json")
    path = str(tmp_path / "ours.json")
    for to, out in (("huggingface", "hf"), ("tiktoken", "cl100k-ours.tiktoken"), ("groundup", "again.json")):
        assert main(["tokenizer", "convert", path, str(tmp_path / out), "--to", to]) == 0
        assert "280 ids" in capfd.readouterr().out
        assert load(tmp_path / out).encode(STORY) == tokenizer.encode(STORY)
    assert (tmp_path / "hf" / "tokenizer_config.json").exists()
    for words, message in (
        ([path, str(tmp_path / "hf")], "there is something already"),
        ([path], "out: say where"),
        ([path, "x", "--to", "gguf"], "expected huggingface, tiktoken or groundup"),
        ([path, "x", "--to", "groundup"], "a file that ends in .json"),
    ):
        assert main(["tokenizer", "convert", *words]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1
