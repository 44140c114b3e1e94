"""Training speed: the 10.7M Shakespeare shape (6 blocks, 6 heads, 384 wide, B = 16, T = 256) on a CPU, groundup beside its peers.

    python benchmarks/pretrain.py --text tinyshakespeare.txt --nanogpt DIR --litgpt VENV/bin/python     about 10 minutes
    python benchmarks/pretrain.py --text tinyshakespeare.txt --quick                                     transformers alone

All processes are up and warm (compiled, too) before the first is timed; then they take turns, a few steps each, in several rounds,
so that what else the machine does hits all alike. Ours is `groundup pretrain` itself: loader, clipping, schedule and log included.
nanoGPT runs as its README says for a CPU (fp32, not compiled, AdamW not fused) and patched (bf16 autocast, compiled, fused);
litgpt as its `pretrain` sets itself up (Fabric, bf16-mixed, compiled); transformers' GPT-2 in fp32, eager.
benchmarks/gpu/pretrain.py lets the same take turns on a GPU, with GPT-2's shapes.
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
from typing import Any, NamedTuple

WARM = 3  # steps before the first that counts
SIDES, PRODUCTS = {"cpu": 1024, "cuda": 8192}, 20  # of the matrices that are the yardstick; how many in a step
Step = Callable[[], object]


class Shape(NamedTuple):
    """What is trained; `flags` say the same to `groundup pretrain`."""

    layers: int
    heads: int
    width: int
    context: int
    batch: int
    dropout: float
    vocabulary: int
    flags: str

    def tokens(self) -> int:
        """Returns the tokens of a step."""
        return self.batch * self.context


GPT2 = "--train.lr 3e-4 --model.preset"
SHAPES = {
    "shakespeare": Shape(6, 6, 384, 256, 16, 0.1, 65, "--config shakespeare"),
    "gpt2-124m": Shape(12, 12, 768, 1024, 32, 0.0, 50304, f"{GPT2} gpt2-124m"),  # 50,257, padded as nanoGPT pads it
    "gpt2-350m": Shape(24, 16, 1024, 1024, 16, 0.0, 50304, f"{GPT2} gpt2-350m"),
}


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


def batches(asked: argparse.Namespace) -> Callable[[], Any]:
    """Returns a function that draws a batch as nanoGPT does, of the text's characters or (without a text) of random ids: x, y of (B, T)."""
    import numpy as np
    import torch

    shape, time = SHAPES[asked.shape], SHAPES[asked.shape].context
    if asked.text:
        data = np.unique(np.frombuffer(asked.text.read_bytes(), np.uint8), return_inverse=True)[1].astype(np.int64)
    else:
        data = np.random.default_rng(0).integers(shape.vocabulary, size=1 << 20)

    def draw() -> Any:
        starts = torch.randint(len(data) - time - 1, (shape.batch,))
        rows = torch.stack([torch.from_numpy(data[i : i + time + 1]) for i in starts])
        if asked.device == "cuda":
            rows = rows.pin_memory().to("cuda", non_blocking=True)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    return draw


def nanogpt(asked: argparse.Namespace, patched: bool) -> Step:
    """nanoGPT's own model and optimizer; train.py's step, whose GradScaler does nothing on a CPU."""
    sys.path.insert(0, str(asked.nanogpt))
    import torch
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    of = SHAPES[asked.shape]
    config = GPTConfig(
        block_size=of.context, vocab_size=of.vocabulary, n_layer=of.layers, n_head=of.heads, n_embd=of.width,
        dropout=of.dropout, bias=False,
    )  # fmt: skip
    model = GPT(config).to(asked.device)
    optimizer = model.configure_optimizers(
        0.1, 1e-3, (0.9, 0.99), "cuda" if patched else "cpu"
    )  # "cuda" asks for the fused one
    run, draw = torch.compile(model) if patched else model, batches(asked)

    def step() -> float:
        x, y = draw()
        with torch.autocast(asked.device, torch.bfloat16, enabled=patched):
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

    of = SHAPES[asked.shape]
    config = GPT2Config(
        vocab_size=of.vocabulary, n_positions=of.context, n_embd=of.width, n_layer=of.layers, n_head=of.heads,
        resid_pdrop=of.dropout, embd_pdrop=of.dropout, attn_pdrop=of.dropout,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to(asked.device)
    model.train()
    optimizer, draw = torch.optim.AdamW(model.parameters(), 1e-3), batches(asked)

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

    of = SHAPES[asked.shape]
    fabric = L.Fabric(accelerator=asked.device, devices=1, precision="bf16-mixed")
    config = Config(
        block_size=of.context, vocab_size=of.vocabulary, padded_vocab_size=of.vocabulary, n_layer=of.layers,
        n_head=of.heads, n_embd=of.width,
    )  # fmt: skip
    with fabric.init_module(empty_init=False):
        model = GPT(config)
    model = fabric.setup(torch.compile(model))
    fused = asked.device == "cuda"
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.95), fused=fused))
    draw = batches(asked)

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
    """The yardstick: bf16 matrix products; on a CPU of 1,024 x 1,024, on a GPU of 8,192 x 8,192."""
    import torch

    a = torch.randn(SIDES[asked.device], SIDES[asked.device], device=asked.device).bfloat16()

    def step() -> float:
        for _ in range(PRODUCTS):
            found = a @ a
        return float(found[0, 0])

    return step


