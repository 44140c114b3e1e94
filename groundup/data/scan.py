"""Compiled scanning of text: code points, hashes of every stretch, tokens, lines, and what of them recurs. Nothing here judges.

Scratch arrays belong to the caller and serve many documents. Hashes are 64 bits: two different stretches of one document are taken for
the same with a probability of about 1 in 10^10 for a million words.
"""

from collections.abc import Sequence

import numpy as np

from groundup.base.kernels import kernel
from groundup.data.characters import ALPHA, BREAK, JOIN, LOWER, PUNCTUATION, SPACE, UPPER, WORD

__all__ = [
    "BASE",
    "decode",
    "encode",
    "find",
    "joined",
    "line",
    "mix",
    "newlines",
    "renew",
    "runs",
    "segments",
    "stretch",
    "stripped",
    "symbols",
    "tokens",
    "word_hash",
]

BASE = np.uint64(0x9E3779B97F4A7C15)  # of the words' polynomial hashes, modulo 2^64
P1, P2, P3, P4 = (
    np.uint64(p) for p in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63)
)  # XXH64's
ONE = np.uint64(1)


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


@kernel
def decode(data, start, stop, kinds, out, marks):  # type: ignore[no-untyped-def]
    """Writes the code points of valid UTF-8 and the bits of each, and a space's behind them; returns their number."""
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
        marks[n] = kinds[out[n]]
        n += 1
    marks[n] = SPACE
    return n


@kernel
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


@kernel
def mix(h):  # type: ignore[no-untyped-def]
    """Returns a number of which every bit depends on every bit of the given one. Source: MurmurHash3's finalizer."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ h >> np.uint64(33)


@kernel
def stretch(chars, start, stop):  # type: ignore[no-untyped-def]
    """Returns a hash of a stretch of text: four sums side by side, then what is left."""
    a, b, c, d = P1, P2, P3, P4
    i = start
    while i + 8 <= stop:
        a = _turn(a + (np.uint64(chars[i]) << np.uint64(32) | np.uint64(chars[i + 1])) * P2) * P1
        b = _turn(b + (np.uint64(chars[i + 2]) << np.uint64(32) | np.uint64(chars[i + 3])) * P2) * P1
        c = _turn(c + (np.uint64(chars[i + 4]) << np.uint64(32) | np.uint64(chars[i + 5])) * P2) * P1
        d = _turn(d + (np.uint64(chars[i + 6]) << np.uint64(32) | np.uint64(chars[i + 7])) * P2) * P1
        i += 8
    while i < stop:
        a = _turn(a + np.uint64(chars[i]) * P2) * P1
        i += 1
    return mix(((mix(a) * P2 + mix(b)) * P2 + mix(c)) * P2 + mix(d) + np.uint64(stop - start))


@kernel
def _turn(x):  # type: ignore[no-untyped-def]
    return x << np.uint64(31) | x >> np.uint64(33)


@kernel
def renew(keys, entries):  # type: ignore[no-untyped-def]
    """Empties an open hash table and makes it just large enough for so many entries, so that a small one stays in the cache.

    Returns the number to cut hashes with. A key is never 0: that is an empty slot.
    """
    mask = 63
    while mask + 1 < 2 * entries:
        mask = 2 * mask + 1
    keys[: mask + 1] = 0
    return np.uint64(mask)


@kernel
def find(keys, mask, key):  # type: ignore[no-untyped-def]
    """Returns the key's place in the table, where it stands from now on, and whether it is new there."""
    at = key & mask
    while keys[at] != key and keys[at] != 0:
        at = (at + np.uint64(1)) & mask
    new = keys[at] == 0
    keys[at] = key
    return at, new


@kernel
def newlines(chars, start, stop):  # type: ignore[no-untyped-def]
    """Returns how many newlines there are."""
    count = 0
    for i in range(start, stop):
        count += chars[i] == 10
    return count


@kernel
def segments(chars, start, stop, apart, least, keys):  # type: ignore[no-untyped-def]
    """Returns how many segments there are between runs of `apart` or more newlines, how many came before, and their characters."""
    mask = renew(keys, newlines(chars, start, stop) + 1)
    count = again = again_chars = 0
    i = begin = start
    while i <= stop:
        while i < stop and chars[i] != 10:
            i += 1
        j = i
        while j < stop and chars[j] == 10:
            j += 1
        if i == stop or j - i >= apart:
            if i - begin >= least:
                count += 1
                if not find(keys, mask, stretch(chars, begin, i) | ONE)[1]:
                    again, again_chars = again + 1, again_chars + i - begin
            if i == stop:
                break
            begin = j
        i = j
    return count, again, again_chars


@kernel
def joined(chars, start, stop, kinds):  # type: ignore[no-untyped-def]
    """Returns where a word that a mark follows goes on behind its marks: `start`, where these are, if it ends there.

    It ends at a full stop between a small letter and a capital, too: of two sentences without a space.
    """
    i = start
    while i < stop and kinds[chars[i]] & JOIN:
        i += 1
    if i == stop or not kinds[chars[i]] & WORD:
        return start
    sentence = chars[start] == 46 and i == start + 1 and 97 <= chars[start - 1] <= 122 and 65 <= chars[i] <= 90
    return start if sentence else i


