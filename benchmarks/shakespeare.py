"""Minutes to a loss on tiny Shakespeare's validation text, two CPU cores, groundup beside nanoGPT; writes benchmarks/results/shakespeare_*.

    python benchmarks/shakespeare.py --text tinyshakespeare.txt --nanogpt DIR                        all of it, in the order below
    python benchmarks/shakespeare.py --text tinyshakespeare.txt --nanogpt DIR --part tune --limit 9  nine minutes; again, and it goes on
    python benchmarks/shakespeare.py --text tinyshakespeare.txt --quick                              ours alone; nothing written

tune     nanoGPT patched (bf16 autocast, compiled, fused AdamW): 100 steps at each of four rates, judged on the training text's last tenth
nanogpt  its best rate once more on the whole training text, until 1.60 or until its schedule ends
readme   the settings that nanoGPT's README gives for a CPU (0.8M parameters, 2,000 steps), as shipped
speed    seconds a step of nanoGPT as shipped and patched, in turns
ours     `groundup pretrain --config shakespeare_bpe`: a run planned for each loss, each seed

Losses don't depend on what else the machine does, times do: give `speed`, `readme` and `ours` a quiet one. nanoGPT's minutes are its
steps to a loss times its measured seconds a step, and compiling where it is patched; its looks at the validation text aren't charged.
Ours are by the wall, from the start of the command to the look that finds the loss: start, compiling (if any), looks and samples
included. Where nanoGPT's curve ends above a loss, the minutes to its end are a lower bound, and the claim says "more than".

Both losses are means over the whole validation text (the last tenth) in windows that don't overlap, in nats per byte. nanoGPT reads
characters (the text is ASCII: a byte each); ours reads tokens of about three bytes, learned from the training text, and its mean is
multiplied by the tokens per byte. Our recipe was chosen on the training text's last tenth; the validation text is for the result alone.
"""

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import claim, save

from groundup.base.files import read_json, write_json
from groundup.cli import main as groundup

PARTS = ("tune", "nanogpt", "readme", "speed", "ours")
TARGETS = {1.88: 20, 1.60: 75, 1.50: 120, 1.4697: 165}  # and the steps that our recipe is given for it
HALF_AN_HOUR = 30.0  # minutes
VOCABULARY = 2048
RATES = (5e-4, 1e-3, 2e-3, 4e-3)
TUNE_STEPS, CURVE_STEPS, LOOK_EVERY = 100, 1000, 50
SHIPPED, PATCHED, README = "nanoGPT as shipped", "nanoGPT patched", "nanoGPT, README's CPU settings"
README_JOB = {
    "shape": {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64}, "batch": 12, "steps": 2000, "lr": 1e-3, "patched": False,
    "eval_every": 250,
}  # fmt: skip


