"""The passes of a build over parts of the corpus, each part a file that survives a kill: markup and cleaning, then, once the furniture of
each site is known, the rules. Duplicates and the held-out split are decided at the end over all documents; then the parts stream into
the results.
"""

from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from groundup.base.errors import DataError
from groundup.base.files import write_json, write_jsonl
from groundup.base.log import command, progress, quantity
from groundup.base.parquet import join_parquet
from groundup.base.records import read_documents
from groundup.base.remote import address
from groundup.base.runs import Run
from groundup.data.config import BuildConfig
from groundup.data.decide import decide
from groundup.data.decontaminate import Question
from groundup.data.engine import Map, workers
from groundup.data.extract import Drop
from groundup.data.furniture import find_furniture
from groundup.data.intake import PART_BYTES, Aside, Reading, Taken, Watch, part_path, readings, take
from groundup.data.pool import peak_bytes
from groundup.data.read import Problem, SourceFile
from groundup.data.rows import STAGES
from groundup.data.settle import Settled, join_features, settle_part, tasks
from groundup.data.stages import KERNELS, begin, compile_kernel, judge_part

__all__ = ["Work", "build_documents"]

SHOWN = 20  # lines about files that were left out


class Work(NamedTuple):
    """What a build works on."""

    run: Run
    config: BuildConfig
    files: list[SourceFile]
    unread: list[Problem]
    questions: list[Question]
    processes: int


def build_documents(work: Work) -> dict[str, Any]:
    """Returns the run's results after all passes. Raises: DataError where nothing is left."""
    run, config, aside = work.run, work.config, Aside()
    for problem in work.unread:
        aside.add(problem)
    parts = run.path / "parts"
    parts.mkdir(exist_ok=True)
    with workers(work.processes, begin, (config, work.questions), config.engine, config.address) as run_map:
        extracted = _extract(run_map, work.files, config, parts, aside)
        for problem in aside.damage[:SHOWN]:
            run.log(f"left out: {problem.file} {problem.message}")
        if aside.damages > SHOWN:
            run.log(
                f"left out: {aside.damages - SHOWN:,} more; `{command('data', 'stats', config.project)}` names them"
            )
        judged = _judge(run_map, extracted, parts, config)
        results = _write(run, run_map, config, judged, aside)
        held = max(run_map.peak_bytes, peak_bytes())
    run.log(f"{results['kept']:,} of {results['raw_documents']:,} documents kept ({quantity(results['kept_bytes'])}B), "
            f"{results['heldout']:,} held out; no process took more than {held / 1e6:,.0f} MB of memory")  # fmt: skip
    return results | {"peak_bytes": held}


def _extract(run_map: Map, files: list[SourceFile], config: BuildConfig, parts: Path, aside: Aside) -> list[Path]:
    """Returns the extracted parts in the files' order; those that a killed run has left whole are taken as they are.

    Raises: DataError where there is nothing to work on, or only what was whole in damaged files.
    """
    counts: dict[int, int] = {}
    sound = False
    tasks = readings(files, parts, run_map.processes, config.read)
    kernels = KERNELS if run_map.processes > 1 else ()
    watch = Watch(tasks, 2 * run_map.processes)
    with progress("reading", watch.total, "B") as bar, bar.follow(watch.bytes):
        for taken in run_map(_first, (*kernels, *tasks)):
            if taken is None:
                continue
            watch.done += 1
            counts[taken.unit], sound = taken.parts, sound or taken.sound
            if taken.turn == 0:
                aside.join(taken.aside)
    if not any(counts.values()):
        raise DataError(_why_nothing(config, files, aside))
    if aside.broken and not sound and not config.read.keep_damaged:
        path = next((f.path for f in files if f.label == aside.broken.file), aside.broken.file)
        why = aside.broken.message.partition(";")[0]
        raise DataError(
            f"{address(path) or path}: {why}; fetch it again, or use what is whole in it with --read.keep-damaged"
        )
    return [part_path(parts, unit, part) for unit in sorted(counts) for part in range(counts[unit])]


def _first(task: Reading | str) -> Taken | None:
    """Does a task of the first pass: takes documents out of files, or compiles a kernel for the next pass."""
    if isinstance(task, Reading):
        return take(task)
    compile_kernel(task)
    return None


