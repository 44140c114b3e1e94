"""Bad input ends in one clear line, exit code 2 and nothing half-written; beside good input it is named and left out."""

import bz2
import ctypes
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.records import read_documents
from groundup.cli import main
from groundup.data import decode as decoding
from groundup.data.config import BuildConfig
from groundup.data.measure import measure

WORDS = [
    "the",
    "cat",
    "and",
    "the",
    "dog",
    "have",
    "gone",
    "to",
    "the",
    "house",
    "of",
    "a",
    "friend",
    "with",
    "some",
    "bread",
    "that",
    "they",
    "like",
    "to",
    "be",
    "near",
]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compiles the kernels beforehand: a build that waits ten seconds for them, as on a loaded machine, reports its progress."""
    measure(["a"], BuildConfig().effective())


def prose(seed: int, count: int = 120) -> str:
    """A document that every rule keeps."""
    dice = random.Random(seed)
    return " ".join(dice.choice([*WORDS, *(f"name{k}" for k in range(60))]) for _ in range(count)) + "."


def wiki(pages: int = 6) -> bytes:
    body = "".join(
        f"<page><title>T{n}</title><ns>0</ns><id>{n}</id><revision><text>{prose(n)}</text></revision></page>"
        for n in range(pages)
    )
    return f"<mediawiki>{body}</mediawiki>".encode()


def files(warc: Callable[..., bytes]) -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, what the message says)."""
    pages = warc(
        *((f"https://a.example/{n}", "text/html", f"<main><p>{prose(n)}</p></main>".encode()) for n in range(4))
    )
    return {
        "empty.txt": (b"", "is empty"),
        "one.txt": (b"a", "gopher_min_words (1, threshold 10)"),
        "binary.txt": (bytes(range(256)) * 30, "control characters"),
        "unknown.bin": (bytes(range(256)) * 30, "control characters"),
        "invalid.txt": (b"\x81\x8d\x8f\x90\x9d" * 80, "neither UTF-8"),
        "invalid.jsonl": (b'{"text": "caf\xe9"}\n', "line 1 isn't UTF-8"),
        "broken.jsonl": (b'{"text": \n', "line 1 isn't JSON"),
        "chats.jsonl": (b'{"messages": []}\n', "its keys: messages"),
        "cut.warc.gz": (pages[:-40], "truncated or corrupt"),
        "cut.txt.gz": (gzip.compress(prose(1).encode())[:-9], "truncated or corrupt"),
        "cut.xml.bz2": (bz2.compress(wiki())[:-30], "truncated or corrupt"),
        "cut.xml": (wiki()[:-60], "isn't whole XML"),
        "fake.parquet": (b"not a table", "isn't a Parquet file"),
        "cut.parquet": (b"PAR1" + bytes(50), "isn't a whole Parquet file"),
        "fake.warc.gz": (gzip.compress(b"no records"), "isn't a WARC file"),
    }


NAMES = list(files(lambda *_: b""))


@pytest.mark.parametrize("name", NAMES)
def test_alone_it_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, warc: Callable[..., bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    data, message = files(warc)[name]
    (tmp_path / name).write_bytes(data)
    assert main(["data", "build", str(tmp_path / "p"), "--input", str(tmp_path / name)]) == 2
    out, error = capfd.readouterr()
    assert message in error
    assert name in error
    assert error.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "p").exists()


