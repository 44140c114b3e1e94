"""Loss as a law of parameters and tokens, and the best split of a budget of computation between the two."""

import math
from dataclasses import dataclass

from groundup.base.errors import ConfigError

__all__ = ["BESIROGLU", "HOFFMANN", "TOKENS_PER_PARAMETER", "Law", "effective_tokens", "good_batch_tokens", "good_lr"]

TOKENS_PER_PARAMETER = 20  # the rule of thumb; Hoffmann et al. 2022, table 3
EPOCHS_WORTH = 15.387739  # R*_D of Muennighoff et al. 2023: repeats are worth at most this many times the corpus


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token, for N parameters and D tokens of web text.

    Source: Hoffmann et al. 2022, approach 3, eq. 10
    """

    a: float
    b: float
    e: float
    alpha: float
    beta: float

    def loss(self, params: float, tokens: float) -> float:
        """Returns the expected loss in nats per token. Equal to: groundup.plan.plain.loss"""
        return self.e + self.a / params**self.alpha + self.b / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Returns the (parameters, tokens) with the least loss for C = 6 N D floating-point operations.

        Source: Hoffmann et al. 2022, eq. 4. Equal to: groundup.plan.plain.optimal_allocation
        """
        if not flops > 0:
            raise ConfigError(f"flops: expected a number above 0, not {flops}")
        total = self.alpha + self.beta
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / total)
        params = g * (flops / 6) ** (self.beta / total)
        return params, flops / 6 / params


# Don't plan with Hoffmann's: its published digits are too few and its fit stopped early. At 5.76e23 FLOPs it asks for 93
# tokens a parameter where the same paper's two other approaches, and this refit of its own points, say about 20.
HOFFMANN = Law(406.4, 410.7, 1.69, 0.34, 0.28)
BESIROGLU = Law(482.01, 2085.43, 1.8172, 0.3478, 0.3658)


def effective_tokens(tokens: float, corpus_tokens: float) -> float:
    """Returns how many different tokens would teach as much as `tokens` drawn from a corpus, repeats included.

    The second reading of a text teaches nearly as much as new text, the tenth little.
    Source: Muennighoff et al. 2023, eq. 5. Equal to: groundup.plan.plain.effective_tokens
    """
    if tokens <= corpus_tokens:
        return tokens
    repeats = tokens / corpus_tokens - 1
    return corpus_tokens * (1 + EPOCHS_WORTH * (1 - math.exp(-repeats / EPOCHS_WORTH)))


def good_lr(flops: float) -> float:
    """Returns a peak learning rate for AdamW that suits a run of that many floating-point operations, to begin with.

    Measured by its authors between 1e17 and 2e19; below, it is an extrapolation that is cut off at 4e-3.
    Source: Bi et al. 2024 (DeepSeek LLM), section 3.1
    """
    return min(4e-3, 0.3118 * flops**-0.1250)


def good_batch_tokens(flops: float) -> float:
    """Returns the tokens of a step that suit a run of that many floating-point operations. Source: as `good_lr`."""
    return 0.2920 * flops**0.3271
