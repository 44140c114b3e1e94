"""Quality rules by name: each holds one measured feature of a text against one threshold of the config.

The features (`groundup.data.measure`) are kept with every document, so that other thresholds need no other run.
Equal to: groundup.data.plain.gopher, repetition, web
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.base.files import os_error
from groundup.data.config import BuildConfig
from groundup.data.extract import Drop

__all__ = ["GATES", "RULES", "Rule", "blocked", "first_broken", "forbidden_words", "read_list"]


class Rule(NamedTuple):
    """A text leaves where the feature is above the threshold, or below it (`least`). `gate`: what else must hold.

    key: where the config has the threshold; true stands for "none at all"; less: what is taken from it.
    """

    name: str
    feature: str
    key: str
    gate: str
    least: bool = False
    less: float = 0

    def threshold(self, config: BuildConfig) -> float:
        """Returns the threshold that a config sets."""
        section, _, name = self.key.partition(".")
        value = getattr(getattr(config, section), name)
        return (0 if value else math.inf) if isinstance(value, bool) else round(value - self.less, 6)


RULES = (
    Rule("gopher_min_words", "words", "gopher.min_words", "gopher", least=True),
    Rule("gopher_max_words", "words", "gopher.max_words", "gopher"),
    Rule("gopher_min_word_length", "word_length", "gopher.min_word_length", "gopher_long", least=True),
    Rule("gopher_max_word_length", "word_length", "gopher.max_word_length", "gopher"),
    Rule("gopher_symbols", "hashes", "gopher.max_symbol_ratio", "gopher"),
    Rule("gopher_symbols", "ellipses", "gopher.max_symbol_ratio", "gopher"),
    Rule("gopher_bullet_lines", "bullet_lines", "gopher.max_bullet_lines", "gopher_long"),
    Rule("gopher_ellipsis_lines", "ellipsis_lines", "gopher.max_ellipsis_lines", "gopher_long"),
    Rule("gopher_alpha_words", "alpha_words", "gopher.min_alpha_words", "gopher_long", least=True),
    Rule("gopher_stop_words", "stop_words", "gopher.min_stop_words", "gopher_long", least=True),
    Rule("repeated_paragraphs", "repeated_paragraphs", "repetition.max_paragraph_share", "repetition"),
    Rule("repeated_paragraph_chars", "repeated_paragraph_chars", "repetition.max_paragraph_chars", "repetition"),
    Rule("repeated_lines", "repeated_lines", "repetition.max_line_share", "repetition"),
    Rule("repeated_line_chars", "repeated_line_chars", "repetition.max_line_chars", "repetition"),
    *(Rule(f"top_{n}_gram", f"top_{n}_gram", f"repetition.top_{n}", "repetition") for n in (2, 3, 4)),
    *(Rule(f"repeated_{n}_grams", f"repeated_{n}_grams", "repetition.max_repeated_5", "repetition", less=(n - 5) / 100)
      for n in range(5, 11)),
    Rule("c4_lorem_ipsum", "lorem_ipsum", "c4.enabled", "c4"),
    Rule("c4_curly_bracket", "curly_brackets", "c4.curly_brackets", "c4"),
    Rule("c4_sentences", "sentences", "c4.min_sentences", "c4_page", least=True),
    Rule("shouting", "shouting", "web.max_shouting", "web"),
    Rule("fineweb_line_punctuation", "line_punctuation", "web.min_line_punctuation", "web_lines", least=True),
    Rule("fineweb_short_lines", "short_lines", "web.max_short_lines", "web_lines"),
    Rule("fineweb_repeated_chars", "repeated_page_chars", "web.max_repeated_chars", "web_lines"),
    Rule("fineweb_line_breaks", "line_breaks", "web.max_line_breaks", "web_lines"),
)  # fmt: skip
# What decides beside the thresholds, and needs nothing measured anew either.
GATES = ("gopher.enabled", "gopher.long_words", "repetition.enabled", "repetition.min_words", "c4.enabled", "web.pages_only",
         "web.min_lines")  # fmt: skip


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
