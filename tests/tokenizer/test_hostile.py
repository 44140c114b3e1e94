"""Text that is meant to hurt: what a tokenizer does with it is counted in steps, not in seconds, and it comes back whole."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.engine import merge
from groundup.tokenizer.io import read_merges
from groundup.tokenizer.kernels.blocks import ends
from groundup.tokenizer.kernels.unicode import rules_of
from groundup.tokenizer.pattern import RULES
from groundup.tokenizer.texts import pack
from groundup.tokenizer.train import train
from groundup.tokenizer.vocabulary import Vocabulary

SIZE = 300_000
HOSTILE = {
    "one letter": "a" * SIZE,
    "two letters": "ab" * (SIZE // 2),
    "one random word": "".join(random.Random(0).choices("abcdefgh", k=SIZE)),
    "spaces": " " * SIZE,
    "spaces before a letter": " " * SIZE + "a",
    "line feeds": "\n" * SIZE,
    "returns and spaces": "\r \n" * (SIZE // 3),
    "joined emoji": "🙂\u200d" * (SIZE // 7),
    "marks": "\u0301" * (SIZE // 2),
    "a mark, then capitals": "\u0301" + "A" * SIZE,
    "signs": "!?" * (SIZE // 2),
    "digits": "7" * SIZE,
    "apostrophes": "'" * SIZE,
    "contractions": "'s't're" * (SIZE // 7),
    "wide spaces": "\u3000" * (SIZE // 3),
    "random bytes": random.Random(1).randbytes(SIZE).decode("utf-8", "replace"),
    "random characters": "".join(chr(random.Random(2).randrange(0xE000, 0x110000)) for _ in range(SIZE // 10)),
    "null": "\0" * SIZE,
}


@pytest.fixture(scope="module")
def gpt2(data_dir: Path) -> Tokenizer:
    return read_merges(data_dir / "tokenizer" / "gpt2-vocab.bpe")


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_comes_back_whole_and_is_the_same_compiled(kind: str, gpt2: Tokenizer) -> None:
    text = HOSTILE[kind]
    (ids,) = gpt2._engine.encode(pack([text]))
    assert gpt2.decode(ids) == text
    cut = text[:3000]
    assert gpt2._engine.encode(pack([cut]))[0].tolist() == list(gpt2._stream(cut))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_every_splitter_ends_where_the_text_ends(kind: str, name: str) -> None:
    batch = pack([HOSTILE[kind]])
    size = int(batch.edges[-1])
    out = np.empty(size, np.int64)
    count = ends(batch.buffer, 0, size, *rules_of(name), out)
    assert out[count - 1] == size
    assert (np.diff(out[:count], prepend=0) > 0).all()


class Counting(dict[tuple[int, int], int]):
    """Ranks that count how often they are asked."""

    asked = 0

    def get(self, *args):  # type: ignore[no-untyped-def, override]
        self.asked += 1
        return super().get(*args)


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_of_long_words_grows_with_their_length(kind: str, gpt2: Tokenizer) -> None:
    """A merge of a word of n symbols looks up fewer than 3n pairs: each join takes one symbol away and asks for two."""
    from groundup.tokenizer import encode

    word = list(HOSTILE[kind].encode()[:20_000].translate(gpt2._id_of_byte))
    ranks = Counting(gpt2._ranks)
    long = encode._merge_long(word, ranks)
    assert ranks.asked < 3 * len(word)
    assert merge(word, gpt2._engine.vocabulary, long=True) == long
    short = word[:64]
    assert merge(short, gpt2._engine.vocabulary, long=False) == encode._merge_long(short, gpt2._ranks)


def random_words(rng: random.Random) -> Iterator[tuple[list[tuple[int, int]], list[int]]]:
    for _ in range(300):
        merges: list[tuple[int, int]] = []
        while len(merges) < rng.randrange(12):
            pair = (
                rng.choice([97, 98, *range(256, 256 + len(merges))]),
                rng.choice([97, 98, *range(256, 256 + len(merges))]),
            )
            if pair not in merges:
                merges.append(pair)
        yield merges, rng.choices([97, 97, 98], k=rng.randrange(65))


def test_long_and_short_ways_of_merging_agree_for_any_merges() -> None:
    """Also for vocabularies that no training makes: merges in any order, of symbols that never stand together."""
    from groundup.tokenizer import plain

    for merges, word in random_words(random.Random(3)):
        vocabulary, expected = Vocabulary(merges, bytes(range(256)), "gpt2"), plain.merge_all(word, merges)
        assert merge(word, vocabulary, long=True) == expected
        assert merge(word, vocabulary, long=False) == expected


@pytest.mark.parametrize("kind", ["one letter", "one random word", "joined emoji", "digits", "line feeds"])
def test_training_on_it_ends(kind: str) -> None:
    tokenizer = train([HOSTILE[kind], "some words too"], 256 + 5, "gpt2", specials=())
    assert tokenizer.decode(tokenizer.encode(HOSTILE[kind][:1000])) == HOSTILE[kind][:1000]


@pytest.mark.slow
def test_a_hundred_megabytes_in_one_line(gpt2: Tokenizer) -> None:
    line = "the quick brown fox; 12 dogs' " * 3_400_000
    (ids,) = gpt2.encode_batch([line], 2)
    assert len(ids) * 2 < len(line)
    assert gpt2.decode_bytes(ids) == line.encode()
