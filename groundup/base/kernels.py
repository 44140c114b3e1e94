"""Compiled kernels of all rooms: functions that Numba compiles when they are first called and keeps for later processes.

Numba by itself notices changes in a kernel's own file only, so whoever edits a kernel that others call would go on running the
others' old code. Here the folder in which a kernel is kept is named by its sources. Importing this module loads Numba, so
only files with kernels do it.
"""

import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["cache_folder", "kernel", "sources"]

SETTINGS: Any = numba.config
IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?import[ \t]+(\([^)]*\)|[^\n#]*)", re.MULTILINE)


def kernel(function: Callable, **options: Any) -> Any:
    """Returns the function compiled on its first call, or taken from the cache; it runs without Python's lock.

    Options: Numba's. Without a folder that can be written it is compiled anew by each process.
    """
    folder = cache_folder(function.__code__.co_filename, function.__module__.rpartition(".")[0])
    before, SETTINGS.CACHE_DIR = SETTINGS.CACHE_DIR, folder or ""
    try:
        return numba.njit(cache=folder is not None, nogil=True, **options)(function)
    finally:
        SETTINGS.CACHE_DIR = before


@functools.cache
def cache_folder(file: str, package: str) -> str | None:
    """Returns where a file's kernels are kept: $NUMBA_CACHE_DIR/HASH or ~/.cache/groundup/kernels/HASH; None if nothing can be written.

    The hash is that of the file, of those of its own folder that it imports, of those that they import, and of this one.
    """
    own = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        kept = {Path(__file__): Path(__file__).read_bytes(), **sources(Path(file), package)}
        version = hashlib.sha256(repr([(path.name, kept[path]) for path in sorted(kept)]).encode()).hexdigest()[:16]
        folder = Path(SETTINGS.CACHE_DIR or Path(own).expanduser() / "groundup" / "kernels") / version
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except (OSError, RuntimeError):  # no file, as of what is typed into an interpreter; RuntimeError: no home folder
        return None


def sources(file: Path, package: str) -> dict[Path, bytes]:
    """Returns a file's bytes and those of every file of its folder that it imports, whether itself or through another of them."""
    found: dict[Path, bytes] = {}
    ahead = [file]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found[path] = path.read_bytes()
            ahead += _imported(path, found[path].decode("utf-8"), package)
    return found


def _imported(path: Path, text: str, package: str) -> list[Path]:
    """Returns the files of the package, which are those beside the path, that the text imports."""
    paths = []
    for base, names in IMPORT.findall(text):
        if base.startswith("."):
            base = f"{package}.{base[1:]}".rstrip(".")
        for name in re.findall(r"[\w.]+", names):
            full = f"{base}.{name}" if base else name
            if not package or full.startswith(package + "."):
                paths.append(path.with_name(full.removeprefix(package and package + ".").partition(".")[0] + ".py"))
    return [other for other in dict.fromkeys(paths) if other.is_file()]
