"""How a vocabulary serves a text: bytes per token by source and by script, and how often each token is used."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError
from groundup.base.log import progress
from groundup.base.records import read_documents
from groundup.base.runs import open_run
from groundup.tokenizer.encode import Tokenizer, whole
from groundup.tokenizer.pattern import blocks, splitter
from groundup.tokenizer.texts import find_texts, read_batches, strings

__all__ = ["Tally", "Usage", "measure", "samples", "script"]

SCRIPTS = ("Latin", "Cyrillic", "Greek", "Han", "Hiragana", "Katakana", "Hangul", "Arabic", "Hebrew", "Devanagari",
           "Bengali", "Tamil", "Telugu", "Thai", "Armenian", "Georgian")  # fmt: skip


SEARCHED = 64  # samples' lengths of text that are passed over in search of a source without its share


@dataclass
class Tally:
    """What was counted of one source or script."""

    bytes: int = 0
    tokens: int = 0
    words: int = 0
    whole: int = 0  # words that are one token

    @property
    def bytes_per_token(self) -> float:
        """How many bytes of text a token holds on average; 0 without text."""
        return self.bytes / self.tokens if self.tokens else 0.0

    def add(self, size: int, tokens: int, count: int) -> None:
        """Counts a word of `size` bytes that came `count` times."""
        self.bytes += size * count
        self.tokens += tokens * count
        self.words += count
        self.whole += count * (tokens == 1)


@dataclass
class Usage:
    """A text as a tokenizer cuts it. `words` tells how often each different piece came, whatever its source."""

    sources: dict[str, Tally] = field(default_factory=dict)
    scripts: dict[str, Tally] = field(default_factory=dict)
    used: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> Tally:
        """All sources together."""
        rows = self.sources.values()
        return Tally(*(sum(getattr(row, key) for row in rows) for key in ("bytes", "tokens", "words", "whole")))


def script(word: str) -> str:
    """Returns the script of a word's first letter; else "digits", "signs" or "white space"."""
    for character in word:
        if character.isalpha():
            name = unicodedata.name(character, "").split(" ")[0].title()
            return "Han" if name == "Cjk" else name if name in SCRIPTS else "other letters"
    return "white space" if word.isspace() else "digits" if any(c.isdigit() for c in word) else "signs"


def measure(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> Usage:
    """Returns how a tokenizer cuts texts, given as pairs of a source's name and a text.

    Words are what its own pattern cuts (of a vocabulary of bytes: what stands between white space). Each different one
    is encoded once.
    """
    pattern = "whitespace" if tokenizer.pattern == "bytes" else tokenizer.pattern
    split, usage, words = splitter(pattern), Usage(), dict[str, Counter[str]]()
    normal: Any = tokenizer.normal
    with progress("counting words", None, "characters") as bar:
        for source, text in texts:
            text = whole(text if normal is None else unicodedata.normalize(normal, text))
            for block in blocks(text, pattern=pattern):
                words.setdefault(source, Counter()).update(split(block))
                bar.advance(len(block))
    for source, counter in words.items():
        tally = usage.sources.setdefault(source, Tally())
        for word, count in counter.items():
            ids, size = tokenizer.encode_ordinary(word), len(word.encode())
            tally.add(size, len(ids), count)
            usage.scripts.setdefault(script(word), Tally()).add(size, len(ids), count)
            for token in ids:
                usage.used[token] += count
        usage.words.update(counter)
    return usage


def samples(
    paths: Iterable[Path], project: Path, data: str = "main", limit: int = 4_000_000, invalid: str = "strict"
) -> Iterator[tuple[str, str]]:
    """Yields pairs of a source's name and a text: of files and folders by file, else of a project's documents by source.

    About `limit` characters of each source. Raises: DataError naming a file that isn't there, isn't text, or is empty.
    """
    documents, some = open_run(project, "data", data).path / "documents.parquet", False
    files = find_texts(paths)
    for pair in _of_files(files, limit, invalid) if files else _of_documents(documents, limit):
        some = True
        yield pair
    if not some:
        raise DataError(f"{', '.join(map(str, files)) or documents}: no text in it")


def _of_files(files: Iterable[Path], limit: int, invalid: str) -> Iterator[tuple[str, str]]:
    for file in files:
        left = limit
        for text in strings(read_batches(file, invalid)):
            yield file.name, text[:left]
            left -= len(text)
            if left <= 0:
                break


def _of_documents(path: Path, limit: int) -> Iterator[tuple[str, str]]:
    """Yields documents until each source has its share, looking for rare ones in the first part of a large corpus only."""
    if not path.exists():
        raise DataError(f"{path}: not there; give texts by --input FILE, or --text")
    taken, passed = Counter[str](), 0
    for document in read_documents(path):
        text = document.text[: max(0, limit - taken[document.source])]
        taken[document.source] += len(text)
        passed += len(document.text) - len(text)
        if text:
            yield document.source, text
        if passed > SEARCHED * limit:
            break
