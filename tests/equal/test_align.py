"""align/plain.py against TRL's recorded losses, and the fast losses against align/plain.py: values and gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.align import plain
from groundup.align.branches import Branches, Group, answer_logprobs, branch, scored_answers
from groundup.align.config import GRPOConfig, RolloutConfig
from groundup.align.dpo import PreferenceSource, dpo_loss, reference_logprobs
from groundup.align.grpo import RolloutBatch, Rollouts, group_advantages, grpo_loss
from groundup.align.logprobs import Encoded, encode, pad, pad_in_parts, scored
from groundup.align.sft import ChatBatch, sft_loss
from groundup.base.records import Message
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer

TRL = json.loads((Path(__file__).parent.parent / "golden" / "align_trl.json").read_text())
VOCAB = 64


@pytest.fixture
def model() -> Transformer:
    """A model whose predictions differ enough from token to token to tell right from wrong."""
    made = Transformer(ModelConfig(vocab_size=VOCAB, context=32, d_model=32, n_layers=2, n_heads=2), seed=1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    return made


def answers(count: int, seed: int) -> list[Encoded]:
    """Returns random sequences of different lengths whose last few tokens are the answer."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        length = int(rng.integers(8, 30))
        made.append(Encoded(rng.integers(1, VOCAB, length), np.arange(length) >= length - rng.integers(1, 7)))
    return made


