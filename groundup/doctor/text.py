"""What the training text is like: how far counting alone would get, copies, leaks, and whether a sample reads like it."""

import math
import random
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from groundup.shards.read import Shards

__all__ = ["Corpus", "Levels", "counting_levels", "likeness", "squeezed"]

READ_TOKENS = 2_000_000  # of the training text, spread over it: enough for counts, a second's work
CHUNKS = 16
HASHED_DOCUMENTS = 20_000
SHORT_DOCUMENT = 32  # tokens; shorter ones ("Yes.") are rightly alike
WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Levels:
    """Losses in nats per token that need no network: of guessing, of counting tokens, of counting pairs of tokens."""

    uniform: float
    unigram: float
    bigram: float


def counting_levels(tokens: np.ndarray, vocab_size: int) -> Levels:
    """Returns the levels, counted on the first three quarters of the tokens and measured on the last.

    Tokens with one added to each count; pairs by Witten-Bell: a token with n followers of t kinds gives its pairs n / (n + t)
    of the word and leaves the rest to the single tokens. Measured on what wasn't counted, so that rare pairs don't flatter.
    Source: Witten and Bell 1991, method C
    """
    ids = tokens.astype(np.int64)
    cut = 3 * len(ids) // 4
    seen, fresh = ids[:cut], ids[cut:]
    single = (np.bincount(seen, minlength=vocab_size) + 1) / (cut + vocab_size)
    pairs, counts = np.unique(seen[:-1] * vocab_size + seen[1:], return_counts=True)
    first = pairs // vocab_size
    followers = np.bincount(first, weights=counts, minlength=vocab_size)
    kinds = np.bincount(first, minlength=vocab_size)
    before, after = fresh[:-1], fresh[1:]
    wanted = before * vocab_size + after
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    count = np.where(pairs[at] == wanted, counts[at], 0)
    n, t = followers[before], kinds[before]
    probability = np.where(n + t > 0, (count + t * single[after]) / np.maximum(n + t, 1), single[after])
    return Levels(math.log(vocab_size), float(-np.log(single[after]).mean()), float(-np.log(probability).mean()))


class Corpus:
    """The token files of a project (`train` and `heldout`), and what is asked about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.heldout = Shards(folder / "train"), Shards(folder / "heldout")

    @cached_property
    def read(self) -> np.ndarray:
        """At most two million tokens, in pieces spread evenly over the training text."""
        tokens = self.train.tokens
        if tokens <= READ_TOKENS:
            return self.train.slice(0, tokens)
        size = READ_TOKENS // CHUNKS
        starts = [i * (tokens - size) // (CHUNKS - 1) for i in range(CHUNKS)]
        return np.concatenate([self.train.slice(start, start + size) for start in starts])

    @cached_property
    def levels(self) -> Levels | None:
        """Losses that counting reaches; None where there are fewer tokens to count than kinds of token."""
        enough = len(self.read) >= 4 * max(self.train.vocab_size, 64)
        return counting_levels(self.read, self.train.vocab_size) if enough else None

    def _documents(self, shards: Shards) -> list[bytes]:
        """Returns the bytes of the longer documents' tokens, at most so many, spread evenly."""
        starts = np.append(np.asarray(shards.doc_starts), shards.tokens)
        step = max(1, (len(starts) - 1) // HASHED_DOCUMENTS)
        spans = [(int(starts[i]), int(starts[i + 1])) for i in range(0, len(starts) - 1, step)]
        return [shards.slice(a, b).tobytes() for a, b in spans if b - a >= SHORT_DOCUMENT]

    @cached_property
    def copies(self) -> float:
        """The share of the training text's bytes that stand in documents which occurred before, word for word."""
        found = Counter(self._documents(self.train))
        total = sum(len(text) * count for text, count in found.items())
        return sum(len(text) * (count - 1) for text, count in found.items()) / total if total else 0.0

    @cached_property
    def leaked(self) -> float:
        """The share of the held-out documents that also stand in the training text, word for word."""
        held = self._documents(self.heldout) if self.heldout.tokens else []
        known = set(self._documents(self.train)) if held else set()
        return sum(text in known for text in held) / len(held) if held else 0.0


def likeness(sample: str, text: str, seed: int = 0) -> float:
    """Returns how much a sample reads like a text: 1 as the text itself does, 0 as its letters in random order do.

    The share of words that the first half of the text has, of the sample, of the second half, and of the sample shuffled.
    """
    cut = len(text) // 2
    known = set(WORDS.findall(text[:cut]))
    letters = list(sample)
    random.Random(seed).shuffle(letters)

    def share(of: str) -> float:
        words = WORDS.findall(of)
        return sum(word in known for word in words) / len(words) if words else 0.0

    real, shuffled = share(text[cut:]), share("".join(letters))
    return (share(sample) - shuffled) / (real - shuffled) if real > shuffled else 1.0


def squeezed(text: str) -> float:
    """Returns the share of a text's bytes that remain when zlib has replaced what repeats itself."""
    raw = text.encode("utf-8", "replace")
    return len(zlib.compress(raw, 9)) / max(len(raw), 1)
