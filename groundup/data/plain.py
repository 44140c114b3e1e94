"""The data stage in its obvious form, on a list of strings: rules that turn a text away, duplicates, contamination.

The whole pipeline is `curate`. Each rule returns None, or (name, what was measured, threshold). Beside it stand
`without_repeated_lines` and `without_repeated_stretches`, which shorten texts that stay, where that is asked for.
"""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import regex
import xxhash

__all__ = ["contaminated", "curate", "exact_duplicates", "false_arithmetic", "gopher", "near_duplicates", "repetition", "shingles",
           "signature", "tokens", "web", "without_repeated_lines", "without_repeated_stretches", "words"]  # fmt: skip

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
MARKS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
MARKS += "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
TOP, REPEATED = {2: 0.2, 3: 0.18, 4: 0.16}, {5: 0.3, 6: 0.29, 7: 0.28, 8: 0.27, 9: 0.26, 10: 0.25}
WINDOW = 2000  # tokens within which runs of words are compared
BANDS, ROWS = 20, 6
PRIME = 2**61 - 1
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
           "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]  # fmt: skip

Broken = tuple[str, float, float]


def tokens(text: str) -> list[str]:
    """Returns words (letters and digits with ASCII's marks between them, but no hyphen) and marks (one, or the same repeated).

    A full stop between a small letter and a capital isn't within a word, but between two sentences.
    """
    word = r"\w+(?:(?!(?<=[a-z])\.[A-Z])[!-,./:-@\[-^`{-~’]+\w+)*"
    return [found[0] for found in re.finditer(rf"{word}|([^\w\s])\1*", text)]


def words(text: str) -> list[str]:
    """Returns the words in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def full_stop(letter: str) -> bool:
    """Returns whether a character ends a sentence in some script."""
    return regex.fullmatch(r"\p{Sentence_Terminal}", letter) is not None


def proper_words(found: list[str]) -> list[str]:
    """Returns the tokens that aren't marks."""
    return [token for token in found if not all(c in MARKS or full_stop(c) for c in token)]


def gopher(text: str) -> Broken | None:
    """Returns the first of Gopher's quality rules that the text breaks. Source: Rae et al. 2021, section A.1.1."""
    found, lines = tokens(text), text.splitlines()
    proper = proper_words(found)
    n, long = len(proper), len(proper) >= 50  # shares and stop words say little about a short text
    if n < 10:
        return "gopher_min_words", n, 10
    if n > 100_000:
        return "gopher_max_words", n, 100_000
    length = sum(map(len, proper)) / n
    hashes, ellipses = text.count("#") / len(found), (text.count("...") + text.count("…")) / len(found)
    bullets = sum(line.strip().startswith(("•", "-")) for line in lines) / len(lines)
    trailing = sum(line.strip().endswith(("...", "…")) for line in lines) / len(lines)
    letters = sum(any(c.isalpha() for c in token) for token in found) / len(found)
    stops = len(STOP_WORDS & set(found))
    if long and length < 2:
        return "gopher_min_word_length", length, 2.0
    if length > 10:
        return "gopher_max_word_length", length, 10.0
    if hashes > 0.1:
        return "gopher_symbols", hashes, 0.1
    if ellipses > 0.1:
        return "gopher_symbols", ellipses, 0.1
    if long and bullets > 0.9:
        return "gopher_bullet_lines", bullets, 0.9
    if long and trailing > 0.3:
        return "gopher_ellipsis_lines", trailing, 0.3
    if long and letters < 0.4:
        return "gopher_alpha_words", letters, 0.4
    if long and stops < 2:
        return "gopher_stop_words", stops, 2
    return None


def top_chars(found: list[str], n: int) -> int:
    """Returns the characters (spaces between tokens too) of the most frequent run of n tokens, 0 if none recurs."""
    runs = Counter(" ".join(found[i : i + n]) for i in range(len(found) - n + 1))
    run, most = max(runs.items(), key=lambda item: item[1], default=("", 0))  # of equally frequent ones the first
    return most * len(run) if most > 1 else 0


def repeated_chars(found: list[str], n: int) -> int:
    """Returns the characters in runs of n tokens that occurred before and don't overlap the repeated run before them."""
    seen, chars, i = set(), 0, 0
    while i + n <= len(found):
        run = tuple(found[i : i + n])
        if run in seen:
            chars += len("".join(run))
            i += n
        else:
            seen.add(run)
            i += 1
    return chars


def repeated(parts: list[str], text: str) -> tuple[float, float]:
    """Returns the share of the parts that occurred before, and of the text's characters in those."""
    seen: set[str] = set()
    again = []
    for part in parts:
        if part in seen:
            again.append(part)
        seen.add(part)
    return len(again) / len(parts), sum(map(len, again)) / len(text)


