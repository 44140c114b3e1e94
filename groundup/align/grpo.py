"""`groundup grpo`: the model tries, a verifier says what was right, and what beat the average of its group is reinforced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.align.branches import Branches, Group, branch, scored_answers
from groundup.align.config import GRPOConfig
from groundup.align.logprobs import Order
from groundup.align.start import Stage, run_stage, training_problems
from groundup.base.records import Problem
from groundup.base.runs import open_run
from groundup.evals.generate import Answers, answer, chat_prompt
from groundup.infer.config import SamplingParams
from groundup.model.transformer import Transformer
from groundup.tokenizer.encode import Tokenizer
from groundup.train.loop import train
from groundup.train.precision import autocast

__all__ = ["RolloutBatch", "RolloutSource", "group_advantages", "grpo_loss", "main"]

PARTS = 2  # batches of like lengths that a step is split into: less padding


@dataclass(frozen=True)
class Rollouts:
    """Answers in rows of like length, with what the sampling policy and the reference gave their tokens, (scored tokens,)."""

    batch: Branches
    old: Tensor | None
    reference: Tensor | None


@dataclass(frozen=True)
class RolloutBatch:
    """The answers of a step from which something can be learned: their advantages (answers,), and statistics of all answers."""

    parts: tuple[Rollouts, ...]
    advantages: Tensor
    tokens: int
    stats: dict[str, float]


def group_advantages(rewards: Tensor, divide_by_std: bool = True) -> Tensor:
    """Returns each answer's reward above its group's mean. Shapes: (questions, answers) -> the same.

    Source: Shao et al. 2024, section 4.1.2; without division: Liu et al. 2025. Equal to: groundup.align.plain.group_advantages
    """
    advantages = rewards - rewards.mean(1, keepdim=True)
    return advantages / (rewards.std(1, keepdim=True) + 1e-4) if divide_by_std else advantages


class RolloutSource:
    """Answers of the model as it is now to the questions of a step. Reward: 1 where the verifier accepts, else 0."""

    def __init__(
        self, model: Transformer, reference: Transformer | None, tokenizer: Tokenizer, problems: Sequence[Problem],
        config: GRPOConfig, rank: int = 0, world: int = 1, precision: str = "fp32",
    ) -> None:  # fmt: skip
        self.model, self.reference, self.tokenizer, self.problems = model, reference, tokenizer, problems
        self.config, self.rank, self.world, self.precision = config, rank, world, precision
        self.order = Order(len(problems), config.train.seed)
        self._kept: tuple[int, RolloutBatch] | None = None

    def questions(self, round_: int) -> list[Problem]:
        """Returns the problems that are tried in a round (this rank's share)."""
        return [
            self.problems[i] for i in self.order.share(round_, self.config.rollout.questions, self.rank, self.world)
        ]

    def batch(self, step: int) -> RolloutBatch:
        """Returns the answers of a step: a function of the step and of the model. `updates` steps share their answers."""
        round_ = step // self.config.updates
        if self._kept is None or self._kept[0] != round_:
            self._kept = round_, self._roll(round_)
        return self._kept[1]

    def tokens(self, batch: RolloutBatch) -> int:
        """Returns the tokens of the answers that were generated."""
        return batch.tokens

    def _roll(self, round_: int) -> RolloutBatch:
        rollout = self.config.rollout
        seed = ((self.config.train.seed * 1_000_003 + round_) * 1_009 + self.rank) % 2**62
        params = SamplingParams(rollout.temperature, max_tokens=rollout.max_tokens, seed=seed)
        tried = list(answer(self.model, self.tokenizer, self.questions(round_), params, rollout.answers))
        rewards = torch.tensor([found.correct for _, found in tried], dtype=torch.float32)  # (questions, answers)
        advantages = group_advantages(rewards, self.config.divide_by_std)
        signal = (rewards != rewards[:, :1]).any(1)  # where all earned the same, nothing can be learned
        groups = [self._group(*tried[i]) for i in signal.nonzero().flatten().tolist()]
        lengths = [len(tokens) for _, found in tried for tokens in found.tokens]
        stats = {
            "reward": float(rewards.mean()),
            "length": float(np.mean(lengths)),
            "used": float(signal.float().mean()),
        }
        return RolloutBatch(tuple(self._parts(groups)), advantages[signal].flatten(), sum(lengths), stats)

    def _group(self, problem: Problem, found: Answers) -> Group:
        return Group(
            np.array(chat_prompt(problem.question, self.tokenizer)), [np.array(tokens) for tokens in found.tokens]
        )

    def _parts(self, groups: list[Group]) -> list[Rollouts]:
        """Returns the answers in rows, with what the frozen reference (and, if needed later, this policy) gave them."""
        if not groups:
            return []
        batches = branch(groups, self.model.config.context, PARTS)
        return [
            Rollouts(
                batch,
                self._frozen(self.model, batch, self.config.updates > 1),
                self._frozen(self.reference, batch, self.config.kl_weight > 0),
            )
            for batch in batches
        ]

    def _frozen(self, model: Transformer | None, batch: Branches, needed: bool) -> Tensor | None:
        if model is None or not needed:
            return None
        device = next(model.parameters()).device
        with torch.no_grad(), autocast(self.precision, device):  # as the policy will be, or rounding looks like a step
            return scored_answers(model, batch, self.config.rollout.temperature).logprobs


def grpo_loss(model: Transformer, batch: RolloutBatch, config: GRPOConfig) -> tuple[Tensor, int, dict[str, float]]:
    """Returns the loss summed as `normalise` says, its divisor, and {"reward", "kl", "entropy", "length", "used", "clipped"}.

    Answers of groups without a signal aren't in the batch, neither in the sum nor in the divisor (as in DAPO). With one
    update the policy is the one that sampled, so the ratio is 1 and only its gradient matters.
    Source: Shao et al. 2024, eq. 3; DAPO, Yu et al. 2025; Dr. GRPO, Liu et al. 2025. Equal to: groundup.align.plain.grpo_loss
    """
    advantages, answers = batch.advantages, len(batch.advantages)
    total = sum((p.sum() * 0 for p in model.parameters()), torch.zeros(())) if not batch.parts else torch.zeros(())
    tokens = sum(len(part.batch.targets) for part in batch.parts)
    sums = dict.fromkeys(("kl", "entropy", "clipped"), 0.0)
    for part in batch.parts:
        found = scored_answers(model, part.batch, config.rollout.temperature)
        new = found.logprobs
        old = new.detach() if part.old is None else part.old
        advantage = advantages.to(new.device)[found.rows]
        ratio = (new - old).exp()
        per_token = -torch.minimum(ratio * advantage, ratio.clamp(1 - config.clip, 1 + config.clip) * advantage)
        if part.reference is not None:
            apart = part.reference - new
            kl = apart.exp() - apart - 1
            per_token = per_token + config.kl_weight * kl * ratio
            sums["kl"] += float(kl.detach().sum())
        if config.normalise == "sequence":
            per_token = per_token / torch.bincount(found.rows, minlength=answers)[found.rows]
        total = total.to(new.device) + per_token.sum()
        with torch.no_grad():
            everything = found.logits.log_softmax(-1)
            sums["entropy"] -= float((everything.exp() * everything).sum())
            outside = (ratio > 1 + config.clip) & (advantage > 0) | (ratio < 1 - config.clip) & (advantage < 0)
            sums["clipped"] += float(outside.sum())
    divisor = {"token": tokens, "sequence": answers, "dr_grpo": answers * config.rollout.max_tokens}[config.normalise]
    return total, max(1, divisor), batch.stats | {name: value / max(1, tokens) for name, value in sums.items()}


def _work(config: GRPOConfig, stage: Stage) -> dict[str, Any]:
    """Returns the results of the training itself."""
    problems = training_problems(config.problems_path)
    reference = stage.frozen() if config.kl_weight else None
    source = RolloutSource(
        stage.model, reference, stage.tokenizer, problems, config, stage.world.rank, stage.world.size, stage.precision
    )
    results = train(
        stage.model, source, lambda model, batch: grpo_loss(model, batch, config), config.train, stage.run,
        tokenizer_path=stage.tokenizer_path, precision=stage.precision, world=stage.world,
    )  # fmt: skip
    return results | {"problems": len(problems)}


def main(config: GRPOConfig) -> dict[str, Any]:
    """Returns the results of reinforcement; continues a run that was interrupted."""
    run = open_run(config.project, "grpo", config.name)
    return run_stage(config, run, "dpo", "eval", {"problems": config.problems_path}, lambda stage: _work(config, stage))
