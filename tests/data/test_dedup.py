"""Duplicates across parts: of addresses, lines and stretches; memory by partitions; the same bytes for any number of workers."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groundup.base.errors import ConfigError
from groundup.base.files import write_jsonl
from groundup.base.records import Document, read_documents
from groundup.data import shuffle
from groundup.data.build import build
from groundup.data.config import BuildConfig, DedupConfig, RepetitionConfig
from groundup.data.dedup import DROP, components, rank
from groundup.data.engine import workers
from groundup.data.overlap import cut, find_stretches, find_units
from groundup.data.shuffle import RECORD, gather, partitions_for, scatter
from groundup.data.why import reasons
from tests.data.parts import WORDS, nothing, parts_of

OFF = RepetitionConfig(enabled=False)


def test_a_held_out_document_stays_whole(tmp_path: Path) -> None:
    line = b"a line that is long enough to be looked at, and is said in both of them, word for word"
    with workers(1, nothing, ()) as run_map:
        for find, config in (
            (find_units, DedupConfig(units="line")),
            (find_stretches, DedupConfig(substring_chars=60)),
        ):
            cuts = find(run_map, parts_of([line, line], 1, heldout=(1,)), 2, tmp_path, config)
            assert [(int(c["doc"]), int(c["kept"]), int(c["start"]), int(c["stop"])) for c in cuts] == [
                (0, 1, 0, len(line))
            ]


def test_cuts_spare_half_characters() -> None:
    cuts = np.array([(0, 1, 5, 1), (0, 4, 6, 1)], [("doc", "<u8"), ("start", "<u8"), ("stop", "<u8"), ("kept", "<u8")])
    assert cut("ééééé", cuts) == "ééé"


def test_partitions_hold_every_record_once(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    paths, everything = [], []
    for k in range(4):
        records = np.zeros(500, RECORD)
        records["key"], records["doc"] = dice.integers(0, 1 << 64, 500, np.uint64), k * 500 + np.arange(500)
        scatter(tmp_path / str(k), records, 7)
        paths.append(tmp_path / str(k))
        everything.append(records)
    found = [gather(paths, p, 7) for p in range(7)]
    assert all((np.diff(part["key"].astype(float)) >= 0).all() for part in found)
    assert np.array_equal(np.sort(np.concatenate(found)), np.sort(np.concatenate(everything)))
    assert partitions_for(10, 10) == 1
    assert partitions_for(10**9, 10**7) * shuffle.PARTITION_BYTES >= 10**9 * RECORD.itemsize


def test_the_best_of_a_chain_stays() -> None:
    edges = np.zeros(3, [("a", "<u8"), ("b", "<u8"), ("rank_a", "<u8"), ("rank_b", "<u8"), ("similar", "<f8")])
    edges["a"], edges["b"], edges["similar"] = [9, 4, 4], [4, 7, 9], [0.9, 0.8, 0.9]
    ranks = dict(
        zip((9, 4, 7), rank(np.array([False, False, True]), np.array([5, 900, 1]), np.full(3, np.nan)).tolist())
    )
    edges["rank_a"], edges["rank_b"] = [ranks[int(a)] for a in edges["a"]], [ranks[int(b)] for b in edges["b"]]
    drops = components(edges)
    assert drops["doc"].tolist() == [4, 9]
    assert drops["kept"].tolist() == [7, 7]
    assert drops["of_heldout"].all()
    assert drops["value"].tolist() == [0.9, 0.9]
    assert components(edges[:0]).dtype == DROP


def test_ranks() -> None:
    """Held out before everything, a scored document before an unscored one of the usual length, a high score before a low one."""
    scores = np.array([np.nan, 0.9, 0.1, -3.0, np.nan, np.nan])
    order = np.argsort(rank(np.array([True, False, False, False, False, False]), np.array([1, 1, 1, 1, 50, 7]), scores))
    assert order.tolist() == [0, 1, 2, 3, 4, 5]


def rows(count: int, seed: int) -> list[dict[str, str]]:
    dice = random.Random(seed)

    def sentence() -> str:
        one, two, three = dice.choices(WORDS, k=3)
        return f"The {one} of {dice.randrange(999)} {two}s was with the {three} that {dice.randrange(999)} have."

    return [
        {"id": f"d{k}", "text": "\n\n".join(sentence() for _ in range(8)), "url": f"https://a.example/{k % 40}"}
        for k in range(count)
    ]


def outcome(config: BuildConfig) -> dict[str, list[Document]]:
    build(config)
    folder = config.project / "01-data" / config.name
    return {name: list(read_documents(folder / f"{name}.parquet")) for name in ("documents", "heldout", "dropped")}


def test_addresses_lines_and_stretches_in_a_build(tmp_path: Path) -> None:
    data = rows(60, 1)
    data[50]["text"] += "\n\n" + data[3]["text"].split("\n\n")[2]
    data[51] = {"id": "rest", "text": data[4]["text"], "url": "https://b.example/"}
    write_jsonl(tmp_path / "p" / "raw" / "a.jsonl", data)
    config = BuildConfig(
        project=tmp_path / "p", heldout=0.0, repetition=OFF, dedup=DedupConfig(urls=True, exact=False, near=False)
    )
    found = outcome(config)
    assert {d.meta["rule"] for d in found["dropped"]} == {"url"}
    assert len(found["dropped"]) == 19  # 20 addresses came twice, but d51 has another one now
    addresses = [d.meta["url"] for d in found["documents"]]
    assert len(set(addresses)) == len(addresses)
    for dedup in (
        DedupConfig(units="line", unit_chars=20, exact=False, near=False),
        DedupConfig(substring_chars=60, exact=False, near=False),
    ):
        found = outcome(replace(config, dedup=dedup))
        assert [(d.id, d.meta["rule"], d.meta["partner"]) for d in found["dropped"]] == [
            ("a.jsonl:rest", "only_repeated", "a.jsonl:d4")
        ]
        changed = next(
            d for d in found["documents"] if d.id == "a.jsonl:d3"
        )  # d50 is the longer one, so the line stays there
        assert data[3]["text"].split("\n\n")[2] not in changed.text
        assert changed.meta["cut_kept_in"] == "a.jsonl:d50"
        assert 0 < changed.meta["cut_share"] < 0.3
        assert "cut out, for it stands elsewhere, the first such stretch in a.jsonl:d50" in reasons("kept", changed)[-1]
    with pytest.raises(ConfigError, match=r"dedup\.substring_chars: 5 is too short"):
        replace(config, dedup=DedupConfig(substring_chars=5)).validate()


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    data = rows(900, 2)
    data += [{**row, "id": f"copy{k}", "text": row["text"] + " And so on."} for k, row in enumerate(data[:300])]
    write_jsonl(tmp_path / "p" / "raw" / "a.jsonl", data)
    files = []
    for processes in (1, 2):
        config = BuildConfig(
            project=tmp_path / "p",
            name=f"w{processes}",
            processes=processes,
            repetition=OFF,
            dedup=DedupConfig(units="line", urls=False),
        )
        build(config)
        folder = config.project / "01-data" / config.name
        files.append({path.name: path.read_bytes() for path in folder.glob("*.parquet")})
        files[-1]["stats"] = (folder / "stats.json").read_bytes()
    assert files[0] == files[1]
    assert {"documents.parquet", "heldout.parquet", "dropped.parquet", "features.parquet", "stats"} == set(files[0])
