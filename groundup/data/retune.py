"""`groundup data retune`: other thresholds of the quality rules, tried on what was measured; the texts aren't read again."""

import heapq
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.config import from_dict, keys, to_toml
from groundup.base.errors import ConfigError, DataError
from groundup.base.files import write_text
from groundup.base.log import command, progress, say
from groundup.base.records import read_documents
from groundup.base.runs import Run
from groundup.data.config import BuildConfig
from groundup.data.config_why import RetuneConfig, built, finished
from groundup.data.extract import Drop
from groundup.data.measure import FEATURES
from groundup.data.mix import unit_hash
from groundup.data.quality import GATES, RULES, first_broken
from groundup.data.why import PLACES, number

__all__ = ["Change", "changed", "compare", "main"]

KEYS = sorted({rule.key for rule in RULES} | set(GATES))
NAMES = list(dict.fromkeys(rule.name for rule in RULES))
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the documents, that have less of a feature
SHOWN = 12  # sources in the table
BATCH, SPREAD = 1 << 14, 16  # documents at a time; from so many batches at most the spread is taken


@dataclass
class Change:
    """What two configs decide about the measured documents."""

    passed: Counter[str] = field(default_factory=Counter)  # before, after, words before, words after
    rules: dict[str, Counter[str]] = field(default_factory=dict)  # rule -> before, after
    sources: dict[str, Counter[str]] = field(default_factory=dict)  # source -> before, after: documents that pass
    moved: Counter[str] = field(default_factory=Counter)  # leaves, returns
    samples: dict[str, list[tuple[float, str, Drop]]] = field(default_factory=lambda: {"leaves": [], "returns": []})


def _typed(text: str, kind: Any, key: str) -> Any:
    """Returns the value that a text gives for a key. Raises: ConfigError."""
    if kind is bool and text in ("true", "false"):
        return text == "true"
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        raise ConfigError(f"set: {key}: expected {kind.__name__}, not {text!r}") from None


def changed(config: BuildConfig, values: dict[str, str]) -> BuildConfig:
    """Returns the config with other thresholds. Raises: ConfigError for a key that would need the text again, or that has no effect."""
    kinds, nested = keys(BuildConfig), dict[str, dict[str, Any]]()
    for key, text in values.items():
        if key not in KEYS:
            raise ConfigError(f"set: '{key}' can't be tried without a new build: it changes what is measured, or isn't about what was; "
                              f"these can: {', '.join(KEYS)}")  # fmt: skip
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = _typed(text, kinds[key], key)
    new = from_dict(BuildConfig, nested, "set", base=config)
    new.validate()
    for key in values:
        section, _, name = key.partition(".")
        asked, got = (getattr(getattr(c, section), name) for c in (new, new.effective()))
        if asked != got:
            raise ConfigError(f"set: '{key}' has no effect: --filters {config.filters} sets it to {got}")
    return new


def _batches(path: Path) -> Iterator[Any]:
    """Yields the measured documents whose language is a wanted one, some thousands at a time. Raises: DataError where they are missing."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.exists():
        raise DataError(
            f"{path}: not there; the build is older than the measurements, run `{command('data', 'build')}` again"
        )
    file = pq.ParquetFile(path)
    with progress("judging", file.metadata.num_rows, "documents") as bar:
        for batch in file.iter_batches(batch_size=BATCH):
            yield batch.filter(pc.invert(pc.starts_with(batch["rule"], "is_")))
            bar.advance(batch.num_rows)


def _judged(batch: Any, config: BuildConfig) -> list[Drop | None]:
    """Returns the first rule that each document of a batch breaks."""
    values = np.column_stack([batch[name].to_numpy() for name in FEATURES])
    return first_broken(values, batch["page"].to_pylist(), config, FEATURES)


def compare(path: Path, old: BuildConfig, new: BuildConfig, n: int) -> Change:
    """Returns what changes if the measured documents are judged by another config; n samples of each kind of change."""
    change = Change(rules={name: Counter() for name in NAMES})
    old, new = old.effective(), new.effective()
    for batch in _batches(path):
        ids, sources, counts = (batch[name].to_pylist() for name in ("id", "source", "words"))
        for k, (before, after) in enumerate(zip(_judged(batch, old), _judged(batch, new))):
            source = change.sources.setdefault(sources[k], Counter())
            for when, drop in (("before", before), ("after", after)):
                if drop:
                    change.rules[drop.rule][when] += 1
                else:
                    change.passed.update({when: 1, f"words {when}": int(counts[k])})
                    source[when] += 1
            if bool(before) != bool(after):
                kind, drop = ("leaves", after) if after else ("returns", before)
                assert drop is not None
                change.moved[kind] += 1
                place = (-unit_hash(ids[k]), ids[k], drop)  # the n with the smallest hashes stay
                (heapq.heappush if len(change.samples[kind]) < n else heapq.heappushpop)(change.samples[kind], place)
    return change


def _list(run: Run, config: BuildConfig) -> None:
    """Prints each rule's key, its threshold, what it drops, and how the measured documents are spread over it."""
    config, columns, drops = config.effective(), dict[str, list[np.ndarray]](), Counter[str]()
    for k, batch in enumerate(_batches(run.path / "features.parquet")):
        drops.update(drop.rule for drop in _judged(batch, config) if drop)
        for rule in RULES if k < SPREAD else ():
            columns.setdefault(rule.feature, []).append(batch[rule.feature].to_numpy())
    if not columns:
        raise DataError(f"{run.path}: no document was measured")
    say(
        f"{'rule':26}{'key (--set KEY=VALUE)':32}{'threshold':>11}{'drops':>9}   "
        + "".join(f"{f'{s:.0%}':>9}" for s in SHARES)
    )
    for rule in RULES:
        spread, limit = np.quantile(np.concatenate(columns[rule.feature]), SHARES), rule.threshold(config)
        sign = "≥" if rule.least else "≤"
        say(f"{rule.name:26}{rule.key:32}{f'{sign} {limit:,.6g}' if isfinite(limit) else 'off':>11}{drops[rule.name]:>9,}   "
            + "".join(f"{_short(x):>9}" for x in spread))  # fmt: skip
    say(
        "the last columns: that share of the documents has at most this value (documents in another language aren't asked)"
    )
    say(f"also: {', '.join(GATES)}")


