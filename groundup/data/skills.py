"""The small world's skills: situations drawn by counted dice, the sentences that tell them, the questions that ask for them.

A situation is a skill with its parameters; its identity is the hash of those, whatever the wording, and decides whether it is
held out. Every choice goes through `Dice`, which adds its surprisal; distinct choices give distinct texts, so the sum is the
text's information content, a bound that no model can beat on average.
"""

import math
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from groundup.base.files import text_hash

__all__ = [
    "ACCEPTED", "DEMO_SKILLS", "NAMES", "SKILLS", "Dice", "Situation", "Skill", "asked", "cast", "draw", "held_out", "told", "wrong",
]  # fmt: skip

T = TypeVar("T")
Roll = tuple[object, dict[str, Any], str, Sequence[str]]  # key, slots, value, values that a mistaken person might give

# Few words, and short ones: a vocabulary of 512 has room for each of them as one token.
NAMES = ("Mia", "Ben", "Ana", "Leo", "Eva", "Tom", "Zoe", "Max", "Ida", "Sam", "Rosa", "Hugo")
THINGS = ("ball", "book", "key", "lamp", "cup", "bell", "map", "ring")
PLACES = ("kitchen", "garden", "park", "barn", "school", "market", "forest", "tower")
EVENTS = ("party", "game", "walk", "trip")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COUNTS = ("two", "three", "four")
OPPOSITES = (
    ("big", "small"), ("hot", "cold"), ("fast", "slow"), ("heavy", "light"), ("wet", "dry"), ("new", "old"), ("full", "empty"),
    ("hard", "soft"), ("clean", "dirty"), ("long", "short"), ("thick", "thin"), ("bright", "dark"), ("strong", "weak"),
    ("loud", "quiet"),
)  # fmt: skip
WEATHER = (("hot", "cold"), ("wet", "dry"), ("bright", "dark"), ("loud", "quiet"))
VERBS = ("took", "moved")
CONSONANTS, VOWELS = "bdfhlmnrstvw", "aeiou"  # a choice from which no word comes out that one would not print
PATTERNS = ("vcv", "cvcv", "vcvc", "cvcvc", "vcvcv")
STORIES = ("ab", "aab", "aba", "abb", "abab", "abba")  # which of two things is moved, move by move

HELD_OUT_SHARE = 10  # one situation in ten
# At least this share of drawn situations isn't held out (a test counts). Drawing again until one is accepted divides every
# probability by the true share, so subtracting log2(1/ACCEPTED) from the surprisal keeps it a lower bound.
ACCEPTED = 0.85


