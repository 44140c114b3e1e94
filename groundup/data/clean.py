"""Cleaning: one Unicode form, plain spaces, one line a paragraph, placeholders for private data, no lines of furniture."""

import ipaddress
import itertools
import re
import unicodedata
from collections.abc import Collection, Sequence

from groundup.data.config import CleanConfig
from groundup.data.extract import Block
from groundup.data.mojibake import mend

__all__ = ["clean", "line_key", "normalise", "placeholders", "remove_lines", "unwrap"]

SPACES = re.compile("[\t\x0b\x0c\x1f\xa0\u1680\u2000-\u200a\u202f\u205f\u3000 ]+")
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1e\x7f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff\ufffd]")
BREAKS = re.compile("\r\n?|\x85|\u2028|\u2029")
EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![\w-])")
PHONE = re.compile(
    r"""[+(\d](?<![\w.+(/-].)(?:                                     # its first character, and what doesn't stand before it
        (?<=\+)\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{1,8}){2,5}   # +49 (0) 30 1234-567
      | (?:(?<=1)[ .-]\(?[2-9]\d\d|(?<=\()\d{2,4}|(?<=[2-9])\d\d)(?:[ .-]|\)[ ]?)\d{3}[ .-]\d{4}   # 1-800-555-0199, (415) 555-2671
      | (?:(?<=[Tt]el[.:][ ].)|(?<=[Ff]ax[.:][ ].)|(?<=hone:[ ].))[\d ()/.-]{7,17}\d               # Tel. 030/1234 567
      | (?:(?<=[Cc]all[ ].)|(?<=hone[ ].)|(?<=hone:[ ].))\d\d-\d{4}
      | (?<=5)55[ -]01\d\d
    )(?![\w-]|\.\d)""",
    re.VERBOSE,
)
IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IP6 = re.compile(r"(?<![\w:.-])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])")
CARD = re.compile(
    r"(?<![\w.-])(?:(?:4\d|5[1-5]|2[2-7]|6[05])\d\d([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\w-]|\.\d)"
)
SMALL_PART = 64
MAYBE_PHONE, MAYBE_IP = (
    re.compile(r"\d{3}[ ./)-]|\+\d"),
    re.compile(r"\d\.\d+\.\d"),
)  # cheap, and never wrong about "no"
MAYBE_CARD, MAYBE_IP6 = re.compile(r"\d{4}[ -]?\d{4,6}[ -]?\d{4}"), re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]")
CONSENT = re.compile(
    r"\b(?:we|this (?:web)?site|our (?:web)?site|our partners)\b[^.]{0,60}\bcookies\b|\b(?:accept|reject|allow) (?:all )?cookies\b|"
    r"\bcookie (?:policy|settings|preferences|notice)\b|\b(?:please )?(?:enable|turn on) javascript\b|"
    r"\bsubscribe to our newsletter\b|\ball rights reserved\b|^(?:advertisement|sponsored|skip to (?:main )?content|share this(?: page)?)$",
    re.IGNORECASE,
)
CONSENT_WORDS = (
    "cookie",
    "javascript",
    "newsletter",
    "all rights reserved",
    "advertisement",
    "sponsored",
    "skip to",
    "share this",
)
CONSENT_LENGTH = 240  # a longer line is prose that talks about such things


def normalise(text: str) -> str:
    """Returns the text in Unicode's composed form (NFC), with \\n for line ends and without invisible characters."""
    return INVISIBLE.sub("", BREAKS.sub("\n", unicodedata.normalize("NFC", text)))


def unwrap(paragraph: str, width: int) -> str:
    """Returns a paragraph whose lines were broken at `width` as one line; verse, lists and tables stay as they are.

    A line was broken by the width if the next line's first word wouldn't have fitted on it.
    """
    lines = paragraph.split("\n")
    if len(lines) < 2 or width < 40:
        return paragraph
    full = sum(len(a) + 1 + len(b.split(None, 1)[0]) > width - 4 for a, b in itertools.pairwise(lines) if b.strip())
    return " ".join(line.strip() for line in lines) if full >= 0.8 * (len(lines) - 1) else paragraph


def prose(text: str, unwrapped: bool) -> str:
    """Returns prose with single spaces, each paragraph (and each line that isn't a wrapped one) on a line of its own."""
    paragraphs = ["\n".join(map(str.strip, p.split("\n"))) for p in re.split(r"\n[^\S\n]*\n", SPACES.sub(" ", text))]
    if unwrapped:
        lengths = sorted(len(line) for p in paragraphs for line in p.split("\n") if line)
        width = lengths[int(len(lengths) * 0.98)] if lengths else 0
        if width <= 100:  # else lines aren't wrapped, or not all of them
            paragraphs = [unwrap(p.strip("\n"), width) for p in paragraphs]
    return "\n".join(line for p in paragraphs for line in p.split("\n") if line not in ("", "-", "•", "*", "·", "|"))


