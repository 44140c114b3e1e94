"""The tokenizer against its peers, in one run, taking turns; writes benchmarks/results/tokenizer_HARDWARE_DATE.json.

    python -m venv PEER && PEER/bin/pip install -r benchmarks/peers/tokenizers.txt
    python benchmarks/corpora.py --packages PACKAGES --folder CORPORA            (what PACKAGES is, it says)
    python benchmarks/tokenizer.py --peer PEER/bin/python --folder CORPORA [--part train encode decode command hostile memory] [--quick]
    python benchmarks/tokenizer.py --folder CORPORA --save                       writes the result from the parts' figures

Tasks: a vocabulary of 32,768 learnt from 64 MB of English with GPT-2's pattern; 32 MB of English, of 25 languages and
of code encoded with GPT-2's vocabulary, as documents of 64 kB, first pass (nothing remembered) and second, by one thread
and by two; their ids decoded; whole commands, from a cold and a warm cache of compiled code. Ids and vocabularies are compared.
Every process is new for every turn, so no peer profits from what another left. Medians of 5 turns, and the best.
"""

import argparse
import base64
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from machine import claim, save, touch_memory
from run_tokenizers import checksum, clock, documents

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).parent / "peers" / "run_tokenizers.py"
CORPORA = ("english", "multilingual", "code")
TRAINERS = ("gigatoken", "rustbpe", "bpeasy", "tokenizers")
ENCODERS = ("gigatoken", "fastokens", "tiktoken", "tokenizers")
MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); used = resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(used.ru_maxrss >> 10, used.ru_utime + used.ru_stime)"  # MB at the peak, CPU-seconds
)
ENCODE = (
    "import sys; from groundup.tokenizer.io import read_merges;"
    "print(sum(len(ids) for ids in read_merges(sys.argv[1]).encode_files(sys.argv[2:], threads=1)), 'ids')"
)
SLOW = {"tiktoken": 8 << 20, "tokenizers": 4 << 20}  # bytes for those who remember nothing: their speed is even
SIZE = 32_768


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what our own side of a job took; runs in a process of its own."""
    answer: dict[str, Any] = {}
    if job["do"] == "train":
        from groundup.tokenizer.texts import read_batches
        from groundup.tokenizer.train import train, train_batches

        train(["compiled before the clock starts"], 257, "gpt2", specials=())
        corpus, threads = read_batches(Path(job["corpus"])), job["threads"]  # read when the clock runs
        made, wall, cpu = clock(lambda: train_batches(corpus, SIZE, "gpt2", (), threads, job.get("memory_gb")))
        answer |= {"passes": [[wall, cpu]], "vocabulary": made.vocab_size}
    else:
        from groundup.tokenizer import encode
        from groundup.tokenizer.io import read_merges

        texts = documents(job["corpus"], job["bytes"])
        tokenizer = read_merges(job["merges"])
        tokenizer._asked = encode.WORTH_COMPILING
        read_merges(job["merges"])._engine.encode_texts(["a few words"])  # compiled before the clock starts
        assert tokenizer._engine  # the vocabulary's tables: the peers, too, have read theirs
        passes = []
        if job["do"] == "encode":
            for _ in range(job["passes"]):
                texts = documents(job["corpus"], job["bytes"])  # new strings: see the peers' side
                found, wall, cpu = clock(lambda: tokenizer.encode_batch(texts, job["threads"]))  # noqa: B023
                passes.append([wall, cpu])
            answer["tokens"], answer["crc"] = checksum(found)
        else:
            import zlib

            import numpy as np

            ids = np.concatenate(tokenizer.encode_batch(texts, 2))
            tokenizer.decode_bytes(np.resize(ids, encode.WORTH_JOINING + 1))  # loads the compiled code
            for _ in range(job["passes"]):
                joined, wall, cpu = clock(lambda: tokenizer.decode_bytes(ids))
                passes.append([wall, cpu])
            answer["crc"] = zlib.crc32(joined)
        answer |= {"passes": passes, "bytes": sum(len(text.encode()) for text in texts)}
    answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return answer


def ask(job: dict[str, Any], peer: str) -> dict[str, Any]:
    """Returns the answer of a new process to a job."""
    threads = str(job.get("threads", 2))
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    if threads == "1":
        environment["TOKENIZERS_PARALLELISM"] = "false"
    command = [sys.executable, __file__, "--serve"] if job["peer"] == "ours" else [peer, str(WORKER)]
    done = subprocess.run(
        command, input=json.dumps(job) + "\n", capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{job['peer']}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def vocabulary_files(folder: Path, data: Path) -> dict[str, str]:
    """Returns GPT-2's vocabulary in the formats that the peers read."""
    from groundup.tokenizer.io import read_merges, to_huggingface

    merges = data / "tokenizer" / "gpt2-vocab.bpe"
    tokenizer = read_merges(merges, specials=())
    usual = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "gpt2.json").write_text(json.dumps(to_huggingface(tokenizer) | {"pre_tokenizer": usual}))
    rows = (base64.b64encode(tokenizer.token_bytes(i)) + f" {i}\n".encode() for i in range(tokenizer.vocab_size))
    (folder / "gpt2.tiktoken").write_bytes(b"".join(rows))
    return {"json": str(folder / "gpt2.json"), "ranks": str(folder / "gpt2.tiktoken"), "merges": str(merges)}


