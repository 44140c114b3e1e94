"""Hugging Face's tokenizer.json, both ways, with the chat template and the roles of special tokens beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import open_text, read_json
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.foreign import Foreign, alphabet, assemble, labels
from groundup.tokenizer.pattern import CUSTOM, PATTERNS

__all__ = ["from_huggingface", "huggingface_files", "read_huggingface", "to_huggingface"]

FILE = "tokenizer.json"
# GPT-2's pattern in the gaps between digits: white space before a digit ends its gap, and stays together.
DIGITS = r"{}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?=\p{{N}})|\s+(?!\S)|\s+"


def to_huggingface(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the content of a Hugging Face tokenizer.json whose ids equal ours, for any text.

    Raises: TokenizerError if two merges spell the same token, which that format can't hold (training never makes such).
    """
    letters, ids = alphabet(), labels(tokenizer)
    names = ["".join(letters[byte] for byte in tokenizer.token_bytes(i)) for i in ids]
    vocabulary = dict(zip(names, ids, strict=True))
    if len(vocabulary) < len(names):
        raise TokenizerError("two merges spell the same token, which Hugging Face's format can't hold")
    if isinstance(tokenizer, Foreign):  # an added token that isn't in the vocabulary would be numbered anew, behind it
        vocabulary |= {"".join(letters[byte] for byte in token): i for token, i in tokenizer.spare.items()}
        vocabulary |= tokenizer.specials
        vocabulary = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    if (pattern := PATTERNS.get(tokenizer.pattern, tokenizer.pattern.removeprefix(CUSTOM))) is not None:
        first = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        split = {"type": "Sequence", "pretokenizers": [first, split]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "post_processor": None,
        "normalizer": {"type": tokenizer.normal} if tokenizer.normal else None,
        "added_tokens": [{"id": i, "content": name} | flags for name, i in tokenizer.specials.items()],
        "pre_tokenizer": split,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": tokenizer.whole_words,
            "vocab": vocabulary, "merges": [[names[left], names[right]] for left, right in tokenizer.merges],
        },
    }  # fmt: skip


def huggingface_files(tokenizer: Tokenizer, end: str = EOT, context: int | None = None) -> dict[str, dict[str, Any]]:
    """Returns file name -> JSON content of what transformers needs to load this tokenizer, chat template included.

    `end` is the special that ends a generation: <|endoftext|> for a base model, <|end|> for a chat model.
    """
    tokenizer.special(end)
    begin = tokenizer.begin if isinstance(tokenizer, Foreign) else EOT
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": begin, "eos_token": end, "pad_token": begin,
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    if context is not None:
        config["model_max_length"] = context
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    return {FILE: to_huggingface(tokenizer), "tokenizer_config.json": config}


def read_huggingface(path: Path | str) -> Tokenizer:
    """Returns the tokenizer of a Hugging Face folder, or of a tokenizer.json and what lies beside it.

    A folder of the older form, vocab.json and merges.txt, will do too.
    Raises: TokenizerError naming the file and what in it we can't follow.
    """
    path = Path(path)
    folder, file = (path, path / FILE) if path.is_dir() else (path.parent, path)
    try:
        config = _beside(folder, "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        if template.exists():
            config["chat_template"] = template.read_text(encoding="utf-8")
        content = read_json(file) if file.exists() else _older(folder, config)
        return from_huggingface(content, config)
    except (DataError, UnicodeDecodeError) as error:
        raise TokenizerError(str(error)) from error
    except TokenizerError as error:
        raise TokenizerError(f"{file if file.exists() else folder}: {error}") from error


def _beside(folder: Path, name: str) -> dict[str, Any]:
    """Returns the JSON object in a file, or {} where there is none."""
    content = read_json(folder / name) if (folder / name).exists() else {}
    return content if isinstance(content, dict) else {}


# What vocab.json and merges.txt don't say, and the class that reads them knows: the pattern and the normal form.
OLDER = {"GPT2Tokenizer": ("gpt2", None), "Qwen2Tokenizer": ("qwen2", "NFC")}


def _older(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content that a tokenizer.json would have for a folder with vocab.json and merges.txt."""
    kind = str(config.get("tokenizer_class", "GPT2Tokenizer")).removesuffix("Fast")
    if kind not in OLDER:
        raise TokenizerError(
            f"tokenizer_class is {kind}, and there is no tokenizer.json; only {', '.join(OLDER)} do without"
        )
    vocabulary, (pattern, normal) = read_json(folder / "vocab.json"), OLDER[kind]
    with open_text(folder / "merges.txt") as stream:
        merges = [line.rstrip("\n") for line in stream if line.strip() and not line.startswith("#version")]
    added = [{"id": int(i)} | entry for i, entry in config.get("added_tokens_decoder", {}).items()]
    roles = {_name(config.get(key)) for key in ("bos_token", "eos_token", "pad_token")} | {EOT}
    known = {entry["content"] for entry in added}
    added += [
        {"id": vocabulary[name], "content": name, "special": True} for name in roles - known if name in vocabulary
    ]
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated"}
    pieces = {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "use_regex": False}]}
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return {"model": model, "added_tokens": added, "pre_tokenizer": pieces, "normalizer": normal and {"type": normal}}


def from_huggingface(content: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Tokenizer:
    """Returns the tokenizer of a tokenizer.json's content; `config` is that of tokenizer_config.json.

    Added tokens become specials. `encode(text, "all")` gives the ids that theirs gives with add_special_tokens=False.
    Raises: TokenizerError for another kind than byte-level BPE, or a setting that would give other ids.
    """
    model, config = _model(content), config or {}
    specials = _specials(content.get("added_tokens") or [])
    byte_of = {letter: byte for byte, letter in enumerate(alphabet())}
    vocabulary, merges = model["vocab"], model["merges"]
    try:
        tokens = {bytes(byte_of[c] for c in name): int(i) for name, i in vocabulary.items() if name not in specials}
        pairs = [
            (bytes(byte_of[c] for c in left), bytes(byte_of[c] for c in right)) for left, right in map(_pair, merges)
        ]
    except KeyError as error:
        raise TokenizerError(f"a token holds {error}, which isn't in GPT-2's alphabet of bytes") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise TokenizerError("the vocabulary or the merges are corrupt") from error
    if doubled := [name for name, i in specials.items() if vocabulary.get(name, i) != i]:
        raise TokenizerError(f"the added token '{doubled[0]}' has another id in the vocabulary")
    begin, end = _roles(config, specials)
    return assemble(tokens, pairs, specials, _pattern(content.get("pre_tokenizer")), _template(config),
                    whole_words=bool(model.get("ignore_merges")), normal=_normal(content.get("normalizer")),
                    begin=begin, end=end)  # fmt: skip


def _pair(merge: Any) -> list[str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return [left, right]


def _model(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the part `model`. Raises: TokenizerError for a kind that isn't byte-level BPE, saying which."""
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), Mapping | list):
        raise TokenizerError("not a tokenizer.json of Hugging Face (no model with a vocabulary in it)")
    kind = model.get("type", "BPE")
    if kind != "BPE" or not isinstance(model.get("merges"), list):
        raise TokenizerError(f"a {kind} tokenizer; only byte-level BPE can be read (GPT-2, Llama 3, Qwen)")
    if model.get("byte_fallback"):
        raise TokenizerError("a sentencepiece tokenizer (byte_fallback); only byte-level BPE can be read")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise TokenizerError(f"{key} is {model[key]!r}, which byte-level BPE as GPT-2's doesn't have")
    if len(set(model["vocab"].values())) < len(model["vocab"]):
        raise TokenizerError("two tokens of the vocabulary have the same id")
    return model


