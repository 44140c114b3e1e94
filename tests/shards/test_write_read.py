"""Token files: what was encoded comes back, in bounded memory, whole or not at all, and damage is named."""

import json
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import sha256, write_json
from groundup.base.records import Document, write_documents
from groundup.cli import main
from groundup.shards import write
from groundup.shards.read import Shards, permutation
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load
from groundup.tokenizer.train import train

TEXTS = ["the cat sat", "", "on the mat 🙂", "x" * 700, "the end"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(TEXTS, 270)


def test_documents_come_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    index = write_texts(TEXTS, tokenizer, tmp_path / "s", shard_tokens=100)
    shards = Shards(tmp_path / "s", verify=True)
    assert len(index["files"]) == -(-shards.tokens // 100)
    assert [file["tokens"] for file in index["files"][:-1]] == [100] * (len(index["files"]) - 1)
    assert shards.bytes == sum(len(text.encode()) for text in TEXTS)
    assert (shards.documents, shards.vocab_size, shards.tokenizer) == (5, 270, tokenizer.fingerprint)
    ends = [*shards.doc_starts[1:], shards.tokens]
    for text, start, end in zip(TEXTS, shards.doc_starts, ends, strict=True):
        ids = shards.slice(int(start), int(end)).tolist()
        assert ids[0] == tokenizer.eot
        assert tokenizer.decode(ids[1:]) == text


@given(cuts=st.tuples(st.integers(0, 600), st.integers(0, 600)))
def test_a_slice_is_the_same_whatever_files_it_crosses(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, cuts: tuple[int, int]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "sliced"
    if not folder.exists():
        write_texts(["the cat sat on the mat " * 40], tokenizer, folder, shard_tokens=64)
    shards = Shards(folder)
    whole = np.concatenate([np.load(folder / f"tokens_{i:05d}.npy") for i in range(-(-shards.tokens // 64))])
    start, stop = sorted(min(cut, shards.tokens) for cut in cuts)
    assert np.array_equal(shards.slice(start, stop), whole[start:stop])


@pytest.mark.parametrize(("merges", "dtype"), [(0, "uint16"), (65_279, "uint16"), (65_280, "uint32")])
def test_two_bytes_a_token_up_to_65536_ids(tmp_path: Path, merges: int, dtype: str) -> None:
    pairs = ((left, right) for left in range(256) for right in range(256))
    tokenizer = Tokenizer([pair for pair, _ in zip(pairs, range(merges), strict=False)])
    write_texts(["\xff" * 3], tokenizer, tmp_path / "s")
    shards = Shards(tmp_path / "s")
    assert shards.dtype == dtype
    assert shards.slice(0, 1).tolist() == [tokenizer.eot] == [256 + merges]


def test_memory_is_bounded_by_a_file_and_a_batch(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "BATCH", 10_000)

    def texts() -> Iterator[str]:
        for i in range(300):
            yield f"{i} the cat sat on the mat " * 80

    write_texts(texts(), tokenizer, tmp_path / "s")  # what imports and caches cost
    tracemalloc.start()
    index = write_texts(texts(), tokenizer, tmp_path / "s", shard_tokens=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < index["bytes"] * 0.75


def test_a_failure_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def broken() -> Iterator[str]:
        yield "some text" * 1000
        raise DataError("row 2: damaged")

    with pytest.raises(DataError, match="row 2"):
        write_texts(broken(), tokenizer, tmp_path / "s", shard_tokens=1024)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_endoftext_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no special token <\|endoftext\|>"):
        write_texts(["x"], Tokenizer([], []), tmp_path / "s")


def damage_truncate(folder: Path) -> None:
    path = folder / "tokens_00000.npy"
    path.write_bytes(path.read_bytes()[:-3])


def damage_missing(folder: Path) -> None:
    (folder / "tokens_00000.npy").unlink()


def damage_foreign(folder: Path) -> None:
    (folder / "tokens_00000.npy").write_bytes(b"not numpy at all")


def damage_empty(folder: Path) -> None:
    (folder / "tokens_00000.npy").write_bytes(b"")


def damage_dtype(folder: Path) -> None:
    np.save(folder / "tokens_00000.npy", np.zeros(10, np.int64))


def damage_index(folder: Path) -> None:
    (folder / "index.json").write_text("{}", encoding="utf-8")


def damage_no_index(folder: Path) -> None:
    (folder / "index.json").unlink()


def damage_count(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    write_json(folder / "index.json", index | {"tokens": index["tokens"] + 1})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "tokens_00000.npy: truncated or not a NumPy file"),
        (damage_missing, "tokens_00000.npy: missing"),
        (damage_foreign, "tokens_00000.npy: truncated or not a NumPy file"),
        (damage_empty, "tokens_00000.npy: truncated or not a NumPy file"),
        (damage_dtype, "tokens_00000.npy: holds int64"),
        (damage_index, "not an index of token files"),
        (damage_no_index, "no index.json"),
        (damage_count, "make them anew with `groundup shards`"),
    ],
)
def test_damage_is_named(tmp_path: Path, tokenizer: Tokenizer, damage: Callable[[Path], None], message: str) -> None:
    write_texts(TEXTS, tokenizer, tmp_path / "s")
    damage(tmp_path / "s")
    with pytest.raises(DataError, match=message):
        Shards(tmp_path / "s")


def test_an_altered_file_is_found_by_its_hash(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_texts(TEXTS, tokenizer, tmp_path / "s")
    path = tmp_path / "s" / "tokens_00000.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    Shards(tmp_path / "s")  # of the right size, so only the hash tells
    with pytest.raises(DataError, match="altered since it was written"):
        Shards(tmp_path / "s", verify=True)
    (tmp_path / "s" / "doc_starts.npy").unlink()
    with pytest.raises(DataError, match=r"doc_starts\.npy: missing or damaged"):
        len(Shards(tmp_path / "s").doc_starts)


def test_the_order_is_a_permutation_that_never_changes() -> None:
    for n in (1, 2, 1000):
        assert sorted(permutation(n, 3, 0).tolist()) == list(range(n))
    assert permutation(1000, 3, 0).tolist() == permutation(1000, 3, 0).tolist()
    assert permutation(1000, 3, 0).tolist() != permutation(1000, 3, 1).tolist()
    assert permutation(1000, 3, 0).tolist() != permutation(1000, 4, 0).tolist()
    assert permutation(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]  # held fast: a resumed run depends on it


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with documents and a tokenizer."""
    folder = tmp_path / "my-llm" / "01-data" / "main"
    folder.mkdir(parents=True)
    story = "The cat sat on the mat, and the dog sat on the log. Then the cat ran to the dog. "
    write_documents(folder / "documents.parquet", [Document(str(i), story * 3 + str(i)) for i in range(20)])
    write_documents(folder / "heldout.parquet", [Document("h", story)])
    write_json(folder / "run.json", {"status": "done"})
    assert main(["tokenizer", "train", str(tmp_path / "my-llm"), "--vocab-size", "280"]) == 0
    return tmp_path / "my-llm"


def test_the_verb(cli: Callable[..., subprocess.CompletedProcess[str]], project: Path) -> None:
    (project / "03-shards" / "main").mkdir(parents=True)
    done = cli("shards", project).stdout
    assert "train: 20 documents" in done
    assert f"plan {project}" in done.splitlines()[-1]
    run = project / "03-shards" / "main"
    tokenizer = load(project / "02-tokenizer" / "main")
    results = json.loads((run / "run.json").read_text())["results"]
    for split, documents in (("train", 20), ("heldout", 1)):
        shards = Shards(run / split, verify=True)
        assert (shards.documents, shards.tokenizer) == (documents, tokenizer.fingerprint)
        assert results[split] == {"tokens": shards.tokens, "bytes": shards.bytes, "documents": documents}
    before = sha256(run / "train" / "tokens_00000.npy")
    assert "nothing to do" in cli("shards", project).stdout
    assert main(["tokenizer", "train", str(project), "--vocab-size", "270"]) == 0
    assert "made anew" in cli("shards", project).stdout
    assert sha256(run / "train" / "tokens_00000.npy") != before


def test_what_a_killed_run_left_is_swept_away(project: Path) -> None:
    left = project / "03-shards" / "main" / ".train.123.tmp"
    left.mkdir(parents=True)
    (left / "tokens_00000.npy").write_bytes(b"half")
    assert main(["shards", str(project)]) == 0
    assert not left.exists()


def test_mistakes_are_one_line(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        ([str(tmp_path / "empty")], "run `groundup data build` first"),
        ([str(project), "--tokenizer", "other"], "run `groundup tokenizer train` first"),
        ([str(project), "--shard-tokens", "3"], "shard_tokens: 3 is not between 1024 and"),
    ):
        assert main(["shards", *flags]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    write_documents(project / "01-data" / "main" / "documents.parquet", [])
    assert main(["shards", str(project)]) == 2
    assert "no documents in it" in capfd.readouterr().err
    (project / "01-data" / "main" / "documents.parquet").write_bytes(b"PAR1 damaged")
    assert main(["shards", str(project)]) == 2
    assert "documents.parquet" in capfd.readouterr().err
    assert not list(project.rglob("03-shards/main/train"))
