"""Quality rules by name. Each returns None (stay) or the first rule broken, with what was measured and the threshold.

Equal to: groundup.data.plain.gopher, repetition, web, false_arithmetic
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.base.files import os_error
from groundup.data.config import GopherConfig, RepetitionConfig, WebConfig
from groundup.data.extract import Drop

__all__ = [
    "arithmetic_claims",
    "blocked",
    "false_arithmetic",
    "gopher",
    "read_blocklist",
    "repetition",
    "tokens",
    "web",
    "Tokens",
]

TOKEN = re.compile(r"\w+|[^\w\s]")
LETTER = re.compile(r"[^\W\d_]")
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
BULLETS = ("•", "-", "*", "‣", "·")
ELLIPSES = ("...", "…")
ENDINGS = (".", "!", "?", '"', "”", "'", "’", ")", ":", ";", "…", "。", "！", "？")
SENTENCE_END = re.compile(r"[.!?。！？](?=[\"'”’)\]]*(?:\s|$))")
NUMBER_WORDS = {word: n for n, word in enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
     "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"))}  # fmt: skip
OPERATORS = {"+": "+", "plus": "+", "-": "-", "−": "-", "minus": "-", "*": "*", "×": "*", "times": "*"}
_NUMBER = rf"(?:\d{{1,12}}|{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})"
_OPERATOR = r"(?:\s*[+*×−-]\s*|\s+(?:plus|minus|times)\s+)"
SIGN = re.compile(r"[=+×*−]|\w\s*-\s*\w|\b(?:plus|minus|times)\b", re.IGNORECASE)  # no claim is without one
_END = r"(?![\w^]|[.,:]\d|\s*[+*×/−=-]\s*\d|\s+(?:plus|minus|times|more|less)\b)"  # the claim doesn't go on
CLAIM = re.compile(  # 3 + 4 = 8; three plus four is eight; What is 3 plus 4? It is 8
    rf"(?<![\w.,+*×/=^-])(?<![+*×/=-]\s)({_NUMBER}(?:{_OPERATOR}{_NUMBER}){{1,4}})"
    rf"(?:\s*=\s*|\s+(?:is|equals|makes|gives|are)\s+|\?\s+(?:(?:It|That|The answer) is\s+)?)(-?{_NUMBER}){_END}",
    re.IGNORECASE,
)
_CHANGE = "got|gets|found|finds|bought|buys|gave|gives|lost|loses|ate|eats|sold|sells"
STORY = re.compile(  # had 5 cups, got 3 more, and now has 9; has 5 cups and gives 3 away. How many are left? It is 1
    rf"\b(?:has|had)\s+({_NUMBER})\s+\w+(?:,|\s+and|\.\s+\w+)\s+({_CHANGE})\s+({_NUMBER})"
    rf"(?:\s+(?:more|away|of them))?(?:,?\s+and\s+now\s+has|\.\s+How many[\w\s]{{2,30}}\?(?:\s+It is|\s+There are)?)\s+({_NUMBER}){_END}",
    re.IGNORECASE,
)
GAINS = ("got", "gets", "found", "finds", "bought", "buys")


class Tokens(NamedTuple):
    """A text's words and punctuation marks in order, and its different words, counted: rules look at each word once."""

    found: list[str]
    kinds: list[str]  # the different tokens, in the order of their first occurrence
    words: dict[str, int]  # those of letters, digits and underscores, with their counts


def tokens(text: str) -> Tokens:
    """Returns the units that the rules count."""
    found = TOKEN.findall(text)
    counts = Counter(found)
    return Tokens(found, list(counts), {t: n for t, n in counts.items() if t[0].isalnum() or t[0] == "_"})


def gopher(text: str, found: Tokens, config: GopherConfig) -> Drop | None:
    """Returns the first of Gopher's quality rules that the text breaks.

    Source: Rae et al. 2021, section A.1.1.
    """
    words = found.words
    n = sum(words.values())
    if n < config.min_words:
        return Drop("quality", "gopher_min_words", n, config.min_words)
    if n > config.max_words:
        return Drop("quality", "gopher_max_words", n, config.max_words)
    length = sum(len(w) * k for w, k in words.items()) / n
    if n >= config.long_words and length < config.min_word_length:
        return Drop("quality", "gopher_min_word_length", length, config.min_word_length)
    if length > config.max_word_length:
        return Drop("quality", "gopher_max_word_length", length, config.max_word_length)
    symbols = max(text.count("#"), text.count("...") + text.count("…")) / n
    if symbols > config.max_symbol_ratio:
        return Drop("quality", "gopher_symbols", symbols, config.max_symbol_ratio)
    if n < config.long_words:
        return None
    lines = text.split("\n")
    bullets = sum(line.startswith(BULLETS) and not line.endswith(ENDINGS) for line in lines) / len(lines)
    if bullets > config.max_bullet_lines:
        return Drop("quality", "gopher_bullet_lines", bullets, config.max_bullet_lines)
    ellipses = sum(line.endswith(ELLIPSES) for line in lines) / len(lines)
    if ellipses > config.max_ellipsis_lines:
        return Drop("quality", "gopher_ellipsis_lines", ellipses, config.max_ellipsis_lines)
    alpha = sum(k for w, k in words.items() if w.isalpha() or LETTER.search(w)) / n
    if alpha < config.min_alpha_words:
        return Drop("quality", "gopher_alpha_words", alpha, config.min_alpha_words)
    stops = len(STOP_WORDS & set(map(str.lower, words)))
    if stops < config.min_stop_words:
        return Drop("quality", "gopher_stop_words", stops, config.min_stop_words)
    return None


