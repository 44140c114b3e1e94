"""`groundup race`: two configs train in turns on the same batches, over several seeds, and a paired interval judges them."""

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.base.config import to_toml
from groundup.base.errors import ConfigError, DataError
from groundup.base.files import read_json, write_json
from groundup.base.log import command, duration, progress, quantity, say
from groundup.base.runs import Run, open_run
from groundup.model.transformer import Transformer
from groundup.parallel.mesh import World, world
from groundup.shards.dataset import TokenDataset
from groundup.shards.read import Shards
from groundup.train.config import LoopConfig, PretrainConfig
from groundup.train.config_sweep import RaceConfig, difference, read_base
from groundup.train.figure import figure
from groundup.train.loop import Loop
from groundup.train.precision import autocast, resolve, set_threads
from groundup.train.pretrain import PretrainSource, fitted, heldout_figures, pretrain_loss
from groundup.train.verdict import Verdict, interval, judge

__all__ = ["Runner", "main", "race"]

Look = tuple[int, float, float]  # tokens read, seconds of training, held-out bits per byte
WARM_STEPS, TIMED_STEPS = 2, 5
TRAINING_SHARE = 0.9  # of the minutes; the rest is for the looks and for what the timing missed
SIDES = ("base", "idea")


class _Silent(Run):
    """A run that writes its log without printing it: two that train in turns would talk at cross purposes."""

    def log(self, text: str) -> None:
        with open(self.path / "log.txt", "a", encoding="utf-8") as stream:
            stream.write(text + "\n")


class Runner:
    """One config in training, step by step. `looks` are its looks at the held-out text."""

    def __init__(self, config: PretrainConfig, folder: Path, here: World, precision: str) -> None:
        config, _, tokenizer = fitted(config)
        shards = open_run(config.project, "shards", config.shards).path
        data = TokenDataset(shards / "train", config.model.context, config.train.seed, config.document_mask)
        self.config, self.heldout, self.looks = config, Shards(shards / "heldout"), list[Look]()
        loop, ramp = config.train, round(config.train.ramp.share * config.train.steps)
        rows = loop.batch_tokens // config.model.context
        source = PretrainSource(data, rows, loop.micro_batch, here, loop.ramp.doublings, ramp)
        model = Transformer(config.model, loop.seed, config.attention).to(here.device)
        loss = partial(pretrain_loss, z_loss=loop.optim.z_loss)
        folder.mkdir(parents=True, exist_ok=True)
        self.loop = Loop(model, source, loss, loop, _Silent(folder), tokenizer, precision, here)

    @property
    def share(self) -> float:
        """The share of its steps that it has taken."""
        return self.loop.done / self.config.train.steps

    def step(self) -> None:
        """Takes one step."""
        self.loop.step(False, False)
        if self.loop.done % self.config.train.log_every == 0:
            self.loop.log()

    def look(self) -> None:
        """Measures it on the held-out text (with its averaged weights, if it keeps them)."""
        loop = self.loop
        loop.model.eval()
        averaged = loop.average.inside(loop.model) if loop.average else nullcontext()
        with averaged, torch.no_grad(), autocast(loop.precision, loop.world.device):
            found = heldout_figures(loop.model, self.heldout, self.config.model.context, self.config.eval_tokens)
        loop.model.train()
        loop.journal.row(step=loop.done, tokens=loop.tokens, train_s=loop.train_s, **found)
        self.looks.append((loop.tokens, loop.train_s, found["bits_per_byte"]))


def race(runners: Sequence[Runner], looks: int, advance: Any = lambda: None) -> None:
    """Trains all of them to their ends in turns: whoever has taken the smaller share of its steps is next.

    So they meet the same machine, whatever else it is doing. The first to move changes with each round. Looks are taken at
    equal shares.
    """
    for runner in runners:
        runner.look()
    number = 0
    while any(runner.share < 1 for runner in runners):
        order = runners if number // len(runners) % 2 else list(reversed(runners))
        runner = min(order, key=lambda r: r.share)  # the first of those that are equally far
        before = int(runner.share * looks)
        runner.step()
        advance()
        number += 1
        if int(runner.share * looks) > before or runner.share >= 1:
            runner.look()


def _configs(config: RaceConfig) -> tuple[PretrainConfig, PretrainConfig]:
    """Returns the two configs. Raises: ConfigError or DataError for what can't be compared."""
    base, idea = read_base(config.base), read_base(config.idea)
    held = [Shards(open_run(c.project, "shards", c.shards).path / "heldout") for c in (base, idea)]
    if held[0].tokens < 2 or held[1].tokens < 2:
        raise DataError(f"{held[0].folder}: no held-out text to judge by; `groundup data build --heldout` keeps some")
    if held[0].bytes != held[1].bytes:
        raise ConfigError(
            f"idea: its held-out text ({held[1].folder}) isn't the base's, so bits per byte can't be compared"
        )
    tokens = base.train.steps * base.train.batch_tokens
    steps = max(1, round(tokens / idea.train.batch_tokens))
    return fitted(base)[0], fitted(replace(idea, train=replace(idea.train, steps=steps)))[0]


