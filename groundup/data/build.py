"""`groundup data build`: raw files in, clean documents out, and every document that was turned away with the reason."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from groundup.base.config import to_toml
from groundup.base.errors import DataError
from groundup.base.log import command
from groundup.base.remote import address
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.data.config import BuildConfig
from groundup.data.engine import processes_for
from groundup.data.formats import SourceFile
from groundup.data.pool import get_ready
from groundup.data.sources import file_bytes, find_files

__all__ = ["build", "main"]

WHOLE = 1 << 40  # characters: no text is cut
FREE = ("processes", "engine", "address")  # they say where the work is done, not what comes out


def main(config: BuildConfig) -> None:
    """Builds the documents of a project, unless that is done already."""
    build(config)


def build(config: BuildConfig) -> Run:
    """Returns the finished run: documents.parquet, heldout.parquet, dropped.parquet and stats.json are in its folder.

    A file that can't be read is named, counted and left out. Raises: DataError where nothing usable is left, or where every file
    that held documents is damaged (unless `read.keep_damaged`).
    """
    config = config.remembered()
    run, toml = open_run(config.project, "data", config.name), to_toml(config)
    if config.split == "tail":
        config = replace(config, read=replace(config.read, max_chars=WHOLE))
    files, unread = find_files(config.inputs, config.read)
    inputs = _inputs(config, files)
    if unchanged(run, toml, inputs, FREE):
        _remove_parts(run)
        return run
    processes = processes_for(config.processes, sum(map(file_bytes, files)))
    if processes > 1 and config.engine == "local":
        get_ready()
    from groundup.data.decontaminate import (
        read_questions,
    )  # these take a while to import, and the workers import the same meanwhile
    from groundup.data.passes import Work, build_documents

    work = Work(
        run, config, files, unread, read_questions(config.problems, whole=not config.decontaminate.paths), processes
    )
    try:
        with record(run, toml, inputs) as results:
            results.update(build_documents(work))
        _remove_parts(run)
    except DataError:
        if not run.done:  # an earlier result, if there was one, stands again
            _remove(run.path)
        raise
    words = open_run(config.project, "tokenizer")
    known = words.done and "imported" in words.results  # a model that came in brought its words
    run.log(f"next: {command(*(['shards'] if known else ['tokenizer', 'train']), config.project)}")
    return run


def _inputs(config: BuildConfig, files: list[SourceFile]) -> dict[str, Path]:
    """Returns what the run's identity depends on. A file that can't be read has no hash, so then the others stand for themselves."""
    problems = {f"problems {n}": path for n, path in enumerate(config.problems)}
    if config.web.blocklist is not None and config.web.blocklist.exists():
        problems["blocklist"] = config.web.blocklist
    for name, path in (("words", config.web.words), ("scores", config.scores.path)):
        if path is not None:
            problems[name] = path
    readable = [f for f in files if address(f.path) or os.access(f.path, os.R_OK)]
    if len(readable) < len(files):
        return problems | {f.label: f.path for f in readable}
    return problems | {f"raw {n}" if n else "raw": path for n, path in enumerate(config.inputs)}


def _remove_parts(run: Run) -> None:
    """Removes the parts of a finished build: only then, so that a kill in the midst of it costs nothing."""
    shutil.rmtree(run.path / "parts", ignore_errors=True)


def _remove(path: Path) -> None:
    """Removes a run that came to nothing, and the folders that it alone stood in."""
    shutil.rmtree(path, ignore_errors=True)
    for parent in (path.parent, path.parent.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()
