"""`groundup eval`: each finished stage on the same held-out documents and problems, with intervals and differences."""

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.base.config import to_toml
from groundup.base.errors import CheckpointError, DataError
from groundup.base.files import fingerprint, read_json, text_hash, write_json
from groundup.base.log import command, duration, say
from groundup.base.records import Document, Problem, read_documents, read_problems
from groundup.base.runs import Run, open_run, record, resolve_checkpoint
from groundup.evals.config import EvalConfig
from groundup.evals.generate import answer_problems, summarise
from groundup.evals.perplexity import bits_per_byte
from groundup.evals.score import paired_interval
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.parallel.mesh import choose_device
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load as load_tokenizer

__all__ = ["compare", "evaluate", "main", "table"]

LABELS = {"bits_per_byte": "bits/byte", "exact_match": "exact match", "sample_at_1": "sample@1"}


def evaluate(
    model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], documents: Sequence[Document],
    seed: int = 0, samples: int = 8, max_tokens: int = 32,
) -> dict[str, Any]:  # fmt: skip
    """Returns what is known of a model: bits per byte and, where there are problems, the scores of its answers.

    {"bits_per_byte": {"value", "low", "high", ...}, "exact_match": {"value", "low", "high", "by_skill": {...}},
    "sample_at_1": ..., "pass_at_8": ..., "per_problem": [{"id", "skill", "greedy", "exact", "correct", "samples"}]}
    """
    result: dict[str, Any] = {}
    if documents:
        result["bits_per_byte"] = bits_per_byte(model, tokenizer, [d.text for d in documents], seed=seed)
    if problems:
        result |= summarise(answer_problems(model, tokenizer, problems, samples, max_tokens, seed), samples, seed)
    return result


def compare(before: dict[str, Any], after: dict[str, Any], seed: int = 0) -> dict[str, dict[str, float]]:
    """Returns {"exact_match": {"value", "low", "high"}, "sample_at_1": ...}: after - before, paired by problem."""
    old = {row["id"]: row for row in before["per_problem"]}
    rows = [(old[row["id"]], row) for row in after["per_problem"] if row["id"] in old]
    if not rows:
        raise DataError("the two evaluations have no problem in common; run both again with `groundup eval`")
    share = lambda row: row["correct"] / row["samples"]  # noqa: E731
    return {
        "exact_match": paired_interval([a["exact"] for a, _ in rows], [b["exact"] for _, b in rows], seed).as_dict(),
        "sample_at_1": paired_interval([share(a) for a, _ in rows], [share(b) for _, b in rows], seed).as_dict(),
    }


def table(stages: dict[str, dict[str, Any]], floor: float | None = None) -> list[str]:
    """Returns the lines of the results table: a stage a row, a measure a column, each with its 95% interval."""
    shown = _measures(stages)
    lines = [f"{'stage':<14}" + "".join(f"{_label(m):<24}" for m in shown)]
    for name, result in stages.items():
        cells = [result.get(m) for m in shown]
        lines.append(f"{name:<14}" + "".join(f"{_cell(c):<24}" for c in cells))
    if floor is not None:
        lines.append(f"{'entropy floor':<14}{floor:.3f}")
    lines = [line.rstrip() for line in lines]
    skills = sorted(
        {skill for result in stages.values() for skill in result.get("exact_match", {}).get("by_skill", {})}
    )
    if skills:
        lines += ["", f"{'exact match by skill':<22}" + "".join(f"{name:>16}" for name in stages)]
        for skill in skills:
            values = [result.get("exact_match", {}).get("by_skill", {}).get(skill) for result in stages.values()]
            lines.append(
                f"  {skill:<20}" + "".join(f"{'-' if v is None else format(v['value'], '.2f'):>16}" for v in values)
            )
    return lines


