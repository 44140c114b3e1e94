"""`groundup data build`: raw files in, clean documents out, and every document that was turned away with the reason.

Two passes over parts of the corpus, each part a file that survives a kill: markup and cleaning, then, once the furniture of each site is
known, the rules. Duplicates and the held-out split are decided at the end over all documents; then the parts stream into the results.
"""

import contextlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.base.config import to_toml
from groundup.base.errors import DataError
from groundup.base.files import write_json
from groundup.base.log import command, progress, quantity
from groundup.base.records import Document, write_documents
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.data.config import BuildConfig
from groundup.data.decide import Fate, decide
from groundup.data.decontaminate import Question, read_questions
from groundup.data.engine import Map, batches, processes_for, workers
from groundup.data.read import Problem, Record, SourceFile, find_files, read_file
from groundup.data.stages import HEADING_MARK, Row, begin, extract_part, judge_part, read_part, site_of

__all__ = ["build", "main"]

PART_BYTES, PART_RECORDS = 4 << 20, 400  # of a part: large enough to be worth a file, small enough to lose in a kill
SHOWN = 20  # lines about files that were left out
WHOLE = 1 << 40  # characters: no text is cut
STAGE_ORDER = ("read", "extract", "url", "clean", "language", "quality", "decontaminate", "duplicates", "mix")


def main(config: BuildConfig) -> None:
    """Builds the documents of a project, unless that is done already."""
    build(config)


def build(config: BuildConfig) -> Run:
    """Returns the finished run: documents.parquet, heldout.parquet, dropped.parquet and stats.json are in its folder.

    A file that can't be read is named, counted and left out. Raises: DataError where nothing usable is left, or where every file
    that held documents is damaged (unless `read.keep_damaged`).
    """
    run, toml = open_run(config.project, "data", config.name), to_toml(config)
    if config.split == "tail":
        config = replace(config, read=replace(config.read, max_chars=WHOLE))
    files, aside = find_files(config.inputs, config.read)
    inputs = _inputs(config, files)
    if unchanged(run, toml, inputs):
        return run
    questions = read_questions(config.problems, whole=not config.decontaminate.paths)
    try:
        with record(run, toml, inputs) as results:
            results.update(_build(run, config, files, aside, questions))
    except DataError:
        if not run.done:  # an earlier result, if there was one, stands again
            _remove(run.path)
        raise
    run.log(f"next: {command('tokenizer', 'train', config.project)}")
    return run


def _inputs(config: BuildConfig, files: list[SourceFile]) -> dict[str, Path]:
    """Returns what the run's identity depends on. A file that can't be read has no hash, so then the others stand for themselves."""
    problems = {f"problems {n}": path for n, path in enumerate(config.problems)}
    if config.web.blocklist is not None and config.web.blocklist.exists():
        problems["blocklist"] = config.web.blocklist
    readable = [f for f in files if os.access(f.path, os.R_OK)]
    if len(readable) < len(files):
        return problems | {f.label: f.path for f in readable}
    return problems | {f"raw {n}" if n else "raw": path for n, path in enumerate(config.inputs)}