class Pieces:
    """What is done lies in a folder, a file a piece; what isn't is done until the time is up."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.folder, self.end = asked, asked.folder, time.monotonic() + asked.limit * 60
        size = asked.text.stat().st_size
        self.train_bytes = int(0.9 * size)
        self.eval_bytes = size - self.train_bytes

    def nanogpt(self, name: str, **job: Any) -> list[dict[str, float]] | None:
        """Returns the rows of a run of nanoGPT's, or None where the time isn't enough to end it."""
        file = self.folder / f"{name}.json"
        if not self.rows(name)["done"]:
            write_json(file, {"text": str(self.asked.text.resolve()), "eval_every": LOOK_EVERY, "patched": True} | job)
            self.peer(str(file))
        found = self.rows(name)
        return found["rows"] if found["done"] else None

    def rows(self, name: str) -> dict[str, Any]:
        """Returns {"done", "rows"}: what there is of a run of nanoGPT's."""
        file = self.folder / f"{name}.rows.json"
        return read_json(file) if file.exists() else {"done": False, "rows": []}

    def peer(self, *words: str) -> str:
        """Returns what benchmarks/peers/run_nanogpt.py says; "" where the time was up (it goes on from its last saved state)."""
        script = Path(__file__).parent / "peers" / "run_nanogpt.py"
        environment = os.environ | {"OMP_NUM_THREADS": str(self.asked.threads), "OMP_WAIT_POLICY": "passive"}
        try:
            done = subprocess.run([sys.executable, script, self.asked.nanogpt, *words], env=environment, check=True, text=True,
                                  stdout=subprocess.PIPE, timeout=max(1.0, self.end - time.monotonic()))  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout

    def tune(self) -> float | None:
        """Returns the best learning rate, by the last tenth of the training text; None where the time was up."""
        shown = int(0.9 * self.train_bytes)
        lengths = {
            "train_bytes": shown,
            "eval_bytes": self.train_bytes - shown,
            "steps": TUNE_STEPS,
            "eval_every": TUNE_STEPS,
        }
        found = {lr: self.nanogpt(f"tune-{lr:g}", lr=lr, **lengths) for lr in RATES}
        if not all(found.values()):
            return None
        losses = {lr: rows[-1]["heldout"] for lr, rows in found.items() if rows}
        print(", ".join(f"lr {lr:g}: {loss:.4f}" for lr, loss in losses.items()), f"after {TUNE_STEPS} steps")
        return min(losses, key=lambda lr: losses[lr])

    def curve(self) -> list[dict[str, float]] | None:
        """Returns nanoGPT's losses on the validation text."""
        if (lr := self.asked.rate or self.tune()) is None:
            return None
        return self.nanogpt(
            "curve",
            lr=lr,
            train_bytes=self.train_bytes,
            eval_bytes=self.eval_bytes,
            steps=self.asked.curve_steps,
            until=1.60,
        )

    def readme(self) -> list[dict[str, float]] | None:
        """Returns the losses and wall times of the README's settings."""
        return self.nanogpt("readme", train_bytes=self.train_bytes, eval_bytes=self.eval_bytes, **README_JOB)

    def speed(self) -> dict[str, Any] | None:
        """Returns nanoGPT's seconds a step."""
        file = self.folder / "speed.json"
        if not file.exists() and (said := self.peer("--speed")):
            write_json(file, json.loads(said.splitlines()[-1]))
        return read_json(file) if file.exists() else None

    def ours(self, target: float, seed: int, steps: int) -> dict[str, Any] | None:
        """Returns the looks of our run for a loss: {"rows": [{"step", "minutes", "loss"}], ...}."""
        file = self.folder / f"ours-{target:g}-{seed}.json"
        if not file.exists() and time.monotonic() < self.end:
            write_json(file, train(self.project(), f"loss-{target:g}-seed-{seed}", steps, seed, self.asked.threads))
        return read_json(file) if file.exists() else None

    def project(self) -> Path:
        """Returns the project with the text's token files; making them takes seconds, which aren't counted."""
        project: Path = self.folder / "project"
        if not (project / "03-shards/main/run.json").exists():
            for words in (
                f"data build {project} --input {self.asked.text} --filters none --split tail --heldout 0.1 --read.max-chars 10000000",
                f"tokenizer train {project} --vocab-size {VOCABULARY}",
                f"shards {project}",
            ):
                if groundup(words.split()):
                    raise SystemExit(f"groundup {words} failed")
        return project


