"""Pieces: whole, the same in blocks, and the same as Hugging Face's engine cuts them."""

import itertools
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from groundup.base.errors import TokenizerError
from groundup.tokenizer.kernels.blocks import ends, ends_slowly
from groundup.tokenizer.kernels.split import PADDING, safe_cut
from groundup.tokenizer.kernels.unicode import rules_of
from groundup.tokenizer.pattern import PATTERNS, RULES, blocks, splitter

CUT = [name for name, pattern in PATTERNS.items() if pattern is not None]
TYPED = st.text(alphabet=st.sampled_from(" \t\r\n\n'sStT/.,-09aAzZéßſ\u0301\u00a0\u3000漢字🙂\u200d١"), max_size=30)


EVERY = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TRICKY = " \t\r\n\n\n'sStTlLvVeErRdDmM/.,-09aAzZéßſ\u0301\u00a0\u2003\u3000漢字🙂\u200dǄǅʰ\u0902١½Ⅷ’"


def padded(text: str) -> tuple[np.ndarray, int]:
    raw = text.encode()
    return np.frombuffer(raw + bytes(PADDING), np.uint8).copy(), len(raw)


def compiled(name: str, text: str) -> list[str]:
    """The pieces that the compiled splitter cuts."""
    buffer, size = padded(text)
    found, slow, (rules, kinds) = np.empty(size, np.int64), np.empty(size, np.int64), rules_of(name)
    count = ends(buffer, 0, size, rules, kinds, found)
    assert ends_slowly(buffer, 0, size, rules, kinds, slow) == count
    assert np.array_equal(found[:count], slow[:count])  # blocks and the state machine agree
    edges = [0, *found[:count].tolist()]
    raw = text.encode()
    return [raw[start:end].decode() for start, end in itertools.pairwise(edges)]


def expected(name: str, text: str) -> list[str]:
    return regex.findall(PATTERNS[name] or "", text)


@pytest.mark.parametrize("name", RULES)
def test_the_compiled_splitter_knows_every_code_point(name: str) -> None:
    text = "".join(EVERY)
    assert compiled(name, text) == expected(name, text)
    text = " ".join(f"a{c}b '{c}1 {c}{c}\n{c}A{c}B" for c in EVERY[::29])
    assert compiled(name, text) == expected(name, text)


@pytest.mark.parametrize("name", RULES)
@given(text=st.one_of(st.text(st.sampled_from(TRICKY)), st.text(st.characters(exclude_categories=["Cs"]))))
@settings(deadline=None)
def test_the_compiled_splitter_equals_the_expression(name: str, text: str) -> None:
    assert compiled(name, text) == expected(name, text)


@pytest.mark.parametrize("name", RULES)
def test_the_compiled_splitter_on_a_hundred_thousand_characters(name: str) -> None:
    text = "".join(random.Random(0).choices(TRICKY, k=100_000))
    assert compiled(name, text) == expected(name, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("alphabet", [TRICKY, EVERY, "ab  \n\n.'s1"], ids=["tricky", "every", "plain"])
def test_the_compiled_splitter_on_a_million_characters(name: str, alphabet: str) -> None:
    for seed in range(3):
        text = "".join(random.Random(seed).choices(alphabet, k=1_000_000))
        assert compiled(name, text) == expected(name, text)


@pytest.mark.parametrize("name", RULES)
def test_the_compiled_splitter_on_real_text(name: str, data_dir: Path) -> None:
    """English, Bulgarian and this very file."""
    import bz2

    texts = [(data_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:300_000]]
    texts += [bz2.decompress((data_dir / "raw" / "bgwiki-excerpt.xml.bz2").read_bytes()).decode("utf-16")[:300_000]]
    texts += [Path(__file__).read_text(encoding="utf-8")]
    for text in texts:
        assert compiled(name, text) == expected(name, text)


@pytest.mark.parametrize("name", RULES)
@given(text=st.one_of(st.text(st.sampled_from(TRICKY), max_size=60), st.text(st.sampled_from("ab \n./é"), max_size=60)))
@settings(deadline=None)
def test_a_safe_cut_changes_no_piece(name: str, text: str) -> None:
    buffer, size = padded(text)
    kinds, raw, start, parts = rules_of("o200k")[1], text.encode(), 0, []
    while start < size:
        cut = safe_cut(buffer, start + 1, size, kinds)
        parts.append(raw[start:cut].decode())
        start = cut
    assert "".join(parts) == text
    assert [piece for part in parts for piece in compiled(name, part)] == compiled(name, text)


@given(text=st.text(st.sampled_from("ab 1.\n"), max_size=30))
@settings(deadline=None)
def test_a_custom_expression_keeps_what_it_passes_over(text: str) -> None:
    pieces = splitter(r"regex:(?:\p{L})+|(\d)")(text)
    assert "".join(pieces) == text
    assert all(pieces)
    assert [p for p in pieces if p[0] in "ab1"] == [m.group() for m in regex.finditer(r"(?:\p{L})+|(\d)", text)]
    assert list(blocks(text * 9, 2, r"regex:\p{L}+")) == ([text * 9] if text else [])


def test_what_is_no_expression_is_refused_in_one_line() -> None:
    with pytest.raises(TokenizerError, match=r"pattern '\(a': not a regular expression \(missing \)"):
        splitter("regex:(a")


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