def _step_seconds(config: PretrainConfig, folder: Path, here: World, precision: str) -> tuple[float, float]:
    """Returns the median seconds of a step, and of a look at the held-out text, of a model that is thrown away."""
    runner = Runner(config, folder / "timing", here, precision)
    times = []
    for _ in range(WARM_STEPS + TIMED_STEPS):
        before = runner.loop.train_s
        runner.step()
        times.append(runner.loop.train_s - before)
    start = time.perf_counter()
    runner.look()
    return statistics.median(times[WARM_STEPS:]), time.perf_counter() - start


def _fit_time(
    config: RaceConfig, pair: tuple[PretrainConfig, PretrainConfig], costs: Sequence[tuple[float, float]]
) -> tuple[PretrainConfig, PretrainConfig]:
    """Returns the configs with as many steps as fit into the minutes, at most the base's own; equal tokens or equal seconds."""
    base, idea = pair
    (base_s, base_look), (idea_s, idea_look) = costs
    steps, other = base.train.steps, idea.train.steps
    if config.equal == "seconds":
        other = max(1, round(steps * base_s / idea_s))
    needed = config.seeds * (steps * base_s + other * idea_s)
    have = config.minutes * 60 * TRAINING_SHARE - config.seeds * (config.looks + 1) * (base_look + idea_look)
    share = 1.0 if not config.minutes else min(1.0, have / needed)
    if round(share * min(steps, other)) < config.looks:
        raise ConfigError(
            f"minutes: {config.minutes:g} leave fewer than {config.looks} steps to each of {2 * config.seeds} runs (a step takes "
            f"{base_s:.2g} and {idea_s:.2g} s); give more, or fewer --seeds"
        )
    set_steps = lambda c, n: replace(c, train=replace(c.train, steps=max(1, round(share * n))))  # noqa: E731
    return set_steps(base, steps), set_steps(idea, other)


def _pairs(config: RaceConfig, pair: Sequence[PretrainConfig], folder: Path, here: World, precisions: Sequence[str],
           state: dict[str, Any]) -> list[list[list[Look]]]:  # fmt: skip
    """Returns the looks of each pair; a pair that was finished before is taken from race.json, another begins anew."""
    total = sum(c.train.steps for c in pair) * config.seeds
    with progress("race", total, "steps") as bar:
        for number in range(len(state["pairs"]), config.seeds):
            runners = []
            for side, chosen, precision in zip(SIDES, pair, precisions, strict=True):
                loop: LoopConfig = replace(chosen.train, seed=pair[0].train.seed + number)
                where = folder / f"seed-{loop.seed}" / side
                (where / "metrics.jsonl").unlink(missing_ok=True)
                runners.append(Runner(replace(chosen, train=loop), where, here, precision))
            race(runners, config.looks, bar.advance)
            state["pairs"].append([runner.looks for runner in runners])
            write_json(folder / "race.json", state)
            last = [runner.looks[-1][2] for runner in runners]
            say(
                f"seed {number + 1} of {config.seeds}: base {last[0]:.4f}, idea {last[1]:.4f} bits per byte ({last[0] - last[1]:+.4f})"
            )
    return state["pairs"]


