"""A trained model as a Hugging Face folder: config, weights, tokenizer with its chat template, model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.config import to_toml
from groundup.base.errors import CheckpointError
from groundup.base.files import atomic_folder, read_json, write_json, write_text
from groundup.base.log import command, quantity, say
from groundup.base.runs import open_run, record, unchanged
from groundup.export.config import CHAT_STAGES, TENSORS, HuggingFaceConfig, stage_of
from groundup.tokenizer.chat import END
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.io import huggingface_files, load

if TYPE_CHECKING:
    from groundup.model.transformer import Transformer

__all__ = ["export", "main", "model_card"]


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
    from groundup.model.weights import load_model, save_tensors, to_huggingface

    model, tokenizer, stage = load_model(checkpoint), load(checkpoint), stage_of(checkpoint)
    if tokenizer.vocab_size > model.config.vocab_size:
        sizes = f"{tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        raise CheckpointError(f"{checkpoint}: its tokenizer has {sizes}; they don't belong together")
    tensors, values = to_huggingface(model)
    ends = {"bos_token_id": tokenizer.eot, "pad_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
    chat = stage in CHAT_STAGES and tokenizer.chat_template is not None
    if chat:
        ends["eos_token_id"] = tokenizer.special(END)
    files = huggingface_files(tokenizer, END if chat else EOT, model.config.context)
    with atomic_folder(folder) as temporary:
        save_tensors(tensors, temporary / TENSORS, folder)
        write_json(temporary / "config.json", values | ends)
        write_json(temporary / "generation_config.json", {**ends, "do_sample": False})
        for name, content in files.items():
            write_json(temporary / name, content)
        write_text(temporary / "README.md", model_card(model, tokenizer, stage, chat, project))
        size = sum(file.stat().st_size for file in temporary.iterdir())
    say(f"{folder}: {values['architectures'][0]}, {quantity(model.config.params())} parameters, {quantity(size)}B")
    return {"path": str(folder), "stage": stage, "parameters": model.config.params(), "bytes": size}


USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
{prompt}
answer = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""
CHAT_PROMPT = """messages = [{"role": "user", "content": "What is 3 + 4?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)"""
TEXT_PROMPT = """inputs = tokenizer(tokenizer.bos_token + "Once", return_tensors="pt")"""


def model_card(model: "Transformer", tokenizer: Tokenizer, stage: str, chat: bool, project: Path | None) -> str:
    """Returns README.md: what the model is, how to use it, what it was trained on, how good it is; facts only."""
    config = model.config
    shape = [
        f"{config.family}, {config.params():,} parameters: {config.n_layers} layers of width {config.d_model}, "
        f"{config.n_heads} heads ({config.kv_heads} of keys and values), {config.ff_size} inside the feed-forward layers",
        f"context of {config.context} tokens; vocabulary of {tokenizer.vocab_size} (byte-level BPE, pattern {tokenizer.pattern})",
        f"stage: {stage or 'unknown'}; " + ("it answers in chat form" if chat else "it continues text; it was not taught to chat"),
    ]  # fmt: skip
    use = USE.replace("{prompt}", CHAT_PROMPT if chat else TEXT_PROMPT).replace("{folder}", ".")
    small = " It is small: expect it to know its corpus and little else." if config.params() < 1e8 else ""
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- groundup\n---",
        f"# {project.resolve().name if project else config.family}",
        f"Trained from scratch with groundup.{small}",
        "## Shape", "\n".join(f"- {line}" for line in shape), "## Use", use,
    ]  # fmt: skip
    if project is not None:
        parts += [*_corpus(project), *_scores(project, stage)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _corpus(project: Path) -> list[str]:
    """Returns the section on the training data, or nothing where the project doesn't tell."""
    file = open_run(project, "data").path / "stats.json"
    if not file.exists():
        return []
    sources = read_json(file).get("sources", {})
    rows = [f"| {name} | {entry['documents']:,} | {entry['bytes']:,} |" for name, entry in sorted(sources.items())]
    return ["## Training data", "\n".join(["| source | documents | bytes |", "|---|---:|---:|", *rows])]


def _scores(project: Path, stage: str) -> list[str]:
    """Returns the section on what was measured for this stage, or nothing where it wasn't."""
    file = open_run(project, "eval").path / f"{'base' if stage == 'pretrain' else stage}.json"
    if not file.exists():
        return []
    scores, rows = read_json(file), []
    for key in ("bits_per_byte", "exact_match", "sample_at_1", "pass_at_8"):
        if isinstance(entry := scores.get(key), dict) and "value" in entry:
            interval = f"{entry['low']:.3f} to {entry['high']:.3f}" if "low" in entry else ""
            rows.append(f"| {key} | {entry['value']:.3f} | {interval} |")
    table = "\n".join(["| measure | value | 95% interval |", "|---|---:|---|", *rows])
    return ["## Evaluation", "On held-out text and problems:", table] if rows else []
