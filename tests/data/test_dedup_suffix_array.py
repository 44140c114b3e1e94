"""What is cut out of the texts is, byte for byte, what a suffix array of the whole corpus finds."""

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from groundup.data import overlap
from groundup.data.config import DedupConfig
from groundup.data.dedup import BEHIND
from groundup.data.engine import workers
from groundup.data.overlap import Texts, find_stretches
from tests.data.parts import nothing


def by_suffix_array(texts: list[bytes], least: int) -> list[set[int]]:
    """The bytes of each text in a stretch of `least` bytes that occurs earlier in the corpus, found the textbook's way.

    All suffixes are sorted; neighbours with a common beginning of `least` bytes form a group, in which all but the earliest repeat it.
    """
    suffixes = sorted((text[i:], doc, i) for doc, text in enumerate(texts) for i in range(len(text) - least + 1))
    repeated: list[set[int]] = [set() for _ in texts]
    begin = 0
    for end in range(1, len(suffixes) + 1):
        if end < len(suffixes) and suffixes[end][0][:least] == suffixes[begin][0][:least]:
            continue
        places = sorted((doc, i) for _, doc, i in suffixes[begin:end])
        for doc, i in places[1:]:
            repeated[doc].update(range(i, i + least))
        begin = end
    return repeated


def by_anchors(texts: list[bytes], least: int, folder: Path, part: int = 7) -> list[set[int]]:
    """The same by `find_stretches`, over parts."""
    parts = (partial(Texts, np.arange(at, min(at + part, len(texts)), dtype=np.uint64),
                     np.arange(at, min(at + part, len(texts)), dtype=np.uint64) + BEHIND, texts[at : at + part])
             for at in range(0, len(texts), part))  # fmt: skip
    with workers(1, nothing, ()) as run_map:
        cuts = find_stretches(run_map, parts, len(texts), folder, DedupConfig(substring_chars=least))
    found: list[set[int]] = [set() for _ in texts]
    for row in cuts:
        assert row["kept"] <= row["doc"]
        found[int(row["doc"])].update(range(int(row["start"]), int(row["stop"])))
    return found


def corpus(dice: random.Random, letters: bytes, count: int, copies: int) -> list[bytes]:
    """Random texts of few letters, into which stretches of each other are copied."""
    texts: list[bytes] = []
    for _ in range(count):
        text = bytes(dice.choices(letters, k=dice.randrange(120)))
        for _ in range(dice.randrange(copies + 1)):
            source, place = dice.choice([*texts, text]), dice.randrange(len(text) + 1)
            at = dice.randrange(len(source) + 1)
            text = text[:place] + source[at : at + dice.randrange(90)] + text[place:]
        texts.append(text)
    return texts


@pytest.mark.parametrize("seed", range(40))
def test_random_texts(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    texts = corpus(dice, b"ab" if seed % 2 else bytes(range(256)), 40, 3)
    least = dice.choice((20, 21, 33, 50))
    expected = by_suffix_array(texts, least)
    assert by_anchors(texts, least, tmp_path, dice.choice((1, 7, 40))) == expected
    assert any(expected)


def test_more_occurrences_than_fit_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slogan on hundreds of pages, in ever other surroundings: each of its neighbours has its own earliest place."""
    monkeypatch.setattr(overlap, "ROWS", 50)
    dice = random.Random(5)
    words = [bytes(dice.choices(b"abcdefgh", k=6)) for _ in range(12)]
    texts = [b"".join(dice.choices(words, k=4)) + b"all rights reserved, now and for ever" + b"".join(dice.choices(words, k=4))
             for _ in range(300)]  # fmt: skip
    assert by_anchors(texts, 30, tmp_path) == by_suffix_array(texts, 30)


def test_one_letter_for_ever(tmp_path: Path) -> None:
    texts = [b"a" * 500, b"b" + b"a" * 100, b"ab" * 200, b"a" * 39]
    assert by_anchors(texts, 40, tmp_path) == by_suffix_array(texts, 40)
