"""Quality rules by name: each holds one measured feature of a text against one threshold of the config.

The features (`groundup.data.measure`) are kept with every document, so that other thresholds need no other run.
Equal to: groundup.data.plain.gopher, repetition, web
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.base.files import os_error
from groundup.data.config import BuildConfig
from groundup.data.extract import Drop

__all__ = ["RULES", "Rule", "blocked", "first_broken", "forbidden_words", "read_list"]


class Rule(NamedTuple):
    """A text leaves where the feature is above the threshold, or below it (`least`). `gate`: what else must hold."""

    name: str
    feature: str
    threshold: Callable[[BuildConfig], float]
    least: bool = False
    gate: str = ""


RULES = (
    Rule("gopher_min_words", "words", lambda c: c.gopher.min_words, True, "gopher"),
    Rule("gopher_max_words", "words", lambda c: c.gopher.max_words, False, "gopher"),
    Rule("gopher_min_word_length", "word_length", lambda c: c.gopher.min_word_length, True, "gopher_long"),
    Rule("gopher_max_word_length", "word_length", lambda c: c.gopher.max_word_length, False, "gopher"),
    Rule("gopher_symbols", "hashes", lambda c: c.gopher.max_symbol_ratio, False, "gopher"),
    Rule("gopher_symbols", "ellipses", lambda c: c.gopher.max_symbol_ratio, False, "gopher"),
    Rule("gopher_bullet_lines", "bullet_lines", lambda c: c.gopher.max_bullet_lines, False, "gopher_long"),
    Rule("gopher_ellipsis_lines", "ellipsis_lines", lambda c: c.gopher.max_ellipsis_lines, False, "gopher_long"),
    Rule("gopher_alpha_words", "alpha_words", lambda c: c.gopher.min_alpha_words, True, "gopher_long"),
    Rule("gopher_stop_words", "stop_words", lambda c: c.gopher.min_stop_words, True, "gopher_long"),
    Rule("repeated_paragraphs", "repeated_paragraphs", lambda c: c.repetition.max_paragraph_share, False, "repetition"),
    Rule("repeated_paragraph_chars", "repeated_paragraph_chars", lambda c: c.repetition.max_paragraph_chars, False, "repetition"),
    Rule("repeated_lines", "repeated_lines", lambda c: c.repetition.max_line_share, False, "repetition"),
    Rule("repeated_line_chars", "repeated_line_chars", lambda c: c.repetition.max_line_chars, False, "repetition"),
    Rule("top_2_gram", "top_2_gram", lambda c: c.repetition.top_2, False, "repetition"),
    Rule("top_3_gram", "top_3_gram", lambda c: c.repetition.top_3, False, "repetition"),
    Rule("top_4_gram", "top_4_gram", lambda c: c.repetition.top_4, False, "repetition"),
    Rule("repeated_5_grams", "repeated_5_grams", lambda c: c.repetition.max_repeated_5, False, "repetition"),
    Rule("repeated_6_grams", "repeated_6_grams", lambda c: round(c.repetition.max_repeated_5 - 0.01, 6), False, "repetition"),
    Rule("repeated_7_grams", "repeated_7_grams", lambda c: round(c.repetition.max_repeated_5 - 0.02, 6), False, "repetition"),
    Rule("repeated_8_grams", "repeated_8_grams", lambda c: round(c.repetition.max_repeated_5 - 0.03, 6), False, "repetition"),
    Rule("repeated_9_grams", "repeated_9_grams", lambda c: round(c.repetition.max_repeated_5 - 0.04, 6), False, "repetition"),
    Rule("repeated_10_grams", "repeated_10_grams", lambda c: round(c.repetition.max_repeated_5 - 0.05, 6), False, "repetition"),
    Rule("c4_lorem_ipsum", "lorem_ipsum", lambda c: 0, False, "c4"),
    Rule("c4_curly_bracket", "curly_brackets", lambda c: 0 if c.c4.curly_brackets else float("inf"), False, "c4"),
    Rule("c4_sentences", "sentences", lambda c: c.c4.min_sentences, True, "c4_page"),
    Rule("shouting", "shouting", lambda c: c.web.max_shouting, False, "web"),
    Rule("fineweb_line_punctuation", "line_punctuation", lambda c: c.web.min_line_punctuation, True, "web_lines"),
    Rule("fineweb_short_lines", "short_lines", lambda c: c.web.max_short_lines, False, "web_lines"),
    Rule("fineweb_repeated_chars", "repeated_page_chars", lambda c: c.web.max_repeated_chars, False, "web_lines"),
    Rule("fineweb_line_breaks", "line_breaks", lambda c: c.web.max_line_breaks, False, "web_lines"),
)  # fmt: skip


def first_broken(
    values: np.ndarray, pages: Sequence[bool], config: BuildConfig, features: Sequence[str]
) -> list[Drop | None]:
    """Returns, for each text, the first rule that it breaks, with what was measured and the threshold.

    Shapes: values (texts, features), pages (texts): which of them are HTML pages.
    """
    column = {name: values[:, k] for k, name in enumerate(features)}
    page = np.asarray(pages, bool) | (not config.web.pages_only)
    gates = {
        "gopher": np.full(len(values), config.gopher.enabled),
        "gopher_long": (column["words"] >= config.gopher.long_words) & config.gopher.enabled,
        "repetition": (column["tokens"] >= config.repetition.min_words) & config.repetition.enabled,
        "c4": np.full(len(values), config.c4.enabled),
        "c4_page": page & config.c4.enabled,
        "web": np.full(len(values), config.web.enabled),
        "web_lines": page & (column["lines"] >= config.web.min_lines) & config.web.enabled,
    }
    drops: list[Drop | None] = [None] * len(values)
    for rule in RULES:
        limit, measured = rule.threshold(config), column[rule.feature]
        broken = gates[rule.gate] & (measured < limit if rule.least else measured > limit)
        for k in np.flatnonzero(broken).tolist():
            if drops[k] is None:
                drops[k] = Drop("quality", rule.name, float(measured[k]), limit)
    return drops


def read_list(path: Path | None) -> tuple[str, ...]:
    """Returns the entries of a list (one a line, '#' begins a comment). Raises: DataError, StorageError."""
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


def forbidden_words(entries: Sequence[str]) -> re.Pattern[str] | None:
    """Returns a pattern that finds any of the words and phrases, whole, in letters of either case; None for no entries."""
    if not entries:
        return None
    words = sorted((re.escape(entry).replace(r"\ ", r"\s+") for entry in entries), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)
