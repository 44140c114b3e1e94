"""The held-out split comes first and depends on the text alone; the mix is bounded, and the same every time."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.files import write_jsonl
from groundup.base.records import Document, read_documents
from groundup.data.build import build
from groundup.data.config import BuildConfig, CleanConfig, DedupConfig, LanguageConfig, RepetitionConfig
from groundup.data.mix import copies, unit_hash

WORDS = "the of and with house river people said day went have that winter engine letter cloud".split()  # noqa: SIM905 a list of words reads best as words
PLAIN = BuildConfig(repetition=RepetitionConfig(enabled=False), dedup=DedupConfig(near=False))


def rows(source: str, count: int) -> list[dict[str, str]]:
    dice = random.Random(source)
    return [{"id": f"{source}{k}", "source": source,
             "text": f"Write to {source}.{k}@mail.example, " + " ".join(dice.choices(WORDS, k=40)) + "."}
            for k in range(count)]  # fmt: skip


def built(folder: Path, data: list[dict[str, str]], config: BuildConfig) -> tuple[list[Document], list[Document]]:
    write_jsonl(folder / "p" / "raw" / "a.jsonl", data)
    run = build(replace(config, project=folder / "p"))
    return list(read_documents(run.path / "documents.parquet")), list(read_documents(run.path / "heldout.parquet"))


def number(document: Document) -> str:
    return document.id.rpartition(":")[2].partition("~")[0]


@pytest.mark.parametrize("change", [
    {}, {"clean": CleanConfig(placeholders=False)}, {"filters": "none"}, {"language": LanguageConfig(wanted=())},
    {"dedup": DedupConfig(exact=False, near=False)}, {"mix": ("web=3", "book=0.2")}, {"processes": 2},
])  # fmt: skip
def test_no_later_choice_changes_sides(change: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    """Who is held out is decided by what the document said when it came in: before cleaning, rules, duplicates and mix."""
    data = rows("web", 120) + rows("book", 40)
    train, heldout = built(tmp_path, data, replace(PLAIN, heldout=0.2, **change))
    expected = {row["id"] for row in data if unit_hash(row["text"]) < 0.2}
    assert {number(d) for d in heldout} == expected
    assert not {number(d) for d in train} & expected
    assert len(heldout) == len(expected), "a held-out document is there once, whatever its source weighs"
    assert 15 < len(expected) < 50


def test_no_source_is_repeated_beyond_the_bound(tmp_path: Path) -> None:
    data = rows("web", 200) + rows("book", 5)
    config = replace(PLAIN, heldout=0.0, mix_temperature=1e6, max_epochs=3.0)
    train, _ = built(tmp_path, data, config)
    times = Counter(number(d) for d in train)
    assert {times[f"book{k}"] for k in range(5)} == {3}, "equal shares would repeat them twenty times"
    assert {times[f"web{k}"] for k in range(200)} == {0, 1}, "the larger source is thinned to its share"
    assert len({d.id for d in train}) == len(train)


def test_the_mix_depends_on_each_document_alone(tmp_path: Path) -> None:
    data, config = rows("web", 150), replace(PLAIN, heldout=0.0, mix=("web=1.4", "book=0.5"))
    some, _ = built(tmp_path / "some", data + rows("book", 60), config)
    more, _ = built(tmp_path / "more", rows("book", 90) + data[::-1], config)
    ids = {d.id for d in some}
    assert {d.id for d in more if number(d) in {row["id"] for row in data + rows("book", 60)}} == ids
    assert {number(d) for d in some if "~2" in d.id} == {
        row["id"] for row in data if copies(f"a.jsonl:{row['id']}", 1.4) == 2
    }
    assert 40 < sum("~2" in d.id for d in some) < 80
    again, _ = built(tmp_path / "again", data + rows("book", 60), replace(config, processes=2))
    assert again == some
