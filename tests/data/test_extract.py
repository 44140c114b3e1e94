"""Markup becomes text: menus, templates, licences and markers go, words stay."""

from pathlib import Path

import pytest

from groundup.data.extract import extract, naive
from groundup.data.formats import Record
from groundup.data.text import books, chapters

PAGE = """<!DOCTYPE html><html lang="en"><head><title>Bread | Example</title><link rel="license" href="https://cc.example/by">
<style>p{color:red}</style><script>track()</script></head><body>
<div id="cookie-consent">We use cookies. Accept all</div><nav class="menu"><ul><li>Home</li><li>Shop</li></ul></nav>
<main><h1>Bread</h1><p>Bread is made of flour &amp; water.</p><ul><li>Mix it.</li><li>Bake it.</li></ul>
<pre>if oven &lt; 200:
    wait()</pre><p>Then <b>eat</b> it.</p></main>
<aside class="sidebar ad">Buy two ovens!</aside><footer>Copyright. All rights reserved.</footer></body></html>"""


def html(page: str | bytes, **meta: str) -> Record:
    return Record("p:1", "html", page.encode() if isinstance(page, str) else page, "p", meta=dict(meta))


def wiki(text: str, **meta: str) -> str:
    return extract(
        Record("w:1", "wiki", text, "w", meta=dict(meta), namespaces=frozenset({"File", "Category", "Bild"}))
    ).text


def test_a_page_is_its_content_with_lists_and_code() -> None:
    found = extract(html(PAGE))
    assert [b.kind for b in found.blocks] == ["prose", "code", "prose"]
    assert found.blocks[1].text == "if oven < 200:\n    wait()"
    for word in ("Bread is made of flour & water.", "- Mix it.", "- Bake it.", "Then eat it."):
        assert word in found.text
    for word in ("cookies", "Home", "ovens", "Copyright", "track", "color", "<"):
        assert word not in found.text.replace("oven < 200", "")
    assert found.meta == {"title": "Bread | Example", "lang": "en", "licence": "https://cc.example/by"}
    assert found.headings == {"Bread"}


def test_the_naive_text_keeps_everything_that_is_seen() -> None:
    text = naive(html(PAGE))
    assert "We use cookies" in text
    assert "Home" in text
    assert "track" not in text


def test_a_page_that_nests_without_end_is_left_alone() -> None:
    drop = extract(html("<main>" + "<div>" * 20_000 + "hello" + "</div>" * 20_000)).drop
    assert drop is not None
    assert (drop.rule, drop.value) == ("too_deep", 20_000)
    assert extract(html("<main>" + "<div>hello there</div>" * 5_000)).drop is None


def test_pages_in_old_encodings_are_repaired() -> None:
    page = "<html><head><meta charset='{}'></head><body><main><p>Grüße aus Köln, schöne Straßen und viele Bäume.</p></main></body></html>"
    latin, unnamed = page.format("iso-8859-1").encode("latin-1"), page.format("").encode("latin-1")
    assert "Grüße aus Köln" in extract(html(latin)).text
    assert "Grüße aus Köln" in extract(html(unnamed, charset="windows-1252")).text
    assert "Gr" in extract(html(unnamed, charset="no-such-encoding")).text


def test_wiki_text_without_templates_tables_references_and_files() -> None:
    text = wiki(
        "{{Infobox|a={{b}}}}'''Ada''' ([[1815]]–1852; {{lang-fr|Ada}}) was a [[mathematician|writer of programs]].<ref>Book</ref>\n"
        "[[File:Ada.jpg|thumb|A picture of [[Ada]]]]\n{| class=x\n|-\n| cell\n|}\n== Life ==\n"
        "She lived in [http://l.example London], &amp; wrote.\n"
        "* first\n* second\n<!-- note -->\n=== Empty ===\n== See also ==\n* [[Babbage]]\n== References ==\n{{Reflist}}\n[[Category:People]]"
    )
    assert "Ada (1815–1852; Ada) was a writer of programs." in text
    assert "She lived in London, & wrote." in text
    assert "- first" in " ".join(text.split())
    assert "Life" in text
    for word in (
        "Infobox",
        "Book",
        "picture",
        "cell",
        "Empty",
        "See also",
        "Babbage",
        "References",
        "Category",
        "note",
        "'''",
        "[[",
        "\x01",
    ):
        assert word not in text


def test_wiki_templates_that_stand_for_words_are_read() -> None:
    assert wiki("It is {{convert|3|km|mi}} long.") == "It is 3 km long."
    assert wiki("From {{convert|3|-|5|km2}} wide.") == "From 3 - 5 km² wide."
    assert wiki("Born {{circa|1500}} in {{nowrap|New York}}.") == "Born c. 1500 in New York."
    assert (
        wiki("Algeria ({{IPAc-en|x}}; Dzayer), with an area of {{x}}, is large ({{y}}).")
        == "Algeria (Dzayer), with an area of, is large."
    )


