"""The one training loop: a source of batches, a loss function, and everything that must happen between two steps."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from groundup.base.errors import ConfigError
from groundup.base.log import Progress, progress, quantity
from groundup.base.runs import Run, latest_checkpoint, write_checkpoint
from groundup.model.transformer import Transformer
from groundup.optim import adamw, muon
from groundup.optim.schedule import lr_scale, warmup_steps
from groundup.parallel.data import same_parameters, sum_gradients
from groundup.parallel.mesh import World
from groundup.train.blame import first_nonfinite
from groundup.train.config import LoopConfig
from groundup.train.metrics import Window, gradient_norms, parameter_hash
from groundup.train.precision import autocast, peak_flops
from groundup.train.state import load_checkpoint, save_checkpoint

__all__ = ["Evaluate", "Loss", "Source", "build_optimizers", "train"]

CHECKPOINT_SECONDS = 60.0  # between checkpoints, unless steps are given

Loss = Callable[[Transformer, Any], tuple[Tensor, int | Tensor, dict[str, float]]]
Evaluate = Callable[[Transformer, int], dict[str, float]]


class Source(Protocol):
    """Where batches come from. A source may also have `parts(batch)`: the pieces that are computed one after another."""

    def batch(self, step: int) -> Any:
        """Returns the batch of a step: a function of the step (and of the model, where that generates it) alone."""

    def tokens(self, batch: Any) -> int:
        """Returns how many tokens a batch counts as, for rates."""


def build_optimizers(model: Transformer, config: LoopConfig, precision: str) -> list[torch.optim.Optimizer]:
    """Returns the optimisers that the config names, over all parameters."""
    optim = config.optim
    betas, dtype = (optim.beta1, optim.beta2), torch.bfloat16 if precision == "bf16" else torch.float32
    if optim.kind == "muon":
        return muon.build(model, config.lr, optim.muon_lr, optim.weight_decay, betas, optim.eps, dtype)
    return [adamw.build(model, config.lr, optim.weight_decay, betas, optim.eps)]


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list to which SIGINT and SIGTERM are appended instead of stopping at once; a second one does stop."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Loop:
    """A run in progress. `done` steps have been taken; everything that a resume needs is in `progress()`."""

    def __init__(
        self, model: Transformer, source: Source, loss: Loss, config: LoopConfig, run: Run, tokenizer: Path,
        precision: str, world: World,
    ) -> None:  # fmt: skip
        self.model, self.source, self.loss, self.config, self.run = model, source, loss, config, run
        self.tokenizer, self.precision, self.world = tokenizer, precision, world
        self.optimizers = build_optimizers(model, config, precision)
        self.done, self.tokens, self.train_s, self.wall_s = 0, 0, 0.0, 0.0
        self.last: dict[str, float] = {}
        self.window = Window()
        self.flops, self.rate = 0.0, 0.0
        self.norm = torch.zeros(())
        self.layer_norms: dict[str, float] = {}

    def resume(self) -> None:
        """Continues from the newest whole checkpoint of the run, if there is one."""
        found = self.world.share(latest_checkpoint(self.run.path) if self.world.main else None)
        if found is None:
            same_parameters(self.model, self.world)
            return
        saved = load_checkpoint(found, self.model, self.optimizers)
        self.done, self.tokens, self.train_s, self.wall_s = (saved[k] for k in ("step", "tokens", "train_s", "wall_s"))
        self.last = saved["last"]
        if self.world.main:
            self.run.truncate_metrics(self.done)
            self.run.log(f"continuing from {found.name} ({self.done} of {self.config.steps} steps done)")

    def checkpoint(self) -> None:
        """Writes a checkpoint of the present step (rank 0; the others hold the same weights)."""
        if self.world.main:
            saved = {"step": self.done, "tokens": self.tokens, "train_s": self.train_s, "wall_s": self.wall_s,
                     "last": self.last, "precision": self.precision, "seed": self.config.seed}  # fmt: skip
            with write_checkpoint(self.run.path, self.done) as folder:
                save_checkpoint(folder, self.model, self.optimizers, self.tokenizer, saved)

    def step(self, interrupted: bool, out_of_time: bool) -> tuple[bool, bool]:
        """Takes one step; returns whether any process was interrupted, and whether rank 0 is out of time."""
        started, config = time.perf_counter(), self.config
        # One seed for each step, so that resuming needs no saved generator: dropout falls as it would have.
        torch.manual_seed(((config.seed * 1_000_003 + self.done) * 1_009 + self.world.rank) % 2**63)
        batch = self.source.batch(self.done)
        loader_s = time.perf_counter() - started
        sums: list[Tensor] = []
        counts: list[int | Tensor] = []
        metrics: dict[str, float] = {"loader_s": loader_s}
        parts: Sequence[Any] = self.source.parts(batch) if hasattr(self.source, "parts") else [batch]
        for part in parts:
            with autocast(self.precision, self.world.device):
                loss, count, extra = self.loss(self.model, part)
            loss.backward()
            sums.append(loss.detach())
            counts.append(count)
            for key, value in extra.items():
                metrics[key] = metrics.get(key, 0.0) + value / len(parts)
        local = [
            torch.stack(sums).sum(),
            sum(counts),
            self.source.tokens(batch),
            float(interrupted),
            float(out_of_time),
        ]
        total, scored, tokens, any_interrupted, any_out = self.world.sum(local)
        self.update(total, max(scored, 1.0), parts)
        self.done, self.tokens = self.done + 1, self.tokens + int(tokens)
        seconds = time.perf_counter() - started
        self.train_s += seconds
        self.window.add(total, scored, tokens, seconds, metrics)
        return any_interrupted > 0, any_out > 0

    def update(self, total: float, count: float, parts: Sequence[Any]) -> None:
        """Averages the gradients over all tokens, clips them, and lets the optimisers step.

        Raises: ConfigError if loss or gradient isn't finite; the weights are still as they were.
        """
        sum_gradients(self.model, self.world)
        config = self.config
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norm = torch.nn.utils.get_total_norm(gradients) / count
        norm = float(self.norm)
        if total - total != 0 or norm - norm != 0:
            what = "loss" if total - total != 0 else "gradient"
            self.blame(what, parts)
            raise ConfigError(
                f"step {self.done}: the {what} isn't finite; lower train.lr (now {config.lr:g}) or raise train.warmup (now "
                f"{config.warmup:g}), and run the same command again"
            )
        if (self.done + 1) % config.log_every == 0:
            self.layer_norms = gradient_norms(self.model, count)
        scale = 1 / count
        if config.clip and norm > config.clip:
            scale *= config.clip / norm
        for gradient in gradients:
            gradient.mul_(scale)
        self.rate = self.scale()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def blame(self, what: str, parts: Sequence[Any]) -> None:
        """Writes a row that names the layer where loss or gradient ("what") stopped being finite; the doctor reads it."""

        def forward() -> None:
            for part in parts:
                with autocast(self.precision, self.world.device):
                    self.loss(self.model, part)

        layer = first_nonfinite(self.model, forward)
        if self.world.main:
            self.run.metric(step=self.done + 1, tokens=self.tokens, nonfinite=what, layer=layer)

    def scale(self) -> float:
        """Returns the schedule's factor of the learning rate at the present step."""
        config = self.config
        warmup = warmup_steps(config.warmup, config.steps)
        return lr_scale(self.done, config.steps, warmup, config.schedule, config.optim.min_ratio, config.optim.decay)

    def log(self) -> None:
        """Writes a row of metrics about the steps since the last one."""
        row = self.window.row()
        if self.flops:
            row["mfu"] = (
                row["tokens_per_s"] * self.flops / self.world.size / peak_flops(self.precision, self.world.device)
            )
        self.last = row | {"lr": self.config.lr * self.rate, "grad_norm": float(self.norm)}
        layers, self.layer_norms = self.layer_norms, {}
        self.window = Window()
        if self.world.main:
            self.run.metric(step=self.done, tokens=self.tokens, wall_s=round(self.wall_s, 3), **self.last, **layers)

    def evaluate(self, evaluate: Evaluate) -> None:
        """Looks at the held-out text (rank 0; the others wait), writes a row and says it."""
        if not self.world.main:
            return
        self.model.eval()
        with torch.no_grad(), autocast(self.precision, self.world.device):
            values = evaluate(self.model, self.done)
        self.model.train()
        self.last |= values
        self.run.metric(step=self.done, tokens=self.tokens, **values)
        said = ", ".join(
            f"{key.replace('heldout', 'held-out').replace('_', ' ')} {value:.4g}" for key, value in values.items()
        )
        self.run.log(f"step {self.done} of {self.config.steps}: loss {self.last.get('loss', float('nan')):.4f}, {said}")

    def results(self) -> dict[str, Any]:
        """Returns what the run came to."""
        found: dict[str, Any] = {
            "steps": self.done, "tokens": self.tokens, "params": sum(p.numel() for p in self.model.parameters()),
            "train_s": round(self.train_s, 3), "precision": self.precision, "threads": torch.get_num_threads(),
            "device": self.world.device.type, "processes": self.world.size, "parameter_hash": parameter_hash(self.model),
        }  # fmt: skip
        rate = self.tokens / self.train_s if self.train_s else 0.0
        if self.flops and rate:
            found["mfu"] = rate * self.flops / self.world.size / peak_flops(self.precision, self.world.device)
        return self.last | found | {"tokens_per_s": rate}