def _by(pairs: Sequence[Sequence[Sequence[Look]]], axis: int, points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Returns (points,) of tokens (axis 0) or seconds (axis 1) that all have reached, and (seeds, 2, points) bits per byte there."""
    high = min(looks[-1][axis] for pair in pairs for looks in pair)
    low = max(looks[1][axis] for pair in pairs for looks in pair)  # the first look is before the first step
    at = np.linspace(min(low, high), high, points)
    curves = [[np.interp(at, [k[axis] for k in looks], [k[2] for k in looks]) for looks in pair] for pair in pairs]
    return at, np.array(curves)


def _draw(pairs: Sequence[Sequence[Sequence[Look]]], confidence: float, path: Path) -> None:
    """Draws both curves, and the paired difference with its interval, by tokens and by seconds."""
    with figure(path, 2, 2, (8.4, 5.2)) as axes:
        for column, (axis, unit) in enumerate([(0, "tokens"), (1, "seconds of training")]):
            at, curves = _by(pairs, axis)
            for side, name in enumerate(SIDES):
                for seed in curves[:, side]:
                    axes[0, column].plot(at, seed, color=f"C{side}", alpha=0.25, lw=0.8)
                axes[0, column].plot(at, curves[:, side].mean(0), "--" if side else "-", color=f"C{side}", label=name)
            differences = (curves[:, 0] - curves[:, 1]).T.tolist()  # (points, seeds)
            mean, half = np.array([interval(d, confidence) for d in differences]).T
            below = axes[1, column]
            below.fill_between(
                at,
                mean - half,
                mean + half,
                color="C1",
                alpha=0.2,
                lw=0,
                label=f"{confidence:.0%} interval, {len(pairs)} pairs",
            )
            below.plot(at, mean, color="C1")
            below.axhline(0, color="0.3", lw=0.8)
            axes[0, column].legend()
            below.legend()
            below.set(xlabel=unit)
        axes[0, 0].set(ylabel="held-out bits per byte")
        axes[1, 0].set(ylabel="base - idea (above 0: better)")


def _state(config: RaceConfig, pair: Sequence[PretrainConfig], folder: Path) -> dict[str, Any]:
    """Returns what is known of the race from before, if it was the same one; otherwise an empty one."""
    asked = {
        "base": to_toml(pair[0]),
        "idea": to_toml(pair[1]),
        "equal": config.equal,
        "minutes": config.minutes,
        "looks": config.looks,
    }
    fresh: dict[str, Any] = {"asked": asked, "steps": None, "pairs": []}
    if not (folder / "race.json").exists():
        return fresh
    state = read_json(folder / "race.json")
    if state.get("asked") != asked:
        say(f"{folder}: the race before was another one; it is run anew")
        return fresh
    if state["pairs"]:
        say(f"{folder}: {len(state['pairs'])} pairs are done already")
    return state


def _say(config: RaceConfig, pairs: Sequence[Any], verdict: Verdict, speed: tuple[float, float], folder: Path) -> None:
    """Says the verdict, what it is about, and what comes next."""
    tokens, seconds = pairs[0][0][-1][0], statistics.fmean(pair[0][-1][1] for pair in pairs)
    each = f"{quantity(tokens)} tokens each" if config.equal == "tokens" else f"{duration(seconds)} each"
    say(f"the idea is {verdict}; {each}")
    say(f"the idea reads {speed[0]:.2f} ± {speed[1]:.2f} times as many tokens a second; see {folder / 'race.png'}")
    if verdict.needed and verdict.needed > config.seeds:
        minutes = round(config.minutes * verdict.needed / config.seeds)
        more = ["--seeds", verdict.needed, "--minutes", minutes]
        say(f"next: {command('race', config.base, config.idea, *more)}")
    else:
        say(
            f"next: {command('pretrain', '--config', config.idea if verdict.real and verdict.mean > 0 else config.base)}"
        )


def main(config: RaceConfig) -> dict[str, Any]:
    """Runs the race and returns {"verdict", "real", "mean", "half", "needed", "speed", ...}; writes race.json and a plot.

    A race that was stopped goes on with the next pair; one with other configs or minutes begins anew.
    Raises: ConfigError, DataError for configs that can't be compared.
    """
    pair = _configs(config)
    folder = pair[0].project / "races" / config.name
    folder.mkdir(parents=True, exist_ok=True)
    state = _state(config, pair, folder)
    set_threads(pair[0].threads)
    say(f"the idea changes {', '.join(difference(*pair)) or 'nothing'}")
    with world(pair[0].device) as here:
        precisions = [resolve(c.precision, here.device, c.train.batch_tokens, c.model.d_model) for c in pair]
        if state["steps"] is None:
            costs = [_step_seconds(c, folder, here, p) for c, p in zip(pair, precisions, strict=True)]
            state["steps"] = [c.train.steps for c in _fit_time(config, pair, costs)]
        base, idea = (replace(c, train=replace(c.train, steps=n)) for c, n in zip(pair, state["steps"], strict=True))
        pairs = _pairs(config, (base, idea), folder, here, precisions, state)
    verdict = judge([b[-1][2] for b, _ in pairs], [i[-1][2] for _, i in pairs], config.confidence)
    rates = [(i[-1][0] / i[-1][1]) / (b[-1][0] / b[-1][1]) for b, i in pairs]
    speed = interval(rates, config.confidence)
    _draw(pairs, config.confidence, folder / "race")
    _say(config, pairs, verdict, speed, folder)
    result = {"verdict": str(verdict), "real": verdict.real, "mean": verdict.mean, "half": verdict.half,
              "needed": verdict.needed, "speed": speed}  # fmt: skip
    write_json(folder / "race.json", state | result)
    return result | {"pairs": pairs, "steps": state["steps"], "folder": str(folder)}
