"""Chinchilla: how loss depends on the size of a model and of its text, and how to split a budget. Nothing of groundup."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

__all__ = ["Law", "effective_tokens", "fit", "huber_objective", "loss", "optimal_allocation"]


class Law(NamedTuple):
    """The five numbers of L(N, D) = E + A / N^alpha + B / D^beta."""

    a: float
    b: float
    e: float
    alpha: float
    beta: float


def loss(law: Law, params: float, tokens: float) -> float:
    """Returns the loss that a model of N parameters reaches after D tokens, in nats per token.

    E is what no model can know: the entropy of the text. The second term is the price of a finite model, the third that of a
    finite text. Source: Hoffmann et al. 2022, eq. 10
    """
    irreducible = law.e
    too_small_a_model = law.a / params**law.alpha
    too_little_text = law.b / tokens**law.beta
    return irreducible + too_small_a_model + too_little_text


def optimal_allocation(law: Law, flops: float) -> tuple[float, float]:
    """Returns the parameters and tokens with the least loss for a budget of C = 6 N D operations.

    Put D = C / 6N into the loss and its derivative by N to zero: alpha A / N^alpha = beta B / D^beta. At the optimum a
    per cent more of either buys the same. Solved for N. Source: Hoffmann et al. 2022, eq. 4
    """
    product = flops / 6  # N times D
    ratio = (law.alpha * law.a) / (law.beta * law.b)
    params = (ratio * product**law.beta) ** (1 / (law.alpha + law.beta))
    return params, product / params


def effective_tokens(tokens: float, corpus: float) -> float:
    """Returns the number of different tokens that are worth `tokens` read from a corpus, over and over if need be.

    Each further reading is worth a little less than the one before; all together at most about 16 times the corpus.
    Source: Muennighoff et al. 2023, eq. 5
    """
    worth = 15.387739
    repeats = max(0.0, tokens / corpus - 1)
    once = min(tokens, corpus)
    return once + corpus * worth * (1 - math.exp(-repeats / worth))


def huber_objective(
    theta: torch.Tensor, params: torch.Tensor, tokens: torch.Tensor, losses: torch.Tensor, delta: float = 1e-3
) -> torch.Tensor:
    """Returns how badly a law explains measured losses: the sum of Huber's penalty over errors of log loss.

    theta is (log A, log B, log E, alpha, beta). The logarithm makes an error of one per cent count alike at every scale.
    Huber's penalty is quadratic for errors below `delta` and linear above, so that a failed run can't pull the curve.
    Source: Hoffmann et al. 2022, eq. 3
    """
    log_a, log_b, log_e, alpha, beta = theta
    terms = [log_a - alpha * torch.log(params), log_b - beta * torch.log(tokens), log_e.expand(len(params))]
    predicted = torch.logsumexp(torch.stack(terms), dim=0)  # the log of a sum of three terms, each given as a log
    error = (predicted - torch.log(losses)).abs()
    return torch.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).sum()


def fit(params: Sequence[float], tokens: Sequence[float], losses: Sequence[float]) -> Law:
    """Returns the law that explains measured (parameters, tokens, loss) best.

    The objective has many hollows, so the descent starts from several places and the deepest end is taken. It is sharp
    there too: stopping early was the mistake in the published fit, as Besiroglu et al. 2024 found.
    """
    measured = [torch.tensor(values, dtype=torch.float64) for values in (params, tokens, losses)]
    best, deepest = None, math.inf
    for start_a in (5.0, 10.0):
        for start_b in (5.0, 10.0):
            for exponent in (0.3, 0.5):
                theta = torch.tensor(
                    [start_a, start_b, 0.5, exponent, exponent], dtype=torch.float64, requires_grad=True
                )
                value = _descend(theta, *measured)
                if value < deepest:
                    best, deepest = theta.detach().clone(), value
    assert best is not None
    log_a, log_b, log_e, alpha, beta = best.tolist()
    return Law(math.exp(log_a), math.exp(log_b), math.exp(log_e), alpha, beta)


def _descend(theta: torch.Tensor, params: torch.Tensor, tokens: torch.Tensor, losses: torch.Tensor) -> float:
    """Moves theta downhill as far as it goes (L-BFGS: Newton's method with a guessed curvature); returns the height there."""
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=2000,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def height() -> torch.Tensor:
        optimizer.zero_grad()
        value = 1000 * huber_objective(theta, params, tokens, losses)
        value.backward()
        return value

    optimizer.step(height)
    return float(height().detach())
