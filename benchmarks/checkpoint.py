"""What a checkpoint costs the training, and whether any is lost to kill -9; writes results/checkpoint-{cost,kills}_HARDWARE_DATE.json.

    python benchmarks/checkpoint.py                      about 3 minutes: 10.7M parameters, and 200 kills
    python benchmarks/checkpoint.py --quick              0.9M parameters, 20 kills
    python benchmarks/checkpoint.py --only cost | kills

Cost: turns of two steps, in some of which a checkpoint is begun; the median difference of their seconds is what it costs, however it
is written. Peer: the same files written by the thread that trains. Kills: a process that does nothing but write checkpoints is killed
at random moments; counted are those after which a checkpoint that says it is whole isn't, or none is left. Peer: one file that is
overwritten in place, as small training scripts do.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does

import torch
import torch.nn.functional as F
from machine import claim, save

from groundup.base.errors import GroundupError
from groundup.base.runs import checkpoints, clear_debris, latest_checkpoint, verify_checkpoint, write_checkpoint
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.optim import adamw
from groundup.tokenizer import io
from groundup.tokenizer.encode import Tokenizer
from groundup.train.state import Saver, Snapshot, snapshot

SHAPES = {
    True: (ModelConfig(vocab_size=512, context=128, d_model=128, n_layers=4, n_heads=4), 16),
    False: (ModelConfig(vocab_size=257, context=256, d_model=384, n_layers=6, n_heads=6), 16),
}
TURN = 2  # steps: while a checkpoint of this size is written
EVERY = 100  # steps between checkpoints in the claim


class Trainer:
    """A model that trains on random tokens."""

    def __init__(self, quick: bool, folder: Path) -> None:
        self.config, self.rows = SHAPES[quick]
        self.model, self.tokenizer = Transformer(self.config, seed=0), folder / "tokenizer.json"
        self.optimizer = adamw.build(self.model, 1e-4)
        io.save(Tokenizer([], ("<|endoftext|>",), "bytes"), self.tokenizer)
        self.tokens = torch.randint(0, self.config.vocab_size, (self.rows, self.config.context + 1))

    def step(self) -> None:
        """Takes a step."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(self.tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), self.tokens[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> Snapshot:
        """Returns what a checkpoint holds."""
        return snapshot(self.model, [self.optimizer], self.tokenizer, {"step": 1})


def cost(trainer: Trainer, folder: Path, turns: int) -> tuple[float, float, float]:
    """Returns the median seconds that a checkpoint costs in the background, the same written at once, and those of a step."""
    saver = Saver(folder / "background")
    numbers = iter(range(1, 1_000_000))

    def at_once() -> None:
        with write_checkpoint(folder / "at-once", next(numbers)) as made:
            trainer.state().write(made)

    ways: dict[str, Callable[[], object]] = {
        "none": lambda: None, "background": lambda: saver.save(next(numbers), trainer.state()), "at once": at_once,
    }  # fmt: skip
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        trainer.step()
    for _ in range(turns):
        for name, begin in ways.items():
            started = time.perf_counter()
            begin()
            for _ in range(TURN):
                trainer.step()
            saver.wait()
            spent[name].append(time.perf_counter() - started)
    extra = {name: statistics.median(b - a for a, b in zip(spent["none"], spent[name], strict=True)) for name in ways}
    return extra["background"], extra["at once"], statistics.median(spent["none"]) / TURN


def killed(work: Callable[[int], None], first: int, seconds: float) -> None:
    """Lets a child process do `work(first)`, `work(first + 1)`, ... and kills it after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            for number in range(first, first + 1_000_000):
                work(number)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kills(trainer: Trainer, folder: Path, number: int, rng: random.Random) -> tuple[int, int]:
    """Returns after how many kills ours and the file written in place were corrupt or gone."""
    trainer.step()
    state, ours, theirs, corrupt, lost = trainer.state(), folder / "run", folder / "ckpt.pt", 0, 0

    def write(step: int) -> None:
        with write_checkpoint(ours, step) as made:
            state.write(made)

    def overwrite(step: int) -> None:
        torch.save({"model": state.weights, "optimizer": state.optimizer, "step": step}, theirs)

    write(1)
    overwrite(1)
    for _ in range(number):
        newest = int(checkpoints(ours)[-1].name[5:])
        killed(write, newest + 1, rng.uniform(0.01, 0.3))
        clear_debris(ours)
        try:
            for found in checkpoints(ours):
                verify_checkpoint(found)
            latest = latest_checkpoint(ours)
            corrupt += latest is None or int(latest.name[5:]) < newest
        except GroundupError:
            corrupt += 1
        killed(overwrite, 2, rng.uniform(0.01, 0.3))
        try:
            torch.load(theirs)
        except Exception:  # whatever a torn file makes it say
            lost += 1
            overwrite(1)
    return corrupt, lost


def main() -> None:
    """Measures, prints one JSON object a claim, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, fewer turns and kills")
    parser.add_argument("--only", choices=["cost", "kills"])
    parser.add_argument("--kills", type=int, default=0, help="how many (default 200, quick 20)")
    asked = parser.parse_args()
    folder, claims = Path(tempfile.mkdtemp(prefix="groundup-checkpoint-", dir=os.environ.get("GROUNDUP_TMP"))), {}
    try:
        if asked.only != "cost":  # first: a process that has computed in threads can't be forked
            torch.set_num_threads(1)
            number = asked.kills or (20 if asked.quick else 200)
            corrupt, lost = kills(Trainer(True, folder), folder, number, random.Random(0))
            whole = {"one file, overwritten in place": float(number - lost)}
            text = f"checkpoints whole after {number} SIGKILLs during writes"
            claims["kills"] = claim(text, number - corrupt, whole, "times", number)
        if asked.only != "kills":
            torch.set_num_threads(os.cpu_count() or 1)
            trainer, turns = Trainer(asked.quick, folder), 16 if asked.quick else 24
            background, at_once, step = cost(trainer, folder, turns)
            left = [100 - 100 * seconds / (EVERY * step) for seconds in (background, at_once)]
            shape = f"{trainer.config.params() / 1e6:.1f}M parameters, steps of {step:.2f} s"
            text = f"wall time left to training with a checkpoint every {EVERY} steps ({shape})"
            peer = {"written by the training thread": round(left[1], 3)}
            claims["cost"] = claim(text, round(left[0], 3), peer, "%", turns)
    finally:
        shutil.rmtree(folder)
    for name, found in claims.items() if not asked.quick else ():
        save(f"checkpoint-{name}", {"claims": [found]})


if __name__ == "__main__":
    main()
