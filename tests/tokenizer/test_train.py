"""Training: the same merges as others learn, the largest vocabulary a corpus supports, and mistakes in one line."""

import time
from pathlib import Path

import pytest

from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import write_jsonl
from groundup.base.records import Document, write_documents
from groundup.tokenizer.chat import DEFAULT_SPECIALS, TEMPLATE
from groundup.tokenizer.io import alphabet
from groundup.tokenizer.train import bytes_per_token, count_words, learn, read_texts, train


def test_the_order_of_texts_and_runs_changes_nothing() -> None:
    texts = ["one two three two one", "three four five", "five five one"]
    assert train(texts, 270).merges == train(texts[::-1], 270).merges == train(iter(texts), 270).merges


def test_a_tokenizer_brings_the_chat_format_with_it() -> None:
    assert train(["aa"], 262).chat_template == TEMPLATE
    assert train(["aa"], 257, specials=()).chat_template is None


def test_merges_equal_hugging_face(data_dir: Path) -> None:
    """The tie-break is the same rule, but theirs numbers bytes by GPT-2's alphabet: so ours learns over those."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    from groundup.tokenizer.pattern import PATTERNS

    text = (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:500_000]
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERNS["qwen2"] or ""), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 2000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    theirs.train_from_iterator([text], trainer)
    number = [sorted(alphabet()).index(letter) for letter in alphabet()]
    words = {tuple(number[byte] for byte in word.encode()): n for word, n in count_words([text], "qwen2").items()}
    names = sorted(alphabet())
    for left, right in learn(words, 2000, 256):
        names.append(names[left] + names[right])
    assert names == [theirs.id_to_token(i) for i in range(256 + 2000)]


def test_512_ids_from_megabytes_take_seconds(data_dir: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (data_dir / "text").glob("*.txt")]
    start = time.thread_time()
    tokenizer = train(texts, 512)
    assert time.thread_time() - start < 5
    assert tokenizer.vocab_size == 512
    assert 1.8 < bytes_per_token(tokenizer, texts) < 3


def test_one_endless_word_is_learnt_in_linear_time() -> None:
    start = time.thread_time()
    tokenizer = train(["ab" * 100_000 + "a"], 256 + 10, specials=())
    assert time.thread_time() - start < 3
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


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain\r\ntext", encoding="utf-8", newline="")
    write_jsonl(tmp_path / "b.jsonl.gz", [{"text": "one"}, {"text": "two"}])
    write_documents(tmp_path / "c.parquet", [Document("1", "three")])
    assert list(read_texts(tmp_path / "a.txt")) == ["plain\r\ntext"]
    assert list(read_texts(tmp_path / "b.jsonl.gz")) == ["one", "two"]
    assert list(read_texts(tmp_path / "c.parquet")) == ["three"]
    write_jsonl(tmp_path / "d.jsonl", [{"text": "one"}, {"txt": "two"}])
    with pytest.raises(DataError, match=r"d\.jsonl, row 2: no text under the key 'text'"):
        list(read_texts(tmp_path / "d.jsonl"))
    (tmp_path / "e.txt").write_bytes(b"ok \xff\xfe")
    with pytest.raises(DataError, match=r"e\.txt: not UTF-8"):
        list(read_texts(tmp_path / "e.txt"))
