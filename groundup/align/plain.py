"""Alignment in its obvious form: whose words count in SFT, and the losses of DPO, GRPO and the reward model.

Everything here works on log-probabilities: `logprobs[b, t]` is what the model gave the token at t, a natural logarithm,
and a mask says which tokens belong to the answer. Imports nothing of groundup; read it first, then the fast files.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "assistant_mask", "clipped_objective", "dpo_loss", "group_advantages", "grpo_loss", "kl_estimate", "nll_loss",
    "reward_loss", "sequence_logprob", "sft_loss", "token_logprobs",
]  # fmt: skip


# ---- Supervised fine-tuning: imitate the assistant's words, and only those


def assistant_mask(
    turns: Sequence[tuple[str, Sequence[int]]], begin: int, role_ids: dict[str, int], end: int
) -> tuple[list[int], list[int]]:
    """Returns a conversation's tokens and a mask that is 1 where the assistant speaks.

    `<|endoftext|> <|user|> How are you? <|end|> <|assistant|> Fine. <|end|>` is learned only in `Fine. <|end|>`: the
    model must not learn to ask the questions, but it must learn when its answer is over.
    """
    tokens, mask = [begin], [0]
    for role, content in turns:
        learned = 1 if role == "assistant" else 0
        tokens.append(role_ids[role])
        mask.append(0)  # whose turn it is, is decided outside the model
        for token in content:
            tokens.append(token)
            mask.append(learned)
        tokens.append(end)
        mask.append(learned)
    return tokens, mask


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Returns the log-probability of each token but the first, given those before it.

    Shapes: logits (B, T, V), tokens (B, T) -> (B, T - 1). Place t of the logits predicts token t + 1.
    """
    predictions = F.log_softmax(logits[:, :-1].float(), dim=-1)  # (B, T - 1, V)
    following = tokens[:, 1:].unsqueeze(-1)  # (B, T - 1, 1)
    return predictions.gather(-1, following).squeeze(-1)


def sft_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean negative log-probability of the masked tokens, over all of the batch's conversations together.

    Shapes: logits (B, T, V), tokens and mask (B, T). A long answer weighs more than a short one, as each token does once.
    """
    learned = mask[:, 1:].float()
    return -(token_logprobs(logits, tokens) * learned).sum() / learned.sum()


# ---- Preferences: the chosen answer should gain on the rejected one


def sequence_logprob(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Returns the log-probability of each whole answer: the sum over its tokens. Shapes: (B, T), (B, T) -> (B,)."""
    return (logprobs * mask).sum(dim=1)


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Returns the DPO loss and each pair's margin.

    An answer's implied reward is beta times how much likelier the policy makes it than the reference did; the loss is
    that of a classifier which tells the chosen from the rejected by this reward. It looks at the difference alone: both
    answers may become unlikelier while it falls, which `nll_loss` of the chosen answers, added to it, prevents.

    Shapes: each (B,), the log-probabilities of whole answers. Source: Rafailov et al. 2023, eq. 7.
    """
    reward_chosen = beta * (policy_chosen - reference_chosen)
    reward_rejected = beta * (policy_rejected - reference_rejected)
    margin = reward_chosen - reward_rejected
    return -F.logsigmoid(margin).mean(), margin


def nll_loss(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean negative log-probability per token. Shapes: (B, T), (B, T). Source: Pang et al. 2024, eq. 1."""
    return -(logprobs * mask).sum() / mask.sum()


def reward_loss(reward_chosen: Tensor, reward_rejected: Tensor) -> Tensor:
    """Returns the Bradley-Terry loss of a reward model: the chosen answer's reward should be the higher one.

    Shapes: each (B,). Source: Ouyang et al. 2022, eq. 1.
    """
    return -F.logsigmoid(reward_chosen - reward_rejected).mean()


# ---- Reinforcement: answers better than their group's average become likelier


def group_advantages(rewards: Tensor, divide_by_std: bool = True) -> Tensor:
    """Returns how much better each answer is than the average answer to the same question.

    Shapes: rewards (questions, answers) -> the same. Where all answers earned the same there is nothing to learn: 0.
    Dividing by the group's standard deviation gives a question that is nearly always (or never) answered more weight;
    Dr. GRPO leaves it out. Source: Shao et al. 2024, section 4.1.2; Liu et al. 2025, eq. 2.
    """
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if divide_by_std:
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + 1e-4)
    return advantages


def clipped_objective(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Returns PPO's objective per token: no reward for moving a token's probability by more than the share `clip`.

    `ratio` is the token's probability now over its probability when it was sampled. Source: Schulman et al. 2017, eq. 7.
    """
    unclipped = ratio * advantage
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantage
    return torch.minimum(unclipped, clipped)


def kl_estimate(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Returns an estimate of the divergence from the reference, per sampled token; never negative, and 0 when equal.

    Source: Shao et al. 2024, eq. 4 (the estimator k3 of Schulman 2020).
    """
    log_ratio = reference - logprobs
    return log_ratio.exp() - log_ratio - 1


def grpo_loss(
    logprobs: Tensor,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
    kl_weight: float = 0.04,
    normalise: str = "token",
    max_tokens: int = 0,
) -> Tensor:
    """Returns the loss of a batch of sampled answers.

    `old` are the log-probabilities under the policy that sampled the answers, `reference` those of the model that
    training began from. The KL term is multiplied by the ratio as well, without which its gradient would be biased.
    `normalise` says what one token weighs: "sequence" the mean of each answer, then over answers (GRPO as published:
    long answers count less per token); "token" the mean over all tokens; "dr_grpo" a constant, answers x `max_tokens`.

    Shapes: logprobs, old, reference and mask (N, T); advantages (N,).
    """
    ratio = (logprobs - old).exp()
    objective = clipped_objective(ratio, advantages.unsqueeze(1), clip)
    penalty = kl_weight * kl_estimate(logprobs, reference) * ratio
    per_token = (penalty - objective) * mask  # (N, T)
    if normalise == "sequence":
        return (per_token.sum(dim=1) / mask.sum(dim=1)).mean()
    if normalise == "token":
        return per_token.sum() / mask.sum()
    if normalise == "dr_grpo":
        return per_token.sum() / (len(per_token) * max_tokens)
    raise ValueError(f"normalise: expected sequence, token or dr_grpo, not {normalise!r}")
