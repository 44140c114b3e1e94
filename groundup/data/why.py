"""`groundup data why`: what happened to a document, in words."""

import difflib
import textwrap
from collections.abc import Iterator
from itertools import islice
from typing import Any

from groundup.base.errors import DataError
from groundup.base.log import say
from groundup.base.records import Document, read_documents
from groundup.base.runs import Run
from groundup.data.config_why import WhyConfig, built, finished
from groundup.data.formats import Problem

__all__ = ["PLACES", "explain", "find", "left_aside", "main", "meaning", "number", "reasons"]

GUESSED = 50_000  # documents among which a near miss is looked for
PLACES = {"kept": "documents.parquet", "held out": "heldout.parquet", "dropped": "dropped.parquet"}
MEANING = {
    "minified": "lines this long are written by tools, not people",
    "generated": "the file says that a tool wrote it",
    "too_deep": "levels of elements within elements: a broken or hostile page",
    "redirect": "the page only points to another",
    "namespace": "the page isn't an article (it is a talk page, a category or the like)",
    "empty": "no text was left outside menus, scripts and the like",
    "too_long": "characters in one document: more than a worker can judge within 2 GiB of memory",
    "only_furniture": "every line of it stands on many pages of the site",
    "blocklist": "the address holds a blocked word",
    "gopher_min_words": "words in the document",
    "gopher_max_words": "words in the document",
    "gopher_min_word_length": "mean characters a word",
    "gopher_max_word_length": "mean characters a word",
    "gopher_symbols": "'#' or '...' for each word",
    "gopher_bullet_lines": "share of lines that begin with a bullet",
    "gopher_ellipsis_lines": "share of lines that end with an ellipsis",
    "gopher_alpha_words": "share of words with a letter",
    "gopher_stop_words": "how many of the, be, to, of, and, that, have, with occur",
    "repeated_lines": "share of lines that occurred before",
    "repeated_line_chars": "share of characters in lines that occurred before",
    "c4_lorem_ipsum": "times 'lorem ipsum' occurs",
    "c4_sentences": "sentences",
    "fineweb_line_punctuation": "share of lines that end like a sentence",
    "fineweb_short_lines": "share of lines of at most 30 characters",
    "fineweb_line_breaks": "line breaks for each word",
    "shouting": "exclamation marks and words in capitals, for each word",
    "false_arithmetic": "share of the arithmetic in it that is wrong",
    "problem_overlap": "words in a row that it shares with an evaluation problem",
    "repeated_paragraphs": "share of paragraphs that occurred before",
    "repeated_paragraph_chars": "share of characters in paragraphs that occurred before",
    "c4_curly_bracket": "lines with a '{'",
    "fineweb_repeated_chars": "share of characters in lines that occurred before",
    "word_list": "a word of the list stands in the text",
    "score": "the document's score in the given file",
    "url": "another document has this address",
    "only_repeated": "share of the text that other documents have already; too few words were left",
    "exact": "the same text is in the corpus already",
    "near": "estimated Jaccard similarity with its nearest relative in the group",
    "exact_of_heldout": "the same text is held out, so training may not see it",
    "near_of_heldout": "nearly the same text is held out, so training may not see it",
    "weight": "the mix gives its source this weight",
}


def find(run: Run, wanted: str) -> Iterator[tuple[str, Document]]:
    """Yields (kept | held out | dropped, document) for each document with this id or address."""
    for place, file in PLACES.items():
        for document in read_documents(run.path / file):
            if wanted in (document.id, document.meta.get("url")):
                yield place, document


def left_aside(run: Run, wanted: str) -> Problem | None:
    """Returns why a file of the input gave no document, None for any other name. The build only counts them, so they are read again."""
    from groundup.data.read import find_files, read_file

    config = built(run)
    try:
        files, aside = find_files(config.inputs, config.read)
    except DataError:  # the input isn't there any more
        return None
    found: Iterator[object] = (next(iter(read_file(file, config.read)), None) for file in files if file.label == wanted)
    problems = (item for item in (*aside, *found) if isinstance(item, Problem))
    return next((p for p in problems if p.file == wanted or wanted.startswith(f"{p.file}/")), None)


def number(value: Any) -> str:
    """Returns a measurement or a threshold as it is shown."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def meaning(rule: str) -> str:
    """Returns what a rule measures, in words; "" for an unknown one."""
    if rule.startswith("is_"):
        return f"how sure it is that the language is '{rule[3:]}', which isn't among the wanted ones"
    if rule.startswith("top_"):
        return f"share of characters in the most frequent run of {rule[4]} words"
    if rule.startswith("repeated_") and rule.endswith("_grams"):
        return f"share of characters in repeated runs of {rule.split('_')[1]} words"
    return MEANING.get(rule, "")


def explain(place: str, document: Document) -> list[str]:
    """Returns the lines that tell what happened to a document, and how it begins."""
    begin = textwrap.shorten(document.text, 300, placeholder=" ...")
    return [*reasons(place, document), f"  begins: {begin}" if begin else "  (no text)"]


def reasons(place: str, document: Document) -> list[str]:
    """Returns the lines that tell what happened to a document."""
    meta = document.meta
    about = ", ".join(str(x) for x in (document.source, meta.get("title"), meta.get("url"), meta.get("licence")) if x)
    lines = [f"{document.id} ({about})"]
    if place == "dropped":
        rule = meta["rule"]
        lines.append(f"dropped by the stage '{meta['stage']}', rule '{rule}'")
        if meta["value"] != "":
            shown, limit = number(meta["value"]), number(meta["threshold"])
            shown = f"{meta['value']:.6g}" if shown == limit else shown  # 0.2004 isn't 0.2
            lines.append(f"  measured {shown}" + (f", threshold {limit}" if limit else ""))
        if said := meaning(rule):
            lines.append(f"  ({said})")
        if meta["partner"]:
            lines.append(f"  {'found in it' if rule == 'problem_overlap' else 'kept instead'}: {meta['partner']}")
    elif place == "held out":
        lines.append("held out: evaluation only, training never sees it")
    else:
        lines.append("kept for training")
    changes = [
        f"{meta[k]} {what}"
        for k, what in (("furniture_lines", "lines of furniture removed"), ("placeholders", "placeholders put in"))
        if meta.get(k)
    ]
    if changes:
        lines.append(f"  {', '.join(changes)}")
    if "cut_share" in meta:
        share, place = meta["cut_share"], meta["cut_kept_in"]
        place = "this very document" if place == document.id else place
        lines.append(f"  {share:.1%} of it was cut out, for it stands elsewhere, the first such stretch in {place}")
    return lines


def main(config: WhyConfig) -> None:
    """Prints what happened to one document. Raises: DataError for one that isn't there, with a near miss."""
    run = finished(config)
    found = list(find(run, config.document))
    if not found and (problem := left_aside(run, config.document)):
        say(f"{problem.file}: left aside while reading, rule '{problem.rule}'\n  ({problem.message})")
    elif not found:
        documents = (d for file in PLACES.values() for d in read_documents(run.path / file))
        known = [name for d in islice(documents, GUESSED) for name in (d.id, d.meta.get("url")) if name]
        near = difflib.get_close_matches(config.document, known, 1, 0.5)
        raise DataError(
            f"{config.document}: no document of {run.path} has this id or address"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    for place, document in found:
        say("\n".join(explain(place, document)))
