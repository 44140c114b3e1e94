"""Kill the build when you like: the same command goes on, no finished part is made again, and the bytes are those of an undisturbed run."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.errors import StorageError
from groundup.base.runs import Run
from groundup.data import rows as rows_module
from groundup.data.build import build
from groundup.data.config import BuildConfig

OUTPUTS = (
    "documents.parquet",
    "heldout.parquet",
    "dropped.parquet",
    "features.parquet",
    "stats.json",
    "contamination.jsonl",
)
WORDS = "the of and with a house river people said day went have that winter engine letter".split()  # noqa: SIM905 a list of words reads best as words


def text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(WORDS, k=words)) + f", said number {dice.randrange(10**6)}."


def project(folder: Path, warc: Callable[..., bytes], rows: int, pages: int) -> Path:
    """Raw files of two kinds, with duplicates across them."""
    dice, raw, bodies = random.Random(6), folder / "raw", list[bytes]()
    raw.mkdir(parents=True)
    texts = [text(dice, dice.randrange(40, 160)) for _ in range(rows)]
    texts += texts[: rows // 20]
    (raw / "a.jsonl").write_text("".join(json.dumps({"id": k, "text": t}) + "\n" for k, t in enumerate(texts)))
    page = "<html><title>{0}</title><body><nav>Home News</nav><main><h1>{0}</h1>{1}</main></body></html>"
    for k in range(pages):
        paragraphs = [text(dice, 60) for _ in range(8)] + [texts[k]]
        bodies.append(page.format(k, "".join(f"<p>{p}</p>" for p in paragraphs)).encode())
    (raw / "b.warc.gz").write_bytes(warc(*((f"https://a.example/{k}", "text/html", b) for k, b in enumerate(bodies))))
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "01-data" / "main" / name).read_bytes() for name in OUTPUTS}


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "groundup", "data", "build", str(folder), "--processes", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def parts(folder: Path) -> dict[str, int]:
    """The finished parts, and when each was written."""
    found = (folder / "01-data" / "main" / "parts").glob("*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in found if path.name.startswith(("extracted", "judged"))}


def killed_and_whole(tmp_path: Path, warc: Callable[..., bytes], rows: int, pages: int, times: int) -> list[float]:
    """Builds with `times` kills at random moments, and without any; returns the moments. Half of the kills are of the parent alone."""
    whole, killed, dice = project(tmp_path / "whole", warc, rows, pages), tmp_path / "killed", random.Random(times)
    begun = time.monotonic()
    assert start(whole).wait() == 0
    took, moments, before = time.monotonic() - begun, [], {}
    shutil.copytree(whole / "raw", killed / "raw")
    while len(moments) < times:
        process, moment = start(killed), dice.uniform(0, took)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < moment:
            time.sleep(0.01)
        if process.poll() is not None:  # it was quicker than the kill
            assert process.returncode == 0
            assert outputs(killed) == outputs(whole)
            shutil.rmtree(killed / "01-data")
            before = {}
            continue
        (os.kill if len(moments) % 2 else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        moments.append(moment)
        if Run(killed / "01-data" / "main").done:  # killed at its very end: only the parts were left to remove
            before = {}
            continue
        now = parts(killed)
        assert {name: now[name] for name in before} == before, "a finished part was made again"
        before = now
    assert start(killed).wait() == 0
    assert outputs(killed) == outputs(whole)
    assert not (killed / "01-data" / "main" / "parts").exists()
    return moments


@pytest.mark.slow
def test_two_kills(tmp_path: Path, warc: Callable[..., bytes]) -> None:
    killed_and_whole(tmp_path, warc, 3000, 300, 2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_kills(tmp_path: Path, warc: Callable[..., bytes]) -> None:
    moments = killed_and_whole(tmp_path, warc, 8000, 1200, 20)
    print(f"killed after {', '.join(f'{moment:.1f}' for moment in moments)} s")


def full_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes the disk full when a part of that name is to be written."""
    real = rows_module.atomic_file

    def full(path: Path):  # type: ignore[no-untyped-def]
        if name in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path)

    monkeypatch.setattr(rows_module, "atomic_file", full)


def stopped_by_a_full_disk(
    tmp_path: Path, warc: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, BuildConfig]:
    """Returns a project not yet built, and the config of its copy, which a full disk stopped at the second judged part."""
    whole, config = project(tmp_path / "whole", warc, 900, 40), BuildConfig(project=tmp_path / "full", processes=1)
    shutil.copytree(whole / "raw", config.project / "raw")
    with monkeypatch.context() as patch:
        full_after(patch, "judged-000000-000001")
        with pytest.raises(StorageError, match=r"disk is full; free some space and run the same command again"):
            build(config)
    return whole, config


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    tmp_path: Path, warc: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, config = stopped_by_a_full_disk(tmp_path, warc, monkeypatch)
    before = parts(config.project)
    assert len([name for name in before if name.startswith("judged")]) == 1
    build(replace(config, processes=2))
    assert "goes on with processes 1 -> 2" in capsys.readouterr().out
    build(BuildConfig(project=whole, processes=1))
    assert outputs(config.project) == outputs(whole)


def test_a_part_that_was_damaged_on_disk_is_named_and_made_again(
    tmp_path: Path, warc: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, config = stopped_by_a_full_disk(tmp_path, warc, monkeypatch)
    for name in ("extracted-000000-000002.parquet", "judged-000000-000000.parquet"):
        path = config.project / "01-data" / "main" / "parts" / name
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    build(config)
    assert capfd.readouterr().out.count("damaged since it was written") == 2
    build(BuildConfig(project=whole, processes=1))
    assert outputs(config.project) == outputs(whole)
