"""Facts of a project, gathered from its runs' files; no torch, nothing is computed anew."""

from pathlib import Path
from typing import Any

from groundup.base.errors import DataError
from groundup.base.files import read_json
from groundup.base.runs import STAGES, Run

__all__ = ["collect", "curve"]

TRAINING = ("base", "sft", "dpo", "grpo")  # the stages of the table, as evaluations name them


def read_if_there(path: Path) -> Any:
    """Returns the JSON value of a file, or None where there is no such file."""
    return read_json(path) if path.exists() else None


def curve(rows: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Returns the steps and values of one metric, rows without it left out."""
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None and "step" in row]
    return [s for s, _ in found], [v for _, v in found]


def collect(project: Path) -> dict[str, Any]:
    """Returns a nested dict: runs (info and metrics by stage), data, tokenizer, shards, plan, evals, summary.

    Raises: DataError if the folder holds no stage at all.
    """
    runs: dict[str, dict[str, Any]] = {}
    for stage, folder in STAGES.items():
        for path in sorted((project / folder).glob("*/run.json")):
            run = Run(path.parent)
            name = stage if path.parent.name == "main" else f"{stage}/{path.parent.name}"
            runs[name] = {"info": run.info, "metrics": run.metrics(), "path": path.parent.relative_to(project)}
    if not runs:
        raise DataError(f"{project}: no stage has been run in it; begin with `groundup demo {project}`")
    evaluated = project / STAGES["eval"] / "main"
    return {
        "project": project.name,
        "runs": runs,
        "data": read_if_there(project / STAGES["data"] / "main" / "stats.json"),
        "shards": read_if_there(project / STAGES["shards"] / "main" / "train" / "index.json"),
        "plan": read_if_there(project / STAGES["plan"] / "main" / "plan.json"),
        "evals": {name: value for name in TRAINING if (value := read_if_there(evaluated / f"{name}.json"))},
        "summary": read_if_there(project / "summary.json"),
        "samples": {name: samples(run["path"], project) for name, run in runs.items() if samples(run["path"], project)},
    }


def samples(path: Path, project: Path) -> list[dict[str, str]]:
    """Returns the texts that a run wrote while it trained: [{"name", "text"}], the newest last."""
    files = sorted((project / path / "samples").glob("*.txt"))
    return [{"name": f.stem, "text": f.read_text(encoding="utf-8", errors="replace")} for f in files]
