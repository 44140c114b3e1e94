"""Encoding and decoding: exact, safe with specials, the same compiled or not; ids equal to tiktoken's GPT-2."""

import functools
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import write_jsonl
from groundup.base.records import Document, write_documents
from groundup.tokenizer import bench, encode, engine, native
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import StreamDecoder, Tokenizer
from groundup.tokenizer.foreign import Foreign
from groundup.tokenizer.io import read_merges
from groundup.tokenizer.pattern import PATTERNS
from groundup.tokenizer.texts import Batch, pack
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


@pytest.fixture(scope="module")
def theirs(data_dir: Path) -> Any:
    """tiktoken's own GPT-2, from the same two files."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    os.environ["TIKTOKEN_CACHE_DIR"] = ""  # local files need no copy
    folder = data_dir / "tokenizer"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "gpt2-vocab.bpe"), str(folder / "gpt2-encoder.json"))
    return tiktoken.Encoding("gpt2", pat_str=PATTERNS["gpt2"] or "", mergeable_ranks=ranks,
                             special_tokens={"<|endoftext|>": 50256})  # fmt: skip


def fast(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, with compiled code for every text longer than some characters."""
    tokenizer._asked = encode.WORTH_COMPILING
    return tokenizer


def test_gpt2_ids_equal_tiktoken(gpt2: Tokenizer, theirs: Any, data_dir: Path) -> None:
    assert gpt2.vocab_size == theirs.n_vocab == 50257
    assert gpt2.eot == 50256
    texts = [path.read_text(encoding="utf-8") for path in sorted((data_dir / "text").glob("*.txt"))]
    texts = [text[:200_000] for text in texts] + [TEXT, "\ud800", "a" * 5000, " \n" * 500, "🙂\u200d" * 300]
    for text in texts:
        expected = theirs.encode_ordinary(text)
        assert list(gpt2._stream(text)) == expected
        assert fast(gpt2).encode(text) == expected
        whole = text + "<|endoftext|>"
        assert gpt2.encode(whole, "all") == theirs.encode(whole, allowed_special="all")
    ids = [random.Random(1).randrange(50257) for _ in range(200_000)]
    assert gpt2.decode_bytes(ids) == theirs.decode_bytes(ids)
    assert gpt2.decode(np.array(ids)) == theirs.decode(ids)


@pytest.mark.slow
def test_gpt2_ids_equal_tiktoken_on_all_data(gpt2: Tokenizer, theirs: Any, data_dir: Path) -> None:
    """Every file of the data, packed ones as the bytes they are: what isn't UTF-8 becomes U+FFFD."""
    for path in sorted(p for p in data_dir.rglob("*") if p.is_file()):
        text = path.read_bytes()[:8_000_000].decode("utf-8", "replace")
        assert gpt2.encode_batch([text], 2)[0].tolist() == theirs.encode_ordinary(text), path


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "bytes"])
@given(texts=st.lists(st.one_of(st.text(st.sampled_from("abcs' .\n1é🙂")), st.text()), max_size=5))
@settings(deadline=None)
def test_compiled_code_gives_the_same_ids(pattern: str, texts: list[str]) -> None:
    tokenizer = trained(pattern)
    engine = tokenizer._engine
    expected = [list(tokenizer._stream(text)) for text in texts]
    assert [ids.tolist() for ids in engine.encode(pack(texts))] == (expected if texts else [])
    joined = Batch(*pack(texts)[:2], joined=True)
    if texts:
        again = list(engine.stream([pack(texts), joined, pack(texts)], 2))
        seam = [*expected[:-1], expected[-1] + expected[0], *expected[1:]]
        assert [ids.tolist() for ids in again] == expected + seam


@functools.cache
def trained(pattern: str) -> Tokenizer:
    return train([TEXT * 2, "antidisestablishmentarianism " * 3, "aaaaaaaa abababab"], 330, pattern)


def test_threads_change_no_id(gpt2: Tokenizer, data_dir: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((data_dir / "text").glob("*.txt"))]
    texts = [texts[0] * 3, "", "short", texts[1][:100_000], *texts[2].split("\n")[:500]]
    alone = fast(gpt2).encode_batch(texts, 1)
    for threads in (2, 3, 0):
        assert all(map(np.array_equal, alone, gpt2.encode_batch(texts, threads)))
    assert alone[2].tolist() == list(gpt2._stream("short"))


@pytest.mark.parametrize("in_c", [False, True])
def test_what_a_bench_remembers_is_bounded_and_never_wrong(
    in_c: bool, gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "LARGEST", 14)
    monkeypatch.setattr(bench, "ARENA", 1 << 15)
    monkeypatch.setattr(native, "MOST", 13)
    monkeypatch.setattr(native, "ARENA", 1 << 15)
    rng = random.Random(0)
    text = "".join(
        " " + "".join(rng.choices("abcdefgéz漢", k=rng.choice([2, 5, 9, 16, 24, 70]))) for _ in range(30_000)
    )
    made = engine.Engine(gpt2._engine.vocabulary, in_c)
    for _ in range(2):
        assert made.encode(pack([text]))[0].tolist() == list(gpt2._stream(text))
    (worked,) = made._benches
    if isinstance(worked, bench.Bench):
        assert len(worked.table) <= 1 << 14
        assert len(worked.arena) < 1 << 18
    else:
        arrays = worked.memory.words.arrays
        assert max(len(arrays["small"]), len(arrays["large"])) <= 8 << 13
        assert len(arrays["arena"]) < 1 << 18


