"""The shape of a model: one dataclass for all families; parameters and FLOPs are counted here and nowhere else."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from groundup.base.config import from_dict as fill
from groundup.base.errors import ConfigError
from groundup.model.presets import PRESETS, Preset

__all__ = ["FAMILIES", "MoEConfig", "ModelConfig", "RopeConfig", "VariantConfig", "WindowConfig"]

Norm = Literal["rms", "layer"]
Activation = Literal["swiglu", "gelu", "gelu_exact", "relu", "relu2"]
Positions = Literal["rope", "learned", "sinusoidal"]
Scaling = Literal["none", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class Family:
    """What sets one architecture apart from another."""

    norm: Norm
    activation: Activation
    positions: Positions
    qk_norm: bool
    bias: bool
    pre_norm: bool
    experts: bool = False


FAMILIES = {
    "qwen3": Family("rms", "swiglu", "rope", qk_norm=True, bias=False, pre_norm=True),
    "qwen3_moe": Family("rms", "swiglu", "rope", qk_norm=True, bias=False, pre_norm=True, experts=True),
    "llama": Family("rms", "swiglu", "rope", qk_norm=False, bias=False, pre_norm=True),
    "gpt2": Family("layer", "gelu", "learned", qk_norm=False, bias=True, pre_norm=True),
    "transformer2017": Family("layer", "relu", "sinusoidal", qk_norm=False, bias=True, pre_norm=False),
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions, and how they are stretched so that a model reads further than it was trained to."""

    theta: float = 10000.0  # base of the wavelengths; long contexts take a larger one (Llama 3: 500000)
    scaling: Scaling = "none"  # slow all pairs alike, or the slow ones only
    factor: float = 1.0  # how many times slower the slowed pairs turn
    original_context: int = 0  # context that it was trained with, before it was stretched (0: context / factor)
    low_freq_factor: float = 1.0  # llama3: pairs that turn fewer times than this in the original context are slowed
    high_freq_factor: float = 4.0  # llama3: those that turn more often are left alone, in between they are blended
    beta_slow: float = 1.0  # yarn: as low_freq_factor
    beta_fast: float = 32.0  # yarn: as high_freq_factor
    attention_factor: float = 0.0  # yarn: multiplies queries and keys (0: 0.1 ln(factor) + 1)

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.scaling not in get_args(Scaling):
            raise ConfigError(f"model.rope.scaling: {self.scaling!r} is not one of {', '.join(get_args(Scaling))}")
        if not 1 < self.theta < float("inf"):
            raise ConfigError(f"model.rope.theta: more than 1 is needed (10000 is usual), not {self.theta}")
        if not 1 <= self.factor < float("inf"):
            raise ConfigError(f"model.rope.factor: 1 or more is needed, not {self.factor}")
        if self.scaling == "none" and self.factor != 1:
            raise ConfigError(
                f"model.rope.factor: {self.factor} has no effect without model.rope.scaling = linear, llama3 or yarn"
            )
        if self.original_context < 0:
            raise ConfigError(f"model.rope.original_context: 0 or more is needed, not {self.original_context}")
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise ConfigError(f"model.rope.{low}: must lie between 0 and {high}, not be {getattr(self, low)}")
        if self.attention_factor < 0:
            raise ConfigError(f"model.rope.attention_factor: 0 or more is needed, not {self.attention_factor}")


@dataclass(frozen=True)
class WindowConfig:
    """Layers that look back on the newest tokens only: cheaper for long texts, and the rest of the layers see it all."""

    size: int = 0  # tokens that such a layer sees, the newest included (0: every layer sees the whole context)
    layers: str = "WWWF"  # which layers those are, W for a window and F for the full context, repeated over the depth

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.size < 0:
            raise ConfigError(f"model.window.size: 0 (no windows) or more is needed, not {self.size}")
        if not self.layers or set(self.layers) - set("WF"):
            raise ConfigError(
                f"model.window.layers: W (window) and F (full) are expected, as in WWWF, not {self.layers!r}"
            )


