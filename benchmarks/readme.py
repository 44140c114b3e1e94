"""Writes the README's tables from the newest results in benchmarks/results; `--check` fails when the README says something else."""

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKED = {name: re.compile(rf"(<!-- {name}:begin -->\n).*(<!-- {name}:end -->)", re.S) for name in ("results", "peers")}
MEASURES = ("bits_per_byte", "exact_match", "sample_at_1", "pass_at_8")
# What the README shows of each benchmark: how the claim begins, its unit, and how a reader would call it.
SHOWN = (
    ("tokenizer", "train, 1 threads", "CPU-seconds", "learning 32,768 tokens from 64 MB, one thread"),
    (
        "tokenizer",
        "encode english, 1 threads, first pass",
        "MB per CPU-second",
        "encoding English, first pass, one thread",
    ),
    ("tokenizer", "encode english, 1 threads, second pass", "MB per CPU-second", "the same text again"),
    ("tokenizer", "encode english, 2 threads, first pass", "MB/s", "encoding English, first pass, two threads"),
    ("tokenizer", "decode english", "MB per CPU-second", "decoding English"),
    ("curation", "FineWeb's filters", "MB/s", "FineWeb's filters, one core, equal decisions"),
    ("curation", "MinHash", "MB/s", "MinHash duplicates, one core, equal decisions"),
    ("curation", "WARC to deduplicated Parquet, seconds", "s", "WARC to deduplicated Parquet, two processes"),
    ("pretrain", "training tokens", "tokens/s", "training the 10.7M Shakespeare shape, two cores"),
    ("checkpoint-kills", "checkpoints whole", "times", "checkpoints whole after 200 kills during writes"),
)


def newest(name: str) -> dict[str, Any]:
    """Returns the newest result of a benchmark with its file's name, of two of a day the one with more in it; {} where there is none."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) | {"file": path.name}
        for path in HERE.glob(f"results/{name}_*.json")
    ]
    return max(found, key=lambda result: (result["date"], len(str(result.get("runs", "")))), default={})


def peers() -> str:
    """Returns the table of what was measured beside others."""
    lines = ["| task | unit | groundup | the best peer | ratio |", "|---|---|--:|--:|--:|"]
    for name, beginning, unit, called in SHOWN:
        for claim in newest(name).get("claims", []):
            if claim["claim"].startswith(beginning) and claim["unit"] == unit and "(best)" not in claim["claim"]:
                lower = unit == "s" or ("second" in unit and not unit.startswith("MB"))
                peer, best = (min if lower else max)(claim["peers"].items(), key=lambda entry: entry[1])
                lines.append(
                    f"| {called} | {unit} | {claim['ours']:.3g} | {best:.3g} ({peer}) | {claim['ratio']:.2f} |"
                )
                break
    return "\n".join(lines) + "\n"


def table() -> str:
    """Returns the table's Markdown: the median seed's stages, and each claim's worst seed."""
    result = newest("demo")
    runs = sorted(result["runs"], key=lambda run: run["stages"]["grpo"]["sample_at_1"])
    median = runs[(len(runs) - 1) // 2]  # of an even number the lower one
    lines = [
        f"`make demo` on two cores ({result['hardware'].rpartition(' x')[0]}), {result['date']}, seed {median['seed']},",
        f"the (lower) median of {len(runs)} seeds; all of them are in `benchmarks/results/{result['file']}`.",
        "1,024 held-out problems of eight skills;",
        f"no model can need fewer than {median['entropy_floor_bits_per_byte']:.3f} bits for a byte of the held-out text.",
        "",
        "| stage | bits per byte | exact match | sample@1 | pass@8 |",
        "|---|--:|--:|--:|--:|",
        *(f"| {name} | " + " | ".join(f"{stage[m]:.3f}" for m in MEASURES) + " |" for name, stage in median["stages"].items()),
        "",
        "| promise | target | worst seed |",
        "|---|--:|--:|",
        *(f"| {claim['claim']} ({claim['unit']}) | {claim['target']:g} | {claim['ours']:.3g} |" for claim in result["claims"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes or checks."""
    text = README.read_text(encoding="utf-8")
    fresh = text
    for name, content in (("results", table()), ("peers", peers())):
        fresh = MARKED[name].sub(lambda found, content=content: found[1] + content + found[2], fresh)
    if sys.argv[1:] == ["--check"]:
        if fresh != text:
            sys.exit("README.md's tables aren't the newest results'; run `make docs`")
    else:
        README.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
