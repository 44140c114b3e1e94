"""Faults inside the network, told by a look into its newest checkpoint: dead units, stuck heads, logits that run away."""

from groundup.base.log import command
from groundup.doctor.facts import Facts
from groundup.doctor.finding import Finding
from groundup.doctor.learning import slower, sweep

__all__ = ["dead", "loud", "stuck"]

HALF = 0.5  # of a layer: it costs twice what it is worth
TENTH = 0.1
LOUD = 64.0  # from here on neighbouring numbers of bf16 lie half a nat apart


def _worst(shares: dict[str, float]) -> tuple[str, float]:
    """Returns the layer with the largest share."""
    return max(shares.items(), key=lambda item: item[1], default=("", 0.0))


def dead(facts: Facts) -> Finding | None:
    """Half of a feed-forward layer's units or more have less than a thousandth of the layer's mean activity on every token.

    Such a unit gets no gradient and never comes back; half a layer of them is paid for in vain. A tenth is a note.
    """
    layer, share = _worst(facts.inside.dead) if facts.inside else ("", 0.0)
    if share <= TENTH:
        return None
    seen = [
        f"{layer}: {share:.0%} of the units never act; by layer: {', '.join(f'{v:.0%}' for v in facts.inside.dead.values())}"
    ]
    cause = f"early steps threw them out of reach: train.lr {facts.loop.lr:g}, warm-up over {facts.warmup} steps"
    return Finding(seen, cause, slower(facts), [sweep(facts, facts.loop.lr / 3)], note=share < HALF)


def stuck(facts: Facts) -> Finding | None:
    """Half of a layer's attention heads or more give over 99.9% of their attention to a single token, for most tokens.

    The softmax is saturated: its gradient, p (1 - p), is below a thousandth, and the head hardly learns any more.
    """
    layer, share = _worst(facts.inside.stuck) if facts.inside else ("", 0.0)
    if share < HALF:
        return None
    seen = [f"{layer}: {share:.0%} of the heads attend to one token alone"]
    changes: dict[str, object] = dict(slower(facts))
    family = getattr(getattr(facts.config, "model", None), "family", "qwen3")
    cause = "queries and keys have grown too long"
    if family == "llama":
        changes["model.family"] = "qwen3"
        cause += "; the family qwen3 normalises them (QK-norm)"
    return Finding(seen, cause, changes, [sweep(facts, facts.loop.lr / 3)])


def loud(facts: Facts) -> Finding | None:
    """The largest logit of a prediction is above 64 on average.

    There the numbers of bf16 lie half a nat apart, so that likely tokens can't be told apart; and no text of less than e^64
    tokens could teach such certainty.
    """
    if facts.inside is None or facts.inside.logit < LOUD:
        return None
    seen = [
        f"the largest logit of a prediction is {facts.inside.logit:.0f} on average; log(sum(exp(logits))) {facts.inside.log_z:.0f}"
    ]
    changes: dict[str, object] = dict(slower(facts))
    if facts.pretraining and getattr(facts.loop.optim, "z_loss", None) == 0:
        changes["train.optim.z_loss"] = 1e-4
    again = command("pretrain", "--config", facts.run.path / "config.toml", "--name", f"{facts.run.path.name}-calm")
    flags = " ".join(
        f"--{key.replace('_', '-')} {value:g}" for key, value in changes.items() if isinstance(value, (int, float))
    )
    return Finding(seen, "nothing holds the logits down", changes, [f"{again} {flags}"])
