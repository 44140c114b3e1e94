"""MinHash signatures in compiled code: lower-case words, runs of words hashed with XXH64, the smallest value of each hash function.

The functions are datatrove's, number for number: h -> (factor * h + summand mod 2^64) mod 2^61 - 1.
Equal to: groundup.data.plain.shingles, signature. Source: Broder 1997.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.base.kernels import kernel
from groundup.data.characters import letters
from groundup.data.scan import buffer

__all__ = ["PRIME", "Signed", "hash_functions", "lower_buffer", "run_hash", "sign", "word_bytes"]

PRIME = np.uint64((1 << 61) - 1)
P1, P2, P3 = np.uint64(11400714785074694791), np.uint64(14029467366897019727), np.uint64(1609587929392839161)
P4, P5 = np.uint64(9650029242287828579), np.uint64(2870177450012600261)  # XXH64's
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
SPECIAL = "\u0130\u03a3"  # the only letters whose small form isn't one letter, the same everywhere: I with a dot, Sigma
# Runs hashed side by side, and where in their common array the lanes begin: the first 32 bytes, 24 behind them, the eight that hold a
# run's last one, its length, its hash.
LANES = 256
REST, LAST, SIZE, OUT = 4 * LANES, 7 * LANES, 8 * LANES, 9 * LANES


class Signed(NamedTuple):
    """Of each text: its MinHash numbers (texts, functions) uint64, its number of words, whether it holds one of the asked runs."""

    signatures: np.ndarray
    words: np.ndarray
    touched: np.ndarray


def hash_functions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factors and summands of `count` hash functions."""
    dice = np.random.RandomState(seed)
    return dice.randint(1, int(PRIME), count, np.uint64), dice.randint(0, int(PRIME), count, np.uint64)