def _measures(stages: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the measures that any stage has, in the order in which they are shown."""
    there = {key for result in stages.values() for key in result}
    return [m for m in (*LABELS, *sorted(key for key in there if key.startswith("pass_at_"))) if m in there]


def _label(measure: str) -> str:
    return LABELS.get(measure) or measure.replace("pass_at_", "pass@")


def _cell(score: dict[str, Any] | None) -> str:
    return "-" if score is None else f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _inputs(config: EvalConfig) -> tuple[list[Problem], list[Document], dict[str, Path]]:
    """Returns the problems, the documents and the files they came from. Raises: DataError where there is neither."""
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    documents: list[Document] = []
    if config.problems is not None or config.problems_path.exists():
        problems = list(read_problems(config.problems_path))
        if config.limit:
            problems = problems[: config.limit]
        if len({p.id for p in problems}) < len(problems):
            raise DataError(f"{config.problems_path}: an id occurs twice, so answers couldn't be told apart")
        files["problems"] = config.problems_path
    if config.documents is not None or config.documents_path.exists():
        documents = _first(read_documents(config.documents_path), config.most_bytes)
        files["documents"] = config.documents_path
    if not problems and not documents:
        raise DataError(
            f"{config.project}: nothing to evaluate on: neither {config.problems_path} nor {config.documents_path} has anything; "
            f"run `groundup data build {config.project}` first, or give --problems or --documents"
        )
    return problems, documents, files


def _first(documents: Iterable[Document], most_bytes: int) -> list[Document]:
    """Returns the documents until they have `most_bytes` together (0: all), one at least."""
    taken: list[Document] = []
    size = 0
    for document in documents:
        size += len(document.text.encode())
        if most_bytes and taken and size > most_bytes:
            break
        taken.append(document)
    return taken


def _checkpoint(label: str, run: Path) -> Path:
    if not Run(run).done:
        raise CheckpointError(f"{run}: not there or not finished; run `groundup {label.partition('-')[0]}` first")
    return resolve_checkpoint(run)


def _key(config: EvalConfig, checkpoint: Path, files: dict[str, Path]) -> str:
    """Returns what a result depends on, as one hash: an evaluation with the same key needn't be repeated."""
    known = [fingerprint(path) for path in files.values()] + [
        (checkpoint / "MANIFEST.json").read_text(encoding="utf-8")
    ]
    return text_hash(repr([config.limit, config.most_bytes, config.samples, config.max_tokens, config.seed, *known]))


def main(config: EvalConfig) -> dict[str, Any]:
    """Evaluates the stages asked for, and prints the table. Returns {"stages", "differences", "entropy_floor_..."}.

    What was evaluated before, on the same files with the same settings, is read from its file.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    found = {label: _checkpoint(label, path) for label, path in config.stages()}
    if not found:
        raise CheckpointError(
            f"{config.project}: no finished stage to evaluate; run `groundup pretrain {config.project}` first"
        )
    problems, documents, files = _inputs(config)
    run = open_run(config.project, "eval", config.name)
    stages: dict[str, dict[str, Any]] = {}
    with record(run, to_toml(config), {**found, **files}, config.seed) as results:
        for label, checkpoint in found.items():
            stages[label] = _stage(config, run, label, checkpoint, problems, documents, _key(config, checkpoint, files))
        floor = _floor(config.project)
        results |= _summary(stages, floor, config.seed)
    for line in ["", *table(stages, floor), "", *_verdicts(results["differences"])]:
        run.log(line)
    say(f"next: {command('report', config.project)}")
    return {**results, "stages": stages}


def _stage(
    config: EvalConfig,
    run: Run,
    label: str,
    checkpoint: Path,
    problems: list[Problem],
    documents: list[Document],
    key: str,
) -> dict[str, Any]:
    """Returns a stage's results, from its file where that is still true, and writes the file where not."""
    file = run.path / f"{label}.json"
    if file.exists() and (known := read_json(file)).get("key") == key:
        run.log(f"{label}: already evaluated on the same files ({file})")
        return known
    began = time.perf_counter()
    model, tokenizer = load_model(checkpoint, choose_device(config.device)), load_tokenizer(checkpoint)
    result = evaluate(model, tokenizer, problems, documents, config.seed, config.samples, config.max_tokens)
    spent = time.perf_counter() - began
    result = {
        "stage": label,
        "checkpoint": os.path.relpath(checkpoint, run.path),
        "key": key,
        "wall_s": spent,
        **result,
    }
    write_json(file, result)
    run.log(f"{label}: evaluated in {duration(spent)}")
    return result


def _floor(project: Path) -> float | None:
    """Returns the entropy of the world that wrote the corpus, in bits per byte, where the project has one."""
    file = project / "tasks" / "world.json"
    return read_json(file).get("entropy_bits_per_byte") if file.exists() else None


def _summary(stages: dict[str, dict[str, Any]], floor: float | None, seed: int) -> dict[str, Any]:
    """Returns the results of the run: each measure by stage, and the paired differences."""
    short = {
        label: {m: {k: v for k, v in result[m].items() if k != "by_skill"} for m in _measures({label: result})}
        for label, result in stages.items()
    }
    pairs = _pairs([label for label, result in stages.items() if "per_problem" in result])
    differences = {f"{a} -> {b}": compare(stages[a], stages[b], seed) for a, b in pairs}
    return {"stages": short, "differences": differences, "entropy_floor_bits_per_byte": floor}


def _pairs(labels: list[str]) -> list[tuple[str, str]]:
    """Returns which are compared: each stage with the one before it; another run of a stage with its run `main`, and with
    the furthest stage (`sft-continued -> grpo`: what did reinforcement bring beyond more fine-tuning?).
    """
    stages = [label for label in labels if "-" not in label]
    pairs = list(itertools.pairwise(stages))
    for label in labels:
        stage = label.partition("-")[0]
        if stage != label:
            pairs += [(stage, label)] * (stage in stages) + [(label, last) for last in stages[-1:] if last != stage]
    return pairs


def _verdicts(differences: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Returns a line for each difference, in points, that says whether chance alone could explain it."""
    lines = []
    for name, measures in differences.items():
        for measure, d in measures.items():
            sure = "better" if d["low"] > 0 else "worse" if d["high"] < 0 else "no difference shown"
            points = f"{100 * d['value']:+.1f} points [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
            lines.append(f"{name}: {_label(measure)} {points}: {sure}")
    return lines