def rates(turns: list[dict[str, Any]], number: int, which: int) -> list[float]:
    """Returns the MB/s of a pass (0 first, 1 second) in each turn, by the wall (0) or by processor seconds (1)."""
    return [turn["bytes"] / 1e6 / turn["passes"][number][which] for turn in turns]


def summary(values: list[float], best: Any = max) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "best": round(best(values), 3)}


def keep(args: argparse.Namespace, notes: dict[str, Any]) -> None:
    """Writes what was found so far: parts may run apart, or be stopped. A task is replaced whole: who took no turns isn't compared."""
    path = args.folder / ("quick.json" if args.quick else "figures.json")
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | notes, indent=1))


def part_train(args: argparse.Namespace, folder: Path, notes: dict[str, Any]) -> None:
    """Learns the vocabulary, each in turn."""
    from groundup.tokenizer.pattern import PATTERNS

    corpus = folder / ("english_8.txt" if args.quick else "english_64.txt")
    if args.quick:
        corpus.write_bytes((folder / "english_64.txt").read_bytes()[: 8 << 20].decode("utf-8", "ignore").encode())
    job = {"do": "train", "corpus": str(corpus), "size": SIZE, "pattern": PATTERNS["gpt2"]}
    for threads in args.threads:
        names = args.peers or list(TRAINERS)
        turns: dict[str, list] = {name: [] for name in ("ours", *names)}
        for turn in range(args.turns):
            for name, found in turns.items():
                if turn >= {"bpeasy": 1, "tokenizers": 1, "rustbpe": 3}.get(name, args.turns):
                    continue
                found.append(ask({**job, "peer": name, "threads": threads}, args.peer))
                print("train", threads, name, found[-1], flush=True)
        kept = notes.setdefault(f"train, {threads} threads", {})
        for name, found in turns.items():
            wall, cpu = zip(*(turn["passes"][0] for turn in found), strict=True)
            kept[name] = {"wall_s": summary(wall, min), "cpu_s": summary(cpu, min), "turns": len(found),
                          "peak_mb": max(turn["peak_mb"] for turn in found), "vocabulary": found[0]["vocabulary"]}  # fmt: skip
        keep(args, notes)


