"""The command line: a verb leads to a config class and a function, both imported only when that verb is asked for."""

import difflib
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from groundup import __version__

__all__ = ["VERBS", "Verb", "main"]

# Threads that wait for work must sleep, not spin: on a shared machine spinning costs most of the tokens per CPU-second.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class Verb(NamedTuple):
    """Where a verb's config class and function live, and its line in `--help`."""

    config: str
    function: str
    summary: str


VERBS = {
    "demo": Verb("recipes.config:DemoConfig", "recipes.demo:main", "the whole path, from raw text to a chat model, in minutes"),
    "data world": Verb("data.config:WorldConfig", "data.world:main", "write the small world: WARC, wiki dump, book, code"),
    "data get": Verb("data.config:GetConfig", "data.get:main", "a public data set by its name, or files of Common Crawl"),
    "data build": Verb("data.config:BuildConfig", "data.build:main", "raw files to clean documents, with a reason for every drop"),
    "data classifier train": Verb("data.config_classifier:ClassifierTrainConfig", "data.classifier:train", "learn what to keep"),
    "data classifier score": Verb("data.config_classifier:ClassifierScoreConfig", "data.classifier:score", "score documents, to filter on"),
    "data stats": Verb("data.config_why:StatsConfig", "data.stats:main", "what each rule removed"),
    "data why": Verb("data.config_why:WhyConfig", "data.why:main", "why a document was dropped, or that it was kept"),
    "data peek": Verb("data.config_why:PeekConfig", "data.peek:main", "read a sample of the kept or the dropped documents"),
    "data retune": Verb("data.config_why:RetuneConfig", "data.retune:main", "other thresholds: what would they change?"),
    "tokenizer train": Verb("tokenizer.config:TrainConfig", "tokenizer.train:main", "learn a byte-level BPE vocabulary from the documents"),
    "tokenizer encode": Verb("tokenizer.config:EncodeConfig", "tokenizer.io:main", "show a text as tokens"),
    "tokenizer show": Verb("tokenizer.config:ShowConfig", "tokenizer.show:main", "what a vocabulary holds, how a token is made"),
    "tokenizer compare": Verb("tokenizer.config:CompareConfig", "tokenizer.compare:main", "two vocabularies on the same text"),
    "tokenizer convert": Verb("tokenizer.config:ConvertConfig", "tokenizer.io:convert", "a vocabulary in the form of another program"),
    "shards": Verb("shards.config:ShardsConfig", "shards.write:main", "encode the documents into token files"),
    "shards verify": Verb("shards.config:VerifyConfig", "shards.verify:main", "are the token files whole, every byte as it was written?"),
    "plan": Verb("plan.config:PlanConfig", "plan.budget:main", "how large a model, how many tokens, how long"),
    "model show": Verb("plan.config:ShowConfig", "plan.show:main", "a model's layers, parameters, operations and memory; its block drawn"),
    "pretrain": Verb("train.config:PretrainConfig", "train.pretrain:main", "train the base model"),
    "sweep": Verb("train.config_sweep:SweepConfig", "train.sweep:main", "the best learning rate (or any setting), by successive halving"),
    "race": Verb("train.config_sweep:RaceConfig", "train.race:main", "is a change real? two configs on the same batches, several seeds"),
    "doctor": Verb("doctor.config:DoctorConfig", "doctor.run:main", "what is wrong with a run, by which numbers, and what mends it"),
    "machine": Verb("doctor.config:MachineConfig", "doctor.machine:main", "what this machine can do: cores, memory, matrix products, disk"),
    "sft": Verb("align.config:SFTConfig", "align.sft:main", "teach it to answer: supervised fine-tuning on conversations"),
    "dpo": Verb("align.config:DPOConfig", "align.dpo:main", "teach it which of two answers is better"),
    "grpo": Verb("align.config:GRPOConfig", "align.grpo:main", "let it try, and reinforce what a verifier accepts"),
    "eval": Verb("evals.config:EvalConfig", "evals.harness:main", "bits per byte, exact match, sample@1, pass@8, with intervals"),
    "eval perplexity": Verb("evals.config:PerplexityConfig", "evals.documents:main", "score documents by a model, to filter on"),
    "generate": Verb("infer.config:GenerateConfig", "infer.sample:main", "continue a text"),
    "chat": Verb("infer.config:ChatConfig", "infer.chat:main", "talk to the model in the terminal"),
    "serve": Verb("serve.config:ServeConfig", "serve.app:main", "an OpenAI-compatible server with a chat page"),
    "import": Verb("export.config:ImportConfig", "export.adopt:main", "take over a model of Hugging Face's or nanoGPT's"),
    "export huggingface": Verb("export.config:HuggingFaceConfig", "export.huggingface:main", "a folder that transformers and vLLM load"),
    "export gguf": Verb("export.config:GGUFConfig", "export.gguf:main", "one file that llama.cpp, Ollama and LM Studio load"),
    "inspect attention": Verb("report.config:InspectAttentionConfig", "report.inspect:attention", "a page: what looks at what, by head"),
    "inspect logits": Verb("report.config:InspectLogitsConfig", "report.inspect:logits", "a page: what it expects next, layer by layer"),
    "inspect neurons": Verb("report.config:InspectNeuronsConfig", "report.inspect:neurons", "a page: which neurons answer, and to what"),
    "report": Verb("report.config:ReportConfig", "report.page:main", "one self-contained report.html of the whole project"),
}  # fmt: skip


