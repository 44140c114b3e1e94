"""Recall and precision of near-duplicate removal on planted near-duplicates, by how much of them was edited; with a plot.

    python benchmarks/dedup_recall.py [--quick]

Each text is planted a second time with a share of its words replaced, deleted or inserted. Recall: the share of planted copies of which one
of the two leaves. Precision: the share of links between documents that were planted, all others being different texts.
Writes benchmarks/results/dedup_recall_HARDWARE_DATE.json and .png.
"""

import argparse
import json
import random
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from documents import BOOKS
from machine import save

from groundup.data.config import BuildConfig, DedupConfig
from groundup.data.dedup import Member, find_near, rank
from groundup.data.engine import workers
from groundup.data.minhash import hash_functions, sign

RATES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2)
SETTINGS = {"groundup (20 bands of 6, similarity 0.7)": DedupConfig(),
            "FineWeb's (14 bands of 8, any shared band)": DedupConfig(bands=14, rows=8, min_similarity=0.0)}  # fmt: skip


def edited(words: list[str], rate: float, dice: random.Random) -> list[str]:
    """Returns the words with a share of them replaced, deleted or followed by another one."""
    out: list[str] = []
    for word in words:
        if dice.random() >= rate:
            out.append(word)
        elif (what := dice.randrange(3)) == 0:
            out.append(dice.choice(words))
        elif what == 1:
            out += [word, dice.choice(words)]
    return out


def jaccard(one: list[str], two: list[str], n: int = 5) -> float:
    """Returns the similarity of two texts' sets of runs of n words."""
    a, b = ({tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in (one, two))
    return len(a & b) / max(len(a | b), 1)


def member(texts: list[str], start: int, dedup: DedupConfig) -> Member:
    """Returns the signatures of some texts."""
    signed = sign(texts, dedup.ngram, hash_functions(dedup.bands * dedup.rows, dedup.seed), np.zeros(0, np.uint64), 5)
    ranks = rank(np.zeros(len(texts), bool), np.zeros(len(texts), np.int64), np.full(len(texts), np.nan))
    return Member(
        np.arange(start, start + len(texts), dtype=np.uint64), ranks, np.zeros((0, 2), np.uint64), signed.signatures
    )


def measure(pairs: list[tuple[str, str]], dedup: DedupConfig) -> tuple[float, int]:
    """Returns the share of pairs that were found, and how many links there are that weren't planted. Text k and its copy are 2k, 2k + 1."""
    texts = [text for pair in pairs for text in pair]
    with tempfile.TemporaryDirectory() as folder, workers(1, lambda: None, ()) as run_map:
        members = [partial(member, texts[at : at + 400], at, dedup) for at in range(0, len(texts), 400)]
        drops = find_near(run_map, members, len(texts), Path(folder), replace(BuildConfig(), dedup=dedup))
    group = np.arange(len(texts))
    group[drops["doc"].astype(int)] = drops["kept"].astype(int)
    found = int((group[0::2] == group[1::2]).sum())
    return found / len(pairs), len(drops) - found


def plot(rows: list[dict], path: Path) -> None:
    """Draws recall over the edit rate, with the curve that the bands predict."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    for colour, (name, dedup) in zip(("#1b6ca8", "#c8553d"), SETTINGS.items()):
        mine = [row for row in rows if row["setting"] == name]
        axes.plot([100 * r["edited"] for r in mine], [100 * r["recall"] for r in mine], "o-", color=colour, label=name)
        if not dedup.min_similarity:
            axes.plot(
                [100 * r["edited"] for r in mine],
                [100 * r["predicted"] for r in mine],
                ":",
                color=colour,
                label="  as its bands predict",
            )
    axes.axhline(100, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set(xlabel="words edited in the planted copy (%)", ylabel="planted copies found (%)", ylim=(0, 104),
             title="Near-duplicates found, by how much was edited")  # fmt: skip
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    words = BOOKS.read_text(encoding="utf-8", errors="replace").split()
    length = 400
    base = [words[at : at + length] for at in range(0, len(words) - length, length)][: 200 if quick else 1000]
    rows, dice = [], random.Random(1)
    for rate in RATES:
        copies = [edited(text, rate, dice) for text in base]
        alike = np.array([jaccard([w.lower() for w in a], [w.lower() for w in b]) for a, b in zip(base, copies)])
        for name, dedup in SETTINGS.items():
            recall, others = measure([(" ".join(a), " ".join(b)) for a, b in zip(base, copies)], dedup)
            found = round(recall * len(base))
            rows.append({"setting": name, "edited": rate, "jaccard": round(float(alike.mean()), 3), "recall": recall,
                         "precision": found / (found + others) if found + others else None,
                         "predicted": float((1 - (1 - alike**dedup.rows) ** dedup.bands).mean())})  # fmt: skip
    ours = [row for row in rows if row["setting"] == next(iter(SETTINGS)) and row["jaccard"] >= 0.7]
    recall, precision = min(row["recall"] for row in ours), min(row["precision"] for row in ours)
    claims = [{"claim": "planted near-duplicates of Jaccard similarity 0.7 and more that are found (worst edit rate)", "ours": recall,
               "peers": {}, "ratio": None, "unit": "share", "n": len(base)},
              {"claim": "links that were planted (worst edit rate)", "ours": precision, "peers": {},
               "ratio": None, "unit": "share", "n": len(base)}]  # fmt: skip
    path = (
        save("dedup_recall", {"rows": rows, "claims": claims})
        if not quick
        else Path(tempfile.gettempdir()) / "dedup_recall.json"
    )
    plot(rows, path.with_suffix(".png"))
    for found_ in claims:
        print(json.dumps(found_))


if __name__ == "__main__":
    main()
