"""align/plain.py against TRL's recorded losses, and the fast losses against align/plain.py: values and gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.align import plain
from groundup.align.config import GRPOConfig, RolloutConfig
from groundup.align.dpo import Pair, PreferenceSource, dpo_loss, reference_logprobs
from groundup.align.grpo import RolloutBatch, Rollouts, group_advantages, grpo_loss
from groundup.align.logprobs import Encoded, encode, pad, pad_in_parts, scored, sequence_logprobs
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
    expected = plain.sequence_logprob(slow, mask[:, 1:])
    assert torch.allclose(sequence_logprobs(found, len(rows)), expected, atol=1e-5)
    assert np.allclose(reference_logprobs(model, rows, batch=4), expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("nll_weight", [0.0, 0.7])
def test_dpo(model: Transformer, nll_weight: float) -> None:
    chosen, rejected = answers(7, 2), answers(7, 3)
    reference = np.random.default_rng(4).normal(-20, 3, (2, 7)).astype(np.float32)
    pairs = [Pair(c, r) for c, r in zip(chosen, rejected, strict=True)]
    source = PreferenceSource(pairs, reference, batch=7, seed=5)
    total, count, metrics = dpo_loss(model, source.batch(0), beta=0.3, nll_weight=nll_weight)
    (tokens_c, mask_c), (tokens_r, mask_r) = whole(chosen), whole(rejected)
    tokenwise = plain.token_logprobs(model(tokens_c), tokens_c)
    policy = plain.sequence_logprob(tokenwise, mask_c[:, 1:])
    other = plain.sequence_logprob(plain.token_logprobs(model(tokens_r), tokens_r), mask_r[:, 1:])
    slow, margin = plain.dpo_loss(policy, other, *torch.from_numpy(reference), beta=0.3)
    slow = slow + nll_weight * plain.nll_loss(tokenwise, mask_c[:, 1:])
    assert count == 7
    assert metrics["margin"] == pytest.approx(margin.mean().item(), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx((margin > 0).float().mean().item())
    same(model, total / count, slow)


@pytest.mark.parametrize("normalise", ["sequence", "token", "dr_grpo"])
@pytest.mark.parametrize("moved", [0.0, 0.4])
def test_grpo(model: Transformer, normalise: Any, moved: float) -> None:
    rows, generator = answers(12, 6), torch.Generator().manual_seed(7)
    tokens, mask = whole(rows)
    mask = mask[:, 1:]
    new = plain.token_logprobs(model(tokens), tokens)
    old = new.detach() + moved * torch.randn(new.shape, generator=generator)
    reference = new.detach() + 0.5 * torch.randn(new.shape, generator=generator)
    advantages = torch.randn(12, generator=generator)
    slow = plain.grpo_loss(new, old, reference, advantages, mask, 0.2, 0.1, normalise, max_tokens=8)
    batches, order = pad_in_parts(rows, 3)
    parts, first = [], 0
    for batch in batches:
        chosen = torch.from_numpy(order[first : first + len(batch.tokens)])
        first += len(chosen)
        inside = mask[chosen] > 0
        parts.append(
            Rollouts(batch, advantages[chosen], old[chosen][inside] if moved else None, reference[chosen][inside])
        )
    config = GRPOConfig(clip=0.2, kl_weight=0.1, normalise=normalise, rollout=RolloutConfig(max_tokens=8))
    total, count, metrics = grpo_loss(model, RolloutBatch(tuple(parts), 0, {}), config)
    model_logits, new = model(tokens)[:, :-1].detach(), new.detach()
    kl = plain.kl_estimate(new, reference)
    assert metrics["kl"] == pytest.approx(float((kl * mask).sum() / mask.sum()), rel=1e-4)
    everything = model_logits.log_softmax(-1)
    entropy = -(everything.exp() * everything).sum(-1)
    assert metrics["entropy"] == pytest.approx(float((entropy * mask).sum() / mask.sum()), rel=1e-4)
    unclipped = (new - old).exp() * advantages[:, None]
    clipped = plain.clipped_objective((new - old).exp(), advantages[:, None], 0.2) != unclipped
    assert metrics["clipped"] == pytest.approx(float((clipped * mask).sum() / mask.sum()))
    assert bool(moved) == (metrics["clipped"] > 0)
    same(model, total / count, slow, tolerance=5e-5)


@pytest.mark.parametrize("divide", [True, False])
def test_advantages(divide: bool) -> None:
    rewards = torch.randint(0, 2, (20, 8), generator=torch.Generator().manual_seed(8)).float()
    rewards[0], rewards[1] = 1.0, 0.0
    found = group_advantages(rewards, divide)
    assert torch.equal(found, plain.group_advantages(rewards, divide))
    assert found[:2].abs().max() == 0
    assert torch.allclose(found.sum(1), torch.zeros(20), atol=1e-5)
