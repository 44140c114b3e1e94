r"""Where words end: the regular expressions that cut a text into pieces before any merge, by name.

No token crosses a piece's edge, so the pattern decides what a token can be. One table serves training and encoding:
a tokenizer used with another pattern than it was trained with would be a different, worse one. The compiled splitter
(split.py) knows the named patterns by their `RULES`; tests hold it to the expression on every code point.
"""

import difflib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from groundup.base.errors import TokenizerError

__all__ = ["CUSTOM", "PATTERNS", "RULES", "Rules", "blocks", "check", "splitter"]

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"

PATTERNS: dict[str, str | None] = {
    # GPT-2: letters, numbers or signs, each with at most one space before; Radford et al. 2019.
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # GPT-3.5 and GPT-4: numbers in threes, newlines apart from indentation, any one sign may lead a word.
    "cl100k": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}",
    # GPT-4o: also cuts at a change from lower to upper case, and keeps combining marks with their letters.
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}",
    # Qwen2 and Qwen3: cl100k with every digit alone, which makes arithmetic learnable for small models.
    "qwen2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}",
    # Words as a reader sees them, signs attached.
    "whitespace": r" ?\S+|\s+(?!\S)|\s+",
    # No pieces and no merges: the 256 bytes are the vocabulary.
    "bytes": None,
}
CUSTOM = "regex:"  # "regex:" and an expression of the `regex` module is a pattern too, a slower one


class Rules(NamedTuple):
    """What sets one named pattern apart from the others, for the compiled splitter."""

    contractions: int = 0  # 's, 't, 're and so on: 0 unknown, 1 in lower case, 2 in any case, 3 part of the word before
    lead: bool = False  # any one sign or white space, not only a space, may lead a word; line ends stand apart
    digits: int = 0  # at most so many digits together; 0 for any number
    # The kinds of unicode.py that the pattern tells apart: sign, upper, lower, letter, mark, number, space, white, newline
    fold: tuple[int, ...] = (0, 3, 3, 3, 0, 5, 6, 7, 8)


RULES = {
    "gpt2": Rules(1, fold=(0, 3, 3, 3, 0, 5, 6, 7, 7)),
    "cl100k": Rules(2, lead=True, digits=3),
    "o200k": Rules(3, lead=True, digits=3, fold=(0, 1, 2, 3, 4, 5, 6, 7, 8)),
    "qwen2": Rules(2, lead=True, digits=1),
    "whitespace": Rules(0, fold=(0, 0, 0, 0, 0, 0, 6, 7, 7)),
}

# A line feed between two characters that aren't white space ends a piece in every pattern above, and what precedes it
# is split the same with or without what follows; the one exception is o200k's signs that may run on into a slash. So a
# long text can be cut there without changing a single piece.
SAFE_CUT = r"(?<=\S)\n(?=[^\s/])"
BLOCK = 1 << 20  # characters: what is split at once, so that a book doesn't become millions of strings in memory


def check(name: str) -> None:
    """Raises: TokenizerError for a pattern of another name, with the nearest, or an expression that isn't one."""
    if name.startswith(CUSTOM):
        _compile(name.removeprefix(CUSTOM))
    elif name not in PATTERNS:
        near = difflib.get_close_matches(name, PATTERNS, 1)
        known = f"expected one of {', '.join(PATTERNS)}, or {CUSTOM}EXPRESSION"
        raise TokenizerError(f"pattern '{name}': " + (f"did you mean '{near[0]}'?" if near else known))


@functools.cache
def _compile(expression: str):  # type: ignore[no-untyped-def]
    import regex

    try:
        return regex.compile(expression)
    except regex.error as error:
        raise TokenizerError(f"pattern '{expression}': not a regular expression ({error})") from error


@functools.cache
def splitter(name: str) -> Callable[[str], list[str]]:
    """Returns the function that cuts a text into its pieces; joined, they are the text again.

    What a custom expression passes over is a piece of its own.
    Raises: TokenizerError for an unknown name.
    Equal to: groundup.tokenizer.plain.split
    """
    check(name)
    if name.startswith(CUSTOM):
        return functools.partial(_split, name.removeprefix(CUSTOM))
    pattern = PATTERNS[name]
    if pattern is None:
        return lambda text: [text] if text else []
    return _compile(pattern).findall


def _split(expression: str, text: str) -> list[str]:
    pieces, at = [], 0
    for match in _compile(expression).finditer(text):
        pieces += [text[at : match.start()], match.group()]
        at = match.end()
    return [piece for piece in (*pieces, text[at:]) if piece]


def blocks(text: str, size: int = BLOCK, pattern: str = "gpt2") -> Iterator[str]:
    """Yields a long text in blocks of about `size` characters, cut only where no piece can be changed by the cut.

    A text whose pattern is a custom expression comes whole.
    """
    start = 0
    while len(text) - start > size and not pattern.startswith(CUSTOM):
        found = _compile(SAFE_CUT).search(text, start + size)
        if found is None:
            break
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:] if start else text
