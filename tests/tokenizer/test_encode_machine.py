"""Compiled kernels are kept where they can be written, never taken for those of other sources, and run without a cache too."""

import subprocess
import sys
from pathlib import Path

import pytest

from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.kernels import machine


def test_the_folder_names_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.SETTINGS, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = Path(machine.cache_folder.__wrapped__() or "")
    assert folder.parent == tmp_path / "groundup" / "kernels"
    (tmp_path / "kernels").mkdir()
    for path in Path(machine.__file__).parent.glob("*.py"):
        (tmp_path / "kernels" / path.name).write_bytes(path.read_bytes() + b"# changed\n")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "kernels" / "machine.py"))
    assert machine.cache_folder.__wrapped__() != str(folder)


def test_without_a_place_to_write_kernels_run_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.SETTINGS, "CACHE_DIR", "/dev/null/nowhere")
    assert machine.cache_folder.__wrapped__() is None
    monkeypatch.setattr(machine, "cache_folder", lambda: None)

    @machine.kernel
    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * x

    assert twice(21) == 42
    assert not twice.stats.cache_path


def test_short_texts_compile_nothing() -> None:
    code = (
        "import sys\nfrom groundup.tokenizer.encode import Tokenizer\n"
        "t = Tokenizer([(97, 98)])\nassert t.decode(t.encode('ab ' * 1000)) == 'ab ' * 1000\n"
        "assert not {'numba', 'numpy', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_many_short_texts_do_compile_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.tokenizer.encode.WORTH_COMPILING", 5000)
    tokenizer = Tokenizer([(97, 98)])
    for _ in range(20):
        assert len(tokenizer.encode("ab " * 150)) == 300
    assert "_engine" in tokenizer.__dict__
    assert tokenizer.encode("ab") == [256]