def lower_buffer(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the texts as one array of UTF-8 bytes, those with a letter whose small form depends on its place in lower case;
    `word_bytes` lowers the others."""
    return buffer([text.lower() if not text.isascii() and any(c in text for c in SPECIAL) else text for text in texts])


def sign(
    texts: Sequence[str], ngram: int, functions: tuple[np.ndarray, np.ndarray], heads: np.ndarray, head_words: int
) -> Signed:
    """Returns the signatures of texts. A text without words has the largest possible numbers.

    heads: sorted hashes of runs of `head_words` words; `touched` tells which texts hold one of them.
    """
    data, offsets = lower_buffer(texts)
    signatures = np.full((len(texts), len(functions[0])), FULL)
    words, touched = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    _sign(data, offsets, letters(), ngram, *functions, heads, head_words, signatures, words, touched)
    return Signed(signatures, words, touched)


@kernel
def word_bytes(data, start, stop, letters, out, bounds):  # type: ignore[no-untyped-def]
    """Writes the words in lower case, each with a space behind it; returns their number.

    Word k lies in bounds[k]:bounds[k + 1] - 1. A byte of ASCII is written without a branch: what is no letter, the next one overwrites.
    All numbers are unsigned, for Numba looks whether a signed index counts from the end.
    """
    one, count, size, inside = np.uint64(1), np.uint64(0), np.uint64(0), np.uint64(0)
    i, end = np.uint64(start), np.uint64(stop)
    while i < end:
        c = np.uint32(data[i])
        i += one
        if c >= 0x80:  # one code point of valid UTF-8
            width = np.uint64(1 if c < 0xE0 else 2 if c < 0xF0 else 3)
            c &= np.uint32(0x3F) >> np.uint32(width)
            for _ in range(width):
                c = c << np.uint32(6) | np.uint32(data[i] & 0x3F)
                i += one
        letter = letters[c]
        word = np.uint64(letter != 0)
        out[size] = letter if word else np.uint32(32)
        bounds[count] = size
        count += word & (one ^ inside)
        if letter >= 0x80:
            size = _put(out, size, letter)
        else:
            size += word | inside
        inside = word
    if inside:
        out[size] = np.uint32(32)
        size += one
    bounds[count] = size
    return np.int64(count)


@kernel
def _put(out, at, c):  # type: ignore[no-untyped-def]
    """Writes a code point beyond ASCII as UTF-8; returns where it ends."""
    one = np.uint64(1)
    if c < 0x800:
        out[at] = 0xC0 | c >> np.uint32(6)
    else:
        if c < 0x10000:
            out[at] = 0xE0 | c >> np.uint32(12)
        else:
            out[at] = 0xF0 | c >> np.uint32(18)
            at += one
            out[at] = 0x80 | (c >> np.uint32(12) & np.uint32(63))
        at += one
        out[at] = 0x80 | (c >> np.uint32(6) & np.uint32(63))
    out[at + one] = 0x80 | (c & np.uint32(63))
    return at + np.uint64(2)


def _load(typing: Any, text: Any, at: Any) -> Any:
    """Returns the eight bytes of an array of bytes from `at` on as one number; one load, wherever they lie."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        number = builder.load(builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer()))
        number.align = 1
        return number

    return types.uint64(text, at), code


_eight: Any = intrinsic(_load)


@kernel
def _turn(x, bits):  # type: ignore[no-untyped-def]
    return x << np.uint64(bits) | x >> np.uint64(64 - bits)


@kernel
def run_hash(text, at, stop):  # type: ignore[no-untyped-def]
    """Returns the XXH64 of text[at:stop]; nothing of eight bytes is read beyond it."""
    size = np.uint64(stop - at)
    h = P5
    if stop - at >= 32:
        a, b, c, d = P1 + P2, P2, np.uint64(0), np.uint64(0) - P1
        while at <= stop - 32:
            a = _turn(a + _eight(text, at) * P2, 31) * P1
            b = _turn(b + _eight(text, at + 8) * P2, 31) * P1
            c = _turn(c + _eight(text, at + 16) * P2, 31) * P1
            d = _turn(d + _eight(text, at + 24) * P2, 31) * P1
            at += 32
        h = _turn(a, 1) + _turn(b, 7) + _turn(c, 12) + _turn(d, 18)
        for part in (a, b, c, d):
            h = (h ^ _turn(part * P2, 31) * P1) * P1 + P4
    h += size
    while at + 8 <= stop:
        h = _turn(h ^ _turn(_eight(text, at) * P2, 31) * P1, 27) * P1 + P4
        at += 8
    if at + 4 <= stop:
        h = _turn(h ^ (_eight(text, at) & np.uint64(0xFFFFFFFF)) * P1, 23) * P2 + P3
        at += 4
    while at < stop:
        h = _turn(h ^ np.uint64(text[at]) * P5, 11) * P1
        at += 1
    h = (h ^ h >> np.uint64(33)) * P2
    h = (h ^ h >> np.uint64(29)) * P3
    return h ^ h >> np.uint64(32)


@kernel
def _round(h, eight):  # type: ignore[no-untyped-def]
    return _turn(h ^ _turn(eight * P2, 31) * P1, 27) * P1 + P4


@kernel
def _hash_lanes(lanes, many):  # type: ignore[no-untyped-def]
    """Sets row OUT of the lanes to the XXH64 of each run of less than 64 bytes: every lane takes every step, and keeps what its
    length asks for, so that the loop has no branch and fills vectors."""
    for j in range(many):
        size = lanes[j + SIZE]
        a = _turn(P1 + P2 + lanes[j] * P2, 31) * P1
        b = _turn(P2 + lanes[j + LANES] * P2, 31) * P1
        c = _turn(lanes[j + 2 * LANES] * P2, 31) * P1
        d = _turn(np.uint64(0) - P1 + lanes[j + 3 * LANES] * P2, 31) * P1
        h = _turn(a, 1) + _turn(b, 7) + _turn(c, 12) + _turn(d, 18)
        h = (h ^ _turn(a * P2, 31) * P1) * P1 + P4
        h = (h ^ _turn(b * P2, 31) * P1) * P1 + P4
        h = (h ^ _turn(c * P2, 31) * P1) * P1 + P4
        h = (h ^ _turn(d * P2, 31) * P1) * P1 + P4
        h = (h if size & np.uint64(32) else P5) + size
        rest, last = size & np.uint64(31), lanes[j + LAST]
        h = _round(h, lanes[j + REST]) if rest >= np.uint64(8) else h
        h = _round(h, lanes[j + REST + LANES]) if rest >= np.uint64(16) else h
        h = _round(h, lanes[j + REST + 2 * LANES]) if rest >= np.uint64(24) else h
        four = size & np.uint64(4)
        h = _turn(h ^ (last & np.uint64(0xFFFFFFFF)) * P1, 23) * P2 + P3 if four else h
        last = last >> np.uint64(32) if four else last
        bytes_ = size & np.uint64(3)
        h = _turn(h ^ (last & np.uint64(255)) * P5, 11) * P1 if bytes_ >= np.uint64(1) else h
        h = _turn(h ^ (last >> np.uint64(8) & np.uint64(255)) * P5, 11) * P1 if bytes_ >= np.uint64(2) else h
        h = _turn(h ^ (last >> np.uint64(16) & np.uint64(255)) * P5, 11) * P1 if bytes_ >= np.uint64(3) else h
        h = (h ^ h >> np.uint64(33)) * P2
        h = (h ^ h >> np.uint64(29)) * P3
        lanes[j + OUT] = h ^ h >> np.uint64(32)


@kernel
def _hash_runs(text, bounds, runs, ngram, lanes, hashes):  # type: ignore[no-untyped-def]
    """Writes the XXH64 of each run of `ngram` words. The text goes on for 64 bytes behind the last word, whatever stands there.

    Equal to: run_hash
    """
    for begin in range(0, runs, LANES):
        many, longest = min(LANES, runs - begin), np.int64(0)
        for j in range(many):
            at = bounds[begin + j]
            size = bounds[begin + j + ngram] - 1 - at
            longest = max(longest, size)
            rest = at + (size & 32)  # what the four sums of 32 bytes leave
            for k in range(4):
                lanes[j + k * LANES] = _eight(text, at + 8 * k)
            for k in range(3):
                lanes[j + REST + k * LANES] = _eight(text, rest + 8 * k)
            lanes[j + LAST] = _eight(text, rest + (size & 24))
            lanes[j + SIZE] = np.uint64(size)
        _hash_lanes(lanes, many)
        for j in range(many):
            hashes[begin + j] = lanes[j + OUT]
        if longest >= 64:
            for k in range(begin, begin + many):
                if bounds[k + ngram] - 1 - bounds[k] >= 64:
                    hashes[k] = run_hash(text, bounds[k], bounds[k + ngram] - 1)


@kernel
def _fold(x):  # type: ignore[no-untyped-def]
    """Returns a number that leaves the same rest divided by PRIME; at most seven above it."""
    return (x & PRIME) + (x >> np.uint64(61))


@kernel
def _least(hashes, count, factors, summands, least):  # type: ignore[no-untyped-def]
    """Lowers least[k] to the smallest value of function k over the hashes, four functions at a time.

    The last step of the rest is left out, since it concerns one value in 10^17; where there may have been one, all is done again.
    """
    for k in range(0, len(factors), 4):
        k1, k2, k3 = min(k + 1, len(factors) - 1), min(k + 2, len(factors) - 1), min(k + 3, len(factors) - 1)
        a, b, c, d, most = least[k], least[k1], least[k2], least[k3], np.uint64(0)
        f, f1, f2, f3 = factors[k], factors[k1], factors[k2], factors[k3]
        s, s1, s2, s3 = summands[k], summands[k1], summands[k2], summands[k3]
        for i in range(count):
            h = hashes[i]
            w, x, y, z = _fold(h * f + s), _fold(h * f1 + s1), _fold(h * f2 + s2), _fold(h * f3 + s3)
            a, b, c, d = min(a, w), min(b, x), min(c, y), min(d, z)
            most = max(most, max(max(w, x), max(y, z)))
        if most >= PRIME:
            for i in range(count):
                h = hashes[i]
                a, b = min(a, _fold(h * f + s) % PRIME), min(b, _fold(h * f1 + s1) % PRIME)
                c, d = min(c, _fold(h * f2 + s2) % PRIME), min(d, _fold(h * f3 + s3) % PRIME)
        least[k], least[k1], least[k2], least[k3] = a, b, c, d


@kernel
def _holds(hashes, count, heads):  # type: ignore[no-untyped-def]
    """Returns whether one of the hashes is among the sorted heads."""
    for i in range(count):
        low, high = 0, len(heads)  # np.searchsorted takes a second to compile
        while low < high:
            middle = (low + high) // 2
            if heads[middle] < hashes[i]:
                low = middle + 1
            else:
                high = middle
        if low < len(heads) and heads[low] == hashes[i]:
            return True
    return False


@kernel
def _sign(data, offsets, letters, ngram, factors, summands, heads, head_words, signatures, words, touched):  # type: ignore[no-untyped-def]
    """Sets the signatures, the numbers of words, and which texts hold one of the heads."""
    longest = 8
    for k in range(len(offsets) - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    bounds = np.empty(longest + 2, np.int64)
    text = np.zeros(2 * longest + 72, np.uint8)  # words and a space behind each: at most twice the text
    hashes, lanes = np.empty(longest, np.uint64), np.empty(10 * LANES, np.uint64)
    for d in range(len(offsets) - 1):
        count = word_bytes(data, offsets[d], offsets[d + 1], letters, text, bounds)
        words[d] = count
        if count == 0:
            continue
        n = min(ngram, count)
        _hash_runs(text, bounds, count - n + 1, n, lanes, hashes)
        _least(hashes, count - n + 1, factors, summands, signatures[d])
        if len(heads) and count >= head_words:
            if n != head_words:
                _hash_runs(text, bounds, count - head_words + 1, head_words, lanes, hashes)
            touched[d] = _holds(hashes, count - head_words + 1, heads)
