"""Configs: typed dataclasses filled from TOML (`--config`) and dotted flags, checked after the merge, printed as TOML."""

import contextlib
import dataclasses
import difflib
import io
import re
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from groundup.base.errors import ConfigError
from groundup.base.files import os_error

__all__ = ["from_dict", "keys", "load_toml", "parse", "to_toml"]

C = TypeVar("C")
RECIPES = Path(__file__).parent.parent / "recipes"

# Names known from nanoGPT, Hugging Face and others -> ours. They are pointed out, not accepted: one name for one thing.
KNOWN_ELSEWHERE = {
    "n_embd": "d_model", "hidden_size": "d_model", "embed_dim": "d_model", "emb_dim": "d_model", "n_layer": "n_layers",
    "num_hidden_layers": "n_layers", "n_head": "n_heads", "num_heads": "n_heads", "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads", "intermediate_size": "d_ff", "ff_dim": "d_ff", "block_size": "context",
    "max_seq_len": "context", "seq_len": "context", "max_iters": "steps", "max_steps": "steps", "num_iterations": "steps",
    "learning_rate": "lr", "batch_size": "batch_tokens", "gradient_accumulation_steps": "micro_batch", "grad_clip": "clip",
    "warmup_iters": "warmup", "warmup_steps": "warmup", "eval_interval": "eval_every", "log_interval": "log_every",
    "vocab": "vocab_size", "rope_theta": "theta", "num_experts": "experts", "sliding_window": "size",
    "num_experts_per_tok": "active", "out_dir": "project", "output_dir": "project", "max_new_tokens": "max_tokens",
    "n_positions": "context", "max_seq_length": "context", "max_length": "context", "depth": "n_layers", "init_from": "start",
    "resume_from": "start", "initial_checkpoint_dir": "start", "model_name_or_path": "start", "lr_decay_iters": "steps",
    "num_train_epochs": "steps", "min_lr": "min_ratio", "eval_iters": "eval_tokens", "total_batch_size": "batch_tokens",
    "global_batch_size": "batch_tokens", "device_batch_size": "micro_batch", "per_device_train_batch_size": "micro_batch",
    "warmup_ratio": "warmup", "lr_warmup_steps": "warmup", "lr_scheduler_type": "schedule", "max_norm": "clip",
    "max_grad_norm": "clip", "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "eps", "matrix_lr": "muon_lr",
    "logging_steps": "log_every", "eval_steps": "eval_every", "save_steps": "every", "save_interval": "every",
    "num_generations": "answers", "max_completion_length": "max_tokens", "report_to": "to", "dtype": "precision",
    "attn_implementation": "attention",
}  # fmt: skip


def keys(cls: type, prefix: str = "") -> dict[str, Any]:
    """Returns every dotted key of a config class with its type: {"model.d_model": int, ...}."""
    hints: dict[str, Any] = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            found |= keys(typing.cast(type, kind), f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = kind
    return found


def suggest(key: str, known: Sequence[str], flags: bool = False) -> str:
    """Returns the half sentence that helps with an unknown key: a near miss, a name known from elsewhere, or nothing."""
    leaf = key.rpartition(".")[2].replace("-", "_")
    leaves = {name.rpartition(".")[2]: name for name in known}
    shown = (lambda name: "--" + name.replace("_", "-")) if flags else (lambda name: f"'{name}'")
    if (ours := KNOWN_ELSEWHERE.get(leaf)) in leaves:
        return f"; here that is {shown(leaves[ours])}"
    near = difflib.get_close_matches(key.replace("-", "_"), known, 1, 0.6)
    near = near or [leaves[name] for name in difflib.get_close_matches(leaf, list(leaves), 1, 0.6)]
    return f"; did you mean {shown(near[0])}?" if near else ""


def load_toml(path: Path | str) -> dict[str, Any]:
    """Returns the tables of a TOML file. Raises: ConfigError with the file and the line."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(os_error(error, path))) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Returns a TOML value as the field's type. Raises: ConfigError naming key, expectation and value."""
    options = (
        [k for k in typing.get_args(kind) if k is not type(None)]
        if typing.get_origin(kind) not in (typing.Literal, tuple)
        else []
    )
    if options and type(None) in typing.get_args(kind):
        return _convert(value, options[0], where)
    if typing.get_origin(kind) is typing.Literal:
        if value in typing.get_args(kind):
            return value
        raise ConfigError(f"{where}: expected one of {', '.join(map(str, typing.get_args(kind)))}, not {value!r}")
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_convert(v, typing.get_args(kind)[0], where) for v in value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: expected {getattr(kind, '__name__', kind)}, not {value!r}")


def from_dict(
    cls: type[C], values: dict[str, Any], where: str = "config", prefix: str = "", base: C | None = None
) -> C:
    """Returns a config filled from nested tables over the defaults (or over `base`).

    Raises: ConfigError naming the unknown key, with what was probably meant, or the value of the wrong type.
    """
    hints: dict[str, Any] = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if preset := getattr(cls, "presets", {}).get(values.get("preset")):  # it sets the whole section, `base` or not
        values, base = _over(preset, values), None
    filled: dict[str, Any] = {}
    for key, value in values.items():
        full = prefix + key
        if key not in names:
            raise ConfigError(f"{where}: unknown key '{full}'{suggest(full, [prefix + k for k in keys(cls)])}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: '{full}' is a section, write [{full}]")
            filled[key] = from_dict(hints[key], value, where, full + ".", getattr(base, key, None))
        else:
            filled[key] = _convert(value, hints[key], f"{where}: '{full}'")
    if base is not None:
        return dataclasses.replace(base, **filled)  # type: ignore[type-var]
    try:
        return cls(**filled)
    except TypeError as error:  # a field without default that the file doesn't give
        raise ConfigError(f"{where}: {str(error).partition('__init__() ')[2]}") from error


def _over(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Returns nested tables in which the second one's values win."""
    both = {k: _over(values[k], others[k]) for k in values.keys() & others.keys() if isinstance(values[k], dict)}
    return values | others | both


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(v) for v in value)}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", text) + '"'


