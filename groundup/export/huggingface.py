"""A trained model as a Hugging Face folder: config, weights, tokenizer with its chat template, model card."""

from pathlib import Path
from typing import Any

from groundup.base.config import to_toml
from groundup.base.files import atomic_folder, write_json, write_text
from groundup.base.log import command, quantity, say
from groundup.base.runs import open_run, record, unchanged
from groundup.export.config import TENSORS, HuggingFaceConfig
from groundup.tokenizer.io import huggingface_files

__all__ = ["export", "main"]


def main(config: HuggingFaceConfig) -> None:
    """Writes the folder: as a run of the project, or, with --out, just there."""
    config.validate()
    checkpoint = config.find()
    if config.out is not None:
        export(checkpoint, config.out, config.project)
        return
    run, inputs, toml = open_run(config.project, "export", config.name), {"model": checkpoint}, to_toml(config)
    if unchanged(run, toml, inputs):
        return
    with record(run, toml, inputs) as results:
        results |= export(checkpoint, config.target, config.project)
    say(f"next: {command('report', config.project)}")


def export(checkpoint: Path, folder: Path, project: Path | None = None) -> dict[str, Any]:
    """Returns {"path", "stage", "parameters", "bytes"} after writing the folder, whole or not at all.

    `project` gives the model card its facts, where they are there.
    Raises: CheckpointError for a model without a class at Hugging Face, or a tokenizer that isn't the model's.
    """
    from groundup.export.card import model_card
    from groundup.export.trained import load_trained
    from groundup.model.huggingface import to_huggingface
    from groundup.model.weights import save_tensors

    trained = load_trained(checkpoint)
    tokenizer, config = trained.tokenizer, trained.model.config
    tensors, values = to_huggingface(trained.model)
    begin, end = tokenizer.eot, tokenizer.special(trained.end)
    ends = {"bos_token_id": begin, "eos_token_id": end}
    files = huggingface_files(tokenizer, trained.end, config.context)
    with atomic_folder(folder) as temporary:
        save_tensors(tensors, temporary / TENSORS, folder)
        # In config.json a padding token would get no gradient of its embedding, and ours begins every document.
        write_json(temporary / "config.json", values | ends)
        write_json(temporary / "generation_config.json", {**ends, "pad_token_id": begin, "do_sample": False})
        for name, content in files.items():
            write_json(temporary / name, content)
        write_text(temporary / "README.md", model_card(trained, project))
        size = sum(file.stat().st_size for file in temporary.iterdir())
    say(f"{folder}: {values['architectures'][0]}, {quantity(config.params())} parameters, {quantity(size)}B")
    return {"path": str(folder), "stage": trained.stage, "parameters": config.params(), "bytes": size}
