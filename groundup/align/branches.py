"""Several answers to one prompt in one row: the prompt is computed once, and no answer sees another.

    tokens     What is 2 + 2 ? | 4 .   | 5 .   | 4
    positions  0  1    2 3 4 5   6 7     6 7     6
    branch     0  0    0 0 0 0   1 1     2 2     3

An answer's tokens attend to the prompt and to their own branch; each stands at the position it would have had behind the
prompt alone, so the numbers are those of separate rows, at a fraction of the work where answers are shorter than prompts.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.align.logprobs import Scored
from groundup.model.transformer import Transformer

__all__ = ["Branches", "Group", "branch", "answer_logprobs", "scored_answers"]


class Group(NamedTuple):
    """A prompt and answers to it, as tokens; each answer has its closing token."""

    prompt: np.ndarray
    answers: Sequence[np.ndarray]


@dataclass(frozen=True)
class Branches:
    """Rows of a prompt with answers, padded on the right, and where their answers' tokens are predicted.

    Shapes: tokens, positions and branch (B, T), branch 0 in the prompt and -1 in padding; `places`, `targets` and `answers` (N,):
    the n-th scored token is `targets[n]`, predicted at `places[n]` of the rows end to end, and belongs to answer `answers[n]`.
    """

    tokens: Tensor
    positions: Tensor
    branch: Tensor
    places: Tensor
    targets: Tensor
    answers: Tensor


class _Row(NamedTuple):
    prompt: np.ndarray
    answers: list[tuple[int, np.ndarray]]  # with their numbers

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(len(tokens) - 1 for _, tokens in self.answers)


def _rows(groups: Sequence[Group], context: int) -> list[_Row]:
    """Returns the groups as rows of at most `context` tokens; one whose answers don't all fit takes several."""
    rows, number = [], 0
    for group in groups:
        row = _Row(group.prompt, [])
        for tokens in group.answers:
            assert 0 < len(tokens) <= context + 1 - len(group.prompt), "an answer that doesn't fit was let through"
            if row.answers and row.length + len(tokens) - 1 > context:
                rows.append(row)
                row = _Row(group.prompt, [])
            row.answers.append((number, tokens))
            number += 1
        rows.append(row)
    return rows


def branch(groups: Sequence[Group], context: int, parts: int = 1) -> list[Branches]:
    """Returns the groups in rows of at most `context` tokens, in `parts` batches of like lengths.

    Answers are numbered through all groups in their order. An answer's last token is predicted and not read.
    """
    rows = sorted(_rows(groups, context), key=lambda row: row.length)
    cuts = np.linspace(0, len(rows), min(parts, len(rows)) + 1).round().astype(int)
    return [_pad(rows[first:end]) for first, end in itertools.pairwise(cuts)]


def _pad(rows: Sequence[_Row]) -> Branches:
    longest = max(row.length for row in rows)
    tokens, positions = np.zeros((len(rows), longest), dtype=np.int64), np.zeros((len(rows), longest), dtype=np.int64)
    branches = np.full((len(rows), longest), -1, dtype=np.int64)
    places, targets, answers = [], [], []
    for number, (prompt, found) in enumerate(rows):
        start = end = len(prompt)
        tokens[number, :end], positions[number, :end], branches[number, :end] = prompt, np.arange(end), 0
        for which, (answer, ids) in enumerate(found, 1):
            read = len(ids) - 1
            inside = slice(end, end + read)
            tokens[number, inside], positions[number, inside] = ids[:-1], start + np.arange(read)
            branches[number, inside] = which
            places.append(number * longest + np.concatenate([[start - 1], np.arange(end, end + read)]))
            targets.append(ids)
            answers.append(np.full(len(ids), answer))
            end += read
    gathered = (np.concatenate(part).astype(np.int64) for part in (places, targets, answers))
    return Branches(*map(torch.from_numpy, (tokens, positions, branches)), *map(torch.from_numpy, gathered))


def scored_answers(model: Transformer, batch: Branches, temperature: float = 1.0) -> Scored:
    """Returns what the model says of each answer's tokens; `rows` of the result are the answers' numbers.

    `temperature` divides the logits, as sampling did. Equal to: groundup.align.plain.token_logprobs
    """
    device = next(model.parameters()).device
    branches = batch.branch.to(device)
    keys, queries = branches[:, None, None, :], branches[:, None, :, None]
    visible = (keys == 0) | (keys == queries)  # (B, 1, T, T); the model adds causality
    hidden = model.hidden(batch.tokens.to(device), positions=batch.positions.to(device), mask=visible)
    logits = model.logits(hidden.flatten(0, 1)[batch.places.to(device)]) / temperature  # (N, V)
    logprobs = -F.cross_entropy(logits, batch.targets.to(device), reduction="none")
    return Scored(batch.answers.to(device), logprobs, logits)


def answer_logprobs(found: Sequence[Scored], answers: int) -> Tensor:
    """Returns the log-probability of each whole answer. Shape: (answers,). Equal to: groundup.align.plain.sequence_logprob"""
    rows, logprobs = torch.cat([f.rows for f in found]), torch.cat([f.logprobs for f in found])
    return torch.zeros(answers, device=logprobs.device).index_add(0, rows, logprobs)
