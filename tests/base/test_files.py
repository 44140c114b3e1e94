"""Files are whole or absent, whatever happens while they are written."""

import errno
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from groundup.base.errors import DataError, GroundupError, StorageError
from groundup.base.files import (
    atomic_file,
    atomic_folder,
    fingerprint,
    os_error,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_jsonl_round_trip_and_determinism(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": "Größe 漢字\n", "n": 1}, {"text": "", "n": None}]
    one, two = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    assert write_jsonl(one, rows) == 2
    write_jsonl(two, rows)
    assert list(read_jsonl(one)) == rows
    assert one.read_bytes() == two.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"bad": float("nan")})

    def interrupted() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(target) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_atomic_folder_replaces_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "shards"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
    before = fingerprint(target)
    with atomic_folder(target) as folder:
        (folder / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert fingerprint(target) != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("b.jsonl", b"[1]\n", "line 1: a JSON object was expected"),
        ("c.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-9], "truncated or corrupt"),
        ("d.jsonl.zst", b"not zstandard", "truncated or corrupt"),
        ("f.jsonl.zst", zstandard.compress(b'{"a": 1}\n' * 1000)[:-9], "truncated or corrupt"),
        ("e.jsonl", b'{"a": "\xff"}\n', "not UTF-8"),
    ],
)
def test_damaged_jsonl_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_jsonl(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_operating_system_errors_have_a_remedy() -> None:
    full = os_error(OSError(errno.ENOSPC, "No space left on device", "model.safetensors"))
    assert isinstance(full, StorageError)
    assert "disk is full" in str(full)
    for code in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO):
        assert isinstance(os_error(OSError(code, os.strerror(code), "x")), GroundupError)


def test_kill_during_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"n": 0})
    code = (
        "from groundup.base.files import write_json\nn = 0\nwhile True:\n    n += 1\n"
        f"    write_json({str(target)!r}, {{'n': n, 'fill': 'x' * 100000}})\n"
    )
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code])
        before, limit = target.stat().st_mtime_ns, time.time() + 20
        while target.stat().st_mtime_ns == before and time.time() < limit:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert read_json(target)["n"] >= 0
    write_json(target, {"n": -1})
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"], "what the killed processes left is swept up"


def test_a_full_disk_is_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse the write part-way (EFBIG), as a full disk does."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from groundup.base.files import write_json
try:
    write_json({str(tmp_path / "big.json")!r}, "x" * 100000)
except OSError as error:
    print("refused", error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"refused {errno.EFBIG}")
    assert list(tmp_path.iterdir()) == []
