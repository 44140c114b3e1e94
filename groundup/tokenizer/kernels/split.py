"""Cutting UTF-8 into pieces as the named patterns do: a state machine that reads a character at a time.

`next_piece` is the whole specification of a pattern, told apart by its `Rules`. `rules` is those in one integer.
Every text here is valid UTF-8, followed by at least `PADDING` bytes that may be read and mean nothing.
"""

import numpy as np

from groundup.tokenizer.kernels.machine import kernel, load8, load16, part, word64
from groundup.tokenizer.kernels.unicode import LEAD, LETTER, LOWER, MARK, NEWLINE, NUMBER, SIGN, SPACE, UPPER

__all__ = ["PADDING", "contraction", "kind_at", "next_piece", "safe_cut", "valid"]

PADDING = 64
PAGES = 128 + 2 * (0x110000 >> 7)  # where the pages begin in a table of kinds
HIGH_BITS = np.uint64(0x8080808080808080)
SIGNS = (1 << SIGN) | (1 << MARK)
AFTER_UPPER = (1 << LOWER) | (1 << LETTER) | (1 << MARK)


@part
def kind_at(text, i, kinds):
    """Returns the kind of the character at byte i, and its length in bytes << 4."""
    c = load8(text, i)
    if c < 0x80:
        return load8(kinds, c) | 16
    if c < 0xE0:
        point, size = (c & 31) << 6 | (load8(text, i + 1) & 63), 32
    elif c < 0xF0:
        point, size = (c & 15) << 12 | (load8(text, i + 1) & 63) << 6 | (load8(text, i + 2) & 63), 48
    else:
        point = (c & 7) << 18 | (load8(text, i + 1) & 63) << 12 | (load8(text, i + 2) & 63) << 6
        point, size = point | (load8(text, i + 3) & 63), 64
    page = load16(kinds + 128, point >> 7)
    return load8(kinds + PAGES, page << 7 | (point & 127)) | size


@part
def run(text, i, n, members, kinds):
    """Returns the end of the run, from byte i on, of characters whose kind is in the set of bits `members`."""
    while i < n:
        found = kind_at(text, i, kinds)
        if not (members >> (found & 15)) & 1:
            break
        i += found >> 4
    return i


@part
def contraction(text, i, n, any_case):
    """Returns the length of 's, 't, 're, 've, 'm, 'll or 'd at byte i, else 0."""
    if i + 1 >= n or load8(text, i) != 39:
        return 0
    c = load8(text, i + 1)
    if any_case:
        if c == 0xC5 and i + 2 < n and load8(text, i + 2) == 0xBF:
            return 3  # the long s, an s in lower case
        if 65 <= c <= 90:
            c |= 32
    if c == 115 or c == 116 or c == 109 or c == 100:
        return 2
    if i + 2 < n:
        d = load8(text, i + 2)
        if any_case and 65 <= d <= 90:
            d |= 32
        if (c == 108 and d == 108) or (c == 118 and d == 101) or (c == 114 and d == 101):
            return 3
    return 0


@kernel
def white(text, i, n, kinds, lines_apart):
    """Returns the end of a piece of white space: after the last line end, or else before the last character."""
    j, last, line_end, count = i, i, 0, 0
    while j < n:
        found = kind_at(text, j, kinds)
        if found & 15 < SPACE:
            break
        last, count = j, count + 1
        j += found >> 4
        if found & 15 == NEWLINE:
            line_end = j
    if lines_apart and line_end:
        return line_end
    return j if j >= n or count == 1 else last


@part
def cased(text, i, n, kinds):
    """Returns the end of o200k's first word at byte i, capitals* small+, or i; and the end of the capitals there.

    Letters without case, and marks, are both: where nothing small follows the capitals, the last such one is the small+.
    """
    j, both = i, i
    while j < n:
        found = kind_at(text, j, kinds)
        kind = found & 15
        if kind == LOWER:
            return run(text, j, n, AFTER_UPPER, kinds), j
        if kind not in (UPPER, LETTER, MARK):
            break
        j += found >> 4
        if kind != UPPER:
            both = j
    return both, j


@kernel
def cased_word(text, i, n, kinds):
    """Returns the end of o200k's word at byte i, what leads it and the contraction behind it included; i if none."""
    found = kind_at(text, i, kinds)
    kind, j = found & 15, i + (found >> 4)
    if kind in (NEWLINE, NUMBER):
        return i
    end, capitals = i, i
    if kind in (UPPER, LOWER, LETTER):
        end, capitals = cased(text, i, n, kinds)
    else:
        small, capitals = cased(text, j, n, kinds)
        if small > j:
            end = small
        elif kind == MARK:
            end = j
        elif capitals == j:
            capitals = i
    if end == i:
        end = capitals
    return end + contraction(text, end, n, True) if end > i else i


