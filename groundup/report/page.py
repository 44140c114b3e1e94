"""`groundup report`: the facts of a project, laid out as one self-contained HTML page."""

from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.base.files import write_text
from groundup.base.log import command, duration, quantity, say
from groundup.report.collect import TRAINING, collect
from groundup.report.config import ReportConfig
from groundup.report.plots import figures

__all__ = ["main", "render"]

MEASURES = ("bits_per_byte", "exact_match", "sample_at_1", "pass_at_8")
TITLES = {
    "pretrain": "Pretraining", "sft": "Supervised fine-tuning", "dpo": "Preferences (DPO)", "grpo": "Reinforcement (GRPO)",
}  # fmt: skip


def bytes_text(count: float | None) -> str:
    """Returns a byte count with a unit."""
    return "" if count is None else f"{quantity(count)}B"


def cell(measure: str, entry: dict[str, Any] | None) -> dict[str, str]:
    """Returns {"value", "interval"} of a measurement; a dash where it wasn't measured."""
    if not entry or entry.get("value") is None:
        return {"value": "–", "interval": ""}
    digits = 3
    interval = f"[{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]" if entry.get("low") is not None else ""
    return {"value": f"{entry['value']:.{digits}f}", "interval": interval}


def evaluations(facts: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of the table by stage and of the table by skill."""
    evals = facts["evals"]
    shown = MEASURES if problems(facts) else MEASURES[:1]
    rows = [{"stage": name, "cells": [cell(m, value.get(m)) for m in shown]} for name, value in evals.items()]
    exact = {name: (value.get("exact_match") or {}).get("by_skill") or {} for name, value in evals.items()}
    sample = {name: (value.get("sample_at_1") or {}).get("by_skill") or {} for name, value in evals.items()}
    skills = []
    for skill in sorted({s for by_skill in exact.values() for s in by_skill}):
        cells = [{"exact": number(exact[n].get(skill)), "sample": number(sample[n].get(skill))} for n in evals]
        skills.append({"name": skill, "cells": cells})
    return rows, skills


def number(entry: Any) -> str:
    """Returns a share with two digits, of a plain number or of a measurement's dict."""
    value = entry.get("value") if isinstance(entry, dict) else entry
    return "–" if value is None else f"{value:.2f}"


def problems(facts: dict[str, Any]) -> int:
    """Returns how many held-out problems were asked, 0 where there are none."""
    return max((len(v.get("per_problem") or ()) for v in facts["evals"].values()), default=0)


def funnel(facts: dict[str, Any], project: Path) -> dict[str, Any] | None:
    """Returns the data section: what each rule removed, what is left."""
    stats = facts["data"]
    if not stats:
        return None
    total = max(1, stats["raw_documents"])
    rows = [
        {"stage": row["stage"], "rule": row["rule"], "dropped": f"{row['dropped']:,}", "bytes": bytes_text(row["bytes"]),
         "share": f"{row['dropped'] / total:.1%}", "width": round(12 * row["dropped"] / total, 2), "example": row.get("example_id") or ""}
        for row in stats["funnel"]
    ]  # fmt: skip
    summary = (
        f"{stats['raw_documents']:,} raw document{'' if stats['raw_documents'] == 1 else 's'} "
        f"({bytes_text(stats['raw_bytes'])}) became {stats['kept']:,} for training "
        f"({bytes_text(stats['kept_bytes'])}) and {stats['heldout']:,} held out, which no stage has seen."
    )
    sources = [
        {"name": name, "documents": f"{row['documents']:,}", "bytes": bytes_text(row["bytes"])} for name, row in stats["sources"].items()
    ]  # fmt: skip
    return {"summary": summary, "funnel": rows, "sources": sources, "why": command("data why", project, "ID")}


def planned(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Returns rows of what the plan foresaw beside what pretraining used."""
    plan, run = facts["plan"], facts["runs"].get("pretrain")
    if not plan or not run:
        return []
    results = run["info"].get("results", {})
    rows = [
        ("parameters", plan.get("params"), results.get("params"), quantity),
        ("tokens", plan.get("tokens"), results.get("tokens"), quantity),
        ("steps", plan.get("steps"), results.get("steps"), lambda n: f"{n:,}"),
        ("time", plan.get("time_s"), run["info"].get("wall_s"), duration),
        ("memory of training", plan.get("memory_bytes"), results.get("peak_memory_bytes"), bytes_text),
        ("held-out loss, nats per token", plan.get("loss"), results.get("heldout_loss"), lambda x: f"{x:.3f}"),
    ]
    return [
        {"name": name, "planned": "–" if a is None else form(a), "achieved": "–" if b is None else form(b)}
        for name, a, b, form in rows
    ]  # fmt: skip


def verdict(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the page's first words: is the model sound, and what did each stage bring."""
    evals, good, lines = facts["evals"], True, []
    summary = facts["summary"] or {}
    floor = summary.get("entropy_floor_bits_per_byte")
    base = (evals.get("base") or {}).get("bits_per_byte") or {}
    if base.get("value") is not None:
        text = f"The base model needs {base['value']:.3f} bits per byte on held-out text"
        if floor:
            text += f", {base['value'] - floor:.3f} above the floor of {floor:.3f}"
            if base["value"] < floor:
                good, text = False, text + ": below the floor, so held-out text has leaked into training"
        lines.append(text + ".")
    last = next(
        (name for name in reversed(TRAINING) if (evals.get(name) or {}).get("exact_match", {}) and name != "base"), None
    )
    if last:
        exact, sample = evals[last]["exact_match"], evals[last]["sample_at_1"]
        lines.append(
            f"After {last} it answers {exact['value']:.0%} of {problems(facts):,} held-out problems with its first choice and "
            f"{sample['value']:.0%} when it samples."
        )
    unfinished = [name for name, run in facts["runs"].items() if run["info"].get("status") != "done"]
    if unfinished:
        good = False
        lines.append(f"Not finished: {', '.join(unfinished)}.")
    if not lines:
        lines.append("No evaluation yet.")
    return {"good": good, "lines": lines}


def training(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns one section a training stage: its figures, a line of facts, its samples."""
    sections = []
    for stage, drawn in figures(facts).items():
        results = facts["runs"][stage]["info"].get("results", {})
        parts = [f"{quantity(results['tokens'])} tokens" if results.get("tokens") else "",
                 f"{quantity(results['tokens_per_s'])} tokens per second" if results.get("tokens_per_s") else "",
                 f"{results['mfu']:.0%} of the machine's measured matrix-product rate (MFU)" if results.get("mfu") else ""]  # fmt: skip
        sections.append({"name": stage, "title": TITLES[stage], "figures": drawn, "facts": ", ".join(p for p in parts if p),
                         "samples": facts["samples"].get(stage, [])[-4:],
                         "alarms": [row for row in facts["runs"][stage]["metrics"] if "alarm" in row]})  # fmt: skip
    return sections


def comparisons(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the paired differences that the demo measured, as rows."""
    rows = []
    for name, entry in ((facts["summary"] or {}).get("comparisons") or {}).items():
        interval = f"[{entry['low']:+.3f}, {entry['high']:+.3f}]" if entry.get("low") is not None else ""
        rows.append({"name": name, "value": f"{entry['value']:+.3f}", "interval": interval})
    return rows


def filled(template: str, context: dict[str, Any]) -> str:
    """Returns a page of this folder, filled in."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return (
        jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        .get_template(template)
        .render(context)
    )


def render(project: Path) -> str:
    """Returns the page's HTML. Raises: DataError if there is nothing to report."""
    facts = collect(project)
    rows, skills = evaluations(facts)
    runs = [
        {"name": name, "command": " ".join(run["info"].get("command", [])), "status": run["info"].get("status", ""),
         "wall": duration(run["info"].get("wall_s", 0)), "cpu": duration(run["info"].get("cpu_s", 0))}
        for name, run in facts["runs"].items()
    ]  # fmt: skip
    newest = list(facts["runs"].values())[-1]["info"]
    environment = [
        (k, newest[k]) for k in ("groundup", "python", "platform", "cpus", "seed") if newest.get(k) is not None
    ]
    context = {
        "version": __version__, "project": facts["project"], "verdict": verdict(facts), "evals": rows, "skills": skills,
        "problems": problems(facts), "floor": (facts["summary"] or {}).get("entropy_floor_bits_per_byte"),
        "conversations": (facts["summary"] or {}).get("conversation"), "comparisons": comparisons(facts),
        "data": funnel(facts, project), "plan": planned(facts), "figures": training(facts), "runs": runs, "environment": environment,
    }  # fmt: skip
    context["sections"] = [(key, title) for key, title, there in (
        ("evals", "Evaluations", rows), ("talk", "Conversation", context["conversations"]), ("data", "Data", context["data"]),
        ("plan", "Plan", context["plan"]), *((s["name"], s["title"], True) for s in context["figures"]), ("repeat", "Repeat", True),
    ) if there]  # fmt: skip
    return filled("page.html", context)


def main(config: ReportConfig) -> None:
    """Writes the page of a project, or the one that compares several runs."""
    if config.others:
        from groundup.report.compare import render as compared

        write_text(config.target, compared([config.project, *config.others]))
    else:
        write_text(config.target, render(config.project))
    say(f"report: {config.target}")