OURS = {  # AdamW as the peers have it; litgpt's model knows no dropout
    "groundup": "--train.compile on --train.optim.kind adamw",
    "groundup eager": "--train.compile off --train.optim.kind adamw",
    "groundup without dropout": "--train.compile on --train.optim.kind adamw --model.dropout 0",
    "groundup Muon": "--train.compile on --train.optim.kind muon",
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
    project, shape = Path(tempfile.mkdtemp(dir=asked.folder)), SHAPES[asked.shape]
    lines = [
        f"data build {project} --input {asked.text} --filters none --split tail --heldout 0.1 --read.max-chars 10000000",
        f"tokenizer train {project} --pattern bytes",
        f"shards {project}",
    ]
    if not asked.text:
        random_shards(project, shape.vocabulary)
        lines = []
    lines.append(
        f"pretrain {project} {shape.flags} {words} --train.steps 100000 --train.eval-every 100000 "
        f"--train.batch-tokens {shape.tokens()} --threads {asked.threads} --device {asked.device} --precision bf16"
    )
    for line in lines:
        if main(line.split()):
            raise SystemExit(f"groundup {line} failed")


def random_shards(project: Path, vocabulary: int) -> None:
    """Writes token files of random letters, and a tokenizer that knows so many ids: pairs of bytes."""
    from memory import make_project

    from groundup.tokenizer.encode import Tokenizer

    pairs = [(left, right) for left in range(256) for right in range(256)]
    make_project(project, Tokenizer(pairs[: vocabulary - 257], ("<|endoftext|>",), "gpt2"))


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
            "--folder",
            asked.folder,
            "--threads",
            asked.threads,
        ]
        words += ["--shape", asked.shape, "--device", asked.device]
        words += ["--text", asked.text] if asked.text else []
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


def options(description: str) -> argparse.ArgumentParser:
    """Returns the options that this benchmark has on every device, and those that it calls its workers with."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="tiny Shakespeare, as `groundup data get tinyshakespeare` leaves it")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument(
        "--litgpt", type=Path, help="the Python of a virtual environment with benchmarks/peers/litgpt.txt"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of each turn")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES, default="shakespeare", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=SIDES, default="cpu", help=argparse.SUPPRESS)
    return parser


def race(asked: argparse.Namespace, names: list[str]) -> tuple[dict[str, list[float]], float]:
    """Returns the tokens per second of each, turn by turn, and the median rate of matrix products, FLOP/s; prints a line each."""
    asked.folder = Path(tempfile.mkdtemp())
    try:
        contestants = [Contestant(name, asked) for name in [*names, "matmul"]]
        for _ in range(asked.rounds):
            for one in contestants:
                one.take(asked.steps)
        for one in contestants:
            one.end()
    finally:
        shutil.rmtree(asked.folder, ignore_errors=True)
    rates = {one.name: one.rates for one in contestants}
    peak = statistics.median(rates.pop("matmul")) * PRODUCTS * 2 * SIDES[asked.device] ** 3
    found = {name: [rate * SHAPES[asked.shape].tokens() for rate in turns] for name, turns in rates.items()}
    for name, turns in found.items():
        print(
            f"{name:25} {statistics.median(turns):9,.0f} tokens/s (of {len(turns)}: {min(turns):,.0f} to {max(turns):,.0f})"
        )
    return found, peak


def flops_per_token(shape: str) -> float:
    """Returns what training on a token costs in our model of this shape."""
    from groundup.base.config import parse
    from groundup.train.config import PretrainConfig

    return parse(PretrainConfig, SHAPES[shape].flags.split(), "", "").model.flops_per_token()


def claims_of(about: str, rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Returns the claims of "groundup" against all peers, and against each."""
    from machine import claim  # the worker in litgpt's environment has no groundup

    medians = {name: float(round(statistics.median(turns))) for name, turns in rates.items()}
    peers = {name: rate for name, rate in medians.items() if not name.startswith("groundup")}
    ours, rounds = medians["groundup"], len(rates["groundup"])
    found = [claim(f"training tokens per second, {about}", ours, peers, "tokens/s", rounds)]
    found += [claim(f"against {name}", ours, {name: rate}, "tokens/s", rounds) for name, rate in peers.items()]
    if "litgpt" in peers and "groundup without dropout" in medians:
        alike = medians["groundup without dropout"]
        found.append(
            claim("against litgpt, neither with dropout", alike, {"litgpt": peers["litgpt"]}, "tokens/s", rounds)
        )
    return found


def main() -> None:
    """Lets all take turns, prints a line each and the claims, and writes the result."""
    parser = options(__doc__ or "")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="ours and transformers alone, two rounds, nothing compiled, nothing written",
    )
    asked = parser.parse_args()
    if not asked.text:
        parser.error("--text FILE: tiny Shakespeare")
    names = ["groundup eager", "transformers GPT-2"]
    if asked.quick:
        asked.rounds = 2
    else:
        names = ["groundup", "groundup without dropout", "groundup Muon", *names]
        names += ["nanoGPT", "nanoGPT patched"] if asked.nanogpt else []
        names += ["litgpt"] if asked.litgpt else []
    rates, peak = race(asked, names)
    share = statistics.median(rates[names[0]]) * flops_per_token(asked.shape) / peak
    print(f"bf16 matrix products: {peak / 1e9:,.0f} GFLOP/s; {names[0]} is at {share:.0%} of it")
    if not asked.quick:
        from machine import save

        claims = claims_of("10.7M Shakespeare shape", rates)
        print(save("pretrain", {"threads": asked.threads, "tokens_per_s": rates, "bf16_matmul_flops": peak,
                                "share_of_matmul_rate": share, "claims": claims}))  # fmt: skip


def worker() -> None:
    """Takes turns as the contestant that the caller named."""
    parser = options("")
    parser.add_argument("--worker")
    parser.add_argument("--answers", type=int)
    work(parser.parse_args())


if __name__ == "__main__":
    worker() if "--worker" in sys.argv else main()
