"""The data stage's fast form decides as its plain form does: on random texts, and on real ones."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import arithmetic, decontaminate, plain
from groundup.data.characters import JOINERS, classes, letters
from groundup.data.config import BuildConfig, DecontaminateConfig, DedupConfig, LanguageConfig, WebConfig
from groundup.data.decide import decide
from groundup.data.decontaminate import ProblemIndex, Question
from groundup.data.dedup import RULES
from groundup.data.engine import workers
from groundup.data.extract import Drop
from groundup.data.measure import FEATURES, _count, measure
from groundup.data.minhash import PRIME, _least, hash_functions, lower_buffer, sign, word_bytes
from groundup.data.mix import unit_hash
from groundup.data.quality import first_broken
from groundup.data.scan import buffer, decode, symbols, tokens
from groundup.data.settle import tasks
from groundup.data.stages import Row, _judge, begin, read_part, write_part

NOTHING = np.zeros(0, np.uint64)
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


ONLY = BuildConfig(language=LanguageConfig(wanted=()))
GROUPS = {
    "gopher": replace(ONLY, repetition=replace(ONLY.repetition, enabled=False), c4=replace(ONLY.c4, enabled=False),
                      web=replace(ONLY.web, enabled=False)),
    "repetition": replace(ONLY, gopher=replace(ONLY.gopher, enabled=False), c4=replace(ONLY.c4, enabled=False),
                          web=replace(ONLY.web, enabled=False)),
    "web": replace(ONLY, gopher=replace(ONLY.gopher, enabled=False), repetition=replace(ONLY.repetition, enabled=False)),
}  # fmt: skip


def assert_rules_agree(texts: list[str]) -> None:
    values = measure(texts, ONLY).values
    for page in (False, True):
        fast = {name: first_broken(values, [page] * len(texts), config, FEATURES) for name, config in GROUPS.items()}
        for k, text in enumerate(texts):
            assert same(fast["gopher"][k], plain.gopher(text)), text
            assert same(fast["repetition"][k], plain.repetition(text)), text
            assert same(fast["web"][k], plain.web(text, page)), text
    for text in texts:
        assert same(arithmetic.false_arithmetic(text, WebConfig()), plain.false_arithmetic(text))


def fast_shingles_and_signature(text: str) -> tuple[int, list[int]]:
    signed = sign([text], 5, hash_functions(plain.BANDS * plain.ROWS, 1), NOTHING, 5)
    return int(signed.words[0]), signed.signatures[0].tolist()


def lower_words(texts: list[str]) -> list[list[str]]:
    data, offsets = lower_buffer(texts)
    bounds, out, found = np.empty(len(data) + 2, np.int64), np.zeros(2 * len(data) + 72, np.uint8), []
    for start, stop in itertools.pairwise(offsets):
        count = word_bytes(data, start, stop, letters(), out, bounds)
        found.append([out[a : b - 1].tobytes().decode() for a, b in itertools.pairwise(bounds[: count + 1])])
    return found


@pytest.mark.parametrize("seed", range(40))
def test_rules_on_random_texts(seed: int) -> None:
    dice = random.Random(seed)
    assert_rules_agree([random_text(dice) for _ in range(10)] + [random_sums(dice) for _ in range(10)])


def test_a_text_of_one_character_alone() -> None:
    """As many segments or tokens as there can be: the tables are just large enough."""
    for size in (1, 31, 32, 33, 511, 512, 513, 1024, 4096):
        assert measure(["\n" * size], ONLY).values[0, FEATURES.index("tokens")] == 0
        assert_rules_agree(["." * size, "\na" * (size // 2) + "a"])


def test_short_tokens_have_unlike_hashes() -> None:
    assert_rules_agree(
        ["3?=4==.3-#=4?3==?.3+a=3=3??3-3", "".join(random.Random(1).choices("abc !?.,;:=+-*/()", k=3000))]
    )


def assert_tokens_agree(text: str) -> tuple[list[str], list[int]]:
    """Returns the tokens, and the kernel's tally of them."""
    data, offsets = buffer([text])
    chars, marks, kinds = np.empty(len(text), np.uint32), np.empty(len(text) + 2, np.uint16), classes()
    bounds, hashes, tally = np.empty(len(text) + 1, np.int64), np.empty(len(text), np.uint64), np.empty(4, np.int64)
    n = decode(data, offsets[0], offsets[1], kinds, chars, marks)
    count = tokens(chars, marks, n, kinds, bounds, hashes, tally)
    found, rest = plain.tokens(text), "".join(text.split())
    assert [rest[a:b] for a, b in itertools.pairwise(bounds[: count + 1])] == found
    assert len(set(hashes[:count].tolist())) == len(set(found))
    assert _count(chars, 0, n, kinds) == count
    assert symbols(chars, n) == (text.count("#"), text.count("...") + text.count("…"), text.count("!"))
    return found, tally.tolist()


