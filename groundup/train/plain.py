"""The training loop in its obvious form. Imports nothing of groundup; the fast loop adds what a long run needs."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "clip_gradients", "cosine_lr", "linear_lr", "mean_loss", "next_token_loss", "text_batches", "train", "wsd_lr", "z_loss",
]  # fmt: skip


def text_batches(
    tokens: Sequence[int], context: int, batch: int, steps: int, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Returns `steps` batches of random windows of a text, each as (tokens, targets).

    Shapes: (batch, context) each. The target of a token is the one that follows it, so the targets are the same window, one
    further on: every position of every row is a lesson.
    """
    generator = torch.Generator().manual_seed(seed)
    text, found = torch.tensor(tokens), []
    for _ in range(steps):
        starts = torch.randint(0, len(text) - context, (batch,), generator=generator)
        windows = torch.stack([text[start : start + context + 1] for start in starts.tolist()])
        found.append((windows[:, :-1], windows[:, 1:]))
    return found


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean of -log p(target), in nats: how surprised the model was, on average, by what came next.

    Shapes: logits (B, T, V), targets (B, T). A target of -100 isn't scored.
    """
    logarithms = F.log_softmax(logits.float(), dim=-1)  # (B, T, V)
    scored = targets != -100
    chosen = logarithms.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)  # (B, T)
    return -chosen[scored].mean()


def z_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean of log(Z)^2, where Z is the sum of exp(logits): added to the loss, times 1e-4 or so, it keeps logits small.

    The softmax doesn't feel it when all logits grow alike; half-precision numbers do. Source: Chowdhery et al. 2022, section 5
    """
    log_z = torch.logsumexp(logits.float(), dim=-1)  # (B, T)
    return (log_z[targets != -100] ** 2).mean()


def cosine_lr(step: int, steps: int, peak: float, warmup: int, lowest: float) -> float:
    """Returns the learning rate of a step: a straight rise, then half a wave of a cosine down to `lowest`.

    The rise spares the fresh weights large steps while Adam's running means are still guesses.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    progress = max(0, step - warmup) / (steps - warmup)
    return rise * (lowest + (peak - lowest) * (1 + math.cos(math.pi * progress)) / 2)


def linear_lr(step: int, steps: int, peak: float, warmup: int, lowest: float) -> float:
    """Returns the learning rate of a step: a straight rise, then a straight fall down to `lowest`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * (peak + (lowest - peak) * max(0, step - warmup) / (steps - warmup))


def wsd_lr(step: int, steps: int, peak: float, warmup: int, lowest: float, decay: float) -> float:
    """Returns the learning rate of a step: a rise, a plateau, and a straight fall over the last share `decay`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    start = steps * (1 - decay)
    if step <= start:
        return rise * peak
    return rise * (peak + (lowest - peak) * (step - start) / (steps - start))


def clip_gradients(model: nn.Module, longest: float) -> float:
    """Shortens the gradient of all parameters, taken as one long arrow, to at most `longest`; returns its length before."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    length = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    if length > longest:
        for gradient in gradients:
            gradient *= longest / length
    return length


def train(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], lr: float, warmup: int = 0, lowest_ratio: float = 0.1,
    weight_decay: float = 0.1, betas: tuple[float, float] = (0.9, 0.95), clip: float = 1.0,
    schedule: Callable[..., float] = cosine_lr,
) -> list[float]:  # fmt: skip
    """Returns the loss of every step after training the model on the batches, one step for each.

    `model(tokens)` returns logits, (B, T, V). Predict, compare, ask every weight how it contributed, move it a little: that
    is all there is to it, a few billion times over.
    """
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    kept = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas)
    losses, steps = [], len(batches)
    model.train()
    for step, (tokens, targets) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, lr, warmup, lr * lowest_ratio)
        loss = next_token_loss(model(tokens), targets)
        loss.backward()  # after this, p.grad says for each weight p how the loss changes with it
        clip_gradients(model, clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def mean_loss(model: nn.Module, tokens: Sequence[int], context: int) -> float:
    """Returns the mean loss over a text that the model hasn't been trained on, in windows side by side."""
    model.eval()
    text, total, count = torch.tensor(tokens), 0.0, 0
    for start in range(0, len(text) - context, context):
        window = text[start : start + context + 1]
        logits = model(window[None, :-1])  # (1, T, V)
        total += float(next_token_loss(logits, window[None, 1:])) * context
        count += context
    return total / count
