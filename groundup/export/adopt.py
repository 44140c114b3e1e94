"""`groundup import`: a model that others trained becomes a run of the project, and every verb takes it from there."""

from pathlib import Path
from typing import Any

from groundup.base.config import to_toml
from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.log import command, quantity, say
from groundup.base.runs import open_run, record, unchanged, write_checkpoint
from groundup.export.config import ImportConfig
from groundup.export.incoming import Incoming, with_chat
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
from groundup.tokenizer.io import save

__all__ = ["main", "read"]


def read(source: Path, tokenizer: Path | None = None, text: Path | None = None, chat: bool = True) -> Incoming:
    """Returns the model in a Hugging Face folder, or in a checkpoint of nanoGPT (a .pt file, or a folder with ckpt.pt).

    Raises: CheckpointError or TokenizerError naming what is missing, unknown or damaged.
    """
    if not source.exists():
        raise CheckpointError(
            f"{source}: no such file or folder; a Hugging Face folder or nanoGPT's ckpt.pt was expected"
        )
    if source.suffix == ".gguf":
        raise CheckpointError(
            f"{source}: GGUF is a way out, not in; import the Hugging Face folder that it was made from"
        )
    file = source / "ckpt.pt" if source.is_dir() and not (source / "config.json").exists() else source
    if file.suffix == ".pt" and file.is_file():
        from groundup.export.nanogpt import read_nanogpt

        found = read_nanogpt(file, tokenizer, text)
    elif source.is_dir():
        from groundup.export.folders import read_folder

        if text is not None:
            raise ConfigError("text: only a character model of nanoGPT needs it")
        found = read_folder(source, tokenizer)
    else:
        raise CheckpointError(f"{source}: a Hugging Face folder or nanoGPT's ckpt.pt was expected")
    found.validate()
    return with_chat(found) if chat else found


def main(config: ImportConfig) -> None:
    """Writes the runs 02-tokenizer/NAME and 05-pretrain/NAME."""
    config.validate()
    run, words = open_run(config.project, "pretrain", config.name), open_run(config.project, "tokenizer", config.name)
    inputs = {key: path for key in ("source", "tokenizer", "text") if (path := getattr(config, key)) is not None}
    found, toml = read(**inputs, chat=config.chat), to_toml(config)  # bad input is said before anything is written
    if unchanged(run, toml, inputs):
        return
    with record(words, toml, inputs) as results:
        save(found.tokenizer, words.path / "tokenizer.json")
        results |= {"imported": found.source, "vocab_size": found.tokenizer.vocab_size}
    with record(run, toml, inputs) as results:
        model = Transformer(found.config, seed=0)
        model.load_state_dict(dict(found.state))
        with write_checkpoint(run.path, 0) as folder:
            save_model(model, folder)
            save(found.tokenizer, folder / "tokenizer.json")
        results |= {"imported": found.source, "params": found.config.params()}
    _summary(found, config)


def _summary(found: Incoming, config: ImportConfig) -> None:
    """Says what came in, and what can be done with it."""
    shape: Any = found.config
    say(f"{found.source}: {shape.family}, {quantity(shape.params())} parameters, context of {shape.context}, "
        f"vocabulary of {found.tokenizer.vocab_size}")  # fmt: skip
    named = [] if config.name == "main" else ["--name", config.name]
    say(f"next: {command('generate', open_run(config.project, 'pretrain', config.name).path, '--prompt', '...')}")
    say(f"next: {command('sft', config.project, *named)}")
