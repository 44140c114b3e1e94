"""The data stage's fast form decides as its plain form does: on random texts, and on real ones."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import dedup, plain, quality
from groundup.data.config import (
    BuildConfig,
    DecontaminateConfig,
    DedupConfig,
    GopherConfig,
    RepetitionConfig,
    WebConfig,
)
from groundup.data.decide import decide
from groundup.data.decontaminate import ProblemIndex, Question
from groundup.data.extract import Drop
from groundup.data.mix import unit_hash
from groundup.data.stages import Row, begin, judge_text

COMMON = ["the", "be", "to", "of", "and", "that", "have", "with", "a", "cat", "sat", "on", "mat", "dog", "runs", "three", "plus", "is",
          "=", "+", "-", "*", "...", "#", "!", "?", "HELLO", "WORLD", "3", "4", "12", "times"]  # fmt: skip


def random_text(dice: random.Random) -> str:
    """Lines of common words, some of them repeated, of every length from nothing to some thousand words."""
    vocabulary = dice.choice(
        (COMMON[: dice.randint(2, len(COMMON))], COMMON, [str(k) for k in range(90)], ["xy", "zz"])
    )
    vocabulary = vocabulary + [f"word{k}" for k in range(dice.choice((0, 5, 200)))]
    endings = dice.choice((("",), ("",), (".", "...", "!", "…", "?", "")))
    lines: list[str] = []
    for _ in range(dice.choice((1, 1, 3, 12, 40))):
        if lines and dice.random() < 0.2:
            lines.append(dice.choice(lines))
        else:
            line = " ".join(dice.choices(vocabulary, k=dice.choice((1, 4, 9, 30, 150))))
            lines.append(dice.choice(("", "- ", "• ")) + line + dice.choice(endings))
    return "\n".join(lines)


def random_sums(dice: random.Random) -> str:
    """Sentences with sums, right and wrong, and things that look like sums."""
    out = []
    for _ in range(dice.randint(1, 8)):
        a, b = dice.randint(0, 20), dice.randint(0, 20)
        sign, c = dice.choice(
            (("+", a + b), ("-", a - b), ("*", a * b), ("plus", a + b), ("minus", a - b), ("times", a * b))
        )
        c += dice.choice((0, 0, 1))
        x, y = (plain.NUMBERS[a], plain.NUMBERS[b]) if dice.random() < 0.3 else (a, b)
        forms = [f"{x} {sign} {y} is {c}.", f"{x} {sign} {y} = {c}.", f"What is {x} {sign} {y}? It is {c}."]
        forms += [
            f"Tom had {a} cups, got {b} more, and now has {c}.",
            f"Eva has {a} keys and gives {b} away. How many are left? It is {c}.",
        ]
        forms += [
            f"{a} {sign} {b} = {c} + 1",
            f"{x} {sign} {y} {sign} 2 = {c}",
            f"v{a} + {b} = {c}",
            f"{a}.{b} + 1 = {c}",
        ]
        out.append(dice.choice(forms))
    return " ".join(out)


def same(fast: Drop | None, lesson: tuple[str, float, float] | None) -> bool:
    """The same rule, the same measurement, the same threshold: to the last bit."""
    return (fast[1:4] if fast else None) == lesson


def assert_rules_agree(text: str) -> None:
    found = quality.tokens(text)
    assert found.found == plain.tokens(text)
    assert same(quality.gopher(text, found, GopherConfig()), plain.gopher(text))
    assert same(quality.repetition(text, found, RepetitionConfig()), plain.repetition(text))
    for page in (False, True):
        assert same(quality.web(text, found, page, WebConfig()), plain.web(text, page))
    assert same(quality.false_arithmetic(text, WebConfig()), plain.false_arithmetic(text))


@pytest.mark.parametrize("seed", range(40))
def test_rules_on_random_texts(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(10):
        assert_rules_agree(random_text(dice))
        assert_rules_agree(random_sums(dice))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab3 4+=-.!?\n\u00e9\u4e2d#A_'\u2026 "), max_size=400))
def test_rules_on_strange_texts(text: str) -> None:
    assert_rules_agree(text)
    assert dedup.words(text) == plain.words(text)
    assert dedup.shingles(dedup.words(text), 5).tolist() == plain.shingles(text)


@pytest.mark.parametrize("seed", range(10))
def test_repeated_runs_of_every_length(seed: int) -> None:
    found = quality.tokens(random_text(random.Random(seed)))
    fast = quality._repeated_runs(found, 10**9, -1)
    for n in range(2, 5):
        assert fast[n] == plain.top_chars(found.found, n)
    for n in range(5, 11):
        assert fast[n] == plain.repeated_chars(found.found, n)


def test_number_words() -> None:
    for word in ("7", "007", "Seven", "twenty", "zero"):
        assert quality._number(word) == plain.value(word)


def test_every_rule_was_exercised() -> None:
    dice, rules = random.Random(5), set()
    for _ in range(400):
        text, sums = random_text(dice), random_sums(dice)
        found = (plain.gopher(text), plain.repetition(text), plain.web(text, True), plain.false_arithmetic(sums))
        rules |= {broken[0] for broken in found if broken}
    expected = {"gopher_min_words", "gopher_stop_words", "gopher_alpha_words", "gopher_symbols", "gopher_bullet_lines"}
    expected |= {
        "gopher_ellipsis_lines",
        "repeated_lines",
        "top_2_gram",
        "repeated_5_grams",
        "shouting",
        "c4_sentences",
    }
    expected |= {"fineweb_line_punctuation", "fineweb_short_lines", "false_arithmetic"}
    assert expected - rules == set()


def variants(dice: random.Random, count: int) -> list[str]:
    """Texts of which some are copies of earlier ones with a few words changed, and some are the same."""
    texts: list[str] = []
    for _ in range(count):
        if texts and dice.random() < 0.5:
            found = dice.choice(texts).split(" ")
            for _ in range(dice.choice((0, 1, 1, 2, 6))):
                found[dice.randrange(len(found))] = f"new{dice.randrange(99)}"
            texts.append(" ".join(found))
        else:
            texts.append(" ".join(f"w{dice.randrange(500)}" for _ in range(dice.choice((4, 12, 60, 120)))))
    return texts


def fast_groups(texts: list[str]) -> dict[int, int]:
    config = DedupConfig()
    functions = dedup.hash_functions(config.bands * config.rows, config.seed)
    long = [i for i, text in enumerate(texts) if len(dedup.words(text)) >= config.min_words]
    signatures = np.array(
        [dedup.signature(dedup.shingles(dedup.words(texts[i]), config.ngram), functions) for i in long]
    )
    group, _ = dedup.groups(len(long), dedup.links(signatures, config))
    return {long[k]: long[g] for k, g in enumerate(group) if g != k}


@pytest.mark.parametrize("seed", range(8))
def test_signatures_and_near_duplicates(seed: int) -> None:
    texts = variants(random.Random(seed), 60)
    functions = dedup.hash_functions(plain.BANDS * plain.ROWS, 1)
    for text in texts[:20]:
        assert dedup.signature(dedup.shingles(dedup.words(text), 5), functions).tolist() == plain.signature(text)
    assert fast_groups(texts) == plain.near_duplicates(texts)
    assert plain.near_duplicates(texts)  # there were some


def test_signatures_estimate_the_jaccard_similarity() -> None:
    dice = random.Random(1)
    for text in variants(dice, 10):
        other = " ".join(text.split(" ")[: len(text.split(" ")) * 3 // 4])
        one, two = set(plain.shingles(text)), set(plain.shingles(other))
        jaccard = len(one & two) / len(one | two)
        alike = np.mean(np.array(plain.signature(text)) == np.array(plain.signature(other)))
        assert abs(alike - jaccard) < 0.2  # 120 numbers: a standard deviation of at most 0.046


@pytest.mark.parametrize("seed", range(8))
def test_contaminated(seed: int) -> None:
    dice = random.Random(seed)
    problems = [" ".join(f"w{dice.randrange(30)}" for _ in range(dice.choice((3, 5, 8, 13, 30)))) for _ in range(12)]
    index = ProblemIndex([Question(p) for p in problems], DecontaminateConfig())
    hits = 0
    for _ in range(60):
        text = " ".join(f"w{dice.randrange(30)}" for _ in range(dice.choice((4, 40))))
        if dice.random() < 0.5:
            asked = dice.choice(problems).split(" ")
            start = dice.randrange(len(asked))
            text += " " + " ".join(asked[start : start + dice.choice((4, 12, 13, 30))]).upper() + "?"
        fast = index.check(text, dedup.words(text)) is not None
        assert fast == plain.contaminated(text, problems)
        hits += fast
    assert 0 < hits < 60


def fast_curate(texts: list[str], problems: list[str], page: bool) -> list[str | None]:
    """The worker's and the global decisions, as `data build` takes them, without language and held-out split."""
    config = BuildConfig(heldout=0.0, language=BuildConfig().language.__class__(wanted=()))
    begin(config, [Question(p) for p in problems])
    index = ProblemIndex([Question(p) for p in problems], config.decontaminate)
    functions = dedup.hash_functions(config.dedup.bands * config.dedup.rows, config.dedup.seed)
    rows = []
    for number, text in enumerate(texts):
        drop = judge_text(text, "html" if page else "text")[0] or index.check(text, dedup.words(text))
        found = dedup.words(text)
        numbers = (
            dedup.signature(dedup.shingles(found, config.dedup.ngram), functions).tobytes()
            if len(found) >= config.dedup.min_words
            else b""
        )
        rows.append(
            Row(
                str(number),
                text,
                "test",
                "text",
                {},
                drop,
                unit_hash(text),
                0,
                exact=hash(text) & 2**64 - 1,
                signature=numbers,
            )
        )
    return [fate.drop.rule if fate.drop else None for fate in decide(rows, config)]


@pytest.mark.parametrize("page", [False, True])
def test_curate_on_random_texts(page: bool) -> None:
    dice = random.Random(3)
    texts = [random_text(dice) for _ in range(40)] + [t + " the cat and the dog have it." for t in variants(dice, 40)]
    dice.shuffle(texts)
    texts += texts[:5]
    reasons = plain.curate(texts, ["w1 w2 w3 w4 w5", texts[3]], page)
    assert fast_curate(texts, ["w1 w2 w3 w4 w5", texts[3]], page) == reasons
    assert {None, "exact", "problem_overlap"} <= set(reasons)
    assert plain.exact_duplicates(["a", "b", "a"]) == {2: 0}


def test_curate_on_real_text(data_dir: Path) -> None:
    text = (data_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:400_000]
    texts = [p.strip() for p in text.split(" = \n") if p.strip()][:150]
    texts += [t.replace(" the ", " a ", 1) for t in texts[::7]]
    reasons = plain.curate(texts, [texts[5][:300]])
    assert fast_curate(texts, [texts[5][:300]], False) == reasons
    assert {None, "near", "problem_overlap"} <= set(reasons)
