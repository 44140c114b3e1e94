"""`groundup doctor`: reads a run, says what is wrong with it, and writes the config that mends it."""

from pathlib import Path
from typing import Any

from groundup.base.config import from_dict, load_toml, to_toml
from groundup.base.errors import ConfigError
from groundup.base.files import write_text
from groundup.base.log import command, progress, say
from groundup.doctor.config import DoctorConfig
from groundup.doctor.facts import CONFIGS, Facts, find_run
from groundup.doctor.faults import FAULTS, diagnose
from groundup.doctor.finding import Fault, Finding

__all__ = ["corrected", "examine", "main"]


def examine(path: Path, weights: bool = True, device: str = "auto") -> tuple[Facts, list[tuple[Fault, Finding]]]:
    """Returns the facts of a run and what is wrong with it. Raises: DataError if there is no run of training."""

    def look(facts: Facts) -> Any:
        from groundup.doctor.inside import look

        return look(facts, device)

    facts = Facts(find_run(path), look if weights else None)
    with progress("examining", len(FAULTS), "faults"):
        return facts, diagnose(facts)


def corrected(facts: Facts, found: list[tuple[Fault, Finding]]) -> dict[str, Any]:
    """Returns the changes of all findings; where two change a key, the more fundamental fault's."""
    changes: dict[str, Any] = {}
    for _, finding in found:
        if not finding.note:
            changes = finding.changes | changes
    return changes


def _fixed(facts: Facts, changes: dict[str, Any], name: str) -> str:
    """Returns the run's config with the changes, under another name and free of the plan. Raises: ConfigError if it can't be."""
    values = load_toml(facts.run.path / "config.toml")
    values |= {"project": str(facts.project), "name": name} | ({"plan": "none"} if "plan" in values else {})
    for key, value in changes.items():
        section = values
        *parents, leaf = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    config = from_dict(CONFIGS[facts.stage], values, "the corrected config")
    config.validate()
    return to_toml(config)


def _say(facts: Facts, found: list[tuple[Fault, Finding]]) -> None:
    """Says the findings, faults first."""
    faults = [pair for pair in found if not pair[1].note]
    notes = [pair for pair in found if pair[1].note]
    counts = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "healthy"
    counts += f", {len(notes)} note{'s' * (len(notes) != 1)}" if notes else ""
    loss = f", loss {facts.last_loss:.4f}" if facts.last_loss is not None else ""
    say(f"{facts.run.path}: {counts} ({facts.stage}, {facts.done:,} of {facts.loop.steps:,} steps{loss})")
    for fault, finding in faults + notes:
        say(
            f"\n{'note ' if finding.note else 'FAULT'}  {fault.symptom[0].lower()}{fault.symptom[1:]}: {finding.cause}  [{fault.key}]"
        )
        for line in finding.seen:
            say(f"  seen    {line}")
        say(f"  remedy  {fault.remedy}")
        for line in finding.commands:
            say(f"          {line}")


def main(config: DoctorConfig) -> dict[str, Any]:
    """Says what is wrong with the run; with `fix` writes the corrected config. Returns {"run", "faults", "notes", "changes", "fixed"}.

    Raises: DataError if there is no run; ConfigError if the correction can't be written as a config.
    """
    facts, found = examine(config.run, config.weights, config.device)
    _say(facts, found)
    changes = corrected(facts, found)
    result: dict[str, Any] = {
        "run": str(facts.run.path), "faults": [fault.key for fault, finding in found if not finding.note],
        "notes": [fault.key for fault, finding in found if finding.note], "changes": changes, "fixed": None,
    }  # fmt: skip
    say()
    if changes and config.fix:
        name = f"{facts.run.path.name}-fixed"
        out = config.out if config.out.suffix else facts.project / f"{name}.toml"
        text = _fixed(facts, changes, name)
        write_text(out, text)
        for key, value in changes.items():
            say(f"  {key} = {_value(load_toml(facts.run.path / 'config.toml'), key)} -> {value}")
        say(f"wrote {out}\nnext: {command(facts.stage, '--config', out)}")
        result["fixed"] = str(out)
    elif changes:
        say(f"next: {command('doctor', config.run, '--fix')}")
    elif config.fix:
        if result["faults"]:
            raise ConfigError("fix: no setting mends this; see the remedies above")
        say("nothing to fix")
    else:
        say(f"next: {command('report', facts.project)}")
    return result


def _value(values: dict[str, Any], key: str) -> Any:
    """Returns the value of a dotted key."""
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, dict) else {}
    return values
