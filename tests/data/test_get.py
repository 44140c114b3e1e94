"""Downloads against a real server on this machine: cut connections, refusals, wrong files; and the folder of local copies."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from groundup.base.errors import ConfigError, DataError
from groundup.cli import main
from groundup.data.fetch import Manners
from groundup.data.get import DataSet, get, registry

BODY = bytes(range(256)) * 2000
Server = Any  # tests/data/conftest.py has it


@pytest.fixture(autouse=True)
def no_local_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROUNDUP_DATA", raising=False)


def fetch(server: Server, to: Path, retries: int = 4) -> Path:
    server.files["/x.bin"] = BODY
    entry = DataSet(
        "x",
        "a file",
        f"{server.address}/x.bin",
        hashlib.sha256(BODY).hexdigest(),
        len(BODY),
        "public domain",
        "text/x.bin",
    )
    return get("x", to, sets={"x": entry}, manners=Manners(retries, 5.0, 0.01))


def test_a_file_arrives_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "raw")
    assert path == tmp_path / "raw" / "x.bin"
    assert path.read_bytes() == BODY
    assert fetch(server, tmp_path / "raw") == path
    assert server.asked == [""]
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["x.bin"]


def test_a_cut_connection_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "cut"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked == ["", "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "no ranges"]
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.script = ["503", "429"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert len(server.asked) == 3


def test_a_refusal_is_final(server: Server, tmp_path: Path) -> None:
    server.script = ["404"]
    with pytest.raises(DataError, match=r"not fetched after 1 attempt \(the server answers 404"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.script = ["other file"]
    with pytest.raises(DataError, match="isn't the registered file"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_giving_up_keeps_the_beginning_for_the_next_time(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "503", "503"]
    with pytest.raises(DataError, match="100,000 bytes are kept"):
        fetch(server, tmp_path, retries=3)
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin.part"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.asked[-1] == "bytes=100000-"


def test_a_stale_beginning_that_is_too_long_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin.part").write_bytes(bytes(len(BODY)))
    with pytest.raises(DataError, match="isn't the registered file"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_nobody_there(tmp_path: Path) -> None:
    entry = DataSet("x", "a file", "http://127.0.0.1:9/x.bin", "0" * 64, 10, "none", "x.bin")
    with pytest.raises(DataError, match="not fetched after 2 attempts"):
        get("x", tmp_path, sets={"x": entry}, manners=Manners(2, 5.0, 0.01))


def test_a_different_file_in_the_way_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="its sha256 differs"):
        fetch(server, tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"mine"


def test_local_copies_come_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path / "copies"))
    (tmp_path / "copies" / "text").mkdir(parents=True)
    (tmp_path / "copies" / "text" / "x.bin").write_bytes(BODY)
    assert fetch(server, tmp_path / "raw").read_bytes() == BODY
    assert server.asked == []
    (tmp_path / "copies" / "text" / "x.bin").write_bytes(b"other")
    with pytest.raises(DataError, match="its sha256 differs from the registry's"):
        fetch(server, tmp_path / "raw2")


def test_the_registry_is_what_the_folder_of_real_data_holds(data_dir: Path) -> None:
    for dataset in registry().values():
        path = data_dir / dataset.local
        assert path.stat().st_size == dataset.bytes
        assert hashlib.sha256(path.read_bytes()).hexdigest() == dataset.sha256
        assert dataset.url.startswith("https://")
        assert dataset.licence


def test_the_command_line(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    assert main(["data", "get", "tinyshakespeare", "--to", str(tmp_path / "raw")]) == 0
    assert (tmp_path / "raw" / "tinyshakespeare.txt").stat().st_size == 1_115_394
    assert "next: " in capfd.readouterr().out
    assert main(["data", "get"]) == 0
    assert "tinyshakespeare" in capfd.readouterr().out
    assert main(["data", "get", "tinyshakespear"]) == 2
    assert "not a registered data set" in capfd.readouterr().err
    with pytest.raises(ConfigError):
        get("nothing", tmp_path)