@dataclass(frozen=True)
class MoEConfig:
    """A mixture of experts, for the family qwen3_moe: many feed-forward layers, few of them used for a token."""

    experts: int = 8  # feed-forward layers side by side in a block; d_ff is the width of one
    active: int = 2  # how many of them a token is sent to
    normalise: bool = True  # let the weights of the chosen ones sum to 1
    balance: float = 0.01  # weight of the loss that keeps the experts equally busy in training (0: none)

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        if self.experts < 2:
            raise ConfigError(f"model.moe.experts: at least 2 are needed, not {self.experts}")
        if not 1 <= self.active <= self.experts:
            raise ConfigError(f"model.moe.active: from 1 to experts = {self.experts} is needed, not {self.active}")
        if not 0 <= self.balance < float("inf"):
            raise ConfigError(f"model.moe.balance: 0 or more is needed, not {self.balance}")


@dataclass(frozen=True)
class VariantConfig:
    """Departures from the family. Most have no class at Hugging Face; norm_eps, bias and how weights begin do not matter there."""

    norm_eps: float = 0.0  # what keeps a norm from dividing by zero (0: the family's, 1e-6 for RMSNorm, else 1e-5)
    bias: Literal["family", "yes", "no"] = "family"  # whether linear layers and LayerNorms add a bias
    activation: Literal["family", "swiglu", "gelu", "gelu_exact", "relu", "relu2"] = "family"  # the non-linearity
    positions: Literal["family", "rope", "learned", "sinusoidal"] = "family"  # how a token learns where it stands
    qk_norm: Literal["family", "yes", "no"] = "family"  # whether queries and keys are normalised, head by head
    zero_init: bool = False  # begin with blocks that add nothing to the residual stream
    mup_base: int = 0  # muP: the width at which the learning rate was tuned; it then suits d_model as well (0: off)
    logit_softcap: float = 0.0  # bend the logits so that they stay within +-this (0: leave them)

    def validate(self) -> None:
        """Raises: ConfigError naming the key that is out of range."""
        known = {
            "bias": ("yes", "no"),
            "qk_norm": ("yes", "no"),
            "activation": get_args(Activation),
            "positions": get_args(Positions),
        }
        for key, names in known.items():
            if (value := getattr(self, key)) not in ("family", *names):
                raise ConfigError(f"model.variant.{key}: {value!r} is not one of family, {', '.join(names)}")
        if not 0 <= self.norm_eps < 1:
            raise ConfigError(f"model.variant.norm_eps: from 0 to below 1 is needed, not {self.norm_eps}")
        if self.mup_base < 0:
            raise ConfigError(f"model.variant.mup_base: 0 (off) or a width is needed, not {self.mup_base}")
        if not 0 <= self.logit_softcap < float("inf"):
            raise ConfigError(f"model.variant.logit_softcap: 0 (none) or more is needed, not {self.logit_softcap}")


