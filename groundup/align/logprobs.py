"""Conversations as padded batches, the order in which they are drawn, and the log-probabilities of scored tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.base.records import Message
from groundup.model.transformer import Transformer
from groundup.shards.dataset import Batch
from groundup.shards.read import permutation
from groundup.tokenizer.chat import render
from groundup.tokenizer.encode import Tokenizer

__all__ = ["Encoded", "Order", "Scored", "encode", "pad", "pad_in_parts", "scored"]


class Encoded(NamedTuple):
    """A conversation as tokens, with True where a token is to be predicted for the loss (the assistant's words)."""

    tokens: np.ndarray
    mask: np.ndarray


class Scored(NamedTuple):
    """The scored tokens of a batch, one after another: row of the batch, log-probability, logits. Shapes: (N,), (N,), (N, V)."""

    rows: Tensor
    logprobs: Tensor
    logits: Tensor


class Order:
    """Which of `total` items is drawn at each place of an endless sequence: each once an epoch, shuffled by the seed.

    `share(step, size, rank, world)` gives the items of a step's batch, of which each rank takes every world-th.
    """

    def __init__(self, total: int, seed: int) -> None:
        self.total, self.seed = total, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, place: int) -> int:
        epoch, at = divmod(place, self.total)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.total, self.seed, epoch)
        return int(self._order[at])

    def share(self, step: int, size: int, rank: int = 0, world: int = 1) -> list[int]:
        """Returns the items of batch `step` of `size`, the part that this rank takes."""
        return [self[place] for place in range(step * size + rank, (step + 1) * size, world)]


def encode(messages: Sequence[Message], tokenizer: Tokenizer) -> Encoded:
    """Returns a conversation as tokens and loss mask. Equal to: groundup.align.plain.assistant_mask"""
    rendered = render(messages, tokenizer)
    return Encoded(np.array(rendered.tokens, dtype=np.int64), np.array(rendered.loss_mask, dtype=bool))


def pad(rows: Sequence[Encoded]) -> Batch:
    """Returns sequences side by side, padded on the right: with causal attention no token sees padding, so no mask is needed.

    Shapes: tokens and targets (B, T), T one less than the longest row; targets are -100 where nothing is learned.
    """
    longest = max(len(row.tokens) for row in rows) - 1
    tokens = np.zeros((len(rows), longest), dtype=np.int64)
    targets = np.full((len(rows), longest), -100, dtype=np.int64)
    for place, (ids, mask) in enumerate(rows):
        tokens[place, : len(ids) - 1] = ids[:-1]
        targets[place, : len(ids) - 1] = np.where(mask[1:], ids[1:], -100)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))


def pad_in_parts(rows: Sequence[Encoded], parts: int) -> tuple[list[Batch], np.ndarray]:
    """Returns the rows sorted by length and padded in `parts` batches, and the order: place -> row.

    The rows of one step stay a random sample (sorting the whole data by length would put similar tasks together), yet a
    short row isn't padded to the longest of all.
    """
    order = np.argsort([len(row.tokens) for row in rows], kind="stable")
    chunks = np.array_split(order, min(parts, len(rows)))
    return [pad([rows[i] for i in chunk]) for chunk in chunks], order


def scored(model: Transformer, batch: Batch, temperature: float = 1.0) -> Scored:
    """Returns what the model says of each token that is scored, row by row; the others cost no output layer.

    `temperature` divides the logits, as sampling did. Equal to: groundup.align.plain.token_logprobs
    """
    device = next(model.parameters()).device
    targets = batch.targets.to(device)
    chosen = targets != -100
    hidden = model.hidden(batch.tokens.to(device))[chosen]  # (N, C)
    logits = model.logits(hidden) / temperature  # (N, V)
    logprobs = -F.cross_entropy(logits, targets[chosen], reduction="none")
    return Scored(chosen.nonzero()[:, 0], logprobs, logits)