def repetition(text: str) -> Broken | None:
    """Returns the first of Gopher's repetition rules that the text breaks. Source: Rae et al. 2021, table A1."""
    found = tokens(text)
    lines = [line for line in re.split(r"\n+", text) if len(line) >= 15]
    if len(found) < 30:
        return None
    for name, parts in (("paragraph", re.split(r"\n{2,}", text.strip())), ("line", lines)):
        share, chars = repeated(parts, text) if len(parts) > 1 else (0.0, 0.0)
        if share > 0.3:
            return f"repeated_{name}s", share, 0.3
        if chars > 0.2:
            return f"repeated_{name}_chars", chars, 0.2
    windows = [found[at : at + WINDOW] for at in range(0, len(found), WINDOW)]
    for n, limit in (TOP | REPEATED).items():
        share = sum(top_chars(window, n) if n in TOP else repeated_chars(window, n) for window in windows) / len(text)
        if share > limit:
            return (f"top_{n}_gram" if n in TOP else f"repeated_{n}_grams"), share, limit
    return None


def web(text: str, page: bool) -> Broken | None:
    """Returns the first rule for web texts that is broken; the rules about lines only for a page. Source: C4; FineWeb."""
    n = max(len(proper_words(tokens(text))), 1)
    shouts = (text.count("!") + sum(len(t) > 2 and t.isupper() and t.isalpha() for t in tokens(text))) / n
    lorem = sum("lorem ipsum" in line.lower() for line in text.splitlines())
    sentences = len(re.findall(r"[.!?。！？](?=[\"'”’)\]]*(?:\s|$))", text))
    lines = [line for line in text.strip().splitlines() if line.strip()]
    ended = sum(full_stop(line.strip()[-1]) for line in lines) / max(len(lines), 1)
    short = sum(len(line.strip()) <= 30 for line in lines) / max(len(lines), 1)
    breaks = (len(text.strip().splitlines()) - 1) / max(len(tokens(text)), 1)
    if lorem > 0:
        return "c4_lorem_ipsum", lorem, 0
    if page and sentences < 1:
        return "c4_sentences", sentences, 1
    if shouts > 0.25:
        return "shouting", shouts, 0.25
    if page and len(lines) >= 10 and ended < 0.12:
        return "fineweb_line_punctuation", ended, 0.12
    if page and len(lines) >= 10 and short > 0.67:
        return "fineweb_short_lines", short, 0.67
    if page and len(lines) >= 10 and breaks > 0.3:
        return "fineweb_line_breaks", breaks, 0.3
    return None


def value(word: str) -> int:
    """Returns the number that a numeral or a number word means."""
    return NUMBERS.index(word.lower()) if word.lower() in NUMBERS else int(word)


def false_arithmetic(text: str) -> Broken | None:
    """Returns the share of false claims "a + b = c", "a minus b is c" or "What is a times b? It is c", if it is above 0.3."""
    number = rf"(?:\d{{1,12}}|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"
    claim = (
        rf"(?<![\w.,+*×/=^-])(?<![+*×/=-]\s)({number}(?:(?:\s*[+*×−-]\s*|\s+(?:plus|minus|times)\s+){number}){{1,4}})"
        rf"(?:\s*=\s*|\s+(?:is|equals|makes|gives|are)\s+|\?\s+(?:(?:It|That|The answer) is\s+)?)(-?{number})"
        r"(?![\w^]|[.,:]\d|\s*[+*×/−=-]\s*\d|\s+(?:plus|minus|times|more|less)\b)"
    )
    story = (
        rf"\b(?:has|had)\s+({number})\s+\w+(?:,|\s+and|\.\s+\w+)\s+"
        rf"(?:(got|gets|found|finds|bought|buys)|gave|gives|lost|loses|ate|eats|sold|sells)\s+({number})(?:\s+(?:more|away|of them))?"
        rf"(?:,?\s+and\s+now\s+has|\.\s+How many[\w\s]{{2,30}}\?(?:\s+It is|\s+There are)?)\s+({number})"
        r"(?![\w^]|[.,:]\d|\s*[+*×/−=-]\s*\d|\s+(?:plus|minus|times|more|less)\b)"
    )
    true = []
    signs = {"plus": "+", "minus": "-", "times": "*", "×": "*", "−": "-"}
    for left, right in re.findall(claim, text, re.IGNORECASE):
        sign, result = (-1, right[1:]) if right[0] == "-" else (1, right)
        sums = re.sub(r"\w+|[×−]", lambda m: signs.get(m[0].lower()) or str(value(m[0])), left)
        true.append(eval(sums) == sign * value(result))  # only digits and + - * are left
    for first, gain, second, result in re.findall(story, text, re.IGNORECASE):
        true.append(value(first) + (value(second) if gain else -value(second)) == value(result))
    share = true.count(False) / max(len(true), 1)
    return ("false_arithmetic", share, 0.3) if len(true) >= 3 and share > 0.3 else None


