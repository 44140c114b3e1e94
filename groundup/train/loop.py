"""The one training loop: a source of batches, a loss function, and everything that must happen between two steps."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from groundup.base.errors import ConfigError
from groundup.base.log import Progress, progress, quantity
from groundup.base.runs import Run, clear_debris, latest_checkpoint
from groundup.model.transformer import Transformer
from groundup.optim import adamw, muon
from groundup.optim.ema import Average
from groundup.optim.schedule import lr_scale, warmup_steps
from groundup.parallel.data import same_parameters, sum_gradients
from groundup.parallel.mesh import World
from groundup.train.blame import first_nonfinite, hopeless
from groundup.train.compiling import as_written
from groundup.train.config import LoopConfig
from groundup.train.journal import Journal
from groundup.train.metrics import Window, gradient_norms, parameter_hash
from groundup.train.precision import autocast, peak_flops
from groundup.train.state import Saver, load_checkpoint, snapshot
from groundup.train.stop import interruption, stop_signals

__all__ = ["Evaluate", "Loss", "Source", "build_optimizers", "train"]

CHECKPOINT_SECONDS = 60.0  # between checkpoints, unless steps are given
MOST_NONFINITE = 10  # steps in a row, after which leaving them out is hopeless
MOST_ROLLBACKS = 3  # to the same checkpoint

# Returns the sum that is minimised, over how many items, and metrics: means per item. A metric "reported" is taken out: a sum to
# show as the loss in place of the minimised one, where penalties that other programs don't count are in that.
Loss = Callable[[Transformer, Any], tuple[Tensor, int | Tensor, dict[str, Any]]]
Evaluate = Callable[[Transformer, int], dict[str, float]]


class Source(Protocol):
    """Where batches come from. A source may also have

    `parts(batch)`: the pieces that are computed one after another;
    `samples(number)` and `seek(number, samples)`: how many samples come before a batch, and that so many have been taken;
    `check()`: raises if what it reads has changed since it was opened.
    """

    def batch(self, number: int) -> Any:
        """Returns a batch: a function of its number (and of the model, where that generates it) alone."""

    def tokens(self, batch: Any) -> int:
        """Returns how many tokens a batch counts as, for rates."""


def build_optimizers(model: Transformer, config: LoopConfig, precision: str) -> list[torch.optim.Optimizer]:
    """Returns the optimisers that the config names, over all parameters."""
    optim = config.optim
    betas, dtype = (optim.beta1, optim.beta2), torch.bfloat16 if precision == "bf16" else torch.float32
    if optim.kind == "muon":
        return muon.build(model, config.lr, optim.muon_lr, optim.weight_decay, betas, optim.eps, dtype)
    wider = model.config.width_multiple
    return [adamw.build(model, config.lr, optim.weight_decay, betas, optim.eps, wider)]


class Loop:
    """A run in progress. `done` steps have been taken, `drawn` batches; everything that a resume needs is in `state()`."""

    def __init__(
        self, model: Transformer, source: Source, loss: Loss, config: LoopConfig, run: Run, tokenizer: Path,
        precision: str, world: World,
    ) -> None:  # fmt: skip
        self.model, self.source, self.loss, self.config, self.run = model, source, loss, config, run
        self.tokenizer, self.precision, self.world = tokenizer, precision, world
        self.optimizers = build_optimizers(model, config, precision)
        self.average = Average(model, config.optim.ema) if config.optim.ema else None
        self.saver, self.journal = Saver(run.path, config.checkpoint.keep), Journal(run, config.track, world.main)
        self.done, self.drawn, self.tokens, self.train_s, self.wall_s = 0, 0, 0, 0.0, 0.0
        self.bad_steps, self.bad_in_row = 0, 0  # steps whose loss or gradient wasn't finite
        self.rollbacks: list[int] = []  # the steps gone back to
        self.blamed: dict[str, str] = {}  # for the last of them
        self.best: dict[str, float] = {}  # {"step", "heldout_loss"} of the lowest
        self.last: dict[str, float] = {}
        self.window = Window()
        self.flops, self.rate = 0.0, 0.0
        self.norm = torch.zeros(())
        self.layer_norms: dict[str, float] = {}

    def resume(self) -> None:
        """Continues from the newest whole checkpoint of the run, if there is one."""
        self.model.expert_tokens()  # what was sent to them before, in trials, is no part of the run
        if self.world.main:
            clear_debris(self.run.path)
        found = self.world.share(latest_checkpoint(self.run.path) if self.world.main else None)
        if found is None:
            same_parameters(self.model, self.world)
            self.average = Average(self.model, self.config.optim.ema) if self.average else None
            return
        saved = self.restore(found)
        for key in ("drawn", "bad_steps", "bad_in_row", "rollbacks", "tokens", "train_s", "wall_s"):
            setattr(self, key, saved[key])
        if hasattr(self.source, "seek"):
            self.source.seek(self.drawn, saved["samples"])
        if self.world.main:
            self.run.truncate_metrics(self.done)
            self.run.log(f"continuing from {found.name} ({self.done} of {self.config.steps} steps done)")

    def restore(self, folder: Path) -> dict[str, Any]:
        """Returns what a checkpoint saved, after taking weights, optimisers and step from it."""
        saved = load_checkpoint(folder, self.model, self.optimizers, self.average)
        self.done, self.last, self.best = saved["step"], saved["last"], saved["best"]
        self.window = Window(**saved["window"])
        return saved

    def state(self) -> dict[str, Any]:
        """Returns all that a resume needs beside tensors."""
        config, scale = self.config, self.scale()
        return {
            "step": self.done, "drawn": self.drawn, "tokens": self.tokens, "train_s": self.train_s, "wall_s": self.wall_s,
            "samples": self.source.samples(self.drawn) if hasattr(self.source, "samples") else None,
            "rng": {"seed": config.seed, "next": self.seed()},
            "schedule": {"kind": config.schedule, "steps": config.steps, "scale": scale, "lr": config.lr * scale},
            "precision": self.precision, "config_hash": self.run.info.get("config_hash"),
            "bad_steps": self.bad_steps, "bad_in_row": self.bad_in_row, "rollbacks": self.rollbacks,
            "best": self.best, "last": self.last, "window": asdict(self.window),
        }  # fmt: skip

    def checkpoint(self) -> None:
        """Begins to write a checkpoint of the present step (rank 0; the others hold the same weights)."""
        if self.world.main:
            every, taken = self.config.checkpoint.keep_every, self.done
            spare = set(range(every, taken + 1, every)) if every else set()
            if self.config.checkpoint.best and self.best:
                spare.add(int(self.best["step"]))
            state = snapshot(self.model, self.optimizers, self.tokenizer, self.state(), self.average)
            self.saver.save(self.done, state, spare)

    def seed(self) -> int:
        """Returns the seed of the next step. Each has its own, so that a resume needs no saved generator."""
        return ((self.config.seed * 1_000_003 + self.drawn) * 1_009 + self.world.rank) % 2**63

    def step(self, interrupted: bool, out_of_time: bool) -> tuple[bool, bool]:
        """Takes one step; returns whether any process was interrupted, and whether rank 0 is out of time."""
        started = time.perf_counter()
        torch.manual_seed(self.seed())
        batch = self.source.batch(self.drawn)
        metrics: dict[str, float] = {"loader_s": time.perf_counter() - started}
        sums: list[Tensor] = []
        counts: list[int | Tensor] = []
        parts: Sequence[Any] = self.source.parts(batch) if hasattr(self.source, "parts") else [batch]
        for part in parts:
            with autocast(self.precision, self.world.device):
                loss, count, extra = self.loss(self.model, part)
            balance = self.model.balance()  # of experts: pulls at the router, and is no part of the reported loss
            (loss if balance is None else loss + count * balance).backward()
            if balance is not None:
                extra = extra | {"balance": balance.item()}
            sums.append(extra.pop("reported", loss).detach())
            counts.append(count)
            for key, value in extra.items():
                metrics[key] = metrics.get(key, 0.0) + value / len(parts)
        flags = float(interrupted), float(out_of_time)
        local = [torch.stack(sums).sum(), sum(counts), self.source.tokens(batch), *flags]
        total, scored, tokens, any_interrupted, any_out = self.world.sum(local)
        finite = self.update(total, max(scored, 1.0), parts)
        self.done, self.drawn, self.tokens = self.done + 1, self.drawn + 1, self.tokens + int(tokens)
        seconds = time.perf_counter() - started
        self.train_s += seconds
        self.window.add(*((total, scored) if finite else (0.0, 0.0)), tokens, seconds, metrics)
        if not finite:
            self.nonfinite()
        return any_interrupted > 0, any_out > 0

    def update(self, total: float, count: float, parts: Sequence[Any]) -> bool:
        """Averages the gradients over all items, clips them, and lets the optimisers step.

        Returns False if loss or gradient isn't finite; the weights are then still as they were.
        """
        sum_gradients(self.model, self.world)
        config = self.config
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norm = torch.nn.utils.get_total_norm(gradients) / count
        norm = float(self.norm)
        if not (math.isfinite(total) and math.isfinite(norm)):
            self.blame("gradient" if math.isfinite(total) else "loss", parts)
            self.model.zero_grad(set_to_none=True)
            return False
        self.bad_in_row = 0
        if (self.done + 1) % config.log_every == 0:
            self.layer_norms = gradient_norms(self.model, count)
        scale = 1 / count
        if config.clip and norm > config.clip:
            scale *= config.clip / norm
        torch._foreach_mul_(gradients, scale)
        self.rate = self.scale()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.done)
        return True

    def nonfinite(self) -> None:
        """Does what the policy says after a step whose loss or gradient wasn't finite.

        Raises: ConfigError with the remedies where it says stop, or where going on is hopeless.
        """
        self.bad_steps, self.bad_in_row = self.bad_steps + 1, self.bad_in_row + 1
        config, policy = self.config, self.config.nonfinite
        found = None
        if policy == "rollback":
            self.saver.wait()
            found = self.world.share(latest_checkpoint(self.run.path) if self.world.main else None)
        back = int(found.name[5:]) if found else -1
        if (
            policy == "stop"
            or self.bad_in_row >= min(MOST_NONFINITE, config.steps)
            or self.rollbacks.count(back) >= MOST_ROLLBACKS
        ):
            self.saver.wait()
            raise ConfigError(hopeless(self.run, config, self.done, self.bad_in_row))
        if found is None:
            self.journal.say(
                f"step {self.done}: loss or gradient isn't finite; the step is left out ({self.bad_steps} so far)"
            )
            return
        self.journal.say(
            f"step {self.done}: loss or gradient isn't finite; back to {found.name}, on with the next batch"
        )
        self.restore(found)
        self.rollbacks.append(back)
        if self.world.main:
            self.run.truncate_metrics(self.done)
        self.journal.row(step=self.done, tokens=self.tokens, **self.blamed)  # what led to it stays on record

    def blame(self, what: str, parts: Sequence[Any]) -> None:
        """Writes a row that names the layer where loss or gradient ("what") stopped being finite; the doctor reads it."""

        def forward() -> None:
            with as_written(self.model), autocast(self.precision, self.world.device):
                for part in parts:
                    self.loss(self.model, part)

        self.blamed = {"nonfinite": what, "layer": first_nonfinite(self.model, forward)}
        self.journal.row(step=self.done + 1, tokens=self.tokens, **self.blamed)

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
        row |= {"lr": self.config.lr * self.rate, "grad_norm": float(self.norm)}
        if self.bad_steps:
            row |= {"nonfinite_steps": self.bad_steps, "rollbacks": len(self.rollbacks)}
        experts: dict[str, Any] = {}
        if sent := self.model.expert_tokens():  # by layer; of the busiest expert, as a multiple of an even share
            row["expert_busiest"] = max(max(layer) * len(layer) / max(1, sum(layer)) for layer in sent)
            experts["expert_tokens"] = sent
        layers, self.layer_norms = self.layer_norms, {}
        self.window = Window()
        self.journal.row(step=self.done, tokens=self.tokens, wall_s=round(self.wall_s, 3), **row, **layers, **experts)
        self.last = {key: value for key, value in row.items() if math.isfinite(value)}

    def evaluate(self, evaluate: Evaluate) -> bool:
        """Looks at the held-out text (rank 0; the others wait), writes a row and says it; returns whether it is the best so far."""
        if not self.world.main:
            return False
        self.model.eval()
        averaged = self.average.inside(self.model) if self.average else nullcontext()
        with averaged, torch.no_grad(), autocast(self.precision, self.world.device), as_written(self.model):
            values = evaluate(self.model, self.done)
        self.model.train()
        self.last |= values
        self.journal.row(step=self.done, tokens=self.tokens, **values)
        said = [f"{key.replace('heldout', 'held-out').replace('_', ' ')} {value:.4g}" for key, value in values.items()]
        loss = f"loss {self.last.get('loss', math.nan):.4f}"
        self.run.log(f"step {self.done} of {self.config.steps}: {', '.join([loss, *said])}")
        lowest = values.get("heldout_loss", math.inf)
        better = lowest < self.best.get("heldout_loss", math.inf)
        if better:
            self.best = {"step": self.done, "heldout_loss": lowest}
        return better

    def results(self) -> dict[str, Any]:
        """Returns what the run came to."""
        found: dict[str, Any] = {
            "steps": self.done, "tokens": self.tokens, "params": sum(p.numel() for p in self.model.parameters()),
            "train_s": round(self.train_s, 3), "precision": self.precision, "threads": torch.get_num_threads(),
            "device": self.world.device.type, "processes": self.world.size, "parameter_hash": parameter_hash(self.model),
            "nonfinite_steps": self.bad_steps, "rollbacks": len(self.rollbacks),
        }  # fmt: skip
        if self.best:
            found |= {"best_step": self.best["step"], "best_heldout_loss": self.best["heldout_loss"]}
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
    here = world or World(device=next(model.parameters()).device)
    loop = Loop(model, source, loss, config, run, tokenizer_path, precision, here)
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
            stack.callback(loop.journal.close)
            bar = stack.enter_context(progress(label, left, "steps")) if here.main else None
            if bar is not None:
                loop.journal.show(bar, peak_flops(precision, here.device) if loop.flops else 0.0)
            stack.callback(loop.saver.wait)  # what is being written is written to its end, whatever ends the run
            _steps(loop, asked, bar, evaluate, max_seconds)
    elif evaluate is not None:
        loop.evaluate(evaluate)  # killed between its last step and its end: its results are still to be said
    if loop.average is not None:
        loop.average.exchange()  # the model of the run is the one that was evaluated and saved
    model.eval()
    return loop.results()


def _steps(
    loop: Loop, asked: list[int], bar: Progress | None, evaluate: Evaluate | None, max_seconds: float | None
) -> None:
    """Takes the steps that are left, and between them logs, evaluates and begins to write checkpoints."""
    config, kept, saved = loop.config, loop.config.checkpoint, time.monotonic()
    eval_every = config.eval_every or max(1, config.steps // 10)
    before, start = loop.wall_s, time.monotonic()
    while loop.done < config.steps:
        over = loop.world.main and max_seconds is not None and loop.train_s >= max_seconds
        taken = loop.done
        interrupted, out_of_time = loop.step(bool(asked), over)
        loop.saver.check()
        if loop.done <= taken and not interrupted:
            continue  # rolled back: what there is to say and to keep of this step has been said and kept before
        loop.wall_s = before + time.monotonic() - start
        last = loop.done == config.steps or out_of_time
        look = evaluate is not None and not interrupted and (last or loop.done % eval_every == 0)
        if loop.done % config.log_every == 0 or last or interrupted or look:
            loop.log()
        if bar is not None:
            bar.advance(note=_note(loop))
        better = loop.evaluate(evaluate) if look and evaluate is not None else False
        due = loop.done % kept.every == 0 if kept.every else time.monotonic() - saved >= CHECKPOINT_SECONDS
        due |= (better and kept.best) or (kept.keep_every > 0 and loop.done % kept.keep_every == 0)
        if last or interrupted or due:
            if hasattr(loop.source, "check"):
                loop.source.check()  # before what was learned from something else is kept
            loop.checkpoint()
            saved = time.monotonic()
        if interrupted:
            loop.saver.wait()
            raise interruption(asked)
        if out_of_time:
            return


def _note(loop: Loop) -> str:
    """Returns what the live line shows behind the rate."""
    if "loss" not in loop.last:
        return ""
    bad = f", {loop.bad_steps} steps left out" if loop.bad_steps else ""
    return f"loss {loop.last['loss']:.3f}, {quantity(loop.last['tokens_per_s'])} tokens/s{bad}"
