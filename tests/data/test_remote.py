"""Addresses in place of paths: memory, this machine by file://, a web server; what is missing is one line."""

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.base.errors import DataError
from groundup.base.files import fingerprint
from groundup.base.records import read_documents
from groundup.base.remote import address, files_at, identity, open_bytes
from groundup.cli import main
from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, Record
from groundup.data.read import find_files, read_file


@pytest.fixture
def memory() -> Any:
    """An empty storage in memory."""
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]
    yield storage
    storage.store.clear()


def records(*inputs: str) -> tuple[list[Record], list[Problem]]:
    files, aside = find_files([Path(i) for i in inputs], ReadConfig())
    items = [*aside, *(item for file in files for item in read_file(file, ReadConfig()))]
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Problem)]


def test_addresses_and_paths_are_told_apart() -> None:
    for url in ("s3://bucket/a/b.txt", "https://a.example/x.parquet", "memory://x", "file:///raw/x"):
        assert address(Path(url)) == url
    for path in ("raw", "/raw/x", "C:/x", "a:b", "./s3/x"):
        assert address(Path(path)) == ""


def test_a_folder_in_memory_with_files_of_every_kind(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/raw/a.txt", b"One text.")
    memory.pipe("/raw/sub/b.jsonl.gz", gzip.compress(json.dumps({"text": "Two."}).encode()))
    memory.pipe("/raw/node_modules/c.js", b"let c = 1")
    memory.pipe("/raw/logo.png", b"PNG")
    pq.write_table(pa.table({"text": ["Three.", "Four."]}), tmp_path / "t.parquet")
    memory.pipe("/raw/t.parquet", (tmp_path / "t.parquet").read_bytes())
    found, aside = records("memory://raw")
    assert {r.id: r.payload for r in found} == {
        "a.txt:1": "One text.",
        "sub/b.jsonl.gz:1": "Two.",
        "t.parquet:1": "Three.",
        "t.parquet:2": "Four.",
    }
    assert {p.file: p.rule for p in aside} == {"node_modules/c.js": "vendored", "logo.png": "unknown_type"}
    assert [r.id for r in records("memory://raw/*.txt")[0]] == ["a.txt:1"]
    before = identity("memory://raw")
    assert fingerprint(Path("memory://raw")) == before
    memory.pipe("/raw/a.txt", b"Another text.")
    assert identity("memory://raw") != before


def test_a_folder_by_its_address_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("Words.")
    assert [r.payload for r in records((tmp_path / "raw").as_uri())[0]] == ["Words."]
    assert open_bytes(Path((tmp_path / "raw" / "a.txt").as_uri())).read() == b"Words."


def test_a_build_from_a_web_server(server: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http:// through aiohttp (extra remote)")
    rows = [
        {"text": f"The people of town {n} have a house of their own, and they live with it. " * 5} for n in range(20)
    ]
    server.files["/rows.jsonl.gz"] = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    words = [
        "data",
        "build",
        str(tmp_path / "p"),
        "--input",
        f"{server.address}/rows.jsonl.gz",
        "--filters",
        "none",
        "--heldout",
        "0",
    ]
    assert main(words) == 0
    assert sum(1 for _ in read_documents(tmp_path / "p/01-data/main/documents.parquet")) == 20
    capfd.readouterr()
    assert main(words) == 0
    assert "already done" in capfd.readouterr().out
    server.files["/rows.jsonl.gz"] = gzip.compress("".join(json.dumps(row) + "\n" for row in rows[:9]).encode())
    assert main(words) == 0  # what lies there has changed
    assert sum(1 for _ in read_documents(tmp_path / "p/01-data/main/documents.parquet")) == 9


def test_what_cannot_be_read_is_one_line(memory: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for url, message in (("memory://nothing", "no such file or folder"), ("nope://x/y", "Protocol not known")):
        with pytest.raises(DataError, match=message):
            files_at(url)
        assert main(["data", "build", str(tmp_path / "p"), "--input", url]) == 2
        assert capfd.readouterr().err.count("\n") == 1
        assert not (tmp_path / "p").exists()


def test_a_missing_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(DataError, match=r"s3://bucket/x: to read s3:// addresses: pip install s3fs"):
        files_at("s3://bucket/x")


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), RuntimeError("Unable to locate credentials")])
def test_a_storage_that_lets_nobody_in_says_what_it_takes(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def closed(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fsspec.core, "url_to_fs", closed)
    with pytest.raises(DataError, match=rf"s3://bucket/x: can't be read \({error}\); it takes AWS_ACCESS_KEY_ID and"):
        files_at("s3://bucket/x")


def test_a_project_at_an_address_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("One text.")
    assert main(["data", "build", "s3://bucket/p", "--input", "a.txt"]) == 2
    assert "s3://bucket/p: a project lies in a folder" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
