"""tiktoken's files: one token a line, its bytes in base64 and its rank; and GPT-2's older files of merges."""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path

from groundup.base.errors import TokenizerError
from groundup.base.files import open_text, write_text
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.foreign import Foreign, alphabet, assemble, labels

__all__ = ["from_ranks", "is_ranks", "pattern_of", "read_merges", "read_ranks", "to_ranks", "write_ranks"]

# What files of ranks are called, and the pattern they were trained with.
PUBLISHED = {"gpt2": "gpt2", "r50k": "gpt2", "p50k": "gpt2", "cl100k": "cl100k", "o200k": "o200k", "qwen": "qwen2",
             "tokenizer.model": "cl100k", "llama": "cl100k"}  # fmt: skip


def from_ranks(ranks: Mapping[bytes, int], specials: Mapping[str, int] | None = None, pattern: str = "cl100k",
               begin: str = EOT, end: str = EOT) -> Tokenizer:  # fmt: skip
    """Returns the tokenizer of what tiktoken.Encoding calls mergeable_ranks, with equal ids.

    The files don't tell the pattern nor the specials. None for `specials`: <|endoftext|> alone, at the first free id.
    Raises: TokenizerError if a byte has no rank.
    """
    if specials is None:
        specials = {EOT: max(ranks.values(), default=-1) + 1}
    return assemble(ranks, None, specials, pattern, whole_words=True, begin=begin, end=end)


def to_ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Returns what tiktoken.Encoding calls mergeable_ranks: each token's bytes with its id, specials apart.

    Raises: TokenizerError if tiktoken would join other pairs than we do, or the text is normalised first.
    """
    ranks = {tokenizer.token_bytes(i): i for i in labels(tokenizer)}
    if isinstance(tokenizer, Foreign):
        ranks |= tokenizer.spare
        if tokenizer.normal:
            raise TokenizerError(
                f"tiktoken doesn't bring text into the form {tokenizer.normal}, as this tokenizer does"
            )
        again = from_ranks(ranks, tokenizer.specials, tokenizer.pattern)
        same = (again.merges, again.spare) == (tokenizer.merges, tokenizer.spare)
        if not same or (again.spare and not tokenizer.whole_words):
            raise TokenizerError("tiktoken joins in the order of the ids, which isn't how this tokenizer's merges go")
    return ranks


def write_ranks(tokenizer: Tokenizer, path: Path | str) -> None:
    """Writes a .tiktoken file, atomically. Raises: TokenizerError as `to_ranks` does."""
    ranks = sorted(to_ranks(tokenizer).items(), key=lambda item: item[1])
    write_text(path, "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks))


def read_ranks(path: Path | str) -> dict[bytes, int]:
    """Returns the ranks in a .tiktoken file. Raises: TokenizerError naming the line."""
    ranks: dict[bytes, int] = {}
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                expected = "expected a token in base64 and its rank"
                raise TokenizerError(f"{path}, line {number}: {expected}, as tiktoken writes them") from error
    return ranks


def is_ranks(path: Path) -> bool:
    """Returns whether a file begins as tiktoken's do: a token in base64 and its rank."""
    with open(path, "rb") as stream:
        return re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", stream.read(1 << 12)) is not None


def pattern_of(path: Path) -> str:
    """Returns the pattern that belongs to a .tiktoken file of this name; such files don't hold it.

    Raises: TokenizerError for a name that nobody has given to such a file.
    """
    for name, pattern in PUBLISHED.items():
        if name in path.name.lower():
            return pattern
    raise TokenizerError(
        f"{path}: tiktoken's files don't say where words end; have one of {', '.join(PUBLISHED)} in its name"
    )


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