class Dice:
    """A seeded source of choices that adds up their surprisal, in bits."""

    def __init__(self, *seed: object) -> None:
        self.random = random.Random("/".join(map(str, seed)))
        self.bits = 0.0

    def number(self, low: int, high: int) -> int:
        """Returns a whole number from low to high, both included."""
        self.bits += math.log2(high - low + 1)
        return low + int(self.random.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """Returns one of the options, which must be distinct."""
        return options[self.number(0, len(options) - 1)]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Returns `count` different options in random order."""
        rest = list(options)
        return [rest.pop(self.number(0, len(rest) - 1)) for _ in range(count)]

    def chance(self, probability: float) -> bool:
        """Returns True with this probability."""
        happened = self.random.random() < probability
        self.bits -= math.log2(probability if happened else 1 - probability)
        return happened


@dataclass(frozen=True)
class Situation:
    """A skill's parameters: `id` is their hash, `slots` fill the templates, `value` is what is asked for."""

    skill: str
    id: str
    slots: dict[str, Any]
    value: str
    others: tuple[str, ...] = ()  # values that a mistaken person might give

    @property
    def answer(self) -> str:
        """The answer as a person would say it."""
        return SKILLS[self.skill].answer.format(value=self.value)


@dataclass(frozen=True)
class Skill:
    """How situations are drawn (-> key, slots, value, mistaken values), told in prose, asked about, and answered."""

    roll: Callable[[Dice, Sequence[str]], Roll]
    prose: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str = "It is {value}."
    fields: dict[str, tuple[str, ...]] = field(
        default_factory=dict, compare=False
    )  # template -> its slots, filled once

    def __post_init__(self) -> None:
        for template in self.prose + self.questions:
            names = (name for _, name, _, _ in string.Formatter().parse(template) if name)
            self.fields[template] = tuple(dict.fromkeys(names))


def held_out(id: str) -> bool:
    """Returns whether a situation is kept from every stage of training. It depends on nothing but the situation."""
    return int(id[:8], 16) % HELD_OUT_SHARE == 0


def cast(dice: Dice) -> list[str]:
    """Returns the three people of a document."""
    return dice.sample(NAMES, 3)


def draw(name: str, dice: Dice, people: Sequence[str], test: bool = False) -> Situation:
    """Returns a situation of a skill: one of the held-out ones for a test, otherwise never one of them."""
    skill, before = SKILLS[name], dice.bits
    while True:
        key, slots, value, others = skill.roll(dice, people)
        id = text_hash(f"{name} {key}")
        if held_out(id) == test:
            dice.bits += math.log2(ACCEPTED)
            return Situation(name, id, slots, value, tuple(others))
        dice.bits = before


def _fill(template: str, situation: Situation, dice: Dice, people: Sequence[str]) -> str:
    """Returns the template filled from the situation, and what it leaves open (names, things) from the dice."""
    slots = dict(situation.slots, value=situation.value)
    for name in SKILLS[situation.skill].fields[template]:
        if name not in slots:
            free = THINGS if name == "thing" else [p for p in people if p not in (slots.get("n"), slots.get("m"))]
            slots[name] = dice.pick(free)
    return template.format_map(slots)


def told(situation: Situation, dice: Dice, people: Sequence[str], value: str | None = None) -> str:
    """Returns sentences that tell the situation: a statement, or a question with its answer.

    `value` replaces the true value, for pages that are wrong.
    """
    if value is not None:
        situation = Situation(situation.skill, situation.id, situation.slots, value)
    skill = SKILLS[situation.skill]
    template = dice.pick(skill.prose + skill.questions)
    text = _fill(template, situation, dice, people)
    return f"{text} {situation.answer}" if template in skill.questions else text


def asked(situation: Situation, dice: Dice, people: Sequence[str]) -> str:
    """Returns a question about the situation."""
    return _fill(dice.pick(SKILLS[situation.skill].questions), situation, dice, people)


def wrong(situation: Situation, dice: Dice) -> str:
    """Returns a value that a mistaken person might give, never the true one."""
    return dice.pick(sorted({value for value in situation.others if value != situation.value}))


def _near(value: int) -> list[str]:
    return [str(v) for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10) if v >= 0]


def _addition(dice: Dice, people: Sequence[str]) -> Roll:
    a, b = dice.number(2, 59), dice.number(2, 39)
    return (min(a, b), max(a, b)), {"a": a, "b": b}, str(a + b), _near(a + b)


def _subtraction(dice: Dice, people: Sequence[str]) -> Roll:
    b, rest = dice.number(2, 39), dice.number(1, 59)
    return (b + rest, b), {"a": b + rest, "b": b}, str(rest), _near(rest)


def _comparison(dice: Dice, people: Sequence[str]) -> Roll:
    (n, m), more = dice.sample(people, 2), dice.pick(("more", "fewer"))
    a, b = dice.sample(range(10, 100), 2)
    winner = n if (a > b) == (more == "more") else m
    return sorted((a, b)), {"n": n, "m": m, "a": a, "b": b, "more": more}, winner, (n, m)


def _largest(dice: Dice, people: Sequence[str]) -> Roll:
    numbers = dice.sample(range(10, 100), 3)
    return sorted(numbers), dict(zip("abc", numbers, strict=True)), str(max(numbers)), [str(v) for v in numbers]


def _swapped(items: Sequence[str]) -> list[str]:
    """Returns the sequence as spaced text with one pair of neighbours swapped, in every way."""
    pairs = range(len(items) - 1)
    return [" ".join([*items[:i], items[i + 1], items[i], *items[i + 2 :]]) for i in pairs]


