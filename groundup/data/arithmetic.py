"""Claims about sums that a text makes, and whether they are true: a text that can't count teaches no counting.

Equal to: groundup.data.plain.false_arithmetic
"""

import re

from groundup.data.config import WebConfig
from groundup.data.extract import Drop

__all__ = ["arithmetic_claims", "false_arithmetic"]

NUMBER_WORDS = {word: n for n, word in enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
     "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"))}  # fmt: skip
OPERATORS = {"+": "+", "plus": "+", "-": "-", "−": "-", "minus": "-", "*": "*", "×": "*", "times": "*"}
_NUMBER = rf"(?:\d{{1,12}}|{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})"
_OPERATOR = r"(?:\s*[+*×−-]\s*|\s+(?:plus|minus|times)\s+)"
SIGN = re.compile(r"[=+×*−]|\w\s*-\s*\w|\b(?:plus|minus|times)\b", re.IGNORECASE)  # no claim is without one
_END = r"(?![\w^]|[.,:]\d|\s*[+*×/−=-]\s*\d|\s+(?:plus|minus|times|more|less)\b)"  # the claim doesn't go on
CLAIM = re.compile(  # 3 + 4 = 8; three plus four is eight; What is 3 plus 4? It is 8
    rf"(?<![\w.,+*×/=^-])(?<![+*×/=-]\s)({_NUMBER}(?:{_OPERATOR}{_NUMBER}){{1,4}})"
    rf"(?:\s*=\s*|\s+(?:is|equals|makes|gives|are)\s+|\?\s+(?:(?:It|That|The answer) is\s+)?)(-?{_NUMBER}){_END}",
    re.IGNORECASE,
)
_CHANGE = "got|gets|found|finds|bought|buys|gave|gives|lost|loses|ate|eats|sold|sells"
STORY = re.compile(  # had 5 cups, got 3 more, and now has 9; has 5 cups and gives 3 away. How many are left? It is 1
    rf"\b(?:has|had)\s+({_NUMBER})\s+\w+(?:,|\s+and|\.\s+\w+)\s+({_CHANGE})\s+({_NUMBER})"
    rf"(?:\s+(?:more|away|of them))?(?:,?\s+and\s+now\s+has|\.\s+How many[\w\s]{{2,30}}\?(?:\s+It is|\s+There are)?)\s+({_NUMBER}){_END}",
    re.IGNORECASE,
)
GAINS = ("got", "gets", "found", "finds", "bought", "buys")


def _number(word: str) -> int:
    sign, word = (-1, word[1:]) if word.startswith("-") else (1, word)
    return sign * (int(word) if word.isdigit() else NUMBER_WORDS[word.lower()])


def arithmetic_claims(text: str) -> list[tuple[str, bool]]:
    """Returns the checkable claims of a text ("3 + 4 = 8", "three plus four is seven", small stories) and whether each is true."""
    claims: list[tuple[str, bool]] = []
    for match in STORY.finditer(text):
        change = _number(match[3]) if match[2].lower() in GAINS else -_number(match[3])
        claims.append((match[0], _number(match[1]) + change == _number(match[4])))
    if not SIGN.search(text):  # spares most texts the slower pattern
        return claims
    for match in CLAIM.finditer(text):
        parts = re.findall(r"\w+|[+*×−-]", match[1])
        terms, signs = [_number(parts[0])], ["+"]
        for operator, number in zip(parts[1::2], parts[2::2]):
            if OPERATORS[operator.lower()] == "*":
                terms[-1] *= _number(number)
            else:
                terms.append(_number(number))
                signs.append(OPERATORS[operator.lower()])
        value = sum(term if sign == "+" else -term for term, sign in zip(terms, signs))
        claims.append((match[0], value == _number(match[2])))
    return claims


def false_arithmetic(text: str, config: WebConfig) -> Drop | None:
    """Returns a drop for a text of which more than a share of the checkable arithmetic is wrong."""
    claims = arithmetic_claims(text)
    if len(claims) < config.min_claims:
        return None
    share = sum(not true for _, true in claims) / len(claims)
    return (
        Drop("quality", "false_arithmetic", share, config.max_false_arithmetic)
        if share > config.max_false_arithmetic
        else None
    )