def part_encode(args: argparse.Namespace, folder: Path, notes: dict[str, Any], files: dict[str, str]) -> None:
    """Encodes the corpora, first and second pass, or decodes them."""
    from groundup.tokenizer.pattern import PATTERNS

    for corpus in args.corpora:
        for threads in args.threads:
            names = args.peers or list(ENCODERS)
            touch_memory()
            turns: dict[str, list] = {name: [] for name in ("ours", *names)}
            for turn in range(args.turns):
                for name, found in turns.items():
                    if name in SLOW and turn > 1:
                        continue
                    size = min(args.bytes, SLOW.get(name, args.bytes))
                    job = {"do": "encode", "peer": name, "corpus": str(folder / f"{corpus}_64.txt"), "bytes": size, "passes": 2,
                           "threads": threads, "pattern": PATTERNS["gpt2"], **files}  # fmt: skip
                    found.append(ask(job, args.peer))
                    assert name in SLOW or found[-1]["crc"] == turns["ours"][0]["crc"], f"{name}: other ids"
            kept = notes.setdefault(f"encode {corpus}, {threads} threads", {})
            for name, found in turns.items():
                kept[name] = {
                    "first_mb_s": summary(rates(found, 0, 0)), "second_mb_s": summary(rates(found, 1, 0)),
                    "first_mb_cpu_s": summary(rates(found, 0, 1)), "second_mb_cpu_s": summary(rates(found, 1, 1)),
                    "turns": len(found), "peak_mb": max(turn["peak_mb"] for turn in found),
                }  # fmt: skip
                print(corpus, threads, name, kept[name], flush=True)
            keep(args, notes)


def part_decode(args: argparse.Namespace, folder: Path, notes: dict[str, Any], files: dict[str, str]) -> None:
    """Decodes the ids of the corpora."""
    from groundup.tokenizer.pattern import PATTERNS

    for corpus in args.corpora:
        turns: dict[str, list] = {name: [] for name in ("ours", "gigatoken", "tiktoken")}
        for _ in range(args.turns):
            for name, found in turns.items():
                job = {"do": "decode", "peer": name, "corpus": str(folder / f"{corpus}_64.txt"), "bytes": args.bytes, "passes": 3,
                       "threads": 1, "pattern": PATTERNS["gpt2"], **files}  # fmt: skip
                found.append(ask(job, args.peer))
                assert found[-1]["crc"] == turns["ours"][0]["crc"], f"{name}: other bytes"
        kept = notes.setdefault(f"decode {corpus}", {})
        for name, found in turns.items():
            speeds = [
                [max(turn["bytes"] / 1e6 / p[which] for p in turn["passes"]) for turn in found] for which in (0, 1)
            ]
            kept[name] = {"mb_s": summary(speeds[0]), "mb_cpu_s": summary(speeds[1]), "turns": len(found)}
            print("decode", corpus, name, kept[name], flush=True)
        keep(args, notes)


def part_command(args: argparse.Namespace, folder: Path, notes: dict[str, Any]) -> None:
    """Whole commands: ours from the shell with a cold and a warm cache of compiled code, gigatoken's as a script."""
    corpus, kept = folder / "english_64.txt", notes.setdefault("commands", {})
    peer = f"import gigatoken; gigatoken.train_bpe(gigatoken.TextFileSource([{str(corpus)!r}]), {SIZE}, [])"
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "XDG_CACHE_HOME": scratch}
        groundup = [sys.executable, "-m", "groundup", "tokenizer"]
        learn = [
            *groundup,
            "train",
            f"{scratch}/p",
            "--input",
            str(corpus),
            "--vocab-size",
            str(SIZE),
            "--pattern",
            "gpt2",
        ]
        commands = {
            "train, cold": learn,
            "train, warm": learn,
            "train, gigatoken": [args.peer, "-c", peer],
            "encode a word": [*groundup, "encode", f"{scratch}/p", "hello world"],
        }
        for name, command in commands.items():
            times = []
            for _ in range(1 if name == "train, cold" else 3):
                if name in ("train, cold", "train, warm"):
                    shutil.rmtree(f"{scratch}/p", ignore_errors=True)
                start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                times.append((time.perf_counter() - start, used))
            wall, cpu = zip(*times, strict=True)
            kept[name] = {"wall_s": summary(wall, min), "cpu_s": summary(cpu, min)}
            print(name, kept[name], flush=True)
    keep(args, notes)


