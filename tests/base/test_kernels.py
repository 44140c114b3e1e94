"""Compiled kernels are kept where they can be written, never taken for those of other sources, and run without a cache too."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import groundup
from groundup.base import kernels

ROOT = Path(groundup.__file__).parent
LOW = "from groundup.base.kernels import kernel\n\n@kernel\ndef scaled(x):\n    return 2 * x\n"
HIGH = "from groundup.base.kernels import kernel\nfrom low import (\n    scaled,\n)\n\n@kernel\ndef total(x):\n    return scaled(x) + 1\n"
USED = sorted(path for path in ROOT.rglob("*.py") if "@kernel\n" in path.read_text(encoding="utf-8"))


def package_of(path: Path) -> str:
    return ".".join(path.parent.relative_to(ROOT.parent).parts)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Two files of kernels, one of which calls the other's, and one that neither knows of."""
    (tmp_path / "code").mkdir()
    for name, text in (("low", LOW), ("high", HIGH), ("other", "x = 1\n")):
        (tmp_path / "code" / f"{name}.py").write_text(text)
    return tmp_path


def total(house: Path, code: str = "") -> tuple[int, int]:
    """Returns total(20) of a new process, and how often that was taken from the cache."""
    env = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    env |= {"XDG_CACHE_HOME": str(house / "cache"), "PYTHONPATH": f"{house / 'code'}{os.pathsep}{ROOT.parent}"}
    code += "import high\nprint(high.total(20), sum(high.total.stats.cache_hits.values()))"
    done = subprocess.run([sys.executable, "-Bc", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result, hits = done.stdout.split()
    return int(result), int(hits)


def test_an_edit_of_the_called_file_is_seen_and_nothing_lies_beside_the_sources(house: Path) -> None:
    assert total(house) == (41, 0)
    (house / "code" / "other.py").write_text("x = 2\n")
    assert total(house) == (41, 1)
    (house / "code" / "low.py").write_text(LOW.replace("2 * x", "3 * x"))
    assert total(house) == (61, 0)
    assert sorted(path.name for path in (house / "code").iterdir()) == ["high.py", "low.py", "other.py"]
    assert len(list((house / "cache" / "groundup" / "kernels").iterdir())) == 4  # two files, two states of them


def test_a_worker_takes_what_its_parent_has_compiled(house: Path) -> None:
    (house / "code" / "work.py").write_text(
        "import high\n\ndef hits(x):\n    high.total(x)\n    return sum(high.total.stats.cache_hits.values())\n"
    )
    code = (
        "import multiprocessing, high, work\nhigh.total(20)\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n    assert pool.map(work.hits, [20]) == [1]\n"
    )
    assert total(house, code) == (41, 0)


def test_where_kernels_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = kernels.cache_folder.__wrapped__
    monkeypatch.setattr(kernels.SETTINGS, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Path(place(__file__, "")).parent == tmp_path / "groundup" / "kernels"
    monkeypatch.setattr(kernels.SETTINGS, "CACHE_DIR", str(tmp_path))
    assert Path(place(__file__, "")).parent == tmp_path
    kernels.kernel(lambda x: x)
    left = kernels.SETTINGS.CACHE_DIR
    assert left == str(tmp_path)


def test_without_a_place_to_write_kernels_run_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.SETTINGS, "CACHE_DIR", "/dev/null/nowhere")
    assert kernels.cache_folder.__wrapped__(__file__, "") is None
    monkeypatch.setattr(kernels, "cache_folder", lambda file, package: None)

    @kernels.kernel
    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * x

    assert twice(21) == 42
    assert not twice.stats.cache_path


def test_what_has_no_file_is_compiled_without_a_cache() -> None:
    assert kernels.cache_folder("<stdin>", "") is None


@pytest.mark.parametrize(
    "line",
    ["from a.b.two import x", "from a.b import one, two", "from a.b import (\n    one,\n    two as x,\n)", "import a.b.two as x",
     "from . import two", "from .two import x", "def f():\n    from a.b.two import x"],
)  # fmt: skip
def test_every_form_of_an_import_is_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(f"{line}\n")
    (tmp_path / "two.py").write_text("from elsewhere import three\nimport b.three\n")
    (tmp_path / "three.py").write_text("")
    assert sorted(path.stem for path in kernels.sources(tmp_path / "one.py", "a.b")) == ["one", "two"]


@pytest.mark.parametrize("path", USED, ids=lambda path: path.stem)
def test_all_that_our_kernels_import_is_in_their_hash(path: Path) -> None:
    package, found = package_of(path), kernels.sources(path, package_of(path))
    for source in found:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
                names = [
                    f"{node.module}.{alias.name}".removeprefix(f"{package}.").split(".")[0] for alias in node.names
                ]
                assert {path.with_name(f"{name}.py") for name in names} <= set(found)
    assert len(found) < 12  # an edit elsewhere in the room compiles nothing anew


@pytest.mark.parametrize("path", USED, ids=lambda path: path.stem)
def test_kernels_call_none_of_another_room(path: Path) -> None:
    rooms = {
        str(ROOT.joinpath(*name.split(".")[1:])) + ".py"
        for name in re.findall(r"from (groundup[.\w]+) import", path.read_text())
    }
    assert not [
        other for other in USED if other.parent != path.parent and str(other) in rooms
    ]  # the hash doesn't see it


def test_no_kernel_is_kept_by_numba_alone() -> None:
    assert len(USED) > 10
    for path in ROOT.rglob("*.py"):
        if path != Path(kernels.__file__):
            assert "cache=True" not in path.read_text(encoding="utf-8"), path
