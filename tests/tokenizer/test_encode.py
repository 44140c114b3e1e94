"""Encoding and decoding: exact, safe with specials, linear in hostile input; ids equal to tiktoken's GPT-2."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.base.errors import TokenizerError
from groundup.tokenizer import encode
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import StreamDecoder, Tokenizer
from groundup.tokenizer.io import read_merges
from groundup.tokenizer.pattern import PATTERNS
from groundup.tokenizer.train import train

TEXT = "The cat sat on the mat. The dog sat on the log; it's 12 — naïve café, 漢字 and 🙂🙂 emoji.\n\n  def f(x):\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([TEXT * 2, "antidisestablishmentarianism " * 3], 330)


@pytest.fixture(scope="module")
def gpt2(data_dir: Path) -> Tokenizer:
    return read_merges(data_dir / "tokenizer" / "gpt2-vocab.bpe")


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert not set(ids) & set(tokenizer.specials.values())
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.push, ids)) + decoder.flush() == text


@given(ids=st.lists(st.integers(0, 329), max_size=30))
def test_streaming_joins_to_decode_and_never_shows_half_a_character(tokenizer: Tokenizer, ids: list[int]) -> None:
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.push, ids)) + decoder.flush() == tokenizer.decode(ids)


def test_a_character_appears_when_its_last_byte_has_come() -> None:
    decoder = StreamDecoder(Tokenizer([]))
    assert [decoder.push(byte) for byte in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]
    assert decoder.push(0xF0) == ""
    assert decoder.flush() == "\ufffd"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_round_trips(pattern: str) -> None:
    tokenizer = train([TEXT * 3], 300, pattern)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.vocab_size == (261 if pattern == "bytes" else 300)


def test_ids_are_bytes_then_merges_then_specials() -> None:
    tokenizer = train(["aaab aaab"], 256 + 2 + 5)
    assert tokenizer.merges == [(97, 97), (97, 98)]  # counts 4 (a a, twice in a word), then 2; ties by smallest ids
    assert tokenizer.specials == {name: 258 + i for i, name in enumerate(DEFAULT_SPECIALS)}
    assert tokenizer.eot == 258
    assert tokenizer.token_bytes(97) == b"a"
    assert tokenizer.token_bytes(257) == b"ab"
    assert tokenizer.token_bytes(258) == b"<|endoftext|>"
    assert tokenizer.encode("aaab") == [256, 257]
    assert tokenizer.vocab_size == 263


def test_specials_only_where_allowed(tokenizer: Tokenizer) -> None:
    end, eot = tokenizer.special("<|end|>"), tokenizer.eot
    text = "a<|end|><|endoftext|>b"
    assert tokenizer.encode(text) == tokenizer.encode_ordinary(text)
    assert not {end, eot} & set(tokenizer.encode(text))
    assert tokenizer.encode(text, "all") == [97, end, eot, 98]
    only = tokenizer.encode(text, {"<|end|>"})
    assert only == [97, end, *tokenizer.encode_ordinary("<|endoftext|>b")]
    assert tokenizer.decode(tokenizer.encode(text, "all")) == text
    with pytest.raises(TokenizerError, match=r"no special token <\|pad\|>"):
        tokenizer.encode(text, {"<|pad|>"})


def test_of_two_specials_the_longer_name_wins() -> None:
    tokenizer = Tokenizer([], ["<|a|>", "<|a|><|b|>"])
    assert tokenizer.encode("<|a|><|b|><|a|>", "all") == [257, 256]


@pytest.mark.parametrize("pattern", ["qwen2", "bytes"])
def test_batches_are_arrays_of_the_same_ids(pattern: str) -> None:
    tokenizer, texts = train([TEXT], 280, pattern), [TEXT, "", "x", "\ud800"]
    arrays = tokenizer.encode_batch(texts)
    assert [array.tolist() for array in arrays] == [tokenizer.encode_ordinary(text) for text in texts]
    assert all(array.dtype == np.int32 for array in arrays)


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude42")) == "🙂"


@pytest.mark.parametrize("token", [-1, 330, 10**9])
def test_an_id_out_of_range_is_named(tokenizer: Tokenizer, token: int) -> None:
    for decode in (tokenizer.decode, tokenizer.decode_bytes):
        with pytest.raises(TokenizerError, match=f"id {token} is out of range: this vocabulary has ids 0 to 329"):
            decode([1, token])
    with pytest.raises(TokenizerError, match="out of range"):
        StreamDecoder(tokenizer).push(token)


def test_numpy_ids_decode(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_batch([TEXT])[0]) == TEXT


@pytest.mark.parametrize(
    ("merges", "specials", "message"),
    [
        ([(300, 1)], ["x"], "ids below its own"),
        ([(97, 97), (97, 97)], ["x"], "no merge may come twice"),
        ([], ["x", "x"], "'x' is given twice"),
        ([], [""], "must not be empty"),
    ],
)
def test_impossible_vocabularies_are_refused(merges: list[tuple[int, int]], specials: list[str], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        Tokenizer(merges, specials)


def test_the_fingerprint_tells_vocabularies_apart(tokenizer: Tokenizer) -> None:
    again = Tokenizer(tokenizer.merges, list(tokenizer.specials), tokenizer.pattern)
    assert again.fingerprint == tokenizer.fingerprint
    for other in (
        Tokenizer(tokenizer.merges[:-1], list(tokenizer.specials)),
        Tokenizer(tokenizer.merges, list(tokenizer.specials)[::-1]),
        Tokenizer(tokenizer.merges, list(tokenizer.specials), "gpt2"),
        Tokenizer(tokenizer.merges, list(tokenizer.specials), byte_order=bytes(range(256))[::-1]),
    ):
        assert other.fingerprint != tokenizer.fingerprint


def test_the_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "CACHED_WORDS", 10)
    tokenizer = Tokenizer([(97, 98)])
    text = " ".join(f"ab{'c' * i}" for i in range(100))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer._words) <= 10
    assert max(map(len, tokenizer._words)) <= encode.CACHED_LENGTH


HOSTILE = {
    "one letter": "a" * 300_000,
    "two letters": "ab" * 150_000,
    "one random word": "".join(random.Random(0).choices("abcdefgh", k=300_000)),
    "spaces": " " * 300_000,
    "line feeds": "\n" * 300_000,
    "joined emoji": "🙂\u200d" * 75_000,
    "signs": "!?" * 150_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("pattern", ["qwen2", "gpt2"])
def test_hostile_text_takes_linear_time(kind: str, pattern: str) -> None:
    """Five times the text takes about five times as long; a quadratic merge would take twenty-five times."""
    text = HOSTILE[kind]
    tokenizer = train([text[:2000]], 256 + 20 if kind == "one random word" else 256 + 8, pattern, specials=())
    tokenizer.encode(text[:1000])

    def seconds(part: str) -> float:
        start = time.thread_time()
        assert tokenizer.decode(tokenizer.encode(part)) == part
        return time.thread_time() - start

    small, large = min(seconds(text[:60_000]) for _ in range(2)), seconds(text)
    assert large < 3.0
    assert large < 12 * small + 0.1


def test_gpt2_ids_equal_tiktoken(gpt2: Tokenizer, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # local files need no copy
    folder = data_dir / "tokenizer"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "gpt2-vocab.bpe"), str(folder / "gpt2-encoder.json"))
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=PATTERNS["gpt2"] or "", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    assert gpt2.vocab_size == theirs.n_vocab == 50257
    assert gpt2.eot == 50256
    texts = [path.read_text(encoding="utf-8") for path in sorted((data_dir / "text").glob("*.txt"))]
    texts = [text[:300_000] for text in texts] + [TEXT, "\ud800", "a" * 5000, " \n" * 500, "🙂\u200d" * 300]
    for text in texts:
        assert gpt2.encode(text) == theirs.encode_ordinary(text)
        assert gpt2.encode(text + "<|endoftext|>", "all") == theirs.encode(
            text + "<|endoftext|>", allowed_special="all"
        )
    ids = [random.Random(1).randrange(50257) for _ in range(2000)]
    assert gpt2.decode_bytes(ids) == theirs.decode_bytes(ids)