def _short(value: float) -> str:
    """Returns a measurement in three digits, a large one whole."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(change: Change, old: BuildConfig, new: BuildConfig) -> list[str]:
    """Returns the lines that compare the rules, the sources and the sums."""
    passed, old, new = change.passed, old.effective(), new.effective()
    lines = [f"{'rule':26}{'threshold':>20}{'drops now':>12}{'would drop':>12}"]
    for name, counts in change.rules.items():
        limits = [number(next(r for r in RULES if r.name == name).threshold(c)) for c in (old, new)]
        if counts or limits[0] != limits[1]:
            shown = limits[0] if limits[0] == limits[1] else f"{limits[0]} -> {limits[1]}"
            more = counts["after"] - counts["before"]
            lines.append(
                f"{name:26}{shown:>20}{counts['before']:>12,}{counts['after']:>12,}" + (f"{more:>+12,}" if more else "")
            )
    lines.append(
        f"{'pass all of them':46}{passed['before']:>12,}{passed['after']:>12,}{passed['after'] - passed['before']:>+12,}"
    )
    lines.append(f"{'their words':46}{passed['words before']:>12,}{passed['words after']:>12,}"
                 f"{passed['words after'] - passed['words before']:>+12,}")  # fmt: skip
    moved = sorted(
        ((c["after"] - c["before"], source) for source, c in change.sources.items()), key=lambda m: (-abs(m[0]), m[1])
    )
    lines += ["", "by source"] if moved and moved[0][0] else []
    lines += [f"  {source:44}{change.sources[source]['before']:>12,}{change.sources[source]['after']:>12,}{more:>+12,}"
              for more, source in moved[:SHOWN] if more]  # fmt: skip
    return lines


def _beginnings(run: Run, wanted: set[str]) -> dict[str, str]:
    """Returns how the documents with these ids begin."""
    found: dict[str, str] = {}
    for file in PLACES.values() if wanted else ():
        for document in read_documents(run.path / file):
            if document.id in wanted:
                found.setdefault(document.id, textwrap.shorten(document.text, 200, placeholder=" ..."))
                if len(found) == len(wanted):
                    return found
    return found


def main(config: RetuneConfig) -> None:
    """Prints what other thresholds would change; with `apply` writes the config for a rebuild."""
    run, values = finished(config), config.values()
    old = built(run)
    if old.filters == "none":
        raise DataError(f"{run.path}: built with --filters none, so no rule was asked; there is nothing to retune")
    if values:
        _compare(config, run, old, changed(old, values))
    else:
        _list(run, old)


def _compare(config: RetuneConfig, run: Run, old: BuildConfig, new: BuildConfig) -> None:
    """Prints what another config would change."""
    change = compare(run.path / "features.parquet", old, new, config.n)
    say("\n".join(_table(change, old, new)))
    found = _beginnings(run, {name for kind in change.samples.values() for _, name, _ in kind})
    for kind, said in (("leaves", "would leave"), ("returns", "would pass again")):
        say(f"\n{said}: {change.moved[kind]:,}" + (", for example" if change.samples[kind] else ""))
        for _, name, drop in sorted(change.samples[kind], reverse=True):
            say(
                f"  {name}: {drop.rule} {number(drop.value)}, threshold {number(drop.threshold)}\n    {found.get(name, '')}"
            )
    if change.moved["returns"]:
        say(
            "what would pass again is then asked for word lists, arithmetic, scores, evaluation problems and duplicates"
        )
    if config.apply:
        write_text(config.target, to_toml(new))
        say(f"wrote {config.target}")
        flags = ["--config", config.target]
    else:
        flags = ["--config", run.path / "config.toml", *(_flag(*item) for item in config.values().items())]
    say(f"next: {command('data', 'build', config.project, *flags)}")


def _flag(key: str, text: str) -> str:
    """Returns the flag of `data build` that sets a key."""
    section, _, name = key.replace("_", "-").partition(".")
    return f"--{section}.{name if text != 'false' else 'no-' + name}" + (
        "" if text in ("true", "false") else f" {text}"
    )
