"""Where an alignment stage begins: the checkpoint before it, a tokenizer that knows whose turn it is, a precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.align.config import DPOConfig, GRPOConfig, SFTConfig
from groundup.base.config import to_toml
from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import read_json, write_json
from groundup.base.log import command, duration, quantity
from groundup.base.records import Problem, read_problems
from groundup.base.runs import Run, record, start_checkpoint, unchanged
from groundup.evals.generate import require_chat
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.parallel.mesh import World, world
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load as load_tokenizer
from groundup.train.config import FREE
from groundup.train.precision import resolve, set_threads

__all__ = ["Stage", "run_stage", "training_problems"]


@dataclass(frozen=True)
class Stage:
    """What a stage works with: its run, the checkpoint it began from, that model (to be trained), tokenizer, and the machine."""

    run: Run
    start: Path
    model: Transformer
    tokenizer: Tokenizer
    precision: str
    world: World

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's file, which every checkpoint takes along."""
        return self.start / "tokenizer.json"

    def frozen(self) -> Transformer:
        """Returns the model of the start once more, to stay as it is: the reference."""
        return load_model(self.start, self.world.device).requires_grad_(False)


def training_problems(path: Path) -> list[Problem]:
    """Returns the problems of a file. Raises: DataError naming the file and what is wrong with it."""
    problems = list(read_problems(path))
    if not problems:
        raise DataError(f"{path}: empty; problems to train on were expected, one JSON object a line")
    return problems


def _precision(precision: str, run: Run, here: World, width: int) -> str:
    """Returns the precision, decided once in a run: a resumed one must not decide anew."""
    file = run.path / "resolved.json"
    if here.main and not file.exists():
        chosen = resolve(precision, here.device, 2048, width)
        write_json(file, {"precision": chosen, "threads": torch.get_num_threads(), "device": here.device.type})
    return here.share(read_json(file)["precision"] if here.main else None)


def run_stage(
    config: SFTConfig | DPOConfig | GRPOConfig, run: Run, before: str, after: str, inputs: dict[str, Path],
    work: Callable[[Stage], dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Returns the results of a stage: `work`'s, with the run's folder kept around it; those on disk if nothing has changed.

    `before` is the verb that makes the start and `after` the one to run next, `inputs` are the files read besides. Under
    torchrun the processes share each batch, and rank 0 writes.
    Raises: DataError, CheckpointError, TokenizerError or ConfigError before anything is written.
    """
    start = start_checkpoint(config.start_path, run, before)
    for path in inputs.values():
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    tokenizer = load_tokenizer(start)
    try:
        require_chat(tokenizer)
    except TokenizerError as error:
        raise TokenizerError(f"{start / 'tokenizer.json'}: {error}") from error
    set_threads(config.threads)
    with world(config.device) as here:
        inputs, toml = {"start": start} | inputs, to_toml(config)
        if here.share(unchanged(run, toml, inputs, FREE) if here.main else None):
            return run.results
        model = load_model(start, here.device)
        recorded: AbstractContextManager[dict[str, Any]] = nullcontext({})
        if here.main:
            recorded = record(run, toml, inputs, config.train.seed)
        with recorded as results:
            precision = _precision(config.precision, run, here, model.config.d_model)
            if here.main:
                run.log(f"from {start}: {model.config.params():,} parameters, {precision} on {here.device.type}")
            results |= work(Stage(run, start, model, tokenizer, precision, here))
        if here.main:
            rate = f"{quantity(results['tokens_per_s'])} tokens/s"
            run.log(f"{quantity(results['tokens'])} tokens in {duration(results['train_s'])}, {rate}")
            run.log(f"next: {command(after, config.project)}")
        return results
