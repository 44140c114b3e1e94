"""Training: the same merges as others learn, the largest vocabulary a corpus supports, and mistakes in one line."""

import bz2
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import write_jsonl
from groundup.base.records import Document, write_documents
from groundup.cli import main as command
from groundup.tokenizer import plain
from groundup.tokenizer.chat import DEFAULT_SPECIALS, TEMPLATE
from groundup.tokenizer.count import Counted, Words, count_batches, count_custom
from groundup.tokenizer.io import alphabet, load
from groundup.tokenizer.kernels.split import valid
from groundup.tokenizer.kernels.unicode import rules_of
from groundup.tokenizer.kernels.words import MIXER
from groundup.tokenizer.learn import learn_words
from groundup.tokenizer.pattern import PATTERNS, splitter
from groundup.tokenizer.texts import batches, find_texts, pack, pack_bytes, read_batches, strings
from groundup.tokenizer.train import bytes_per_token, train


def test_the_order_of_texts_and_runs_changes_nothing() -> None:
    texts = ["one two three two one", "three four five", "five five one"]
    assert train(texts, 270).merges == train(texts[::-1], 270).merges == train(iter(texts), 270).merges


def test_a_tokenizer_brings_the_chat_format_with_it() -> None:
    assert train(["aa"], 262).chat_template == TEMPLATE
    assert train(["aa"], 257, specials=()).chat_template is None


@pytest.fixture(scope="module")
def corpora(data_dir: Path) -> dict[str, str]:
    """English, Bulgarian and code."""
    bulgarian = bz2.decompress((data_dir / "raw" / "bgwiki-excerpt.xml.bz2").read_bytes()).decode("utf-16")
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(json.__file__).parent.parent.glob("a*.py"))]
    return {
        "english": (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:600_000],
        "bulgarian": bulgarian[:200_000],
        "code": "".join(code)[:600_000],
    }


