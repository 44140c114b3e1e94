"""A mixture of experts in its obvious form: many feed-forward layers, and a router that picks a few for each token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Expert", "Experts", "balance_loss"]


class Expert(nn.Module):
    """A feed-forward layer with a gate (SwiGLU). Source: Shazeer 2020"""

    def __init__(self, width: int, ff_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, ff_dim, bias=False)
        self.up = nn.Linear(width, ff_dim, bias=False)
        self.down = nn.Linear(ff_dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (C,) from x (C,)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """The feed-forward layer of a block, with much knowledge of which each token uses a little.

    The model has the parameters of all experts and the cost of the few that are active.
    Source: Shazeer et al. 2017; Qwen3's normalisation of the chosen weights
    """

    def __init__(self, width: int, ff_dim: int, num_experts: int, active: int) -> None:
        super().__init__()
        self.active = active
        self.router = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, ff_dim) for _ in range(num_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs (T, C) for tokens x (T, C), and each token's probabilities of the experts (T, E)."""
        probabilities = self.router(x).softmax(dim=-1)
        outputs = []
        for token, probability in zip(x, probabilities):
            weights, chosen = probability.topk(self.active)
            weights = weights / weights.sum()  # of the chosen ones alone
            # The choice itself has no gradient; the router learns through the weights.
            outputs.append(sum(weight * self.experts[int(i)](token) for weight, i in zip(weights, chosen)))
        return torch.stack(outputs), probabilities


def balance_loss(probabilities: Tensor, active: int) -> Tensor:
    """Returns a loss that is least, and equal to `active`, where all experts are equally busy.

    An expert that is chosen more often learns more and is chosen even more often; this pulls the other way. How many
    tokens went to an expert has no gradient, but the probability that the router gave it does.
    Source: Fedus et al. 2021, eq. 4-6
    """
    tokens, num_experts = probabilities.shape
    loss = torch.tensor(0.0, dtype=probabilities.dtype)
    chosen = probabilities.topk(active).indices
    for expert in range(num_experts):
        share = (chosen == expert).sum().to(probabilities) / tokens
        loss = loss + share * probabilities[:, expert].mean()
    return num_experts * loss
