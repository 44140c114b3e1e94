"""Where raw files are found: folders, source trees with what their .gitignore leaves, git repositories, and addresses elsewhere."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from groundup.base.errors import DataError
from groundup.base.remote import address, files_at
from groundup.data import repository
from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, SourceFile, whole
from groundup.data.kinds import foreign_file
from groundup.data.licence import licence_of_folder

__all__ = ["find_files"]


def find_files(inputs: Iterable[Path], config: ReadConfig) -> tuple[list[SourceFile], list[Problem]]:
    """Returns the files below the inputs in a fixed order, and what was left aside. Raises: DataError for a missing path."""
    found: list[SourceFile] = []
    aside: list[Problem] = []
    for root in inputs:
        if address(root):
            items: Iterable[SourceFile | Problem] = _elsewhere(root, config)
        elif not root.exists():
            raise DataError(f"{root}: no such file or folder; put raw files there or name others with --input")
        elif not root.is_dir() or repository.is_bare(root):
            items = [SourceFile(root, whole(root.name), asked=True)]
        else:
            items = _tree(root, config)
        for item in items:
            (aside.append if isinstance(item, Problem) else found.append)(item)  # type: ignore[arg-type]
    labels = Counter(f.label for f in found)
    return [f if labels[f.label] == 1 else f.renamed(f.path.as_posix()) for f in found], aside


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
