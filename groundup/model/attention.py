"""Attention behind one function: plain matmuls, or the fused kernel that PyTorch ships, chosen by what was measured."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.base.errors import ConfigError

__all__ = ["Implementation", "additive", "attention", "causal_mask", "choose", "document_mask"]

Implementation = Literal["auto", "manual", "sdpa"]


def choose(device: torch.device, dtype: torch.dtype, batch: int, queries: int, keys: int) -> Literal["manual", "sdpa"]:
    """Returns the implementation that was the faster one where it was measured (CPU time, one thread, forward and backward).

    fp32 (EPYC, AVX2), manual over sdpa at 4,096 tokens of width 128: 1.25 with D = 32 and T = 32, 1.1 at T = 128, 1.8 at T = 256,
    3.3 at T = 1024; about 1.0 with D = 128 up to T = 512; never clearly below 1. One query a sequence against its cache:
    0.78-0.88 for 64 to 1,000 sequences, 2 for a single one, where the number of calls decides.
    bf16 (a CPU with AVX512-BF16): plain matmuls trained a 10.7M model at T = 256 1.24 times as fast as sdpa.
    On a GPU the fused kernel saves the memory of the scores, whatever the length.
    """
    if device.type != "cpu":
        return "sdpa"
    if dtype == torch.bfloat16:
        return "manual" if keys <= 1024 else "sdpa"
    return "manual" if queries == 1 and batch > 1 else "sdpa"


def causal_mask(queries: int, keys: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns (T, S) bool: the last of T queries stands at the last of S keys, and each sees itself and what came before.

    Equal to: groundup.model.plain.causal_mask
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def document_mask(positions: Tensor) -> Tensor:
    """Returns (B, 1, T, T) bool from positions (B, T) that restart at 0: a token sees its own document, up to itself."""
    document = (positions == 0).cumsum(dim=1)
    same = document[:, :, None] == document[:, None, :]
    return (same & causal_mask(positions.shape[1], positions.shape[1], positions.device))[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a bool mask as numbers to add to the scores: 0 where attended, else the least finite number.

    Finite, so that a query that may see nothing (padding) gets an average and not NaN, which would spread.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = True,
    implementation: Implementation = "auto",
    dropout: float = 0.0,
) -> Tensor:
    """Returns softmax(q k^T / sqrt(D) + mask) v, (B, H, T, D).

    Shapes: q (B, H, T, D); k, v (B, Hkv, S, D), where each group of H / Hkv query heads shares one; mask broadcasts to
    (B, H, T, S): bool, True where attended, or numbers to add (see `additive`). With `causal` the last query stands at the last
    key; a mask is then applied besides.
    Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for the groups.
    Equal to: groundup.model.plain.scaled_dot_product_attention
    """
    queries, keys = q.shape[2], k.shape[2]
    if implementation == "auto":
        implementation = choose(q.device, q.dtype, q.shape[0], queries, keys)
    if causal and queries > 1 and (mask is not None or implementation == "manual" or queries != keys):
        allowed = causal_mask(queries, keys, q.device)
        if mask is None:
            mask = allowed
        else:
            mask = mask & allowed if mask.dtype == torch.bool else mask + additive(allowed, mask.dtype)
    causal = causal and queries > 1 and mask is None
    if mask is not None and mask.dtype == torch.bool:
        mask = additive(mask, q.dtype)
    if implementation == "sdpa":
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, enable_gqa=grouped)
    if implementation != "manual":
        raise ConfigError(f"attention: {implementation!r} is not one of auto, manual, sdpa")
    return _manual(q, k, v, mask, dropout)


def _manual(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Returns the same by two batched matmuls; a group of query heads is a longer list of queries, so no key is copied."""
    (batch, heads, queries, width), kv_heads = q.shape, k.shape[1]
    grouped = heads != kv_heads
    if grouped:
        q = q.reshape(batch, kv_heads, heads // kv_heads * queries, width)
    scores = (q * (1 / math.sqrt(width))) @ k.transpose(-1, -2)  # (B, Hkv, G*T, S)
    if mask is not None:
        scores = (scores.view(batch, heads, queries, -1) + mask.to(scores.dtype)).view_as(scores)
    weights = scores.softmax(dim=-1).to(v.dtype)
    if dropout:
        weights = F.dropout(weights, dropout)
    out = weights @ v
    return out.view(batch, heads, queries, width) if grouped else out