def whole(rows: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Returns tokens and mask (B, T) of all rows in one padded batch, as the plain functions read them."""
    longest = max(len(row.tokens) for row in rows)
    tokens, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.from_numpy(row.tokens)
        mask[i, : len(row.tokens)] = torch.from_numpy(row.mask).float()
    return tokens, mask


def gradient(model: Transformer, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def same(model: Transformer, fast: Tensor, slow: Tensor, tolerance: float = 2e-5) -> None:
    """Asserts that two losses agree in value and in the gradient of every parameter."""
    assert fast.item() == pytest.approx(slow.item(), rel=tolerance, abs=tolerance)
    ours, theirs = gradient(model, fast), gradient(model, slow)
    assert theirs.abs().max() > 1e-4
    assert (ours - theirs).abs().max() <= tolerance * max(1.0, float(theirs.abs().max()))


# ---- the lesson against TRL 1.16


def test_dpo_sft_and_nll_are_trls() -> None:
    case, expected = TRL["sequences"], TRL["sequences"]["expected"]
    policy, reference, mask = (torch.tensor(case[k]) for k in ("policy", "reference", "mask"))
    chosen, rejected = plain.sequence_logprob(policy, mask).chunk(2)
    loss, margin = plain.dpo_loss(
        chosen, rejected, *plain.sequence_logprob(reference, mask).chunk(2), beta=case["beta"]
    )
    assert loss.item() == pytest.approx(expected["dpo"], abs=1e-6)
    assert margin.mean().item() == pytest.approx(expected["margin"], abs=1e-6)
    assert plain.nll_loss(policy[:4], mask[:4]).item() == pytest.approx(expected["nll_of_chosen"], abs=1e-6)
    assert plain.nll_loss(policy, mask).item() == pytest.approx(expected["sft"], abs=1e-6)


def test_reward_loss_is_trls() -> None:
    case = TRL["rewards"]
    loss = plain.reward_loss(torch.tensor(case["chosen"]), torch.tensor(case["rejected"]))
    assert loss.item() == pytest.approx(case["expected"]["bradley_terry"], abs=1e-6)


def test_grpo_is_trls() -> None:
    case = TRL["rollouts"]
    policy, old, reference, mask = (torch.tensor(case[k]) for k in ("policy", "old", "reference", "mask"))
    advantages = plain.group_advantages(torch.tensor(case["rewards"])).flatten()
    assert advantages.tolist() == pytest.approx(case["expected"]["advantages"], abs=1e-6)
    for normalise in ("sequence", "token", "dr_grpo"):
        loss = plain.grpo_loss(
            policy, old, reference, advantages, mask, case["clip"], case["kl_weight"], normalise, case["max_tokens"]
        )
        assert loss.item() == pytest.approx(case["expected"][normalise], abs=1e-6), normalise


# ---- the fast losses against the lesson


def test_sft(model: Transformer) -> None:
    rows = answers(13, 0)
    tokens, mask = whole(rows)
    slow = plain.sft_loss(model(tokens), tokens, mask)
    parts, _ = pad_in_parts(rows, 3)
    total, count, metrics = sft_loss(model, ChatBatch(tuple(parts), 0))
    assert count == int(mask[:, 1:].sum())
    same(model, total / count, slow)
    right = (model(tokens).argmax(-1)[:, :-1] == tokens[:, 1:]).float() * mask[:, 1:]
    assert metrics["accuracy"] == pytest.approx(float(right.sum() / mask[:, 1:].sum()))


def test_replayed_text_adds_its_mean_loss(model: Transformer) -> None:
    rows, text = answers(5, 10), Encoded(np.random.default_rng(11).integers(1, VOCAB, 25), np.ones(25, dtype=bool))
    tokens, mask = whole(rows)
    slow = plain.sft_loss(model(tokens), tokens, mask)
    everything = torch.from_numpy(text.tokens)[None]
    slow = slow + 0.5 * plain.sft_loss(model(everything), everything, torch.ones_like(everything))
    count = int(mask[:, 1:].sum())
    total, found, metrics = sft_loss(model, ChatBatch((pad(rows),), 0, pad([text]), replay_scale=0.5 * count / 24))
    assert found == count
    assert metrics["replay_loss"] > 0
    same(model, total / count, slow)


def test_mask_of_a_conversation() -> None:
    tokenizer = Tokenizer([], list(DEFAULT_SPECIALS), "bytes")
    messages = [Message("system", "Be brief."), Message("user", "Hi <|end|>"), Message("assistant", "Ho"),
                Message("user", "?"), Message("assistant", "!")]  # fmt: skip
    turns = [(m.role, tokenizer.encode_ordinary(m.content)) for m in messages]
    roles = {role: tokenizer.specials[f"<|{role}|>"] for role in ("system", "user", "assistant")}
    tokens, mask = plain.assistant_mask(turns, tokenizer.eot, roles, tokenizer.specials["<|end|>"])
    fast = encode(messages, tokenizer)
    assert fast.tokens.tolist() == tokens
    assert fast.mask.astype(int).tolist() == mask
    assert tokenizer.decode([t for t, m in zip(tokens, mask, strict=True) if m]) == "Ho<|end|>!<|end|>"


def test_logprobs(model: Transformer) -> None:
    rows = answers(9, 1)
    tokens, mask = whole(rows)
    slow = plain.token_logprobs(model(tokens), tokens)
    found = scored(model, pad(rows))
    assert torch.allclose(found.logprobs, slow[mask[:, 1:] > 0], atol=2e-6)


def groups(count: int, answers: int, seed: int) -> list[Group]:
    """Returns random prompts, each with answers of different lengths."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high: rng.integers(1, VOCAB, rng.integers(low, high))  # noqa: E731
    return [Group(draw(3, 14), [draw(1, 8) for _ in range(answers)]) for _ in range(count)]


def apart(found: list[Group]) -> tuple[Tensor, Tensor]:
    """Returns each answer behind a copy of its prompt in a row of its own: tokens and mask, as the plain functions read them."""
    return whole([
        Encoded(np.concatenate([g.prompt, a]), np.arange(len(g.prompt) + len(a)) >= len(g.prompt)) for g in found for a in g.answers
    ])  # fmt: skip


@pytest.mark.parametrize("context", [32, 22])
def test_answers_in_branches_of_a_prompt(model: Transformer, context: int) -> None:
    """Many answers in a row see what each would see alone, whether or not all fit into one row."""
    found = groups(6, 4, 9)
    tokens, mask = apart(found)
    slow = plain.token_logprobs(model(tokens), tokens)
    batches = branch(found, context, parts=3)
    assert all(batch.tokens.shape[1] <= context for batch in batches)
    fast = [scored_answers(model, batch, temperature=1.0) for batch in batches]
    expected = plain.sequence_logprob(slow, mask[:, 1:])
    assert torch.allclose(answer_logprobs(fast, 24), expected, atol=2e-5)
    same(model, answer_logprobs(fast, 24).square().sum(), expected.square().sum())
    cooler = scored_answers(model, branch(found, context)[0], temperature=0.5)
    assert torch.allclose(cooler.logits, 2 * scored_answers(model, branch(found, context)[0]).logits)


@pytest.mark.parametrize("nll_weight", [0.0, 0.7])
def test_dpo(model: Transformer, nll_weight: float) -> None:
    pairs = groups(7, 2, 2)
    reference = np.random.default_rng(4).normal(-20, 3, (7, 2)).astype(np.float32)
    source = PreferenceSource(pairs, reference, batch=7, context=32, seed=5)
    total, count, metrics = dpo_loss(model, source.batch(0), beta=0.3, nll_weight=nll_weight)
    tokens, mask = apart(pairs)
    tokenwise, mask = plain.token_logprobs(model(tokens), tokens), mask[:, 1:]
    policy, frozen = plain.sequence_logprob(tokenwise, mask), torch.from_numpy(reference)
    slow, margin = plain.dpo_loss(policy[::2], policy[1::2], frozen[:, 0], frozen[:, 1], beta=0.3)
    slow = slow + nll_weight * plain.nll_loss(tokenwise[::2], mask[::2])
    assert count == 7
    assert metrics["margin"] == pytest.approx(margin.mean().item(), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx((margin > 0).float().mean().item())
    assert metrics["rejected_logprob"] == pytest.approx(policy[1::2].mean().item(), rel=1e-4)
    same(model, total / count, slow)
    assert np.allclose(reference_logprobs(model, pairs, batch=3), policy.detach().view(7, 2).numpy(), atol=2e-5)


def as_scored(values: Tensor, mask: Tensor, batch: Branches) -> Tensor:
    """Returns values (answers, T) in the order in which a batch scores their tokens."""
    return torch.cat([values[i][mask[i] > 0] for i in batch.answers.unique_consecutive().tolist()])


@pytest.mark.parametrize("normalise", ["sequence", "token", "dr_grpo"])
@pytest.mark.parametrize("moved", [0.0, 0.4])
def test_grpo(model: Transformer, normalise: Any, moved: float) -> None:
    found, generator = groups(4, 3, 6), torch.Generator().manual_seed(7)
    tokens, mask = apart(found)
    mask = mask[:, 1:]
    new = plain.token_logprobs(model(tokens), tokens)
    old = new.detach() + moved * torch.randn(new.shape, generator=generator)
    reference = new.detach() + 0.5 * torch.randn(new.shape, generator=generator)
    advantages = torch.randn(12, generator=generator)
    slow = plain.grpo_loss(new, old, reference, advantages, mask, 0.2, 0.1, normalise, max_tokens=8)
    parts = tuple(
        Rollouts(batch, as_scored(old, mask, batch) if moved else None, as_scored(reference, mask, batch))
        for batch in branch(found, 32, parts=2)
    )
    config = GRPOConfig(clip=0.2, kl_weight=0.1, normalise=normalise, rollout=RolloutConfig(max_tokens=8))
    total, count, metrics = grpo_loss(model, RolloutBatch(parts, advantages, 0, {}), config)
    same(model, total / count, slow, tolerance=5e-5)
    with torch.no_grad():
        kl = plain.kl_estimate(new, reference)
        everything = model(tokens)[:, :-1].log_softmax(-1)
        entropy = -(everything.exp() * everything).sum(-1)
        unclipped = (new - old).exp() * advantages[:, None]
        clipped = (plain.clipped_objective((new - old).exp(), advantages[:, None], 0.2) != unclipped).float()
    for name, values in (("kl", kl), ("entropy", entropy), ("clipped", clipped)):
        assert metrics[name] == pytest.approx(float((values * mask).sum() / mask.sum()), rel=1e-4), name
    assert bool(moved) == (metrics["clipped"] > 0)


@pytest.mark.parametrize("divide", [True, False])
def test_advantages(divide: bool) -> None:
    rewards = torch.randint(0, 2, (20, 8), generator=torch.Generator().manual_seed(8)).float()
    rewards[0], rewards[1] = 1.0, 0.0
    found = group_advantages(rewards, divide)
    assert torch.equal(found, plain.group_advantages(rewards, divide))
    assert found[:2].abs().max() == 0
    assert torch.allclose(found.sum(1), torch.zeros(20), atol=1e-5)
