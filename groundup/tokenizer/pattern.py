r"""Where words end: the regular expressions that cut a text into pieces before any merge, by name.

No token crosses a piece's edge, so the pattern decides what a token can be. One table serves training and encoding:
a tokenizer used with another pattern than it was trained with would be a different, worse one.
"""

import difflib
import functools
from collections.abc import Callable, Iterator

from groundup.base.errors import TokenizerError

__all__ = ["PATTERNS", "blocks", "check", "splitter"]

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

# A line feed between two characters that aren't white space ends a piece in every pattern above, and what precedes it
# is split the same with or without what follows; the one exception is o200k's signs that may run on into a slash. So a
# long text can be cut there without changing a single piece.
SAFE_CUT = r"(?<=\S)\n(?=[^\s/])"
BLOCK = 1 << 20  # characters: what is split at once, so that a book doesn't become millions of strings in memory


def check(name: str) -> None:
    """Raises: TokenizerError for a pattern of another name, with the nearest."""
    if name not in PATTERNS:
        near = difflib.get_close_matches(name, PATTERNS, 1)
        raise TokenizerError(
            f"pattern '{name}': " + (f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(PATTERNS)}")
        )


@functools.cache
def splitter(name: str) -> Callable[[str], list[str]]:
    """Returns the function that cuts a text into its pieces; joined, they are the text again.

    Raises: TokenizerError for an unknown name.
    Equal to: groundup.tokenizer.plain.split
    """
    check(name)
    pattern = PATTERNS[name]
    if pattern is None:
        return lambda text: [text] if text else []
    import regex

    return regex.compile(pattern).findall


@functools.cache
def _safe_cut():  # type: ignore[no-untyped-def]
    import regex

    return regex.compile(SAFE_CUT)


def blocks(text: str, size: int = BLOCK) -> Iterator[str]:
    """Yields a long text in blocks of about `size` characters, cut only where no piece can be changed by the cut."""
    start = 0
    while len(text) - start > size:
        found = _safe_cut().search(text, start + size)
        if found is None:
            break
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:] if start else text