@pytest.mark.parametrize(("name", "pattern"), [("english", "qwen2"), ("bulgarian", "gpt2"), ("code", "o200k")])
def test_merges_equal_hugging_face(corpora: dict[str, str], name: str, pattern: str) -> None:
    """The tie-break is the same rule, but theirs numbers bytes by GPT-2's alphabet: so ours learns over those."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    text = corpora[name]
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERNS[pattern] or ""), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 2000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    theirs.train_from_iterator([text], trainer)
    number = np.array([sorted(alphabet()).index(letter) for letter in alphabet()])
    symbols, sizes, counts = count_batches([pack([text])], pattern).words.laid_out()
    names = sorted(alphabet())
    for left, right in learn_words(number[symbols], sizes, counts, 2000):
        names.append(names[left] + names[right])
    assert names == [theirs.id_to_token(i) for i in range(256 + 2000)]


@pytest.mark.parametrize(("name", "pattern"), [("english", "cl100k"), ("bulgarian", "qwen2"), ("code", "gpt2")])
def test_merges_equal_rustbpe(corpora: dict[str, str], name: str, pattern: str) -> None:
    """Its bytes are numbered as ours, so its whole vocabulary is equal, id for id."""
    import rustbpe

    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter([corpora[name]]), 256 + 3000, pattern=PATTERNS[pattern])
    ours = train([corpora[name]], 256 + 3000, pattern, specials=())
    ranks = {bytes(token): rank for token, rank in theirs.get_mergeable_ranks()}
    assert ranks == {ours.token_bytes(i): i for i in range(256 + 3000)}


def test_any_number_of_threads_learns_the_same(corpora: dict[str, str]) -> None:
    texts = [corpora["english"], "", corpora["code"], "one", "two"] + corpora["bulgarian"].split("\n")
    alone = train(texts, 1000, threads=1)
    assert train(texts, 1000, threads=2).merges == train(texts, 1000, threads=5).merges == alone.merges
    assert train(texts, 700, threads=1, memory_gb=0.002).merges == train(texts, 700, threads=3, memory_gb=0.002).merges


def test_the_bound_leaves_the_rarest_words_out_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [" ".join(f"word{i} common ordinary" for i in range(start, start + 500)) for start in range(0, 20_000, 500)]
    free = count_batches(batches(texts, 5000), "gpt2")
    assert free.dropped == 0
    bound = count_batches(batches(texts, 5000), "gpt2", most_bytes=20_000)
    kept = bound.words.items()
    assert bound.words.size <= 20_000
    assert kept[b" common"] == kept[b" ordinary"] == 20_000
    assert bound.dropped > 10_000
    assert bound.dropped_count + sum(kept.values()) == sum(free.words.items().values())
    train(texts, 270, "gpt2", memory_gb=0.0002)
    assert "of the rarest words" in capsys.readouterr().out


def test_the_bound_of_a_custom_expression(capsys: pytest.CaptureFixture[str]) -> None:
    """Its words are dropped and named as those of the compiled patterns; within one text, too."""
    text = " ".join(f"word{i} common ordinary" for i in range(20_000))
    free = count_custom([pack([text])], r"regex: ?\w+")
    assert free.words == Counter(word.encode() for word in regex.findall(r" ?\w+", text))
    assert free.dropped == 0
    bound = count_custom([pack([text, "common"])], r"regex: ?\w+", most_bytes=20_000)
    assert sum(map(len, bound.words)) <= 20_000
    assert bound.words[b" common"] == bound.words[b" ordinary"] == 20_000
    assert bound.dropped > 10_000
    assert bound.dropped_count + bound.words.total() == free.words.total() + 1
    train([text], 270, r"regex: ?\w+", memory_gb=0.0002)
    assert "of the rarest words" in capsys.readouterr().out


def test_what_is_counted_between_two_looks_follows_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of many times the bound, of words that are all different: it is never counted whole."""
    sizes: list[int] = []
    join = Counted.join

    def noting(counted: Counted) -> None:
        sizes.append(sum(table.size for table in [counted.words, *counted.own]))
        join(counted)

    monkeypatch.setattr(Counted, "join", noting)
    rng, most = np.random.default_rng(0), 1 << 19
    letters = rng.integers(97, 123, (1 << 19, 9), np.uint8)
    letters[:, 8] = 10
    texts = [letters[: 1 << 18].tobytes().decode(), *letters[1 << 18 :].tobytes().decode().split("\n")]
    counted = [count_batches([pack(texts)], "whitespace", threads, most) for threads in (1, 3)]
    assert max(sizes) <= 2 * most + (1 << 17)  # what was kept, a round, and the 64 kB at whose end text is cut
    assert counted[0].words.items() == counted[1].words.items()
    assert counted[0].dropped > 100_000
    assert sum(counted[0].words.items().values()) + counted[0].dropped_count == 3 << 18  # line feeds are words


def test_long_words_are_told_apart_by_their_bytes() -> None:
    """Words of 15, 16 and more bytes, alike but for one byte; one whose tail repeats; counts as Counter has them."""
    words = [f" {'x' * n}{letter}{'y' * m}" for n in (5, 13, 14, 15, 40) for m in (0, 1, 8, 30) for letter in "ab"]
    text = "".join(words * 3 + words[::3])
    expected = Counter(splitter("gpt2")(text))
    assert {w.decode(): n for w, n in count_batches([pack([text])], "gpt2").words.items().items()} == expected


def test_words_with_one_hash_stay_two() -> None:
    """Two words of 16 bytes with equal keys, made from the hash's own steps: their bytes decide."""

    def step(state: int, word: int) -> int:
        state = ((state ^ word) * int(MIXER)) % (1 << 64)
        return state ^ (state >> 29)

    halves = b" abcdefg", b"hijklmno"
    first, second = (int.from_bytes(half, "little") for half in halves)
    others = (b" " + f"{attempt:07d}".encode() for attempt in range(100_000))
    pairs = (
        (o, (step(16, first) ^ second ^ step(16, int.from_bytes(o, "little"))).to_bytes(8, "little")) for o in others
    )
    twin = next(a + b for a, b in pairs if all(32 < byte < 127 for byte in b))
    text = (b"".join(halves) * 2 + twin).decode()
    assert count_batches([pack([text])], "whitespace").words.items() == {b"".join(halves): 2, twin: 1}