def overview(begun: str = "") -> str:
    """Returns the text of `groundup --help`; of `groundup data --help` with the verbs that begin with that word."""
    verbs = {name: verb for name, verb in VERBS.items() if name.startswith(f"{begun} ".lstrip())}
    width = max(map(len, verbs)) + 2
    lines = [
        f"groundup {__version__}: a large language model from the ground up",
        "",
        "usage: groundup VERB [--help] [flags]",
        "",
    ]
    lines += [f"  {name:{width}}{verb.summary}" for name, verb in verbs.items()]
    if begun:
        return "\n".join(lines)
    lines += ["", "Every verb takes --config FILE.toml, dotted flags for any field (--model.d-model 256), --print-config and --dry-run.",
              "Verbs that make a run take --fresh (begin anew) and --allow-change KEY (go on with an unfinished run, that key changed).",
              "Begin with:  groundup demo"]  # fmt: skip
    return "\n".join(lines)


def introduction(argv: Sequence[str]) -> str:
    """Returns what answers words that ask for no verb: none at all, --version, --help, or --help behind the first word of several verbs."""
    if argv and argv[0] in ("--version", "-V"):
        return f"groundup {__version__}"
    begun = " ".join(word for word in argv if word not in ("-h", "--help", "help"))
    asks = not argv or begun != " ".join(argv)
    several = begun not in VERBS and any(name.startswith(f"{begun} ".lstrip()) for name in VERBS)
    return overview(begun) if asks and several else ""


def find_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the verb (one to three words) that argv begins with, and the rest. Raises: ConfigError with a near miss."""
    from groundup.base.errors import ConfigError

    for words in (3, 2, 1):
        if (name := " ".join(argv[:words])) in VERBS and len(argv) >= words:
            return name, list(argv[words:])
    for begun in (" ".join(argv[:2]), argv[0]):
        if children := [name for name in VERBS if name.startswith(begun + " ")]:
            nth = "third" if " " in begun else "second"
            raise ConfigError(f"'{begun}' needs a {nth} word: {', '.join(children)}")
    near = difflib.get_close_matches(" ".join(argv[:2]), VERBS, 1, 0.6) or difflib.get_close_matches(
        argv[0], VERBS, 1, 0.5
    )
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ConfigError(f"no verb '{argv[0]}'{hint} (see `groundup --help`)")


def load(path: str):  # type: ignore[no-untyped-def]
    """Returns the object that "package.module:name" names inside groundup."""
    module, name = path.split(":")
    return getattr(importlib.import_module(f"groundup.{module}"), name)


def run(argv: Sequence[str]) -> None:
    """Runs one verb. Raises: GroundupError for the user's mistakes."""
    from groundup.base.changes import permit
    from groundup.base.config import keys, parse, to_toml
    from groundup.train.watch import watched

    name, rest = find_verb(argv)
    verb = VERBS[name]
    print_config, dry_run = "--print-config" in rest, "--dry-run" in rest
    rest = [word for word in rest if word not in ("--print-config", "--dry-run")]
    known, given = keys(load(verb.config)), dict[str, object]()
    if name == "demo" or {"project", "name"} <= known.keys():  # verbs that make a run
        rest, given = permissions(rest, known)
    config = parse(load(verb.config), rest, f"groundup {name}", f"groundup {name}: {verb.summary}.")
    if print_config:
        print(to_toml(config), end="")
        return
    config.validate()
    if dry_run:
        print("\n".join([f"groundup {name} would:", *(f"  {line}" for line in config.describe())]))
        return
    trains = name == "demo" or "train.steps" in known
    with permit(**given), watched(load("doctor.live:Live")()) if trains else nullcontext():
        load(verb.function)(config)


def permissions(argv: Sequence[str], known: Collection[str]) -> tuple[list[str], dict[str, object]]:
    """Returns argv without --fresh and --allow-change KEY[,KEY], and what they permit (see `groundup.base.changes`).

    Raises: ConfigError for a key that isn't one of `known` (nor a section, nor `inputs.…`).
    """
    from groundup.base.changes import covers
    from groundup.base.config import suggest
    from groundup.base.errors import ConfigError

    rest, allow, words = [], [], iter(argv)
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--allow-change":
            allow += (value or next(words, "")).split(",")
        elif word != "--fresh":
            rest.append(word)
    for key in allow:
        if not key.startswith("inputs.") and not any(covers([key], name) for name in known):
            raise ConfigError(f"--allow-change {key}: no such key{suggest(key, list(known))}")
    return rest, {"allow": tuple(allow), "fresh": "--fresh" in argv}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 the user's mistake or a full disk (one line on stderr), 130 Ctrl-C, 143 SIGTERM."""
    argv = list(sys.argv[1:] if argv is None else argv)
    from groundup.base.errors import GroundupError, Terminated
    from groundup.base.files import os_error

    try:
        if said := introduction(argv):
            print(said)
        else:
            run(argv)
        sys.stdout.flush()  # a pipe that closed is noticed here, not when Python has ended
        return 0
    except GroundupError as error:
        message = str(error)
    except KeyboardInterrupt as stop:
        word, code = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        print(f"\n{word}; the same command continues from what is on disk", file=sys.stderr)
        return code
    except BrokenPipeError:  # `groundup ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        message = str(os_error(error))
    print(f"groundup: {' '.join(message.split())}", file=sys.stderr)
    return 2
