"""`groundup plan`: from the time at hand to a model's shape, a number of steps, and what they cost."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from groundup.base.config import to_toml
from groundup.base.errors import ConfigError, DataError
from groundup.base.files import read_json, write_json, write_text
from groundup.base.log import command, duration, progress, quantity
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.model.config import ModelConfig
from groundup.plan.chinchilla import BESIROGLU, TOKENS_PER_PARAMETER, effective_tokens, good_lr
from groundup.plan.config import PlanConfig
from groundup.plan.cost import faster_precision, hardware, muon_flops, seconds_per_step, seconds_to_read, shape
from groundup.plan.memory import training_bytes

__all__ = ["Plan", "Row", "main", "plan"]

WIDTHS = (64, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
FEWEST_STEPS = 50  # a plan with fewer steps would be all warm-up
TRAINING_SHARE = 0.9  # of the time that goes into steps; the rest is for held-out losses, samples and checkpoints
TIMING_S = 1.0  # for each shape that is tried
LAW_VOCABULARY, LAW_PARAMS = (
    8192,
    10_000_000,
)  # from where the law's loss is comparable with the corpus it was fitted on


@dataclass(frozen=True)
class Row:
    """One shape, and what it would come to within the budget. `law_loss` serves to compare shapes with one another."""

    name: str
    params: int
    seconds_per_step: float
    tokens_per_s: float
    steps: int
    tokens: int
    epochs: float
    flops: float
    reading_s: float
    time_s: float
    memory_bytes: int
    law_loss: float


@dataclass(frozen=True)
class Plan:
    """The shape taken, its row, the others that were considered, and rules of thumb beside it."""

    model: ModelConfig
    row: Row
    alternatives: list[Row]
    batch_tokens: int
    lr: float
    precision: str
    corpus_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of plan.json. `loss` is null where the law doesn't speak of such a model."""
        row, optimum = self.row, BESIROGLU.optimum(self.row.flops)
        lawful = self.model.vocab_size >= LAW_VOCABULARY and row.params >= LAW_PARAMS
        return asdict(row) | {
            "loss": row.law_loss if lawful else None,
            "model": self.model.to_dict(), "batch_tokens": self.batch_tokens, "lr": self.lr, "precision": self.precision,
            "corpus_tokens": self.corpus_tokens,
            "rule": {"tokens_per_parameter": TOKENS_PER_PARAMETER, "tokens": TOKENS_PER_PARAMETER * row.params,
                     "time_s": TOKENS_PER_PARAMETER * row.params / row.tokens_per_s},
            "chinchilla": {"params": round(optimum[0]), "tokens": round(optimum[1])},
            "devices": [device | {"time_s": row.flops / (device["tflops"] * 1e12 * device["mfu"])} for device in hardware()],
            "alternatives": [asdict(other) for other in self.alternatives],
        }  # fmt: skip

    def toml(self) -> str:
        """Returns the sections that `groundup pretrain` reads."""
        lines = [f"# {self.row.name}: {self.row.params:,} parameters, {self.row.tokens:,} tokens, "
                 f"about {duration(self.row.time_s)}", "", "[model]", to_toml(self.model, "model."), "[train]",
                 f"steps = {self.row.steps}", f"batch_tokens = {self.batch_tokens}", f"lr = {self.lr:.3g}", ""]  # fmt: skip
        return "\n".join(lines)