def test_every_character_beside_marks_that_hold_words_together() -> None:
    every = [chr(c) for c in (*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE0200), 0x10FFFF)]
    for at in range(0, len(every), 5000):
        assert_tokens_agree(" ".join(f"a.{c}{c}'{c}Z.{c} {c},b" for c in every[at : at + 5000]))
    ascii_ = [chr(c) for c in range(128)]
    for c in ascii_:
        assert_tokens_agree(c + c + "a")
    assert_tokens_agree(" ".join(f"x{a}{b}{c}Y" for a in ascii_ for b in ascii_ for c in "a.-Q"))
    assert set(JOINERS) == {c for c in every if len(plain.tokens(f"a{c}b")) == 1 and not plain.words(c)}


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=st.sampled_from("abXY3_ ..--'’!#,中é\n("), min_size=1, max_size=80))
def test_tokens_of_strange_texts(text: str) -> None:
    found, tally = assert_tokens_agree(text)
    proper = plain.proper_words(found)
    lettered = sum(any(c.isalpha() for c in token) for token in found)
    shouting = sum(len(token) > 2 and token.isupper() and token.isalpha() for token in found)
    assert tally == [len(proper), sum(map(len, proper)), lettered, shouting]


def test_what_a_token_is() -> None:
    found = plain.tokens("Don’t call java.lang.Object at 3.5% (well-known), the end.Next ... f(x)=1 ---- e.g. 'so'")
    assert found[:9] == ["Don’t", "call", "java.lang", ".", "Object", "at", "3.5", "%", "("]
    assert found[9:20] == ["well", "-", "known", ")", ",", "the", "end", ".", "Next", "...", "f(x)=1"]
    assert found[20:] == ["----", "e.g", ".", "'", "so", "'"]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab3 4+=-.!?\n\u00e9\u4e2d#A_'\u2026 "), max_size=400))
def test_rules_on_strange_texts(text: str) -> None:
    assert_rules_agree([text] if text else [])
    assert decontaminate.words(text) == plain.words(text)
    count, numbers = fast_shingles_and_signature(text)
    assert count == len(plain.words(text))
    assert numbers == (plain.signature(text) or [2**64 - 1] * 120)


def test_signatures_of_runs_of_every_size() -> None:
    """XXH64 takes 32, 8, 4 or 1 bytes at a time: each number of bytes from 1 to 140, alone and beside runs of other sizes."""
    for size in range(1, 141):
        for text in ("x" * size, f"{'y' * size} a bc def {'z' * (size % 7 + 1)} {'w' * size} end"):
            assert fast_shingles_and_signature(text)[1] == plain.signature(text), size
    text = " ".join("abcdefgh"[k % 8] * (k * k % 29 + 1) for k in range(3000))
    assert fast_shingles_and_signature(text)[1] == plain.signature(text)


def test_every_letter_has_python_s_small_form() -> None:
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    words = lower_words(["ab ".join(every[k : k + 5000]) for k in range(0, len(every), 5000)])
    assert words == [plain.words("ab ".join(every[k : k + 5000])) for k in range(0, len(every), 5000)]
    for text in ("\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u03a3", "\u0130stanbul AB", "a\ud800b"):
        assert lower_words([text]) == [plain.words(text.replace("\ud800", "?"))]


def test_the_rest_is_right_where_a_function_s_value_is_the_prime() -> None:
    """Values of PRIME and a little more are too rare to be met: hashes are made that give them."""
    factors, summands = (numbers[:6] for numbers in hash_functions(120, 1))
    wanted = [int(PRIME) + k for k in range(9)] + [2**64 - 1, 0, 1]
    hashes = [(x - int(summands[k])) * pow(int(factors[k]) | 1, -1, 2**64) % 2**64 for k in range(6) for x in wanted]
    factors |= np.uint64(1)  # odd: so that each value has a hash
    least = np.full(6, 2**64 - 1, np.uint64)
    _least(np.array(hashes, np.uint64), len(hashes), factors, summands, least)
    values = [[(h * int(f) + int(s)) % 2**64 % int(PRIME) for h in hashes] for f, s in zip(factors, summands)]
    assert least.tolist() == [min(row) for row in values]
    assert 0 in least.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_repeated_runs_of_every_length(seed: int) -> None:
    text = random_text(random.Random(seed))
    whole = replace(ONLY, repetition=replace(ONLY.repetition, window=0))
    fast, found = dict(zip(FEATURES, measure([text], whole).values[0])), plain.tokens(text)
    for n in range(2, 5):
        once = len(" ".join(found[:n])) if len(found) >= n else 0  # what counts in whole texts where no run recurs
        assert fast[f"top_{n}_gram"] == (plain.top_chars(found, n) or once) / len(text)
    for n in range(5, 11):
        assert fast[f"repeated_{n}_grams"] == plain.repeated_chars(found, n) / len(text)
    short = dict(zip(FEATURES, measure(["Elephants never forget."], whole).values[0]))
    assert (short["top_3_gram"], short["top_4_gram"]) == (22 / 23, 24 / 23)  # with the spaces between tokens
    assert plain.repeated(["a", "b", "a"], "abaX") == (1 / 3, 1 / 4)
    assert plain.proper_words(["a", "_", ".", "…", "€", "7"]) == ["a", "€", "7"]
    assert plain.full_stop("。")
    assert not plain.full_stop(",")


