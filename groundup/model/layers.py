"""The parts of a block: linear layers, norms, the attention layer and the feed-forward layer."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.attention import Sight, attend
from groundup.model.cache import KVCache
from groundup.model.config import ModelConfig
from groundup.model.dropout import dropout
from groundup.model.rope import rotate

__all__ = ["Attention", "Block", "Experts", "FeedForward", "Linear", "RMSNorm", "make_norm"]


class Linear(nn.Linear):
    """A linear layer that leaves its initialisation to the Transformer (which does all of it in one place)."""

    def reset_parameters(self) -> None:
        """Does nothing."""


class _RMSNorm(torch.autograd.Function):
    """The norm with its gradient written out: on a CPU less than half the time of the gradient that autograd assembles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Returns x * r * weight, where r = 1 / sqrt(mean(x^2) + eps)."""
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = x * r
        ctx.save_for_backward(unit, r, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Returns the gradients of x, r * (g - unit * mean(g * unit)) with g = grad * weight, and of the weight."""
        unit, r, weight = ctx.saved_tensors
        along = grad * unit
        mean = (along @ weight).unsqueeze(-1) / unit.shape[-1]
        return torch.addcmul(grad * weight, unit, mean, value=-1).mul_(r), along.flatten(0, -2).sum(0), None


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis.

    Source: Zhang and Sennrich 2019, eq. 4
    Equal to: groundup.model.plain.RMSNorm
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised x, in x's dtype."""
        plain = x.dtype == self.weight.dtype and x.device.type == "cpu" and torch.is_grad_enabled()
        if plain and not torch.compiler.is_compiling():
            return _RMSNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def make_norm(config: ModelConfig) -> nn.Module:
    """Returns the norm of the config's family, over d_model."""
    if config.norm == "rms":
        return RMSNorm(config.d_model, config.norm_eps)
    return nn.LayerNorm(config.d_model, config.norm_eps, bias=config.bias)


class Attention(nn.Module):
    """Multi-head attention with grouped keys and values; queries, keys and values come out of one matrix.

    Equal to: groundup.model.plain.MultiHeadAttention, GroupedQueryAttention
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width, heads = config.head_size, config.n_heads + 2 * config.kv_heads
        self.qkv = Linear(config.d_model, heads * width, bias=config.bias)
        self.out = Linear(config.n_heads * width, config.d_model, bias=config.bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(width, config.norm_eps)
            self.k_norm = RMSNorm(width, config.norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, sight: Sight, cache: KVCache | None = None
    ) -> Tensor:
        """Returns (B, T, C). `rotary` is (cos, sin), both (T or B T, 1, D)-broadcastable to (B, T, H, D)."""
        config, (batch, time, _) = self.config, x.shape
        heads, kv_heads = config.n_heads, config.kv_heads
        qkv = self.qkv(x).view(batch, time, heads + 2 * kv_heads, config.head_size)
        q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=2)  # (B, T, H, D), twice (B, T, Hkv, D)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        y = attend(q, k, v, sight, config.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(batch, time, heads * config.head_size))


class FeedForward(nn.Module):
    """Widen, bend, narrow. In SwiGLU the gate and the value come out of one matrix.

    Source: Shazeer 2020
    Equal to: groundup.model.plain.SwiGLU
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        columns = 2 if config.activation == "swiglu" else 1
        self.up = Linear(config.d_model, columns * config.ff_size, bias=config.bias)
        self.down = Linear(config.ff_size, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C)."""
        return self.down(self.bend(self.up(x)))

    def bend(self, h: Tensor) -> Tensor:
        """Returns the non-linearity of h; SwiGLU's takes half the columns as the gate of the others."""
        match self.activation:
            case "swiglu":
                gate, value = h.chunk(2, dim=-1)
                return F.silu(gate) * value
            case "gelu":  # as GPT-2 computed it
                return F.gelu(h, approximate="tanh")
            case "gelu_exact":
                return F.gelu(h)
            case "relu":
                return F.relu(h)
            case "relu2":
                return F.relu(h).square()


class Experts(nn.Module):
    """Many feed-forward layers and a router that sends each token to the few that fit it best.

    In training `balance` is the load-balancing loss of the last forward pass: experts times the sum, over experts, of the
    share of tokens sent there times the mean probability given there; it is `active` if all are equally busy, and more
    otherwise. `tokens` counts what was sent to each.
    Source: Shazeer et al. 2017; Fedus et al. 2021, eq. 4-6
    Equal to: groundup.model.plain_experts.Experts, balance_loss
    """

    tokens: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.moe = config.moe
        self.router = Linear(config.d_model, config.experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config.experts))
        self.register_buffer("tokens", torch.zeros(config.experts, dtype=torch.long), persistent=False)
        self.balance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C)."""
        flat = x.flatten(0, -2)  # (N, C)
        weights, chosen, sent = self.route(flat)  # (N, K), (N, K), (E,)
        order = chosen.flatten().argsort(stable=True)  # (N K,): tokens that go to one expert stand together
        parts = flat.index_select(0, order // self.moe.active).split(sent.tolist())
        # An expert without a token is called too: its gradient is then zero everywhere, and not missing in some processes.
        out = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        out = torch.empty_like(out).index_copy(0, order, out)  # back in the order of the tokens
        return (out.view(*chosen.shape, -1) * weights.to(out.dtype).unsqueeze(-1)).sum(-2).view_as(x)

    def route(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weights and the numbers of each token's experts, both (N, K), and how many tokens go to each, (E,)."""
        with torch.autocast(flat.device.type, enabled=False):  # near-ties are decided here: not in bf16
            logits = self.router(flat.to(self.router.weight.dtype))
        probabilities = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))  # (N, E)
        weights, chosen = probabilities.topk(self.moe.active, dim=-1)
        if self.moe.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        sent = torch.bincount(chosen.flatten(), minlength=self.moe.experts)
        if self.training and torch.is_grad_enabled():
            self.tokens += sent
            share = sent.to(probabilities.dtype) / len(flat)
            self.balance = self.moe.experts * (share * probabilities.mean(0)).sum()
        return weights, chosen, sent


class Block(nn.Module):
    """Attention, then feed-forward, each beside a residual path that is normalised before (today) or after (2017).

    Equal to: groundup.model.plain.TransformerBlock, Block, ModernBlock
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm, self.dropout = config.pre_norm, config.dropout
        self.attn_norm, self.attn = make_norm(config), Attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = Experts(config) if config.experts > 1 else FeedForward(config)

    def drop(self, x: Tensor) -> Tensor:
        """Returns x, in training with a share of it zeroed."""
        return dropout(x, self.dropout) if self.dropout and self.training else x

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, sight: Sight, cache: KVCache | None = None
    ) -> Tensor:
        """Returns (B, T, C)."""
        if self.pre_norm:
            x = x + self.drop(self.attn(self.attn_norm(x), rotary, sight, cache))
            return x + self.drop(self.mlp(self.mlp_norm(x)))
        x = self.attn_norm(x + self.drop(self.attn(x, rotary, sight, cache)))
        return self.mlp_norm(x + self.drop(self.mlp(x)))