def _row(
    config: PlanConfig,
    model: ModelConfig,
    corpus_tokens: int,
    seconds: float,
    reading_s: float,
    precision: str,
    device: str,
) -> Row:
    """Returns what a shape comes to whose steps take `seconds`, where reading the held-out text takes `reading_s`."""
    per_token = model.flops_per_token()
    extra = muon_flops(model) / config.batch_tokens if config.optimizer == "muon" else 0.0
    seconds *= (per_token + extra) / per_token  # the timed step was AdamW's
    if config.flops:
        steps = config.flops / per_token / config.batch_tokens
    else:
        steps = (config.minutes * 60 - reading_s) * TRAINING_SHARE / seconds
    whole = max(1, round(min(steps, config.steps or steps)))
    tokens = whole * config.batch_tokens
    memory = training_bytes(model, config.batch_tokens // model.context, precision, config.optimizer, device)
    return Row(
        name=f"{model.d_model} x {model.n_layers}", params=model.params(), seconds_per_step=seconds,
        tokens_per_s=config.batch_tokens / seconds, steps=whole, tokens=tokens, epochs=tokens / corpus_tokens,
        flops=tokens * per_token, reading_s=reading_s, time_s=whole * seconds / TRAINING_SHARE + reading_s,
        memory_bytes=sum(memory.values()),
        law_loss=BESIROGLU.loss(model.params(), effective_tokens(tokens, corpus_tokens)),
    )  # fmt: skip


def _candidates(config: PlanConfig) -> Iterator[ModelConfig]:
    """Yields the shapes to be tried, from small to large."""
    if not config.choose:
        yield config.model
        return
    shapes = [shape(width, config.model) for width in WIDTHS]
    if config.params:
        yield min(shapes, key=lambda s: max(s.params() / config.params, config.params / s.params()))
        return
    yield from shapes


def plan(config: PlanConfig, corpus_tokens: int) -> Plan:
    """Returns the plan for a corpus of that many tokens; times training steps on this machine for some seconds.

    Shapes are tried from small to large, until the law expects no more of a larger one, or it would have too few steps.
    Raises: ConfigError if nothing fits the budget; DataError for a corpus smaller than one context.
    """
    from groundup.parallel.mesh import choose_device, set_threads

    if corpus_tokens <= config.model.context:
        raise DataError(
            f"the corpus has {corpus_tokens} tokens, fewer than one context of {config.model.context}; lower --model.context"
        )
    set_threads(config.threads)
    device = choose_device(config.device)
    rows = config.batch_tokens // config.model.context
    tried: list[tuple[Row, ModelConfig, str]] = []
    with progress("timing steps", None, "shapes") as bar:
        for model in _candidates(config):
            precision: str = config.precision
            if precision == "auto":
                precision = faster_precision(device, config.batch_tokens, model.d_model)
            seconds = seconds_per_step(model, rows, device, precision, TIMING_S)
            reading_s = seconds_to_read(model, config.heldout_tokens, device) if config.heldout_tokens else 0.0
            row = _row(config, model, corpus_tokens, seconds, reading_s, precision, device.type)
            tried.append((row, model, precision))
            bar.advance()
            if len(tried) > 1 and (tried[-1][0].law_loss > tried[-2][0].law_loss or tried[-1][0].steps < FEWEST_STEPS):
                break
    enough = [entry for entry in tried if entry[0].steps >= FEWEST_STEPS] or tried[:1]
    row, model, precision = min(enough, key=lambda entry: entry[0].law_loss)
    if row.steps < 2:
        reading = f" and reading the held-out text {duration(row.reading_s)}" if row.reading_s else ""
        raise ConfigError(
            f"minutes: {config.minutes:.2g} is too little: one step of {row.name} takes {row.seconds_per_step:.1f} s{reading} here"
        )
    alternatives = [entry[0] for entry in tried]
    return Plan(model, row, alternatives, config.batch_tokens, good_lr(row.flops), precision, corpus_tokens)


def main(config: PlanConfig) -> dict[str, Any]:
    """Plans for the project's token files, writes plan.json and plan.toml, and returns the former's content."""
    shards = open_run(config.project, "shards", config.shards).require_done("shards")
    index_path = shards.path / "train" / "index.json"
    index = read_json(index_path)
    config = replace(config, model=replace(config.model, vocab_size=index["vocab_size"]))
    config.validate()
    run, toml, inputs = open_run(config.project, "plan", config.name), to_toml(config), {"shards": index_path}
    if unchanged(run, toml, inputs):
        return read_json(run.path / "plan.json")
    with record(run, toml, inputs) as results:
        found = plan(config, index["tokens"])
        content = found.as_dict()
        write_json(run.path / "plan.json", content)
        write_text(run.path / "plan.toml", found.toml())
        results.update({key: content[key] for key in ("params", "tokens", "steps", "time_s", "memory_bytes", "loss")})
        _say(run, found, content)
    run.log(f"next: {command('pretrain', config.project)}")
    return content


def _table(found: Plan) -> list[str]:
    """Returns the lines that compare the shapes which were tried."""
    ranks = sorted(row.law_loss for row in found.alternatives)
    lines = ["width x blocks   parameters   ms a step   tokens/s     tokens   epochs     memory   rank*"]
    for row in found.alternatives:
        cells = [
            f"{row.name:>14}", f"{quantity(row.params):>12}", f"{1000 * row.seconds_per_step:11.0f}", f"{quantity(row.tokens_per_s):>10}",
            f"{quantity(row.tokens):>10}", f"{row.epochs:8.2g}", f"{quantity(row.memory_bytes) + 'B':>10}",
            f"{ranks.index(row.law_loss) + 1:7}",
        ]  # fmt: skip
        lines.append(" ".join(cells) + ("  <- taken" if row == found.row else ""))
    return [
        *lines,
        "  * by Chinchilla's law; it was fitted to web text, so only the order of the shapes is taken from it",
    ]


def _say(run: Run, found: Plan, content: dict[str, Any]) -> None:
    """Says the plan, and what the rules of thumb would have."""
    row, rule = found.row, content["rule"]
    for line in _table(found) if len(found.alternatives) > 1 else []:
        run.log(line)
    run.log(
        f"plan: {row.name}, {row.params:,} parameters; {row.steps:,} steps of {found.batch_tokens:,} tokens "
        f"({quantity(row.tokens)} tokens, {row.epochs:.2g} times the corpus) in about {duration(row.time_s)}, "
        f"{found.precision}, {quantity(row.memory_bytes)}B of memory"
    )
    run.log(
        f"{TOKENS_PER_PARAMETER} tokens a parameter would be {quantity(rule['tokens'])} tokens ({duration(rule['time_s'])}); this "
        f"plan has {row.tokens / row.params:.1f} a parameter, and the corpus {quantity(found.corpus_tokens)} tokens"
    )
    device = next(d for d in content["devices"] if d["name"] == "H100 SXM")
    needed = duration(device["time_s"]) if device["time_s"] >= 1 else "less than a second"
    run.log(
        f"for its {row.flops:.2g} floating-point operations one {device['name']} at {device['mfu']:.0%} of its peak would "
        f"need {needed}; so small a model reaches less of it"
    )
