"""What texts repeat of each other is cut as the lesson cuts it, across parts."""

import random
from pathlib import Path

import pytest

from groundup.data import plain
from groundup.data.config import DedupConfig
from groundup.data.engine import workers
from groundup.data.overlap import cut, find_stretches, find_units
from tests.data.parts import WORDS, nothing, parts_of


def repetitive(dice: random.Random, count: int) -> list[bytes]:
    texts: list[bytes] = []
    for _ in range(count):
        text = " ".join(dice.choices(WORDS, k=dice.choice((5, 40, 120)))).encode()
        for _ in range(dice.choice((0, 1, 2))):
            source = dice.choice([*texts, text])
            at = dice.randrange(len(source))
            place = dice.randrange(len(text))
            text = text[:place] + source[at : at + dice.randrange(10, 200)] + text[place:]
        texts.append(text)
    return texts


@pytest.mark.parametrize("seed", range(6))
def test_stretches_that_occur_before_are_cut_whole(seed: int, tmp_path: Path) -> None:
    texts = repetitive(random.Random(seed), 30)
    with workers(1, nothing, ()) as run_map:
        cuts = find_stretches(run_map, parts_of(texts, 7), len(texts), tmp_path, DedupConfig(substring_chars=40))
    expected = plain.without_repeated_stretches(texts, 40)
    for doc, text in enumerate(texts):
        mine = cuts[cuts["doc"] == doc]
        gone = {i for row in mine for i in range(int(row["start"]), int(row["stop"]))}
        assert bytes(b for i, b in enumerate(text) if i not in gone) == expected[doc]
        assert all(row["kept"] <= doc for row in mine)
    assert expected != texts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(3))
def test_lines_that_stand_before_are_cut(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    pool = [" ".join(dice.choices(WORDS, k=dice.choice((1, 6, 20)))) + "é" for _ in range(25)]
    texts = ["\n".join(dice.choices(pool, k=dice.choice((1, 4, 12)))) for _ in range(30)]
    with workers(1, nothing, ()) as run_map:
        cuts = find_units(
            run_map,
            parts_of([t.encode() for t in texts], 4),
            len(texts),
            tmp_path,
            DedupConfig(units="line", unit_chars=20),
        )
    for doc, lines in enumerate(plain.without_repeated_lines(texts, 20)):
        mine = cuts[cuts["doc"] == doc]
        assert (cut(texts[doc], mine) if len(mine) else texts[doc]) == "\n".join(lines)
    assert len(cuts)