def part_hostile(args: argparse.Namespace, folder: Path, notes: dict[str, Any], files: dict[str, str]) -> None:
    """Text that is meant to hurt, 300 kB and ten times as much; a line of 100 MB; what all of it takes of memory."""
    from groundup.tokenizer.io import read_merges
    from groundup.tokenizer.texts import pack

    tokenizer = read_merges(files["merges"])
    tokenizer._engine.encode_texts(["a few words"])
    texts = {
        "one letter": "a" * 300_000, "one emoji, joined": "🙂\u200d" * 42_857, "spaces": " " * 300_000, "line feeds": "\n" * 300_000,
        "one random word": "".join(random.Random(0).choices("abcdefgh", k=300_000)),
        "random bytes": random.Random(1).randbytes(300_000).decode("utf-8", "replace"),
    }  # fmt: skip
    kept = notes.setdefault("hostile, CPU-seconds", {})
    for name, text in texts.items():
        for times in (1, 10):
            batch = pack([text * times])
            _, _, cpu = clock(lambda batch=batch: tokenizer._engine.encode(batch))
            kept[f"{name}, {int(batch.edges[-1]) / 1e6:.1f} MB"] = round(cpu, 4)
    line = (folder / "english_64.txt").read_text(encoding="utf-8").replace("\n", " ")
    _, _, cpu = clock(lambda: tokenizer.encode_batch([(line + line)[:100_000_000]], 2))
    kept["a line of 100 MB"] = round(cpu, 3)
    _, _, cpu = clock(lambda: tokenizer.encode_batch(["a" * 10_000_000], 2))
    kept["a word of 10 MB"] = round(cpu, 3)
    kept["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(kept, flush=True)
    keep(args, notes)


def measured(command: list[str], paths: list[Path]) -> dict[str, Any]:
    """Returns what a command on some files took, and what it said."""
    before = time.perf_counter()
    whole = [sys.executable, "-c", MEASURE, *command, *map(str, paths)]
    done = subprocess.run(whole, check=True, capture_output=True, text=True, cwd=ROOT)
    *said, (peak, cpu) = *done.stdout.splitlines()[:-1], map(float, done.stdout.splitlines()[-1].split())
    return {
        "corpus_bytes": sum(file.stat().st_size for path in paths for file in ([path] if path.is_file() else path.iterdir())),
        "wall_s": round(time.perf_counter() - before, 1), "cpu_s": round(cpu, 1), "peak_mb": int(peak),
        "said": [line for line in said if "GiB" in line or line.endswith(" ids")],
    }  # fmt: skip


def part_memory(args: argparse.Namespace, folder: Path, notes: dict[str, Any], files: dict[str, str]) -> None:
    """A vocabulary from 1 GB of different text, within 4 GiB and within half a GiB; and from text that is all different words.
    Then the same text encoded by `encode_files`, as thousands of files and as one.

    The text: benchmarks/corpora.py --megabytes 1024 --corpora english multilingual code documentation. One thread.
    """
    import numpy as np

    kept = notes.setdefault("1 GB of text", {})
    real = [folder / f"{corpus}_1024.txt" for corpus in (*CORPORA, "documentation")]
    if args.quick:
        real = real[1:2]
    with tempfile.TemporaryDirectory() as scratch:
        unlike = Path(scratch) / "unlike.txt"  # the worst case: random words, of which hardly two are equal
        letters = np.random.default_rng(0).integers(97, 113, ((20 if args.quick else 200) << 17, 9), np.uint8)
        letters[:, 8] = 10  # a line feed
        letters.tofile(unlike)
        for name, paths, bound in (("4", real, 4), ("0.5", real, 0.5), ("0.5, random words", [unlike, real[0]], 0.5)):
            command = [sys.executable, "-m", "groundup", "tokenizer", "train", f"{scratch}/{name}", "--threads", "1", "--memory-gb",
                       str(bound), "--vocab-size", str(SIZE), "--input"]  # fmt: skip
            kept[f"--memory-gb {name}"] = measured(command, paths)
            print(name, kept[f"--memory-gb {name}"], flush=True)
        one, many = Path(scratch) / "one.txt", Path(scratch) / "many"
        many.mkdir()
        with one.open("wb") as whole:
            for path in real:
                with path.open("rb") as stream:
                    while piece := stream.read(1 << 18) + stream.readline():
                        whole.write(piece)
                        (many / f"{whole.tell():012}.txt").write_bytes(piece)
        for path in (many, one):
            kept[f"encode_files, {path.stem}"] = measured([sys.executable, "-c", ENCODE, files["merges"]], [path])
            print(kept[f"encode_files, {path.stem}"], flush=True)
    keep(args, notes)


def claims(notes: dict[str, Any], megabytes: int) -> list[dict[str, Any]]:
    """Prints and returns one claim a line, from what the parts have found."""
    found = []

    def of(task: str, figure: str, which: str = "median") -> dict[str, float]:
        return {name: values[figure][which] for name, values in notes[task].items()}

    def add(text: str, task: str, figure: str, unit: str, higher: bool, which: str = "median") -> None:
        values = of(task, figure, which)
        turns = notes[task]["ours"].get("turns", 5)
        found.append(claim(f"{text} ({which})", values.pop("ours"), values, unit, turns, higher=higher))

    for task in notes:
        if task.startswith("train"):
            for figure, unit in (("cpu_s", "CPU-seconds"), ("wall_s", "seconds")):
                add(f"{task}: {SIZE} ids from {megabytes} MB of English", task, figure, unit, False)
        elif task.startswith("encode"):
            for number, which in product(("first", "second"), ("median", "best")):
                add(f"{task}, {number} pass, GPT-2", task, f"{number}_mb_cpu_s", "MB per CPU-second", True, which)
                if "2 threads" in task:
                    add(f"{task}, {number} pass, GPT-2", task, f"{number}_mb_s", "MB/s", True, which)
        elif task.startswith("decode"):
            add(f"{task}, GPT-2", task, "mb_cpu_s", "MB per CPU-second", True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("GROUNDUP_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--peer", help="the Python of the peers' environment")
    parser.add_argument("--folder", type=Path, help="where benchmarks/corpora.py wrote")
    parser.add_argument("--part", nargs="+", default=["train", "encode", "decode", "command"])
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="+", help="only these")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=32 << 20)
    parser.add_argument("--quick", action="store_true", help="8 MB, two turns, the fastest peers")
    parser.add_argument("--save", action="store_true", help="write the result from what the parts have found")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        print(json.dumps(ours(json.loads(sys.stdin.readline()))))
        return
    if args.quick:
        args.turns, args.bytes, args.peers = 2, 8 << 20, args.peers or ["gigatoken", "fastokens"]
    kept = args.folder / ("quick.json" if args.quick else "figures.json")
    notes: dict[str, Any] = json.loads(kept.read_text()) if args.save else {}
    if not args.save:
        files = vocabulary_files(args.folder, data)
        if "train" in args.part:
            trainers = argparse.Namespace(**{**vars(args), "peers": [p for p in args.peers or () if p in TRAINERS]})
            part_train(trainers, args.folder, notes)
        for part in (part_encode, part_decode, part_hostile, part_memory):
            if part.__name__.removeprefix("part_") in args.part:
                part(args, args.folder, notes, files)
        if "command" in args.part:
            part_command(args, args.folder, notes)
        notes = json.loads(kept.read_text())
    found = claims(notes, 8 if args.quick else 64)
    if args.save:
        print(save("tokenizer", {"claims": found, "figures": notes}))


if __name__ == "__main__":
    main()