def test_number_words() -> None:
    for word in ("7", "007", "Seven", "twenty", "zero"):
        assert arithmetic._number(word) == plain.value(word)


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


def judged(texts: list[str], problems: list[str], page: bool, config: BuildConfig) -> list[Row]:
    """The texts as the worker leaves them, without language and furniture."""
    begin(config, [Question(p) for p in problems])
    kind = "html" if page else "text"
    rows = [Row(str(k), text, "test", kind, {}, None, unit_hash(text), len(text)) for k, text in enumerate(texts)]
    return _judge([(row, row.text, kind) for row in rows])


def fast_drops(rows: list[Row], config: BuildConfig, folder: Path) -> list[Drop | None]:
    """Each row's fate, as `data build` decides it: in three parts, so that duplicates are found across them."""
    parts = []
    for at, chunk in enumerate(np.array_split(np.arange(len(rows)), 3)):
        parts.append(folder / f"judged-{at}.parquet")
        write_part(parts[-1], [rows[k] for k in chunk])
    with workers(1, begin, (config, [])) as run_map:
        decided = decide(run_map, parts, folder, config)
    drops = [row.drop for row in rows]
    for task in tasks(parts, decided, config):
        for number, drop in task.drops.items():
            assert drops[number] is None
            drops[number] = drop
        assert read_part(task.path, ["id"])[0].id == str(task.number)
    return drops


def only_near(texts: list[str], folder: Path) -> dict[int, int]:
    off = {name: replace(getattr(ONLY, name), enabled=False) for name in ("gopher", "repetition", "c4", "web")}
    config = replace(ONLY, heldout=0.0, dedup=DedupConfig(exact=False), **off)
    drops = fast_drops(judged(texts, [], False, config), config, folder)
    return {k: int(drop.partner) for k, drop in enumerate(drops) if drop and drop.rule == RULES[2]}


@pytest.mark.parametrize("seed", range(8))
def test_signatures_and_near_duplicates(seed: int, tmp_path: Path) -> None:
    texts = variants(random.Random(seed), 60)
    for text in texts[:20]:
        assert fast_shingles_and_signature(text)[1] == plain.signature(text)
    assert only_near(texts, tmp_path) == plain.near_duplicates(texts)
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
        fast = index.check(text) is not None
        touched = sign([text], 5, hash_functions(1, 1), index.heads, 5).touched[0]  # who isn't touched isn't looked at
        assert touched or not fast
        assert fast == plain.contaminated(text, problems)
        hits += fast
    assert 0 < hits < 60


def fast_curate(texts: list[str], problems: list[str], page: bool, folder: Path) -> list[str | None]:
    """The worker's and the global decisions, as `data build` takes them, without language and held-out split."""
    config = replace(ONLY, heldout=0.0)
    drops = fast_drops(judged(texts, problems, page, config), config, folder)
    return [drop.rule if drop else None for drop in drops]


@pytest.mark.parametrize("page", [False, True])
def test_curate_on_random_texts(page: bool, tmp_path: Path) -> None:
    dice = random.Random(3)
    texts = [random_text(dice) for _ in range(40)] + [t + " the cat and the dog have it." for t in variants(dice, 40)]
    dice.shuffle(texts)
    texts += texts[:5]
    reasons = plain.curate(texts, ["w1 w2 w3 w4 w5", texts[3]], page)
    assert fast_curate(texts, ["w1 w2 w3 w4 w5", texts[3]], page, tmp_path) == reasons
    assert {None, "exact", "problem_overlap"} <= set(reasons)
    assert plain.exact_duplicates(["a", "b", "a"]) == {2: 0}


def test_curate_on_real_text(data_dir: Path, tmp_path: Path) -> None:
    text = (data_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:400_000]
    texts = [p.strip() for p in text.split(" = \n") if p.strip()][:150]
    texts += [t.replace(" the ", " a ", 1) for t in texts[::7]]
    reasons = plain.curate(texts, [texts[5][:300]])
    assert fast_curate(texts, [texts[5][:300]], False, tmp_path) == reasons
    assert {None, "near", "problem_overlap"} <= set(reasons)
