"""The Transformer: tokens in, logits out. One class for every family; the config decides."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.base.errors import ConfigError, GroundupError
from groundup.model.attention import Implementation, Sight, document_mask, near_mask, see
from groundup.model.cache import KVCache
from groundup.model.config import ModelConfig
from groundup.model.dropout import dropout
from groundup.model.layers import Block, Experts, Linear, make_norm
from groundup.model.loss import output_loss, widened
from groundup.model.rope import rotary_tables, sinusoids

__all__ = ["Transformer", "init_weights"]


def _table(rows: int, width: int) -> nn.Embedding:
    """Returns an embedding that isn't drawn yet; `init_weights` draws all weights."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class Transformer(nn.Module):
    """A decoder-only language model. Weights are fp32; for bf16 compute the caller wraps calls in `torch.autocast`.

    `implementation` chooses the attention ("auto" by what was measured, see `groundup.model.attention.choose`). Without `draw`
    the matrices hold whatever the memory held, until they are loaded.
    Raises: ConfigError for a shape that can't be.
    Equal to: groundup.model.plain.Transformer2017, GPT, ModernTransformer
    """

    cos: Tensor
    sin: Tensor
    sinusoids: Tensor

    def __init__(
        self, config: ModelConfig, seed: int | None = None, implementation: Implementation = "auto", draw: bool = True
    ) -> None:
        super().__init__()
        config.validate()
        self.config, self.implementation = config, implementation
        self.embed = _table(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.positions = _table(config.context, config.d_model)
        elif config.positions == "sinusoidal":
            self.register_buffer("sinusoids", sinusoids(config.context, config.d_model), persistent=False)
        else:
            cos, sin = rotary_tables(config.context, config.head_size, config.rope)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config) if config.pre_norm else nn.Identity()
        if not config.tie_embeddings:
            self.head = Linear(config.d_model, config.vocab_size, bias=False)
        self.windows = [config.window_of(layer) for layer in range(config.n_layers)]
        if draw:
            init_weights(self, seed)

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Returns the logits of each next token, (B, T, V) float32.

        Shapes: tokens (B, T) int64; positions (B, T), by default counted on from the cache's length; mask (B or 1, 1, T or 1, S)
        bool, True where attended, applied besides causality, S counting the cached tokens. Without a cache and a mask, positions
        that restart at 0 begin a new document, and no token sees another document.
        Raises: GroundupError for a token beyond the vocabulary, ConfigError if the context is exceeded.
        """
        return self.logits(self.hidden(tokens, positions, cache, mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns (..., V) float32 for hidden states (..., C); call it on the last position alone where that is all you need."""
        return widened(F.linear(hidden, self._output()), self.config.variant.logit_softcap)

    def loss(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Returns the summed negative log-likelihood of the targets (B, T) with the z-loss, and the same without; see `output_loss`."""
        hidden = self.hidden(tokens, positions).flatten(0, 1)  # (B T, C)
        return output_loss(hidden, self._output(), targets.flatten(), self.config.variant.logit_softcap, z_loss)

    def _output(self) -> Tensor:
        """Returns the output layer's matrix, (V, C)."""
        return self.embed.weight if self.config.tie_embeddings else self.head.weight

    def hidden(
        self, tokens: Tensor, positions: Tensor | None = None, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Returns what the output layer reads, (B, T, C); arguments as in `forward`."""
        past, time = cache.length if cache is not None else 0, tokens.shape[1]
        if past + time > self.config.context:
            raise ConfigError(
                f"{past + time} tokens exceed the model's context of {self.config.context}; shorten the text"
            )
        x, rotary = self._embed(tokens, positions, past)
        sights = {window: self._sight(x, positions, cache, mask, window) for window in set(self.windows)}
        for block, window in zip(self.blocks, self.windows, strict=True):
            x = block(x, rotary, sights[window], cache)
        if cache is not None:
            cache.advance(time)
        return self.norm(x)

    def _embed(
        self, tokens: Tensor, positions: Tensor | None, past: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Returns the embedded tokens (B, T, C) and the rows of the rotary tables, in the dtype of computation."""
        config, device = self.config, tokens.device
        where = slice(past, past + tokens.shape[1]) if positions is None else positions
        rotary = None
        try:
            x = self.embed(tokens)
            if config.positions == "learned":
                x = x + self.positions.weight[where]
            elif config.positions == "sinusoidal":
                x = x * math.sqrt(config.d_model) + self.sinusoids[where]
            else:
                rotary = (self.cos[where].unsqueeze(-2), self.sin[where].unsqueeze(-2))  # (T or B, T, 1, D)
        except IndexError as error:
            raise self._explain(tokens, positions) from error
        if config.dropout and self.training:
            x = dropout(x, config.dropout)
        if torch.is_autocast_enabled(device.type):  # the residual stream too: it halves the memory that norms move
            x = x.to(torch.get_autocast_dtype(device.type))
        return x, rotary and (rotary[0].to(x.dtype), rotary[1].to(x.dtype))

    def _explain(self, tokens: Tensor, positions: Tensor | None) -> GroundupError:
        """Returns the error for an index that is outside its table (on a GPU the kernel itself complains)."""
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.config.vocab_size:
            wrong = low if low < 0 else high
            size = self.config.vocab_size
            return GroundupError(f"token {wrong} is beyond the model's vocabulary of {size}; another tokenizer made it")
        highest = int(positions.max()) if positions is not None else tokens.shape[1] - 1
        return ConfigError(f"position {highest} exceeds the model's context of {self.config.context}; shorten the text")

    def _sight(
        self, x: Tensor, positions: Tensor | None, cache: KVCache | None, mask: Tensor | None, window: int
    ) -> Sight:
        """Returns what the layers with this window (0: without one) may look at.

        A window is counted in positions where they are given, for tokens of one row may stand beside one another (several
        answers to one prompt); in a cache the newest keys are the nearest.
        """
        time = x.shape[1]
        keys = time + (cache.length if cache is not None else 0)
        if cache is None and positions is not None:
            if mask is None:
                mask, window = document_mask(positions, window), 0
            elif window:
                mask, window = mask & near_mask(positions, window), 0
        implementation, width = self.implementation, self.config.head_size
        if implementation == "flex" and cache is not None:  # it is compiled for each length, and a cache has every one
            implementation = "auto"
        return see(x.shape[0], time, keys, width, x.dtype, x.device, mask, True, window, implementation)

    def balance(self) -> Tensor | None:
        """Returns the load-balancing loss of the last forward pass, to be added to the mean loss; None without experts.

        The mean over layers, weighted by `moe.balance`. (Transformers' own balances all layers together, so that one layer may
        make up for another; the two agree for a single layer.)
        """
        found = [layer.balance for layer in self.expert_layers() if layer.balance is not None]
        return self.config.moe.balance * torch.stack(found).mean() if found else None

    def expert_tokens(self) -> list[list[int]]:
        """Returns how many tokens were sent to each expert of each layer in training since the last call."""
        counts = [layer.tokens.tolist() for layer in self.expert_layers()]
        for layer in self.expert_layers():
            layer.tokens.zero_()
        return counts

    def expert_layers(self) -> list[Experts]:
        """Returns the layers that have experts, in order."""
        return [block.mlp for block in self.blocks if isinstance(block.mlp, Experts)]


@torch.no_grad()
def init_weights(model: Transformer, seed: int | None = None) -> None:
    """Draws all weights anew: the same seed gives the same weights.

    Matrices and embeddings from a normal distribution of deviation 0.02; the two matrices of each block that write to the
    residual stream from 0.02 / sqrt(2 L), so that its variance doesn't grow with depth (with `zero_init` they are zero, so that
    each block begins as the identity); biases 0, norms 1. An embedding that is multiplied by sqrt(C), as in 2017, from 1 / sqrt(C).

    With muP, m times wider than the base B where the learning rate was tuned, what a matrix adds to begins at the same size at
    every width: the blocks' matrices from 1 / (2 sqrt(inputs)) in place of 0.02 (the same at a width of 625), embeddings from
    1 / sqrt(B), and the logits 1 / m, which the gain of the last norm carries; so the model computes, and is exported, like any
    other. `optim.adamw` has the other half. Heads keep their width; a wider model has more of them.
    Source: Radford et al. 2019, section 2.3; Yang et al. 2022, table 8.
    """
    config, wider, base = model.config, model.config.width_multiple, model.config.variant.mup_base
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1 / wider if name == "norm.weight" else 1.0)
            continue
        std = 0.02
        if base:
            std = 0.5 / math.sqrt(parameter.shape[1]) if name.startswith("blocks.") else 1 / math.sqrt(base)
        if name.endswith(("attn.out.weight", "down.weight")):
            std = 0.0 if config.variant.zero_init else std / math.sqrt(2 * config.n_layers)
        elif name == "embed.weight" and config.positions == "sinusoidal":
            std = config.d_model**-0.5
        parameter.normal_(0.0, std, generator=generator)
