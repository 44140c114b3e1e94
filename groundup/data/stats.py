"""`groundup data stats`: what each rule removed, in the terminal and as a self-contained page with lengths, languages and examples."""

import json
import re
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.base.files import read_json, write_text
from groundup.base.log import command, progress, quantity, say
from groundup.base.runs import Run
from groundup.data.config_why import StatsConfig, finished
from groundup.data.rows import STAGES
from groundup.data.why import PLACES, meaning, number

__all__ = ["Tally", "funnel", "main", "render", "tally"]

SHOWN = 20  # sources in a table
LANGUAGES = 12  # languages in the page
COPY = re.compile(r"~\d+$")  # behind the id of a document that the mix repeats


@dataclass
class Tally:
    """What a look at every document adds to stats.json. Lengths are in characters, by powers of two."""

    sources: dict[str, Counter[str]] = field(default_factory=dict)  # source -> documents by stage, "held out" or "kept"
    lengths: dict[str, Counter[int]] = field(default_factory=lambda: {place: Counter() for place in PLACES})
    languages: dict[str, Counter[str]] = field(default_factory=dict)  # code -> documents by place
    examples: dict[tuple[str, str], dict[str, Any]] = field(
        default_factory=dict
    )  # (stage, rule) -> one that it turned away


def _add(found: Tally, place: str, source: str, meta: dict[str, Any], chars: int) -> None:
    """Adds one document to the sums."""
    found.sources.setdefault(source, Counter())[meta["stage"] if place == "dropped" else place] += 1
    found.lengths[place][max(chars, 1).bit_length() - 1] += 1
    rule = meta.get("rule", "")
    code = meta.get("lang") or (rule[3:] if rule.startswith("is_") else "")
    found.languages.setdefault(code, Counter())[place] += 1


def tally(run: Run) -> Tally:
    """Returns the sums over all documents of a build, the mix's repetitions left out; one pass, a few documents at a time."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found, original = Tally(), ""
    with progress("looking", None, "documents") as bar:
        for place, name in PLACES.items():
            for batch in pq.ParquetFile(run.path / name).iter_batches(batch_size=1000):
                chars = pc.utf8_length(batch["text"]).to_pylist()
                rows = zip(*(batch[column].to_pylist() for column in ("id", "source", "meta")), chars)
                for k, (id_, source, meta, length) in enumerate(rows):
                    if COPY.sub("", id_) == original and id_ != original:
                        continue
                    original, about = id_, json.loads(meta)
                    _add(found, place, source, about, length)
                    if place == "dropped" and (rule := (about["stage"], about["rule"])) not in found.examples:
                        text = textwrap.shorten(batch["text"][k].as_py()[:2000], 400, placeholder=" ...")
                        found.examples[rule] = about | {"id": id_, "text": text}
                bar.advance(batch.num_rows)
    return found


def _size(count: int) -> str:
    """Returns a length as the page names it: 512, 4k, 1M."""
    return f"{count >> 20}M" if count >= 1 << 20 else f"{count >> 10}k" if count >= 1 << 10 else str(count)


def _steps(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the funnel's steps: how many documents stand after each stage that removed some, with a width in percent."""
    total, left, steps = max(stats["raw_documents"], 1), stats["raw_documents"], []
    removed = Counter[str]()
    for row in stats["funnel"]:
        removed[row["stage"]] += row["dropped"]
    removed["held out"] = stats["heldout"]
    steps.append({"name": "read", "left": left, "width": 100.0, "removed": 0})
    for stage in (s for s in (*STAGES, "held out") if removed[s]):
        left -= removed[stage]
        steps.append({"name": stage, "left": left, "width": 100 * left / total, "removed": removed[stage]})
    return steps


def _histogram(found: Tally) -> list[dict[str, Any]]:
    """Returns a bar for each power of two between the shortest and the longest document, heights in percent of the highest."""
    bins = sorted({length for counts in found.lengths.values() for length in counts})
    if not bins:
        return []
    highest = max(sum(counts[b] for counts in found.lengths.values()) for b in bins)
    return [
        {"from": _size(1 << b), "to": _size(2 << b),
         "parts": [(place, counts[b], 100 * counts[b] / highest) for place, counts in found.lengths.items()]}
        for b in range(bins[0], bins[-1] + 1)
    ]  # fmt: skip