def test_a_custom_expression_learns_what_its_pieces_hold() -> None:
    text = "low lower lowest 12 345 low-low " * 20
    ours = train([text], 256 + 9, r"regex:\w+|\W+", specials=())
    words = Counter(regex.findall(r"\w+|\W+", text))
    assert ours.merges == plain.learn({tuple(w.encode()): n for w, n in words.items()}, 9, 256)


def test_512_ids_hold_two_bytes_each(corpora: dict[str, str]) -> None:
    tokenizer = train([corpora["english"]], 512)
    assert tokenizer.vocab_size == 512
    assert 1.8 < bytes_per_token(tokenizer, [corpora["english"]]) < 3


def test_one_endless_word_is_learnt() -> None:
    tokenizer = train(["ab" * 100_000 + "a"], 256 + 10, specials=())
    assert len(tokenizer.token_bytes(265)) == 1024


@pytest.mark.parametrize("size", [0, 255, 260])
def test_a_vocabulary_below_bytes_and_specials_is_refused(size: int) -> None:
    with pytest.raises(
        TokenizerError, match=rf"vocab_size: {size} is too small; at least 261 \(256 bytes and 5 specials\)"
    ):
        train(["text"], size)


def test_a_vocabulary_above_what_the_corpus_supports_says_the_largest() -> None:
    with pytest.raises(TokenizerError, match="more than this corpus supports; at most 264, or more text"):
        train(["abc abc"], 300)  # the merges: ab, abc, " abc"
    assert train(["abc abc"], 264).vocab_size == 264


def test_the_smallest_vocabulary_is_the_bytes() -> None:
    tokenizer = train(["text"], 256 + len(DEFAULT_SPECIALS))
    assert tokenizer.encode("héllo") == list("héllo".encode())


def test_duplicate_specials_are_refused_before_any_work() -> None:
    def never():  # type: ignore[no-untyped-def]
        raise AssertionError("the corpus was read")
        yield ""

    with pytest.raises(TokenizerError, match=r"'<\|end\|>' is given twice"):
        train(never(), 300, specials=("<|end|>", "<|end|>"))
    with pytest.raises(TokenizerError, match="did you mean 'qwen2'"):
        train(never(), 300, pattern="qwen")


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_an_empty_corpus_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="the corpus is empty"):
        train(texts, 300)


def texts_of(path: Path, invalid: str = "strict") -> list[str]:
    return list(strings(read_batches(path, invalid)))


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain\r\ntext", encoding="utf-8", newline="")
    write_jsonl(tmp_path / "b.jsonl.gz", [{"text": "one"}, {"text": "two"}])
    write_jsonl(tmp_path / "b2.jsonl.zst", [{"text": "é"}])
    write_documents(tmp_path / "c.parquet", [Document("1", "three"), Document("2", ""), Document("3", "vier é")])
    (tmp_path / "empty.txt").write_bytes(b"")
    assert texts_of(tmp_path / "a.txt") == ["plain\r\ntext"]
    assert texts_of(tmp_path / "b.jsonl.gz") == ["one", "two"]
    assert texts_of(tmp_path / "b2.jsonl.zst") == ["é"]
    assert texts_of(tmp_path / "c.parquet") == ["three", "", "vier é"]
    assert texts_of(tmp_path / "empty.txt") == []
    assert [p.name for p in find_texts([tmp_path])] == ["a.txt", "b.jsonl.gz", "b2.jsonl.zst", "c.parquet", "empty.txt"]
    write_jsonl(tmp_path / "d.jsonl", [{"text": "one"}, {"txt": "two"}])
    with pytest.raises(DataError, match=r"d\.jsonl, row 2: no text under the key 'text'"):
        texts_of(tmp_path / "d.jsonl")
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(DataError, match=r"f\.parquet: not a whole Parquet file"):
        texts_of(tmp_path / "f.parquet")
    with pytest.raises(DataError, match="absent: no such file"):
        find_texts([tmp_path / "absent"])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: no text in this folder"):
        find_texts([tmp_path / "none"])


