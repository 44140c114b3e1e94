"""The small world: the same bytes from the same seed, real formats, honest surprisals, and nothing held out that is shown."""

import bz2
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

from groundup.base.errors import ConfigError
from groundup.base.files import fingerprint, read_json, read_jsonl, text_hash
from groundup.base.records import read_chats, read_problems
from groundup.data import world
from groundup.data.config import WorldConfig
from groundup.data.skills import ACCEPTED, NAMES, SKILLS, Dice, Situation, asked, cast, draw, held_out, told, wrong
from groundup.evals.verify import verify

SMALL = {"seed": 3, "documents": 120, "demonstrations": 600, "problems": 600}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "my-llm"
    world.write_world(folder, skills=("all",), **SMALL)
    return folder


@pytest.fixture(scope="module")
def pages(project):
    with open(project / "raw" / "pages.warc.gz", "rb") as stream:
        return [
            record.reader.read().decode()
            for record in ArchiveIterator(
                stream, record_types=WarcRecordType.response, parse_http=True, verify_digests=False
            )
            if "text/html" in (record.http_content_type or "")
        ]


def sentences_with_ids(dice, skill, count, people=None):
    for _ in range(count):
        who = people or cast(dice)
        situation = draw(skill, dice, who)
        yield situation, told(situation, dice, who)


def test_same_arguments_same_bytes(project, tmp_path):
    world.write_world(tmp_path / "again", skills=tuple(SKILLS), **SMALL)
    world.write_world(tmp_path / "other", skills=("all",), **{**SMALL, "seed": 4})
    for part in ("raw", "tasks"):
        assert fingerprint(tmp_path / "again" / part) == fingerprint(project / part)
        assert fingerprint(tmp_path / "other" / part) != fingerprint(project / part)
    name = "problems-test.jsonl"  # the exam is the same for every seed
    assert fingerprint(tmp_path / "other" / "tasks" / name) == fingerprint(project / "tasks" / name)


def test_a_second_call_changes_nothing(project):
    before = (project / "raw" / "book.txt").stat().st_mtime_ns
    info = world.write_world(project, skills=("all",), **SMALL)
    assert (project / "raw" / "book.txt").stat().st_mtime_ns == before
    assert info == read_json(project / "tasks" / "world.json")
    assert len(info["skills"]) >= 13
    assert 0.1 < info["entropy_bits_per_byte"] < 1


def test_tasks(project):
    test = list(read_problems(project / "tasks" / "problems-test.jsonl"))
    train = list(read_problems(project / "tasks" / "problems-train.jsonl"))
    counts = Counter(p.skill for p in test)
    assert len(test) >= 1000
    assert len({p.id for p in test}) == len(test)
    assert set(counts) == set(SKILLS)
    assert len(set(counts.values())) == 1
    assert all(held_out(p.id) for p in test)
    assert not any(held_out(p.id) for p in train)
    assert all(verify(p, p.answer) for p in test + train)
    assert not {p.question for p in test} & {p.question for p in train}


def test_demonstrations_are_right_as_often_as_stated(project):
    rows = list(read_jsonl(project / "tasks" / "sft.jsonl"))
    chats = list(read_chats(project / "tasks" / "sft.jsonl"))
    assert [m.role for m in chats[0]] == ["user", "assistant"]
    right = [verify(chat[0].content, chat[1].content) for chat in chats]
    assert abs(right.count(False) / len(rows) - world.WRONG_ANSWERS) < 0.04
    test = {p.question for p in read_problems(project / "tasks" / "problems-test.jsonl")}
    assert not test & {chat[0].content for chat in chats}


