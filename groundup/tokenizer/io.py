"""Tokenizer files: our own JSON, Hugging Face's tokenizer.json, tiktoken's ranks; and a text shown as tokens."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import open_text, read_json, write_json
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.pattern import PATTERNS

if TYPE_CHECKING:
    from groundup.tokenizer.config import EncodeConfig

__all__ = ["huggingface_files", "load", "main", "read_merges", "save", "to_huggingface", "to_ranks"]

FORMAT, FILE = "groundup-tokenizer", "tokenizer.json"
KEYS = {"format": str, "version": int, "pattern": str, "specials": list, "merges": list}


def save(tokenizer: Tokenizer, path: Path | str) -> None:
    """Writes the tokenizer as JSON, atomically: to `path`, or as tokenizer.json into the folder `path`."""
    value: dict[str, Any] = {"format": FORMAT, "version": 1, "pattern": tokenizer.pattern}
    value["specials"] = list(tokenizer.specials)
    if tokenizer.byte_order != bytes(range(256)):
        value["byte_order"] = list(tokenizer.byte_order)
    if tokenizer.chat_template is not None:
        value["chat_template"] = tokenizer.chat_template
    write_json(_file(path), value | {"merges": [f"{left} {right}" for left, right in tokenizer.merges]})


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path / FILE if path.is_dir() or not path.suffix else path


def load(path: Path | str) -> Tokenizer:
    """Returns the tokenizer in a file, or in a folder's tokenizer.json. Raises: TokenizerError saying what is wrong."""
    path = _file(path)
    if not path.exists():
        raise TokenizerError(f"{path}: no such tokenizer; make one with `groundup tokenizer train`")
    try:
        value = read_json(path)
    except DataError as error:
        raise TokenizerError(str(error)) from error
    if isinstance(value, dict) and isinstance(value.get("model"), dict):
        raise TokenizerError(
            f"{path}: a tokenizer of Hugging Face's format, not of groundup; only our own can be loaded"
        )
    for key, kind in KEYS.items():
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise TokenizerError(f"{path}: not a tokenizer of groundup (no '{key}' in it)")
    if value["format"] != FORMAT or value["version"] != 1:
        raise TokenizerError(f"{path}: format {value['format']} {value['version']}; this groundup reads {FORMAT} 1")
    try:
        merges = [(int(left), int(right)) for left, right in (merge.split() for merge in value["merges"])]
        order = bytes(value.get("byte_order", range(256)))
        names, template = value["specials"], value.get("chat_template")
        if not all(isinstance(name, str) for name in names) or not isinstance(template, str | None):
            raise TypeError
        return Tokenizer(merges, names, value["pattern"], order, template)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise TokenizerError(f"{path}: corrupt (expected pairs of ids, names of specials, 256 bytes)") from error


def alphabet() -> list[str]:
    """Returns the printable character that stands for each byte in GPT-2's files: itself if visible, else U+0100 on.

    Source: Radford et al. 2019, encoder.py
    """
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(256 + hidden.index(byte)) if byte in hidden else chr(byte) for byte in range(256)]


def read_merges(path: Path | str, pattern: str = "gpt2", specials: tuple[str, ...] = (EOT,)) -> Tokenizer:
    """Returns the tokenizer of a GPT-2 style merges file (vocab.bpe, merges.txt).

    Raises: TokenizerError naming the line. Such files number the bytes in the order of their printable characters.
    """
    letters = alphabet()
    order = bytes(sorted(range(256), key=lambda byte: (ord(letters[byte]) >= 256, byte)))
    ids = {letters[byte]: i for i, byte in enumerate(order)}
    merges: list[tuple[int, int]] = []
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            line = line.rstrip("\n")
            if not line or (number == 1 and line.startswith("#version")):
                continue
            parts = line.split(" ")
            if len(parts) != 2 or parts[0] not in ids or parts[1] not in ids or "".join(parts) in ids:
                raise TokenizerError(f"{path}, line {number}: expected a merge of two tokens that are already known")
            merges.append((ids[parts[0]], ids[parts[1]]))
            ids["".join(parts)] = len(ids)
    return Tokenizer(merges, specials, pattern, order)


def to_ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Returns what tiktoken.Encoding calls mergeable_ranks: each token's bytes with its id, specials apart."""
    return {tokenizer.token_bytes(i): i for i in range(256 + len(tokenizer.merges))}


def to_huggingface(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the content of a Hugging Face tokenizer.json whose ids equal ours, for any text.

    Raises: TokenizerError if two merges spell the same token, which that format can't hold (training never makes such).
    """
    letters = alphabet()
    names = ["".join(letters[byte] for byte in tokenizer.token_bytes(i)) for i in range(256 + len(tokenizer.merges))]
    vocabulary = {name: i for i, name in enumerate(names)}
    if len(vocabulary) < len(names):
        raise TokenizerError("two merges spell the same token, which Hugging Face's format can't hold")
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    if (pattern := PATTERNS[tokenizer.pattern]) is not None:
        first = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        split = {"type": "Sequence", "pretokenizers": [first, split]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": i, "content": name} | flags for name, i in tokenizer.specials.items()],
        "pre_tokenizer": split,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary, "merges": [[names[left], names[right]] for left, right in tokenizer.merges],
        },
    }  # fmt: skip


def huggingface_files(tokenizer: Tokenizer, end: str = EOT, context: int | None = None) -> dict[str, dict[str, Any]]:
    """Returns file name -> JSON content of what transformers needs to load this tokenizer, chat template included.

    `end` is the special that ends a generation: <|endoftext|> for a base model, <|end|> for a chat model.
    """
    tokenizer.special(end)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": EOT, "eos_token": end, "pad_token": EOT,
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    if context is not None:
        config["model_max_length"] = context
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    return {FILE: to_huggingface(tokenizer), "tokenizer_config.json": config}


def find(project: Path, name: str = "main") -> Path:
    """Returns the tokenizer file that a user means by a file, a folder that holds one, or a project."""
    if project.is_file() or (project / FILE).exists():
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