def _remove(path: Path) -> None:
    """Removes a run that came to nothing, and the folders that it alone stood in."""
    shutil.rmtree(path, ignore_errors=True)
    for parent in (path.parent, path.parent.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()


def _build(
    run: Run, config: BuildConfig, files: list[SourceFile], aside: list[Problem], questions: list[Question]
) -> dict[str, Any]:
    """Returns the run's results after all passes. Raises: DataError where nothing is left."""
    parts = run.path / "parts"
    parts.mkdir(exist_ok=True)
    problems = list(aside)
    processes = processes_for(config.processes, sum(f.path.stat().st_size for f in files if f.path.exists()))
    with workers(processes, begin, (config, questions)) as run_map:
        extracted = _extract(run_map, files, config, parts, problems)
        _require_input(config, files, problems, extracted)
        damage = [p for p in problems if p.damage]
        for problem in damage[:SHOWN]:
            run.log(f"left out: {problem.file} {problem.message}")
        if len(damage) > SHOWN:
            run.log(f"left out: {len(damage) - SHOWN} more; `{command('data', 'stats', config.project)}` names them")
        _find_furniture(extracted, parts / "furniture.json", config)
        judged = _judge(run_map, extracted, parts)
    rows = [
        row
        for path in judged
        for row in read_part(path, ["id", "drop", "share", "exact", "signature", "raw_bytes", "source"])
    ]
    fates = decide(rows, config)
    if not any(fate.copies for fate in fates):
        _explain_nothing(config, rows, fates)
    results = _write(run, config, judged, fates, problems)
    shutil.rmtree(parts)
    run.log(f"{results['kept']:,} of {results['raw_documents']:,} documents kept ({quantity(results['kept_bytes'])}B), "
            f"{results['heldout']:,} held out")  # fmt: skip
    return results


def _records(files: list[SourceFile], config: BuildConfig, problems: list[Problem]) -> Iterator[Record]:
    """Yields the records of all files; problems go to the list."""
    for file in files:
        for item in read_file(file, config.read):
            if isinstance(item, Problem):
                problems.append(item)
            else:
                yield item


def _extract(
    run_map: Map, files: list[SourceFile], config: BuildConfig, parts: Path, problems: list[Problem]
) -> list[Path]:
    """Returns the extracted parts in order; those that a killed run has left are taken as they are."""
    done: list[Path] = []
    size = lambda r: len(r.payload)  # noqa: E731
    todo: list[bool] = []

    def tasks() -> Iterator[tuple[Path, list[Record]]]:
        for number, batch in enumerate(batches(_records(files, config, problems), size, PART_BYTES, PART_RECORDS)):
            path = parts / f"extracted-{number:06d}.parquet"
            done.append(path)
            todo.append(not path.exists())
            if todo[-1]:
                yield path, batch
            else:
                bar.advance(len(batch))

    with progress("reading", None, "parts") as bar:
        for _ in run_map(extract_part, tasks()):
            bar.advance(1)
    return done


def _require_input(
    config: BuildConfig, files: list[SourceFile], problems: list[Problem], extracted: list[Path]
) -> None:
    """Raises: DataError where there is nothing to work on, or only what was whole in damaged files."""
    damage = [p for p in problems if p.damage]
    more = f" (and {len(damage) - 1} more such problems)" if len(damage) > 1 else ""
    if not extracted:
        where = ", ".join(map(str, config.inputs))
        if not damage:
            raise DataError(
                f"{where}: no text in it; put txt, md, HTML, JSONL, Parquet, WARC or MediaWiki files there, or name others with --input"
            )
        paths = {f.label: f.path for f in files}
        raise DataError(
            f"{paths.get(damage[0].file, damage[0].file)} {damage[0].message}{more}; nothing else to read in {where}"
        )
    damaged = {p.file for p in damage if p.rule == "damaged"}
    if config.read.keep_damaged or not damaged:
        return
    sound = any(row.id.rpartition(":")[0] not in damaged for path in extracted for row in read_part(path, ["id"]))
    if not sound:
        worst = next(p for p in damage if p.rule == "damaged")
        path = next(f.path for f in files if f.label == worst.file)
        raise DataError(
            f"{path}: {worst.message.partition(';')[0]}; fetch it again, or use what is whole in it with --read.keep-damaged"
        )


def _find_furniture(extracted: list[Path], target: Path, config: BuildConfig) -> None:
    """Writes, for each site, the lines that many of its pages share: at their edges, and anywhere."""
    pages: Counter[str] = Counter()
    lines: dict[str, Counter[str]] = defaultdict(Counter)
    for path in extracted:
        for row in read_part(path, ["source", "kind", "meta", "lines", "drop"]):
            if row.kind == "html" and row.drop is None:
                pages[site_of(row)] += 1
                lines[site_of(row)].update(row.lines)
    least, furniture = config.clean.boilerplate_pages, {}
    for site, counts in lines.items():
        edge = max(least, config.clean.boilerplate_share * pages[site])
        anywhere = max(least, config.clean.boilerplate_anywhere * pages[site])
        furniture[site] = ([k.lstrip(HEADING_MARK) for k, n in counts.items() if n >= edge],
                           [k for k, n in counts.items() if n >= anywhere and not k.startswith(HEADING_MARK)])  # fmt: skip
    write_json(target, furniture)


def _judge(run_map: Map, extracted: list[Path], parts: Path) -> list[Path]:
    """Returns the judged parts in order."""
    tasks = [
        (path, path.with_name(path.name.replace("extracted", "judged")), parts / "furniture.json") for path in extracted
    ]
    with progress("judging", len(tasks), "parts") as bar:
        for _ in run_map(judge_part, (task for task in tasks if not task[1].exists())):
            bar.advance(1)
    return [target for _, target, _ in tasks]


def _explain_nothing(config: BuildConfig, rows: list[Row], fates: list[Fate]) -> None:
    """Raises: DataError that says why none of the documents is left."""
    reasons = Counter((f.drop.stage, f.drop.rule) for f in fates if f.drop)
    (stage, rule), count = reasons.most_common(1)[0]
    drop = next(f.drop for f in fates if f.drop and (f.drop.stage, f.drop.rule) == (stage, rule))
    value = drop.value if isinstance(drop.value, str) else f"{drop.value:.3g}"
    measured = f" ({value}, threshold {drop.threshold})" if drop.threshold != "" else ""
    where = ", ".join(map(str, config.inputs))
    key = " (--language.wanted)" if stage == "language" else ""
    raise DataError(f"{where}: of {len(rows)} documents none is left; {count} fell to the rule {rule}{measured}; "
                    f"give more text, change that threshold{key} or use --filters none")  # fmt: skip


def _documents(judged: list[Path], fates: list[Fate], place: str, config: BuildConfig) -> Iterator[Document]:
    """Yields the documents of one place: train (with its copies), heldout or dropped (with the reason in meta)."""
    at = 0
    raw = config.filters == "none"
    for path in judged:
        for row in read_part(path):
            fate = fates[at]
            at += 1
            whole = row.raw if raw and (place == "train" or config.split == "tail") else row.text
            if place == "train":
                text = whole if fate.cut is None else whole[: int(len(whole) * (1 - fate.cut))]
                for copy in range(fate.copies):
                    yield Document(row.id if copy == 0 else f"{row.id}~{copy + 1}", text, row.source, row.meta)
            elif place == "heldout" and (fate.heldout or fate.cut is not None):
                yield Document(
                    row.id,
                    whole if fate.cut is None else whole[int(len(whole) * (1 - fate.cut)) :],
                    row.source,
                    row.meta,
                )
            elif place == "dropped" and fate.drop is not None:
                yield Document(row.id, row.text, row.source, row.meta | fate.drop._asdict())


def _write(
    run: Run, config: BuildConfig, judged: list[Path], fates: list[Fate], problems: list[Problem]
) -> dict[str, Any]:
    """Writes the three document files and stats.json; returns the results."""
    stats: dict[str, Any] = {
        "filters": config.filters,
        "sources": defaultdict(Counter),
        "languages": Counter(),
        "changes": Counter(),
    }
    funnel: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, 0, ""])
    for problem in problems:
        entry = funnel["read", problem.rule]
        entry[0], entry[2] = entry[0] + 1, entry[2] or problem.file

    def counted(place: str) -> Iterator[Document]:
        for document in _documents(judged, fates, place, config):
            size = len(document.text.encode("utf-8", "replace"))
            if place == "train":
                stats["sources"][document.source].update(documents=1, bytes=size)
                stats["languages"][document.meta.get("lang", "")] += 1
                stats["changes"].update(
                    {k: document.meta[k] for k in ("placeholders", "furniture_lines") if k in document.meta}
                )
            elif place == "dropped":
                entry = funnel[document.meta["stage"], document.meta["rule"]]
                entry[0], entry[1], entry[2] = entry[0] + 1, entry[1] + size, entry[2] or document.id
            totals[place] += size
            yield document

    totals: Counter[str] = Counter()
    counts = {place: write_documents(run.path / name, counted(place)) for place, name in
              (("train", "documents.parquet"), ("heldout", "heldout.parquet"), ("dropped", "dropped.parquet"))}  # fmt: skip
    order = sorted(funnel.items(), key=lambda item: (STAGE_ORDER.index(item[0][0]), -item[1][0], item[0][1]))
    stats |= {
        "funnel": [{"stage": s, "rule": r, "dropped": n, "bytes": b, "example_id": e} for (s, r), (n, b, e) in order],
        "kept": counts["train"], "kept_bytes": totals["train"], "heldout": counts["heldout"], "heldout_bytes": totals["heldout"],
        "raw_documents": len(fates), "raw_bytes": sum(fate.raw_bytes for fate in fates),
        "problems": [{"file": p.file, "rule": p.rule, "message": p.message} for p in problems if p.damage][:100],
    }  # fmt: skip
    write_json(run.path / "stats.json", stats)
    return {key: stats[key] for key in ("kept", "kept_bytes", "heldout", "raw_documents", "raw_bytes")}
