"""A project folder, its numbered stages, and a run of a stage: what was done, from what, by whom, with what result.

my-llm/05-pretrain/main/  run.json config.toml metrics.jsonl log.txt samples/ checkpoints/step_000500/
"""

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.base.changes import Change, covers, differences, identity, listed, permission
from groundup.base.errors import CheckpointError, ConfigError, DataError, GroundupError
from groundup.base.files import (
    atomic_folder,
    fingerprint,
    os_error,
    read_json,
    sha256,
    write_json,
    write_jsonl,
    write_text,
)
from groundup.base.log import duration, say
from groundup.base.remote import address

__all__ = [
    "STAGES", "Run", "checkpoints", "clear_debris", "latest_checkpoint", "open_run", "record", "resolve_checkpoint",
    "start_checkpoint", "unchanged", "verify_checkpoint", "write_checkpoint",
]  # fmt: skip

STAGES = {
    "data": "01-data", "tokenizer": "02-tokenizer", "shards": "03-shards", "plan": "04-plan", "pretrain": "05-pretrain",
    "sft": "06-sft", "reward": "07-reward", "dpo": "08-dpo", "ppo": "09-ppo", "grpo": "10-grpo", "eval": "11-eval",
    "export": "12-export",
}  # fmt: skip
TRAINED = ("grpo", "ppo", "dpo", "sft", "pretrain")  # the furthest first: what `chat my-llm` talks to
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Run:
    """A handle on one run's folder. `inputs` maps a role ("shards") to the path it reads."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json, or {} before the run has begun."""
        file = self.path / "run.json"
        return read_json(file) if file.exists() else {}

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return self.info.get("status") == "done"

    @property
    def results(self) -> dict[str, Any]:
        """What the run reported at its end."""
        return self.info.get("results", {})

    def log(self, text: str) -> None:
        """Prints a line and appends it to log.txt."""
        say(text, self.path / "log.txt")

    def metric(self, **values: Any) -> dict[str, Any]:
        """Appends one row to metrics.jsonl and returns it. A non-finite number becomes null: JSON has no NaN."""
        clean = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in values.items()}
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(clean) + "\n")
        return clean

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the rows of metrics.jsonl, up to the line at which a killed run was cut off."""
        file, rows = self.path / "metrics.jsonl", []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Drops rows after `step`: a resumed run repeats those steps and would write them twice."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step]
        write_jsonl(self.path / "metrics.jsonl", rows)

    def require_done(self, verb: str) -> "Run":
        """Returns self if finished. Raises: DataError naming the command that makes it."""
        if not self.done:
            raise DataError(f"{self.path}: not there or not finished; run `groundup {verb}` first")
        return self


def open_run(project: Path | str, stage: str, name: str = "main") -> Run:
    """Returns the handle of a stage's run in a project folder; creates nothing. Raises: ConfigError for an address in its place."""
    if url := address(project):
        raise ConfigError(
            f"{url}: a project lies in a folder, for its files are renamed into place; mount the bucket and name that folder"
        )
    if not NAME.fullmatch(name):
        raise GroundupError(
            f"--name {name!r}: letters, digits, '.', '_' and '-' only, beginning with a letter or digit"
        )
    return Run(Path(project) / STAGES[stage] / name)


@contextmanager
def record(run: Run, config_toml: str, inputs: Mapping[str, Path], seed: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields a dict for results, around the work of a run; run.json tells its state throughout.

    The caller asks `unchanged` first. On success the dict becomes `results`; on an error or Ctrl-C the status says so,
    and the same command continues from what is on disk.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, run.path) from error
    wall, cpu = time.time(), time.process_time()
    goes_on = bool(checkpoints(run.path))
    before = run.info if goes_on or not run.done else {}
    changed = _changes(run, config_toml, inputs) if goes_on else {}
    info: dict[str, Any] = {
        "command": ["groundup", *sys.argv[1:]], "status": "running", "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "groundup": __version__, "python": platform.python_version(), "platform": platform.platform(),
        "cpus": os.cpu_count(), "seed": seed, "config_hash": identity(config_toml),
        "inputs": {
            role: {"path": address(path) or os.path.relpath(path, run.path), "hash": fingerprint(path)}
            for role, path in inputs.items()
        },
    }  # fmt: skip
    if noted := before.get("changes", []) + ([_noted(run, changed)] if changed else []):
        info["changes"] = noted

    def close(status: str, results: dict[str, Any]) -> None:
        spent = {"wall_s": round(before.get("wall_s", 0) + time.time() - wall, 2),
                 "cpu_s": round(before.get("cpu_s", 0) + time.process_time() - cpu, 2)}  # fmt: skip
        write_json(run.path / "run.json", info | {"status": status, **spent, "results": results})

    results: dict[str, Any] = {}
    try:
        write_text(run.path / "config.toml", config_toml)
        write_json(run.path / "run.json", info | {"wall_s": before.get("wall_s", 0), "cpu_s": before.get("cpu_s", 0)})
        yield results
        close("done", results)
    except KeyboardInterrupt:
        close("interrupted", results)
        raise
    except OSError as error:
        raise os_error(error) from error
    except Exception:
        close("failed", results)
        _restore(run)
        raise
    shutil.rmtree(_previous(run), ignore_errors=True)


