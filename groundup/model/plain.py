"""The model in its obvious form: attention, the blocks of 2017, 2019 and today, and a
language model made of each. Nothing is fused and nothing is cached."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "GPT", "Block", "GPTConfig", "GroupedQueryAttention", "ModernBlock", "ModernConfig",
    "ModernTransformer", "MultiHeadAttention", "RMSNorm", "SwiGLU", "Transformer2017",
    "TransformerBlock", "causal_mask", "rotate", "scaled_dot_product_attention",
    "sinusoidal_positions",
]  # fmt: skip


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Returns for each query the mean of the values, weighted by how well keys fit it.

    Shapes: query (..., T, D); key and value (..., S, D); result (..., T, D); mask
    (..., T, S), true (or 1) where a query may look.
    Source: Vaswani et al. 2017, eq. 1
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., T, S)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    weights = scores.softmax(dim=-1)  # each row sums to 1
    return weights @ value


def causal_mask(length: int) -> Tensor:
    """Returns (T, T) bool: position i may look at itself and at what came before it."""
    return torch.ones(length, length, dtype=torch.bool).tril()


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each on its own slice of the width."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{embed_dim} can't be cut into {num_heads} equal heads")
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns (B, T, C) from x (B, T, C)."""
        query, key = self.split(self.query(x)), self.split(self.key(x))
        value = self.split(self.value(x))
        y = scaled_dot_product_attention(query, key, value, mask)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).flatten(2))  # heads side by side: (B, T, C)

    def split(self, x: Tensor) -> Tensor:
        """Returns (B, H, T, D): the width cut into heads, heads before time."""
        batch, time, _ = x.shape
        return x.view(batch, time, self.num_heads, -1).transpose(1, 2)


# The Transformer of 2017: norms behind the sums, ReLU, waves for positions.


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward layer, each added to its input; then normalised.

    Source: Vaswani et al. 2017, section 3.1
    """

    def __init__(self, embed_dim: int, num_heads: int, ff_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.ff1 = nn.Linear(embed_dim, ff_dim)
        self.ff2 = nn.Linear(ff_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns (B, T, C) from x (B, T, C)."""
        x = self.norm1(x + self.dropout(self.attention(x, mask)))
        return self.norm2(x + self.dropout(self.ff2(F.relu(self.ff1(x)))))


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Returns (T, C): waves, short to long; sines in even columns, cosines in odd."""
    table = torch.zeros(length, width)
    for position in range(length):
        for i in range(0, width, 2):
            angle = position / 10000 ** (i / width)
            table[position, i] = math.sin(angle)
            table[position, i + 1] = math.cos(angle)
    return table


class Transformer2017(nn.Module):
    """The decoder of 2017 as a language model; its output layer is the embedding."""

    def __init__(self, vocab_size: int, embed_dim: int, num_heads: int, ff_dim: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.embed.weight, std=embed_dim**-0.5)
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, ff_dim) for _ in range(layers))
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits of each next token, (B, T, V), from tokens (B, T)."""
        x = self.embed(tokens) * math.sqrt(self.embed.embedding_dim)
        x = self.dropout(x + sinusoidal_positions(*x.shape[1:]).to(x))
        for block in self.blocks:
            x = block(x, causal_mask(tokens.shape[1]).to(x.device))
        return x @ self.embed.weight.T


# GPT-2, 2019: norms before, GELU, learned positions.


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT-2, by the names that its readers know."""

    vocab_size: int = 512
    block_size: int = 256  # context
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0


class Block(nn.Module):
    """As in 2017, but x itself is never normalised: gradients pass it undimmed.

    Source: Radford et al. 2019, section 2.3
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.n_embd
        self.norm1 = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, config.n_head)
        self.norm2 = nn.LayerNorm(width)
        self.ff1 = nn.Linear(width, 4 * width)
        self.ff2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C) from x (B, T, C)."""
        mask = causal_mask(x.shape[1]).to(x.device)
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        h = F.gelu(self.ff1(self.norm2(x)), approximate="tanh")
        return x + self.dropout(self.ff2(h))


class GPT(nn.Module):
    """GPT-2 as a language model."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        for table in (self.embed, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits of each next token, (B, T, V), from tokens (B, T)."""
        x = self.dropout(self.embed(tokens) + self.positions.weight[: tokens.shape[1]])
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T


# Today (Llama, Qwen3): RMSNorm, rotary positions, SwiGLU, shared keys and values.


@dataclass(frozen=True)
class ModernConfig:
    """The sizes of a model of today."""

    vocab_size: int = 512
    n_layers: int = 4
    d_model: int = 128
    n_heads: int = 4
    n_kv_heads: int = 2  # fewer keys and values than queries: a smaller cache
    d_ff: int = 384
    rope_theta: float = 10000.0


class RMSNorm(nn.Module):
    """LayerNorm without mean and bias. Source: Zhang and Sennrich 2019, eq. 4"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x with a mean square of 1 along its last axis, times the weight."""
        return x / torch.sqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: Tensor, theta: float) -> Tensor:
    """Returns x (..., T, D) with pair (i, i + D/2) turned by t theta^(-2i/D) at time t.

    The dot product of two turned vectors depends on their distance, not their places.
    Source: Su et al. 2021, eq. 34
    """
    time, width = x.shape[-2:]
    speed = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(time)[:, None] * speed  # (T, D/2)
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class GroupedQueryAttention(nn.Module):
    """Multi-head attention in which groups of queries share one key and one value.

    Source: Ainslie et al. 2023; queries and keys normalised: Dehghani et al. 2023
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config = config
        width, head = config.d_model, config.d_model // config.n_heads
        self.query = nn.Linear(width, config.n_heads * head, bias=False)
        self.key = nn.Linear(width, config.n_kv_heads * head, bias=False)
        self.value = nn.Linear(width, config.n_kv_heads * head, bias=False)
        self.out = nn.Linear(config.n_heads * head, width, bias=False)
        self.query_norm, self.key_norm = RMSNorm(head), RMSNorm(head)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C) from x (B, T, C)."""
        batch, time, _ = x.shape
        theta = self.config.rope_theta
        group = self.config.n_heads // self.config.n_kv_heads
        split = (batch, time, -1, self.config.d_model // self.config.n_heads)
        query = self.query(x).view(split).transpose(1, 2)  # (B, H, T, D)
        key = self.key(x).view(split).transpose(1, 2)  # (B, Hkv, T, D)
        value = self.value(x).view(split).transpose(1, 2)
        query = rotate(self.query_norm(query), theta)
        key = rotate(self.key_norm(key), theta)
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        mask = causal_mask(time).to(x.device)
        y = scaled_dot_product_attention(query, key, value, mask)
        return self.out(y.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """A feed-forward layer with a gate. Source: Shazeer 2020"""

    def __init__(self, width: int, ff_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, ff_dim, bias=False)
        self.up = nn.Linear(width, ff_dim, bias=False)
        self.down = nn.Linear(ff_dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C) from x (B, T, C)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class ModernBlock(nn.Module):
    """Today's block: GPT-2's order with today's parts."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(config.d_model), RMSNorm(config.d_model)
        self.attention = GroupedQueryAttention(config)
        self.ff = SwiGLU(config.d_model, config.d_ff)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C) from x (B, T, C)."""
        x = x + self.attention(self.norm1(x))
        return x + self.ff(self.norm2(x))


class ModernTransformer(nn.Module):
    """Qwen3 as a language model; the embedding is the output layer too."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embed.weight, std=0.02)  # so that it begins near ln(V) nats
        self.blocks = nn.ModuleList(ModernBlock(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits of each next token, (B, T, V), from tokens (B, T)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T