def train(project: Path, name: str, steps: int, seed: int, threads: int) -> dict[str, Any]:
    """Returns the looks of one run of ours at the held-out text, with the minutes since its command began."""
    metrics = project / "05-pretrain" / name / "metrics.jsonl"
    words = f"pretrain {project} --config shakespeare_bpe --name {name} --fresh --threads {threads}"
    words += f" --train.steps {steps} --train.seed {seed}"
    rows: list[dict[str, float]] = []
    shutil.rmtree(metrics.parent, ignore_errors=True)  # what another run left would be taken for this one's
    with tempfile.TemporaryDirectory() as cache:
        began, before = time.perf_counter(), spent_s()
        process = subprocess.Popen(
            [sys.executable, "-m", "groundup", *words.split()], env=os.environ | {"XDG_CACHE_HOME": cache}
        )
        while process.poll() is None or len(rows) < len(looks(metrics)):
            for row in looks(metrics)[len(rows) :]:
                loss = row["bits_per_byte"] * math.log(2)
                rows.append({"step": row["step"], "minutes": (time.perf_counter() - began) / 60, "loss": loss})
                print(f"{name}: {loss:.4f} after {rows[-1]['minutes']:.2f} minutes", flush=True)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"groundup {words} failed")
    results = read_json(metrics.parent / "run.json")["results"]
    return {
        "steps": steps,
        "seed": seed,
        "params": results["params"],
        "tokens_per_s": results["tokens_per_s"],
        "cpu_s": spent_s() - before,
        "rows": rows,
    }


def spent_s() -> float:
    """Returns the CPU-seconds of all commands that have ended: on a machine that others use they say more than minutes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def looks(metrics: Path) -> list[dict[str, Any]]:
    """Returns the rows with a held-out loss, of those that are written whole."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    return [row for row in map(json.loads, lines) if "heldout_loss" in row]


def reached(rows: list[dict[str, float]], target: float, what: str = "minutes") -> float | None:
    """Returns the minutes at which a curve comes to the target, on a straight line between two looks; None if it never does."""
    before = None
    for row in rows:
        if row["loss"] <= target:
            if before is None or before["loss"] <= target:
                return row[what]
            share = (before["loss"] - target) / (before["loss"] - row["loss"])
            return before[what] + share * (row[what] - before[what])
        before = row
    return None


def curves(pieces: Pieces) -> dict[str, list[dict[str, float]]]:
    """Returns nanoGPT's losses by minutes and CPU-seconds, of what is done."""
    found, speed = {}, pieces.folder / "speed.json"
    if speed.exists():
        seconds = read_json(speed)
        for name, key in ((SHIPPED, "as shipped"), (PATCHED, "patched")):
            compiling = seconds["patched, first step"] - seconds["patched"] if key == "patched" else 0.0
            found[name] = [
                {
                    "step": row["step"],
                    "minutes": (compiling + row["step"] * seconds[key]) / 60,
                    "cpu_s": compiling + row["step"] * seconds["cpu_s"][key],
                    "loss": row["heldout"],
                }
                for row in pieces.rows("curve")["rows"]
            ]
    found[README] = [
        {"step": row["step"], "minutes": row["wall_s"] / 60, "cpu_s": row["cpu_s"], "loss": row["heldout"]}
        for row in pieces.rows("readme")["rows"]
    ]
    return {name: rows for name, rows in found.items() if rows}


def fastest(runs: list[dict[str, Any]], target: float) -> list[dict[str, Any]]:
    """Returns for each seed {"minutes", "cpu_s"} of the run that was first at the loss, of those planned for it or for a lower one."""
    found: dict[int, dict[str, Any]] = {}
    for run in runs:
        minutes = next((row["minutes"] for row in run["rows"] if row["loss"] <= target), None)
        if minutes is not None and minutes < found.get(run["seed"], {"minutes": math.inf})["minutes"]:
            found[run["seed"]] = {"minutes": minutes, "cpu_s": run["cpu_s"]}
    return list(found.values())


