"""Attention behind one function: plain matmuls, or the fused kernels that PyTorch ships, chosen by what was measured."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.base.errors import ConfigError
from groundup.model.dropout import dropout as drop

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = [
    "Implementation", "Sight", "additive", "attend", "attention", "block_mask", "causal_mask", "choose", "document_mask",
    "near_mask", "reach", "see",
]  # fmt: skip

Implementation = Literal["auto", "manual", "sdpa", "flex"]
FLEX_DEVICES = ("cuda",)  # where its compiled kernel goes backwards too


class Sight(NamedTuple):
    """What queries may look at, and how that is computed: made by `see`, once for all layers that see alike."""

    mask: "Tensor | BlockMask | None"  # numbers to add to the scores, or blocks for flex
    causal: bool  # whether the kernel has yet to hide the future
    implementation: Implementation
    keys: int  # how many of the newest keys are looked at


def choose(
    device: torch.device, dtype: torch.dtype, batch: int, queries: int, keys: int, width: int
) -> Literal["manual", "sdpa"]:
    """Returns the implementation that was the faster one where benchmarks/attention.py measured it.

    On a CPU with AVX512-BF16, two cores, time of sdpa over time of manual (above 1: plain matmuls win):

        training, T =     64    128    256    512   1024   2048
        fp32  D = 32     0.7    0.8    0.5    0.4    0.2    0.2
              D = 64     1.0    1.0    0.9    0.6    0.4    0.3
              D = 128    1.0    1.2    1.1    1.1    0.5    0.5
        bf16  D = 32     7.3    4.6    1.0    0.7    0.4    0.4
              D = 64     5.7    4.9    3.0    2.4    1.0    0.6
              D = 128    4.6    4.0    2.9    3.0    1.6    0.9
        one query a sequence against its cache: fp32 0.4-0.9 below 16,384 keys in all, 1.0-1.2 above; bf16 2-5 but for the smallest

    On a GPU the fused kernel saves the memory of the scores, whatever the length.
    """
    if device.type != "cpu":
        return "sdpa"
    if queries == 1:
        return "manual" if batch * keys >= (256 if dtype == torch.bfloat16 else 16384) else "sdpa"
    return "manual" if dtype == torch.bfloat16 and keys <= 8 * width else "sdpa"


def reach(queries: int, keys: int, window: int) -> int:
    """Returns how many of the newest keys any of the queries can see through a window (0: there is none)."""
    return min(keys, window + queries - 1) if window else keys


def causal_mask(queries: int, keys: int, device: torch.device | str = "cpu", window: int = 0) -> Tensor:
    """Returns (T, S) bool: the last of T queries stands at the last of S keys, and each sees itself and what came before.

    With a `window`, only so many of the newest, itself included.
    Equal to: groundup.model.plain.causal_mask
    """
    past = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return past.triu(keys - queries - window + 1) if window else past


def document_mask(positions: Tensor, window: int = 0) -> Tensor:
    """Returns (B, 1, T, T) bool from positions (B, T) that restart at 0: a token sees its own document, up to itself."""
    document, time = (positions == 0).cumsum(dim=1), positions.shape[1]
    same = document[:, :, None] == document[:, None, :]
    return (same & causal_mask(time, time, positions.device, window))[:, None]


def near_mask(positions: Tensor, window: int) -> Tensor:
    """Returns (B, 1, T, T) bool: which keys stand less than a window before a query, wherever in the row they are."""
    return (positions[:, :, None] - positions[:, None, :] < window)[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a bool mask as numbers to add to the scores: 0 where attended, else the least finite number.

    Finite, so that a query that may see nothing (padding) gets an average and not NaN, which would spread.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def see(
    batch: int,
    queries: int,
    keys: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
    mask: Tensor | None = None,
    causal: bool = True,
    window: int = 0,
    implementation: Implementation = "auto",
) -> Sight:
    """Returns what queries at the end of the keys may look at; arguments as in `attention`.

    Raises: ConfigError for an implementation that doesn't exist or can't run here.
    """
    assert causal or not window, "a window is counted back from the query"
    seen = reach(queries, keys, window)
    mask, window = mask if mask is None else mask[..., -seen:], window if window < seen else 0
    if implementation == "auto":
        implementation = choose(device, dtype, batch, queries, seen, width)
    causal = causal and queries > 1  # a single query is the newest: there is no future to hide
    if implementation == "flex":
        if device.type not in FLEX_DEVICES:
            raise ConfigError(f"attention: flex needs a CUDA device, not {device.type}; take auto, manual or sdpa")
        masked = mask is not None or causal
        blocks = block_mask(mask, queries, seen, device, causal, window) if masked else None
        return Sight(blocks, False, implementation, seen)
    if implementation not in ("manual", "sdpa"):
        raise ConfigError(f"attention: {implementation!r} is not one of auto, manual, sdpa, flex")
    if causal and (mask is not None or window or implementation == "manual" or queries != seen):
        past, causal = causal_mask(queries, seen, device, window), False
        if mask is None:
            mask = past
        else:
            mask = mask & past if mask.dtype == torch.bool else mask + additive(past, mask.dtype)
    if mask is not None and mask.dtype == torch.bool:
        mask = additive(mask, dtype)
    return Sight(mask, causal, implementation, seen)


def attend(q: Tensor, k: Tensor, v: Tensor, sight: Sight, dropout: float = 0.0) -> Tensor:
    """Returns attention (B, H, T, D) of q (B, H, T, D) over k and v (B, Hkv, S, D), within what `see` found.

    Raises: ConfigError for dropout where the kernel knows none.
    """
    if sight.keys < k.shape[2]:
        k, v = k[:, :, -sight.keys :], v[:, :, -sight.keys :]
    k, v = k.to(q.dtype), v.to(q.dtype)  # a cache may keep another dtype
    grouped = q.shape[1] != k.shape[1]
    if sight.implementation == "flex":
        if dropout:
            raise ConfigError("attention: flex knows no dropout; set model.dropout to 0 or take sdpa")
        return _compiled_flex()(q, k, v, block_mask=sight.mask, enable_gqa=grouped)
    assert sight.mask is None or isinstance(sight.mask, Tensor), "masks of blocks are for flex"
    mask = sight.mask
    if dropout and q.device.type == "cpu":  # where sdpa has no kernel for it, and would draw its numbers slowly
        mask = additive(causal_mask(q.shape[2], k.shape[2]), q.dtype) if sight.causal else mask
    elif sight.implementation == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, sight.causal, enable_gqa=grouped)
    return _manual(q, k, v, mask, dropout)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = True,
    implementation: Implementation = "auto",
    dropout: float = 0.0,
    window: int = 0,
) -> Tensor:
    """Returns softmax(q k^T / sqrt(D) + mask) v, (B, H, T, D): `see` and `attend` in one.

    Shapes: q (B, H, T, D); k, v (B, Hkv, S, D), where each group of H / Hkv query heads shares one; mask broadcasts to
    (B, H, T, S): bool, True where attended, or numbers to add (see `additive`). With `causal` the last query stands at the last
    key; a mask is then applied besides, and a `window` leaves each query so many of the newest keys (0: all).
    Raises: ConfigError for an implementation that doesn't exist or can't do what is asked.
    Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for the groups; Beltagy et al. 2020 for the window.
    Equal to: groundup.model.plain.scaled_dot_product_attention
    """
    (batch, _, queries, width), keys = q.shape, k.shape[2]
    sight = see(batch, queries, keys, width, q.dtype, q.device, mask, causal, window, implementation)
    return attend(q, k, v, sight, dropout)


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
        weights = drop(weights, dropout)
    out = weights @ v
    return out.view(batch, heads, queries, width) if grouped else out


def block_mask(
    mask: Tensor | None, queries: int, keys: int, device: torch.device, causal: bool = True, window: int = 0
) -> "BlockMask":
    """Returns what flex takes for a mask: which blocks of scores are needed at all, so that the others are never computed.

    Shapes: mask (B or 1, 1, T or 1, S) bool, or None.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    past = keys - queries

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Returns whether a query may look at a key."""
        allowed = key <= query + past if causal else key >= 0
        if window:
            allowed = allowed & (key > query + past - window)
        if mask is not None:
            allowed = allowed & mask[batch if mask.shape[0] > 1 else 0, 0, query if mask.shape[2] > 1 else 0, key]
        return allowed

    return create_block_mask(sees, mask.shape[0] if mask is not None else None, None, queries, keys, device)


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    """Returns the kernel, compiled on first use."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
