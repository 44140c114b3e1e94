"""What the quality rules look at, measured over UTF-8 buffers: one pass of compiled code for a batch of documents, no Python object a word.

Equal to: groundup.data.plain.repetition_values, gopher_values, web_values
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from groundup.base.kernels import kernel
from groundup.data.characters import DIGIT, JOIN, SPACE, STOP, WORD, classes
from groundup.data.config import BuildConfig
from groundup.data.scan import (
    BASE,
    ONE,
    buffer,
    decode,
    encode,
    find,
    joined,
    line,
    mix,
    newlines,
    renew,
    runs,
    segments,
    stretch,
    stripped,
    symbols,
    tokens,
)

__all__ = ["FEATURES", "Measured", "measure"]

FEATURES = (
    "repeated_paragraphs", "repeated_paragraph_chars", "repeated_lines", "repeated_line_chars", "top_2_gram", "top_3_gram", "top_4_gram",
    "repeated_5_grams", "repeated_6_grams", "repeated_7_grams", "repeated_8_grams", "repeated_9_grams", "repeated_10_grams",
    "words", "word_length", "hashes", "ellipses", "bullet_lines", "ellipsis_lines", "alpha_words", "stop_words",
    "lorem_ipsum", "curly_brackets", "sentences", "line_punctuation", "short_lines", "repeated_page_chars", "line_breaks", "lines",
    "shouting", "tokens",
)  # fmt: skip
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
LOREM, SCRIPT, EDIT, NEEDED = "lorem ipsum", "javascript", "edit]", "citation needed]"
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
STOP_BITS = 8
BRACKET = 30
CITATIONS, SCRIPTS, POLICIES, UNENDED, LINE_SENTENCES = 1, 2, 4, 8, 16  # what C4 does to lines


class Measured(NamedTuple):
    """Values: float64 (documents, features). `texts`: what C4's line rules leave of each document, None where they are off."""

    values: np.ndarray
    texts: list[str] | None


