"""A model that has learnt one thing by heart, in a moment: enough to test evaluation with right and wrong answers."""

import pytest
import torch

from groundup.base.records import Message, Problem
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import DEFAULT_SPECIALS, render
from groundup.tokenizer.encode import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer([], list(DEFAULT_SPECIALS), "bytes")


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return [
        Problem(f"p{a}{b}", f"skill{b % 2}", f"What is {a} + {b}?", str(a + b))
        for a in range(1, 6)
        for b in range(1, 6)
    ]


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer, problems: list[Problem]) -> Transformer:
    """Knows the sums that begin with 1 or 2, and answers the others as if they did."""
    made = Transformer(
        ModelConfig(vocab_size=tokenizer.vocab_size, context=64, d_model=32, n_layers=2, n_heads=2), seed=0
    )
    rows = [render([Message("user", p.question), Message("assistant", p.answer)], tokenizer) for p in problems[:10]]
    tokens = torch.tensor([row.tokens for row in rows])
    mask = torch.tensor([row.loss_mask for row in rows])[:, 1:].flatten() > 0
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    for _ in range(140):
        logits = made(tokens[:, :-1]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits[mask], tokens[:, 1:].flatten()[mask]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return made.eval()
