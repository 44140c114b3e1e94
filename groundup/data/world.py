"""The small world: a corpus in raw form and tasks whose answers a program can check, from a seed. `groundup data world`.

    my-llm/raw/    pages.warc.gz  wiki.xml.bz2  book.txt  code/      what the data stage reads, with the web's dirt in it
    my-llm/tasks/  sft.jsonl  problems-train.jsonl  problems-test.jsonl  surprisal.jsonl  world.json

How little a model could need for this prose is known, because the prose is thrown with dice. Every choice (who, where, which
sentence) has a surprisal, -log2 of its probability; different choices give different texts, so a paragraph's sum is exactly
-log2 P(paragraph | its document's people). The chance that any model, however good, needs k bits fewer than the sum over a
text that it hasn't seen is at most 2^-k (Barron 1985): a model below the floor has seen the text. Two steps make a text more
probable than its dice: situations drawn again because they are held out (subtracted in `skills.draw`), and the choice of the
documents that cleaning keeps (one bit a document, valid while it keeps at least half of the good ones).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.base.errors import ConfigError, DataError
from groundup.base.files import atomic_folder, read_json, read_jsonl, text_hash, write_json, write_jsonl
from groundup.base.log import command, progress, say
from groundup.data.config import WorldConfig
from groundup.data.skills import NAMES, PLACES, SKILLS, THINGS, Dice, asked, cast, draw, told, wrong
from groundup.data.world_sources import Page, write_book, write_code, write_warc, write_wiki

__all__ = ["Article", "entropy_floor", "main", "make_article", "write_world"]

OPENERS = (
    "{a}, {b} and {c} met at the {place}.",
    "This is about {a}, {b} and {c} at the {place}.",
    "{a} came to the {place} with {b} and {c}.",
)
WRONG_ANSWERS = 0.06  # the share of demonstrations that a tired annotator got wrong
TEST_PROBLEMS = 1024  # fixed and held out, the same number of each skill (rounded up)
# Pages that aren't good ones, for each hundred good pages.
DIRT = {"near": 8, "copy": 6, "spam": 5, "wrong": 8, "foreign": 5, "contact": 4, "error": 3, "thin": 3}
FOREIGN = {
    "de": ("Heute war {a} mit {b} am Hafen und sie haben lange auf das Boot gewartet.",
           "Das Wetter war schön, aber der Wind kam aus dem Norden.",
           "Am Abend kochte {c} eine Suppe, und alle saßen zusammen in der Küche.",
           "Morgen wollen sie wieder in den Wald gehen und Pilze suchen."),
    "fr": ("Aujourd'hui {a} et {b} sont allés au marché pour acheter du pain et des pommes.",
           "Il faisait beau, mais le vent soufflait très fort.",
           "Le soir, {c} a préparé une soupe et tout le monde a mangé dans la cuisine.",
           "Demain ils veulent retourner dans la forêt avec leurs amis."),
    "bg": ("Днес {a} и {b} отидоха на пазара, за да купят хляб и ябълки.",
           "Времето беше хубаво, но вятърът духаше много силно.",
           "Вечерта {c} сготви супа и всички седнаха заедно в кухнята.",
           "Утре искат пак да отидат в гората със своите приятели."),
}  # fmt: skip
SPAM = (
    "cheap",
    "watches",
    "casino",
    "bonus",
    "free",
    "pills",
    "loans",
    "winner",
    "discount",
    "best",
    "price",
    "online",
    "now",
)


@dataclass(frozen=True)
class Article:
    """A good page with the surprisal of each of its paragraphs, in bits, given the people in its first one."""

    page: Page
    bits: tuple[float, ...]
    people: tuple[str, ...]


def make_article(dice: Dice, skills: Sequence[str], kind: str = "good") -> Article:
    """Returns a page about three people at a place: an opening sentence, then paragraphs of two to four situations."""
    place = dice.pick(PLACES)  # stands in the title already, so it costs the opening sentence nothing
    before = dice.bits
    people = cast(dice)
    a, b, c = people
    texts = [dice.pick(OPENERS).format(a=a, b=b, c=c, place=place)]
    bits = [dice.bits - before]
    for _ in range(dice.number(4, 8)):
        before = dice.bits
        count = dice.number(2, 4)
        texts.append(" ".join(told(draw(dice.pick(skills), dice, people), dice, people) for _ in range(count)))
        bits.append(dice.bits - before)
    return Article(Page(f"A day at the {place}", tuple(texts), kind), tuple(bits), tuple(people))


def _wrong_page(dice: Dice, skills: Sequence[str]) -> Page:
    """Returns a page whose author can't count: false sums, and mistaken answers to everything else."""
    people = cast(dice)
    texts = [f"{people[0]} wrote down what everybody should know."]
    for _ in range(dice.number(4, 7)):
        sentences = []
        for name in ("addition", "subtraction", dice.pick(skills)):
            situation = draw(name, dice, people)
            sentences.append(told(situation, dice, people, wrong(situation, dice)))
        texts.append(" ".join(sentences))
    return Page(f"The facts of {people[0]}", tuple(texts), "wrong")


