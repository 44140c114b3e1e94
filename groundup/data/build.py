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
from groundup.base.files import atomic_file, write_json, write_jsonl
from groundup.base.log import command, progress, quantity
from groundup.base.records import read_documents
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.data.config import BuildConfig
from groundup.data.decide import decide
from groundup.data.decontaminate import Question, read_questions
from groundup.data.engine import Map, batches, processes_for, workers
from groundup.data.extract import Drop
from groundup.data.read import Problem, Record, SourceFile, find_files, read_file
from groundup.data.settle import PLACES, Settled, settle_part, tasks
from groundup.data.stages import HEADING_MARK, begin, extract_part, judge_part, read_part, site_of

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
    for name, path in (("words", config.web.words), ("scores", config.scores.path)):
        if path is not None:
            problems[name] = path
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
        results = _write(run, run_map, config, judged, problems)
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


def _explain_nothing(config: BuildConfig, judged: list[Path]) -> None:
    """Raises: DataError that says why none of the documents is left."""
    drops = [Drop(*(d.meta[key] for key in Drop._fields)) for path in judged
             for d in read_documents(path.with_name(f"dropped-{path.name}"))]  # fmt: skip
    reasons = Counter((drop.stage, drop.rule) for drop in drops)
    (stage, rule), count = reasons.most_common(1)[0]
    drop = next(d for d in drops if (d.stage, d.rule) == (stage, rule))
    value = drop.value if isinstance(drop.value, str) else f"{drop.value:.3g}"
    measured = f" ({value}, threshold {drop.threshold})" if drop.threshold != "" else ""
    where = ", ".join(map(str, config.inputs))
    key = " (--language.wanted)" if stage == "language" else ""
    raise DataError(f"{where}: of {len(drops)} documents none is left; {count} fell to the rule {rule}{measured}; "
                    f"give more text, change that threshold{key} or use --filters none")  # fmt: skip


def _write(run: Run, run_map: Map, config: BuildConfig, judged: list[Path], problems: list[Problem]) -> dict[str, Any]:
    """Writes the document files, the features and stats.json; returns the results. Raises: DataError where nothing is left."""
    decided = decide(run_map, judged, run.path / "parts", config)
    with progress("writing", len(judged), "parts") as bar:
        settled = []
        for part in run_map(settle_part, tasks(judged, decided, config)):
            settled.append(part)
            bar.advance(1)
    counts: Counter[str] = sum((part.counts for part in settled), Counter())
    if not counts["documents"]:
        _explain_nothing(config, judged)
    sizes: Counter[str] = sum((part.sizes for part in settled), Counter())
    for place in (*PLACES, "features"):
        _join([path.with_name(f"{place}-{path.name}") for path in judged], run.path / f"{place}.parquet")
    stats = _stats(settled, problems) | {
        "filters": config.filters,
        "kept": counts["documents"], "kept_bytes": sizes["documents"], "heldout": counts["heldout"], "heldout_bytes": sizes["heldout"],
        "raw_documents": decided.starts[-1], "raw_bytes": sum(part.raw_bytes for part in settled),
        "problems": [{"file": p.file, "rule": p.rule, "message": p.message} for p in problems if p.damage][:100],
    }  # fmt: skip
    write_jsonl(run.path / "contamination.jsonl", (match for part in settled for match in part.matches))
    write_json(run.path / "stats.json", stats)
    return {key: stats[key] for key in ("kept", "kept_bytes", "heldout", "raw_documents", "raw_bytes")}


def _stats(settled: list[Settled], problems: list[Problem]) -> dict[str, Any]:
    """Returns the funnel and the sums over all parts."""
    funnel: dict[tuple[str, str], list[Any]] = {}
    sources: dict[str, Counter[str]] = defaultdict(Counter)
    for problem in problems:
        entry = funnel.setdefault(("read", problem.rule), [0, 0, problem.file])
        entry[0] += 1
    for part in settled:
        for key, (count, size, example) in part.funnel.items():
            entry = funnel.setdefault(key, [0, 0, example])
            entry[0], entry[1] = entry[0] + count, entry[1] + size
        for source, sums in part.sources.items():
            sources[source].update(sums)
    order = sorted(funnel.items(), key=lambda item: (STAGE_ORDER.index(item[0][0]), -item[1][0], item[0][1]))
    return {
        "sources": sources,
        "languages": sum((part.languages for part in settled), Counter()),
        "changes": sum((part.changes for part in settled), Counter()),
        "funnel": [{"stage": s, "rule": r, "dropped": n, "bytes": b, "example_id": e} for (s, r), (n, b, e) in order],
    }


def _join(parts: list[Path], target: Path) -> None:
    """Writes the rows of Parquet files into one, a part at a time, atomically."""
    import pyarrow.parquet as pq

    with (
        atomic_file(target) as temporary,
        pq.ParquetWriter(temporary, pq.read_schema(parts[0]), compression="zstd") as writer,
    ):
        for path in parts:
            if (table := pq.read_table(path)).num_rows:
                writer.write_table(table)