def _languages(found: Tally) -> list[dict[str, Any]]:
    """Returns the most frequent languages with the share of each place, in percent of the most frequent one."""
    ordered = sorted(found.languages.items(), key=lambda item: (-item[1].total(), item[0]))
    highest = ordered[0][1].total() if ordered else 1
    rows = [(code or "not judged", counts) for code, counts in ordered[:LANGUAGES]]
    if rest := sum((counts for _, counts in ordered[LANGUAGES:]), Counter()):
        rows.append((f"{len(ordered) - LANGUAGES} more", rest))
    return [{"code": code, "total": counts.total(), "kept": counts["kept"],
             "parts": [(place, counts[place], 100 * counts[place] / highest) for place in PLACES]} for code, counts in rows]  # fmt: skip


def render(project: Path, stats: dict[str, Any], found: Tally) -> str:
    """Returns the page's HTML."""
    import jinja2

    total = max(stats["raw_documents"], 1)
    stages = [s for s in STAGES if any(counts[s] for counts in found.sources.values())]
    ordered = sorted(found.sources.items(), key=lambda item: (-item[1].total(), item[0]))
    sources = ordered[:SHOWN]
    if rest := ordered[SHOWN:]:
        sources.append((f"{len(rest)} more sources", sum((counts for _, counts in rest), Counter())))
    rules = [row | {"meaning": meaning(row["rule"]), "share": 100 * row["dropped"] / total,
                    "example": found.examples.get((row["stage"], row["rule"]))} for row in stats["funnel"]]  # fmt: skip
    context = {
        "project": project.name or str(project.absolute().name), "stats": stats, "steps": _steps(stats), "rules": rules, "stages": stages,
        "widest": max((row["share"] for row in rules), default=1) or 1,
        "sources": [(name, counts, counts.total()) for name, counts in sources], "lengths": _histogram(found),
        "languages": _languages(found), "why": command("data", "why", project, "ID"),
        "peek": command("data", "peek", project, "--rule", "NAME"), "retune": command("data", "retune", project),
    }  # fmt: skip
    source = (Path(__file__).parent / "stats.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "bytes": lambda count: f"{quantity(count)}B", "thousands": "{:,}".format}
    return environment.from_string(source).render(context)


def funnel(stats: dict[str, Any]) -> list[str]:
    """Returns the lines of the funnel: the files left aside, then what was read, what each rule removed, what is left."""
    removed = [(f["stage"], f["rule"], -f["dropped"], -f["bytes"], f["example_id"]) for f in stats["funnel"]]
    rows = [
        *((stage, rule, -count, 0, example) for stage, rule, count, _, example in removed if stage == "read"),
        ("", "read", stats["raw_documents"], stats["raw_bytes"], ""),
        *(row for row in removed if row[0] != "read"),
        ("", "held out", -stats["heldout"], -stats["heldout_bytes"], ""),
        ("", "kept", stats["kept"], stats["kept_bytes"], ""),
    ]
    lines = [f"{'stage':14}{'rule':26}{'documents':>11}{'text':>9}  example"]
    lines += [
        f"{stage:14}{rule:26}{count:>11,}{quantity(size) + 'B' if size else '':>9}  {example}".rstrip()
        for stage, rule, count, size, example in rows
    ]
    return lines


def main(config: StatsConfig) -> None:
    """Prints the funnel of a finished build, the sources, and what couldn't be read; writes the page where one is asked for."""
    run = finished(config)
    found = read_json(run.path / "stats.json")
    say("\n".join(funnel(found)))
    say("\nkept, by source")
    sources = sorted(found["sources"].items(), key=lambda item: -item[1]["bytes"])
    for source, row in sources[:SHOWN]:
        say(f"  {source:38}{row['documents']:>11,}{quantity(row['bytes']) + 'B':>9}")
    if rest := [row for _, row in sources[SHOWN:]]:
        documents, size = (sum(row[key] for row in rest) for key in ("documents", "bytes"))
        say(f"  {f'{len(rest)} more':38}{documents:>11,}{quantity(size) + 'B':>9}")
    if found["problems"]:
        say("\nleft out, because it couldn't be read")
        for problem in found["problems"]:
            say(f"  {problem['file']}: {problem['message']}")
    if config.html:
        write_text(config.html, render(config.project, found, tally(run)))
        say(f"\nwrote {config.html}")
    say(f"\nask about one document: {command('data', 'why', config.project, 'ID')}")
    say(f"read what a rule removed: {command('data', 'peek', config.project, '--rule', 'NAME')}")
