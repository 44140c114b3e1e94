"""MinHash signatures in compiled code: lower-case words, runs of words hashed with XXH64, the smallest value of each hash function.

The functions are datatrove's, number for number: h -> (factor * h + summand mod 2^64) mod 2^61 - 1.
Equal to: groundup.data.plain.shingles, signature. Source: Broder 1997.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from groundup.data.characters import WORD, classes
from groundup.data.scan import buffer

__all__ = ["PRIME", "Signed", "hash_functions", "lower_buffer", "run_hash", "sign", "word_bytes"]

PRIME = np.uint64((1 << 61) - 1)
P1, P2, P3 = np.uint64(11400714785074694791), np.uint64(14029467366897019727), np.uint64(1609587929392839161)
P4, P5 = np.uint64(9650029242287828579), np.uint64(2870177450012600261)  # XXH64's
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
BLOCK = 2048  # hashes at a time


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
    """Returns the texts as one array of UTF-8 bytes, in lower case but for texts of ASCII alone (`word_bytes` sees to those)."""
    return buffer([text if text.isascii() else text.lower() for text in texts])


def sign(
    texts: Sequence[str], ngram: int, functions: tuple[np.ndarray, np.ndarray], heads: np.ndarray, head_words: int
) -> Signed:
    """Returns the signatures of texts. A text without words has the largest possible numbers.

    heads: sorted hashes of runs of `head_words` words; `touched` tells which texts hold one of them.
    """
    data, offsets = lower_buffer(texts)
    signatures = np.full((len(texts), len(functions[0])), FULL)
    words, touched = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    _sign(data, offsets, classes(), ngram, *functions, heads, head_words, signatures, words, touched)
    return Signed(signatures, words, touched)


@njit(cache=True, nogil=True)
def word_bytes(data, start, stop, kinds, out, bounds):  # type: ignore[no-untyped-def]
    """Writes the words, each with a space behind it, ASCII in lower case; returns their number.

    Word k lies in bounds[k]:bounds[k + 1] - 1.
    """
    count = size = 0
    inside, i = False, start
    while i < stop:
        c, width = np.int64(data[i]), 1
        if c >= 0x80:  # one code point of valid UTF-8
            width = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
            c &= (1 << (7 - width)) - 1
            for k in range(1, width):
                c = c << 6 | (data[i + k] & 0x3F)
        if kinds[c] & WORD:
            if not inside:
                bounds[count], count, inside = size, count + 1, True
            for k in range(width):
                out[size + k] = data[i + k]
            if 65 <= c <= 90:
                out[size] = c + 32
            size += width
        elif inside:
            out[size], inside = 32, False
            size += 1
        i += width
    if inside:
        out[size] = 32
        size += 1
    bounds[count] = size
    return count


def _load(typing: Any, text: Any, at: Any) -> Any:
    """Returns the eight bytes of an array of bytes from `at` on as one number; one load, wherever they lie."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        number = builder.load(builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer()))
        number.align = 1
        return number

    return types.uint64(text, at), code


_eight: Any = intrinsic(_load)


@njit(cache=True, nogil=True)
def _turn(x, bits):  # type: ignore[no-untyped-def]
    return x << np.uint64(bits) | x >> np.uint64(64 - bits)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _least(hashes, count, factors, summands, least):  # type: ignore[no-untyped-def]
    """Lowers least[k] to the smallest value of function k over the hashes; by blocks, which stay in the cache and fill vectors."""
    for begin in range(0, count, BLOCK):
        end = min(begin + BLOCK, count)
        for k in range(len(factors)):
            factor, summand, low = factors[k], summands[k], least[k]
            for i in range(begin, end):
                x = hashes[i] * factor + summand
                x = (x & PRIME) + (x >> np.uint64(61))
                y = (
                    x - PRIME
                )  # x mod PRIME is the smaller of the two: where x < PRIME the difference wraps to something large
                x = y if y < x else x
                low = x if x < low else low
            least[k] = low


@njit(cache=True, nogil=True)
def _sign(data, offsets, kinds, ngram, factors, summands, heads, head_words, signatures, words, touched):  # type: ignore[no-untyped-def]
    """Sets the signatures, the numbers of words, and which texts hold one of the heads."""
    longest = 8
    for k in range(len(offsets) - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    bounds = np.empty(longest + 2, np.int64)
    text = np.zeros(2 * longest + 8, np.uint8)  # words and a space behind each: at most twice the text
    hashes = np.empty(longest, np.uint64)
    for d in range(len(offsets) - 1):
        count = word_bytes(data, offsets[d], offsets[d + 1], kinds, text, bounds)
        words[d] = count
        if count == 0:
            continue
        n = min(ngram, count)
        for i in range(count - n + 1):
            hashes[i] = run_hash(text, bounds[i], bounds[i + n] - 1)
        _least(hashes, count - n + 1, factors, summands, signatures[d])
        if len(heads) == 0 or count < head_words:
            continue
        if n != head_words:
            for i in range(count - head_words + 1):
                hashes[i] = run_hash(text, bounds[i], bounds[i + head_words] - 1)
        for i in range(count - head_words + 1):
            at = np.searchsorted(heads, hashes[i])
            if at < len(heads) and heads[at] == hashes[i]:
                touched[d] = True
                break
