"""Token files are read to the last byte; nanoGPT's are read as ours are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from groundup.base.errors import DataError
from groundup.cli import main
from groundup.shards import Shards, TokenDataset, write_texts
from groundup.tokenizer.train import train

TEXTS = ["the cat sat on the mat", "a dog", "the end of it all"] * 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(TEXTS, train(TEXTS, 270), tmp_path / "s", shard_tokens=100)
    return tmp_path / "s"


def test_whole_files_are_summed_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "verify", str(folder)]) == 0
    index = json.loads((folder / "index.json").read_text())
    assert capsys.readouterr().out == (
        f"{folder}: {index['tokens']} tokens in 15 documents from {index['bytes']} bytes; every file is whole\n"
    )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("harm", "said"), [
    (lambda folder: flip(folder / "tokens_00001.npy"), "tokens_00001.npy: altered"),
    (lambda folder: flip(folder / "doc_starts.npy"), "doc_starts.npy: altered"),
    (lambda folder: (folder / "doc_starts.npy").unlink(), "doc_starts.npy: missing"),
    (lambda folder: (folder / "tokens_00000.npy").unlink(), "tokens_00000.npy: missing"),
    (lambda folder: shutil.rmtree(folder), "make them with `groundup shards`"),
])  # fmt: skip
def test_the_first_file_that_is_not_whole_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object], said: str
) -> None:
    harm(folder)
    assert main(["shards", "verify", str(folder)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_token_beyond_the_vocabulary_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"vocab_size": 10}))
    assert main(["shards", "verify", str(folder)]) == 2
    assert "where the vocabulary has 10" in capsys.readouterr().err


def test_nanogpt_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As its prepare.py writes them: GPT-2's ids, each document closed by <|endoftext|>."""
    documents = [[464, 3797, 3332], [64, 3290], [464, 886, 286, 340]]
    ids = np.array([i for document in documents for i in (*document, 50256)], np.uint16)
    ids.tofile(tmp_path / "train.bin")
    data = TokenDataset(tmp_path / "train.bin", context=5, document_mask=True)
    assert (len(data), data.shards.tokens, data.shards.doc_starts.tolist()) == (2, 12, [0, 4, 7])
    assert data[0][0].tolist() == ids[:5].tolist()
    assert data.positions(0).tolist() == [0, 1, 2, 3, 0]
    whole, halves = data.batch(0, 2), [data.batch(0, 2, rank, 2) for rank in range(2)]
    assert whole.tokens.tolist() == [row for half in halves for row in half.tokens.tolist()]
    assert main(["shards", "verify", str(tmp_path / "train.bin")]) == 0
    assert "12 tokens in 3 documents; every file is whole" in capsys.readouterr().out
    for name, size, said in (("odd.bin", 3, "not tokens of two bytes"), ("empty.bin", 0, "nothing in it")):
        (tmp_path / name).write_bytes(bytes(size))
        with pytest.raises(DataError, match=said):
            Shards(tmp_path / name)