@dataclass(frozen=True)
class ModelConfig:
    """The architecture and its sizes; a zero means "the family's own choice", and the properties below resolve it."""

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS  # what base.config fills the section from

    family: Literal["qwen3", "qwen3_moe", "llama", "gpt2", "transformer2017"] = "qwen3"  # which architecture
    vocab_size: int = 512  # tokens in the vocabulary, specials included
    context: int = 256  # tokens that it can look back on
    d_model: int = 128  # width of the residual stream
    n_layers: int = 4  # blocks
    n_heads: int = 4  # attention heads
    n_kv_heads: int = 0  # heads of keys and values, shared by groups of query heads (0: one for each)
    d_ff: int = 0  # width inside the feed-forward layer (0: 8/3 of d_model for SwiGLU, shared out among active experts; else 4 times)
    head_dim: int = 0  # width of one head (0: d_model / n_heads)
    dropout: float = 0.0  # share of activations dropped in training
    tie_embeddings: bool = True  # the output layer shares the embedding's matrix
    preset: Preset = "none"  # a model by name, that sets all of this; what is said besides overrides it
    rope: RopeConfig = field(default_factory=RopeConfig)  # rotary positions
    window: WindowConfig = field(default_factory=WindowConfig)  # layers that see the newest tokens only
    moe: MoEConfig = field(default_factory=MoEConfig)  # experts of the family qwen3_moe
    variant: VariantConfig = field(default_factory=VariantConfig)  # departures from the family

    @property
    def usual_vocab(self) -> int:
        """The vocabulary's size if nobody says another: the preset's, or the default."""
        return PRESETS.get(self.preset, {}).get("vocab_size", ModelConfig.vocab_size)

    @property
    def width_multiple(self) -> float:
        """How many times wider the model is than the one that its learning rate was tuned for; 1 without muP."""
        return self.d_model / self.variant.mup_base if self.variant.mup_base else 1.0

    @property
    def norm(self) -> Norm:
        """RMSNorm or LayerNorm."""
        return FAMILIES[self.family].norm

    @property
    def activation(self) -> Activation:
        """The feed-forward layer's non-linearity."""
        return FAMILIES[self.family].activation if self.variant.activation == "family" else self.variant.activation

    @property
    def positions(self) -> Positions:
        """How a token learns where it stands."""
        return FAMILIES[self.family].positions if self.variant.positions == "family" else self.variant.positions

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised, head by head."""
        return FAMILIES[self.family].qk_norm if self.variant.qk_norm == "family" else self.variant.qk_norm == "yes"

    @property
    def bias(self) -> bool:
        """Whether linear layers and LayerNorms add a bias."""
        return FAMILIES[self.family].bias if self.variant.bias == "family" else self.variant.bias == "yes"

    @property
    def pre_norm(self) -> bool:
        """Whether a block normalises its input (today) or its output (2017)."""
        return FAMILIES[self.family].pre_norm

    @property
    def norm_eps(self) -> float:
        """The small number that keeps a norm from dividing by zero."""
        return self.variant.norm_eps or (1e-6 if self.norm == "rms" else 1e-5)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, resolved."""
        return self.n_kv_heads or self.n_heads

    @property
    def head_size(self) -> int:
        """Width of one head, resolved."""
        return self.head_dim or self.d_model // self.n_heads

    @property
    def ff_size(self) -> int:
        """Width inside the feed-forward layer, resolved; SwiGLU's is a multiple of 64, for the sake of the matmuls."""
        if self.d_ff:
            return self.d_ff
        if self.activation != "swiglu":
            return 4 * self.d_model // self.active_experts
        return -(-8 * self.d_model // (3 * self.active_experts) // 64) * 64

    @property
    def experts(self) -> int:
        """Feed-forward layers side by side in a block; 1 where there is no choice."""
        return self.moe.experts if FAMILIES[self.family].experts else 1

    @property
    def active_experts(self) -> int:
        """How many of them a token is sent to."""
        return self.moe.active if FAMILIES[self.family].experts else 1

    def window_of(self, layer: int) -> int:
        """Returns how many tokens a layer sees, the newest included; 0 if it sees them all."""
        windowed = self.window.layers[layer % len(self.window.layers)] == "W"
        return self.window.size if windowed and self.window.size < self.context else 0

    def cache_slots(self, layer: int, tokens: int) -> int:
        """Returns of how many tokens, when so many have been read, a layer keeps keys and values: all, or its window and some room."""
        window = self.window_of(layer)
        return min(tokens, window + max(64, window // 4)) if window else tokens

    def validate(self) -> None:
        """Raises: ConfigError naming the key that makes the shape impossible, and what would do."""
        if self.family not in FAMILIES:
            raise ConfigError(f"model.family: {self.family!r} is not one of {', '.join(FAMILIES)}")
        for key in ("vocab_size", "context", "d_model", "n_layers", "n_heads"):
            if getattr(self, key) < 1:
                raise ConfigError(f"model.{key}: at least 1 is needed, not {getattr(self, key)}")
        for key in ("n_kv_heads", "d_ff", "head_dim"):
            if getattr(self, key) < 0:
                raise ConfigError(f"model.{key}: 0 (the family's default) or more is needed, not {getattr(self, key)}")
        if not self.head_dim and self.d_model % self.n_heads:
            raise ConfigError(f"model.d_model: {self.d_model} is not divisible by n_heads = {self.n_heads}")
        if self.n_heads % self.kv_heads:
            raise ConfigError(f"model.n_heads: {self.n_heads} is not divisible by n_kv_heads = {self.n_kv_heads}")
        if self.positions == "rope" and self.head_size % 2:
            raise ConfigError(f"model.head_dim: rotary positions turn pairs, so it must be even, not {self.head_size}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ConfigError(f"model.d_model: sines and cosines come in pairs, so it must be even, not {self.d_model}")
        equal = self.kv_heads == self.n_heads and self.head_size * self.n_heads == self.d_model
        if self.family in ("gpt2", "transformer2017") and not equal:
            raise ConfigError(f"model.n_kv_heads, model.head_dim: {self.family} knows neither; leave them 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout: a share from 0 to below 1 is needed, not {self.dropout}")
        if self.variant.mup_base and not self.pre_norm:
            raise ConfigError(f"model.variant.mup_base: {self.family} has no norm before its output layer; leave it 0")
        for section in (self.rope, self.window, self.moe, self.variant):
            section.validate()
        if not FAMILIES[self.family].experts and self.moe != MoEConfig():
            raise ConfigError(f"model.moe: {self.family} has no experts; model.family qwen3_moe has")
        if self.positions != "rope" and self.rope != RopeConfig():
            raise ConfigError(f"model.rope: the model's positions are {self.positions}, not rotary; leave it out")

    def _matrices(self, experts: int) -> int:
        """Weights of one block's matrices, with so many experts (and then their router) or with one layer alone."""
        heads, ff = self.n_heads + 2 * self.kv_heads, 3 if self.activation == "swiglu" else 2
        attention = self.d_model * self.head_size * (heads + self.n_heads)
        router = self.d_model * self.experts if self.experts > 1 else 0
        return attention + experts * ff * self.d_model * self.ff_size + router

    def params(self, active: bool = False) -> int:
        """Returns the exact number of trained parameters; a matrix that is shared counts once.

        With `active`, of the experts only those that a single token is sent to.
        """
        experts = self.active_experts if active else self.experts
        norm = self.d_model * (2 if self.norm == "layer" and self.bias else 1)
        block = self._matrices(experts) + 2 * norm + (2 * self.head_size if self.qk_norm else 0)
        if self.bias:
            inner = self.ff_size * (2 if self.activation == "swiglu" else 1)
            block += (
                self.head_size * (self.n_heads + 2 * self.kv_heads) + self.d_model + experts * (inner + self.d_model)
            )
        total = self.n_layers * block + self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        total += norm if self.pre_norm else 0
        return total + (self.context * self.d_model if self.positions == "learned" else 0)

    def flops_per_token(self, context: int | None = None) -> float:
        """Returns the floating-point operations of training on one token, forward and backward: 6 N + 12 L H D T.

        N: weights that a token is multiplied by (the output layer's included, look-up tables and norms not; of experts the
        active ones). The second term is attention's scores and sums over T = `context` tokens, or a layer's window, counted
        in full although half of them is masked: the convention in which MFU is published.
        Source: Chowdhery et al. 2022 (PaLM), appendix B.
        """
        context = context or self.context
        weights = self.n_layers * self._matrices(self.active_experts) + self.vocab_size * self.d_model
        seen = sum(min(context, self.window_of(layer) or context) for layer in range(self.n_layers))
        return 6.0 * weights + 12.0 * self.n_heads * self.head_size * seen

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "model") -> "ModelConfig":
        """Returns the config that `to_dict` described. Raises: ConfigError naming the key that is unknown or impossible."""
        config = fill(cls, values, where)
        try:
            config.validate()
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        return config
