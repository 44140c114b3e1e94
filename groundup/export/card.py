"""The model card: README.md of an exported folder. Facts of the run alone; what nobody recorded isn't in it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from groundup.base.files import read_json
from groundup.base.log import duration
from groundup.base.runs import STAGES, Run, open_run
from groundup.export.trained import Trained

__all__ = ["model_card"]

USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
{prompt}
answer = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""
CHAT_PROMPT = """messages = [{"role": "user", "content": "What is 3 + 4?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)"""
TEXT_PROMPT = """inputs = tokenizer(tokenizer.bos_token + "Once", return_tensors="pt")"""
MEASURES = ("bits_per_byte", "exact_match", "sample_at_1", "pass_at_8")


def model_card(trained: Trained, project: Path | None) -> str:
    """Returns README.md: what the model is, how to use it, what it was trained on, how good it is."""
    lineage = _lineage(trained.checkpoint)
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- groundup\n---",
        f"# {project.resolve().name if project else trained.model.config.family}",
        _origin(trained, lineage),
        "## Shape", _shape(trained),
        "## Use", USE.replace("{prompt}", CHAT_PROMPT if trained.chats else TEXT_PROMPT),
        *_training(lineage), *_corpus(lineage),
    ]  # fmt: skip
    if project is not None and lineage:
        parts += _scores(project, trained, lineage[-1][1])
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(*rows: tuple[object, ...], left: int = 1) -> str:
    """Returns a Markdown table; the first row is its head, the columns after the first `left` are numbers."""
    line = "|" + "".join("---|" if i < left else "---:|" for i in range(len(rows[0])))
    shown = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([shown[0], line, *shown[1:]])


def _input(run: Run, role: str) -> Path | None:
    """Returns the path of what a run read in a role, or None where it read nothing so."""
    entry = run.info.get("inputs", {}).get(role)
    return (run.path / entry["path"]).resolve() if entry else None


def _lineage(checkpoint: Path) -> list[tuple[str, Run]]:
    """Returns the stages that led to a checkpoint with their runs, the first one first, as far as they are on disk."""
    folders = {folder: stage for stage, folder in STAGES.items()}
    found: list[tuple[str, Run]] = []
    path: Path | None = checkpoint.resolve()
    while path is not None and path.parent.name == "checkpoints" and len(found) < 100:
        run = Run(path.parent.parent)
        found.append((folders.get(run.path.parent.name, "?"), run))
        path = _input(run, "start")
    return found[::-1]


def _origin(trained: Trained, lineage: list[tuple[str, Run]]) -> str:
    """Returns the sentences that say where the weights come from."""
    source = next((run.results["imported"] for _, run in lineage if "imported" in run.results), None)
    if source is None:
        begun = "Trained from scratch with groundup."
    elif len(lineage) == 1:
        begun = f"Taken over by groundup from {source}, and not trained since."
    else:
        begun = f"Trained further with groundup from {source}."
    before = " What it had learnt before isn't recorded here." if source else ""
    small = " It is small: expect it to know its corpus and little else." if trained.model.config.params() < 1e8 else ""
    return begun + before + small


def _shape(trained: Trained) -> str:
    config, tokenizer = trained.model.config, trained.tokenizer
    chat = "it answers in chat form" if trained.chats else "it continues text; it was not taught to chat"
    return "\n".join([
        f"- {config.family}, {config.params():,} parameters: {config.n_layers} layers of width {config.d_model}, "
        f"{config.n_heads} heads ({config.kv_heads} of keys and values), {config.ff_size} inside the feed-forward layers",
        f"- context of {config.context} tokens; vocabulary of {tokenizer.vocab_size} (byte-level BPE, pattern {tokenizer.pattern})",
        f"- stage: {trained.stage or 'unknown'}; {chat}",
    ])  # fmt: skip


def _training(lineage: list[tuple[str, Run]]) -> list[str]:
    """Returns the section on the stages: steps, tokens, time and hardware, where the runs recorded them."""
    rows: list[tuple[object, ...]] = []
    for stage, run in lineage:
        done, info = run.results, run.info
        if "tokens" not in done:
            continue
        machine = f"{done['device']}, {done.get('precision', '?')}" if "device" in done else "?"
        if done.get("device") == "cpu":
            machine = f"{done['threads']} threads of a CPU, {done.get('precision', '?')}"
        shared = f", {done['processes']} processes" if done.get("processes", 1) > 1 else ""
        rows.append((stage, machine + shared, info.get("platform", "?"), f"{done['steps']:,}", f"{done['tokens']:,}",
                     duration(done["train_s"])))  # fmt: skip
    head = ("stage", "hardware", "system", "steps", "tokens", "time")
    return ["## Training", _table(head, *rows, left=3)] if rows else []


def _corpus(lineage: list[tuple[str, Run]]) -> list[str]:
    """Returns the section on the text of pretraining and its licences, followed back through the token files."""
    rows: list[tuple[object, ...]] = []
    for folder in _data_runs(lineage):
        sources: dict[str, Any] = read_json(folder / "stats.json").get("sources", {})
        licences = _licences(folder / "documents.parquet")
        for name, entry in sorted(sources.items()):
            rows.append((name, licences.get(name, "none named"), f"{entry['documents']:,}", f"{entry['bytes']:,}"))
    if not rows:
        return []
    note = "A licence is the one that the documents themselves name; for the others ask their source."
    return ["## Training data", _table(("source", "licences (documents)", "documents", "bytes"), *rows, left=2), note]


def _data_runs(lineage: list[tuple[str, Run]]) -> list[Path]:
    """Returns the runs of `data build` whose documents were trained on, each once."""
    found: list[Path] = []
    for _, run in lineage:
        for role in ("train", "replay"):
            index = _input(run, role)
            documents = _input(Run(index.parent.parent), "train") if index else None
            if documents and documents.parent not in found and (documents.parent / "stats.json").exists():
                found.append(documents.parent)
    return found


def _licences(documents: Path) -> dict[str, str]:
    """Returns for each source the licences that its documents name, the most frequent first, with their counts."""
    if not documents.exists():
        return {}
    import pyarrow.parquet as pq

    counts: dict[str, Counter[str]] = {}
    for batch in pq.ParquetFile(documents).iter_batches(columns=["source", "meta"]):
        for row in batch.to_pylist():
            named = json.loads(row["meta"] or "{}").get("licence") or "none named"
            counts.setdefault(row["source"], Counter())[named] += 1
    return {
        source: ", ".join(f"{name} ({count:,})" for name, count in found.most_common(6))
        + (f" and {len(found) - 6} more" if len(found) > 6 else "")
        for source, found in counts.items()
    }


def _scores(project: Path, trained: Trained, run: Run) -> list[str]:
    """Returns the section on what was measured for this very checkpoint, or nothing where it wasn't."""
    name = "base" if trained.stage == "pretrain" else trained.stage
    file = open_run(project, "eval").path / f"{name}{'' if run.path.name == 'main' else f'-{run.path.name}'}.json"
    if not file.exists():
        return []
    scores, rows = read_json(file), []
    if (file.parent / scores.get("checkpoint", "")).resolve() != trained.checkpoint.resolve():
        return []  # of an earlier training
    for key in MEASURES:
        if isinstance(entry := scores.get(key), dict) and "value" in entry:
            interval = f"{entry['low']:.3f} to {entry['high']:.3f}" if "low" in entry else ""
            rows.append((key, f"{entry['value']:.3f}", interval))
    table = _table(("measure", "value", "95% interval"), *rows)
    return ["## Evaluation", "On held-out text and problems:", table] if rows else []