def repetition(text: str, found: Tokens, config: RepetitionConfig) -> Drop | None:
    """Returns the first of Gopher's repetition rules that the text breaks.

    Source: Rae et al. 2021, table A1. n-grams run over tokens, within windows; a run is repeated where it has occurred before and
    doesn't overlap the last repeated run.
    """
    if len(found.found) < config.min_words:
        return None
    lines = [line for line in text.split("\n") if len(line) >= config.min_line_chars]
    if len(lines) > 1:
        again, chars = _repeated_lines(lines)
        if again / len(lines) > config.max_line_share:
            return Drop("quality", "repeated_lines", again / len(lines), config.max_line_share)
        if chars / len(text) > config.max_line_chars:
            return Drop("quality", "repeated_line_chars", chars / len(text), config.max_line_chars)
    limits = {2: config.top_2, 3: config.top_3, 4: config.top_4}
    limits |= {n: round(config.max_repeated_5 - 0.01 * (n - 5), 6) for n in range(5, 11)}
    shares = _repeated_runs(found, config.window, limits[10] * len(text)) / len(text)
    for n, limit in limits.items():
        if shares[n] > limit:
            return Drop("quality", f"top_{n}_gram" if n < 5 else f"repeated_{n}_grams", float(shares[n]), limit)
    return None


def _repeated_runs(found: Tokens, window: int, enough: float) -> np.ndarray:
    """Returns, at n, the characters in the most frequent run of n tokens (n < 5) or in repeated runs of n, summed over windows.

    Whatever is repeated in longer runs lies within 5-token runs that occurred before. Where those cover at most `enough`
    characters, which is the case for most texts, 0 stands for all lengths from 5 on.
    """
    everything, lengths = _ids(found)
    sums = np.zeros(11, np.int64)
    windows, covered = [], 0
    for at in range(0, len(everything), window):
        ids, long = everything[at : at + window], lengths[at : at + window]
        total = np.concatenate(([0], np.cumsum(long)))
        grams = ids
        for n in range(2, 5):
            grams = _longer(grams, ids, n)
            counts = np.bincount(grams, minlength=1)
            if counts.max() < 2:  # no run of n tokens recurs, so no longer one does
                break
            sums[n] += counts.max() * (total[n:] - total[:-n])[counts[grams] == counts.max()].max()
        else:
            windows.append((ids, grams, total))
            covered += _covered_chars(_longer(grams, ids, 5), long)
    for ids, grams, total in windows if covered > enough else []:
        for n in range(5, 11):
            grams = _longer(grams, ids, n)
            sums[n] += _repeated_chars(grams, total[n:] - total[:-n], n)
    return sums


def _covered_chars(grams: np.ndarray, lengths: np.ndarray) -> int:
    """Returns the characters of all tokens in 5-token runs that occurred before."""
    order = np.argsort(grams, kind="stable")
    again = order[1:][grams[order][1:] == grams[order][:-1]]
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(edges, again, 1)
    np.add.at(edges, again + 5, -1)
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())


def _repeated_lines(lines: list[str]) -> tuple[int, int]:
    """Returns how many lines have occurred before, and their characters."""
    extra = [(line, n - 1) for line, n in Counter(lines).items() if n > 1]
    return sum(n for _, n in extra), sum(n * len(line) for line, n in extra)