def shingles(text: str, n: int = 5) -> list[int]:
    """Returns the hash of each run of n words (of all words where there are fewer)."""
    found = words(text)
    n = min(n, len(found))
    runs = [" ".join(found[i : i + n]) for i in range(len(found) - n + 1)] if found else []
    return [xxhash.xxh64_intdigest(run.encode()) for run in runs]


def signature(text: str, seed: int = 1) -> list[int]:
    """Returns the MinHash numbers of a text: two texts agree in each with the probability of their Jaccard similarity.

    Source: Broder 1997; the functions are datatrove's.
    """
    dice = np.random.RandomState(seed)
    factors, summands = (dice.randint(low, PRIME, BANDS * ROWS, np.uint64).tolist() for low in (1, 0))
    hashes = shingles(text)
    return [min((f * h + s) % 2**64 % PRIME for h in hashes) for f, s in zip(factors, summands)] if hashes else []


def exact_duplicates(texts: list[str]) -> dict[int, int]:
    """Returns {index of a text: index of the first text that is the same}."""
    first: dict[str, int] = {}
    return {i: first[text] for i, text in enumerate(texts) if first.setdefault(text, i) != i}


def near_duplicates(texts: list[str], least: float = 0.7) -> dict[int, int]:
    """Returns {index of a text: index of the longest text (in words, of several the first) of its group of near duplicates}.

    Texts that share a band fall into one bucket; there each is compared with the bucket's first and with the one before it, and
    pairs whose signatures agree in at least `least` are linked. A group is what links connect. Source: Indyk & Motwani 1998.
    """
    signatures = [signature(text) for text in texts]
    group = list(range(len(texts)))
    for band in range(BANDS):
        buckets: dict[tuple[int, ...], list[int]] = {}
        for i, numbers in enumerate(signatures):
            if len(words(texts[i])) >= 10:
                buckets.setdefault(tuple(numbers[band * ROWS : (band + 1) * ROWS]), []).append(i)
        for bucket in buckets.values():
            for before, i in pairwise(bucket):
                for other in (bucket[0], before):
                    alike = sum(a == b for a, b in zip(signatures[i], signatures[other])) / (BANDS * ROWS)
                    if alike >= least:
                        one, two = sorted((group[i], group[other]))
                        group = [one if g == two else g for g in group]
    longest = sorted(range(len(texts)), key=lambda i: (-len(words(texts[i])), i))
    kept = {g: next(i for i in longest if group[i] == g) for g in set(group)}
    return {i: kept[g] for i, g in enumerate(group) if kept[g] != i}


def contaminated(text: str, problems: list[str], n: int = 13) -> bool:
    """Returns whether the text shares a run of n words with a problem (all of a shorter one; under 5 words says nothing).

    Source: Brown et al. 2020, appendix C.
    """
    found = f" {' '.join(words(text))} "
    for problem in problems:
        asked = words(problem)
        size = min(n, len(asked))
        if len(asked) >= 5 and any(f" {' '.join(asked[i : i + size])} " in found for i in range(len(asked) - size + 1)):
            return True
    return False


def curate(texts: list[str], problems: list[str], page: bool = False) -> list[str | None]:
    """Returns, for each text, the name of the rule that turned it away, or None: it stays."""
    reasons: list[str | None] = []
    for text in texts:
        broken = gopher(text) or repetition(text) or web(text, page) or false_arithmetic(text)
        reasons.append(broken[0] if broken else "problem_overlap" if contaminated(text, problems) else None)
    for find, name in ((exact_duplicates, "exact"), (near_duplicates, "near")):
        left = [i for i, reason in enumerate(reasons) if reason is None]
        for i in find([texts[i] for i in left]):
            reasons[left[i]] = name
    return reasons


def without_repeated_lines(texts: list[str], least: int) -> list[list[str]]:
    """Returns, for each text, its lines without those of at least `least` bytes that stand before, in it or in a text before."""
    seen, out = set(), []
    for text in texts:
        kept = []
        for line in text.split("\n"):
            if len(line.encode()) < least or line not in seen:
                kept.append(line)
            seen.add(line)
        out.append(kept)
    return out


def without_repeated_stretches(texts: list[bytes], least: int) -> list[bytes]:
    """Returns each text without the bytes that lie in a stretch of `least` bytes that occurs before, in it or in a text before.

    What a suffix array finds. Source: Lee et al. 2022, section 4.1.
    """
    seen, out = set(), []
    for text in texts:
        repeated: set[int] = set()
        for i in range(len(text) - least + 1):
            if text[i : i + least] in seen:
                repeated.update(range(i, i + least))
            seen.add(text[i : i + least])
        out.append(bytes(byte for i, byte in enumerate(text) if i not in repeated))
    return out