def _why_nothing(config: BuildConfig, files: list[SourceFile], aside: Aside) -> str:
    """Returns what to say where no document was found."""
    where = ", ".join(address(path) or str(path) for path in config.inputs)
    if not aside.damages:
        return f"{where}: no text in it; put txt, md, HTML, JSONL, Parquet, WARC or MediaWiki files there, or name others with --input"
    first, paths = aside.damage[0], {f.label: f.path for f in files}
    more = f" (and {aside.damages - 1} more such problems)" if aside.damages > 1 else ""
    path = paths.get(first.file, first.file)
    return f"{address(path) or path} {first.message}{more}; nothing else to read in {where}"


def _judge(run_map: Map, extracted: list[Path], parts: Path, config: BuildConfig) -> list[Path]:
    """Returns the judged parts in order."""
    targets = [path.with_name(path.name.replace("extracted", "judged")) for path in extracted]
    furniture = find_furniture(run_map, extracted, parts, config.clean.boilerplate_pages, PART_BYTES * len(extracted))
    with progress("judging", len(targets), "parts") as bar:
        for _ in run_map(judge_part, zip(extracted, targets, repeat(furniture))):
            bar.advance(1)
    return targets


def _explain_nothing(config: BuildConfig, judged: list[Path], sums: Settled) -> None:
    """Raises: DataError that says why none of the documents is left."""
    (stage, rule), (count, _, _) = max(sums.funnel.items(), key=lambda item: item[1][0])
    drops = (Drop(*(d.meta[key] for key in Drop._fields)) for path in judged
             for d in read_documents(path.with_name(f"dropped-{path.name}")))  # fmt: skip
    drop = next(d for d in drops if (d.stage, d.rule) == (stage, rule))
    value = drop.value if isinstance(drop.value, str) else f"{drop.value:.3g}"
    measured = f" ({value}, threshold {drop.threshold})" if drop.threshold != "" else ""
    where = ", ".join(address(path) or str(path) for path in config.inputs)
    key = " (--language.wanted)" if stage == "language" else ""
    raise DataError(f"{where}: of {sums.counts['dropped']} documents none is left; {count} fell to the rule {rule}{measured}; "
                    f"give more text, change that threshold{key} or use --filters none")  # fmt: skip


def _write(run: Run, run_map: Map, config: BuildConfig, judged: list[Path], aside: Aside) -> dict[str, Any]:
    """Writes the document files, the features and stats.json; returns the results. Raises: DataError where nothing is left."""
    decided = decide(run_map, judged, run.path / "parts", config)
    sums = Settled()
    with progress("writing", len(judged), "parts") as bar:
        for part in run_map(settle_part, tasks(judged, decided, config)):
            sums.add(part)
            bar.advance(1)
    if not sums.counts["documents"]:
        _explain_nothing(config, judged, sums)
    for _ in run_map(
        _join,
        [(place, judged, run.path / f"{place}.parquet") for place in ("dropped", "documents", "heldout", "features")],
    ):
        pass
    stats = _stats(sums, aside) | {
        "filters": config.filters,
        "kept": sums.counts["documents"], "kept_bytes": sums.sizes["documents"],
        "heldout": sums.counts["heldout"], "heldout_bytes": sums.sizes["heldout"],
        "raw_documents": decided.starts[-1], "raw_bytes": sums.raw_bytes,
        "problems": [{"file": p.file, "rule": p.rule, "message": p.message} for p in aside.damage],
    }  # fmt: skip
    write_jsonl(run.path / "contamination.jsonl", sums.matches)
    write_json(run.path / "stats.json", stats)
    return {key: stats[key] for key in ("kept", "kept_bytes", "heldout", "raw_documents", "raw_bytes")}


def _stats(sums: Settled, aside: Aside) -> dict[str, Any]:
    """Returns the funnel and the sums over all parts."""
    funnel = {("read", rule): [count, 0, aside.examples[rule]] for rule, count in aside.counts.items()} | sums.funnel
    order = sorted(funnel.items(), key=lambda item: (("read", *STAGES).index(item[0][0]), -item[1][0], item[0][1]))
    return {
        "sources": sums.sources, "languages": sums.languages, "changes": sums.changes,
        "funnel": [{"stage": s, "rule": r, "dropped": n, "bytes": b, "example_id": e} for (s, r), (n, b, e) in order],
    }  # fmt: skip


def _join(task: tuple[str, list[Path], Path]) -> Path:
    """Writes what was made of the parts into one file."""
    place, judged, target = task
    if place == "features":
        join_features([path.with_name(f"features-{path.stem}.arrow") for path in judged], target)
    else:
        join_parquet([path.with_name(f"{place}-{path.name}") for path in judged], target)
    return target
