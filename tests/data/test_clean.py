"""Cleaning: what changes, and what must not."""

import bz2
from pathlib import Path

import pytest

from groundup.data.clean import clean, line_key, normalise, placeholders, prose, remove_lines, source_code
from groundup.data.config import CleanConfig
from groundup.data.extract import Block
from groundup.data.mojibake import mend


def test_unicode_and_spaces() -> None:
    assert normalise("cafe\u0301\u200b\r\nnext\u2028last\x07\ufeff") == "café\nnext\nlast"
    assert prose("Two   words\u00a0here. \n\n\n  Next\tparagraph. ", False) == "Two words here.\nNext paragraph."
    assert prose("- item\n-\n•\n- other", False) == "- item\n- other"


def test_code_keeps_its_spaces() -> None:
    code = "def f(x):\n    return  x   # two\n\n\n\n\n\nf(1)   "
    assert source_code(code) == "def f(x):\n    return  x   # two\n\n\nf(1)"
    text, only_prose, _ = clean([Block("prose", "Look:   here"), Block("code", "a  =  1")], "html", CleanConfig())
    assert text == "Look: here\na  =  1"
    assert only_prose == "Look: here"


def test_wrapped_paragraphs_become_one_line_and_verse_stays() -> None:
    words = [
        "It",
        "was",
        "the",
        "best",
        "of",
        "times",
        "and",
        "it",
        "was",
        "the",
        "worst",
        "of",
        "times",
        "in",
        "the",
        "old",
        "town",
        "by",
        "the",
        "sea",
        "where",
        "nobody",
        "had",
        "ever",
        "been",
        "before",
    ]
    wrapped, line = [], ""
    for word in words * 4:
        if len(line) + 1 + len(word) > 60:
            wrapped.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    wrapped.append(line)
    verse = "The sea is wide,\nthe night is long,\nand no one sings\nthe sailors' song."
    assert prose("\n".join(wrapped) + "\n\n" + verse, True) == " ".join(words * 4) + "\n" + verse
    assert prose("\n".join(wrapped), False) == "\n".join(wrapped)


@pytest.mark.parametrize(("text", "expected"), [
    ("Write to ann.lee+x@mail.example.org now.", "Write to <EMAIL> now."),
    ("Call +1 (555) 012-3456 or 555-867-5309.", "Call <PHONE> or <PHONE>."),
    ("Call +49 30 1234 5678 today", "Call <PHONE> today"),
    ("+33 1 42 68 53 00, +44 (0)20 7946 0958, 1-800-555-0199, (415) 555-2671", "<PHONE>, <PHONE>, <PHONE>, <PHONE>"),
    ("Tel. 030/1234 567 or tel: 020 7946 0958, phone 555-0123", "Tel. <PHONE> or tel: <PHONE>, phone <PHONE>"),
    ("+10 20 30 40 makes 100 200 3000 or 2018-2019-2020", "+10 20 30 40 makes 100 200 3000 or 2018-2019-2020"),
    ("978-3-16-148410-0, ISBN 0-306-40615-2, 2026-11-01 10:30", "978-3-16-148410-0, ISBN 0-306-40615-2, 2026-11-01 10:30"),
    ("17-May-2018::18:30:19 from 2a00:1450:4001:81b::200e", "17-May-2018::18:30:19 from <IP>"),
    ("From 93.184.216.34, not 127.0.0.1 or 192.168.0.1.", "From <IP>, not 127.0.0.1 or 192.168.0.1."),
    ("Version 3.7.14.1 of 2012-10-04, section 5.14.2.", "Version 3.7.14.1 of 2012-10-04, section 5.14.2."),
    ("Call +493012345678, not +9223372036854775807", "Call <PHONE>, not +9223372036854775807"),
    ("3 + 4 = 7, 100 - 20 = 80, 1234567 and 12 345 678", "3 + 4 = 7, 100 - 20 = 80, 1234567 and 12 345 678"),
    ("@decorator and a@b and 999.999.999.999", "@decorator and a@b and 999.999.999.999"),
])  # fmt: skip
def test_placeholders(text: str, expected: str) -> None:
    replaced, count = placeholders(text)
    assert replaced == expected
    assert count == sum(expected.count(p) for p in ("<EMAIL>", "<PHONE>", "<IP>"))