def _noted(run: Run, changed: Mapping[str, Change]) -> dict[str, Any]:
    """Returns what run.json keeps of a change of config within a run: when, after which checkpoint, and what."""
    found = checkpoints(run.path)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "after": found[-1].name if found else None,
        "keys": {key: list(change) for key, change in changed.items()},
    }  # fmt: skip


def _previous(run: Run) -> Path:
    """Where a finished run waits while another takes its place."""
    return run.path.with_name(f".{run.path.name}.previous")


def _restore(run: Run) -> None:
    """Brings back the run that a failed one was to replace, unless the failed one got as far as a checkpoint."""
    if _previous(run).exists() and not checkpoints(run.path):
        shutil.rmtree(run.path)
        os.replace(_previous(run), run.path)
        say(f"{run.path}: left as it was before")


def _changes(run: Run, config_toml: str, inputs: Mapping[str, Path]) -> dict[str, Change]:
    """Returns what the run on disk was begun with that is otherwise now."""
    file = run.path / "config.toml"
    before = {role: entry["hash"] for role, entry in run.info.get("inputs", {}).items()}
    return differences(file.read_text(encoding="utf-8") if file.exists() else "", config_toml, before, inputs)


def unchanged(run: Run, config_toml: str, inputs: Mapping[str, Path], free: Collection[str] = ()) -> bool:
    """Returns whether the run is done with this very config and these inputs; says so if it is.

    Where something differs, a finished run makes way, aloud, and comes back if the new one fails. An unfinished one with
    checkpoints is never thrown away for it: it goes on if all that differs is among `free` (keys without influence on the
    result) or allowed by the user, or else it is refused (`groundup.base.changes.Permission` says what else there is).
    Raises: ConfigError listing the changed keys, old -> new.
    """
    info, allowed = run.info, permission()
    if not info:
        return False
    done = info["status"] == "done"
    changed = _changes(run, config_toml, inputs)
    serious = {key: change for key, change in changed.items() if not covers((*free, *allowed.allow), key)}
    explicit = any(covers(allowed.allow, key) for key in changed)
    if allowed.fresh or (serious and (done or not checkpoints(run.path)) and not allowed.allow):
        why = "made anew, as --fresh asks" if allowed.fresh else "its config or inputs have changed, so it is made anew"
        say(f"{run.path}: {why}{f' ({listed(serious)})' if serious else ''}")
        _make_way(run, done)
        return False
    if serious and allowed.aside:
        kept = _set_aside(run)
        say(f"{run.path}: unfinished, and begun with another config ({listed(serious)}); kept as {kept}, made anew")
        return False
    if serious:
        raise ConfigError(_refusal(run, serious))
    if done and not explicit:
        say(f"{run.path}: already done with the same config and inputs ({duration(info['wall_s'])}); nothing to do")
        return True
    if changed:
        say(f"{run.path}: goes on with {listed(changed)}")
    return False


def _make_way(run: Run, done: bool) -> None:
    """Clears the run's place: a finished one waits until its successor is done, an unfinished one is deleted."""
    if done:
        shutil.rmtree(_previous(run), ignore_errors=True)
        os.replace(run.path, _previous(run))
    else:
        shutil.rmtree(run.path)


def _set_aside(run: Run) -> Path:
    """Renames the run to the first free name and returns its new path."""
    number = 1
    while (path := run.path.with_name(f"{run.path.name}-{number}")).exists():
        number += 1
    os.replace(run.path, path)
    return path


def _refusal(run: Run, serious: Mapping[str, Change]) -> str:
    """Returns the one line that refuses to touch a run of another config."""
    found = checkpoints(run.path)
    state = f"is unfinished (step {_step(found[-1])})" if not run.done else "is done"
    return (
        f"{run.path}: {state} and was begun with other values: {listed(serious)}; take the old values, or add "
        f"`--allow-change {','.join(serious)}` to go on with the new ones, `--fresh` to begin anew, or another --name"
    )