def source_code(text: str) -> str:
    """Returns code with its indentation, without spaces at line ends and with at most two empty lines in a row."""
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{4,}", "\n\n\n", lines).strip("\n")


def _phone(match: re.Match[str]) -> str:
    """Returns <PHONE> for a telephone number: with a country's code it has so many digits. Source: ITU-T E.164."""
    found = match[0]
    least, most = (11, 13) if found[1:].isdigit() else (9, 15)
    return "<PHONE>" if found[0] != "+" or least <= sum(map(str.isdigit, found)) <= most else found


def _address(match: re.Match[str]) -> str:
    """Returns <IP> for a public address. Local ones (127.0.0.1) stay, and version numbers, whose parts are small (3.7.14.1)."""
    parts = [int(part) for part in match[0].split(".")]
    if max(parts) > 255 or max(parts) < SMALL_PART:
        return match[0]
    return "<IP>" if ipaddress.IPv4Address(bytes(parts)).is_global else match[0]


def _address6(match: re.Match[str]) -> str:
    """Returns <IP> for a public address of IP version 6."""
    try:
        return "<IP>" if ipaddress.IPv6Address(match[0]).is_global else match[0]
    except ValueError:
        return match[0]


def _card(match: re.Match[str]) -> str:
    """Returns <CARD> for a number whose check digit is right. Source: ISO/IEC 7812-1, annex B (Luhn)."""
    digits = [int(c) for c in match[0] if c.isdigit()]
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return "<CARD>" if total % 10 == 0 else match[0]


# Placeholder, where it is looked for (a cheap pattern that is never wrong about "no"), what it replaces and by what.
PRIVATE = (
    ("<CARD>", MAYBE_CARD, CARD, _card),
    ("<PHONE>", MAYBE_PHONE, PHONE, _phone),
    ("<IP>", MAYBE_IP, IP, _address),
    ("<IP>", MAYBE_IP6, IP6, _address6),
)


def placeholders(text: str, code: bool = False) -> tuple[str, int]:
    """Returns the text with <EMAIL>, <CARD>, <PHONE> and <IP> for private data, and how many were put in. In code only e-mail goes."""
    text, count = EMAIL.subn("<EMAIL>", text) if "@" in text else (text, 0)
    for mark, maybe, pattern, instead in () if code else PRIVATE:
        if maybe.search(text):
            before = text.count(mark)
            text = pattern.sub(instead, text)
            count += text.count(mark) - before
    return text, count


def clean(blocks: Sequence[Block], kind: str, config: CleanConfig) -> tuple[str, str, int]:
    """Returns the clean text of a document's blocks, that of its prose alone, and the number of placeholders in it."""
    parts: list[tuple[bool, str]] = []
    count = 0
    for block in blocks:
        code = block.kind == "code"
        text = normalise(mend(block.text) if config.mend and not code else block.text)
        text = source_code(text) if code else prose(text, config.unwrap and kind in ("text", "book"))
        if config.placeholders:
            text, found = placeholders(text, code)
            count += found
        if text:
            parts.append((code, text))
    return "\n".join(text for _, text in parts), "\n".join(text for code, text in parts if not code), count


def line_key(line: str) -> str:
    """Returns what makes two lines the same piece of furniture; "" for lines that are never furniture (no word in them)."""
    key = line.strip().lower()
    return key if any(c.isalpha() for c in key) else ""


def remove_lines(text: str, edge: Collection[str], anywhere: Collection[str]) -> tuple[str, int]:
    """Returns a page's text without its furniture, and how many lines went.

    Keys in `anywhere` and consent lines go wherever they stand, keys in `edge` only from the page's beginning and end: a heading
    that many pages share (\"Description\") stays, a menu goes.
    """
    before, lowered = text.split("\n"), text.lower()
    suspect = any(word in lowered for word in CONSENT_WORDS)
    lines = [
        x
        for x in before
        if line_key(x) not in anywhere and not (suspect and len(x) <= CONSENT_LENGTH and CONSENT.search(x))
    ]
    start, stop = 0, len(lines)
    while start < stop and line_key(lines[start]) in edge:
        start += 1
    while stop > start and line_key(lines[stop - 1]) in edge:
        stop -= 1
    return "\n".join(lines[start:stop]).strip("\n"), len(before) - (stop - start)
