"""`groundup demo`: strings the verbs together, from raw text to a chat model, and continues where it was stopped.

Modules that need torch are imported when their stage begins, so that the first line appears at once.
"""

import dataclasses
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from groundup.base.changes import permission, permit
from groundup.base.files import read_json, write_json
from groundup.base.log import duration, say
from groundup.base.runs import open_run
from groundup.data.config import BuildConfig, WorldConfig
from groundup.recipes.config import DemoConfig, fill, read_recipe
from groundup.recipes.summary import show, summarise
from groundup.shards.config import ShardsConfig
from groundup.tokenizer.config import TrainConfig

__all__ = ["main"]


VOCABULARIES = (
    (512, 50_000),
    (1024, 500_000),
    (2048, 2_000_000),
    (4096, 8_000_000),
    (8192, 40_000_000),
)  # from so many bytes


class Stage(NamedTuple):
    """A step of the demo: its name, what it does in a few words, and the work."""

    name: str
    title: str
    work: Callable[[], object]


class Clock:
    """Seconds spent on each stage over all runs of the demo, kept in the project so that a rerun adds to them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.spent: dict[str, float] = read_json(file) if file.exists() and not permission().fresh else {}

    def run(self, stage: Stage) -> None:
        """Does a stage's work and adds its wall seconds, also when it is interrupted."""
        before, start = self.spent.get(stage.name, 0.0), time.monotonic()
        try:
            stage.work()
        finally:
            self.spent[stage.name] = round(before + time.monotonic() - start, 2)
            write_json(self.file, self.spent)

    @property
    def total(self) -> float:
        """Wall seconds of all stages together."""
        return sum(self.spent.values())


