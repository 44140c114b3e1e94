"""Training speed: the 10.7M Shakespeare shape (6 blocks, 6 heads, 384 wide, B = 16, T = 256), groundup beside its peers.

    python benchmarks/pretrain.py --text tinyshakespeare.txt --nanogpt DIR --litgpt VENV/bin/python     about 10 minutes
    python benchmarks/pretrain.py --text tinyshakespeare.txt --quick                                     transformers alone

All processes are up and warm (compiled, too) before the first is timed; then they take turns, a few steps each, in several rounds,
so that what else the machine does hits all alike. Ours is `groundup pretrain` itself: loader, clipping, schedule and log included.
nanoGPT runs as its README says for a CPU (fp32, not compiled, AdamW not fused) and patched (bf16 autocast, compiled, fused);
litgpt as its `pretrain` sets itself up (Fabric, bf16-mixed, compiled); transformers' GPT-2 in fp32, eager.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE = Path(__file__).parent.parent / "groundup" / "recipes" / "shakespeare.toml"

B, T, LAYERS, HEADS, WIDTH, DROPOUT, VOCAB = 16, 256, 6, 6, 384, 0.1, 65
WARM = 3  # steps before the first that counts
Step = Callable[[], object]


class Turns:
    """The worker's side: says "ready", then for each number N on stdin times N steps; `turn()` is asked before every step."""

    def __init__(self, answers: int) -> None:
        self.answers, self.left, self.began = answers, WARM, 0.0

    def turn(self) -> None:
        if self.left == 0:
            seconds = time.perf_counter() - self.began
            os.write(self.answers, f"{seconds if self.began else 'ready'}\n".encode())
            line = sys.stdin.readline()
            if not line.strip():
                os._exit(0)
            self.left, self.began = int(line), time.perf_counter()
        self.left -= 1


def batches(text: Path) -> Callable[[], Any]:
    """Returns a function that draws a batch of characters as nanoGPT does: 64-bit x and y of (B, T)."""
    import numpy as np
    import torch

    data = np.unique(np.frombuffer(text.read_bytes(), np.uint8), return_inverse=True)[1].astype(np.int64)

    def draw() -> Any:
        rows = torch.stack([torch.from_numpy(data[i : i + T + 1]) for i in torch.randint(len(data) - T - 1, (B,))])
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    return draw


def nanogpt(asked: argparse.Namespace, patched: bool) -> Step:
    """nanoGPT's own model and optimizer; train.py's step, whose GradScaler does nothing on a CPU."""
    sys.path.insert(0, str(asked.nanogpt))
    import torch
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    model = GPT(
        GPTConfig(
            block_size=T, vocab_size=VOCAB, n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, dropout=DROPOUT, bias=False
        )
    )
    optimizer = model.configure_optimizers(
        0.1, 1e-3, (0.9, 0.99), "cuda" if patched else "cpu"
    )  # "cuda" asks for the fused one
    run, draw = torch.compile(model) if patched else model, batches(asked.text)

    def step() -> float:
        x, y = draw()
        with torch.autocast("cpu", torch.bfloat16, enabled=patched):
            _, loss = run(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def transformers(asked: argparse.Namespace) -> Step:
    """transformers' GPT-2 with its own loss."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_positions=T,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            resid_pdrop=DROPOUT,
            embd_pdrop=DROPOUT,
            attn_pdrop=DROPOUT,
        )
    )
    model.train()
    optimizer, draw = torch.optim.AdamW(model.parameters(), 1e-3), batches(asked.text)

    def step() -> float:
        x, _ = draw()
        loss = model(input_ids=x, labels=x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def litgpt(asked: argparse.Namespace) -> Step:
    """litgpt's model as litgpt/pretrain.py sets it up."""
    import lightning as L  # type: ignore[import-not-found]
    import torch
    from litgpt.config import Config  # type: ignore[import-not-found]
    from litgpt.model import GPT  # type: ignore[import-not-found]
    from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

    fabric = L.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    with fabric.init_module(empty_init=False):
        model = GPT(
            Config(block_size=T, vocab_size=VOCAB, padded_vocab_size=VOCAB, n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH)
        )
    model = fabric.setup(torch.compile(model))
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.95), fused=False))
    draw = batches(asked.text)

    def step() -> float:
        x, y = draw()
        loss = chunked_cross_entropy(model(x), y)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def matmul(asked: argparse.Namespace) -> Step:
    """The yardstick: a bf16 matrix product of 1,024 x 1,024."""
    import torch

    a = torch.randn(1024, 1024).bfloat16()
    return lambda: [a @ a for _ in range(20)]


OURS = {  # AdamW as the peers have it; litgpt's model knows no dropout
    "groundup": "--train.compile on --train.optim.kind adamw",
    "groundup eager": "--train.compile off --train.optim.kind adamw",
    "groundup without dropout": "--train.compile on --train.optim.kind adamw --model.dropout 0",
    "groundup Muon": "--train.compile on",
}


def ours(asked: argparse.Namespace, turns: Turns, words: str) -> None:
    """`groundup pretrain` on the bytes of the text; its own source of batches asks for the turn."""
    from groundup.cli import main
    from groundup.train import pretrain

    class Source(pretrain.PretrainSource):
        def batch(self, step: int) -> Any:
            turns.turn()
            return super().batch(step)

    pretrain.PretrainSource = Source  # type: ignore[misc]
    project = Path(tempfile.mkdtemp(dir=asked.folder))
    for line in (
        f"data build {project} --input {asked.text} --filters none --split tail --heldout 0.1 --read.max-chars 10000000",
        f"tokenizer train {project} --pattern bytes",
        f"shards {project}",
        f"pretrain {project} --config shakespeare {words} --train.steps 100000 --train.eval-every 100000 "
        f"--train.batch-tokens {B * T} --threads {asked.threads}",
    ):
        if main(line.split()):
            raise SystemExit(f"groundup {line} failed")


