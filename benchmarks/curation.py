"""Curation against datatrove on the same documents, interleaved in one run; writes benchmarks/results/curation_HARDWARE_DATE.json.

    python -m venv PEER && PEER/bin/pip install -r benchmarks/peers/datatrove.txt
    python benchmarks/curation.py --folder OUT --peer PEER/bin/python [--part filters minhash shipped pipeline scaling] [--quick]

Documents: 12,000 different ones from benchmarks/documents.py (HTML of Debian's documentation packages, books), none repeated.
Claims: FineWeb's filters and MinHash, one core, at identical decisions under one stated tokenizer (benchmarks/peers/run_datatrove.py says
which); agreement with datatrove as shipped; WARC to deduplicated Parquet on two processes; two processes against one.
"""

import argparse
import contextlib
import ctypes
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from documents import corpus
from machine import save

from groundup.data.config import BuildConfig, DedupConfig, LanguageConfig
from groundup.data.dedup import Member, find_near, rank
from groundup.data.engine import workers
from groundup.data.measure import FEATURES, measure
from groundup.data.minhash import hash_functions, sign
from groundup.data.quality import first_broken

PARTS = ("filters", "minhash", "shipped", "pipeline", "scaling")
WORKER = Path(__file__).parent / "peers" / "run_datatrove.py"
CONFIG = replace(BuildConfig(filters="fineweb", heldout=0.0, language=LanguageConfig(wanted=())).effective(),
                 dedup=DedupConfig(bands=14, rows=8, min_similarity=0.0, min_words=5))  # fmt: skip
STEPS = {
    "GopherRepetitionFilter": "repetition",
    "GopherQualityFilter": "gopher",
    "C4QualityFilter": "c4",
    "FineWebQualityFilter": "web",
}
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux: who gets a process whose parent has ended
CHUNK = 1000  # documents of a turn: ours, then datatrove's