def _ids(found: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens as numbers (equal tokens, equal numbers) and their lengths in characters."""
    table = {token: number for number, token in enumerate(found.kinds)}
    ids = np.fromiter(map(table.__getitem__, found.found), np.int64, len(found.found))
    return ids, np.fromiter(map(len, found.kinds), np.int64, len(table))[ids]


def _longer(grams: np.ndarray, ids: np.ndarray, n: int) -> np.ndarray:
    """Returns one number for each run of n tokens from those for n - 1: equal numbers mean equal runs, no hash is involved."""
    pairs = grams[: max(len(ids) - n + 1, 0)] * (len(ids) + 1) + ids[n - 1 :]
    order = np.argsort(pairs)
    ordered = pairs[order]
    numbers = np.empty(len(pairs), np.int64)
    numbers[order] = np.concatenate(([0], np.cumsum(ordered[1:] != ordered[:-1]))) if len(pairs) else 0
    return numbers


def _repeated_chars(grams: np.ndarray, chars: np.ndarray, n: int) -> int:
    """Returns the characters in repeated runs of n tokens; only runs that recur at all are looked at one by one."""
    seen: set[int] = set()
    free = total = 0
    counts = np.bincount(grams, minlength=1)
    for at in np.flatnonzero(counts[grams] > 1).tolist():
        if at < free:
            continue
        gram = int(grams[at])
        if gram in seen:
            total += int(chars[at])
            free = at + n
        else:
            seen.add(gram)
    return total


def web(text: str, found: Tokens, page: bool, config: WebConfig) -> Drop | None:
    """Returns the first of the web's rules that the text breaks; the line rules only for a `page` (HTML).

    Source: C4 (Raffel et al. 2020), FineWeb (Penedo et al. 2024), and shouting, our own.
    """
    lowered = text.lower()
    if "lorem ipsum" in lowered:
        return Drop("quality", "c4_lorem_ipsum", lowered.count("lorem ipsum"), 0)
    n = max(sum(found.words.values()), 1)
    shouts = text.count("!") + sum(k for w, k in found.words.items() if len(w) > 2 and w.isupper() and w.isalpha())
    if shouts / n > config.max_shouting:
        return Drop("quality", "shouting", shouts / n, config.max_shouting)
    if not page:
        return None
    sentences = len(SENTENCE_END.findall(text))
    if sentences < config.min_sentences:
        return Drop("quality", "c4_sentences", sentences, config.min_sentences)
    lines = text.split("\n")
    if len(lines) < config.min_lines:
        return None
    ended = sum(line.endswith(ENDINGS) for line in lines) / len(lines)
    if ended < config.min_line_punctuation:
        return Drop("quality", "fineweb_line_punctuation", ended, config.min_line_punctuation)
    short = sum(len(line) <= 30 for line in lines) / len(lines)
    if short > config.max_short_lines:
        return Drop("quality", "fineweb_short_lines", short, config.max_short_lines)
    breaks = (len(lines) - 1) / n
    if breaks > config.max_line_breaks:
        return Drop("quality", "fineweb_line_breaks", breaks, config.max_line_breaks)
    return None


def _number(word: str) -> int:
    sign, word = (-1, word[1:]) if word.startswith("-") else (1, word)
    return sign * (int(word) if word.isdigit() else NUMBER_WORDS[word.lower()])


def arithmetic_claims(text: str) -> list[tuple[str, bool]]:
    """Returns the checkable claims of a text ("3 + 4 = 8", "three plus four is seven", small stories) and whether each is true."""
    claims: list[tuple[str, bool]] = []
    for match in STORY.finditer(text):
        change = _number(match[3]) if match[2].lower() in GAINS else -_number(match[3])
        claims.append((match[0], _number(match[1]) + change == _number(match[4])))
    if not SIGN.search(text):  # spares most texts the slower pattern
        return claims
    for match in CLAIM.finditer(text):
        parts = re.findall(r"\w+|[+*×−-]", match[1])
        terms, signs = [_number(parts[0])], ["+"]
        for operator, number in zip(parts[1::2], parts[2::2]):
            if OPERATORS[operator.lower()] == "*":
                terms[-1] *= _number(number)
            else:
                terms.append(_number(number))
                signs.append(OPERATORS[operator.lower()])
        value = sum(term if sign == "+" else -term for term, sign in zip(terms, signs))
        claims.append((match[0], value == _number(match[2])))
    return claims


def false_arithmetic(text: str, config: WebConfig) -> Drop | None:
    """Returns a drop for a text of which more than a share of the checkable arithmetic is wrong."""
    claims = arithmetic_claims(text)
    if len(claims) < config.min_claims:
        return None
    share = sum(not true for _, true in claims) / len(claims)
    return (
        Drop("quality", "false_arithmetic", share, config.max_false_arithmetic)
        if share > config.max_false_arithmetic
        else None
    )


def read_blocklist(path: Path | None) -> tuple[str, ...]:
    """Returns the hosts and words of a blocklist file (one a line, '#' begins a comment). Raises: DataError, StorageError."""
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise os_error(error, path) from error
    return tuple(word for line in lines if (word := line.partition("#")[0].strip().lower()))


def blocked(url: str, words: tuple[str, ...]) -> Drop | None:
    """Returns a drop for an address with a blocked word in its host or path, or on a blocked host or below it."""
    rest = url.lower().partition("://")[2] or url.lower()
    host = rest.partition("/")[0].partition(":")[0]
    parts = set(re.split(r"[^a-z0-9]+", rest))
    for word in words:
        if (
            word in parts
            or ("." in word and (host == word or host.endswith("." + word)))
            or ("." not in word and len(word) >= 5 and word in host)
        ):
            return Drop("url", "blocklist", word, "not listed")
    return None
