"""The tokenizer's lesson and its fast form give the same pieces, merges, ids and texts."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.tokenizer import encode, plain
from groundup.tokenizer import learn as fast
from groundup.tokenizer.count import count_batches
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.pattern import PATTERNS, splitter
from groundup.tokenizer.texts import batches, pack

# Few letters make runs and overlapping pairs, where BPE implementations go wrong; the rest is what people type.
FEW = st.text(alphabet="aab ", max_size=60)
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
TEXTS = st.lists(st.one_of(FEW, ANY), max_size=8)
NAMED = {"gpt2": plain.GPT2, "qwen2": plain.QWEN2}


def fast_merges(texts: list[str], merges: int, pattern: str = "qwen2") -> list[tuple[int, int]]:
    return fast.learn_words(*count_batches([pack(texts)], pattern).words.laid_out(), merges)


@pytest.mark.parametrize("name", NAMED)
def test_patterns_are_the_same(name: str) -> None:
    assert PATTERNS[name] == NAMED[name]


@given(text=st.one_of(FEW, ANY))
def test_split(text: str) -> None:
    for name, pattern in NAMED.items():
        pieces = splitter(name)(text)
        assert pieces == plain.split(text, pattern)
        assert "".join(pieces) == text


@given(texts=TEXTS)
@settings(deadline=None)
def test_count_words(texts: list[str]) -> None:
    for threads in (1, 2):
        counted = count_batches(batches(texts, 20), "qwen2", threads).words.items()
        assert {word.decode(): count for word, count in counted.items()} == plain.count_words(texts)


@given(texts=TEXTS, merges=st.integers(0, 40))
@settings(deadline=None)
def test_learn_and_train_bytes(texts: list[str], merges: int) -> None:
    assert fast_merges(texts, merges) == plain.train_bytes(texts, merges)
    words = {tuple(word.encode()): count for word, count in plain.count_words(texts).items()}
    assert fast.learn(words, merges, 256) == plain.learn(words, merges, 256)


@given(words=st.dictionaries(st.lists(st.integers(0, 2), max_size=40).map(tuple), st.integers(1, 9), max_size=6))
@settings(deadline=None)
def test_merges_of_long_runs(words: dict[tuple[int, ...], int]) -> None:
    """Few symbols and long words: overlapping pairs, runs like "aaa", equal counts (count_pairs, join)."""
    assert fast.learn(words, 30, 3) == plain.learn(words, 30, 3)
    learnt = fast.learn(words, 1, 3)
    counts = plain.count_pairs(words)
    assert learnt == ([min(counts, key=lambda pair: (-counts[pair], pair))] if counts else [])


@given(text=st.text(alphabet="abcé ", max_size=80), merges=st.integers(0, 30))
@settings(deadline=None)
def test_train_bpe_and_apply_bpe(text: str, merges: int) -> None:
    """The paper's form is the fast trainer run over characters and </w>."""
    learnt, vocab = plain.train_bpe(text, merges)
    letters = sorted({plain.END_OF_WORD} | set("".join(text.split()))) if text.split() else []
    words: dict[tuple[int, ...], int] = {}
    for word in text.split():
        spelled = (*(letters.index(letter) for letter in word), letters.index(plain.END_OF_WORD))
        words[spelled] = words.get(spelled, 0) + 1
    names = list(letters)
    expected = []
    for left, right in fast.learn(words, merges, len(letters)):
        expected.append((names[left], names[right]))
        names.append(names[left] + names[right])
    assert learnt == expected
    assert vocab == {name: i for i, name in enumerate(names)}
    ranks = {(vocab[left], vocab[right]): vocab[left + right] for left, right in learnt}
    for word in text.split():
        ids = encode.merge([vocab[token] for token in (*word, plain.END_OF_WORD)], ranks)
        assert [names[i] for i in ids] == plain.apply_bpe(word, learnt)


@given(texts=TEXTS, text=st.one_of(FEW, ANY), merges=st.integers(0, 40))
@settings(deadline=None)
def test_encode_decode_vocabulary(texts: list[str], text: str, merges: int) -> None:
    learnt = fast_merges(texts, merges)
    tokenizer = Tokenizer(learnt)
    ids = tokenizer.encode_ordinary(text)
    assert ids == plain.encode(text, learnt)
    assert tokenizer.decode(ids) == plain.decode(ids, learnt) == text
    assert [tokenizer.token_bytes(i) for i in range(256 + len(learnt))] == plain.vocabulary(learnt)


@given(ids=st.lists(st.integers(97, 99), max_size=300), merges=st.integers(0, 30))
@settings(deadline=None)
def test_merge_all_short_and_long(ids: list[int], merges: int) -> None:
    learnt = plain.learn({tuple(ids[::2]): 1, tuple(ids): 2}, merges, 256)
    ranks = {pair: 256 + i for i, pair in enumerate(learnt)}
    expected = plain.merge_all(ids, learnt)
    assert encode._merge_short(ids, ranks) == expected
    assert encode._merge_long(ids, ranks) == expected


def test_real_text(data_dir: Path) -> None:
    text = (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:30_000]
    learnt = plain.train_bytes([text], 100)
    assert fast_merges([text], 100) == learnt
    tokenizer = Tokenizer(learnt)
    sample = text[:6000]
    assert tokenizer.encode_ordinary(sample) == plain.encode(sample, learnt)
    assert tokenizer.decode(tokenizer.encode_ordinary(sample)) == plain.decode(plain.encode(sample, learnt), learnt)