WORKERS: dict[str, Callable[[argparse.Namespace], Step]] = {
    "nanoGPT": lambda asked: nanogpt(asked, patched=False),
    "nanoGPT patched": lambda asked: nanogpt(asked, patched=True),
    "transformers GPT-2": transformers,
    "litgpt": litgpt,
    "matmul": matmul,
}


def work(asked: argparse.Namespace) -> None:
    """A worker: builds its model and takes its turns until stdin ends."""
    turns = Turns(asked.answers)
    if asked.worker.startswith("groundup"):
        ours(asked, turns, OURS[asked.worker])
        return
    import torch

    torch.set_num_threads(asked.threads)
    step = WORKERS[asked.worker](asked)
    while True:
        turns.turn()
        step()


class Contestant:
    """The caller's side of a worker."""

    def __init__(self, name: str, asked: argparse.Namespace) -> None:
        reading, writing = os.pipe()
        python = asked.litgpt if name == "litgpt" else sys.executable
        words = [
            python,
            __file__,
            "--worker",
            name,
            "--answers",
            writing,
            "--text",
            asked.text,
            "--folder",
            asked.folder,
        ]
        words += ["--threads", asked.threads]
        words += ["--nanogpt", asked.nanogpt] if asked.nanogpt else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads), "OMP_WAIT_POLICY": "passive"}
        self.log = open(asked.folder / f"{name}.log".replace(" ", "-"), "w")  # noqa: SIM115 for the worker's whole life
        self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=self.log, stderr=self.log,
                                        text=True, pass_fds=[writing], env=environment)  # fmt: skip
        os.close(writing)
        self.answers, self.name, self.rates = os.fdopen(reading), name, []
        began = time.perf_counter()
        self.answer()
        print(f"{name}: warm after {time.perf_counter() - began:.0f} s", flush=True)

    def answer(self) -> str:
        if not (line := self.answers.readline()):
            raise SystemExit(f"{self.name} ended; see {self.log.name}:\n{Path(self.log.name).read_text()[-2000:]}")
        return line.strip()

    def take(self, steps: int) -> None:
        """Lets it take some steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self.rates.append(steps / float(self.answer()))

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Starts all, lets them take turns, prints a line each and the claims, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, required=True, help="tiny Shakespeare, as `groundup data get tinyshakespeare` leaves it"
    )
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument(
        "--litgpt", type=Path, help="the Python of a virtual environment with benchmarks/peers/litgpt.txt"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of each turn")
    parser.add_argument(
        "--quick", action="store_true", help="transformers alone, two rounds, nothing compiled, nothing written"
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked)
        return
    from machine import claim, save  # the worker in litgpt's environment has no groundup

    names = ["groundup eager", "transformers GPT-2", "matmul"]
    if not asked.quick:
        names = [
            "groundup",
            "groundup without dropout",
            "groundup Muon",
            *names,
            *(["nanoGPT", "nanoGPT patched"] if asked.nanogpt else []),
            *(["litgpt"] if asked.litgpt else []),
        ]
    asked.folder = Path(tempfile.mkdtemp())
    try:
        contestants = [Contestant(name, asked) for name in names]
        for _ in range(2 if asked.quick else asked.rounds):
            for one in contestants:
                one.take(asked.steps)
        for one in contestants:
            one.end()
    finally:
        shutil.rmtree(asked.folder, ignore_errors=True)
    rates = {one.name: [rate * B * T for rate in one.rates] for one in contestants}
    peak = statistics.median(rates.pop("matmul")) / (B * T) * 20 * 2 * 1024**3
    medians = {name: round(statistics.median(found)) for name, found in rates.items()}
    from groundup.base.config import from_dict, load_toml
    from groundup.train.config import PretrainConfig

    per_token = from_dict(PretrainConfig, load_toml(SHAPE)).model.flops_per_token()
    for name, rate in medians.items():
        print(
            f"{name:20} {rate:7,} tokens/s (of {len(rates[name])}: {min(rates[name]):,.0f} to {max(rates[name]):,.0f})"
        )
    mine = "groundup eager" if asked.quick else "groundup"
    print(f"bf16 matrix products: {peak / 1e9:,.0f} GFLOP/s; {mine} is at {medians[mine] * per_token / peak:.0%} of it")
    peers = {name: float(rate) for name, rate in medians.items() if not name.startswith("groundup")}
    rounds = len(rates[mine])
    claims = [
        claim("training tokens per second, 10.7M Shakespeare shape", float(medians[mine]), peers, "tokens/s", rounds)
    ]
    claims += [
        claim(f"against {name}", float(medians[mine]), {name: rate}, "tokens/s", rounds) for name, rate in peers.items()
    ]
    if "litgpt" in peers:
        alike = float(medians["groundup without dropout"])
        claims.append(
            claim("against litgpt, neither with dropout", alike, {"litgpt": peers["litgpt"]}, "tokens/s", rounds)
        )
    if not asked.quick:
        print(save("pretrain", {"threads": asked.threads, "tokens_per_s": rates, "bf16_matmul_flops": peak,
                                "share_of_matmul_rate": medians[mine] * per_token / peak, "claims": claims}))  # fmt: skip


if __name__ == "__main__":
    main()
