"""Compiled scanning of text: code points, hashes of every stretch, tokens, lines, and what of them recurs. Nothing here judges.

Scratch arrays belong to the caller and serve many documents. Hashes are 64 bits: two different stretches of one document are taken for
the same with a probability of about 1 in 10^10 for a million words.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from groundup.data.characters import ALPHA, BREAK, LOWER, PUNCTUATION, SPACE, UPPER, WORD

__all__ = [
    "BASE",
    "decode",
    "encode",
    "find",
    "line",
    "mix",
    "prefixes",
    "renew",
    "runs",
    "segments",
    "stripped",
    "tokens",
]

BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial hashes, modulo 2^64


def buffer(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the texts as one array of UTF-8 bytes, and where each begins. Shapes: (bytes,), (texts + 1,)."""
    import pyarrow as pa

    try:
        packed = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:  # a half of a surrogate pair
        packed = pa.array([text.encode("utf-8", "replace").decode() for text in texts], pa.large_string())
    _, offsets, data = packed.buffers()
    starts = np.frombuffer(offsets if texts else bytes(8), np.int64)[: len(texts) + 1]
    found = np.frombuffer(data or bytes(1), np.uint8)[: starts[-1]], starts
    for array in found:
        array.setflags(
            write=False
        )  # always: for arrays that can be written to, every kernel would be compiled once more
    return found


@njit(cache=True, nogil=True)
def decode(data, start, stop, out):  # type: ignore[no-untyped-def]
    """Writes the code points of valid UTF-8; returns their number."""
    n, i = 0, start
    while i < stop:
        b = np.uint32(data[i])
        if b < 0x80:
            out[n] = b
            i += 1
        elif b < 0xE0:
            out[n] = (b & 0x1F) << 6 | (data[i + 1] & 0x3F)
            i += 2
        elif b < 0xF0:
            out[n] = (b & 0x0F) << 12 | (data[i + 1] & 0x3F) << 6 | (data[i + 2] & 0x3F)
            i += 3
        else:
            out[n] = (b & 7) << 18 | (data[i + 1] & 0x3F) << 12 | (data[i + 2] & 0x3F) << 6 | (data[i + 3] & 0x3F)
            i += 4
        n += 1
    return n


@njit(cache=True, nogil=True)
def encode(chars, start, stop, out, at):  # type: ignore[no-untyped-def]
    """Writes code points as UTF-8 from `at` on; returns where they end."""
    for i in range(start, stop):
        c = chars[i]
        if c < 0x80:
            out[at] = c
            at += 1
        elif c < 0x800:
            out[at], out[at + 1] = 0xC0 | c >> 6, 0x80 | (c & 63)
            at += 2
        elif c < 0x10000:
            out[at], out[at + 1], out[at + 2] = 0xE0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63)
            at += 3
        else:
            out[at], out[at + 1], out[at + 2], out[at + 3] = (
                0xF0 | c >> 18,
                0x80 | (c >> 12 & 63),
                0x80 | (c >> 6 & 63),
                0x80 | (c & 63),
            )
            at += 4
    return at