def _sorting(dice: Dice, people: Sequence[str]) -> Roll:
    digits = [str(d) for d in dice.sample(range(10), 4)]
    return digits, {"list": " ".join(digits)}, " ".join(sorted(digits)), _swapped(sorted(digits))


def _word(dice: Dice) -> list[str]:
    """Returns the letters of a made-up word that can be spoken."""
    return [dice.pick(CONSONANTS if kind == "c" else VOWELS) for kind in dice.pick(PATTERNS)]


def _reversing(dice: Dice, people: Sequence[str]) -> Roll:
    word = _word(dice)
    back = word[::-1]
    return word, {"w": " ".join(word)}, " ".join(back), [*_swapped(back), " ".join([*back[:-1], "x"])]


def _first(dice: Dice, people: Sequence[str]) -> Roll:
    word = _word(dice)
    return word, {"w": " ".join(word)}, word[0], [*word, "x"]


def _last(dice: Dice, people: Sequence[str]) -> Roll:
    word = _word(dice)
    return word, {"w": " ".join(word)}, word[-1], [*word, "x"]


def _counting(dice: Dice, people: Sequence[str]) -> Roll:
    word = _word(dice)
    return word, {"w": " ".join(word)}, str(len(word)), _near(len(word))


def _where(dice: Dice, people: Sequence[str]) -> Roll:
    things, places, moves = dict(zip("ab", dice.sample(THINGS, 2), strict=True)), dict[str, str](), []
    for letter in dice.pick(STORIES):
        thing = things[letter]
        places[thing] = dice.pick([p for p in PLACES if p != places.get(thing)])
        moves.append((dice.pick(people), dice.pick(VERBS), thing, places[thing]))
    order = dice.pick(("ab", "ba"))
    thing, other = things[order[0]], things[order[1]]
    story = " ".join(f"{who} {verb} the {what} to the {place}." for who, verb, what, place in moves)
    slots = {"story": story, "thing": thing, "other": other, "rest": places[other]}
    key = [(who, what, place) for who, _, what, place in moves]
    return key, slots, places[thing], [*(place for *_, place in moves), *PLACES[:2]]


def _days(dice: Dice, people: Sequence[str]) -> Roll:
    n, (e, f) = dice.pick(people), dice.sample(EVENTS, 2)
    day, k, way = dice.number(0, 6), dice.number(2, 4), dice.pick(("later", "earlier"))
    value = DAYS[(day + (k if way == "later" else -k)) % 7]
    slots = {"n": n, "e": e, "f": f, "day": DAYS[day], "k": COUNTS[k - 2], "way": way}
    return tuple(slots.values()), slots, value, DAYS


def _opposites(dice: Dice, people: Sequence[str]) -> Roll:
    n, thing, pair, side = dice.pick(people), dice.pick(THINGS), dice.pick(OPPOSITES), dice.number(0, 1)
    slots = {"n": n, "thing": thing, "adj": pair[side]}
    return tuple(slots.values()), slots, pair[1 - side], [pair[side], *OPPOSITES[0], *OPPOSITES[1]]


def _if_then(dice: Dice, people: Sequence[str]) -> Roll:
    n, pair, places = dice.pick(people), dice.pick(WEATHER), dice.sample(PLACES, 2)
    (c, d), fact = dice.sample(pair, 2), dice.pick(pair)
    side = (c, d).index(fact)
    slots = {
        "n": n,
        "c": c,
        "d": d,
        "p": places[0],
        "q": places[1],
        "fact": fact,
        "other": (c, d)[1 - side],
        "rest": places[1 - side],
    }
    return (n, sorted(zip((c, d), places, strict=True))), slots, places[side], places