def compare(
    target: float, runs: list[dict[str, Any]], peers: dict[str, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    """Returns the claims for one loss; none where a seed of ours missed it or nanoGPT wasn't run."""
    first = fastest(runs, target)
    if len(first) < len({run["seed"] for run in runs}) or not first or not peers:
        return []
    claims = []
    for what, unit in (("minutes", "minutes"), ("cpu_s", "CPU-seconds")):
        theirs = {}
        for name, rows in peers.items():
            found = reached(rows, target, what)
            theirs[name if found is not None else f"{name}, more than"] = rows[-1][what] if found is None else found
        ours = statistics.median(run[what] for run in first)
        claims.append(claim(f"{unit} to {target} nats per byte", ours, theirs, unit, len(first), higher=False))
    return claims


def summarise(pieces: Pieces) -> None:
    """Prints the table and the claims, and writes result and plot."""
    peers = curves(pieces)
    runs = {
        target: [read_json(file) for file in sorted(pieces.folder.glob(f"ours-{target:g}-*.json"))]
        for target in TARGETS
    }
    for target, done in runs.items():
        for run in done:
            end = run["rows"][-1]
            print(f"planned for {target}: {end['loss']:.4f} in {end['minutes']:.2f} min, {run['cpu_s']:.0f} CPU-s")
    everything = [run for done in runs.values() for run in done]
    claims = [claim for target in TARGETS for claim in compare(target, everything, peers)]
    ends = [run["rows"][-1] | {"seed": run["seed"]} for run in everything]
    lowest = min((end for end in ends if end["minutes"] <= HALF_AN_HOUR), key=lambda end: end["loss"], default=None)
    if lowest:
        print(
            f"the lowest within half an hour: {lowest['loss']:.4f} nats per byte after {lowest['minutes']:.2f} minutes"
        )
    tuning = {f"{lr:g}": rows[-1]["heldout"] for lr in RATES if (rows := pieces.rows(f"tune-{lr:g}")["rows"])}
    speed = pieces.folder / "speed.json"
    seconds = read_json(speed) if speed.exists() else {}
    file = save(
        "shakespeare",
        {
            "curves": peers,
            "ours": runs,
            "lowest_in_half_an_hour": lowest,
            "tuning": tuning,
            "nanogpt_s": seconds,
            "claims": claims,
        },
    )
    plot(peers, everything, file.with_suffix(".png"))
    print(file)


def plot(peers: dict[str, list[dict[str, float]]], runs: list[dict[str, Any]], file: Path) -> None:
    """Draws loss against minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rows in peers.items():
        axes.plot([row["minutes"] for row in rows], [row["loss"] for row in rows], label=name)
    ends = [run["rows"][-1] for run in runs]
    axes.plot(
        [row["minutes"] for row in ends], [row["loss"] for row in ends], "k.", label="groundup, a run for each loss"
    )
    for target in TARGETS:
        axes.axhline(target, color="0.85", zorder=0)
    axes.set(xscale="log", xlabel="minutes on two CPU cores", ylabel="validation loss, nats per byte", ylim=(1.3, 2.6))
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Does the parts asked for that aren't done, and sums up what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, required=True, help="tiny Shakespeare, as `groundup data get tinyshakespeare` leaves it"
    )
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="nanoGPT's learning rate for its curve, not tuned (0: tuned)"
    )
    parser.add_argument("--curve-steps", type=int, default=CURVE_STEPS, help="the length of its schedule")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--targets", type=float, nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limit", type=float, default=600.0, help="minutes, after which nothing new is begun")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path.home() / ".cache/groundup/benchmarks/shakespeare",
        help="what is done is kept here",
    )
    parser.add_argument("--quick", action="store_true", help="ours alone, 40 steps; nothing written")
    asked = parser.parse_args()
    if asked.quick:
        with tempfile.TemporaryDirectory() as folder:
            asked.folder = Path(folder)
            Pieces(asked).ours(1.88, 1, 40)
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    pieces = Pieces(asked)
    for name, part in (
        ("tune", pieces.tune),
        ("nanogpt", pieces.curve),
        ("readme", pieces.readme),
        ("speed", pieces.speed),
    ):
        if name in asked.part and asked.nanogpt:
            part()
    if "ours" in asked.part:
        for target in asked.targets:
            for seed in asked.seeds:
                pieces.ours(target, seed, TARGETS[target])
    summarise(pieces)


if __name__ == "__main__":
    main()