def test_wiki_markup_that_is_not_well_formed_hides_nothing_and_leaves_nothing() -> None:
    """Articles on Wikipedia have bold text that never ends, references with stray quotes and tables with broken attributes."""
    assert wiki("He 'said.<ref>''Comm.'' in Aristotle'', ''III</ref> She left.") == "He 'said. She left."
    assert (
        wiki("The ''Iliad'''s hero, '''Ada''' and '''''both''''', don't.") == "The Iliad's hero, Ada and both, don't."
    )
    assert wiki('Before.\n{| class="a" b;"\n! x\n|-\n| y\n|}\nAfter.').split() == ["Before.", "After."]
    assert wiki('Before.\n{| class="a" b;"\n| y\nAfter.\n== Next ==\nMore.').split() == [
        "Before.",
        "After.",
        "Next",
        "More.",
    ]
    half = "| style=x | '''{{bar|1}}\n|-\n| \"z\n|}\n== Next ==\nMore ''text."
    assert wiki('Before.\n{| class="a" b;"\n' + half).split() == ["Before.", "Next", "More", "text."]
    assert wiki("The vowel {{angbr|{{IPA|a}}}}, (also {{x}}) or /{{IPA|æ}}/.") == "The vowel ⟨a⟩, (also) or /æ/."


def test_redirects_and_talk_pages_say_why_they_leave() -> None:
    for meta, rule in (({"redirect": "New"}, "redirect"), ({"namespace": "1"}, "namespace")):
        drop = extract(Record("w:1", "wiki", "text", "w", meta=meta)).drop
        assert drop is not None
        assert drop[:2] == ("extract", rule)


def test_generated_and_minified_code_is_told_from_code() -> None:
    def code(text: str) -> tuple[str, dict[str, str]]:
        found = extract(Record("c.py", "code", text.encode(), "c"))
        return (found.drop.rule if found.drop else ""), found.meta

    assert code("# SPDX-License-Identifier: MIT\nx = 1\n") == ("", {"licence": "MIT"})
    assert code("# Generated by protoc. DO NOT EDIT\nx = 1\n")[0] == "generated"
    for said in ("# This file was generated by a tool.", "// Auto generated by a script", "/* generated by bison */"):
        assert code(f"{said}\nx = 1\n")[0] == "generated"
    assert code('"""Parser for the tables generated by pgen."""\nx = 1\n')[0] == ""
    assert code("var a=1;" * 400)[0] == "minified"


def test_fenced_code_in_markdown_is_code() -> None:
    found = extract(Record("a.md", "markdown", "Text   here.\n\n```py\nx  =  1\n```\nMore.", "a"))
    assert [b.kind for b in found.blocks] == ["prose", "code", "prose"]
    assert "x  =  1" in found.blocks[1].text


def test_real_books_lose_their_licence(data_dir: Path) -> None:
    text = (data_dir / "raw" / "gutenberg-books.txt").read_text(encoding="utf-8")
    found = list(books(text))
    assert [book.title for book in found] == [
        "The Adventures of Sherlock Holmes",
        "History of the United States",
        "Manual of Surgery",
    ]
    assert [book.author for book in found][:2] == ["Sir Arthur Conan Doyle", "Charles A. Beard and Mary R. Beard"]
    assert (found[0].lang, found[0].date) == ("en", "1999")
    assert len(chapters(found[1].text)) >= 25
    for body in (book.text for book in found):
        assert "*** END" not in body
        assert "START OF" not in body
    assert sum("Project Gutenberg" in body for body in (book.text for book in found)) == 0


def test_another_extractor_finds_the_same_content() -> None:
    body = " ".join(f"Sentence {n} of the article says what the people of the town have done." for n in range(20))
    page = f"<html><body><nav><a href='/'>Home</a> <a href='/b'>Shop</a></nav><main><h1>News</h1><p>{body}</p></main></body></html>"
    pytest.importorskip("trafilatura", reason="trafilatura (extra web)")
    record = Record("a", "html", page.encode(), "s")
    for name in ("resiliparse", "trafilatura"):
        text = extract(record, name).text
        assert body in text
        assert "Shop" not in text


def test_a_page_without_markup_is_taken_as_it_is() -> None:
    record = Record("a", "html", b"x < y and y > z\nmore", "s", bare=True)
    assert extract(record).text == naive(record) == "x < y and y > z\nmore"


def test_templates_that_stand_for_words() -> None:
    text = "'''A''' ({{lang-ru|Анна}}; {{OldStyleDate|February 2|1905|January 20}} – 1982) {{snd}} {{frac|1|2}} of {{chem|H|2|O}},"
    text += " {{as of|2014|lc=y}}, {{HMS|Ajax|22|6}}, {{nihongo|'''Aikido'''|合気道}}, {{angbr|a}}{{sfn|Bloch|2007}}{{citation needed}}."
    found = " ".join(extract(Record("a", "wiki", text, "s")).text.split())
    assert found == "A (Анна; February 2, 1905 – 1982) – 1/2 of H2O, as of 2014, HMS Ajax, Aikido, ⟨a⟩."