def train(
    model: Transformer, source: Source, loss: Loss, config: LoopConfig, run: Run, *, tokenizer_path: Path,
    evaluate: Evaluate | None = None, max_seconds: float | None = None, precision: str = "fp32",
    world: World | None = None, flops_per_token: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Returns {"steps", "tokens", "loss", "tokens_per_s", "mfu", "train_s", "parameter_hash", ...} after training the model.

    `loss(model, batch)` returns the summed loss, how many items it is a sum over, and metrics; the gradient is divided by the
    global number of items, so neither micro-batches nor processes change it. `evaluate(model, step)` is called now and
    then and at the end, without gradients. A run that was stopped continues from its newest checkpoint, bit for bit.
    SIGINT and SIGTERM end it after the present step, with a checkpoint. `max_seconds` of training end it early.

    Raises: KeyboardInterrupt after such a signal; ConfigError if the loss isn't finite; CheckpointError for a checkpoint of
    another model.
    Equal to: groundup.train.plain.train
    """
    config.validate()
    loop = Loop(
        model,
        source,
        loss,
        config,
        run,
        tokenizer_path,
        precision,
        world or World(device=next(model.parameters()).device),
    )
    loop.flops = flops_per_token
    loop.resume()
    if loop.flops:
        peak_flops(precision, loop.world.device)  # measured now, not in the middle of a step's time
    left = 0 if max_seconds is not None and loop.train_s >= max_seconds else config.steps - loop.done
    label = run.path.parent.name.partition("-")[2] or "training"
    model.train()
    if left > 0:
        with ExitStack() as stack:
            asked = stack.enter_context(stop_signals())
            bar = stack.enter_context(progress(label, left, "steps")) if loop.world.main else None
            _steps(loop, asked, bar, evaluate, max_seconds)
    elif evaluate is not None:
        loop.evaluate(evaluate)  # killed between its last step and its end: its results are still to be said
    model.eval()
    return loop.results()


def _steps(
    loop: Loop, asked: list[int], bar: Progress | None, evaluate: Evaluate | None, max_seconds: float | None
) -> None:
    """Takes the steps that are left, and between them logs, evaluates and writes checkpoints."""
    config, saved = loop.config, time.monotonic()
    eval_every, save_every = config.eval_every or max(1, config.steps // 10), config.checkpoint_every
    before, start = loop.wall_s, time.monotonic()
    while loop.done < config.steps:
        over = loop.world.main and max_seconds is not None and loop.train_s >= max_seconds
        interrupted, out_of_time = loop.step(bool(asked), over)
        loop.wall_s = before + time.monotonic() - start
        last = loop.done == config.steps or out_of_time
        look = evaluate is not None and not interrupted and (last or loop.done % eval_every == 0)
        if loop.done % config.log_every == 0 or last or interrupted or look:
            loop.log()
        if bar is not None:
            note = (
                f"loss {loop.last['loss']:.3f}, {quantity(loop.last['tokens_per_s'])} tokens/s"
                if "loss" in loop.last
                else ""
            )
            bar.advance(note=note)
        if look and evaluate is not None:
            loop.evaluate(evaluate)
        due = loop.done % save_every == 0 if save_every else time.monotonic() - saved >= CHECKPOINT_SECONDS
        if last or interrupted or due:
            loop.checkpoint()
            saved = time.monotonic()
        if interrupted:
            raise KeyboardInterrupt
        if out_of_time:
            return