def test_placeholders_in_code_are_for_addresses_only() -> None:
    assert placeholders("AUTHOR = 'a@b.org'  # 555-867-5309", code=True) == ("AUTHOR = '<EMAIL>'  # 555-867-5309", 1)


def test_furniture_goes_from_the_edges_and_adverts_from_everywhere() -> None:
    page = "Home | News\nTitle here\nDescription\nA sentence.\nBUY NOW\nDescription\nAnother sentence.\n"
    page += "This site uses cookies. Accept all cookies?\nHome | News"
    text, removed = remove_lines(page, {"home | news", "description"}, {"buy now"})
    assert text == "Title here\nDescription\nA sentence.\nDescription\nAnother sentence."
    assert removed == 4
    assert line_key(" 12 | 34 ") == ""


def test_prose_about_cookies_stays() -> None:
    line = (
        "Django sessions keep a random identifier in the browser's cookies, so that the server knows the user again at the next request. "
        * 2
    )
    assert remove_lines(line.strip(), set(), set()) == (line.strip(), 0)


@pytest.mark.parametrize(("text", "expected"), [
    ("pay with 4111 1111 1111 1111 or 5500-0000-0000-0004", "pay with <CARD> or <CARD>"),
    ("378282246310005 is one of American Express's for tests", "<CARD> is one of American Express's for tests"),
    ("4111 1111 1111 1112 has a wrong check digit", "4111 1111 1111 1112 has a wrong check digit"),
    ("ISBN 978-0-306-40615-7, part 1234 5678 9012 3456", "ISBN 978-0-306-40615-7, part 1234 5678 9012 3456"),
    ("from 2606:4700:4700::1111 and 2001:4860:4860:0:0:0:0:8888", "from <IP> and <IP>"),
    ("2001:db8::1 is an example, 12:30:45 a time, 2024:01:02 a date", "2001:db8::1 is an example, 12:30:45 a time, 2024:01:02 a date"),
])  # fmt: skip
def test_cards_and_long_addresses(text: str, expected: str) -> None:
    assert placeholders(text) == (expected, expected.count("<"))
    assert placeholders(text, code=True) == (text, 0)


RIGHT = (
    "Die Bäume blühen, und „Vögel“ singen – schön…", "Café à Genève, « naïve », l’été déjà", "Año de 1999: ¿qué pasó en España?",
    "Българският език е от славянските", "Здравствуйте, мир", "Ελληνικά κείμενα με τόνους", "日本語の文章です。",
    "São João, ÃO, Ângela", "— so he said… “yes”", "naïve 😀 text", "“CAFÉ” and RÉSUMÉ’s",
)  # fmt: skip


def wrongly(text: str) -> str:
    """The text as UTF-8 looks through Windows-1252."""
    return "".join(
        bytes([byte]).decode("cp1252") if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte)
        for byte in text.encode()
    )


def test_wrongly_decoded_text_is_mended() -> None:
    assert mend("donâ€™t, cafÃ©, 20Â°C, â€œyesâ€\x9d â€“ no") == "don’t, café, 20°C, “yes” – no"
    assert mend("right é, wrong Ã©\nplain") == "right é, wrong é\nplain"
    for text in RIGHT[:7] + RIGHT[8:10]:
        assert mend(wrongly(text)) == text
    assert mend(wrongly(wrongly("naïve café – l’été"))) == "naïve café – l’été"


def test_right_text_stays_as_it_is(data_dir: Path) -> None:
    for text in RIGHT:
        assert mend(text) == text
    real = (data_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")
    with bz2.open(data_dir / "raw" / "bgwiki-excerpt.xml.bz2", "rt", encoding="utf-16") as file:
        foreign = file.read(300_000)
    for text in (real, foreign):
        lines = text.split("\n")
        changed = [(a, b) for a, b in zip(lines, mend(text).split("\n")) if a != b]
        assert not changed
