"""When a run on disk was begun with another config or other inputs: what differs, and what the user allows to be done about it."""

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.base.files import fingerprint, text_hash

__all__ = ["Change", "Permission", "covers", "differences", "flat", "identity", "listed", "permission", "permit"]

Change = tuple[Any, Any]  # the value before, the value now; None where there was or is none
MOVES = ("project",)  # keys that say where, not what: a project's folder may be moved


@dataclass(frozen=True)
class Permission:
    """What may be done with an unfinished run that was begun with another config. By default nothing: it is refused."""

    allow: tuple[str, ...] = ()  # --allow-change: keys (or sections) that may change while the run goes on
    fresh: bool = False  # --fresh: begin anew, whatever is there
    aside: bool = False  # keep the unfinished run under another name and begin anew: what the demo does


_permission: ContextVar[Permission] = ContextVar("permission")


def permission() -> Permission:
    """Returns what is allowed at present."""
    return _permission.get(Permission())


@contextmanager
def permit(**given: Any) -> Iterator[Permission]:
    """Allows something (fields of `Permission`) for the work inside, besides what is allowed already."""
    token = _permission.set(replace(permission(), **given))
    try:
        yield permission()
    finally:
        _permission.reset(token)


def covers(keys: Collection[str], key: str) -> bool:
    """Returns whether a key is among `keys`, or inside a section among them ("train" covers "train.lr")."""
    return any(key == allowed or key.startswith(allowed + ".") for allowed in keys)


def differences(
    old_toml: str, new_toml: str, old_inputs: Mapping[str, str], inputs: Mapping[str, Path]
) -> dict[str, Change]:
    """Returns {"train.lr": (0.001, 0.003), "inputs.train": (hash, hash), ...}: every key whose value is another one now.

    `old_inputs` maps an input's role to the hash it had; `inputs` to the path it has.
    """
    old, new = flat(tomllib.loads(old_toml)), flat(tomllib.loads(new_toml))
    old |= {f"inputs.{role}": digest for role, digest in old_inputs.items()}
    new |= {f"inputs.{role}": fingerprint(path) for role, path in inputs.items()}
    return {k: (old.get(k), new.get(k)) for k in (*new, *(old.keys() - new.keys())) if old.get(k) != new.get(k)}


def listed(changes: Mapping[str, Change]) -> str:
    """Returns the changes as a sentence's part: "train.lr 0.001 -> 0.003, inputs.train 1a2b3c -> 4d5e6f"."""
    shown = lambda value: "not set" if value is None else str(value) or '""'  # noqa: E731
    return ", ".join(f"{key} {shown(old)} -> {shown(new)}" for key, (old, new) in changes.items())


def identity(config_toml: str) -> str:
    """Returns the hash of a config's values; where the project stands doesn't count."""
    return text_hash(json.dumps(flat(tomllib.loads(config_toml)), sort_keys=True, default=str))


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a config's nested tables as one, with dotted keys; without where the project stands."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif prefix + key not in MOVES:
            found[prefix + key] = value
    return found