SKILLS = {
    "addition": Skill(
        _addition,
        ("{a} + {b} = {value}.", "{n} knows that {a} plus {b} is {value}.",
         "{n} had {a} {thing}s, got {b} more, and now has {value}."),
        ("What is {a} + {b}?", "What is {a} plus {b}?", "{n} has {a} {thing}s and gets {b} more. How many is that?"),
    ),
    "subtraction": Skill(
        _subtraction,
        ("{a} - {b} = {value}.", "{n} knows that {a} minus {b} is {value}.",
         "{n} had {a} {thing}s, gave {b} away, and now has {value}."),
        ("What is {a} - {b}?", "What is {a} minus {b}?", "{n} has {a} {thing}s and gives {b} away. How many are left?"),
    ),
    "comparison": Skill(
        _comparison,
        ("{n} has {a} {thing}s and {m} has {b}. The one with {more} is {value}.",
         "{n} found {a} {thing}s and {m} found {b}, so the one with {more} is {value}."),
        ("{n} has {a} {thing}s and {m} has {b}. Who has {more}?", "{n} found {a} {thing}s and {m} found {b}. Who found {more}?"),
    ),
    "largest": Skill(
        _largest,
        ("The largest of {a}, {b} and {c} is {value}.", "{n} has {a}, {b} and {c}, and the largest is {value}."),
        ("What is the largest of {a}, {b} and {c}?", "{n} has {a}, {b} and {c}. What is the largest?"),
    ),
    "sorting": Skill(
        _sorting,
        ("In order, {list} is {value}.", "{n} puts {list} in order, which is {value}."),
        ("What is {list} in order?", "Put {list} in order.", "{n} puts {list} in order. What is that?"),
    ),
    "reversing": Skill(
        _reversing,
        ("The word {w} backwards is {value}.", "{n} says {w} backwards, which is {value}."),
        ("What is {w} backwards?", "Say {w} backwards.", "{n} says {w} backwards. What is that?"),
    ),
    "first_letter": Skill(
        _first,
        ("The word {w} begins with {value}.", "The first letter of {w} is {value}."),
        ("What is the first letter of {w}?", "{n} says {w}. What is the first letter?"),
    ),
    "last_letter": Skill(
        _last,
        ("The word {w} ends with {value}.", "The last letter of {w} is {value}."),
        ("What is the last letter of {w}?", "{n} says {w}. What is the last letter?"),
    ),
    "counting": Skill(
        _counting,
        ("The number of letters in {w} is {value}.", "{n} counted the letters of {w}, and the number is {value}."),
        ("How many letters are in {w}?", "{n} says {w}. How many letters is that?"),
    ),
    "where": Skill(
        _where,
        ("{story} So the {thing} is in the {value} and the {other} is in the {rest}.",
         "{story} Where is the {thing}? In the {value}. Where is the {other}? In the {rest}."),
        ("{story} Where is the {thing}?", "{story} In which place is the {thing}?"),
        "In the {value}.",
    ),
    "days": Skill(
        _days,
        ("{n} has a {e} on {day} and a {f} {k} days {way}, on {value}.",
         "The {e} of {n} is on {day}. The {f} is {k} days {way}, on {value}."),
        ("{n} has a {e} on {day} and a {f} {k} days {way}. When is the {f}?",
         "The {e} of {n} is on {day}. The {f} is {k} days {way}. When is that?"),
        "On {value}.",
    ),
    "opposites": Skill(
        _opposites,
        ("The {thing} of {n} is {adj}. The opposite is {value}.", "{n} said that the {thing} is {adj}, the opposite of {value}."),
        ("The {thing} of {n} is {adj}. What is the opposite?", "{n} said that the {thing} is {adj}. What would be the opposite?"),
    ),
    "if_then": Skill(
        _if_then,
        (
            "If it is {c}, {n} goes to the {p}. If it is {d}, {n} goes to the {q}. It is {fact}, so {n} goes to the {value}. "
            "It is {other}, so {n} goes to the {rest}.",
            "{n} goes to the {p} if it is {c}, and to the {q} if it is {d}. It is {fact}, so {n} goes to the {value}. "
            "It is {other}, so {n} goes to the {rest}.",
        ),
        (
            "If it is {c}, {n} goes to the {p}. If it is {d}, {n} goes to the {q}. It is {fact}. Where does {n} go?",
            "{n} goes to the {p} if it is {c}, and to the {q} if it is {d}. It is {fact}. Where does {n} go?",
        ),
        "To the {value}.",
    ),
}  # fmt: skip
DEMO_SKILLS = ("largest", "sorting", "reversing", "last_letter", "where", "days", "opposites", "if_then")
