"""What each Unicode character is, as a table of bits that the kernels look up; made once a process from Python's own answers."""

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ALPHA",
    "BREAK",
    "DIGIT",
    "JOIN",
    "LOWER",
    "PUNCTUATION",
    "SPACE",
    "STOP",
    "UPPER",
    "WORD",
    "classes",
    "letters",
]

SPACE, WORD, ALPHA, DIGIT, UPPER, LOWER, BREAK, PUNCTUATION, STOP, JOIN = (1 << bit for bit in range(10))
# The marks that Gopher's rules don't count as words. Source: CCNet's list (Wenzek et al. 2019), as datatrove has it.
MARKS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
CONTROLS = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
JOINERS = "!\"#$%&'()*+,./:;<=>?@[\\]^`{|}~’"  # between letters they cut no word: ASCII's marks without the hyphen
ASSIGNED = 0x40000  # no letter, mark or space has a higher code point
BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines cuts


@functools.cache
def classes() -> "np.ndarray":
    """Returns the bits of every code point. Shape: (0x110000,) uint16."""
    import numpy as np
    import regex

    every = "".join(map(chr, range(ASSIGNED)))
    table = np.zeros(0x110000, np.uint16)
    for bit, pattern in (
        (SPACE, r"\s+"),
        (WORD, r"\w+"),
        (DIGIT, r"\d+"),
        (STOP | PUNCTUATION, r"\p{Sentence_Terminal}+"),
    ):
        for run in regex.finditer(pattern, every) if bit & STOP else re.finditer(pattern, every):
            table[run.start() : run.end()] |= bit
    letters = [c for run in re.findall(r"\w+", every) for c in run if c.isalpha()]
    for bit, found in ((ALPHA, letters), (UPPER, filter(str.isupper, letters)), (BREAK, BREAKS), (PUNCTUATION, MARKS + CONTROLS),
                       (JOIN, JOINERS), (LOWER, (c for c in letters if c.islower() or (c.istitle() and not c.isupper())))):  # fmt: skip
        table[np.array(list(map(ord, found)))] |= bit
    return table


@functools.cache
def letters() -> "np.ndarray":
    """Returns the small form of every code point that stands in words, 0 for all others. Shape: (0x110000,) uint32.

    Not for I with a dot above, whose small form is two code points, nor for Sigma, whose depends on its place.
    """
    import numpy as np

    small = (
        "".join(map(chr, range(ASSIGNED))).replace("\u0130", "i").lower()
    )  # no surrogate joins another here: it isn't UTF-16
    codes = np.frombuffer(small.encode("utf-32-le", "surrogatepass"), np.uint32)
    table = np.zeros(0x110000, np.uint32)
    table[:ASSIGNED] = np.where(classes()[:ASSIGNED] & WORD, codes, 0)
    return table
