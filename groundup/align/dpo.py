"""`groundup dpo`: from two answers to one question, learn to prefer the better one (direct preference optimisation)."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.align.branches import Branches, Group, answer_logprobs, branch, scored_answers
from groundup.align.config import DPOConfig
from groundup.align.logprobs import Order
from groundup.align.start import Stage, run_stage, training_problems
from groundup.base.errors import DataError
from groundup.base.files import read_jsonl, write_jsonl
from groundup.base.log import progress
from groundup.base.records import Message, Preference, Problem, read_preferences
from groundup.base.runs import Run, open_run
from groundup.evals.generate import answer
from groundup.infer.config import SamplingParams
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import render
from groundup.tokenizer.encode import Tokenizer
from groundup.train.loop import train
from groundup.train.precision import autocast

__all__ = [
    "PairBatch",
    "PreferenceSource",
    "dpo_loss",
    "encode_pairs",
    "main",
    "reference_logprobs",
    "sample_preferences",
]

PARTS = 2  # batches of like lengths that a step is split into: less padding
CHUNK = 512  # problems between two saves of sampled preferences


@dataclass(frozen=True)
class PairBatch:
    """Pairs of a step: answer 2i is the chosen one of pair i, 2i + 1 the rejected one; `reference` (2n,) are the frozen
    model's log-probabilities of them. `token_share` is the weight of a chosen answer's token in the mean loss of a pair.
    """

    parts: tuple[Branches, ...]
    reference: Tensor
    token_share: float
    tokens: int


def sample_preferences(
    run: Run, model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], params: SamplingParams, n: int
) -> Path:
    """Returns the JSONL file of preferences between the model's own answers: one that the verifier accepts, one not.

    A problem whose n answers are all right or all wrong gives none. Progress is kept in parts, so that an interrupted
    run continues. Raises: DataError where no problem gave a pair.
    """
    file, parts = run.path / "preferences.jsonl", run.path / "preferences"
    if file.exists():
        return file
    with progress("preferences", len(problems), "problems") as bar:
        for first in range(0, len(problems), CHUNK):
            part = parts / f"{first:06d}.jsonl"
            chunk = problems[first : first + CHUNK]
            if not part.exists():
                seeded = SamplingParams(params.temperature, max_tokens=params.max_tokens, seed=params.seed + first)
                found = {p.id: _pair(p, a.texts, a.correct) for p, a in answer(model, tokenizer, chunk, seeded, n)}
                write_jsonl(part, [asdict(pair) for p in chunk if (pair := found[p.id]) is not None])
            bar.advance(len(chunk))
    rows = [row for part in sorted(parts.glob("*.jsonl")) for row in read_jsonl(part)]
    if not rows:
        raise DataError(
            f"{run.path}: of {len(problems)} problems none had both a right and a wrong answer; "
            "train SFT longer, sample more answers (--sample.answers) or give --preferences"
        )
    write_jsonl(file, rows)
    return file


def _pair(problem: Problem, texts: list[str], correct: list[bool]) -> Preference | None:
    """Returns a right and a wrong answer drawn from those given, or None where one kind is missing."""
    right = [text for text, ok in zip(texts, correct, strict=True) if ok]
    wrong = [text for text, ok in zip(texts, correct, strict=True) if not ok and text]
    if not right or not wrong:
        return None
    draw = random.Random(problem.id)
    return Preference((Message("user", problem.question),), draw.choice(right), draw.choice(wrong))


def encode_pairs(
    preferences: Sequence[Preference], tokenizer: Tokenizer, context: int, where: str = "preferences"
) -> tuple[list[Group], int]:
    """Returns each preference as a prompt with its chosen and rejected answer, and how many were dropped because one of
    the two doesn't fit the context.

    Raises: DataError naming a row whose two answers are the same, or saying that none is left.
    """
    pairs, dropped = [], 0
    for number, preference in enumerate(preferences, 1):
        if preference.chosen == preference.rejected:
            raise DataError(
                f"{where}, row {number}: chosen and rejected are the same text, so there is nothing to prefer"
            )
        pair = _encode(preference, tokenizer)
        if len(pair.prompt) + max(map(len, pair.answers)) > context + 1:
            dropped += 1
        else:
            pairs.append(pair)
    if not pairs:
        raise DataError(
            f"{where}: " + (f"all {dropped} pairs are longer than the context ({context})" if dropped else "empty")
        )
    return pairs, dropped


def _encode(preference: Preference, tokenizer: Tokenizer) -> Group:
    """Returns prompt and answers as tokens; whatever the assistant said before belongs to the prompt."""
    prompt = render(preference.prompt, tokenizer, generation_prompt=True).tokens
    answers = []
    for text in (preference.chosen, preference.rejected):
        whole = render([*preference.prompt, Message("assistant", text)], tokenizer).tokens
        assert whole[: len(prompt)] == prompt, "the chat template renders a prompt differently once it is answered"
        answers.append(np.array(whole[len(prompt) :]))
    return Group(np.array(prompt), answers)


def reference_logprobs(model: Transformer, pairs: Sequence[Group], batch: int = 64) -> np.ndarray:
    """Returns the log-probabilities of chosen and rejected answers under the frozen model, computed once. Shape: (pairs, 2)."""
    found = np.zeros((len(pairs), 2), dtype=np.float32)
    order = np.argsort([len(pair.prompt) + sum(map(len, pair.answers)) for pair in pairs], kind="stable")
    with torch.inference_mode(), progress("reference", len(pairs), "pairs") as bar:
        for first in range(0, len(pairs), batch):
            chunk = order[first : first + batch]
            parts = branch([pairs[i] for i in chunk], model.config.context)
            logprobs = answer_logprobs([scored_answers(model, part) for part in parts], 2 * len(chunk))
            found[chunk] = logprobs.view(-1, 2).cpu().numpy()
            bar.advance(len(chunk))
    return found


class PreferenceSource:
    """Batches of pairs in an order that depends on the seed alone, with the reference's log-probabilities."""

    def __init__(
        self,
        pairs: Sequence[Group],
        reference: np.ndarray,
        batch: int,
        context: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`reference`: log-probabilities of chosen and rejected answers, shape (pairs, 2)."""
        self.pairs, self.reference, self.size, self.context = pairs, reference, batch, context
        self.rank, self.world = rank, world
        self.order = Order(len(pairs), seed)

    def batch(self, step: int) -> PairBatch:
        """Returns the batch of a step: a pure function of it."""
        everything = self.order.share(step, self.size)
        drawn = everything[self.rank :: self.world]
        pairs = [self.pairs[i] for i in drawn]
        parts = branch(pairs, self.context, PARTS)
        reference = torch.from_numpy(self.reference[drawn].reshape(-1))
        share = self.size / sum(len(self.pairs[i].answers[0]) for i in everything)
        tokens = sum(len(pair.prompt) + sum(map(len, pair.answers)) for pair in pairs)
        return PairBatch(tuple(parts), reference, share, tokens)

    def tokens(self, batch: PairBatch) -> int:
        """Returns the tokens of the pairs, each prompt counted once."""
        return batch.tokens


def dpo_loss(
    model: Transformer, batch: PairBatch, beta: float, nll_weight: float
) -> tuple[Tensor, int, dict[str, float]]:
    """Returns the loss summed over pairs, their number, and {"margin", "accuracy", "chosen_logprob", "rejected_logprob"}.

    The sigmoid loss of the margins plus `nll_weight` times the mean loss of the chosen answers' tokens.
    Source: Rafailov et al. 2023, eq. 7; Pang et al. 2024, eq. 1. Equal to: groundup.align.plain.dpo_loss and nll_loss
    """
    pairs = len(batch.reference) // 2
    answers = answer_logprobs([scored_answers(model, part) for part in batch.parts], 2 * pairs)
    rewards = beta * (answers - batch.reference.to(answers.device))
    margin = rewards[::2] - rewards[1::2]
    loss = -F.logsigmoid(margin).sum() - nll_weight * batch.token_share * answers[::2].sum()
    seen = answers.detach()
    metrics = {
        "margin": float(margin.detach().mean()), "accuracy": float((margin > 0).float().mean()),
        "chosen_logprob": float(seen[::2].mean()), "rejected_logprob": float(seen[1::2].mean()),
    }  # fmt: skip
    return loss, pairs, metrics


def _preferences(config: DPOConfig, stage: Stage) -> Path:
    """Returns the file of preferences: the user's, or one sampled from the start's own answers (by rank 0)."""
    if config.preferences is not None:
        return config.preferences
    sample = config.sample
    file = stage.run.path / "preferences.jsonl"
    if stage.world.main:
        problems = training_problems(config.problems_path)
        order = Order(len(problems), config.train.seed)
        chosen = [problems[order[i]] for i in range(min(sample.count or len(problems), len(problems)))]
        params = SamplingParams(sample.temperature, max_tokens=sample.max_tokens, seed=config.train.seed)
        sample_preferences(stage.run, stage.model, stage.tokenizer, chosen, params, sample.answers)
    return stage.world.share(file)


def _work(config: DPOConfig, stage: Stage) -> dict[str, Any]:
    """Returns the results of making or reading preferences and training on them."""
    file = _preferences(config, stage)
    pairs, dropped = encode_pairs(list(read_preferences(file)), stage.tokenizer, stage.model.config.context, str(file))
    with autocast(
        stage.precision, stage.world.device
    ):  # as the policy will be computed, or rounding would look like a margin
        reference = reference_logprobs(stage.model, pairs)
    if stage.world.main:
        epochs = config.train.steps * config.batch / len(pairs)
        long = f"; {dropped} longer than the context were left out" if dropped else ""
        stage.run.log(f"{len(pairs)} preferences ({epochs:.2g} times each){long}")
    context, here = stage.model.config.context, stage.world
    source = PreferenceSource(pairs, reference, config.batch, context, config.train.seed, here.rank, here.size)
    results = train(
        stage.model, source, lambda model, batch: dpo_loss(model, batch, config.beta, config.nll_weight), config.train,
        stage.run, tokenizer_path=stage.tokenizer_path, precision=stage.precision, world=stage.world,
    )  # fmt: skip
    return results | {"pairs": len(pairs), "dropped": dropped}


def main(config: DPOConfig) -> dict[str, Any]:
    """Returns the results of training on preferences; continues a run that was interrupted."""
    run = open_run(config.project, "dpo", config.name)
    inputs = {"problems": config.problems_path} if config.preferences is None else {"preferences": config.preferences}
    return run_stage(config, run, "sft", "grpo", inputs, lambda stage: _work(config, stage))
