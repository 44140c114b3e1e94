"""Faults of speed: steps that wait for their batch, a machine that is half used, a run that would take weeks."""

import math
import os
import statistics
from collections.abc import Iterator
from typing import Any

from groundup.base.log import command, duration, quantity
from groundup.doctor.facts import Facts
from groundup.doctor.finding import Finding
from groundup.plan.cost import hardware
from groundup.plan.memory import training_bytes

__all__ = ["idle", "layouts", "slowing", "waiting", "weeks"]

WAIT = 0.25  # of a step: a quarter of the time could be had by reading ahead
WEEK_S = 7 * 86400.0
SLOWED = 2.0  # times: something else has taken half of the machine
TOGETHER = 0.9  # of n devices' speed is left when n of them work together; public reports say 0.90 to 0.98
COUNTS = (1, 8, 64)


def waiting(facts: Facts) -> Finding | None:
    """Steps of pretraining spend more than a quarter of their time on getting their batch.

    It should be under a hundredth: token files are read from a memory map. (What is generated in GRPO is no waiting.)
    """
    pairs = [
        (r["loader_s"], r["tokens_per_s"])
        for r in facts.rows
        if r.get("loader_s") is not None and r.get("tokens_per_s")
    ]
    if not facts.pretraining or not pairs:
        return None
    share = statistics.median(s * rate / facts.loop.batch_tokens for s, rate in pairs)
    if share < WAIT:
        return None
    seconds = statistics.median(s for s, _ in pairs)
    seen = [f"{share:.0%} of a step, {1000 * seconds:.0f} ms, go into getting its batch"]
    folder = facts.corpus.folder if facts.corpus else "the token files"
    return Finding(
        seen,
        f"the disk is too slow: {folder} should lie on a local one",
        commands=[command("machine", "--folder", folder)],
    )


def idle(facts: Facts) -> Finding | None:
    """Half of the machine or more had nothing to do: as many threads as half the cores or fewer, fp32 on a GPU, or a GPU that
    wasn't used.

    A factor of two is at stake. It is a note where the user asked for it himself (`threads`, `device`, `precision`).
    """
    results, config, info = facts.info.get("results", {}), facts.config, facts.info
    threads, cores, device = results.get("threads"), _cores(info.get("cpus") or 0), results.get("device", "cpu")
    seen: list[str] = []
    changes: dict[str, Any] = {}
    asked = False
    if device == "cpu" and threads and cores and 2 * threads <= cores:
        said = f"--threads {config.threads}" if config.threads else "OMP_NUM_THREADS or the process's cores"
        seen.append(f"{threads} of {cores} cores were used ({said})")
        changes["threads"] = 0
        asked = asked or 0 < config.threads == threads
    if device == "cpu" and _gpu():
        seen.append(f"there is a GPU here, the run was on the CPU (device {config.device})")
        changes["device"] = "auto"
        asked = asked or config.device == "cpu"
    if device == "cuda" and results.get("precision") == "fp32":
        seen.append("fp32 on a GPU; bf16 is several times as fast")
        changes["precision"] = "auto"
        asked = asked or config.precision == "fp32"
    if not seen:
        return None
    return Finding(seen, "the machine is used in part", changes, [command("machine")], note=asked)


def _cores(counted: int) -> int:
    """Returns the cores that a run could have used: those that were counted, or fewer where a container or queue allots them."""
    allotted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else counted
    return min(counted, allotted)


def _gpu() -> bool:
    """Returns whether this machine has an NVIDIA GPU; asked of the file system, so that torch needn't be loaded."""
    return os.path.exists("/dev/nvidia0")


def slowing(facts: Facts) -> Finding | None:
    """The second half of the run was at half the speed of the first, or slower: a note, for the model is none the worse."""
    rates = facts.series("tokens_per_s")
    if len(rates) < 8:
        return None
    half = len(rates) // 2
    first, second = statistics.median(rates[:half]), statistics.median(rates[half:])
    if first < SLOWED * second:
        return None
    seen = [f"{quantity(first)} tokens/s in the first half, {quantity(second)} in the second"]
    return Finding(seen, "other work shares the machine, or it has grown hot", commands=[command("machine")], note=True)


def layouts(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yields {"name", "devices", "days", "fits"} for the devices that the planner knows, alone and together.

    Data parallel: each device has the whole model, and a share of each step. `fits`: weights, gradients, optimiser and
    the activations of one window at least fit into its memory.
    """
    model, loop = facts.config.model, facts.loop
    flops = facts.planned_tokens * model.flops_per_token()
    for device in hardware():
        for count in COUNTS:
            rows = loop.batch_tokens // model.context
            if rows % count:
                continue
            size = loop.micro_batch or max(1, rows // count)
            least = sum(training_bytes(model, min(size, 1), "bf16", loop.optim.kind, "cuda").values())
            speed = device["tflops"] * 1e12 * device["mfu"] * count * (TOGETHER if count > 1 else 1)
            yield {
                "name": device["name"],
                "devices": count,
                "days": flops / speed / 86400,
                "fits": least < device["memory_gb"] * 1e9,
            }


def weeks(facts: Facts) -> Finding | None:
    """At the measured rate the run would take more than a week."""
    if not facts.pretraining or not facts.tokens_per_s:
        return None
    seconds = facts.planned_tokens / facts.tokens_per_s
    if seconds < WEEK_S:
        return None
    model = facts.config.model
    seen = [
        f"{facts.planned_tokens:,} tokens at {quantity(facts.tokens_per_s)} tokens/s take {seconds / 86400:.0f} days"
    ]
    for row in layouts(facts):
        fits = "" if row["fits"] else ", but the model doesn't fit into one of them"
        days = duration(row["days"] * 86400) if row["days"] < 2 else f"{row['days']:.0f} days"
        seen.append(f"about {days} on {row['devices']} x {row['name']}{fits}")
    rows = facts.loop.batch_tokens // model.context
    processes = 2 ** int(math.log2(math.gcd(rows, 8)))
    launch = f"torchrun --nproc_per_node={processes} -m groundup pretrain --config {facts.run.path / 'config.toml'}"
    minutes = 60 * 24
    cause = "too much work for this machine alone: data parallel, or a smaller plan"
    return Finding(seen, cause, commands=[launch, command("plan", facts.project, "--minutes", minutes)])
