"""Where plain matmuls beat PyTorch's fused attention, and whether `implementation="auto"` picks the faster one.

    python benchmarks/attention.py            about 2 minutes on two quiet cores; --quick takes a fifth of the cells

Times attention as the model calls it, in turns within one process, the best of many (others' work only adds): training (forward
and backward, causal; and with documents in the row, where both get a mask), and generation (one query a sequence against its
cache). The peers of `auto` are each implementation by itself everywhere. `groundup.model.attention.choose` was read off this table.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does

import torch
from machine import claim, save
from torch import Tensor

from groundup.model import plain
from groundup.model.attention import additive, attention, causal_mask, choose, document_mask

WIDTH, TOKENS = 256, 4096  # heads times head width, and tokens of a batch, in training
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
IMPLEMENTATIONS = ("manual", "sdpa")
TRAIN = [(head, time_) for head in (32, 64, 128) for time_ in (64, 128, 256, 512, 1024, 2048)]
DECODE = [(batch, keys) for batch in (1, 4, 16, 64, 256) for keys in (64, 256, 1024)]


def best_times(work: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Returns the least seconds of each, taken in turns for about `seconds` in all (three turns at least)."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < 3 or time.perf_counter() < end:
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}


def training(
    head: int, length: int, dtype: torch.dtype, documents: bool, lesson: bool
) -> dict[str, Callable[[], object]]:
    """Returns the forward and backward pass of each implementation, on equal inputs."""
    batch, heads = max(1, TOKENS // length), WIDTH // head
    q, k, v = (torch.randn(batch, heads, length, head, dtype=dtype, requires_grad=True) for _ in range(3))
    grad = torch.randn(batch, heads, length, head, dtype=dtype)
    positions = (torch.arange(length) % max(1, length // 3)).expand(batch, length)
    mask = additive(document_mask(positions) if documents else causal_mask(length, length), dtype)

    def step(call: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(call(), (q, k, v), grad)

    work = {
        "manual": step(lambda: attention(q, k, v, mask, False, "manual")),
        "sdpa": step(lambda: attention(q, k, v, mask if documents else None, not documents, "sdpa")),
    }
    if lesson:
        work["lesson"] = step(lambda: plain.scaled_dot_product_attention(q, k, v, mask == 0))
    return work


def decoding(batch: int, keys: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Returns one step of generation by each implementation: 4 heads of 64."""
    q = torch.randn(batch, 4, 1, 64, dtype=dtype)
    k, v = (torch.randn(batch, 4, keys, 64, dtype=dtype) for _ in range(2))
    return {name: lambda name=name: attention(q, k, v, None, True, name) for name in IMPLEMENTATIONS}  # type: ignore[misc]


def measure(quick: bool, seconds: float) -> list[dict]:
    """Returns a row for each cell of the table, printed as they come."""
    rows: list[dict] = []
    print(f"{'':34}{'manual ms':>10}{'sdpa ms':>10}{'sdpa/manual':>13}  auto")
    for name, dtype in DTYPES.items():
        cells: list[tuple[dict, dict[str, Callable[[], object]]]] = []
        for documents in (False, True):
            for head, length in TRAIN[::3] if quick else TRAIN:
                if documents and (head != 64 or quick):
                    continue
                what = {"what": "training, documents" if documents else "training", "D": head, "B": max(1, TOKENS // length),
                        "T": length, "S": length}  # fmt: skip
                cells.append((what, training(head, length, dtype, documents, lesson=not documents and length <= 1024)))
        for batch, keys in DECODE[::3] if quick else DECODE:
            cells.append(({"what": "generation", "D": 64, "B": batch, "T": 1, "S": keys}, decoding(batch, keys, dtype)))
        for cell, work in cells:
            with torch.set_grad_enabled(cell["what"] != "generation"):
                times = best_times(work, seconds)
            auto = choose(torch.device("cpu"), dtype, cell["B"], cell["T"], cell["S"], cell["D"])
            rows.append({"dtype": name, **cell, **{k: round(1e3 * v, 4) for k, v in times.items()}, "auto": auto})
            label = f"{name} {cell['what']} D={cell['D']} B={cell['B']} T={cell['T']} S={cell['S']}"
            ratio = times["sdpa"] / times["manual"]
            print(
                f"{label:44}{1e3 * times['manual']:>10.3f}{1e3 * times['sdpa']:>10.3f}{ratio:>9.2f}  {auto}", flush=True
            )
    return rows


def speed(rows: list[dict], name: str) -> float:
    """Returns the geometric mean, over the cells, of the best implementation's time as a share of this one's."""
    shares = [min(row[i] for i in IMPLEMENTATIONS) / row[row["auto"] if name == "auto" else name] for row in rows]
    return math.exp(statistics.fmean(math.log(share) for share in shares))


def main() -> None:
    """Measures, prints the claims, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.9, help="of each cell")
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = measure(args.quick, 0.3 if args.quick else args.seconds)
    claims = []
    for name in DTYPES:
        for kind in ("training", "generation"):
            chosen = [row for row in rows if row["dtype"] == name and row["what"].startswith(kind)]
            peers = {peer: round(speed(chosen, peer), 3) for peer in IMPLEMENTATIONS}
            text = f"attention=auto, {kind} in {name}: share of the speed of the faster implementation, cell by cell"
            claims.append(claim(text, round(speed(chosen, "auto"), 3), peers, "share", len(chosen)))
    if not args.quick:
        save(
            "attention",
            {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows, "claims": claims},
        )


if __name__ == "__main__":
    main()