def measure(texts: Sequence[str], config: BuildConfig) -> Measured:
    """Returns the features of each text. Memory: at most 100 bytes for each byte of the longest text."""
    repetition, c4, web = config.repetition, config.c4, config.web
    data, offsets = buffer(texts)
    flags = (c4.citations * CITATIONS | c4.javascript_lines * SCRIPTS | c4.policy_lines * POLICIES | c4.unended_lines * UNENDED
             | c4.line_sentences * LINE_SENTENCES)  # fmt: skip
    numbers = np.array([repetition.window, repetition.min_line_chars, web.short_line_chars, flags, c4.min_line_words,
                        c4.max_word_chars or 1 << 62], np.int64)  # fmt: skip
    cleans = bool(flags & ~LINE_SENTENCES or c4.min_line_words or c4.max_word_chars)
    values = np.zeros((len(texts), len(FEATURES)))
    rest, ends = np.zeros(len(data) if cleans else 0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    _all(
        data,
        offsets,
        classes(),
        numbers,
        _stop_words(),
        _phrases((LOREM, SCRIPT, EDIT, NEEDED, *POLICY)),
        values,
        rest,
        ends,
    )
    if not cleans:
        return Measured(values, None)
    raw = rest.tobytes()
    return Measured(values, [raw[a:b].decode("utf-8") for a, b in zip(ends.tolist(), ends[1:].tolist())])


def _phrases(phrases: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ASCII phrases in one array, where each begins, and which (one bit each) have a letter, small or large, as their first
    and as their second. What only follows a bracket isn't looked for by its first letter.
    """
    starts = np.zeros((128, 2), np.int64)
    for number, phrase in enumerate(phrases):
        if phrase not in (EDIT, NEEDED):
            for place in range(2):
                starts[[ord(phrase[place]), ord(phrase[place].upper())], place] |= 1 << number
    return np.frombuffer("".join(phrases).encode(), np.uint8), np.cumsum([0, *map(len, phrases)]), starts


def _stop_words() -> tuple[np.ndarray, np.ndarray]:
    """Returns a table of the stop words' hashes, each in the place of its highest bits, and which word stands in each place."""
    table, numbers = np.zeros(1 << STOP_BITS, np.uint64), np.zeros(1 << STOP_BITS, np.int64)
    for number, word in enumerate(STOP_WORDS):
        value = 0
        for letter in word:
            value = (value * int(BASE) + ord(letter) + 1) % (1 << 64)
        with np.errstate(over="ignore"):
            key = int(mix.py_func(np.uint64(value ^ len(word))))
        assert not table[key >> 64 - STOP_BITS], "two stop words in one place: more bits are needed"
        table[key >> 64 - STOP_BITS], numbers[key >> 64 - STOP_BITS] = key, number
    return table, numbers


@kernel
def _held(chars, start, stop, phrases):  # type: ignore[no-untyped-def]
    """Returns which of the phrases of lower-case ASCII (one bit each) stand in the stretch, in either case; bit BRACKET: a '{'."""
    letters, cuts, starts = phrases
    held = 0
    for i in range(start, stop - 1):
        here = (
            starts[min(chars[i], 127), 0] & starts[min(chars[i + 1], 127), 1]
        )  # no k among them, which the Kelvin sign could be
        if not here:
            continue
        for number in range(len(cuts) - 1):
            size = cuts[number + 1] - cuts[number]
            if not here >> number & 1 or i + size > stop:
                continue
            k = 0
            while k < size:
                c = chars[i + k]
                c = c + 32 if 65 <= c <= 90 else np.uint32(107) if c == 0x212A else c  # its small letter is k
                if c != letters[cuts[number] + k]:
                    break
                k += 1
            held |= (k == size) << number
    bracket = False
    for i in range(start, stop):
        bracket |= chars[i] == 123
    return held | bracket << BRACKET


@kernel
def _uncited(chars, start, stop, phrases, kinds, out, at):  # type: ignore[no-untyped-def]
    """Writes a line without [1], [edit] and [citation needed]; returns where it ends."""
    letters, cuts, _ = phrases
    i = start
    while i < stop:
        if chars[i] == 91:  # [
            j = i + 1
            while j < stop and kinds[chars[j]] & DIGIT:
                j += 1
            if j < stop and chars[j] == 93:
                i = j + 1
                continue
            skipped = False
            for number in (2, 3):
                size = cuts[number + 1] - cuts[number]
                if i + 1 + size <= stop and not skipped:
                    same = True
                    for k in range(size):
                        same &= chars[i + 1 + k] == letters[cuts[number] + k]
                    if same:
                        i += 1 + size
                        skipped = True
            if skipped:
                continue
        out[at] = chars[i]
        at += 1
        i += 1
    return at


@kernel
def _full_stops(chars, start, stop, kinds):  # type: ignore[no-untyped-def]
    """Returns how many sentences end: a mark, closing quotes and brackets, then a space or the line's end."""
    count = 0
    for i in range(start, stop):
        c = chars[i]
        if c == 46 or c == 33 or c == 63 or (c >= 0x3002 and (c == 0x3002 or c == 0xFF01 or c == 0xFF1F)):
            j = i + 1
            while j < stop and (chars[j] == 34 or chars[j] == 39 or chars[j] == 41 or chars[j] == 93 or chars[j] == 0x201D
                                or chars[j] == 0x2019):  # fmt: skip
                j += 1
            count += j == stop or kinds[chars[j]] & SPACE != 0
    return count


@kernel
def _page(chars, n, kinds, numbers, phrases, kept, out):  # type: ignore[no-untyped-def]
    """Returns the bounds in `kept` of what C4's line rules leave; sets out[21:24]: lorem ipsum, curly brackets, sentences;
    and out[17:19]: the shares of lines that begin with a bullet, and that end with an ellipsis."""
    flags, size, i, first, lines, bullets, trailing = numbers[3], 0, 0, True, 0, 0, 0
    while i < n:
        start, stop, i, words, longest = line(chars, i, n, kinds)
        lines += 1
        if start < stop:
            bullets += chars[start] == 0x2022 or chars[start] == 45
            dots = stop - start >= 3 and chars[stop - 1] == 46 and chars[stop - 2] == 46 and chars[stop - 3] == 46
            trailing += dots or chars[stop - 1] == 0x2026
        if longest > numbers[5]:
            continue
        before = size
        if not first:
            kept[size] = 10
            size += 1
        begin = size
        if flags & CITATIONS:
            size = _uncited(chars, start, stop, phrases, kinds, kept, size)
        else:
            for k in range(start, stop):  # not a slice: that compiles three seconds of error messages
                kept[size + k - start] = chars[k]
            size += stop - start
        last = kept[size - 1] if size > begin else np.uint32(0)
        dots = size - begin >= 3 and kept[size - 1] == 46 and kept[size - 2] == 46 and kept[size - 3] == 46
        ended = (last == 46 or last == 63 or last == 33 or last == 34 or last == 39) and not dots
        if (flags & UNENDED and not ended) or words < numbers[4]:
            size = before
            continue
        held = _held(kept, begin, size, phrases)
        out[21] += held & 1
        drop = flags & SCRIPTS and held & 2
        if not drop:
            out[22] += held >> BRACKET
            drop = flags & POLICIES and held >> 4 & (1 << (BRACKET - 4)) - 1
        if drop:
            size = before
            continue
        out[23] += max(_full_stops(kept, begin, size, kinds), 1 if flags & LINE_SENTENCES else 0)
        first = False
    out[17], out[18] = bullets / max(lines, 1), trailing / max(lines, 1)
    return stripped(kept, 0, size, kinds)


@kernel
def _page_lines(chars, start, stop, kinds, short, keys, out):  # type: ignore[no-untyped-def]
    """Sets out[24:29]: what FineWeb's rules look at, in the text that C4 left."""
    lines = ended = brief = again = 0
    breaks = newlines(chars, start, stop)
    mask = renew(keys, breaks + 1)
    i = start
    while i <= stop and stop > start:
        j = i
        while j < stop and chars[j] != 10:
            j += 1
        x = i
        while x < j and kinds[chars[x]] & SPACE:
            x += 1
        if x < j:
            lines += 1
            ended += kinds[chars[j - 1]] & STOP != 0
            brief += j - i <= short
            again += 0 if find(keys, mask, stretch(chars, i, j) | ONE)[1] else j - i
        i = j + 1
    out[24], out[25] = ended / max(lines, 1), brief / max(lines, 1)
    out[26], out[28] = again / max(stop - start - breaks, 1), lines
    out[27] = breaks / max(_count(chars, start, stop, kinds), 1)


@kernel
def _count(chars, start, stop, kinds):  # type: ignore[no-untyped-def]
    """Returns how many tokens there are."""
    count, before, last = 0, 0, np.uint32(0xFFFFFFFF)  # no character
    for i in range(start, stop):
        c = chars[i]
        kind = kinds[c]
        if (kind & WORD != 0) & (before & JOIN != 0):  # a word behind a mark is rarer than a mark behind a word
            k = i - 1
            while k > start and kinds[chars[k]] & JOIN:
                k -= 1
            if kinds[chars[k]] & WORD and joined(chars, k + 1, i + 1, kinds) == i:
                count -= 1  # this is the same word, and its marks have been counted
                for j in range(k + 1, i):
                    count -= chars[j] != chars[j - 1]
        count += ((kind & SPACE) == 0) & ((kind & before & WORD) == 0) & (c != last)
        before, last = kind, c
    return count


@kernel
def _stops(count, hashes, stops):  # type: ignore[no-untyped-def]
    """Returns how many different stop words there are among the tokens."""
    table, numbers = stops
    found, total = 0, 0
    for k in range(count):
        place = hashes[k] >> np.uint64(64 - STOP_BITS)
        found |= (table[place] == hashes[k]) << numbers[place]
    for number in range(len(STOP_WORDS)):
        total += found >> number & 1
    return total


@kernel
def _document(chars, marks, n, kinds, numbers, stops, phrases, kept, scratch, out):  # type: ignore[no-untyped-def]
    """Sets all of a document's features; returns the bounds of the text that C4's rules leave in `kept`."""
    bounds, words, tally, lists = scratch
    keys = lists[1]
    start, stop = stripped(chars, 0, n, kinds)
    many, again, again_chars = segments(chars, start, stop, 2, 0, keys)
    out[0], out[1] = again / many, again_chars / n
    many, again, again_chars = segments(chars, 0, n, 1, numbers[1], keys)
    if many > 1:
        out[2], out[3] = again / many, again_chars / n
    start, stop = _page(chars, n, kinds, numbers, phrases, kept, out)
    _page_lines(kept, start, stop, kinds, numbers[2], keys, out)
    count = tokens(chars, marks, n, kinds, bounds, words, tally)
    window = numbers[0] if numbers[0] else max(count, 1)
    for first in range(0, count, window):
        runs(first, min(first + window, count), bounds, words, lists, out)
    for size in range(2, 5):  # in all the text, as in FineWeb's code: where no run recurs the first one is the top
        if not numbers[0] and out[2 + size] == 0 and count >= size:
            out[2 + size] = bounds[size] + size - 1
    for k in range(4, 13):
        out[k] /= n
    total = max(tally[0], 1)
    out[13], out[14], out[19] = tally[0], tally[1] / total, tally[2] / max(count, 1)
    signs, ellipses, cries = symbols(chars, n)
    out[15], out[16] = signs / max(count, 1), ellipses / max(count, 1)
    out[20], out[29], out[30] = _stops(count, words, stops), (cries + tally[3]) / total, count
    return start, stop


@kernel
def _all(data, offsets, kinds, numbers, stops, phrases, values, rest, ends):  # type: ignore[no-untyped-def]
    """Sets the features of all documents; where `rest` has room, the text that C4's rules leave of each, and its end."""
    longest = 1
    for k in range(len(offsets) - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    slots = 1024
    while slots < 2 * (longest + 1):  # a text of newlines alone has one segment more than characters
        slots *= 2
    chars, kept, marks = (
        np.empty(longest, np.uint32),
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 2, np.uint16),
    )
    lists = (np.empty(longest, np.uint64), np.empty(slots, np.uint64), np.empty(slots, np.int32), np.empty(longest, np.int64),
             np.empty(longest, np.int64))  # fmt: skip
    scratch = (np.empty(longest + 1, np.int64), np.empty(longest, np.uint64), np.empty(4, np.int64), lists)
    for k in range(len(offsets) - 1):
        n = decode(data, offsets[k], offsets[k + 1], kinds, chars, marks)
        ends[k + 1] = ends[k]
        if n:
            start, stop = _document(chars, marks, n, kinds, numbers, stops, phrases, kept, scratch, values[k])
            if len(rest):
                ends[k + 1] = encode(kept, start, stop, rest, ends[k])