def _near_copy(dice: Dice, article: Article) -> Page:
    """Returns the article as another site took it over: a line in front or behind, perhaps without its last paragraph."""
    texts = list(article.page.paragraphs)
    if len(texts) > 6 and dice.chance(0.5):
        texts.pop()
    note = dice.pick(("Found on another site and shared here.", "Thanks to our readers for sending this in."))
    texts.insert(dice.pick((0, len(texts))), note)
    return Page(article.page.title, tuple(texts), "near")


def _contact_page(dice: Dice, article: Article) -> Page:
    """Returns the article with the author's e-mail address and telephone number under it."""
    name, site = article.people[0].lower(), dice.pick(("village.example", "harbour.example", "post.example"))
    number = f"+1 (555) 01{dice.number(0, 9)}-{dice.number(1000, 9999)}"
    line = f"Write to {name}.{dice.pick(THINGS)}@{site} or call {number} if you have a question."
    return Page(article.page.title, (*article.page.paragraphs, line), "contact")


def _dirty_page(kind: str, dice: Dice, skills: Sequence[str], articles: Sequence[Article]) -> Page:
    """Returns a page of one of the kinds that the data stage should remove or mend."""
    people = cast(dice)
    if kind == "copy":
        return replace(dice.pick(articles).page, kind="copy")
    if kind == "near":
        return _near_copy(dice, dice.pick(articles))
    if kind == "contact":
        return _contact_page(dice, make_article(dice, skills))
    if kind == "wrong":
        return _wrong_page(dice, skills)
    if kind == "spam" and dice.chance(0.5):
        words = [" ".join(dice.pick(SPAM) for _ in range(dice.number(30, 60))) for _ in range(3)]
        return Page("Best price online", tuple(words), "spam")
    if kind == "spam":
        line = f"Buy {dice.pick(THINGS)}s now at the best price and win a free bonus!!!"
        return Page("Free bonus", tuple([line] * dice.number(6, 12)), "spam")
    if kind == "foreign":
        language = dice.pick(sorted(FOREIGN))
        texts = [sentence.format(a=people[0], b=people[1], c=people[2]) for sentence in FOREIGN[language]]
        return Page(f"{people[0]} & {people[1]}", (" ".join(texts[:2]), " ".join(texts[2:])), "foreign", language)
    if kind == "error":
        return Page("404 Not Found", (f"The page {dice.number(1000, 9999)} was not found on this server.",), "error")
    return Page("Log in", (f"Log in to read. {dice.number(2, 99)} comments",), "thin")


def _chats(seed: int, skills: Sequence[str], count: int) -> Iterator[dict[str, Any]]:
    """Yields demonstrations: a question, and the answer of a person who is wrong now and then."""
    dice = Dice(seed, "sft")
    for number in range(count):
        people = cast(dice)
        situation = draw(skills[number % len(skills)], dice, people)
        answer = situation.answer
        if dice.chance(WRONG_ANSWERS):
            answer = SKILLS[situation.skill].answer.format(value=wrong(situation, dice))
        messages = [
            {"role": "user", "content": asked(situation, dice, people)},
            {"role": "assistant", "content": answer},
        ]
        yield {"messages": messages, "skill": situation.skill}


