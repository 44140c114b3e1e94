"""Where raw files are found: folders, source trees with what their .gitignore leaves, git repositories, and addresses elsewhere."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from groundup.base.errors import DataError
from groundup.base.remote import address, files_at
from groundup.data import repository
from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, SourceFile, whole
from groundup.data.kinds import CODE, foreign_file, suffix_of
from groundup.data.licence import licence_of_folder, names_licence

__all__ = ["file_bytes", "find_files"]


def find_files(inputs: Iterable[Path], config: ReadConfig) -> tuple[list[SourceFile], list[Problem]]:
    """Returns the files below the inputs in a fixed order, and what was left aside. Raises: DataError for a missing path."""
    found: list[SourceFile] = []
    aside: list[Problem] = []
    for root in inputs:
        project = ""
        if address(root):
            items: Iterable[SourceFile | Problem] = _elsewhere(root, config)
        elif not root.exists():
            raise DataError(f"{root}: no such file or folder; put raw files there or name others with --input")
        elif not root.is_dir() or repository.is_bare(root):
            items = [SourceFile(root, whole(root.name), asked=True)]
        else:
            items, project = _tree(root, config), _project(root)
        for item in items:
            if isinstance(item, Problem):
                aside.append(item)
            else:
                found.append(replace(item, source=project or _source(item.label)))
    labels, sets = Counter(f.label for f in found), Counter(map(_set, found))
    return [
        replace(
            file,
            label=file.label if labels[file.label] == 1 else file.path.as_posix(),
            source=file.path.absolute().parent.name
            if file.source == file.label and sets[_set(file)] > 1
            else file.source,
        )
        for file in found
    ], aside


def _project(root: Path) -> str:
    """Returns the name of a folder that is one source tree as a whole, "" for a folder of sources."""
    alone = any(name == ".git" or names_licence(name) for name in os.listdir(root))
    return whole(root.absolute().name) if alone else ""


def _source(label: str) -> str:
    """Returns what a file is counted under: the first folder below the input, or its own name; lone source files together."""
    first, below, _ = label.partition("/")
    return "code" if not below and suffix_of(first) in CODE else first


def _set(file: SourceFile) -> tuple[Path, str]:
    """Returns what the numbered parts of one set have in common (a crawl's files, a data set's shards): they are one source."""
    return file.path.parent, re.sub(r"\d+", "0", file.path.name)


def file_bytes(file: SourceFile) -> int:
    """Returns a file's size, 0 where it can't be told."""
    try:
        return sum(f.size for f in files_at(file.path)) if address(file.path) else file.path.stat().st_size
    except (OSError, DataError):
        return 0


def _elsewhere(root: Path, config: ReadConfig) -> Iterator[SourceFile | Problem]:
    """Yields the files at an address."""
    files = files_at(root)
    base = address(root).partition("*")[0].rpartition("/")[0] if "*" in str(root) else address(root)
    for file in files:
        url, alone = file.url, len(files) == 1
        label = whole(url.rpartition("/")[2] if alone else re.sub(r"^[a-z0-9+]+:/+", "", url))
        inside = re.sub(r"^[a-z0-9+]+:/+", "", base).rstrip("/") + "/"
        label = label.removeprefix(inside)
        why = "" if alone else foreign_file(label, config)
        yield Problem(label, why[0], why[1], False) if why else SourceFile(Path(url), label, asked=alone)


def _tree(root: Path, config: ReadConfig) -> Iterator[SourceFile | Problem]:
    """Yields the files of a folder. Where it holds a git work tree, what git ignores is passed over; links to folders aren't followed."""
    licences: dict[Path, str] = {}
    kept: dict[Path, frozenset[str]] = {}  # a work tree's root -> what git doesn't ignore
    for folder, names, files in os.walk(root):
        where = Path(folder)
        licences[where] = licence_of_folder(where, files) or licences.get(where.parent, "")
        if ".git" in (*names, *files) and (listed := repository.worktree_files(where)) is not None:
            kept[where] = listed
        tree = next((place for place in (where, *where.parents) if place in kept), None)
        inner = where.relative_to(tree).as_posix() + "/" if tree and tree != where else ""
        descend = []
        for name in sorted(names):
            label = whole((where / name).relative_to(root).as_posix())
            if why := foreign_file(label + "/", config):
                yield Problem(label, why[0], why[1], False)
            elif repository.is_bare(where / name):
                yield SourceFile(where / name, label)
            elif tree and not any(path.startswith(f"{inner}{name}/") for path in kept[tree]):
                yield Problem(label, "ignored", "is left out by .gitignore", False)
            else:
                descend.append(name)
        names[:] = descend
        for name in sorted(files):
            label = whole((where / name).relative_to(root).as_posix())
            if name.startswith("."):
                continue
            if tree and inner + name not in kept[tree]:
                yield Problem(label, "ignored", "is left out by .gitignore", False)
            elif why := foreign_file(label, config):
                yield Problem(label, why[0], why[1], False)
            else:
                yield SourceFile(where / name, label, licence=licences[where])