class Demo:
    """The demo's stages as methods; each reads its section of the recipe and what the plan left in the project."""

    def __init__(self, config: DemoConfig) -> None:
        self.config, self.recipe = config, read_recipe(config)
        self.world = config.corpus == "world"
        self.given = {"project": config.project, "threads": config.threads}

    def stages(self) -> list[Stage]:
        """Returns the stages in their order."""
        first = [
            Stage("raw", "write the small world as the web would: pages, a wiki, a book, code, and noise", self.raw)
        ]
        aligned = [
            Stage("sft", "supervised fine-tuning: how to answer", self.sft),
            Stage("dpo", "preferences: which answer is better", self.dpo),
            Stage("grpo", "reinforcement: what a verifier accepts", self.grpo),
        ]
        extra = []
        if self.config.control:
            extra.append(
                Stage("control", "SFT continued for the CPU time of DPO and GRPO, as a yardstick", self.control)
            )
        if self.config.ablate_data:
            extra.append(Stage("ablation", "pretraining again, on the raw text", self.ablation))
        return [
            *(first if self.world else []),
            Stage("data", "clean the raw text, with a reason for every drop", self.data),
            Stage("tokenizer", "learn a vocabulary", self.tokenizer),
            Stage("shards", "encode the text into token files", self.shards),
            Stage("plan", "measure this machine and fit the training into the time", self.plan),
            Stage("pretrain", "train the base model", self.pretrain),
            *(aligned if self.world else []),
            *extra,
            Stage("eval", "evaluate every stage on what none has seen", self.evaluate),
            Stage("export", "write a Hugging Face folder", self.export),
        ]

    def section(self, cls: type[Any], name: str, /, **more: Any) -> Any:
        """Returns a verb's config: the recipe's section over project, threads and what `more` gives."""
        return fill(cls, self.recipe.get(name, {}), **self.given, **more)

    def scaled(self, cls: type[Any], name: str) -> Any:
        """Returns an alignment verb's config, seeded; on a slow machine with the root of the share of steps that pretraining takes.

        Alignment is cheap, and a model that barely learned to answer is worth less than one that read a little less.
        """
        config = self.section(cls, name)
        wanted = self.recipe["pretrain"]["train"]["steps"]
        share = min(1.0, self.planned()["steps"] / wanted) ** 0.5
        loop = dataclasses.replace(config.train, steps=max(2, round(config.train.steps * share)), seed=self.config.seed)
        return dataclasses.replace(config, train=loop)

    def planned(self) -> dict[str, Any]:
        """Returns the plan."""
        return read_json(open_run(self.config.project, "plan").path / "plan.json")

    def raw(self) -> None:
        """The small world's raw sources and tasks."""
        from groundup.data.world import main as write

        write(self.section(WorldConfig, "world", seed=self.config.seed))

    def inputs(self) -> tuple[Path, ...]:
        """The files and folders of the corpus; () is the project's own raw folder."""
        if self.world:
            return ()
        if self.config.corpus == "python":
            return (Path(sysconfig.get_paths()["stdlib"]),)
        if self.config.corpus == "shakespeare":
            from groundup.data.config import GetConfig
            from groundup.data.get import main as get

            get(GetConfig("tinyshakespeare", to=self.config.project / "raw"))
            return ()
        return (Path(self.config.corpus),)

    def data(self) -> None:
        """Clean documents; a held-out part; the rest kept with its reasons."""
        from groundup.data.build import main as build

        build(self.section(BuildConfig, "data", input=self.inputs()))

    def tokenizer(self) -> None:
        """The vocabulary; where the recipe doesn't say how large, as large as the text can fill."""
        from groundup.tokenizer.train import main as train

        more: dict[str, Any] = {}
        if "tokenizer" not in self.recipe:
            kept = read_json(open_run(self.config.project, "data").path / "stats.json")["kept_bytes"]
            sizes = [(size, least) for size, least in VOCABULARIES if kept >= least]
            more = {"vocab_size": sizes[-1][0]} if sizes else {"pattern": "bytes"}
        train(self.section(TrainConfig, "tokenizer", **more))

    def shards(self) -> None:
        """Token files."""
        from groundup.shards.write import main as write

        write(self.section(ShardsConfig, "shards"))

    def plan(self) -> None:
        """How many steps this machine has time for: of the recipe's shape, or of the shape that suits the corpus."""
        from groundup.plan.budget import main as plan
        from groundup.plan.config import PlanConfig
        from groundup.train.config import PretrainConfig

        share = self.recipe.get("demo", {}).get("pretrain_share", 0.8)
        minutes = round(self.config.max_minutes * share, 2)
        fixed: dict[str, Any] = {}
        if "model" in self.recipe.get("pretrain", {}):
            config = self.section(PretrainConfig, "pretrain")
            fixed = {
                "choose": False,
                "model": config.model,
                "batch_tokens": config.train.batch_tokens,
                "steps": config.train.steps,
            }
            fixed["optimizer"] = config.train.optim.kind
        if not self.world:  # its share is for training alone, and its evaluation is answers more than text
            fixed["heldout_tokens"] = self.heldout_tokens()
        plan(self.section(PlanConfig, "plan", minutes=minutes, **fixed))

    def heldout_tokens(self) -> int:
        """Returns how many held-out tokens pretraining's ten looks and the evaluation will read together."""
        from groundup.evals.config import EvalConfig
        from groundup.train.config import PretrainConfig

        index = read_json(open_run(self.config.project, "shards").path / "heldout" / "index.json")
        tokens, most_bytes = index["tokens"], self.section(EvalConfig, "eval").most_bytes
        look = min(tokens, self.section(PretrainConfig, "pretrain").eval_tokens or tokens)
        share = min(1.0, most_bytes / max(1, index["bytes"])) if most_bytes else 1.0
        return 10 * look + 2 * round(
            share * tokens
        )  # an evaluation reads each token twice: its windows overlap by half

    def pretraining(self, **more: Any) -> Any:
        """Returns pretraining's config: the recipe's shape for the planned number of steps, or the plan's own shape."""
        from groundup.train.config import PretrainConfig

        config = self.section(PretrainConfig, "pretrain", **more)
        loop = dataclasses.replace(config.train, seed=self.config.seed)
        if "model" in self.recipe.get("pretrain", {}):
            loop = dataclasses.replace(loop, steps=self.planned()["steps"])
            config = dataclasses.replace(config, plan="none")
        return dataclasses.replace(config, train=loop)

    def pretrain(self) -> None:
        """The base model, as planned."""
        from groundup.train.pretrain import main as pretrain

        pretrain(self.pretraining())

    def sft(self) -> None:
        """The model that answers."""
        from groundup.align.config import SFTConfig
        from groundup.align.sft import main as sft

        sft(self.scaled(SFTConfig, "sft"))

    def dpo(self) -> None:
        """The model that prefers right answers."""
        from groundup.align.config import DPOConfig
        from groundup.align.dpo import main as dpo

        dpo(self.scaled(DPOConfig, "dpo"))

    def grpo(self) -> None:
        """The model that has practised."""
        from groundup.align.config import GRPOConfig
        from groundup.align.grpo import main as grpo

        grpo(self.scaled(GRPOConfig, "grpo"))

    def control(self) -> None:
        """SFT, continued from its end for the CPU time that DPO and GRPO took, with SFT's own settings."""
        from groundup.align.config import SFTConfig
        from groundup.align.sft import main as sft

        project = self.config.project
        before = self.scaled(SFTConfig, "sft")
        cpu_s = {stage: open_run(project, stage).info["cpu_s"] for stage in ("sft", "dpo", "grpo")}
        steps = round(before.train.steps * (cpu_s["dpo"] + cpu_s["grpo"]) / cpu_s["sft"])
        loop = dataclasses.replace(before.train, steps=steps, seed=self.config.seed + 1)
        sft(dataclasses.replace(before, name="continued", start=open_run(project, "sft").path, train=loop))

    def ablation(self) -> None:
        """The same pretraining on text that no filter has touched; the held-out documents are the same."""
        from groundup.data.build import main as build
        from groundup.shards.write import main as write
        from groundup.train.pretrain import main as pretrain

        build(self.section(BuildConfig, "data", name="raw", filters="none"))
        write(self.section(ShardsConfig, "shards", name="raw", data="raw"))
        pretrain(self.pretraining(name="raw", shards="raw"))

    def evaluate(self) -> None:
        """Every stage on the same held-out text and problems."""
        from groundup.evals.config import EvalConfig
        from groundup.evals.harness import main as evaluate

        evaluate(self.section(EvalConfig, "eval", seed=self.config.seed))
        if self.config.control:
            evaluate(
                self.section(EvalConfig, "eval", seed=self.config.seed, name="control", stage="sft/continued,grpo")
            )

    def export(self) -> None:
        """The furthest model as a Hugging Face folder."""
        from groundup.export.config import HuggingFaceConfig
        from groundup.export.huggingface import main as export

        export(self.section(HuggingFaceConfig, "export"))


def main(config: DemoConfig) -> dict[str, Any]:
    """Returns what summary.json holds, after going through all stages and printing what came of them."""
    from groundup.report.config import ReportConfig
    from groundup.report.page import main as report

    demo, clock = Demo(config), Clock(config.project / "demo.json")
    stages = demo.stages()
    for number, stage in enumerate(stages, 1):
        say(f"\n[{number}/{len(stages)}] {stage.name}: {stage.title} ({duration(clock.total)} so far)")
        with permit(aside=True):  # a rerun with other flags wants another model; a half trained one is kept beside it
            clock.run(stage)
    summary = summarise(config, clock.total)
    report(ReportConfig(config.project))
    show(config, summary)
    return summary
