"""The same pieces as split.py's, two thousand bytes at a time: what each byte is, where pieces start, their places.

Each step is a loop without branches over all bytes, which the compiler turns into vector instructions. What needs a look
further is marked for a second look, byte by byte. A block that holds what this can't do (white space or digits
outside ASCII, or all of o200k) is left to the state machine.
"""

import numpy as np

from groundup.tokenizer.kernels.machine import first_bit, kernel, load8, load64, part, store8, word64
from groundup.tokenizer.kernels.split import HIGH_BITS, contraction, kind_at, next_piece
from groundup.tokenizer.kernels.unicode import LEAD, LETTER, NUMBER, SIGN, SPACE

__all__ = ["BLOCK", "ends", "ends_slowly", "pieces", "rooms"]

BLOCK = 2048
MARGIN = 8  # bytes looked at beyond a block
BEFORE = 4  # bytes before the first in `flags`
L, N, S, W, O, R, FOREIGN = 1, 2, 4, 8, 16, 32, 64  # noqa: E741 - letter, number, space, white, sign, line end, not ASCII
SPREAD = np.uint64(0x0102040810204080)  # times eight bytes of 0 or 1: their bits side by side in the highest byte


@kernel
def rooms():
    """Returns the arrays that `pieces` works in: ends of pieces, flags of bytes, starts, marks for a second look."""
    size = BLOCK + 256
    return np.zeros(size, np.int64), np.zeros(size, np.uint8), np.zeros(size, np.uint8), np.zeros(size, np.uint8)


@part
def classify(text, size, rules, flags):
    """Writes what each byte is; returns all flags together."""
    seen = np.uint8(0)
    line = np.uint8(R if rules & LEAD else W)
    for i in range(size):
        c = text[i]
        folded = np.uint8(c | np.uint8(32))
        letter = (folded >= np.uint8(97)) & (folded <= np.uint8(122))
        number = (c >= np.uint8(48)) & (c <= np.uint8(57))
        white = (c >= np.uint8(9)) & (c <= np.uint8(13))
        end = (c == np.uint8(10)) | (c == np.uint8(13))
        flag = np.uint8(O)
        flag = np.uint8(L) if letter else flag
        flag = np.uint8(N) if number else flag
        flag = np.uint8(W) if white else flag
        flag = line if end else flag
        flag = np.uint8(S) if c == np.uint8(32) else flag
        flag = np.uint8(FOREIGN) if c >= np.uint8(128) else flag
        flags[i] = flag
        seen |= flag
    return seen


@part
def words_only(size, flags):
    """For the pattern "whitespace": whatever isn't white space is one kind."""
    for i in range(BEFORE, BEFORE + size):
        flags[i] = np.uint8(O) if flags[i] & np.uint8(L | N | O) else flags[i]


@part
def foreign(text, start, size, stop, rules, kinds, flags):
    """Writes the flags of characters outside ASCII; returns False for what a byte's neighbours can't tell."""
    i, end, into = start, start + size, flags.ctypes.data + BEFORE - start
    while i < end:
        high = word64(text, i) & HIGH_BITS
        if high == 0:
            i += 8
            continue
        i += first_bit(high) >> 3
        if i >= end:
            break
        found = kind_at(text, i, kinds)
        kind, length = found & 15, found >> 4
        if kind >= SPACE or (kind == NUMBER and rules & LEAD):
            return False
        flag = np.int64(L) if kind == LETTER else np.int64(N) if kind == NUMBER else np.int64(O)
        first, rest = flag, flag
        # One sign alone may lead a word. Then only its first byte counts as a sign, so that it looks like one of ASCII.
        alone = kind == SIGN and rules & LEAD and not load8(into, i - 1) & (O | S) and i + length < stop
        if alone and kind_at(text, i + length, kinds) & 15 == LETTER:
            rest = np.int64(L)
        store8(into + i, 0, first)
        store8(into + i + 1, 0, rest)
        if length > 2:
            store8(into + i + 2, 0, rest)
            if length > 3:
                store8(into + i + 3, 0, rest)
        i += length
    return True


@part
def starts_gpt2(size, text, befores, flags, afters, starts, again):
    """Marks where pieces start: at a change of kind, but not behind a space; white space, but for its last byte, is one."""
    solid = np.uint8(L | N | O)
    for i in range(size):
        before, here, after = befores[i], flags[i], afters[i]
        word = ((here & solid) != 0) & (before != here) & (before != np.uint8(S))
        white = ((here & solid) == 0) & (((before | after) & solid) != 0)
        starts[i] = np.uint8(word | white)
        again[i] = np.uint8(text[i] == np.uint8(39))


@part
def starts_gpt4(size, digits, text, thirds, firsts, befores, flags, afters, starts, again):
    """The same for the patterns in which any sign may lead a word and line ends stand apart."""
    each = np.uint8(N if digits == 1 else 0)
    three = np.uint8(N if digits == 3 else 0)
    for i in range(size):
        first, before, here, after = firsts[i], befores[i], flags[i], afters[i]
        blank = (here & np.uint8(S | W)) != 0
        letter = ((before & np.uint8(R | N)) != 0) | (((before & np.uint8(O)) != 0) & ((first & np.uint8(O | S)) != 0))
        sign = (before & np.uint8(O | S)) == 0
        number = ((before & np.uint8(N)) == 0) | ((here & each) != 0)
        line = (before & np.uint8(L | N)) != 0
        white = ((before & np.uint8(L | N | O | R)) != 0) | ((after & np.uint8(L | N | O)) != 0)
        starts[i] = np.uint8(
            (((here & np.uint8(L)) != 0) & letter)
            | (((here & np.uint8(O)) != 0) & sign)
            | (((here & np.uint8(N)) != 0) & number)
            | (((here & np.uint8(R)) != 0) & line)
            | (blank & white)
        )
        fourth = (here & before & first & three & ~thirds[i]) != 0
        quote = text[i] == np.uint8(39)
        again[i] = np.uint8(quote | (blank & ((before & np.uint8(R)) != 0)) | fourth)


