"""`groundup pretrain`: a base model from token files."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.base.config import to_toml
from groundup.base.errors import ConfigError, DataError, TokenizerError
from groundup.base.files import write_text
from groundup.base.log import command, duration, quantity
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.model.loss import IGNORED
from groundup.model.transformer import Transformer
from groundup.parallel.mesh import World, world
from groundup.shards.dataset import Batch, TokenDataset
from groundup.shards.read import Shards
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load as load_tokenizer
from groundup.train import compiling
from groundup.train.config import FREE, PretrainConfig, apply_plan
from groundup.train.continued import forgetting, load_start, old_folder, training_data
from groundup.train.loop import train
from groundup.train.metrics import MemoryMeter
from groundup.train.precision import autocast, peak_flops, resolve_once, set_threads

__all__ = ["PretrainSource", "fitted", "heldout_figures", "heldout_loss", "main", "pretrain_loss"]

EVAL_BATCH_TOKENS = 8192  # of one forward pass
SAMPLE_TOKENS = 120


class PretrainSource:
    """Windows of the token files in the data set's order: a batch takes up where the one before it ended.

    With a ramp the first batches are smaller: `rows` / 2^doublings windows, doubled at equal distances up to `ramp_batches`.
    """

    def __init__(
        self, data: TokenDataset, rows: int, micro_batch: int = 0, world: World | None = None, doublings: int = 0, ramp_batches: int = 0
    ) -> None:  # fmt: skip
        self.data, self.rows, self.micro_batch, self.world = data, rows, micro_batch, world or World()
        self.stages = [
            (round(i * ramp_batches / max(1, doublings)), rows >> (doublings - i)) for i in range(doublings + 1)
        ]
        self.shift, self.stamp = 0, data.shards.stamp()

    def size(self, number: int) -> int:
        """Returns how many windows a batch has."""
        return next(rows for first, rows in reversed(self.stages) if number >= first)

    def samples(self, number: int) -> int:
        """Returns how many windows come before a batch."""
        ends = [first for first, _ in self.stages[1:]] + [number]
        taken = (
            (max(0, min(number, end) - first)) * rows for (first, rows), end in zip(self.stages, ends, strict=True)
        )
        return self.shift + sum(taken)

    def seek(self, number: int, samples: int) -> None:
        """Lets batch `number` begin at that sample, whatever the sizes of those before it were."""
        self.shift += samples - self.samples(number)

    def batch(self, number: int) -> Batch:
        """Returns this process's share of a batch."""
        return self.data.batch(self.samples(number), self.size(number), self.world.rank, self.world.size)

    def check(self) -> None:
        """Raises: DataError if the token files are no longer those that were opened."""
        if self.data.shards.stamp() != self.stamp:
            raise DataError(
                f"{self.data.shards.folder}: changed while it was being trained on, so the run stops with its last checkpoint; put the "
                "old files back, or make the token files anew with `groundup shards` and begin with --fresh"
            )

    def parts(self, batch: Batch) -> list[Batch]:
        """Returns the batch in pieces of at most `micro_batch` rows."""
        size = self.micro_batch or len(batch.tokens)
        positions = batch.positions
        return [
            Batch(
                batch.tokens[i : i + size],
                batch.targets[i : i + size],
                None if positions is None else positions[i : i + size],
            )
            for i in range(0, len(batch.tokens), size)
        ]

    def tokens(self, batch: Batch) -> int:
        """Returns the number of tokens in the batch."""
        return batch.tokens.numel()


def pretrain_loss(model: Transformer, batch: Batch, z_loss: float = 0.0) -> tuple[Tensor, int, dict[str, Any]]:
    """Returns the summed negative log-likelihood of each next token, how many tokens were scored, and metrics.

    With `z_loss` its multiple of log(Z)^2 is added for each token, where Z is the sum that the softmax divides by; the metric
    "reported" then keeps the sum without it. Source: Chowdhery et al. 2022 (PaLM), section 5. Equal to: groundup.train.plain.z_loss
    """
    count = int((batch.targets != IGNORED).sum())
    batch = batch.to(next(model.parameters()).device)
    loss, nats = model.loss(batch.tokens, batch.targets, batch.positions, z_loss)
    if not z_loss:
        return loss, count, {}
    return loss, count, {"reported": nats, "z_loss": float(loss.detach() - nats) / max(1, count)}


