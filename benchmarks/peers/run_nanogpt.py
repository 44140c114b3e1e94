"""nanoGPT's own model and optimizer, patched for a CPU (bf16 autocast, compiled, fused AdamW) or as shipped: one run that can be resumed.

    python run_nanogpt.py NANOGPT_FOLDER JOB.json       trains, and writes a row of losses beside the job now and then
    python run_nanogpt.py NANOGPT_FOLDER --speed        seconds a step, as shipped and patched in turns, as one JSON line

train.py itself needs its data prepared and a GPU's autocast; this is its step, its schedule and its settings for Shakespeare
(config/train_shakespeare_char.py), with the batch of 16 and without dropout, as its README advises for a CPU.
"""

import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

SHAPE = {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "dropout": 0.0, "bias": False}
BATCH, WARMUP, SAVED_EVERY, EVAL_ROWS = 16, 100, 50, 32
ROUNDS, TURN, WARM = 5, 3, 3  # of the measurement of speed: turns, steps of a turn, steps before the first that counts


def build(shape: dict[str, Any], vocabulary: int, lr: float, fused: bool) -> tuple[Any, Any]:
    """Returns the model and its optimizer; "cuda" is how nanoGPT is asked for the fused one."""
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    torch.manual_seed(1337)
    model = GPT(GPTConfig(vocab_size=vocabulary, **shape))
    return model, model.configure_optimizers(0.1, lr, (0.9, 0.99), "cuda" if fused else "cpu")


def step(run: Any, model: Any, optimizer: Any, rows: torch.Tensor, patched: bool) -> float:
    """Returns the loss of a training step."""
    with torch.autocast("cpu", torch.bfloat16, enabled=patched):
        _, loss = run(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.item())


def scheduled(at: int, steps: int, lr: float) -> float:
    """Returns train.py's learning rate: warm-up, then cosine to a tenth."""
    warmup = min(WARMUP, steps // 10)
    if at < warmup:
        return lr * (at + 1) / (warmup + 1)
    return lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (steps - warmup))))


@torch.no_grad()
def heldout(model: Any, data: torch.Tensor, context: int, patched: bool) -> float:
    """Returns the mean nats per character over all whole windows of the text: the measure that groundup uses."""
    model.eval()
    windows = (len(data) - 1) // context
    x = data[: windows * context].view(windows, context)
    y = data[1 : windows * context + 1].view(windows, context)
    total = 0.0
    for first in range(0, windows, EVAL_ROWS):
        with torch.autocast("cpu", torch.bfloat16, enabled=patched):
            logits, _ = model(x[first : first + EVAL_ROWS], y[first : first + EVAL_ROWS])
        rows = y[first : first + EVAL_ROWS].flatten()
        total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows, reduction="sum"))
    model.train()
    return total / (windows * context)


def train(job: dict[str, Any], file: Path) -> None:
    """Trains as the job says, from its last saved state; ends when the steps are done or the loss is reached."""
    text = Path(job["text"]).read_bytes()
    numbers = {byte: number for number, byte in enumerate(sorted(set(text)))}
    data = torch.tensor([numbers[byte] for byte in text])
    shown, unseen = data[: job["train_bytes"]], data[job["train_bytes"] : job["train_bytes"] + job["eval_bytes"]]
    shape, patched = {**SHAPE, **job.get("shape", {})}, job["patched"]
    context, batch = shape["block_size"], job.get("batch", BATCH)
    model, optimizer = build(shape, len(numbers), job["lr"], patched)
    saved, rows, at, spent = file.with_suffix(".pt"), [], 0, [0.0, 0.0]
    random = torch.Generator().manual_seed(job.get("seed", 1337))
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        random.set_state(state["random"])
        at, rows, spent = state["step"], state["rows"], state["spent"]
    run = torch.compile(model) if patched else model
    began, cpu, done = time.perf_counter() - spent[0], time.process_time() - spent[1], False
    while not done:
        for group in optimizer.param_groups:
            group["lr"] = scheduled(at, job["steps"], job["lr"])
        starts = torch.randint(len(shown) - context, (batch,), generator=random)
        loss = step(run, model, optimizer, torch.stack([shown[i : i + context + 1] for i in starts]), patched)
        at += 1
        if at % job["eval_every"] == 0 or at == job["steps"]:
            found = heldout(model, unseen, context, patched)
            rows.append({"step": at, "train": loss, "heldout": found, "wall_s": time.perf_counter() - began,
                         "cpu_s": time.process_time() - cpu})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
        done = at == job["steps"] or (bool(rows) and rows[-1]["heldout"] <= job.get("until", 0.0))
        if at % SAVED_EVERY == 0 or done:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random.get_state()}
            state |= {"step": at, "rows": rows, "spent": [time.perf_counter() - began, time.process_time() - cpu]}
            torch.save(state, saved.with_suffix(".new"))
            os.replace(saved.with_suffix(".new"), saved)
            file.with_suffix(".rows.json").write_text(json.dumps({"done": done, "rows": rows}))


def speed() -> None:
    """Prints the seconds a step, as shipped and patched, medians of turns; and the seconds that compiling took."""
    random, found, runs = torch.Generator().manual_seed(0), {}, {}
    draw = lambda: torch.randint(65, (BATCH, SHAPE["block_size"] + 1), generator=random)  # noqa: E731
    for name, patched in (("as shipped", False), ("patched", True)):
        model, optimizer = build(SHAPE, 65, 1e-3, patched)
        runs[name] = (torch.compile(model) if patched else model, model, optimizer, patched)
        times = []
        for _ in range(WARM):
            began = time.perf_counter()
            step(*runs[name][:3], draw(), patched)
            times.append(time.perf_counter() - began)
        found[f"{name}, first step"] = times[0]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    cpu_s: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (run, model, optimizer, patched) in runs.items():
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(TURN):
                step(run, model, optimizer, draw(), patched)
            taken[name].append((time.perf_counter() - began) / TURN)
            cpu_s[name].append((time.process_time() - cpu) / TURN)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    print(
        json.dumps(
            found | medians | {"turns": taken, "cpu_s": {n: statistics.median(times) for n, times in cpu_s.items()}}
        )
    )


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if sys.argv[2] == "--speed":
        speed()
    else:
        train(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[2]))
