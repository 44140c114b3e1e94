"""`groundup sweep`: the best value of a setting by successive halving, or the usable learning rates by a range test."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from groundup.base.config import to_toml
from groundup.base.errors import ConfigError
from groundup.base.files import read_json, write_json, write_text
from groundup.base.log import command, duration, progress, say
from groundup.base.runs import Run, open_run
from groundup.model.transformer import Transformer
from groundup.parallel.mesh import world
from groundup.shards.dataset import TokenDataset
from groundup.train.config import PretrainConfig
from groundup.train.config_sweep import SweepConfig, changed, grid, read_base, rounds, trial_steps
from groundup.train.figure import figure
from groundup.train.loop import Loop
from groundup.train.metrics import Window
from groundup.train.precision import resolve, set_threads
from groundup.train.pretrain import PretrainSource, fitted, pretrain_loss
from groundup.train.pretrain import main as pretrain

__all__ = ["Trial", "main", "range_test"]

Trial = dict[
    str, Any
]  # {"round", "values", "steps", "score", "loss", "seconds"}; the score is None where training broke down
RISE = 300.0  # times: from so far below the base's rates to so far above
SMOOTH = 0.8  # share of the running mean that a step leaves
LOST = 0.1  # of what the loss has fallen, lost again: there a rate breaks away
BROKEN = 2.0  # times the lowest loss: the end of a range test


def label(values: dict[str, Any]) -> str:
    """Returns the values as a name: "train.lr=0.0003"."""
    shown = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items())
    return ",".join(shown)


def _score(results: dict[str, Any]) -> float | None:
    """Returns what trials are compared by: held-out bits per byte, or the training loss where nothing is held out."""
    value = results.get("bits_per_byte", results.get("loss"))
    return value if value is not None and math.isfinite(value) else None


def try_values(config: PretrainConfig, values: dict[str, Any], steps: int, folder: Path) -> Trial:
    """Returns the trial of some values, after training it; one that was interrupted goes on from its checkpoint."""
    trial = changed(config, values | {"train.steps": steps, "train.eval_every": steps, "train.checkpoint.keep": 1})
    trial.validate()
    run = Run(folder / f"{steps}-steps" / label(values).replace("/", "_"))
    try:
        results = pretrain(trial, run)
    except ConfigError as error:
        if not any("nonfinite" in row for row in run.metrics()[-1:]):
            raise
        say(f"{label(values)}: broke down ({error})")
        results = {}
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # its figures are kept; weights of trials fill disks
    spent, loss = results.get("train_s", 0.0), results.get("loss")
    return {"values": values, "steps": steps, "score": _score(results), "loss": loss, "seconds": spent}


def halve(config: PretrainConfig, sweep: SweepConfig, folder: Path, state: dict[str, Any]) -> list[list[Trial]]:
    """Returns the trials round by round, the best first. Each is written to sweep.json as soon as it is done."""
    values, steps = grid(sweep.over), sweep.steps or config.train.steps
    counts = rounds(len(values), sweep.keep)
    done: list[list[Trial]] = []
    with progress("sweep", sum(counts), "runs") as bar:
        for number, count in enumerate(counts, 1):
            length = trial_steps(steps, sweep.keep, number, len(counts))
            say(f"round {number} of {len(counts)}: {count} runs of {length} steps")
            trials: list[Trial] = []
            for chosen in values:
                known = [t for t in state["trials"] if t["values"] == chosen and t["steps"] == length]
                trial = known[0] if known else try_values(config, chosen, length, folder)
                if not known:
                    state["trials"].append(trial)
                    write_json(folder / "sweep.json", state)
                trials.append(trial)
                bar.advance()
            trials.sort(key=lambda t: math.inf if t["score"] is None else t["score"])
            done.append(trials)
            alive = [t["values"] for t in trials if t["score"] is not None]
            if not alive:
                raise ConfigError(
                    f"over: training broke down with every value; try smaller ones, or --range-test ({folder})"
                )
            values = alive[: counts[number]] if number < len(counts) else alive
    return done


def _state(folder: Path, config: PretrainConfig) -> dict[str, Any]:
    """Returns what is known of the sweep from before. Raises: ConfigError if it had another base or other text."""
    index = open_run(config.project, "shards", config.shards).path / "train" / "index.json"
    fresh: dict[str, Any] = {"base": to_toml(config), "text": read_json(index)["files"], "trials": []}
    if not (folder / "sweep.json").exists():
        return fresh
    state = read_json(folder / "sweep.json")
    if any(state.get(key) != fresh[key] for key in ("base", "text")):
        raise ConfigError(
            f"name: {folder} is a sweep of another base config or text; give this one another --name, or delete it"
        )
    if state["trials"]:
        say(f"{folder}: {len(state['trials'])} trials are done already")
    return state


def _table(done: Sequence[Sequence[Trial]]) -> list[str]:
    """Returns the lines that compare the trials: one a combination, the furthest and best first; `*` marks the winner."""
    last: dict[str, Trial] = {label(t["values"]): t for trials in done for t in trials}
    order = [label(t["values"]) for trials in reversed(done) for t in trials]
    width = max(map(len, last))
    lines = [f"  {'values':{width}}  {'steps':>7}  {'score':>9}  {'time':>9}"]
    for name in dict.fromkeys(order):
        trial = last[name]
        score = "broke down" if trial["score"] is None else f"{trial['score']:.4f}"
        mark = "*" if name == order[0] else " "
        lines.append(f"{mark} {name:{width}}  {trial['steps']:>7}  {score:>9}  {duration(trial['seconds']):>9}")
    return lines


def _edge(done: Sequence[Sequence[Trial]]) -> str | None:
    """Returns the sentence that warns of a winner at the edge of what was tried, or None. One numeric key only."""
    tried = [t["values"] for t in done[0]]
    key = next(iter(tried[0]))
    numbers = sorted(v[key] for v in tried if isinstance(v[key], (int, float)) and not isinstance(v[key], bool))
    best = done[-1][0]["values"][key]
    if len(tried[0]) > 1 or len(numbers) < len(tried) or best not in (numbers[0], numbers[-1]):
        return None
    side, factors = ("largest", (1, 3, 10)) if best == numbers[-1] else ("smallest", (0.1, 0.3, 1))
    wider = ",".join(f"{best * factor:g}" for factor in factors)
    return f"the winner is the {side} value that was tried; widen the range: --over {key}={wider}"


def _draw(done: Sequence[Sequence[Trial]], path: Path) -> None:
    """Draws score against value, a line for each round."""
    keys = list(done[0][0]["values"])
    names = [label(t["values"]) for t in sorted(done[0], key=lambda t: [str(v) for v in t["values"].values()])]
    numeric = len(keys) == 1 and all(type(t["values"][keys[0]]) in (int, float) for t in done[0])
    with figure(path) as axes:
        for number, trials in enumerate(done, 1):
            alive = [t for t in trials if t["score"] is not None]
            points = [(t["values"][keys[0]] if numeric else names.index(label(t["values"])), t["score"]) for t in alive]
            if points:
                x, y = zip(*sorted(points), strict=True)
                style = ["o:", "s--", "D-", "^-"][min(number - 1, 3)] if len(x) > 1 else "D"
                axes.plot(x, y, style, ms=4, label=f"{trials[0]['steps']} steps")
        lost = [t for t in done[0] if t["score"] is None]
        if lost and numeric:
            axes.plot(
                [t["values"][keys[0]] for t in lost],
                [axes.get_ylim()[1]] * len(lost),
                "x",
                color="0.4",
                label="broke down",
            )
        if numeric and min(t["values"][keys[0]] for t in done[0]) > 0:
            axes.set_xscale("log")
        if not numeric:
            axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
        axes.set(xlabel=keys[0] if numeric else "", ylabel="held-out bits per byte")
        axes.legend()


class _Rising(Loop):
    """The loop with a rate that rises step by step, by the same factor each time."""

    broken = False

    def scale(self) -> float:
        return float(RISE ** (2 * self.done / (self.config.steps - 1) - 1))

    def nonfinite(self) -> None:
        self.broken = True


def range_test(config: PretrainConfig, steps: int, folder: Path) -> dict[str, Any]:
    """Returns {"rates", "losses", "fastest", "lowest", "breaks"}: at which rate the smoothed loss falls fastest, is lowest, breaks away.

    `breaks` is where a tenth of the fall is lost again, or None. Source: Smith 2017
    """
    config, _, tokenizer = fitted(changed(config, {"train.steps": steps, "train.optim.ema": 0.0}))
    rows = config.train.batch_tokens // config.model.context
    shards = open_run(config.project, "shards", config.shards).path / "train"
    set_threads(config.threads)
    rates: list[float] = []
    losses: list[float] = []
    with world(config.device) as here, progress("range test", steps, "steps") as bar:
        precision = resolve(config.precision, here.device, config.train.batch_tokens, config.model.d_model)
        model = Transformer(config.model, config.train.seed, config.attention).to(here.device)
        source = PretrainSource(
            TokenDataset(shards, config.model.context, config.train.seed, config.document_mask),
            rows,
            config.train.micro_batch,
        )
        loss = partial(pretrain_loss, z_loss=config.train.optim.z_loss)
        folder.mkdir(parents=True, exist_ok=True)
        loop = _Rising(model, source, loss, config.train, Run(folder), tokenizer, precision, here)
        mean = 0.0
        while loop.done < steps and not loop.broken:
            rates.append(config.train.lr * loop.scale())
            loop.window = Window()
            loop.step(False, False)
            if loop.broken:
                rates.pop()
                break
            mean = SMOOTH * mean + (1 - SMOOTH) * loop.window.row()["loss"]
            losses.append(mean / (1 - SMOOTH**loop.done))
            bar.advance()
            if losses[-1] > BROKEN * min(losses):
                break
    lowest = min(range(len(losses)), key=losses.__getitem__)
    falls = [(losses[i] - losses[i - 4], i) for i in range(4, lowest + 1)]
    lost = losses[lowest] + LOST * (losses[0] - losses[lowest])
    broke = [rate for rate, loss in zip(rates[lowest:], losses[lowest:], strict=False) if loss > lost]
    if loop.broken:
        broke.append(rates[-1])
    return {
        "rates": rates, "losses": losses, "lowest": rates[lowest],
        "fastest": rates[min(falls)[1]] if falls else rates[lowest], "breaks": broke[0] if broke else None,
    }  # fmt: skip


def _test(config: PretrainConfig, sweep: SweepConfig, folder: Path) -> dict[str, Any]:
    """Makes a range test, draws and says it."""
    found = range_test(config, sweep.range_steps, folder)
    write_json(folder / "range.json", found)
    with figure(folder / "range") as axes:
        axes.plot(found["rates"], found["losses"], color="C0")
        for key, style in (("fastest", "--"), ("lowest", ":"), ("breaks", "-.")):
            if found[key]:
                axes.axvline(found[key], color="0.4", ls=style, lw=1, label=f"{key}: {found[key]:.2g}")
        top = max(found["losses"][:5])
        axes.set(xscale="log", xlabel="train.lr", ylabel="nats per token (smoothed)", ylim=(None, 1.15 * top))
        axes.legend()
    breaks = f"breaks away at {found['breaks']:.2g}" if found["breaks"] else f"holds up to {found['rates'][-1]:.2g}"
    say(
        f"the loss falls fastest at train.lr {found['fastest']:.2g}, is lowest at {found['lowest']:.2g}, {breaks}: {folder / 'range.png'}"
    )
    values = ",".join(f"{found['lowest'] * factor:.2g}" for factor in (0.03, 0.1, 0.3, 1))
    say("a short test flatters high rates; a tenth of the lowest is the usual choice, a sweep decides")
    say(f"next: {command('sweep', sweep.base, '--over', f'train.lr={values}')}")
    return found


def main(sweep: SweepConfig) -> dict[str, Any]:
    """Tries the values and returns {"best", "score", "rounds", "config"}; writes sweep.json, best.toml and a plot. Resumable.

    Raises: ConfigError for values that can't be, or if training breaks down with all of them.
    """
    base = read_base(sweep.base)
    folder = base.project / "sweeps" / sweep.name
    config = fitted(base)[0]
    if sweep.range_test:
        return _test(config, sweep, folder)
    for values in grid(sweep.over):
        fitted(changed(base, values))  # refused now, not after an hour
    done = halve(config, sweep, folder, _state(folder, config))
    best = done[-1][0]
    winner = replace(changed(base, best["values"]), name=f"{base.name}-best")
    write_text(folder / "best.toml", to_toml(winner))
    _draw(done, folder / "sweep")
    say("\n".join(_table(done)))
    if warning := _edge(done):
        say(warning)
    say(
        f"best: {label(best['values'])}, {best['score']:.4f} bits per byte after {best['steps']} steps; see {folder / 'sweep.png'}"
    )
    say(f"next: {command('pretrain', '--config', folder / 'best.toml')}")
    return {"best": best["values"], "score": best["score"], "rounds": done, "config": str(folder / "best.toml")}