@part
def next_gpt2(text, i, n, rules, kinds):
    """Returns the end of the piece at byte i: a run of one kind, with a space before it."""
    found = kind_at(text, i, kinds)
    kind, j = found & 15, i + (found >> 4)
    if kind == SPACE and j < n:
        found = kind_at(text, j, kinds)
        kind, j = found & 15, j + (found >> 4)
    elif rules & 3 and kind == SIGN:
        size = contraction(text, i, n, False)
        if size:
            return i + size
    if kind >= SPACE:
        return white(text, i, n, kinds, False)
    return run(text, j, n, 1 << kind, kinds)


@part
def next_gpt4(text, i, n, rules, kinds):
    """Returns the end of the piece at byte i: a word and its lead, some digits, signs and line ends, or white space."""
    found = kind_at(text, i, kinds)
    kind, j = found & 15, i + (found >> 4)
    if rules & 3 == 3:
        end = cased_word(text, i, n, kinds)
        if end > i:
            return end
    elif kind == LETTER:
        return run(text, j, n, 1 << LETTER, kinds)
    else:
        size = contraction(text, i, n, True)
        if size:
            return i + size
        if kind != NUMBER and kind != NEWLINE and j < n:
            found = kind_at(text, j, kinds)
            if found & 15 == LETTER:
                return run(text, j + (found >> 4), n, 1 << LETTER, kinds)
    if kind == NUMBER:
        for _ in range((rules >> 3) - 1):
            if j < n:
                found = kind_at(text, j, kinds)
                if found & 15 == NUMBER:
                    j += found >> 4
                else:
                    break
        return j
    if kind == SPACE and j < n:
        found = kind_at(text, j, kinds)
        if (SIGNS >> (found & 15)) & 1:
            kind = SIGN
    if kind >= SPACE:
        return white(text, i, n, kinds, True)
    j = run(text, j, n, SIGNS, kinds)
    while j < n and (load8(text, j) == 10 or load8(text, j) == 13 or (rules & 3 == 3 and load8(text, j) == 47)):
        j += 1
    return j


@kernel
def next_piece(text, i, n, rules, kinds):
    """Returns the end of the piece that begins at byte i of n."""
    if rules & LEAD:
        return next_gpt4(text, i, n, rules, kinds)
    return next_gpt2(text, i, n, rules, kinds)


@kernel
def valid(buffer, start, stop):
    """Returns where the first character begins that isn't valid UTF-8, or isn't whole; `stop` if there is none."""
    text, i = buffer.ctypes.data, start
    while i < stop:
        while i + 8 <= stop and not word64(text, i) & HIGH_BITS:
            i += 8
        if i >= stop:
            break
        c = load8(text, i)
        if c < 0x80:
            i += 1
            continue
        size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
        if c < 0xC2 or c > 0xF4 or i + size > stop:
            return i
        second = load8(text, i + 1)
        least, most = 0x80, 0xBF
        if c == 0xE0:
            least = 0xA0  # else a shorter form would do
        elif c == 0xED:
            most = 0x9F  # half of a surrogate pair
        elif c == 0xF0:
            least = 0x90
        elif c == 0xF4:
            most = 0x8F  # beyond the last code point
        if second < least or second > most:
            return i
        for k in range(2, size):
            if load8(text, i + k) & 0xC0 != 0x80:
                return i
        i += size
    return stop


@kernel
def solid(text, i, kinds):
    """Returns whether the byte i belongs to a character that is neither white space nor a slash."""
    while load8(text, i) & 0xC0 == 0x80:
        i -= 1
    return load8(text, i) != 47 and kind_at(text, i, kinds) & 15 < SPACE


@kernel
def safe_cut(buffer, start, stop, kinds):
    """Returns a place from `start` on where a text can be cut without changing a piece of any pattern; `stop` if none.

    After a line feed, or before a space between two small letters of ASCII: each ends a piece in every pattern, and
    what stands before is split the same whatever follows.
    """
    text, table = buffer.ctypes.data, kinds.ctypes.data
    for i in range(start, stop - 1):
        c = load8(text, i)
        if c == 10 and i > 0 and solid(text, i - 1, table) and solid(text, i + 1, table):
            return i + 1
        if c == 32 and i > 0 and 97 <= load8(text, i - 1) <= 122 and 97 <= load8(text, i + 1) <= 122:
            return i
    return stop
