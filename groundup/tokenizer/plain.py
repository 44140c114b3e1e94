r"""Byte-pair encoding in its obvious form: the 1990s compression trick that decides what a language model can see.

Lesson 1 is the paper's: words are characters with an end mark, and the most frequent pair of neighbours is joined,
again and again (Sennrich, Haddow and Birch 2016). Lesson 2 is what GPT-2 and its successors do: the same over bytes,
so that nothing is ever unknown, inside the pieces that a regular expression cuts (Radford et al. 2019).

    merges, vocab = train_bpe("low low low lower lowest", 4)    # l+o, lo+w, low+</w>, low+e
    apply_bpe("lower", merges)                                  # lowe, r, </w>
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import regex  # Python's own `re` knows no \p{L}, "any letter in any script"

__all__ = [
    "END_OF_WORD", "GPT2", "QWEN2", "apply_bpe", "count_pairs", "count_words", "decode", "encode", "join", "learn",
    "merge_all", "split", "train_bpe", "train_bytes", "vocabulary",
]  # fmt: skip

Symbol = TypeVar("Symbol", str, int)
END_OF_WORD = "</w>"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # contractions
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # a word, with the space (or one other sign) before it
    r"|\p{N}"  # one digit
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # signs, with a space before and line ends after
    r"|\s*[\r\n]+"  # line ends, with the white space before
    r"|\s+(?!\S)"  # white space, but its last character, which belongs to the next word
    r"|\s+"
)


# What both lessons do: count neighbours, join the most frequent two.


def count_pairs(words: dict[tuple[Symbol, ...], int]) -> Counter[tuple[Symbol, Symbol]]:
    """Returns how often each pair of neighbours occurs, in words that each occur so many times."""
    pairs: Counter[tuple[Symbol, Symbol]] = Counter()
    for word, count in words.items():
        for left, right in pairwise(word):
            pairs[left, right] += count
    return pairs


def join(word: Sequence[Symbol], pair: tuple[Symbol, Symbol], new: Symbol) -> tuple[Symbol, ...]:
    """Returns the word with every occurrence of the pair replaced by `new`, from left to right: aaa -> (aa)a."""
    joined: list[Symbol] = []
    at = 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            joined.append(new)
            at += 2
        else:
            joined.append(word[at])
            at += 1
    return tuple(joined)


# Lesson 1. Characters and an end mark.


def train_bpe(text: str, num_merges: int) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Returns (merges, vocab): the pairs in the order they were joined, and each token with its number.

    A word is its characters and then </w>, so that "er" at the end of a word and "er" within one can differ. Of pairs
    that are equally frequent, the one whose tokens are oldest is joined. It stops early when each word is one token.
    Source: Sennrich et al. 2016, algorithm 1
    """
    words = Counter(tuple(word) + (END_OF_WORD,) for word in text.split())
    vocab = {token: i for i, token in enumerate(sorted({token for word in words for token in word}))}
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges and (pairs := count_pairs(words)):
        best = min(pairs, key=lambda pair: (-pairs[pair], vocab[pair[0]], vocab[pair[1]]))
        new = best[0] + best[1]
        words = Counter({join(word, best, new): count for word, count in words.items()})
        merges.append(best)
        vocab.setdefault(new, len(vocab))
    return merges, vocab


def apply_bpe(word: str, merges: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the tokens of a word: its characters and </w>, joined as in training, the earliest merge first."""
    tokens = tuple(word) + (END_OF_WORD,)
    for left, right in merges:
        tokens = join(tokens, (left, right), left + right)
    return list(tokens)


# Lesson 2. Bytes, inside the pieces of a pattern. Ids 0 to 255 are the bytes, 256 + i is what merge i makes.


def split(text: str, pattern: str = QWEN2) -> list[str]:
    """Returns the pieces of a text; joined, they are the text again. No token will cross a piece's edge."""
    return regex.findall(pattern, text)


def count_words(texts: Iterable[str], pattern: str = QWEN2) -> Counter[str]:
    """Returns how often each different piece occurs in the texts."""
    return Counter(piece for text in texts for piece in split(text, pattern))


def learn(words: dict[tuple[int, ...], int], merges: int, first: int) -> list[tuple[int, int]]:
    """Returns up to `merges` pairs of symbols in the order joined; pair i becomes symbol `first + i`.

    The most frequent pair goes first, and of equally frequent ones that with the smallest ids. Every round counts
    everything anew: slow, and plainly right.
    """
    learnt: list[tuple[int, int]] = []
    while len(learnt) < merges and (pairs := count_pairs(words)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = {join(word, best, first + len(learnt)): count for word, count in words.items()}
        learnt.append(best)
    return learnt


def train_bytes(texts: Iterable[str], num_merges: int, pattern: str = QWEN2) -> list[tuple[int, int]]:
    """Returns the merges that byte-level BPE learns from the texts."""
    words = {tuple(word.encode()): count for word, count in count_words(texts, pattern).items()}
    return learn(words, num_merges, 256)


def merge_all(ids: Sequence[int], merges: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the symbols after every merge has been applied, in the order learnt, wherever it fits."""
    for i, pair in enumerate(merges):
        ids = join(ids, pair, 256 + i)
    return list(ids)


def encode(text: str, merges: Sequence[tuple[int, int]], pattern: str = QWEN2) -> list[int]:
    """Returns the ids of a text: piece by piece, from its bytes upward."""
    return [i for piece in split(text, pattern) for i in merge_all(tuple(piece.encode()), merges)]


def vocabulary(merges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Returns the bytes of every id: a byte, or the bytes of the two tokens that were joined."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return tokens


def decode(ids: Iterable[int], merges: Sequence[tuple[int, int]]) -> str:
    """Returns the text of the ids. Bytes that don't make a character (half an emoji, say) become U+FFFD."""
    tokens = vocabulary(merges)
    return b"".join(tokens[i] for i in ids).decode("utf-8", "replace")