def _specials(added: list[Any]) -> dict[str, int]:
    """Returns name -> id of the added tokens. Raises: TokenizerError for one that we can't treat alike."""
    specials: dict[str, int] = {}
    for entry in sorted(added, key=lambda entry: entry["id"]):
        name = entry["content"]
        for flag in ("lstrip", "rstrip", "single_word"):
            if entry.get(flag):
                raise TokenizerError(f"the added token '{name}' looks at what stands beside it ({flag}), ours don't")
        if not entry.get("special") and (name.isspace() or name.isalnum()):
            raise TokenizerError(
                f"the added token {name!r} is ordinary text, which would be cut before the pattern does"
            )
        specials[name] = int(entry["id"])
    return specials


def _pattern(splitter: Mapping[str, Any] | None) -> str:
    """Returns our name of the pattern, or the regular expression. Raises: TokenizerError for other ways to split."""
    kinds = splitter["pretokenizers"] if splitter and splitter["type"] == "Sequence" else [splitter or {}]
    names = [kind.get("type") for kind in kinds]
    if names[-1:] != ["ByteLevel"]:
        raise TokenizerError(f"text is split by {' and '.join(map(str, names))}; only byte-level BPE can be read")
    if kinds[-1].get("add_prefix_space"):
        raise TokenizerError("it puts a space before the text (add_prefix_space), which ours never do")
    own = kinds[-1].get("use_regex", True)
    if names == ["ByteLevel"]:
        return "gpt2" if own else "bytes"
    first = kinds[0]
    if names == ["Digits", "ByteLevel"] and own:  # as StarCoder and SmolLM: digits are cut out, then GPT-2's pattern
        return CUSTOM + DIGITS.format(r"\p{N}" if first.get("individual_digits") else r"\p{N}+")
    expression = first.get("pattern", {}).get("Regex") if names == ["Split", "ByteLevel"] else None
    whole = (first.get("behavior"), bool(first.get("invert"))) in (("Isolated", False), ("Removed", True))
    if own or expression is None or not whole:
        raise TokenizerError(f"text is split by {', '.join(map(str, names))} in a way that one pattern can't express")
    return next((name for name, known in PATTERNS.items() if known == expression), CUSTOM + expression)


def _normal(normalizer: Mapping[str, Any] | None) -> str | None:
    """Returns the Unicode normal form, or None. Raises: TokenizerError for other changes to the text."""
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    kinds = [step["type"] for step in steps if step]
    if len(kinds) > 1 or not {"NFC", "NFD", "NFKC", "NFKD"}.issuperset(kinds):
        raise TokenizerError(f"it changes the text by {', '.join(kinds)} before encoding, which ours don't")
    return kinds[0] if kinds else None


def _name(token: Any) -> str | None:
    return token.get("content") if isinstance(token, Mapping) else token


def _roles(config: Mapping[str, Any], specials: Mapping[str, int]) -> tuple[str, str]:
    """Returns the specials that begin a document and end an answer."""
    first, last = _name(config.get("bos_token")), _name(config.get("eos_token"))
    candidates = [name for name in (first, EOT, "<|begin_of_text|>", "<s>", last, *specials) if name in specials]
    begin = candidates[0] if candidates else EOT
    ends = [name for name in (last, EOT, begin) if name in specials]
    return str(begin), str(ends[0] if ends else EOT)


def _template(config: Mapping[str, Any]) -> str | None:
    """Returns the chat template: the only one, or of several that are named the default."""
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if template is not None and not isinstance(template, str):
        raise TokenizerError("the chat template isn't a text")
    return template