@pytest.mark.parametrize(
    "tail", [b" \xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80 x", b"\xc0\xaf", b"\xe2\x82"]
)
def test_a_file_that_is_not_utf8(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "e.txt"
    path.write_bytes(b"ok \xc3\xa9" + tail)
    with pytest.raises(DataError, match=r"e\.txt: not UTF-8 at byte [56]; --invalid replace or skip goes on"):
        texts_of(path)
    assert texts_of(path, "skip") == []
    assert texts_of(path, "replace") == [path.read_bytes().decode("utf-8", "replace")]


@given(raw=st.binary(max_size=40) | st.text().map(str.encode))
@settings(deadline=None)
def test_what_is_utf8_is_decided_as_python_does(raw: bytes) -> None:
    try:
        raw.decode()
        good = len(raw)
    except UnicodeDecodeError as error:
        good = error.start
    assert valid(np.frombuffer(raw + bytes(64), np.uint8), 0, len(raw)) == good


def test_adding_words_takes_time_in_their_number() -> None:
    """Tables hold words by their hashes: added in that order to a smaller table, a million took ten seconds and not a tenth."""
    letters = np.random.default_rng(0).integers(97, 113, (1_000_000, 9), np.uint8)
    letters[:, 8] = 10  # a line feed
    batch, (rules, kinds) = pack_bytes([letters.tobytes()]), rules_of("whitespace")
    source, together = Words(), Words()
    source.count(batch.buffer, batch.edges, 0, 1, rules, kinds)
    start = time.process_time()
    together.add(source)
    assert time.process_time() - start < 3
    assert (len(together), together.size) == (len(source), source.size)
    together.add(source)
    assert np.array_equal(np.sort(together.laid_out()[2]), 2 * np.sort(source.laid_out()[2]))


def test_a_large_file_comes_in_blocks_that_change_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.tokenizer.texts.BATCH_BYTES", 100)
    text = "".join(f"linie {i} é漢字🙂 " + "x" * (i % 250) + "\n" * (i % 4) for i in range(300))
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert len(list(read_batches(path))) > 20
    assert texts_of(path) == [text]
    assert {w.decode(): n for w, n in count_batches(read_batches(path), "gpt2").words.items().items()} == Counter(
        splitter("gpt2")(text)
    )
    path.write_bytes(text.encode() + b"\xff" + text.encode())
    assert texts_of(path, "replace") == [text + "\ufffd" + text]


def test_folders_and_bad_files_by_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.md").write_text("some words, some more words " * 20, encoding="utf-8")
    write_jsonl(tmp_path / "in" / "deep" / "b.jsonl.zst", [{"text": "words of another kind " * 20}])
    (tmp_path / "in" / "notes.pdf").write_bytes(b"\xff")
    (tmp_path / "in" / "c.txt").write_bytes(b"\xff\xfe")
    words = ["tokenizer", "train", str(tmp_path / "p"), "--vocab-size", "280", "--input", str(tmp_path / "in")]
    assert command(words) == 2
    error = capfd.readouterr().err
    assert "c.txt: not UTF-8 at byte 0; --invalid replace or skip goes on" in error
    assert error.count("\n") == 1
    assert command([*words, "--invalid", "skip", "--threads", "1"]) == 0
    assert load(tmp_path / "p" / "02-tokenizer" / "main").vocab_size == 280
    for flags, message in (
        (["--invalid", "ignore"], "invalid: 'ignore'; expected strict, replace or skip"),
        (["--threads", "-1"], "threads: -1; expected 0 (one a core) or more"),
        (["--memory-gb", "0"], "memory_gb: 0; expected 0.01 or more"),
        (["--pattern", "regex:["], "not a regular expression"),
    ):
        assert command([*words, *flags]) == 2
        assert message in capfd.readouterr().err