def test_missing_and_empty_places(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    for place, message in (
        ("missing", "no such file or folder"),
        ("empty", "no text in it"),
        ("pictures", "no text in it"),
    ):
        assert main(["data", "build", str(tmp_path / "p"), "--input", str(tmp_path / place)]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["data", "build", str(tmp_path / "p")]) == 2
    assert "p/raw: no such file or folder" in capfd.readouterr().err
    assert not (tmp_path / "p").exists()


def test_among_good_files_all_of_them_are_named_and_the_rest_goes_on(
    tmp_path: Path, warc: Callable[..., bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "p" / "raw"
    raw.mkdir(parents=True)
    bad = files(warc)
    for name, (data, _) in bad.items():
        (raw / name).write_bytes(data)
    (raw / "good.jsonl").write_text("".join(json.dumps({"text": prose(n + 100)}) + "\n" for n in range(30)))
    (raw / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(raw / "pipe.txt")
    assert main(["data", "build", str(tmp_path / "p")]) == 0
    out = capfd.readouterr().out
    for name in bad:
        if name not in ("one.txt", "unknown.bin"):  # one document too short; one file of no kind that is read
            assert f"left out: {name}" in out
    assert "left out: gone.txt can't be opened" in out
    assert "left out: pipe.txt is a pipe" in out  # and nobody waits for what it may say
    folder = tmp_path / "p" / "01-data" / "main"
    stats = json.loads((folder / "stats.json").read_text())
    assert {p["file"] for p in stats["problems"]} >= {"empty.txt", "cut.warc.gz", "gone.txt"}
    assert any(row["stage"] == "read" and row["rule"] == "unknown_type" for row in stats["funnel"])
    sources = {d.source for n in ("documents", "heldout") for d in read_documents(folder / f"{n}.parquet")}
    assert {"good.jsonl", "cut.warc.gz", "cut.xml"} <= sources  # what is whole in a damaged file is used


def test_what_is_whole_in_a_damaged_file_is_used_on_request(tmp_path: Path, warc: Callable[..., bytes]) -> None:
    (tmp_path / "cut.warc.gz").write_bytes(files(warc)["cut.warc.gz"][0])
    assert (
        main(["data", "build", str(tmp_path / "p"), "--input", str(tmp_path / "cut.warc.gz"), "--read.keep-damaged"])
        == 0
    )
    folder = tmp_path / "p" / "01-data" / "main"
    assert sum(1 for n in ("documents", "heldout") for _ in read_documents(folder / f"{n}.parquet")) == 3


def test_a_bomb_is_stopped_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "FREE_BYTES", 1 << 18)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"more and more of it \n" * 500_000))
    assert main(["data", "build", str(tmp_path / "p"), "--input", str(tmp_path / "bomb.txt.gz")]) == 2
    assert "decompression bomb" in capfd.readouterr().err
    assert not (tmp_path / "p").exists()


def test_an_earlier_result_stands_again_after_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "p" / "raw"
    raw.mkdir(parents=True)
    (raw / "good.jsonl").write_text("".join(json.dumps({"text": prose(n)}) + "\n" for n in range(30)))
    assert main(["data", "build", str(tmp_path / "p")]) == 0
    before = (tmp_path / "p/01-data/main/documents.parquet").read_bytes()
    (raw / "good.jsonl").write_text(json.dumps({"text": "short"}) + "\n")
    assert main(["data", "build", str(tmp_path / "p")]) == 2
    assert (tmp_path / "p/01-data/main/documents.parquet").read_bytes() == before
    assert "of 1 documents none is left" in capfd.readouterr().err


def test_a_file_without_read_permission_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "p" / "raw"
    raw.mkdir(parents=True)
    (raw / "secret.txt").write_text(prose(1))
    (raw / "good.jsonl").write_text("".join(json.dumps({"text": prose(n)}) + "\n" for n in range(30)))
    (raw / "secret.txt").chmod(0)
    done = build_bound(tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert "left out: secret.txt can't be opened (Permission denied)" in done.stdout
    (raw / "good.jsonl").unlink()
    done = build_bound(tmp_path / "p", "--name", "again")
    assert done.returncode == 2
    assert "secret.txt can't be opened (Permission denied)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "p" / "raw").mkdir(parents=True)
    (tmp_path / "p" / "raw" / "a.txt").write_text(prose(1))
    (tmp_path / "p").chmod(0o555)
    done = build_bound(tmp_path / "p")
    (tmp_path / "p").chmod(0o755)
    assert done.returncode == 2
    assert "no permission" in done.stderr
    assert done.stderr.count("\n") == 1


def build_bound(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs `data build` bound by permissions as any user is: root first gives up its right to pass over them."""

    def give_up() -> None:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, effective at the next exec

    command = [sys.executable, "-m", "groundup", "data", "build", str(project), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=give_up if os.geteuid() == 0 else None
    )
