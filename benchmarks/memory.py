"""Whether training keeps its memory flat; writes benchmarks/results/memory_HARDWARE_DATE.json.

    python benchmarks/memory.py [--minutes 30]     a run with looks at the held-out text, samples and checkpoints every few seconds
    python benchmarks/memory.py --quick            the same for 50 seconds

Resident memory is read from /proc every half second (Linux). Compared are the medians of the minute after the first and of the last one
(quick: of 15 seconds each).
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import claim, save

from groundup.base.runs import Run, checkpoints, open_run, record
from groundup.shards.write import write_texts
from groundup.tokenizer import io
from groundup.tokenizer.encode import Tokenizer

FLAGS = ["--model.context", "128", "--model.d-model", "128", "--model.n-layers", "4", "--model.dropout", "0.1", "--train.steps", "1000000",
         "--train.batch-tokens", "2048", "--train.eval-every", "20", "--train.log-every", "5", "--train.checkpoint.every", "10",
         "--train.optim.kind", "muon", "--train.optim.ema", "0.99", "--train.compile", "off", "--eval-tokens", "4096"]  # fmt: skip


def make_project(project: Path, tokenizer: Tokenizer | None = None) -> None:
    """Writes random words as token files; their tokens are bytes, unless a tokenizer is given."""
    rng, tokenizer = random.Random(0), tokenizer or Tokenizer([], ("<|endoftext|>",), "bytes")
    run, shards = open_run(project, "tokenizer"), open_run(project, "shards")
    with record(run, "", {}):
        io.save(tokenizer, run.path / "tokenizer.json")
    with record(shards, "", {"tokenizer": run.path / "tokenizer.json"}):
        for split, count in (("train", 2000), ("heldout", 40)):
            words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(1, 8))) for _ in range(3000)]
            write_texts([" ".join(rng.choices(words, k=200)) for _ in range(count)], tokenizer, shards.path / split)


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def watch(project: Path, seconds: float) -> list[tuple[float, int]]:
    """Returns (seconds since the first step, resident bytes) of a run of so many seconds."""
    run, found = Run(project / "05-pretrain" / "main"), []
    words = [sys.executable, "-m", "groundup", "pretrain", str(project), *FLAGS]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (run.path / "metrics.jsonl").exists():
            if process.poll() is not None:
                raise SystemExit(f"the run ended: {' '.join(words)}")
            time.sleep(0.1)
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            found.append((time.monotonic() - started, resident_bytes(process.pid)))
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    assert process.returncode == 130, process.returncode
    return found


def main() -> None:
    """Watches a run, prints the claim, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="50 seconds")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run ends with its watcher
    seconds, window = (50.0, 15.0) if asked.quick else (60 * asked.minutes, 60.0)
    folder = Path(tempfile.mkdtemp(prefix="groundup-memory-", dir=os.environ.get("GROUNDUP_TMP")))
    try:
        make_project(folder)
        seen = watch(folder, seconds)
        run = Run(folder / "05-pretrain" / "main")
        steps, samples = run.metrics()[-1]["step"], len(list((run.path / "samples").iterdir()))
        assert checkpoints(run.path)
    finally:
        shutil.rmtree(folder)
    first = statistics.median(size for at, size in seen if window <= at < 2 * window)
    last = statistics.median(size for at, size in seen if at >= seconds - window)
    text = f"resident memory after {seconds / 60:g} minutes, {steps} steps, {samples} samples, {steps // 10} checkpoints, against"
    name = "the minute after the first" if not asked.quick else "the seconds 15 to 30"
    claims = [
        claim(
            f"{text} {name} ({first / 2**20:.0f} MiB)",
            round(100 * last / first, 2),
            {"allowed": 101.0},
            "%",
            1,
            higher=False,
        )
    ]
    if not asked.quick:
        minutes = [
            round(statistics.median(s for at, s in seen if 60 * m <= at < 60 * m + 60) / 2**20, 1)
            for m in range(int(seconds // 60))
        ]
        save("memory", {"claims": claims, "resident_mib_by_minute": minutes})


if __name__ == "__main__":
    main()
