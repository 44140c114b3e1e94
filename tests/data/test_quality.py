"""Rules with a name: what each is for, seen on texts that people would judge the same way."""

from pathlib import Path

import pytest

from groundup.base.errors import DataError
from groundup.data.classify import language, unwanted_language
from groundup.data.config import DecontaminateConfig, GopherConfig, LanguageConfig, RepetitionConfig, WebConfig
from groundup.data.decontaminate import ProblemIndex, Question, read_questions
from groundup.data.dedup import words
from groundup.data.quality import (
    arithmetic_claims,
    blocked,
    false_arithmetic,
    gopher,
    read_blocklist,
    repetition,
    tokens,
    web,
)

GOOD = "The cat sat on the mat and looked at the rain. It had been raining for three days, and nobody wanted to leave the house. "


@pytest.mark.parametrize(("text", "true"), [
    ("3 + 4 = 7", [True]), ("3 + 4 = 8", [False]), ("three plus four is seven", [True]), ("Nine minus TWO is 6.", [False]),
    ("2 + 3 * 4 = 14", [True]),
    ("12 - 20 = -8", [True]), ("What is 50 plus 28? It is 77.", [False]), ("6 × 7 = 42, 9 − 2 = 6", [True, False]),
    ("Mia had 5 cups, gave 3 away, and now has 2.", [True]), ("Leo has 4 keys and gets 3 more. How many is that? It is 8.", [False]),
    ("x3 + 4 = 7", []), ("3 + 4 = 7.5", []), ("3 + 4 = 2 + 5", []), ("On 2020-01-02 he left", []), ("1.3 + 4 = 7", []), ("a + b = c", []),
    ("10 minus 2 is 8 more", []),
])  # fmt: skip
def test_claims_that_can_be_checked(text: str, true: list[bool]) -> None:
    assert [claim for _, claim in arithmetic_claims(text)] == true


def test_a_text_that_cannot_count_leaves() -> None:
    drop = false_arithmetic("1 + 1 = 3. 2 + 2 = 4. 3 + 3 = 7.", WebConfig())
    assert drop is not None
    assert (drop.rule, round(drop.value, 3), drop.threshold) == ("false_arithmetic", 0.667, 0.3)
    assert false_arithmetic("1 + 1 = 3. 2 + 2 = 5.", WebConfig()) is None  # two claims prove nothing
    assert false_arithmetic("1 + 1 = 2. 2 + 2 = 4. 3 + 3 = 6. 4 + 4 = 9.", WebConfig()) is None


def test_good_prose_passes_every_rule() -> None:
    text = GOOD + "Tom has 5 apples and 3 + 4 = 7."
    found = tokens(text)
    assert gopher(text, found, GopherConfig()) is None
    assert repetition(text, found, RepetitionConfig()) is None
    assert web(text, found, True, WebConfig()) is None
    assert false_arithmetic(text, WebConfig()) is None


@pytest.mark.parametrize(("text", "rule"), [
    ("Log in to read.", "gopher_min_words"),
    ("cheap pills bonus winner casino " * 20, "gopher_stop_words"),
    ("# hash # tag " * 20, "gopher_symbols"),
    ("Donaudampfschifffahrtsgesellschaft " * 12, "gopher_max_word_length"),
])  # fmt: skip
def test_gopher_names_the_rule(text: str, rule: str) -> None:
    drop = gopher(text, tokens(text), GopherConfig())
    assert drop is not None
    assert drop.rule == rule


def test_repetition_and_web_name_the_rule() -> None:
    lines = "\n".join(["Buy lamps now at the best price and win"] * 8)
    drop = repetition(lines, tokens(lines), RepetitionConfig())
    assert drop is not None
    assert drop.rule == "repeated_lines"
    for text, rule in (
        ("WIN A PHONE!!! CLICK HERE NOW!!! " * 3, "shouting"),
        ("Home\nNews\nShop", "c4_sentences"),
        ("Lorem ipsum dolor.", "c4_lorem_ipsum"),
    ):
        drop = web(text, tokens(text), True, WebConfig())
        assert drop is not None
        assert drop.rule == rule


def test_a_long_text_repeats_itself_within_windows_only() -> None:
    text = " ".join(
        f"{word} number {n // 40} of the list." for n, word in enumerate(("red", "green", "blue", "grey") * 900)
    )
    windowed = repetition(text, tokens(text), RepetitionConfig(window=100))
    whole = repetition(text, tokens(text), RepetitionConfig(window=10**9))
    assert whole is not None
    assert windowed is None or windowed.value <= whole.value


def test_languages() -> None:
    assert language(GOOD)[0] == "en"
    assert language("12 + 3 = 15") == ("", 0.0)
    german = "Der Hund spielt im Garten, und die Kinder lachen über das schöne Wetter am Meer."
    drop, code = unwanted_language(german, LanguageConfig())
    assert drop is not None
    assert (drop.rule, drop.threshold, code) == ("is_de", 0.65, "de")
    assert unwanted_language(german, LanguageConfig(wanted=("de", "en")))[0] is None
    assert unwanted_language(german, LanguageConfig(wanted=()))[0] is None
    assert unwanted_language("Mia", LanguageConfig()) == (None, "")


def test_blocked_addresses(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# hosts\nbad.example  # worse\n\nspam\n", encoding="utf-8")
    words_ = WebConfig().blocked_urls + read_blocklist(tmp_path / "list.txt")
    for url in (
        "https://best-casino.example/",
        "http://www.bad.example/x",
        "https://a.example/xxx/1.html",
        "https://a.example/spam",
    ):
        assert blocked(url, words_) is not None, url
    for url in (
        "https://good.example/",
        "https://notbad.example/page",
        "https://a.example/casinos-history",
        "https://essex.example/",
    ):
        assert blocked(url, words_) is None, url
    assert read_blocklist(None) == ()
    with pytest.raises(DataError, match="no such file"):
        read_blocklist(tmp_path / "missing.txt")


def test_problems_are_found_whole_or_in_runs(tmp_path: Path) -> None:
    question = (
        "A farmer has twelve sheep and buys seven more at the market on Monday, how many sheep has the farmer now?"
    )
    index = ProblemIndex([Question(question)], DecontaminateConfig())
    text = "Quiz: a farmer has twelve sheep, and buys seven more at the MARKET on Monday; guess!"
    drop = index.check(text, words(text))
    assert drop is not None
    assert (drop.rule, drop.value, drop.threshold) == ("problem_overlap", 13, 13)
    assert "farmer has twelve sheep" in drop.partner
    assert index.check("a farmer has twelve sheep", words("a farmer has twelve sheep")) is None


def test_templated_problems_count_only_whole_and_mark_for_mark() -> None:
    index = ProblemIndex([Question("What is the first letter of e l i?", whole=True)], DecontaminateConfig())
    for text, found in (
        ("So what is the first letter of e l i? It is e.", True),
        ("What is the first letter of e l i b? It is e.", False),
    ):
        assert (index.check(text, words(text)) is not None) == found


def test_problem_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "Why?"}\n{"prompt": "def f():"}\n', encoding="utf-8")
    assert [q.text for q in read_questions([tmp_path / "a.jsonl"])] == ["Why?", "def f():"]
    (tmp_path / "b.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no problems in it"):
        read_questions([tmp_path / "b.jsonl"])
    (tmp_path / "c.jsonl").write_text('{"label": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: none of the keys"):
        read_questions([tmp_path / "c.jsonl"])
