"""What is told of a text without a network: counted levels, likeness to it."""

import math
import random

import numpy as np

from groundup.doctor.text import counting_levels, likeness, squeezed
from tests.doctor.planting import story


def test_levels_of_a_source_whose_entropy_is_known() -> None:
    rng = np.random.default_rng(0)
    follows = rng.integers(0, 16, (16, 2))  # each token has two followers, equally likely: ln 2 nats
    tokens = [0]
    for choice in rng.integers(0, 2, 60_000):
        tokens.append(int(follows[tokens[-1], choice]))
    levels = counting_levels(np.array(tokens, np.uint16), 16)
    assert levels.uniform == math.log(16)
    assert abs(levels.bigram - math.log(2)) < 0.06  # where both followers are one token it is less
    assert levels.bigram < levels.unigram < levels.uniform


def test_tokens_drawn_by_lot_have_no_structure() -> None:
    levels = counting_levels(np.random.default_rng(0).integers(0, 64, 60_000), 64)
    assert abs(levels.unigram - math.log(64)) < 0.01
    assert levels.bigram > levels.unigram - 0.01


def test_likeness_is_one_for_the_text_and_nothing_for_its_letters() -> None:
    text, sample = " ".join(story(i) for i in range(50)), story(999)
    letters = list(sample)
    random.Random(1).shuffle(letters)
    assert likeness(sample, text) > 0.95
    assert likeness("".join(letters), text) < 0.1
    assert likeness("", text) <= 0
    assert squeezed("the cat " * 60) < squeezed(sample)