def to_toml(config: Any, prefix: str = "") -> str:
    """Returns the config as TOML that `--config` reads back; fields that are None are left out."""
    plain, sections = [], []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            name = prefix + field.name
            sections.append(f"\n[{name}]\n{to_toml(value, name + '.')}")
        elif value is not None:
            plain.append(f"{field.name} = {_toml_value(value)}\n")
    return "".join(plain + sections)


def _recipe(name: str) -> Path:
    """Returns the file that `--config` names: a path, or the name of a recipe that ships, with or without .toml.

    Raises: ConfigError for neither.
    """
    shipped = {file.name: file for file in RECIPES.glob("*.toml") if not file.name.startswith("demo_")}
    if Path(name).exists():
        return Path(name)
    if found := shipped.get(name) or shipped.get(f"{name}.toml"):
        return found
    raise ConfigError(
        f"--config {name}: no such file, and not one of the recipes {', '.join(sorted(p[:-5] for p in shipped))}"
    )


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    """Returns the last value that the words give to a flag, as `--flag value` or `--flag=value`, if any."""
    found = None
    for word, following in zip(argv, [*argv[1:], None]):
        if word == flag:
            found = following
        elif word.startswith(flag + "="):
            found = word.removeprefix(flag + "=")
    return found


def parse(cls: type[C], argv: Sequence[str], prog: str, description: str) -> C:
    """Returns the config from defaults, then `--config FILE`, then flags; the last word wins.

    Raises: ConfigError in one line; SystemExit(0) after `--help`.
    """
    import tyro

    argv, base = list(argv), cls()  # every field of a verb's config has a default
    if "--config" in argv:
        at = argv.index("--config")
        if at + 1 >= len(argv):
            raise ConfigError("--config: expected the path of a TOML file")
        file = _recipe(argv[at + 1])
        base = from_dict(cls, load_toml(file), where=str(file))
        argv = argv[:at] + argv[at + 2 :]
    known = keys(cls)
    for flag in (a for a in argv if a.startswith("--")):
        name = flag[2:].partition("=")[0].replace("-", "_")
        positive = re.sub(r"(^|\.)no_", r"\1", name)
        if name not in known and positive not in known and name != "help":
            raise ConfigError(f"unknown flag {flag.partition('=')[0]}{suggest(name, list(known), flags=True)}")
    for name in (name for name in known if name.rpartition(".")[2] == "preset"):
        if chosen := _value_of(f"--{name}", argv):
            section, _, key = name.rpartition(".")
            values: dict[str, Any] = {key: chosen}
            for part in reversed(section.split(".") if section else []):
                values = {part: values}
            base = from_dict(cls, values, "the command line", base=base)
    shown, heard = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(shown):
            return tyro.cli(cls, args=argv, prog=prog, description=description, default=base)
    except SystemExit as stop:
        if not stop.code:
            print(shown.getvalue(), end="")
            raise
        text = re.sub(r"[│╭╮╰╯─\s]+", " ", heard.getvalue() + shown.getvalue())
        text = re.sub(r" -{3,} ", ": ", text).partition(": Argument helptext")[0].strip(" :")
        raise ConfigError(f"{text or 'the flags could not be read'} (see `{prog} --help`)") from None
