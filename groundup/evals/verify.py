"""Checks answers by solving the question from its words alone: it shares no line of code with the world that asks them."""

import re
from collections.abc import Callable

from groundup.base.records import Problem

__all__ = ["SOLVERS", "bare", "solve", "verify"]

WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
NUMBER_WORDS = {
    word: n
    for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}
ANTONYMS = {
    "big": "small", "hot": "cold", "fast": "slow", "heavy": "light", "wet": "dry", "new": "old", "open": "closed", "full": "empty",
    "hard": "soft", "clean": "dirty", "long": "short", "thick": "thin", "wide": "narrow", "bright": "dark", "rough": "smooth",
    "strong": "weak", "loud": "quiet", "tight": "loose",
}  # fmt: skip
ANTONYMS |= {right: left for left, right in ANTONYMS.items()}
SPELLED = r"\b[a-z](?: [a-z])+\b"  # letters with spaces between them
LEAD_IN = re.compile(
    r"^(?:(?:it|that|this) (?:is|was)|in|to|on|at)\b\s*(?:(?:in|to|on|at)\b\s*)?(?:the\b\s*)?", re.IGNORECASE
)


def _numbers(question: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", question)]


def _letters(question: str) -> list[str] | None:
    """Returns the letters of the one spelled word (the article "a" and a lone letter are none)."""
    found = re.search(SPELLED, question)
    return found[0].split() if found else None


def addition(question: str) -> str | None:
    """Returns the sum that is asked for: an operator, or someone who gets more."""
    if re.search(r"\d \+ \d|\d plus \d|\band gets \d+ more\b", question):
        return str(sum(_numbers(question)))
    return None


def subtraction(question: str) -> str | None:
    """Returns the difference that is asked for: an operator, or someone who gives away."""
    if re.search(r"\d - \d|\d minus \d|\band gives \d+ away\b", question):
        first, second = _numbers(question)
        return str(first - second)
    return None


def comparison(question: str) -> str | None:
    """Returns the name of the one who has more, or fewer."""
    found = re.fullmatch(r"(\w+) \w+ (\d+) \w+ and (\w+) \w+ (\d+)\. Who \w+ (more|fewer)\?", question)
    if not found:
        return None
    amounts = {found[1]: int(found[2]), found[3]: int(found[4])}
    return (max if found[5] == "more" else min)(amounts, key=lambda name: amounts[name])


def largest(question: str) -> str | None:
    """Returns the largest of the numbers."""
    return str(max(_numbers(question))) if re.search(r"\blargest\b", question) and _numbers(question) else None


def sorting(question: str) -> str | None:
    """Returns the numbers from small to large."""
    if re.search(r"\bin order\b|\bsort\b", question) and (numbers := _numbers(question)):
        return " ".join(map(str, sorted(numbers)))
    return None


def reversing(question: str) -> str | None:
    """Returns the spelled letters from the last to the first."""
    letters = _letters(question)
    return " ".join(letters[::-1]) if letters and re.search(r"\bbackwards\b", question) else None


def first_letter(question: str) -> str | None:
    """Returns the first of the spelled letters."""
    letters = _letters(question)
    return letters[0] if letters and re.search(r"\bfirst letter\b", question) else None


def last_letter(question: str) -> str | None:
    """Returns the last of the spelled letters."""
    letters = _letters(question)
    return letters[-1] if letters and re.search(r"\blast letter\b", question) else None


def counting(question: str) -> str | None:
    """Returns how many letters are spelled."""
    letters = _letters(question)
    return str(len(letters)) if letters and re.search(r"\bhow many letters\b", question, re.IGNORECASE) else None


def where(question: str) -> str | None:
    """Returns the place to which the thing was brought last."""
    sought = re.search(r"(?:Where|In which place) is the (\w+)\?$", question)
    moves = re.findall(r"\w+ (?:took|carried|moved|brought) the (\w+) to the (\w+)\.", question)
    places = [place for thing, place in moves if sought and thing == sought[1]]
    return places[-1] if places else None


def days(question: str) -> str | None:
    """Returns the day of the week so many days later or earlier."""
    found = re.search(r"\bon (\w+day)\b.* (\w+) days (later|earlier)\. When\b", question)
    if not found or found[1].lower() not in WEEK or found[2] not in NUMBER_WORDS:
        return None
    shift = NUMBER_WORDS[found[2]] * (1 if found[3] == "later" else -1)
    return WEEK[(WEEK.index(found[1].lower()) + shift) % 7].capitalize()


def opposites(question: str) -> str | None:
    """Returns the opposite of the adjective."""
    found = re.search(r"\bis (\w+)\. What (?:is|would be) the opposite\?$", question)
    return ANTONYMS.get(found[1]) if found else None


def if_then(question: str) -> str | None:
    """Returns where someone goes, by the rule whose condition holds."""
    sentences = [s.strip() for s in re.split(r"[.?]", question) if s.strip()]
    if len(sentences) < 3 or not re.match(r"Where does \w+ go$", sentences[-1]):
        return None
    fact, rules = sentences[-2].lower(), " ".join(sentences[:-2])
    places = {
        condition.lower(): place for condition, place in re.findall(r"[Ii]f ([^,]+), \w+ goes to the (\w+)", rules)
    }
    if not places:  # the other order: "Mia goes to the park if it rains, and to the barn if it is dry"
        places = {condition.lower(): place for place, condition in re.findall(r"to the (\w+) if ([^,]+)", rules)}
    return places.get(fact)


SOLVERS: dict[str, Callable[[str], str | None]] = {
    "addition": addition, "subtraction": subtraction, "comparison": comparison, "largest": largest, "sorting": sorting,
    "reversing": reversing, "first_letter": first_letter, "last_letter": last_letter, "counting": counting, "where": where,
    "days": days, "opposites": opposites, "if_then": if_then,
}  # fmt: skip


def bare(answer: str) -> str:
    """Returns what an answer says without its polite frame: "It is 19." -> "19", "In the attic." -> "attic"."""
    text = " ".join(answer.split())
    return LEAD_IN.sub("", text[:-1] if text.endswith(".") else text, count=1)


def solve(question: str, skill: str | None = None) -> str | None:
    """Returns the bare answer to a question, or None if no solver (or not that skill's) understands it."""
    solvers = [SOLVERS[skill]] if skill in SOLVERS else list(SOLVERS.values())
    return next((found for solver in solvers if (found := solver(question)) is not None), None)


def verify(problem: Problem | str, answer: str) -> bool:
    """Returns whether the answer is right: the bare value, or a short sentence around it, and nothing else.

    A question that no solver understands is judged by the problem's own answer.
    """
    question, skill = (problem, None) if isinstance(problem, str) else (problem.question, problem.skill)
    value = solve(question, skill)
    if value is None and not isinstance(problem, str):
        value = bare(problem.answer)
    return value is not None and bare(answer) == value