class Peer:
    """datatrove in its own environment, started when it is first asked, over a pipe."""

    def __init__(self, python: str) -> None:
        self.python = python

    @functools.cached_property
    def process(self) -> subprocess.Popen[str]:
        """The peer's process."""
        return subprocess.Popen(
            [self.python, str(WORKER), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **job: Any) -> Any:
        """Returns the answer to one job."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def claim(
    name: str, ours: float, peers: dict[str, float], ratio: float, unit: str, n: int, **more: Any
) -> dict[str, Any]:
    return {"claim": name, "ours": round(ours, 4), "peers": {k: round(v, 4) for k, v in peers.items()}, "ratio": round(ratio, 3),
            "unit": unit,
            "n": n, **more}  # fmt: skip


def filtered(texts: list[str]) -> tuple[float, list[str]]:
    """Returns the seconds, and for each text the filter that drops it, in datatrove's order, or ''."""
    start = time.perf_counter()
    values = measure(texts, CONFIG).values
    drops = first_broken(values, [True] * len(texts), CONFIG, FEATURES)
    seconds = time.perf_counter() - start
    reasons = ["" if drop is None else "?" for drop in drops]
    for step in STEPS.values():
        off = {other: replace(getattr(CONFIG, other), enabled=False) for other in STEPS.values() if other != step}
        broken = first_broken(values, [True] * len(texts), replace(CONFIG, **off), FEATURES)
        reasons = [step if reason == "?" and drop else reason for reason, drop in zip(reasons, broken)]
    return seconds, reasons


def filters(texts: list[str], rows: Path, peer: Peer, stated: bool, step: int = 1) -> dict[str, Any]:
    """FineWeb's four filters, one core each, chunk by chunk in turns; the texts are every `step`-th of the rows."""
    filtered(texts[:50])
    times: list[tuple[float, float]] = []
    same = together = 0
    differ: list[str] = []
    for at in range(0, len(texts), CHUNK):
        ours_s, ours = filtered(texts[at : at + CHUNK])
        theirs_s, found = peer.ask(what="filters", file=str(rows), **{"from": step * at, "to": step * (at + CHUNK)}, stated=stated,
                                 step=step)  # fmt: skip
        theirs = [STEPS[reason.partition(":")[0]] if reason else "" for reason in found]
        times.append((ours_s, theirs_s))
        same += sum(bool(a) == bool(b) for a, b in zip(ours, theirs))
        together += sum(a == b for a, b in zip(ours, theirs))
        differ += [
            f"{at + k}: {a or 'kept'} / {found[k] or 'kept'}"
            for k, (a, b) in enumerate(zip(ours, theirs))
            if bool(a) != bool(b)
        ]
    ours_s, theirs_s = (sum(t[k] for t in times) for k in (0, 1))
    mb = sum(len(t.encode()) for t in texts) / 1e6
    how = "under one stated tokenizer" if stated else "as shipped (spaCy)"
    return claim(f"FineWeb's filters, MB/s a core, datatrove {how}", mb / ours_s, {"datatrove": mb / theirs_s},
                 statistics.median(b / a for a, b in times), "MB/s", len(times), documents=len(texts), agreement=same / len(texts),
                 agreement_on_the_filter=together / len(texts), differ=differ[:10])  # fmt: skip


def _member(texts: list[str], start: int) -> Member:
    """Returns the signatures of some texts, as `data build` makes them."""
    dedup = CONFIG.dedup
    signed = sign(texts, dedup.ngram, hash_functions(dedup.bands * dedup.rows, dedup.seed), np.zeros(0, np.uint64), 5)
    long = np.flatnonzero(signed.words >= dedup.min_words)
    ranks = rank(np.zeros(len(long), bool), np.zeros(len(long), np.int64), np.full(len(long), np.nan))
    return Member((long + start).astype(np.uint64), ranks, np.zeros((0, 2), np.uint64), signed.signatures[long])


def deduplicated(texts: list[str], folder: Path) -> tuple[float, np.ndarray]:
    """Returns the seconds of signatures, bands and components, and the drops."""
    start = time.perf_counter()
    members = [partial(_member, texts[at : at + 400], at) for at in range(0, len(texts), 400)]
    with workers(1, lambda: None, ()) as run_map:
        drops = find_near(run_map, members, len(texts), folder, CONFIG)
    return time.perf_counter() - start, drops


def minhash(texts: list[str], rows: Path, peer: Peer, stated: bool, step: int = 1) -> dict[str, Any]:
    """MinHash from texts to the documents that stay, one core each, in turns."""
    times: list[tuple[float, float]] = []
    agreement = 0.0
    _member(texts[:50], 0)
    for _ in range(3 if stated else 1):
        with tempfile.TemporaryDirectory() as folder:
            ours_s, drops = deduplicated(texts, Path(folder))
            _, theirs_s, kept = peer.ask(
                what="minhash",
                file=str(rows),
                **{"from": 0, "to": step * len(texts)},
                stated=stated,
                folder=folder,
                step=step,
            )
        times.append((ours_s, theirs_s))
        group = np.arange(len(texts))
        group[drops["doc"].astype(int)] = drops["kept"].astype(int)
        stays = np.bincount(
            group[kept], minlength=len(texts)
        )  # of each of our groups, how many theirs leaves: one, if groups are the same
        agreement = float((stays[group] == 1).mean())
    ours_s, theirs_s = (statistics.median(t[k] for t in times) for k in (0, 1))
    mb = sum(len(t.encode()) for t in texts) / 1e6
    how = "under one stated tokenizer" if stated else "as shipped (spaCy)"
    return claim(f"MinHash from texts to what stays, MB/s a core, datatrove {how}", mb / ours_s, {"datatrove": mb / theirs_s},
                 theirs_s / ours_s, "MB/s", len(times), documents=len(texts), agreement=agreement, kept=len(texts) - len(drops),
                 kept_by_datatrove=len(kept))  # fmt: skip


def timed(command: list[str]) -> tuple[float, float]:
    """Returns the seconds that a command takes, by the clock and of the processors, those of all its processes together."""
    ctypes.CDLL(None).prctl(
        SUBREAPER, 1
    )  # workers are children of a server that outlives the command: they become ours
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    code, wall = process.wait(), time.perf_counter() - start
    if code:
        raise subprocess.CalledProcessError(code, command)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.waitpid(-process.pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def build(warc: Path, processes: int) -> tuple[float, float, int]:
    """Returns the seconds (clock, processors) of `groundup data build` from the WARC to Parquet, and how many documents it kept."""
    with tempfile.TemporaryDirectory() as folder:
        spent = timed([sys.executable, "-m", "groundup", "data", "build", f"{folder}/p", "--input", str(warc), "--filters", "fineweb",
                       "--heldout", "0", "--processes", str(processes), "--dedup.bands", "14", "--dedup.rows", "8",
                       "--dedup.min-similarity", "0"])  # fmt: skip
        return *spent, json.loads(Path(f"{folder}/p/01-data/main/stats.json").read_text())["kept"]


def their_build(warc: Path, python: str, mode: str) -> tuple[float, float, int]:
    """Returns the same of datatrove."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):  # one file a task, as its readers share files, not records, among tasks
            Path(folder, "in").mkdir(exist_ok=True)
            shutil.copy(warc.with_name(f"{number}-{warc.name}"), f"{folder}/in/{number}.warc.gz")
        spent = timed([python, str(WORKER), "pipeline", f"{folder}/in", f"{folder}/out", "2", mode])
        kept = sum(pq.read_metadata(path).num_rows for path in Path(folder, "out", "documents").glob("*.parquet"))
        return *spent, kept


def halves(warc: Path) -> None:
    """Writes the WARC's records into two files of equal number beside it."""
    from fastwarc.warc import ArchiveIterator

    if warc.with_name(f"1-{warc.name}").exists():
        return
    records = []
    with open(warc, "rb") as stream:
        for record in ArchiveIterator(stream):
            out = tempfile.SpooledTemporaryFile()  # noqa: SIM115
            record.write(out)
            out.seek(0)
            records.append(out.read())
    import gzip

    for number in range(2):
        with gzip.open(warc.with_name(f"{number}-{warc.name}"), "wb", 1) as handle:
            handle.writelines(records[number::2])


def pipelines(warc: Path, python: str, runs: int) -> dict[str, Any]:
    """WARC to deduplicated Parquet on two processes each, in turns."""
    halves(warc)
    names = {"datatrove as shipped": "shipped", "datatrove with our extractor and the stated tokenizer": "stated"}
    ours, theirs = [], {name: [] for name in names}  # type: ignore[var-annotated]
    for _ in range(runs):
        ours.append(build(warc, 2))
        for name, mode in names.items():
            theirs[name].append(their_build(warc, python, mode))
    seconds = statistics.median(found[0] for found in ours)
    peers = {name: statistics.median(found[0] for found in runs_) for name, runs_ in theirs.items()}
    return claim("WARC to deduplicated Parquet, seconds, two processes", seconds, peers, min(peers.values()) / seconds, "s", runs,
                 ratio_as_shipped=round(peers["datatrove as shipped"] / seconds, 3), kept=ours[0][2],
                 kept_by_peers={name: found[0][2] for name, found in theirs.items()}, warc_bytes=warc.stat().st_size)  # fmt: skip


def scaling(warc: Path, runs: int) -> dict[str, Any]:
    """One process and two, in turns."""
    found = [(build(warc, 1), build(warc, 2)) for _ in range(runs)]
    (one, one_cpu), (two, two_cpu) = ([statistics.median(f[k][j] for f in found) for j in (0, 1)] for k in (0, 1))
    return claim("WARC to deduplicated Parquet, two processes against one", two, {"one process": one}, one / two, "s", runs,
                 cpu_s={"one process": round(one_cpu, 3), "two processes": round(two_cpu, 3)})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--peer", required=True, help="the Python of datatrove's environment")
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--documents", type=int, default=12_000)
    parser.add_argument("--runs", type=int, default=2, help="turns of whole builds, one against two processes")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    rows = corpus(args.folder, args.documents)[1]
    with open(rows, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    step = len(texts) // (300 if args.quick else 2000)  # for what is slow: fewer, of all kinds
    peer, few, runs = Peer(args.peer), texts[::step], 1 if args.quick else args.runs
    texts = texts[:1000] if args.quick else texts
    work: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "filters": lambda: [filters(texts, rows, peer, True)], "minhash": lambda: [minhash(texts, rows, peer, True)],
        "shipped": lambda: [filters(few, rows, peer, False, step), minhash(few, rows, peer, False, step)],
        "pipeline": lambda: [pipelines(corpus(args.folder, 1000 if args.quick else 4000)[0], args.peer, 1)],
        "scaling": lambda: [scaling(corpus(args.folder, 1000 if args.quick else args.documents)[0], runs)],
    }  # fmt: skip
    claims = [found for part in args.part for found in work[part]()]
    if not args.quick:
        saved = sorted((Path(__file__).parent / "results").glob("curation_*.json"))
        before = json.loads(saved[-1].read_text())["claims"] if saved else []
        done = {found["claim"] for found in claims}
        save("curation", {"peer": "datatrove 0.10.1", "claims": [c for c in before if c["claim"] not in done] + claims})
    for found in claims:
        print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
