"""What kind of character each code point is, as a table that a compiled splitter can look up."""

import functools

import numpy as np

from groundup.tokenizer.pattern import RULES

__all__ = [
    "LEAD", "LETTER", "LOWER", "MARK", "NEWLINE", "NUMBER", "SIGN", "SPACE", "UPPER", "WHITE", "kinds", "rules_of", "table",
]  # fmt: skip

# A sign is whatever is nothing else. From SPACE on all are white space.
SIGN, UPPER, LOWER, LETTER, MARK, NUMBER, SPACE, WHITE, NEWLINE = range(9)
CLASSES = {UPPER: r"\p{Lu}\p{Lt}", LOWER: r"\p{Ll}", LETTER: r"\p{Lm}\p{Lo}", MARK: r"\p{M}", NUMBER: r"\p{N}",
           WHITE: r"\s", SPACE: " ", NEWLINE: r"\r\n"}  # fmt: skip
CODE_POINTS, PAGE = 0x110000, 128
LEAD = 4  # bits of the rules: contractions in the lowest two, then LEAD, then the digits


def rules_of(pattern: str) -> tuple[int, np.ndarray]:
    """Returns a named pattern's rules as one integer, and its table of kinds."""
    contractions, lead, digits, fold = RULES[pattern]
    return contractions | LEAD * lead | digits << 3, table(fold)


@functools.cache
def kinds() -> np.ndarray:
    """Returns the kind of each code point, as the `regex` module has it: the tables are of its Unicode version."""
    import regex

    codes = np.arange(CODE_POINTS, dtype="<u4")
    text = codes.tobytes().decode("utf-32-le", "surrogatepass")
    found = np.zeros(CODE_POINTS, np.uint8)
    for kind, members in CLASSES.items():
        for run in regex.finditer(f"[{members}]+", text):
            found[run.start() : run.end()] = kind
    return found


@functools.cache
def table(fold: tuple[int, ...]) -> np.ndarray:
    """Returns the kinds in two stages, in one array of bytes, with kind k replaced by fold[k].

    First the 128 kinds of ASCII; then, as uint16, the number of each page of 128 code points; then the different pages.
    """
    folded = np.array(fold, np.uint8)[kinds()]
    pages, numbers = np.unique(folded.reshape(-1, PAGE), axis=0, return_inverse=True)
    parts = folded[:PAGE], numbers.astype(np.uint16).ravel().view(np.uint8), pages.ravel()
    return np.concatenate(parts)
