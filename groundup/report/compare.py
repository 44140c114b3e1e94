"""`groundup report RUN RUN ...`: runs of training side by side: their curves by tokens and by seconds, and how their configs differ."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.base.changes import flat
from groundup.base.errors import DataError
from groundup.base.log import command, duration, quantity
from groundup.base.runs import Run
from groundup.doctor.facts import find_run
from groundup.report.page import filled
from groundup.report.plots import lines, svg

__all__ = ["at", "labels", "render"]

MOST = 10  # runs on one page: more lines than that can't be told apart
Curve = tuple[list[float], list[float]]
# (metric, title, y axis); bits per byte compare across tokenizers, so they come before nats
SHOWN = (
    ("bits_per_byte", "Held-out text", "bits per byte"), ("heldout_loss", "Held-out loss", "nats"), ("loss", "Training loss", "nats"),
    ("reward", "Reward", "share of answers accepted"), ("tokens_per_s", "Throughput", "tokens per second"),
    ("lr", "Learning rate", "learning rate"),
)  # fmt: skip
LEARNED = ("bits_per_byte", "heldout_loss", "loss", "reward")  # what is of interest by seconds, too
NOT_A_SETTING = ("name", "out")


def labels(paths: Sequence[Path]) -> list[str]:
    """Returns a short name for each run's folder: what is left of project/stage/run without what all have in common."""
    parts = [path.resolve().parts[-3:] for path in paths]
    kept = [i for i in range(3) if len({part[i] for part in parts}) > 1]
    short = ["/".join(part[i] for i in kept) for part in parts]
    return short if len(set(short)) == len(paths) else [str(path) for path in paths]


def along(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, Curve]:
    """Returns {"tokens": (x, y), "seconds": (x, y)} of a metric. A look at the held-out text has the time of its step's row."""
    seconds = {row["step"]: row["wall_s"] for row in rows if row.get("wall_s") is not None}
    found = [row for row in rows if row.get(metric) is not None and "tokens" in row]
    timed = [(seconds[row["step"]], row[metric]) for row in found if row["step"] in seconds]
    by_tokens = [float(row["tokens"]) for row in found], [row[metric] for row in found]
    return {"tokens": by_tokens, "seconds": ([x for x, _ in timed], [y for _, y in timed])}


def at(curve: Curve, x: float) -> float | None:
    """Returns a curve's value at x, on the straight line between its neighbours; None outside."""
    for x0, x1, y0, y1 in zip(curve[0], curve[0][1:], curve[1], curve[1][1:], strict=False):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1
    return None


def _shared(curves: dict[str, dict[str, Curve]], by: str) -> float | None:
    """Returns the furthest x that all runs' curves have reached, if each has one."""
    ends = [run[by][0][-1] for run in curves.values() if run[by][0]]
    return min(ends) if len(ends) == len(curves) else None


def _table(runs: dict[str, Run], judged: str, curves: dict[str, dict[str, Curve]]) -> dict[str, list[Any]]:
    """Returns {"head", "rows"}: figures of each run, at its end and where all can be compared."""
    shared = {by: _shared(curves, by) for by in ("tokens", "seconds")}
    head = ["run", "parameters", "steps", "tokens", "time", judged.replace("_", " ").replace("heldout", "held-out")]
    head += [f"after {quantity(shared['tokens'])} tokens"] if shared["tokens"] else []
    head += [f"after {duration(shared['seconds'])}"] if shared["seconds"] else []
    head += ["tokens/s", "MFU", "status", "alarms"]
    rows = []
    for label, run in runs.items():
        info, metrics = run.info, run.metrics()
        results, last = info.get("results", {}), {k: v for row in metrics for k, v in row.items() if v is not None}
        here = [at(curves[label][by], x) for by, x in shared.items() if x]
        rate = results.get("tokens_per_s", last.get("tokens_per_s"))
        mfu = results.get("mfu", last.get("mfu"))
        alarms = ", ".join(row["alarm"] for row in metrics if "alarm" in row)
        rows.append([
            label, quantity(results["params"]) if "params" in results else "–", f"{last.get('step', 0):,}", quantity(last.get("tokens", 0)),
            duration(last.get("wall_s", 0)), f"{last[judged]:.4f}" if judged in last else "–",
            *("–" if value is None else f"{value:.4f}" for value in here), quantity(rate) if rate else "–",
            f"{mfu:.0%}" if mfu else "–", info.get("status", ""), alarms or "none",
        ])  # fmt: skip
    return {"head": head, "rows": rows}


def _differences(runs: dict[str, Run]) -> list[list[str]]:
    """Returns a row (key, the value in each run) for every setting and input that isn't the same in all."""
    settings = []
    for run in runs.values():
        values = flat(tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8")))
        values |= {f"inputs.{role}": entry["hash"][:12] for role, entry in run.info.get("inputs", {}).items()}
        settings.append(values)
    known = list(dict.fromkeys(key for values in settings for key in values if key not in NOT_A_SETTING))
    rows = [[key, *(str(values.get(key, "–")) for values in settings)] for key in known]
    return [row for row in rows if len(set(row[1:])) > 1]


def render(paths: Sequence[Path]) -> str:
    """Returns the page's HTML. Raises: DataError for a folder without a run of training, one given twice, or too many."""
    found = [find_run(path) for path in paths]
    if len({run.path.resolve() for run in found}) < len(found):
        raise DataError(f"{', '.join(str(run.path) for run in found)}: the same run twice; there is nothing to compare")
    if len(found) > MOST:
        raise DataError(f"{len(found)} runs on one page can't be told apart; give at most {MOST}")
    runs = dict(zip(labels([run.path for run in found]), found, strict=True))
    rows = {label: run.metrics() for label, run in runs.items()}
    drawn = []
    judged = next(
        (m for m, _, _ in SHOWN if all(any(r.get(m) is not None for r in of) for of in rows.values())), "loss"
    )
    for metric, title, y in SHOWN:
        if metric == "heldout_loss" and judged == "bits_per_byte":
            continue  # the same curve in another unit, which compares across tokenizers
        curves = {label: along(of, metric) for label, of in rows.items()}
        for by in ("tokens", "seconds") if metric in LEARNED else ("tokens",):
            if draw := lines({label: curve[by] for label, curve in curves.items()}):
                drawn.append(svg(draw, f"{title} by {by}", by, y))
    differences = _differences(runs)
    return filled("compare.html", {
        "version": __version__, "names": list(runs), "figures": drawn, "differences": differences,
        "table": _table(runs, judged, {label: along(of, judged) for label, of in rows.items()}),
        "other_text": any(row[0] == "inputs.heldout" for row in differences), "race": command("race", "base.toml", "idea.toml"),
    })  # fmt: skip