@torch.no_grad()
def heldout_loss(model: Transformer, shards: Shards, context: int, most_tokens: int = 0) -> float:
    """Returns the mean nats per token over windows spread evenly over the text (`most_tokens` 0: over all of it).

    Raises: DataError if there are not two tokens.
    """
    if shards.tokens < 2:
        raise DataError(f"{shards.folder}: no held-out text to measure the loss on")
    context = min(context, shards.tokens - 1)
    windows = (shards.tokens - 1) // context
    chosen = windows if not most_tokens else max(1, min(windows, most_tokens // context))
    starts = [i * windows // chosen * context for i in range(chosen)]
    size, total = max(1, EVAL_BATCH_TOKENS // context), 0.0
    for first in range(0, chosen, size):
        rows = [
            torch.from_numpy(shards.slice(s, s + context + 1).astype("int64")) for s in starts[first : first + size]
        ]
        batch = torch.stack(rows)  # (B, T + 1)
        loss, _, _ = pretrain_loss(model, Batch(batch[:, :-1], batch[:, 1:].contiguous()))
        total += float(loss)
    return total / (chosen * context)


def heldout_figures(model: Transformer, heldout: Shards, context: int, most_tokens: int = 0) -> dict[str, float]:
    """Returns {"heldout_loss", "bits_per_byte"}, or nothing where there is no held-out text."""
    if heldout.tokens < 2:
        return {}
    loss = heldout_loss(model, heldout, context, most_tokens)
    return {"heldout_loss": loss, "bits_per_byte": loss * heldout.tokens / max(heldout.bytes, 1) / math.log(2)}


def fitted(config: PretrainConfig, processes: int = 1) -> tuple[PretrainConfig, Tokenizer, Path]:
    """Returns the config with the vocabulary's size, the tokenizer of the token files, and where it lies.

    Raises: DataError, TokenizerError or ConfigError for what is missing or doesn't go together.
    """
    path = config.start / "tokenizer.json" if config.start else _tokenizer_path(config)
    tokenizer = load_tokenizer(path)
    folder = open_run(config.project, "shards", config.shards).require_done("shards").path / "train"
    TokenDataset(folder, config.model.context)  # too short a corpus is said before anything is written
    config = _fit(config, Shards(folder), tokenizer, processes)
    training_data(config, tokenizer)  # and another tokenizer's older text
    config.validate()
    return config, tokenizer, path


def _tokenizer_path(config: PretrainConfig) -> Path:
    """Returns the tokenizer.json that made the token files. Raises: DataError if the files aren't there."""
    run = open_run(config.project, "shards", config.shards).require_done("shards")
    entry = run.info.get("inputs", {}).get("tokenizer")
    named = run.path / entry["path"] if entry else run.path
    return named if named.exists() else open_run(config.project, "tokenizer").path / "tokenizer.json"


def _fit(config: PretrainConfig, shards: Shards, tokenizer: Tokenizer, processes: int) -> PretrainConfig:
    """Returns the config with the vocabulary's size. Raises: ConfigError or TokenizerError for what doesn't go together."""
    if tokenizer.fingerprint != shards.tokenizer:
        raise TokenizerError(
            f"{shards.folder}: made with another tokenizer than the {'model' if config.start else 'project'}'s; "
            "run `groundup shards` again"
        )
    model, loop = config.model, config.train
    if config.start is None and model.vocab_size not in (shards.vocab_size, model.usual_vocab):
        raise ConfigError(
            f"model.vocab_size: the tokenizer has {shards.vocab_size} tokens, not {model.vocab_size}; leave it out"
        )
    rows, rest = divmod(loop.batch_tokens, model.context)
    if rest or not rows:
        near = f"{rows * model.context} or " if rows else ""
        raise ConfigError(
            f"train.batch_tokens: {loop.batch_tokens} is not a whole number of contexts of {model.context}; "
            f"take {near}{(rows + 1) * model.context}"
        )
    if rows % processes:
        raise ConfigError(
            f"train.batch_tokens: {rows} rows of {model.context} can't be shared evenly by {processes} processes"
        )
    if rows % (processes << loop.ramp.doublings):
        raise ConfigError(
            f"train.ramp.doublings: {rows} rows can't be halved {loop.ramp.doublings} times"
            f"{f' and shared evenly by {processes} processes' if processes > 1 else ''}; take fewer, or a larger train.batch_tokens"
        )
    windows = (shards.tokens - 1) // model.context
    if rows > windows:
        raise ConfigError(
            f"train.batch_tokens: a step of {rows} rows of {model.context} is more than the whole training text, which has "
            f"{windows}; take at most {windows * model.context}, or more text"
        )
    return config if config.start else replace(config, model=replace(model, vocab_size=shards.vocab_size))


def _write_sample(model: Transformer, tokenizer: Tokenizer, prompt: str, file: Path, seed: int) -> None:
    """Writes what the model makes of the prompt at this point of its training."""
    from groundup.infer.config import SamplingParams
    from groundup.infer.sample import generate

    ids = [tokenizer.eot, *tokenizer.encode_ordinary(prompt)][-(model.config.context // 2) :]
    params = SamplingParams(temperature=0.8, max_tokens=SAMPLE_TOKENS, seed=seed, stop_ids=(tokenizer.eot,))
    answer = generate(model, [ids], params)[0]
    write_text(file, prompt + tokenizer.decode([i for i in answer if i != tokenizer.eot]) + "\n")


def _train(config: PretrainConfig, run: Run, here: World, tokenizer: Tokenizer, tokenizer_path: Path) -> dict[str, Any]:
    """Returns the results of the training run itself."""
    folder = open_run(config.project, "shards", config.shards).path
    if here.main:
        for split in ("train", "heldout"):
            Shards(folder / split, verify=True)  # an altered file is named now, not learned from
    data = training_data(config, tokenizer)
    heldout = Shards(folder / "heldout")
    rows = config.train.micro_batch * config.model.context or config.train.batch_tokens // here.size
    precision = resolve_once(config.precision, run, here, rows, config.model.d_model)
    memory = MemoryMeter(here.device)
    loop, context = config.train, config.model.context
    model = Transformer(config.model, config.train.seed, config.attention).to(here.device)
    load_start(config, model)
    with autocast(precision, here.device):
        forgotten = forgetting(config, model, lambda model, old: heldout_loss(model, old, context, config.eval_tokens))
    doublings, ramp = loop.ramp.doublings, round(loop.ramp.share * loop.steps)
    source = PretrainSource(data, loop.batch_tokens // context, loop.micro_batch, here, doublings, ramp)
    if here.main:
        samples = source.samples(loop.steps)
        run.log(
            f"{config.model.params():,} parameters, {quantity(samples * context)} tokens in "
            f"{loop.steps} steps ({samples / len(data):.2g} times the corpus), {precision} on {here.device.type}"
            f"{f', {here.size} processes' if here.size > 1 else f', {torch.get_num_threads()} threads'}"
        )
        if heldout.tokens < 2:
            run.log(
                f"{heldout.folder}: no held-out text, so no loss is measured on it; `groundup data build --heldout` keeps some"
            )

    def evaluate(model: Transformer, step: int) -> dict[str, float]:
        _write_sample(model, tokenizer, config.prompt, run.path / "samples" / f"step_{step:06d}.txt", config.train.seed)
        return heldout_figures(model, heldout, config.model.context, config.eval_tokens) | forgotten(model)

    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, int, dict[str, Any]]:
        return pretrain_loss(model, batch, loop.optim.z_loss)

    parts = source.parts(source.batch(loop.steps - 1))  # of a whole batch, after any ramp

    def gradients() -> None:
        with autocast(precision, here.device):
            total = loss(model, parts[0])[0]
        total.backward()
        model.zero_grad(set_to_none=True)

    flops = source.samples(loop.steps) * context * config.model.flops_per_token() / here.size
    at_peak_s = flops / peak_flops(precision, here.device)
    compiling.choose(loop.compile, model, gradients, loop.steps * len(parts), run, here, at_peak_s)
    results = train(
        model, source, loss, loop, run, tokenizer_path=tokenizer_path, evaluate=evaluate,
        precision=precision, world=here, flops_per_token=config.model.flops_per_token(),
    )  # fmt: skip
    return results | {"peak_memory_bytes": memory.bytes()}


def main(config: PretrainConfig, run: Run | None = None) -> dict[str, Any]:
    """Trains the base model that the config describes and returns the results; continues one that was interrupted.

    Under torchrun the processes share each batch, and rank 0 writes: into the project's run of that name, or into `run`.
    """
    config = apply_plan(config)
    trial, run = run is not None, run or open_run(config.project, "pretrain", config.name)
    folder = open_run(config.project, "shards", config.shards).path
    set_threads(config.threads)
    with world(config.device) as here:
        config, tokenizer, tokenizer_path = fitted(config, here.size)
        inputs = {split: folder / split / "index.json" for split in ("train", "heldout")} | {
            "tokenizer": tokenizer_path
        }
        if config.start is not None:
            inputs["start"] = config.start
        if (old := old_folder(config)) is not None:
            inputs["replay"] = old / "train" / "index.json"
        toml = to_toml(config)
        if here.share(unchanged(run, toml, inputs, FREE) if here.main else None):
            return run.results
        recorded: AbstractContextManager[dict[str, Any]] = nullcontext({})
        if here.main:
            recorded = record(run, toml, inputs, config.train.seed)
        with recorded as results:
            results.update(_train(config, run, here, tokenizer, tokenizer_path))
        if here.main and not trial:
            _summary(config, run)
        return results


def _summary(config: PretrainConfig, run: Run) -> None:
    """Says what the run came to, and what comes next."""
    found = run.results
    parts = [f"loss {found['loss']:.4f}"] if "loss" in found else []
    if "heldout_loss" in found:
        parts.append(
            f"held-out loss {found['heldout_loss']:.4f} nats per token ({found['bits_per_byte']:.4f} bits per byte)"
        )
    if "forgotten" in found:
        parts.append(
            f"older text {found['old_heldout_loss']:.4f} nats per token ({found['forgotten']:+.4f} since the start)"
        )
    rate = f"{quantity(found['tokens_per_s'])} tokens/s"
    if "mfu" in found:
        rate += f", MFU {found['mfu']:.0%}"
    if found["nonfinite_steps"]:
        parts.append(
            f"{found['nonfinite_steps']} steps that weren't finite were left out, {found['rollbacks']} rollbacks"
        )
    run.log(f"{quantity(found['tokens'])} tokens in {duration(found['train_s'])} ({rate}): {', '.join(parts)}")
    tasks = (config.project / "tasks" / "sft.jsonl").exists()
    run.log(f"next: {command('sft', config.project) if tasks else command('generate', config.project)}")
