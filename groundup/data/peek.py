"""`groundup data peek`: read what a build kept, or what it turned away and why; the quickest way to see whether a rule is right."""

import difflib
import heapq
import pydoc
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from groundup.base.errors import DataError
from groundup.base.files import read_json
from groundup.base.log import command, progress
from groundup.base.records import Document, read_documents
from groundup.data.config_why import PeekConfig, finished
from groundup.data.mix import unit_hash
from groundup.data.why import PLACES, reasons

__all__ = ["main", "sample", "show"]

WIDTH = 100  # of the line between two documents


def sample(documents: Iterable[Document], n: int, seed: int) -> list[Document]:
    """Returns n of the documents, chosen by the hash of their ids: the same ones whatever their order, and in their order."""
    numbered = enumerate(documents)
    least = heapq.nsmallest(n, numbered, key=lambda item: unit_hash(f"{seed} {item[1].id}"))
    return [document for _, document in sorted(least, key=lambda item: item[0])]


def show(place: str, document: Document, chars: int) -> str:
    """Returns a document as it is read: what happened to it, then its text."""
    text = document.text
    if chars and len(text) > chars:
        text = f"{text[:chars]}\n[... {len(text) - chars:,} more characters]"
    return "\n".join([*reasons(place, document), "", text or "(no text)"])


def main(config: PeekConfig) -> None:
    """Shows a sample. Raises: DataError where nothing is like that, with what there is."""
    run, wanted = finished(config), {key: value for key in ("stage", "rule") if (value := getattr(config, key))}
    there: dict[str, Counter[str]] = {key: Counter() for key in ("stage", "rule", "source")}
    total = 0

    def matching() -> Iterator[Document]:
        nonlocal total
        with progress("looking", None, "documents") as bar:
            for document in read_documents(run.path / PLACES[config.place]):
                bar.advance()
                there["source"][document.source] += 1
                for key in wanted:
                    there[key][document.meta[key]] += 1
                if all(document.meta[key] == value for key, value in wanted.items()) and config.source in (
                    "",
                    document.source,
                ):
                    total += 1
                    yield document

    chosen = sample(matching(), config.n, config.seed)
    if not chosen:
        aside = {row["rule"] for row in read_json(run.path / "stats.json")["funnel"] if row["stage"] == "read"}
        if config.stage == "read" or config.rule in aside:
            why = command("data", "why", config.project, "FILE")
            raise DataError(
                f"{run.path}: a file that is left aside while reading has no text to show; `{why}` says why it is"
            )
        raise DataError(f"{run.path}: {_nothing(config, there)}")
    rule = "\n" + "─" * WIDTH + "\n"
    text = rule.join(f"{k} of {len(chosen)}: {show(config.place, d, config.chars)}" for k, d in enumerate(chosen, 1))
    text += f"{rule}{len(chosen)} of {total:,} such documents; --seed {config.seed + 1} shows others"
    if sys.stdout.isatty():
        pydoc.pager(text)
    else:
        print(text)


def _nothing(config: PeekConfig, there: dict[str, Counter[str]]) -> str:
    """Returns why no document was found: which word of the user's there isn't, and what was probably meant."""
    for key, found in there.items():
        value = getattr(config, key)
        if value and value not in found:
            names = [name for name, _ in found.most_common(8)]
            near = difflib.get_close_matches(value, list(found), 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
            return f"no {config.place} document has the {key} '{value}'; {hint}"
    return f"no {config.place} document has all of this"
