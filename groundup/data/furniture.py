"""The furniture of a site: lines that many of its pages share. They are counted by hash, part by part and partition by partition.

A line is counted together with its site, so no site is too large for a worker; how many pages a site has is counted as one more line.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from groundup.base.files import atomic_file
from groundup.data.clean import line_key
from groundup.data.config import CleanConfig
from groundup.data.engine import Map
from groundup.data.rows import HEADING_MARK, Row, read_part, site_of
from groundup.data.shuffle import RECORD, gather, partition_of, partitions_for, scatter

__all__ = ["LONGEST", "NOTHING", "Furniture", "find_furniture"]

LONGEST = 400  # characters of a line that may be furniture
COUNT = np.dtype([("key", "<u8"), ("check", "<u8"), ("pages", "<u8")])
PAGE = "\x02"  # the line that each page of a site has
Lines = tuple[frozenset[str], frozenset[str]]
NOTHING: Lines = (frozenset(), frozenset())


def _table(counts: Mapping[tuple[str, str], int]) -> np.ndarray:
    """Returns the counts of (site, line) by 128 bits of hash, dtype COUNT, in the mapping's order."""
    table = np.zeros(len(counts), COUNT)
    for k, ((site, line), pages) in enumerate(counts.items()):
        digest = xxhash.xxh3_128_intdigest(f"{site}\0{line}".encode("utf-8", "surrogatepass"))
        table[k] = digest >> 64, digest & (1 << 64) - 1, pages
    return table


def _scatter_lines(task: tuple[Path, Path, int]) -> Path:
    """Writes how often each line occurs in a part, once a page."""
    part, path, partitions = task
    counts: Counter[tuple[str, str]] = Counter()
    for row in read_part(part, ["source", "kind", "meta", "lines", "drop"]):
        if row.kind == "html" and row.drop is None:
            counts.update((site_of(row), line) for line in (PAGE, *row.lines))
    table, records = _table(counts), np.zeros(len(counts), RECORD)
    records["key"], records["check"], records["item"] = table["key"], table["check"], table["pages"]
    scatter(path, records, partitions)
    return path


def _reduce_lines(task: tuple[Sequence[Path], Path, int, int, int]) -> Path:
    """Writes the lines of a partition that stand on at least so many pages of their site, sorted."""
    paths, target, partition, partitions, least = task
    records = gather(paths, partition, partitions)
    new = np.ones(len(records), bool)
    new[1:] = (records["key"][1:] != records["key"][:-1]) | (records["check"][1:] != records["check"][:-1])
    first = np.flatnonzero(new)
    table = np.zeros(len(first), COUNT)
    table["key"], table["check"] = records["key"][first], records["check"][first]
    table["pages"] = np.add.reduceat(records["item"], first) if len(first) else 0
    with atomic_file(target) as temporary, open(temporary, "wb") as handle:
        np.save(handle, table[table["pages"] >= least])
    return target


class Furniture(NamedTuple):
    """Where the counts lie: one sorted table a partition."""

    tables: tuple[Path, ...] = ()

    def _pages(self, asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Returns on how many pages of its site each line stands, of those lines that were counted as furniture."""
        wanted = list(dict.fromkeys(asked))
        keys = _table(dict.fromkeys(wanted, 0))
        places, found = partition_of(keys["key"], len(self.tables)), {}
        for partition in np.unique(places).tolist():
            table = np.load(self.tables[partition], mmap_mode="r")
            here = np.flatnonzero(places == partition)
            at = np.searchsorted(table["key"], keys["key"][here])
            for k, place in zip(here.tolist(), at.tolist()):
                if (
                    place < len(table)
                    and table[place]["key"] == keys[k]["key"]
                    and table[place]["check"] == keys[k]["check"]
                ):
                    found[wanted[k]] = int(table[place]["pages"])
        return found

    def of(self, rows: Sequence[Row], config: CleanConfig) -> dict[str, Lines]:
        """Returns, for each site of these pages, which of their lines go from a page's edges, and which from anywhere in it."""
        pages = [row for row in rows if row.kind == "html" and row.drop is None] if self.tables else []
        lines = {(site_of(row), line_key(line)) for row in pages for line in row.text.split("\n")}
        lines = {(site, key) for site, key in lines if key and len(key) <= LONGEST}
        counts = self._pages((site, mark + key) for site, key in sorted(lines) for mark in ("", HEADING_MARK))
        totals = self._pages((site, PAGE) for site in sorted({site for site, _ in counts}))
        edge, anywhere = defaultdict(set), defaultdict(set)
        for (site, line), count in counts.items():
            if count >= config.boilerplate_share * totals[site, PAGE]:
                edge[site].add(line.lstrip(HEADING_MARK))
            if count >= config.boilerplate_anywhere * totals[site, PAGE] and not line.startswith(HEADING_MARK):
                anywhere[site].add(line)
        return {site: (frozenset(edge[site]), frozenset(anywhere[site])) for site in {*edge, *anywhere}}


def find_furniture(run_map: Map, parts: Sequence[Path], folder: Path, least: int, text_bytes: int) -> Furniture:
    """Returns the furniture of all sites: lines on at least so many pages. text_bytes: about how much text the parts hold."""
    partitions = partitions_for(
        text_bytes // RECORD.itemsize, 0
    )  # a line a record, and lines are about as long as records
    tables = tuple(folder / f"furniture-{p:04d}.npy" for p in range(partitions))
    if all(table.exists() for table in tables):  # a killed run has left them
        return Furniture(tables)
    scattered = ((part, folder / f"lines-{k:06d}", partitions) for k, part in enumerate(parts))
    paths = list(run_map(_scatter_lines, scattered))
    for _ in run_map(_reduce_lines, ((paths, table, p, partitions, least) for p, table in enumerate(tables))):
        pass
    for path in paths:
        path.unlink()
    return Furniture(tables)