@kernel
def symbols(chars, n):  # type: ignore[no-untyped-def]
    """Returns how many '#', ellipses (of three full stops, too) and '!' there are."""
    signs = cries = ellipses = threes = dots = 0
    for i in range(n):
        signs += chars[i] == 35
        cries += chars[i] == 33
        ellipses += chars[i] == 0x2026
    for i in range(n - 2):
        threes += (chars[i] == 46) & (chars[i + 1] == 46) & (chars[i + 2] == 46)
    for i in range(n if threes else 0):
        if chars[i] == 46:
            dots += 1
            ellipses += dots % 3 == 0
        else:
            dots = 0
    return signs, ellipses, cries


@kernel
def tokens(chars, marks, n, kinds, bounds, hashes, tally):  # type: ignore[no-untyped-def]
    """Returns the number of tokens; token k lies in bounds[k]:bounds[k + 1] of the text without its spaces.

    A token is a word (letters and digits with ASCII's marks between them, but no hyphen) or one mark, also repeated.
    marks: the bits of each character, a space behind the last, and room for one more. tally: words (tokens that aren't marks), their
    characters, tokens with a letter, words that shout.
    """
    words = characters = lettered = shouting = count = size = i = 0
    while i < n:
        kind = marks[i]
        if kind & SPACE:
            i += 1
            continue
        start, every, h = i, kind, np.uint64(0)
        if kind & WORD:
            while True:
                while marks[i] & WORD:
                    kind |= marks[i]
                    every &= marks[i]
                    h = word_hash(h, chars[i])
                    i += 1
                if (marks[i] & JOIN == 0) | (marks[i + 1] & SPACE != 0):  # one branch, which is foretold well
                    break
                reach = joined(chars, i, n, kinds)
                if reach == i:
                    break
                while i < reach:
                    every &= marks[i]
                    h = word_hash(h, chars[i])
                    i += 1
        else:
            while i < n and chars[i] == chars[start]:
                h = word_hash(h, chars[i])
                i += 1
        length = i - start
        bounds[count], hashes[count] = size, mix(h ^ np.uint64(length))
        size, count = size + length, count + 1
        word = (every & PUNCTUATION) == 0
        words += word
        characters += length if word else 0
        lettered += (kind & ALPHA) != 0
        shouting += (length > 2) & ((every & ALPHA) != 0) & ((kind & (UPPER | LOWER)) == UPPER)
    bounds[count] = size
    tally[0], tally[1], tally[2], tally[3] = words, characters, lettered, shouting  # tally[:] compiles for seconds
    return count


@kernel
def word_hash(h, c):  # type: ignore[no-untyped-def]
    """Returns the hash of a word that is longer by one character."""
    return h * BASE + np.uint64(c) + ONE


@kernel
def runs(first, last, bounds, words, scratch, out):  # type: ignore[no-untyped-def]
    """Adds to out[4:13] the characters of the most frequent runs of 2 to 4 tokens, and of the repeated runs of 5 to 10.

    A run recurs only where the run without its last token does: those places alone are looked at again.
    """
    grams, keys, counts, places, here = scratch
    again = last - first
    for k in range(again):
        grams[first + k], here[k] = words[first + k], first + k
    for n in range(2, 11):  # here[:again]: where a run of n - 1 tokens stands that recurs
        mask = renew(keys, again)
        while again and here[again - 1] + n > last:
            again -= 1
        for k in range(again):
            i = here[k]
            grams[i] = mix(grams[i] * np.uint64(31) + words[i + n - 1]) | ONE
        if n > 4:
            out[2 + n] += _covered(n, again, bounds, scratch, mask)
            continue
        counts[: mask + ONE] = 0
        for k in range(again):
            places[k], _ = find(keys, mask, grams[here[k]])
            counts[places[k]] += 1
        most, at, left = 1, -1, 0
        for k in range(again):
            i, count = here[k], counts[places[k]]
            here[left] = i
            left += count > 1
            if count > most:  # the first of those that occur as often
                most, at = count, i
        if at < 0:  # no run of n tokens recurs, so no longer one does
            return
        out[2 + n] += most * (bounds[at + n] - bounds[at] + n - 1)
        again = left


@kernel
def _covered(n, again, bounds, scratch, mask):  # type: ignore[no-untyped-def]
    """Returns the characters of runs of n tokens that occurred before, none counted in two runs."""
    grams, keys, _, _, here = scratch
    total, free = 0, 0
    for k in range(again):
        i = here[k]
        if i >= free and not find(keys, mask, grams[i])[1]:
            total += bounds[i + n] - bounds[i]
            free = i + n
    return total


@kernel
def stripped(chars, start, stop, kinds):  # type: ignore[no-untyped-def]
    """Returns the bounds of a stretch without the spaces around it."""
    while start < stop and kinds[chars[start]] & SPACE:
        start += 1
    while stop > start and kinds[chars[stop - 1]] & SPACE:
        stop -= 1
    return start, stop


@kernel
def line(chars, start, n, kinds):  # type: ignore[no-untyped-def]
    """Returns the bounds of a line (cut as str.splitlines cuts) without the spaces around it, where the next begins, how many words
    between spaces it has, and how long the longest is."""
    i, words, longest, length = start, 0, 0, 0
    while i < n:
        kind = kinds[chars[i]]
        if kind & BREAK:
            break
        solid = 1 - (kind & SPACE)
        words += solid & (length == 0)
        length = (length + 1) * solid
        longest = max(longest, length)
        i += 1
    begin, end = stripped(chars, start, i, kinds)
    return begin, end, i + (2 if i + 1 < n and chars[i] == 13 and chars[i + 1] == 10 else 1), words, longest