def test_offsets_are_characters() -> None:
    tokenizer = train([TEXT * 2], 300)
    for text in (TEXT, "", "é", "a🙂b", "\ud800x"):
        ids, offsets = tokenizer.encode_offsets(text)
        assert ids == tokenizer.encode_ordinary(text)
        assert len(ids) == len(offsets)
        for token, (start, end) in zip(ids, offsets, strict=True):
            assert tokenizer.token_bytes(token) in encode.whole(text)[start:end].encode()
    assert Tokenizer([]).encode_offsets("aé")[1] == [(0, 1), (1, 2), (1, 2)]


def test_truncation_reads_no_further(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT + "<|end|>x", "all")
    for most in (0, 1, 5, len(ids) - 1, len(ids), 10**9):
        assert tokenizer.encode(TEXT + "<|end|>x", "all", max_tokens=most) == ids[:most]
        assert tokenizer.encode(TEXT, max_tokens=most) == tokenizer.encode(TEXT)[:most]


def test_disallowed_specials_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"the special token <\|end\|> at character 1, which isn't allowed"):
        tokenizer.encode("a<|end|>", disallowed_special="all")
    with pytest.raises(TokenizerError, match=r"<\|user\|> at character 8"):
        tokenizer.encode("a<|end|><|user|>", {"<|end|>"}, disallowed_special="all")
    assert tokenizer.encode("a<|end|>", "all", disallowed_special="all")[-1] == tokenizer.special("<|end|>")
    assert tokenizer.encode("a<|end|>", disallowed_special={"<|user|>"}) == tokenizer.encode_ordinary("a<|end|>")


def test_files_are_encoded_text_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.tokenizer.texts.BATCH_BYTES", 300)
    (tmp_path / "a.txt").write_text(TEXT * 20, encoding="utf-8")
    write_jsonl(tmp_path / "b.jsonl.zst", [{"text": "one"}, {"text": ""}, {"text": TEXT}])
    write_documents(tmp_path / "c.parquet", [Document("1", "three"), Document("2", "é")])
    expected = [TEXT * 20, "one", "", TEXT, "three", "é"]
    for pattern in ("gpt2", "o200k", "bytes", r"regex:\w+|\s"):
        tokenizer = train([TEXT * 2], 290, pattern)
        for threads in (1, 2):
            arrays = list(tokenizer.encode_files([tmp_path], threads))
            assert [tokenizer.decode(ids) for ids in arrays] == expected
            assert [ids.tolist() for ids in arrays] == [tokenizer.encode_ordinary(text) for text in expected]
    with pytest.raises(DataError, match="absent"):
        list(tokenizer.encode_files([tmp_path / "absent"]))


def test_many_ids_are_decoded_as_few_are(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "WORTH_JOINING", 0)
    ids = np.array([random.Random(0).randrange(330) for _ in range(encode.MANY_IDS + 10)], np.int32)
    few = b"".join(tokenizer.token_bytes(int(i)) for i in ids)
    for kind in (ids, ids.astype(np.uint16), ids.tolist()):
        assert tokenizer.decode_bytes(kind) == few
        assert tokenizer.decode(kind) == few.decode("utf-8", "replace")
    for stranger in (330, -1):
        with pytest.raises(TokenizerError, match=f"id {stranger} is out of range"):
            tokenizer.decode(np.append(ids, stranger))


@given(text=st.text(st.sampled_from("abxyz .e\u0301é\n"), max_size=60))
@settings(deadline=None)
def test_vocabularies_of_others_are_compiled_too(text: str) -> None:
    """Ids of their own, words with an id that no merge makes (one of them long), a normal form."""
    tokenizer = foreign()
    (ids,) = tokenizer._engine.encode_texts([tokenizer._normal(text)])
    assert ids.tolist() == list(tokenizer._stream(text))


@functools.cache
def foreign() -> Foreign:
    labels = random.Random(0).sample(range(1000), 258)
    spare = {b"xyz": 2000, b" xyzxyzxyzxyzxyzxyz": 2001, b"xy": 2002, "é".encode(): 2003}
    return Foreign([(97, 98), (256, 256)], {"<|endoftext|>": 3000}, "gpt2", bytes(range(256)), labels=labels, spare=spare,
                   whole_words=True, normal="NFC")  # fmt: skip


@pytest.mark.parametrize("in_c", [False, True])
def test_words_with_an_id_of_their_own_outlive_a_full_table(in_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LARGEST", 13)
    monkeypatch.setattr(native, "MOST", 13)
    tokenizer = foreign()
    text = " ".join(f"xyz {'ab' * (i % 7)}{i:x}" for i in range(20_000)) + " xyzxyzxyzxyzxyzxyz xyz"
    made = engine.Engine(tokenizer._engine.vocabulary, in_c)
    assert made.encode_texts([text])[0].tolist() == list(tokenizer._stream(text))


def test_files_are_brought_to_the_normal_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("e\u0301 xyz é" * 50, encoding="utf-8")
    (ids,) = foreign().encode_files([tmp_path / "a.txt"])
    assert ids.tolist() == foreign().encode_ordinary("e\u0301 xyz é" * 50)