@part
def look_again(text, start, size, stop, rules, flags, starts, again):
    """Corrects the starts at contractions, at numbers of more than three digits, and at white space behind a line end."""
    marks = again.ctypes.data
    for group in range(0, size, 8):
        word = load64(marks + group, 0)
        while word:
            i = group + (first_bit(word) >> 3)
            word &= word - np.uint64(1)
            at = BEFORE + i
            if i >= size:
                break
            if flags[at] & np.uint8(N):
                k = at + 1
                while flags[k] & np.uint8(N):
                    starts[k - BEFORE] = 1
                    if not (flags[k + 1] & flags[k + 2] & np.uint8(N)):
                        break
                    k += 3
            elif flags[at] & np.uint8(S | W):
                k = at - 1
                while flags[k] & np.uint8(R):
                    k -= 1
                if not flags[k] & np.uint8(O):  # else the line ends belong to the sign before them
                    k = at
                    while flags[k] & np.uint8(S | W):
                        k += 1
                    if flags[k] & np.uint8(R):
                        starts[i] = 0
            elif starts[i]:
                length = contraction(text, start + i, stop, rules & 3 == 2)
                for k in range(i + 1, i + length):
                    starts[k] = 0
                if length:
                    starts[i + length] = 1


@part
def block(buffer, start, stop, rules, kinds, ends, flags, starts, again):
    """Writes the ends of the pieces of one block; returns their number, 0 if the state machine has to do it."""
    size, text, here, bytes_ = min(BLOCK + MARGIN, stop - start), buffer.ctypes.data, flags[BEFORE:], buffer[start:]
    whole = start + size == stop
    for k in range(BEFORE):
        flags[k] = np.uint8(L)
    flags[BEFORE - 1] = np.uint8(W)
    seen = classify(bytes_, size, rules, here)
    if seen & np.uint8(FOREIGN) and not foreign(text, start, size, stop, rules, kinds, flags):
        return 0
    for k in range(BEFORE + size, BEFORE + size + 72):
        flags[k] = np.uint8(W)
    if rules == 0:
        words_only(size, flags)
    if rules & LEAD:
        starts_gpt4(size, rules >> 3, bytes_, flags[BEFORE - 3 :], flags[BEFORE - 2 :], flags[BEFORE - 1 :], here,
                    flags[BEFORE + 1 :], starts, again)  # fmt: skip
    else:
        starts_gpt2(size, bytes_, flags[BEFORE - 1 :], here, flags[BEFORE + 1 :], starts, again)
    for k in range(size, (size + 79) & ~7):
        starts[k] = again[k] = 0
    starts[0] = 1
    if rules & 3 or rules & LEAD:
        look_again(text, start, size, stop, rules, flags, starts, again)
    for k in range(size, size + 8):
        starts[k] = 0
    count, marked = 0, starts.ctypes.data
    for group in range(0, size, 64):
        bits = np.uint64(0)
        for k in range(8):
            bits |= ((load64(marked + group, k) * SPREAD) >> np.uint64(56)) << np.uint64(8 * k)
        while bits:
            ends[count] = start + group + first_bit(bits)
            count += 1
            bits &= bits - np.uint64(1)
    if whole:
        ends[count] = stop
        return count
    return max(count - 2, 0)  # the last two may look different with what follows


@kernel
def pieces(buffer, start, stop, rules, kinds, ends, flags, starts, again):
    """Writes the edges of the next pieces from byte `start` on, that first; returns how many pieces they are."""
    count = 0
    if rules & 3 != 3 and start < stop:
        count = block(buffer, start, stop, rules, kinds, ends, flags, starts, again)
    if count == 0:
        ends[0] = start
        while count < BLOCK and ends[count] < min(start + BLOCK, stop):
            ends[count + 1] = next_piece(buffer.ctypes.data, ends[count], stop, rules, kinds)
            count += 1
    return count


@kernel
def ends(buffer, start, stop, rules, kinds, out):
    """Writes the end of each piece of buffer[start:stop] into `out`; returns how many there are."""
    kinds_, done = kinds.ctypes.data, 0
    found, flags, starts, again = rooms()
    while start < stop:
        count = pieces(buffer, start, stop, rules, kinds_, found, flags, starts, again)
        for k in range(1, count + 1):
            out[done] = found[k]
            done += 1
        start = found[count]
    return done


@kernel
def ends_slowly(buffer, start, stop, rules, kinds, out):
    """The same by the state machine alone."""
    text, kinds_, done = buffer.ctypes.data, kinds.ctypes.data, 0
    while start < stop:
        start = next_piece(text, start, stop, rules, kinds_)
        out[done] = start
        done += 1
    return done
