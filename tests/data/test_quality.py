"""Rules with a name: what each is for, seen on texts that people would judge the same way."""

from pathlib import Path

import pytest

from groundup.base.errors import DataError
from groundup.data.arithmetic import arithmetic_claims, false_arithmetic
from groundup.data.classify import language, unwanted_language
from groundup.data.config import (
    BuildConfig,
    DecontaminateConfig,
    GopherConfig,
    LanguageConfig,
    RepetitionConfig,
    WebConfig,
)
from groundup.data.decontaminate import ProblemIndex, Question, read_questions
from groundup.data.extract import Drop
from groundup.data.measure import FEATURES, measure
from groundup.data.quality import RULES, blocked, first_broken, forbidden_words, read_list

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


def broken(text: str, config: BuildConfig | None = None, page: bool = True) -> Drop | None:
    config = (config or BuildConfig()).effective()
    return first_broken(measure([text], config).values, [page], config, FEATURES)[0]


def test_good_prose_passes_every_rule() -> None:
    text = GOOD + "Tom has 5 apples and 3 + 4 = 7."
    assert broken(text) is None
    assert false_arithmetic(text, WebConfig()) is None


@pytest.mark.parametrize(("text", "rule"), [
    ("Log in to read.", "gopher_min_words"),
    ("cheap pills bonus winner casino " * 20, "gopher_stop_words"),
    ("# hash # tag " * 20, "gopher_symbols"),
    ("wait ... for ... it " * 20, "gopher_symbols"),
    ("Donaudampfschifffahrtsgesellschaft " * 12, "gopher_max_word_length"),
    ("\n".join(["Buy lamps now at the best price and win the day of that"] * 8), "repeated_lines"),
    ("\n\n".join([GOOD] * 3), "repeated_paragraphs"),
    ("WIN A PHONE!!! CLICK HERE NOW AND BUY MANY CHEAP THINGS FROM OUR SHOP TODAY!!!", "shouting"),
    ("Home of the News\nShop and the Cart\nAll about that and us", "c4_sentences"),
    (GOOD + "Lorem ipsum dolor.", "c4_lorem_ipsum"),
])  # fmt: skip
def test_a_rule_has_a_name_a_value_and_a_threshold(text: str, rule: str) -> None:
    drop = broken(text)
    assert drop is not None
    assert drop.rule == rule
    threshold = next(r.threshold(BuildConfig()) for r in RULES if r.name == rule)
    assert drop.threshold == threshold
    assert isinstance(drop.value, float)


def test_fineweb_s_own_thresholds() -> None:
    """The text is long enough for the paper, but one rule each stands against it."""
    config = BuildConfig(filters="fineweb")
    sentences = [
        "The rain that fell on Monday was followed by a long week of sun.",
        "Nobody could remember when the old mill had stopped.",
        "Children played along both banks, and their mothers sat with them.",
        "A ferry to the island left twice every morning.",
        "Most of those who lived there had come because work was easy to find.",
        "In winter the lake froze, so people walked.",
    ]
    text = "\n".join(sentences)
    assert broken(text, config) is None
    assert broken(text + "\nfunction() { return to the start of it all; }", config).rule == "c4_curly_bracket"  # type: ignore[union-attr]
    assert broken(text, BuildConfig()) is None
    assert broken(sentences[0], config).rule == "gopher_min_words"  # type: ignore[union-attr]
    rest = measure(
        [text.replace(".", "[1].", 1) + "\nHome\nPlease enable JavaScript to see it\nWe use cookies to see it."],
        config.effective(),
    )
    assert rest.texts == [text]


def test_a_long_text_repeats_itself_within_windows_only() -> None:
    text = " ".join(f"word{k}" for k in range(2000))
    off = GopherConfig(enabled=False)
    whole = broken(f"{text} {text}", BuildConfig(gopher=off, repetition=RepetitionConfig(window=0)), page=False)
    assert whole is not None
    assert whole.rule == "repeated_5_grams"
    assert (
        broken(f"{text} {text}", BuildConfig(gopher=off, repetition=RepetitionConfig(window=2000)), page=False) is None
    )


def test_word_lists() -> None:
    pattern = forbidden_words(("bad", "very bad words"))
    assert pattern is not None
    assert pattern.search("That is a very  bad\twords list.")[0] == "very  bad\twords"  # type: ignore[index]
    assert pattern.search("A badge.") is None
    assert forbidden_words(()) is None


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
    words_ = WebConfig().blocked_urls + read_list(tmp_path / "list.txt")
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
    assert read_list(None) == ()
    with pytest.raises(DataError, match="no such file"):
        read_list(tmp_path / "missing.txt")


def test_problems_are_found_whole_or_in_runs(tmp_path: Path) -> None:
    question = (
        "A farmer has twelve sheep and buys seven more at the market on Monday, how many sheep has the farmer now?"
    )
    index = ProblemIndex([Question(question)], DecontaminateConfig())
    text = "Quiz: a farmer has twelve sheep, and buys seven more at the MARKET on Monday; guess!"
    drop = index.check(text)
    assert drop is not None
    assert (drop.rule, drop.value, drop.threshold) == ("problem_overlap", 13, 13)
    assert "farmer has twelve sheep" in drop.partner
    assert index.check("a farmer has twelve sheep") is None


def test_templated_problems_count_only_whole_and_mark_for_mark() -> None:
    index = ProblemIndex([Question("What is the first letter of e l i?", whole=True)], DecontaminateConfig())
    for text, found in (
        ("So what is the first letter of e l i? It is e.", True),
        ("What is the first letter of e l i b? It is e.", False),
    ):
        assert (index.check(text) is not None) == found


def test_problem_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "Why?"}\n{"prompt": "def f():"}\n', encoding="utf-8")
    assert [q.text for q in read_questions([tmp_path / "a.jsonl"])] == ["Why?", "def f():"]
    (tmp_path / "b.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no problems in it"):
        read_questions([tmp_path / "b.jsonl"])
    (tmp_path / "c.jsonl").write_text('{"label": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: none of the keys"):
        read_questions([tmp_path / "c.jsonl"])