@njit(cache=True, nogil=True)
def mix(h):  # type: ignore[no-untyped-def]
    """Returns a number of which every bit depends on every bit of the given one. Source: MurmurHash3's finalizer."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ h >> np.uint64(33)


@njit(cache=True, nogil=True)
def prefixes(chars, n, out):  # type: ignore[no-untyped-def]
    """Writes the hash of every beginning of the text; that of a stretch is out[e] - out[s] * powers[e - s]."""
    out[0] = np.uint64(0)
    for i in range(n):
        out[i + 1] = out[i] * BASE + np.uint64(chars[i]) + np.uint64(1)


@njit(cache=True, nogil=True)
def find(table, key):  # type: ignore[no-untyped-def]
    """Returns the key's place in the open hash table, and whether it is new there.

    A table is (slots, state): each slot a key and a stamp; state holds the mask and the present stamp, so that emptying it is free.
    """
    slots, state = table
    mask, stamp = np.uint64(state[0]), np.uint64(state[1])
    at = key & mask
    while slots[at, 1] == stamp:
        if slots[at, 0] == key:
            return at, False
        at = (at + np.uint64(1)) & mask
    slots[at, 0], slots[at, 1] = key, stamp
    return at, True


@njit(cache=True, nogil=True)
def renew(table, entries):  # type: ignore[no-untyped-def]
    """Empties the table and makes it just large enough for so many entries: a small one stays in the cache."""
    mask = 255
    while mask + 1 < 2 * entries:
        mask = 2 * mask + 1
    table[1][0] = mask
    table[1][1] += 1


@njit(cache=True, nogil=True)
def segments(chars, start, stop, newlines, least, prefix, powers, table):  # type: ignore[no-untyped-def]
    """Returns how many segments there are between runs of `newlines` or more newlines, how many came before, and their characters."""
    renew(table, stop - start)
    count = again = again_chars = 0
    i = begin = start
    while i <= stop:
        while i < stop and chars[i] != 10:
            i += 1
        j = i
        while j < stop and chars[j] == 10:
            j += 1
        if i == stop or j - i >= newlines:
            if i - begin >= least:
                count += 1
                _, new = find(table, mix(prefix[i] - prefix[begin] * powers[i - begin] ^ np.uint64(i - begin)))
                if not new:
                    again, again_chars = again + 1, again_chars + i - begin
            if i == stop:
                break
            begin = j
        i = j
    return count, again, again_chars


@njit(cache=True, nogil=True)
def tokens(chars, n, kinds, solid, bounds, tally):  # type: ignore[no-untyped-def]
    """Returns the number of tokens; `solid`: the text without its spaces, token k lies in bounds[k]:bounds[k + 1] of it.

    tally: words (tokens that aren't marks), their characters, tokens with a letter, words that shout, '#', ellipses, '!'.
    """
    tally[:] = 0
    count = size = i = dots = 0
    while i < n:
        kind = kinds[chars[i]]
        if kind & SPACE:
            i += 1
            continue
        bounds[count] = size
        any_kind = all_kind = kind
        marks = kind & PUNCTUATION
        solid[size] = chars[i]
        size += 1
        i += 1
        if kind & WORD:
            while i < n and kinds[chars[i]] & WORD:
                kind = kinds[chars[i]]
                any_kind |= kind
                all_kind &= kind
                solid[size] = chars[i]
                size += 1
                i += 1
            marks, dots = all_kind & PUNCTUATION, 0
        else:
            c = chars[i - 1]
            tally[4] += c == 35
            tally[6] += c == 33
            dots = dots + 1 if c == 46 and (dots == 0 or chars[i - 2] == 46) else int(c == 46)
            if dots == 3 or c == 0x2026:
                tally[5] += 1
                dots = 0
        length = size - bounds[count]
        count += 1
        if not marks:
            tally[0] += 1
            tally[1] += length
        if any_kind & ALPHA:
            tally[2] += 1
            if length > 2 and all_kind & ALPHA and any_kind & UPPER and not any_kind & LOWER:
                tally[3] += 1
    bounds[count] = size
    return count


@njit(cache=True, nogil=True)
def runs(first, last, bounds, prefix, powers, grams, table, counts, firsts, places, out):  # type: ignore[no-untyped-def]
    """Adds to out[4:13] the characters of the most frequent runs of 2 to 4 tokens, and of the repeated runs of 5 to 10.

    A run recurs only where the run without its last token does: those places alone are looked at again.
    """
    for i in range(first, last):
        size = bounds[i + 1] - bounds[i]
        grams[i] = mix(prefix[bounds[i + 1]] - prefix[bounds[i]] * powers[size] ^ np.uint64(size))
    words, here, again = grams[first:last].copy(), np.arange(first, last), last - first
    for n in range(2, 11):  # here[:again]: where a run of n - 1 tokens stands that recurs
        renew(table, again)
        most, at, free, left = 1, -1, first, 0
        for k in range(again):
            i = here[k]
            if i + n > last:
                break
            grams[i] = mix(grams[i] * np.uint64(31) + words[i + n - 1 - first])
            if n > 4:
                if i >= free and not find(table, grams[i])[1]:
                    out[2 + n] += bounds[i + n] - bounds[i]
                    free = i + n
                continue
            place, new = find(table, grams[i])
            places[left], here[left] = place, i  # not beyond k, so nothing is lost that is still to be read
            left += 1
            if new:
                counts[place], firsts[place] = 1, i
                continue
            counts[place] += 1
            if counts[place] > most or (counts[place] == most and firsts[place] < at):
                most, at = counts[place], firsts[place]
        if n > 4:
            continue
        if at < 0:  # no run of n tokens recurs, so no longer one does
            return
        out[2 + n] += most * (bounds[at + n] - bounds[at] + n - 1)
        again = 0
        for k in range(left):
            if counts[places[k]] > 1:
                here[again] = here[k]
                again += 1


@njit(cache=True, nogil=True)
def stripped(chars, start, stop, kinds):  # type: ignore[no-untyped-def]
    """Returns the bounds of a stretch without the spaces around it."""
    while start < stop and kinds[chars[start]] & SPACE:
        start += 1
    while stop > start and kinds[chars[stop - 1]] & SPACE:
        stop -= 1
    return start, stop


@njit(cache=True, nogil=True)
def line(chars, start, n, kinds):  # type: ignore[no-untyped-def]
    """Returns the bounds of a line (cut as str.splitlines cuts) without the spaces around it, where the next begins, how many words
    between spaces it has, and how long the longest is."""
    i, begin, end, words, longest, word = start, start, start, 0, 0, -1
    while i < n:
        kind = kinds[chars[i]]
        if kind & SPACE:
            if word >= 0:
                longest, end, word = max(longest, i - word), i, -1
            if kind & BREAK:
                break
        elif word < 0:
            if words == 0:
                begin = i
            words, word = words + 1, i
        i += 1
    if word >= 0:
        longest, end = max(longest, i - word), i
    return begin, max(begin, end), i + (2 if i + 1 < n and chars[i] == 13 and chars[i + 1] == 10 else 1), words, longest