# Checkpoints: a folder is a checkpoint when DONE is in it. DONE is written last and removed first.


@contextmanager
def write_checkpoint(run_path: Path, step: int, keep: int = 2, spare: Collection[int] = ()) -> Iterator[Path]:
    """Yields a folder to fill; then writes its manifest and DONE, renames it into place and drops the oldest beyond `keep`.

    Checkpoints of the steps in `spare` are never dropped.
    """
    folder = Path(run_path) / "checkpoints" / f"step_{step:06d}"
    with atomic_folder(folder) as temporary:
        yield temporary
        files = sorted(f for f in temporary.rglob("*") if f.is_file())
        write_json(temporary / "MANIFEST.json", {f.relative_to(temporary).as_posix(): sha256(f) for f in files})
        (temporary / "DONE").write_text(f"{step}\n", encoding="utf-8")
    found = checkpoints(run_path)
    for old in found[:-keep]:
        if _step(old) not in spare:
            (old / "DONE").unlink()  # first, so that a kill in between leaves no half of a checkpoint
            shutil.rmtree(old)


def clear_debris(run_path: Path) -> None:
    """Removes what killed processes left of checkpoints: half-written ones and half-dropped ones. No writer may be at work."""
    folder = Path(run_path) / "checkpoints"
    halves = (f for f in folder.glob("step_*") if not (f / "DONE").exists())
    for debris in (*folder.glob(".step_*.tmp"), *halves):
        shutil.rmtree(debris, ignore_errors=True)


def _step(folder: Path) -> int:
    """Returns the step of a checkpoint's folder."""
    return int(folder.name[5:])


def checkpoints(run_path: Path) -> list[Path]:
    """Returns a run's complete checkpoints, the oldest first."""
    found = Path(run_path).glob("checkpoints/step_*")
    return sorted((f for f in found if (f / "DONE").exists()), key=_step)


def verify_checkpoint(folder: Path) -> None:
    """Raises: CheckpointError naming the first file that is missing or not what the manifest says."""
    for name, digest in read_json(folder / "MANIFEST.json").items():
        file = folder / name
        if not file.exists():
            raise CheckpointError(f"{file}: missing from the checkpoint")
        if sha256(file) != digest:
            raise CheckpointError(f"{file}: corrupt (its hash isn't the manifest's)")


def latest_checkpoint(run_path: Path) -> Path | None:
    """Returns the newest checkpoint that is whole, or None; a corrupt one is named and passed over."""
    for folder in reversed(checkpoints(run_path)):
        try:
            verify_checkpoint(folder)
            return folder
        except CheckpointError as error:
            say(f"{error}; using the one before it")
    return None


def resolve_checkpoint(path: Path | str) -> Path:
    """Returns the checkpoint folder that a user means by a checkpoint, a run, a stage or a project folder.

    A project means its furthest finished stage (GRPO before DPO before SFT before pretraining), a stage its run `main`.
    Raises: CheckpointError saying what was looked for.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; expected a project, a run or a checkpoint of groundup")
    if (path / "DONE").exists():
        verify_checkpoint(path)
        return path
    candidates = [path, path / "main", *(path / STAGES[stage] / "main" for stage in TRAINED)]
    for candidate in candidates:
        if candidate not in (path, path / "main") and not Run(candidate).done:
            continue
        if (candidate / "checkpoints").is_dir() and (found := latest_checkpoint(candidate)):
            return found
    raise CheckpointError(f"{path}: no finished checkpoint in it; train one with `groundup pretrain {path}`")


def start_checkpoint(path: Path, run: Run, verb: str) -> Path:
    """Returns the checkpoint folder that a stage begins from: `path` itself, or the newest one of the run `path`.

    Raises: CheckpointError naming the verb that makes it; ConfigError where a run would begin from itself.
    """
    if path.resolve() == run.path.resolve() or path.resolve().is_relative_to(run.path.resolve()):
        raise ConfigError(
            f"start: {path} is this very run, which would be overwritten; give the new one another --name"
        )
    if (path / "DONE").exists():
        verify_checkpoint(path)
        return path
    if not Run(path).done:
        raise CheckpointError(
            f"{path}: not there or not finished; run `groundup {verb}` first, or give --start another checkpoint"
        )
    if (found := latest_checkpoint(path)) is None:
        raise CheckpointError(f"{path}: no whole checkpoint in it; run `groundup {verb}` again")
    return found