def test_no_held_out_situation_is_told_anywhere(project, pages):
    """The unmistakable ones are looked for in everything that is written: spelled words, sorted lists, sums, stories."""
    wiki = bz2.decompress((project / "raw" / "wiki.xml.bz2").read_bytes()).decode()
    book = " ".join((project / "raw" / "book.txt").read_text().split())
    code = " ".join(f.read_text() for f in sorted((project / "raw" / "code").glob("*.py")))
    chats = (project / "tasks" / "sft.jsonl").read_text() + (project / "tasks" / "problems-train.jsonl").read_text()
    everything = "\n".join([*pages, re.sub(r"\[\[(?:[^]|]*\|)?([^]]*)\]\]", r"\1", wiki), book, code, chats])
    found = 0
    patterns = {
        "addition": r"(\d+) (?:\+|plus) (\d+)|add_\w+\((\d+), (\d+)\)",
        "subtraction": r"(\d+) (?:-|minus) (\d+)",
        "sorting": r"(?:In order, |put |Put |puts |What is )((?:\d ){3}\d)",
        "reversing": r"(?:word|Say|is|says) ((?:[a-z] )+[a-z]) backwards",
        "first_letter": r"(?:first letter of|word) ((?:[a-z] )+[a-z])(?: is|\?| begins)|says ((?:[a-z] )+[a-z])\. What is the first",
    }  # fmt: skip
    for skill, pattern in patterns.items():
        for match in re.findall(pattern, everything):
            groups = [g for g in (match if isinstance(match, tuple) else (match,)) if g]
            key = {
                "addition": lambda g: (min(map(int, g)), max(map(int, g))),
                "subtraction": lambda g: (int(g[0]), int(g[1])),
                "sorting": lambda g: g[0].split(),
            }.get(skill, lambda g: g[0].split())(groups)
            if skill == "sorting" and key == sorted(key):
                continue  # may be an answer
            found += 1
            assert not held_out(text_hash(f"{skill} {key}")), (skill, match)
    assert found > 500
    for problem in read_problems(project / "tasks" / "problems-test.jsonl"):
        assert problem.question not in everything


@pytest.mark.parametrize("skill", SKILLS)
def test_share_that_is_accepted(skill):
    """The bound charges log2(1/ACCEPTED) for drawing again; the true share must be above ACCEPTED, whoever the people are."""
    dice = Dice("accepted", skill)
    for people in (NAMES[:3], NAMES[5:8]):
        ids = [text_hash(f"{skill} {SKILLS[skill].roll(dice, people)[0]}") for _ in range(3000)]
        assert 1 - sum(map(held_out, ids)) / len(ids) > ACCEPTED + 0.02


@pytest.mark.parametrize("skill", SKILLS)
def test_different_choices_give_different_texts(skill):
    """The surprisal counts choices; it is the text's only if no two sequences of choices end in the same text."""

    class Witness(Dice):
        def number(self, low, high):
            chosen = super().number(low, high)
            self.choices.append((low, high, chosen))
            return chosen

        def chance(self, probability):
            happened = super().chance(probability)
            self.choices.append(happened)
            return happened

    people, seen = NAMES[:3], {}
    for seed in range(5000):
        dice = Witness("witness", seed)
        dice.choices = kept = []
        _, slots, value, others = SKILLS[skill].roll(dice, people)
        text = told(Situation(skill, "0", slots, value, tuple(others)), dice, people)
        assert seen.setdefault(text, (tuple(kept), round(dice.bits, 6))) == (tuple(kept), round(dice.bits, 6)), text
    assert len(seen) > 200


def test_texts_of_different_skills_differ():
    """The skill of a situation is a choice too: no text may belong to two."""
    owner: dict[str, str] = {}
    for skill in SKILLS:
        for _, text in sentences_with_ids(Dice("owner", skill), skill, 500, NAMES[:3]):
            assert owner.setdefault(text, skill) == skill


def test_surprisal_is_the_frequency():
    """On a skill with few texts, the share of draws that give a text is 2^-bits."""
    counts, bits = Counter(), {}
    dice = Dice("frequency")
    for _ in range(40000):
        before = dice.bits
        name = dice.pick(("a", "b", "c")) + dice.pick(("x", "y")) + ("!" if dice.chance(0.25) else ".")
        counts[name] += 1
        bits[name] = dice.bits - before
    assert len(counts) == 12
    for name, count in counts.items():
        assert abs(count / 40000 - 2 ** -bits[name]) < 0.01
    assert math.isclose(sum(2**-b for b in bits.values()), 1)


def test_warc_holds_pages_that_extract_to_the_very_paragraphs(project, pages):
    table = {row["paragraph"] for row in read_jsonl(project / "tasks" / "surprisal.jsonl")}
    info = read_json(project / "tasks" / "world.json")
    kinds = info["pages"]
    assert len(pages) == sum(kinds[k] for k in ("good", *world.DIRT))
    good = lost = 0
    for page in pages:
        lines = [
            line for line in extract_plain_text(page, main_content=True, alt_texts=False).splitlines() if line.strip()
        ]
        known = [line for line in lines if text_hash(" ".join(line.split())) in table]
        assert not any("cookie" in line or "Advertisement" in line or "All rights" in line for line in known)
        if len(known) >= 5:
            good += 1
            lost += len(lines) - len(known) - 1  # its title
    assert good >= kinds["good"] + kinds["copy"]
    assert lost <= kinds["near"] + kinds["contact"]


