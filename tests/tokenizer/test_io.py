"""Files: ours come back whole, Hugging Face reads what we export with equal ids, and what is wrong is said."""

import json
from pathlib import Path

import pytest

from groundup.base.errors import TokenizerError
from groundup.tokenizer.chat import TEMPLATE
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import coloured, huggingface_files, load, read_merges, save, to_huggingface, to_ranks
from groundup.tokenizer.pattern import PATTERNS
from groundup.tokenizer.train import train

TEXT = "Don't panic: 42 is the answer to 12345.\n\n\tIt's HERE’s camelCase, naïve 漢字 🙂🙂 é e\u0301  \r\n x=[{}]; "


@pytest.fixture(scope="module")
def corpus(data_dir: Path) -> str:
    return (data_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:200_000]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ours_come_back_whole(tmp_path: Path, pattern: str) -> None:
    tokenizer = train([TEXT * 2], 300, pattern)
    save(tokenizer, tmp_path)
    save(tokenizer, tmp_path / "other.json")
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "other.json"):
        again = load(path)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.merges == tokenizer.merges
        assert again.specials == tokenizer.specials
        assert again.chat_template == TEMPLATE
        assert again.encode(TEXT) == tokenizer.encode(TEXT)


def test_a_foreign_byte_order_comes_back(tmp_path: Path, data_dir: Path) -> None:
    tokenizer = read_merges(data_dir / "tokenizer" / "gpt2-vocab.bpe")
    save(tokenizer, tmp_path)
    assert load(tmp_path).fingerprint == tokenizer.fingerprint
    assert load(tmp_path).encode("Hello world") == [15496, 995]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hugging_face_gives_equal_ids(corpus: str, pattern: str) -> None:
    from tokenizers import Tokenizer as Theirs

    tokenizer = train([corpus], 1000, pattern)
    theirs = Theirs.from_str(json.dumps(to_huggingface(tokenizer)))
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    for text in (TEXT, corpus[:20_000], "", "   ", "\n\n", "a" * 3000, "".join(map(chr, range(1, 600)))):
        ids = tokenizer.encode(text)
        assert theirs.encode(text).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == text
    marked = "a<|user|>hello <|end|> <|endoftext|>b"
    assert theirs.encode(marked).ids == tokenizer.encode(marked, "all")


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", "qwen2", "whitespace"])
def test_tiktoken_gives_equal_ids(corpus: str, pattern: str) -> None:
    import tiktoken

    tokenizer = train([corpus], 1000, pattern)
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS[pattern] or "",
        mergeable_ranks=to_ranks(tokenizer),
        special_tokens=tokenizer.specials,
    )
    assert theirs.n_vocab == tokenizer.vocab_size
    for text in (TEXT, corpus[:50_000]):
        assert theirs.encode_ordinary(text) == tokenizer.encode(text)


def test_tokens_that_spell_alike_cannot_be_exported() -> None:
    with pytest.raises(TokenizerError, match="two merges spell the same token"):
        to_huggingface(Tokenizer([(97, 97), (97, 256), (256, 97)]))


def test_an_exported_end_must_exist() -> None:
    tokenizer = Tokenizer([])
    assert huggingface_files(tokenizer)["tokenizer_config.json"]["eos_token"] == "<|endoftext|>"
    assert huggingface_files(tokenizer, context=512)["tokenizer_config.json"]["model_max_length"] == 512
    with pytest.raises(TokenizerError, match=r"no special token <\|end\|>"):
        huggingface_files(tokenizer, end="<|end|>")


GOOD = {"format": "groundup-tokenizer", "version": 1, "pattern": "qwen2", "specials": ["<|end|>"], "merges": ["97 98"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ([], "not a tokenizer of groundup"),
        ({"model": {"type": "BPE"}}, "not a tokenizer.json of Hugging Face"),
        ({"hello": "world"}, "not a tokenizer of groundup"),
        (GOOD | {"version": 2}, "this groundup reads groundup-tokenizer 1"),
        (GOOD | {"pattern": "qwen"}, "did you mean 'qwen2'"),
        (GOOD | {"merges": ["97"]}, "corrupt"),
        (GOOD | {"merges": ["97 x"]}, "corrupt"),
        (GOOD | {"merges": [[97, 98]]}, "corrupt"),
        (GOOD | {"merges": ["97 999"]}, "ids below its own"),
        (GOOD | {"merges": ["97 98", "97 98"]}, "no merge may come twice"),
        (GOOD | {"specials": ["a", "a"]}, "given twice"),
        (GOOD | {"specials": [1]}, "corrupt"),
        (GOOD | {"byte_order": [1, 2]}, "each of the 256 bytes once"),
        (GOOD | {"byte_order": [300]}, "corrupt"),
        (GOOD | {"chat_template": 3}, "corrupt"),
        (GOOD | {"pattern": "bytes"}, "'bytes' has no merges"),
    ],
)
def test_a_corrupt_or_foreign_file_is_named(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(raw)
    with pytest.raises(TokenizerError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no such tokenizer; make one with `groundup tokenizer train`"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("line", ["a", "a b c", "zz b", "Ġ t\nĠ t"])
def test_a_damaged_merges_file_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\nh e\n{line}\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"vocab\.bpe, line {3 + line.count(chr(10))}: expected a merge"):
        read_merges(tmp_path / "vocab.bpe")


def test_tokens_are_shown_in_colours_only_on_a_terminal() -> None:
    assert coloured(["a", " b"], terminal=False) == "a| b"
    shown = coloured(["a", " b"], terminal=True)
    assert shown.count("\x1b[0m") == 2
    assert " b" in shown
