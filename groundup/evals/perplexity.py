"""Bits per byte of held-out documents: the one number that compares models whatever their vocabulary."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from groundup.base.errors import DataError
from groundup.base.log import progress
from groundup.evals.score import ratio_interval
from groundup.model.transformer import Transformer
from groundup.tokenizer.encode import Tokenizer

__all__ = ["bits_of_each", "bits_per_byte"]

BATCH_TOKENS = 8192  # tokens of one forward pass: enough to fill the cores, small enough for their caches
FEW = 30  # documents; fewer say nothing about others of their kind, so the windows within them are resampled
# The number of the window (of the document, while they are made), its tokens, the place of the first prediction that counts.
Window = tuple[int, np.ndarray, int]


def bits_per_byte(
    model: Transformer, tokenizer: Tokenizer, documents: Sequence[str], context: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Returns {"value", "low", "high", "nats_per_token", "documents", "bytes", "tokens"}: bits per UTF-8 byte.

    Each document stands alone between two <|endoftext|>. The second is predicted too, as in pretraining, so that the sum is
    the length of a code for the whole document and can't fall below the entropy of the source that wrote it. Documents
    longer than the context are read in windows that overlap by half, each token being counted once. The interval is
    over documents; where there are fewer than 30 of them, over windows. `context` 0 is the model's own.

    Raises: DataError where there is nothing to measure.
    Equal to: groundup.evals.plain.bits_per_byte
    """
    context = context or model.config.context
    texts = [text for text in documents if text]
    if not texts:
        raise DataError("bits per byte: there is no held-out text to measure")
    owner, nats, sizes, total = _measured(model, tokenizer, texts, context)
    bits, item = nats / math.log(2), owner if len(texts) >= FEW else np.arange(len(owner))
    score = ratio_interval(np.bincount(item, bits).tolist(), np.bincount(item, sizes).tolist(), seed)
    return score.as_dict() | {
        "nats_per_token": float(nats.sum() / total), "documents": len(texts), "bytes": int(sizes.sum()), "tokens": total,
    }  # fmt: skip


def bits_of_each(model: Transformer, tokenizer: Tokenizer, documents: Sequence[str], context: int = 0) -> np.ndarray:
    """Returns the bits per UTF-8 byte of each document alone, as `bits_per_byte` counts them; NaN for an empty one."""
    bits, full = np.full(len(documents), np.nan), [k for k, text in enumerate(documents) if text]
    if full:
        owner, nats, sizes, _ = _measured(
            model, tokenizer, [documents[k] for k in full], context or model.config.context
        )
        bits[full] = np.bincount(owner, nats) / np.bincount(owner, sizes) / math.log(2)
    return bits


def _measured(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], context: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Returns for each window its document's number, the nats and the bytes of what counts in it; and the number of all tokens."""
    encoded = tokenizer.encode_batch(texts)
    windows = list(_windows(encoded, tokenizer.eot, context))
    owner = np.array([document for document, _, _ in windows])
    sizes: np.ndarray = np.array(
        [len(tokenizer.decode_bytes(tokens[first:][tokens[first:] != tokenizer.eot])) for _, tokens, first in windows]
    )
    nats = np.zeros(len(windows))
    total = sum(len(ids) + 1 for ids in encoded)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), progress("reading", total, "tokens") as bar:
            for batch in _batches([(number, *window[1:]) for number, window in enumerate(windows)]):
                numbers, sums, counted = _score(model, batch)
                nats[numbers] = sums
                bar.advance(counted)
    finally:
        model.train(training)
    return owner, nats, sizes, total


def _windows(encoded: Sequence[np.ndarray], boundary: int, context: int) -> Iterator[Window]:
    """Yields windows of at most context + 1 tokens; after a document's first, half of a window is context alone.

    Equal to: groundup.evals.plain.windows
    """
    stride = max(1, context // 2)
    edge = np.array([boundary], dtype=np.int64)
    for owner, ids in enumerate(encoded):
        tokens, first = np.concatenate([edge, np.asarray(ids, dtype=np.int64), edge]), 1
        while first < len(tokens):
            start = 0 if first == 1 else first - 1 - (context - stride)
            end = min(start + context + 1, len(tokens))
            yield owner, tokens[start:end], first - start
            first = end


def _batches(windows: list[Window]) -> Iterator[list[Window]]:
    """Yields windows of similar length together, so that little is padded."""
    windows.sort(key=lambda w: len(w[1]))
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) + 1) * len(window[1]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _score(model: Transformer, batch: list[Window]) -> tuple[list[int], np.ndarray, int]:
    """Returns for each window its number and the nats of its counted tokens, and how many those are."""
    device = next(model.parameters()).device
    longest = max(len(tokens) for _, tokens, _ in batch) - 1
    inputs = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), -100)
    for row, (_, tokens, first) in enumerate(batch):
        ids = torch.from_numpy(tokens)
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, first - 1 : len(ids) - 1] = ids[first:]  # padding on the right is never seen by what counts
    logits = model(inputs.to(device)).float()  # (B, T, V)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), ignore_index=-100, reduction="none")
    sums = nats.view(len(batch), longest).double().sum(1).cpu().numpy()
    return [number for number, _, _ in batch], sums, int((targets != -100).sum())