def _problems(seed: int | str, skills: Sequence[str], count: int, test: bool) -> Iterator[dict[str, str]]:
    """Yields `count` problems of different situations, the skills in turn; for a test only held-out situations."""
    dice, seen = Dice(seed, "test" if test else "train"), set[str]()
    for number in range(count):
        name, tries = skills[number % len(skills)], 0
        while True:
            people = cast(dice)
            situation = draw(name, dice, people, test)
            tries += 1
            if situation.id not in seen or (tries > 200 and not test):
                break
            if tries > 20000:
                raise DataError(
                    f"{name}: fewer than {number // len(skills) + 1} different held-out situations; ask for fewer problems"
                )
        seen.add(situation.id)
        yield {
            "id": situation.id,
            "skill": name,
            "question": asked(situation, dice, people),
            "answer": situation.answer,
        }


def _write_raw(folder: Path, seed: int, documents: int, skills: Sequence[str]) -> tuple[list[Article], dict[str, int]]:
    """Writes the raw sources; returns the good articles and how many pages there are of each kind."""
    articles = []
    with progress("world", documents, "documents") as bar:
        for number in range(documents):
            articles.append(make_article(Dice(seed, "article", number), skills))
            bar.advance(1)
    wiki, book = articles[: documents // 12], articles[documents // 12 : documents // 12 + documents // 24]
    web = articles[documents // 12 + documents // 24 :]
    dice = Dice(seed, "dirt")
    pages = [article.page for article in web]
    for kind, share in DIRT.items():
        pages += [_dirty_page(kind, dice, skills, web) for _ in range(max(1, len(web) * share // 100))]
    dice.random.shuffle(pages)
    write_warc(folder / "pages.warc.gz", pages)
    entries = [Page(f"{a.page.title[6:].capitalize()} ({n})", a.page.paragraphs, "wiki") for n, a in enumerate(wiki, 1)]
    write_wiki(folder / "wiki.xml.bz2", entries, [*NAMES[:4], *PLACES[:4]])
    write_book(folder / "book.txt", [a.page for a in book])
    modules = []
    for thing in THINGS[:6]:
        situations = [draw("addition", dice, NAMES) for _ in range(4)]
        modules.append((thing, [(s.slots["a"], s.slots["b"]) for s in situations]))
    write_code(folder / "code", modules)
    kinds = {"good": len(web), "wiki": len(wiki), "book": len(book), "code": len(modules) + 1}
    return articles, kinds | {kind: sum(p.kind == kind for p in pages) for kind in DIRT}


def _check_skills(skills: Sequence[str]) -> tuple[str, ...]:
    """Returns the skills, "all" written out. Raises: ConfigError naming an unknown one."""
    chosen = tuple(SKILLS) if tuple(skills) == ("all",) else tuple(dict.fromkeys(skills))
    if unknown := [name for name in chosen if name not in SKILLS]:
        raise ConfigError(f"skills: no skill '{unknown[0]}'; there are {', '.join(SKILLS)}, or all")
    if not chosen:
        raise ConfigError("skills: name at least one")
    return chosen


def write_world(
    project: Path | str,
    seed: int = 0,
    documents: int = 4000,
    skills: Sequence[str] = (),
    demonstrations: int = 12000,
    problems: int = 20000,
) -> dict[str, Any]:
    """Returns the content of world.json after writing raw/ and tasks/ into the project; the same bytes for the same arguments.

    Does nothing where world.json tells that this very world is there. Raises: ConfigError for an unknown skill.
    """
    project, chosen = Path(project), _check_skills(skills or WorldConfig().skills)
    asked_for = {
        "seed": seed,
        "documents": documents,
        "skills": list(chosen),
        "demonstrations": demonstrations,
        "problems": problems,
    }
    about = project / "tasks" / "world.json"
    if (
        about.exists()
        and (project / "raw").is_dir()
        and {k: v for k, v in read_json(about).items() if k in asked_for} == asked_for
    ):
        return read_json(about)
    with atomic_folder(project / "raw") as raw, atomic_folder(project / "tasks") as tasks:
        articles, kinds = _write_raw(raw, seed, documents, chosen)
        table: dict[str, float] = {}
        for article in articles:
            for text, bits in zip(article.page.paragraphs, article.bits, strict=True):
                key = text_hash(text)
                table[key] = min(int(bits * 1000) / 1000, table.get(key, bits))
        write_jsonl(tasks / "surprisal.jsonl", ({"paragraph": key, "bits": bits} for key, bits in table.items()))
        write_jsonl(tasks / "sft.jsonl", _chats(seed, chosen, demonstrations))
        write_jsonl(tasks / "problems-train.jsonl", _problems(seed, chosen, problems, test=False))
        count = -(-TEST_PROBLEMS // len(chosen)) * len(chosen)
        write_jsonl(tasks / "problems-test.jsonl", _problems("fixed", chosen, count, test=True))
        prose = ["\n\n".join(a.page.paragraphs) for a in articles]
        size = sum(len(text.encode()) for text in prose)
        bits = sum(sum(a.bits) - 1 for a in articles)
        info = asked_for | {
            "test_problems": count, "wrong_answers": WRONG_ANSWERS, "prose_bytes": size, "pages": kinds,
            "entropy_bits_per_byte": round(bits / size, 5),
        }  # fmt: skip
        write_json(tasks / "world.json", info)
    return info


def _known_bits(block: str, table: dict[str, float]) -> float:
    """Returns the surprisal of a paragraph, or of its lines where each is a paragraph; 0 for what isn't in the table."""
    whole = text_hash(" ".join(block.split()))
    if whole in table:
        return table[whole]
    return sum(table.get(text_hash(" ".join(line.split())), 0.0) for line in block.splitlines())


def entropy_floor(documents: Iterable[str], tasks: Path | str) -> dict[str, float]:
    """Returns {"bits_per_byte", "bits", "bytes", "known"}: what these texts cost at least, as cleaning left them.

    A model that needs fewer bits for each byte has seen them. `known` is the share of the bytes in paragraphs that the
    world wrote; others (code, a title) count as free. Spaces and the way paragraphs are parted don't matter.
    Units: bits for each UTF-8 byte. Raises: DataError where there is no table or no text.
    """
    table = {row["paragraph"]: row["bits"] for row in read_jsonl(Path(tasks) / "surprisal.jsonl")}
    bits, size, known = 0.0, 0, 0
    for text in documents:
        size += len(text.encode())
        found = 0.0
        for block in re.split(r"\n\s*\n", text):
            cost = _known_bits(block, table)
            found += cost
            known += len(block.encode()) if cost else 0
        bits += max(found - 1, 0.0)
    if not size:
        raise DataError(f"{tasks}: no held-out text to compute the entropy floor of")
    return {"bits_per_byte": bits / size, "bits": bits, "bytes": size, "known": known / size}


def main(config: WorldConfig) -> None:
    """Writes the world that the config describes and says what it holds."""
    info = write_world(
        config.project, config.seed, config.documents, config.skills, config.demonstrations, config.problems
    )
    dirty = sum(info["pages"][kind] for kind in DIRT)
    say(
        f"{config.project}/raw: {info['documents']} documents of prose ({info['prose_bytes'] / 1e6:.1f} MB), {dirty} pages of dirt"
    )
    say(
        f"{config.project}/tasks: {len(info['skills'])} skills, {info['demonstrations']} demonstrations, "
        f"{info['test_problems']} held-out problems"
    )
    say(f"no model can need fewer than {info['entropy_bits_per_byte']:.3f} bits for a byte of that prose")
    say(f"next: {command('data', 'build', config.project)}")
