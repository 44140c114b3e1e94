"""What the demo says at its end: the table by stage, a conversation, the next commands, and summary.json."""

from pathlib import Path
from typing import Any

from groundup.base.errors import DataError
from groundup.base.files import read_json, write_json
from groundup.base.log import command, duration, quantity, say
from groundup.base.records import Message, read_problems
from groundup.base.runs import STAGES, open_run
from groundup.recipes.config import DemoConfig

__all__ = ["conversation", "next_commands", "summarise"]

MEASURES = ("bits_per_byte", "exact_match", "sample_at_1", "pass_at_8")
LABELS = ("base", "sft", "dpo", "grpo")


def evaluations(project: Path) -> dict[str, dict[str, Any]]:
    """Returns the results of `groundup eval` by stage, in the order of training."""
    folder = project / STAGES["eval"] / "main"
    return {label: read_json(folder / f"{label}.json") for label in LABELS if (folder / f"{label}.json").exists()}


def conversation(project: Path) -> list[dict[str, str]]:
    """Returns one conversation with the furthest model: a held-out question of each of four skills, answered greedily.

    Each question is asked afresh, as the model was taught single questions.
    """
    from groundup.infer.config import SamplingParams
    from groundup.infer.engine import Engine

    asked: dict[str, str] = {}
    for problem in read_problems(project / "tasks" / "problems-test.jsonl"):
        asked.setdefault(problem.skill, problem.question)
    engine, turns = Engine.load(project), []
    params = SamplingParams(temperature=0.0, max_tokens=32)
    for question in list(asked.values())[:4]:
        answer = "".join(engine.chat([Message("user", question)], params))
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return turns


def next_commands(config: DemoConfig) -> list[str]:
    """Returns commands that can be typed in this shell and folder, as they stand."""
    project = config.project
    first = [command("chat", project), command("serve", project)] if config.corpus == "world" else [
        command("generate", project, "--prompt", "'ROMEO:'" if config.corpus == "shakespeare" else "'The '")]  # fmt: skip
    return [*first, command("data stats", project), command("eval", project), command("export huggingface", project)]


def summarise(config: DemoConfig, wall_s: float) -> dict[str, Any]:
    """Returns what is written to summary.json.

    Raises: DataError, after writing, if a model is below the corpus's entropy: held-out text has leaked into training.
    """
    found, project = evaluations(config.project), config.project
    eval_run = open_run(project, "eval").results
    differences = dict(eval_run.get("differences", {}))
    if config.control:
        differences |= open_run(project, "eval", "control").results.get("differences", {})
    floor = eval_run.get("entropy_floor_bits_per_byte")
    summary: dict[str, Any] = {
        "stages": {label: {m: (result.get(m) or {}).get("value") for m in MEASURES} for label, result in found.items()},
        "intervals": {
            label: {m: [result[m]["low"], result[m]["high"]] for m in MEASURES if m in result} for label, result in found.items()
        },
        "comparisons": {f"{pair}: {m}": d for pair, by in differences.items() for m, d in by.items()},
        "entropy_floor_bits_per_byte": floor,
        "wall_s": round(wall_s, 1),
        "seed": config.seed,
        "corpus": config.corpus,
    }  # fmt: skip
    if config.ablate_data:
        clean, raw = (open_run(project, "pretrain", name).results["bits_per_byte"] for name in ("main", "raw"))
        summary["ablation"] = {"clean": clean, "raw": raw, "tokens": open_run(project, "pretrain").results["tokens"]}
        summary["comparisons"]["raw text - cleaned text, the same tokens: bits_per_byte"] = {"value": raw - clean}
    if config.corpus == "world":
        summary["conversation"] = conversation(project)
    write_json(project / "summary.json", summary)
    for label, values in summary["stages"].items():
        if floor is not None and values["bits_per_byte"] is not None and values["bits_per_byte"] < floor:
            raise DataError(
                f"{label}: {values['bits_per_byte']:.3f} bits per byte is below the corpus's entropy of {floor:.3f}: held-out text "
                f"has leaked into training; look at {project / STAGES['data'] / 'main' / 'heldout.parquet'}"
            )
    return summary


def show(config: DemoConfig, summary: dict[str, Any]) -> None:
    """Prints the conversation, the time, and what to type next."""
    if found := summary.get("ablation"):
        say(
            f"\nwhat cleaning bought, in bits per byte of held-out text after {quantity(found['tokens'])} tokens: {found['clean']:.3f} "
            f"with the cleaned text, {found['raw']:.3f} with the raw text"
        )
    say("")
    for turn in summary.get("conversation", []):
        say(f"  {turn['role']:>9}: {turn['content']}")
    say(f"\nall of it took {duration(summary['wall_s'])}; report: {config.project / 'report.html'}\n\nnext:")
    for line in next_commands(config):
        say(f"  {line}")
