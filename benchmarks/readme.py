"""Writes the README's table from the newest result in benchmarks/results; `--check` fails when the README says something else."""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKED = re.compile(r"(<!-- results:begin -->\n).*(<!-- results:end -->)", re.S)
MEASURES = ("bits_per_byte", "exact_match", "sample_at_1", "pass_at_8")


def table() -> str:
    """Returns the table's Markdown: the median seed's stages, and each claim's worst seed."""
    results = {path: json.loads(path.read_text(encoding="utf-8")) for path in HERE.glob("results/demo_*.json")}
    newest = max(results, key=lambda path: (results[path]["date"], len(results[path]["runs"])))
    result = results[newest]
    runs = sorted(result["runs"], key=lambda run: run["stages"]["grpo"]["sample_at_1"])
    median = runs[(len(runs) - 1) // 2]  # of an even number the lower one
    lines = [
        f"`make demo` on two cores ({result['hardware'].rpartition(' x')[0]}), {result['date']}, seed {median['seed']},",
        f"the (lower) median of {len(runs)} seeds; all of them are in `benchmarks/results/{newest.name}`.",
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
    fresh = MARKED.sub(lambda found: found[1] + table() + found[2], text)
    if sys.argv[1:] == ["--check"]:
        if fresh != text:
            sys.exit("README.md's table isn't the newest result's; run `make docs`")
    else:
        README.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
