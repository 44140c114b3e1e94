"""From logits to a token: temperature, top-k, top-p, and one uniform number that decides.

The draw inverts the cumulative distribution in the order of the ids. One number a token makes a text a function of
(seed, sample, step) alone: it doesn't depend on which other texts happen to share the batch.
"""

import torch
from torch import Tensor

from groundup.infer.config import SamplingParams

__all__ = ["noise", "pick", "probabilities"]


def noise(seed: int, samples: int, steps: int) -> Tensor:
    """Returns the uniform numbers in [0, 1) that decide `steps` tokens of each sample. Shapes: (samples, steps)."""
    return torch.rand(samples, steps, generator=torch.Generator().manual_seed(seed))


def probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """Returns the distribution that is sampled: after temperature, then top-k, then top-p, summing to 1.

    Tokens that tie with the k-th likeliest are all kept. At temperature 0 the likeliest token (of equals, the smallest id)
    has everything. Shapes: logits (B, V) -> (B, V). Equal to: groundup.infer.plain.probabilities
    """
    logits = logits.float()
    if params.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    if params.temperature != 1:
        # The maximum is taken out first: a temperature near 0 must not turn the logits into infinities.
        logits = (logits - logits.amax(-1, keepdim=True)) / params.temperature
    if 0 < params.top_k < logits.shape[-1]:
        kth = logits.topk(params.top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -torch.inf)
    p = logits.softmax(-1)
    if params.top_p < 1:
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # what likelier tokens already hold
        p = p.masked_fill(torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, before >= params.top_p), 0.0)
        p = p / p.sum(-1, keepdim=True)
    return p


def pick(logits: Tensor, params: SamplingParams, uniform: Tensor) -> Tensor:
    """Returns one token id a row: the first whose cumulative probability exceeds the row's uniform number.

    Shapes: logits (B, V), uniform (B,) -> (B,). Equal to: groundup.infer.plain.pick
    """
    if params.temperature == 0:
        return logits.argmax(-1)
    cumulative = probabilities(logits, params).cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding may lift uniform * total to the total itself, and no cumulative probability exceeds that one.
    threshold = torch.minimum(uniform[:, None].to(total) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