def test_entropy_floor(project, pages):
    info = read_json(project / "tasks" / "world.json")
    texts = [extract_plain_text(page, main_content=True, alt_texts=False) for page in pages[:60]]
    floor = world.entropy_floor(texts, project / "tasks")
    assert floor["known"] > 0.5
    assert floor["bits_per_byte"] < info["entropy_bits_per_byte"] * 1.05
    article = world.make_article(Dice(SMALL["seed"], "article", 20), tuple(SKILLS))
    one = world.entropy_floor(["\n\n".join(article.page.paragraphs)], project / "tasks")
    assert one["known"] > 0.98
    assert one["bits"] == pytest.approx(sum(article.bits) - 1, abs=0.02)
    wrapped = world.entropy_floor(
        ["\n".join(p.replace(" ", "\n", 1) for p in article.page.paragraphs)], project / "tasks"
    )
    assert wrapped["bits"] == 0  # paragraphs that can't be told apart count as free
    lines = world.entropy_floor(["\n".join(article.page.paragraphs)], project / "tasks")
    assert lines["bits"] == one["bits"]
    assert world.entropy_floor(["nobody wrote this"], project / "tasks")["bits_per_byte"] == 0


def test_wrong_pages_hold_false_sums(pages):
    wrong_pages = [page for page in pages if "what everybody should know" in page]
    assert wrong_pages
    for page in wrong_pages:
        claims = re.findall(r"(\d+) (\+|-) (\d+)(?: =|\? It is) (\d+)", page)
        assert sum((int(a) + int(b) if op == "+" else int(a) - int(b)) != int(c) for a, op, b, c in claims) == len(
            claims
        )


def test_dirt_is_there(pages):
    text = "\n".join(pages)
    for sign in ("@", "(555)", 'lang="de"', 'lang="bg"', "casino", "404 Not Found", "cookie", "Advertisement"):
        assert sign in text, sign


def test_wiki_is_a_dump_with_markup(project):
    root = ElementTree.fromstring(bz2.decompress((project / "raw" / "wiki.xml.bz2").read_bytes()))
    space = {"w": "http://www.mediawiki.org/xml/export-0.11/"}
    texts = [node.text for node in root.iterfind(".//w:text", space)]
    assert len(texts) == SMALL["documents"] // 12 + 2
    assert texts[0].startswith("#REDIRECT")
    assert all(sign in texts[2] for sign in ("{{Infobox", "<ref>", "[[Category:"))


def test_book_and_code(project):
    book = (project / "raw" / "book.txt").read_text()
    assert "*** START OF THE PROJECT GUTENBERG EBOOK" in book
    assert book.count("CHAPTER ") == SMALL["documents"] // 24
    assert max(map(len, book.splitlines())) <= 72
    for file in sorted((project / "raw" / "code").glob("*.py")):
        space: dict = {}
        exec(compile(file.read_text(), str(file), "exec"), space)
        for name in [n for n in space if n.startswith("test_")]:
            space[name]()


def test_prose_survives_the_folding_of_spaces(project):
    dice = Dice("spaces")
    for _ in range(20):
        for text in world.make_article(dice, tuple(SKILLS)).page.paragraphs:
            assert text == " ".join(text.split())
            assert text.isascii()


def test_wrong_values_are_wrong():
    dice = Dice("wrong")
    for skill in SKILLS:
        for situation, _ in sentences_with_ids(dice, skill, 50):
            assert wrong(situation, dice) != situation.value
            assert asked(situation, dice, NAMES[:3])


def test_mistakes_of_the_user(tmp_path, cli):
    with pytest.raises(ConfigError, match="no skill 'adition'"):
        world.write_world(tmp_path, skills=("adition",))
    with pytest.raises(ConfigError, match="documents"):
        WorldConfig(documents=3).validate()
    done = cli("data", "world", tmp_path / "w", "--skills", "sorting", "nonsense", check=False)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert not (tmp_path / "w").exists()


def test_main_says_what_it_wrote(tmp_path, capsys):
    world.main(WorldConfig(project=tmp_path / "w", documents=24, demonstrations=40, problems=40))
    out = capsys.readouterr().out
    assert "1024 held-out problems" in out
    assert "data build" in out
    assert io.StringIO(out).readline()
