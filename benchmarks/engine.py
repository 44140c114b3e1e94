"""What `groundup data build` takes in memory, whatever the size of the corpus; writes benchmarks/results/engine_HARDWARE_DATE.json.

    python benchmarks/engine.py [--raw FOLDER] [--quick]

Corpora: real files (--raw: HTML, wiki dumps, books), and made ones of 10 and 60 MB (a book's sentences in random order, a twentieth of the
rows twice), each with one row near the largest that is read (read.max_record_mb). Every process tells the most resident memory that it
held; the bound is 2 GiB.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import claim, save

from groundup.data.config import ReadConfig

BOUND = 2 << 30
FILE_MB = 10


def write_rows(folder: Path, megabytes: int, sentences: list[str]) -> None:
    """Writes JSONL files of sentences in random order; one row in twenty has stood before; one row of all is huge."""
    dice, texts = random.Random(megabytes), list[str]()
    folder.mkdir(parents=True)
    for number in range(-(-megabytes // FILE_MB)):
        with open(folder / f"{number:04d}.jsonl", "w", encoding="utf-8") as out:
            size = 0
            while size < min(megabytes, FILE_MB) * 1e6:
                again = texts and dice.random() < 0.05
                text = dice.choice(texts) if again else " ".join(dice.choices(sentences, k=dice.randrange(5, 40)))
                texts = [*texts[-500:], text]
                size += out.write(json.dumps({"text": text}) + "\n")
    limit = (ReadConfig().max_record_mb - 1) << 20
    huge = " ".join(dice.choices(sentences, k=limit // 100))
    (folder / "huge.jsonl").write_text(json.dumps({"text": huge.encode("ascii", "replace").decode()[:limit]}))


def build(inputs: Path) -> dict[str, Any]:
    """Returns the results of a build on two processes: documents, bytes, the most memory of a process; and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "groundup", "data", "build", f"{folder}/p", "--input", str(inputs), "--processes", "2"],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        run = json.loads(Path(folder, "p/01-data/main/run.json").read_text())
        return run["results"] | {"seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "raw")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpora = {"real files": args.raw}
        sentences = re.split(r"(?<=[.!?])\s+", (args.raw / "gutenberg-books.txt").read_text(encoding="utf-8"))
        for megabytes in (6,) if args.quick else (10, 60):
            corpora[f"{megabytes} MB of rows"] = Path(folder, str(megabytes))
            write_rows(corpora[f"{megabytes} MB of rows"], megabytes, sentences)
        claims = []
        for name, path in corpora.items():
            found = build(path)
            made = claim(f"most memory of one of the processes that build {name}, two workers", found["peak_bytes"] / 1e6,
                         {"the bound": BOUND / 1e6}, "MB", 1, higher=False)  # fmt: skip
            claims.append(made | {k: found[k] for k in ("raw_documents", "raw_bytes", "kept", "seconds")})
    if not args.quick:
        save("engine", {"claims": claims})


if __name__ == "__main__":
    main()
