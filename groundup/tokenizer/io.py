"""Tokenizer files: our own JSON, and whatever else `load` knows by its content; and a text shown as tokens."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import read_json, write_json
from groundup.base.log import say
from groundup.tokenizer.chat import roles
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.foreign import Foreign, alphabet
from groundup.tokenizer.huggingface import from_huggingface, huggingface_files, read_huggingface, to_huggingface
from groundup.tokenizer.pattern import CUSTOM, PATTERNS
from groundup.tokenizer.ranks import from_ranks, is_ranks, pattern_of, read_merges, read_ranks, to_ranks, write_ranks

if TYPE_CHECKING:
    from groundup.tokenizer.config import ConvertConfig, EncodeConfig

__all__ = [
    "alphabet", "convert", "from_huggingface", "from_ranks", "huggingface_files", "load", "main", "read_huggingface", "read_merges",
    "read_ranks", "save", "to_huggingface", "to_ranks", "write_ranks",
]  # fmt: skip

FORMAT, FILE = "groundup-tokenizer", "tokenizer.json"
KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "pattern": str,
    "specials": (list, dict),
    "merges": list,
}
FILES = (FILE, "merges.txt", "tokenizer.model", "vocab.txt")  # what a folder with a tokenizer in it may hold
KINDS = {".model": "a sentencepiece tokenizer", "vocab.txt": "a WordPiece vocabulary"}
FOREIGN = ("labels", "spare", "whole_words", "normal", "begin", "end")  # what only a tokenizer of others has


def save(tokenizer: Tokenizer, path: Path | str) -> None:
    """Writes the tokenizer as JSON, atomically: to `path`, or as tokenizer.json into the folder `path`."""
    value: dict[str, Any] = {"format": FORMAT, "version": 1, "pattern": tokenizer.pattern}
    value["specials"] = list(tokenizer.specials)
    if tokenizer.byte_order != bytes(range(256)):
        value["byte_order"] = list(tokenizer.byte_order)
    if tokenizer.chat_template is not None:
        value["chat_template"] = tokenizer.chat_template
    if isinstance(tokenizer, Foreign):
        value |= {key: getattr(tokenizer, key) for key in FOREIGN}
        value |= {"specials": tokenizer.specials, "spare": {name.hex(): i for name, i in tokenizer.spare.items()}}
    write_json(_file(path), value | {"merges": [f"{left} {right}" for left, right in tokenizer.merges]})


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path / FILE if path.is_dir() or not path.suffix else path


def load(path: Path | str) -> Tokenizer:
    """Returns the tokenizer in a file or a folder: ours, Hugging Face's, or tiktoken's ranks, known by their content.

    Raises: TokenizerError saying what is wrong.
    """
    folder, path = Path(path), _file(path)
    if not path.exists():
        path = next((folder / name for name in FILES if (folder / name).exists()), path)
        if path.name == "merges.txt":
            return read_huggingface(folder)
    if not path.exists():
        raise TokenizerError(f"{path}: no such tokenizer; make one with `groundup tokenizer train`")
    if is_ranks(path):
        return from_ranks(read_ranks(path), pattern=pattern_of(path))
    for ending, what in KINDS.items():
        if path.name.endswith(ending):
            raise TokenizerError(f"{path}: {what}; only byte-level BPE can be read (GPT-2, Llama 3, Qwen)")
    try:
        value = read_json(path)
    except DataError as error:
        raise TokenizerError(str(error)) from error
    if isinstance(value, dict) and isinstance(value.get("model"), dict):
        return read_huggingface(path)
    for key, kind in KEYS.items():
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise TokenizerError(f"{path}: not a tokenizer of groundup (no '{key}' in it)")
    if value["format"] != FORMAT or value["version"] != 1:
        raise TokenizerError(f"{path}: format {value['format']} {value['version']}; this groundup reads {FORMAT} 1")
    try:
        return _own(value)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"{path}: corrupt (expected pairs of ids, names of specials, 256 bytes)") from error


def _own(value: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer in our own JSON."""
    merges = [(int(left), int(right)) for left, right in (merge.split() for merge in value["merges"])]
    order = bytes(value.get("byte_order", range(256)))
    names, template = value["specials"], value.get("chat_template")
    if not all(isinstance(name, str) for name in names) or not isinstance(template, str | None):
        raise TypeError
    if isinstance(names, list):
        return Tokenizer(merges, names, value["pattern"], order, template)
    more = {key: value[key] for key in FOREIGN}
    more["spare"] = {bytes.fromhex(name): int(i) for name, i in more["spare"].items()}
    more["labels"] = [int(i) for i in more["labels"]]
    return Foreign(merges, {name: int(i) for name, i in names.items()}, value["pattern"], order, template, **more)


def find(project: Path, name: str = "main") -> Path:
    """Returns the tokenizer file that a user means by a file, a folder that holds one, or a project."""
    if project.is_file() or any((project / name).exists() for name in FILES):
        return project
    from groundup.base.runs import open_run

    return open_run(project, "tokenizer", name).path / FILE


def coloured(tokens: list[str], terminal: bool) -> str:
    """Returns the tokens side by side: on a terminal in alternating colours, elsewhere with a bar between them."""
    if not terminal:
        return "|".join(tokens)
    return "".join(f"\x1b[{(44, 45, 46, 42, 43)[i % 5]};30m{token}\x1b[0m" for i, token in enumerate(tokens))


def main(config: "EncodeConfig") -> None:
    """Prints a text as tokens with their ids: `groundup tokenizer encode`."""
    tokenizer = load(find(config.project, config.name))
    text = sys.stdin.read() if config.text == "-" else config.text
    ids = tokenizer.encode(text, allowed_special="all" if config.specials else frozenset())
    shown = [
        tokenizer.token_bytes(i).decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\x1b", "\\e")
        for i in ids
    ]
    print(coloured(shown, sys.stdout.isatty()))
    print(*ids)
    size = len(text.encode("utf-8", "replace"))
    print(f"{len(ids)} tokens, {size} bytes" + (f", {size / len(ids):.2f} bytes per token" if ids else ""))


def convert(config: "ConvertConfig") -> None:
    """Writes a tokenizer in another program's form: `groundup tokenizer convert`."""
    tokenizer = load(find(config.project, config.name))
    if config.out.exists():
        raise TokenizerError(f"{config.out}: there is something already; choose another name or remove it")
    if config.to == "tiktoken":
        write_ranks(tokenizer, config.out)
        rest = {
            "pat_str": PATTERNS.get(tokenizer.pattern, tokenizer.pattern.removeprefix(CUSTOM)),
            "special_tokens": tokenizer.specials,
        }
        say(f"the file holds the ranks alone; tiktoken.Encoding also wants {json.dumps(rest, ensure_ascii=False)}")
    elif config.to == "huggingface":
        end = roles(tokenizer)[1]
        files = huggingface_files(tokenizer, end if end in tokenizer.specials else roles(tokenizer)[0])
        for name, content in files.items():
            write_json(config.out / name, content)
    else:
        save(tokenizer, config.out)
    say(f"{config.out}: {tokenizer.vocab_size:,} ids")
