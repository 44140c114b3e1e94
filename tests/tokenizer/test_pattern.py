"""Pieces: whole, the same in blocks, and the same as Hugging Face's engine cuts them."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from groundup.base.errors import TokenizerError
from groundup.tokenizer.pattern import PATTERNS, blocks, splitter

CUT = [name for name, pattern in PATTERNS.items() if pattern is not None]
TYPED = st.text(alphabet=st.sampled_from(" \t\r\n\n'sStT/.,-09aAzZéßſ\u0301\u00a0\u3000漢字🙂\u200d١"), max_size=30)


@pytest.mark.parametrize("name", CUT)
@given(text=st.one_of(TYPED, st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=30)))
def test_pieces_are_the_text_and_what_hugging_face_cuts(name: str, text: str) -> None:
    pieces = splitter(name)(text)
    assert "".join(pieces) == text
    theirs = pre_tokenizers.Split(Regex(PATTERNS[name] or ""), "isolated").pre_tokenize_str(text)
    assert pieces == [piece for piece, _ in theirs]


@pytest.mark.parametrize("name", CUT)
def test_every_script_is_cut_as_hugging_face_cuts_it(name: str) -> None:
    """One assigned code point in thirteen, between letters, after an apostrophe, doubled, beside a line feed."""
    points = [chr(c) for c in range(0, 0x110000, 13) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    text = " ".join(f"a{c}b '{c}1 {c}{c}\n{c}" for c in points)
    theirs = pre_tokenizers.Split(Regex(PATTERNS[name] or ""), "isolated").pre_tokenize_str(text)
    assert splitter(name)(text) == [piece for piece, _ in theirs]


@pytest.mark.parametrize("name", CUT)
@given(text=TYPED, size=st.integers(1, 6))
@example(text="a.\n/b\n\n c", size=1)
def test_blocks_change_no_piece(name: str, text: str, size: int) -> None:
    parts = list(blocks(text, size))
    assert "".join(parts) == text
    assert [piece for part in parts for piece in splitter(name)(part)] == splitter(name)(text)


def test_long_texts_do_come_in_blocks() -> None:
    parts = list(blocks("a line\n" * 1000, 700))
    assert len(parts) == 10
    assert list(blocks("")) == []


def test_digits_stand_alone_in_qwen2_and_in_threes_in_cl100k() -> None:
    assert splitter("qwen2")("in 12345") == ["in", " ", "1", "2", "3", "4", "5"]
    assert splitter("cl100k")("in 12345") == ["in", " ", "123", "45"]
    assert splitter("o200k")("camelCase") == ["camel", "Case"]
    assert splitter("whitespace")("it's 5,000 ok?") == ["it's", " 5,000", " ok?"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(TokenizerError, match="did you mean 'qwen2'"):
        splitter("qwen3")
    with pytest.raises(TokenizerError, match="expected one of gpt2, cl100k"):
        splitter("zzz")
