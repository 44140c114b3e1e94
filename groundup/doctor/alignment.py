"""Faults of preferences and reinforcement, told by what their rows hold besides the loss: rewards, lengths, distance, margins."""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from groundup.base.log import command
from groundup.base.records import read_preferences
from groundup.doctor.facts import Facts
from groundup.doctor.finding import Finding

__all__ = ["cut_off", "drifting", "fading", "falling", "shrinking", "standing", "trend", "unanimous", "undecided"]

ROWS = 6  # of metrics: fewer don't show a trend
ERRORS = 3  # standard errors: by chance in one run of several hundred
LOSS = 0.05  # of all answers: a smaller fall of the reward isn't worth an alarm
SIGNAL = 0.05  # of the questions: below, a step learns from one in twenty of the answers that it paid for
FAR = 1.0  # nat a token from the reference: its answers are another model's
NEAR = 1e-3  # nats a token: probabilities have changed by some four percent, sqrt(2 KL)
FULL = 0.9  # of the most tokens: on average; so most answers end at the limit, not where they would have
FADED = 1.0  # nat: an answer that is to be preferred has become e times less likely
MOVED = 0.1  # nats between chosen and rejected: less than this is where training began
KL_WEIGHT = 0.04  # as GRPO was published (Shao et al. 2024)


def trend(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the means of the first and the last quarter, and the standard error of their difference.

    The noise of a value is taken from the median difference between neighbours, which a trend hardly changes.
    """
    quarter = max(1, len(values) // 4)
    leaps = [abs(b - a) for a, b in pairwise(values)]
    noise = 1.4826 / 2**0.5 * statistics.median(leaps) if leaps else 0.0
    return statistics.fmean(values[:quarter]), statistics.fmean(values[-quarter:]), noise * (2 / quarter) ** 0.5


def _trend(facts: Facts, stage: str, key: str) -> tuple[float, float, float] | None:
    """Returns the trend of a metric of that stage, if there are rows enough to have one.

    Rows in which GRPO had nothing to learn from are left out of the distance and the entropy: these weren't computed.
    """
    rows = facts.rows if key not in ("kl", "entropy") else [row for row in facts.rows if row.get("used")]
    values = [row[key] for row in rows if row.get(key) is not None] if facts.stage == stage else []
    return trend(values) if len(values) >= ROWS else None


def _again(facts: Facts, changes: dict[str, Any]) -> list[str]:
    """Returns the command that runs the stage once more, with the changes."""
    flags = [word for key, value in changes.items() for word in (f"--{key.replace('_', '-')}", value)]
    name = f"{facts.run.path.name}-again"
    return [command(facts.stage, "--config", facts.run.path / "config.toml", "--name", name, *flags)]


def _calmer(facts: Facts) -> dict[str, Any]:
    """Returns the changes that keep a policy nearer to its reference."""
    changes: dict[str, Any] = {"train.lr": float(f"{facts.loop.lr / 3:.2g}")}
    if facts.config.kl_weight < KL_WEIGHT:
        changes["kl_weight"] = KL_WEIGHT
    return changes


def cut_off(facts: Facts) -> Finding | None:
    """In reinforcement the answers are nine tenths as long as they may be, on average.

    Then most of them were cut off, and what was cut off can hardly be right: chance, not the model, earns the reward.
    """
    lengths = _trend(facts, "grpo", "length")
    most = facts.config.rollout.max_tokens if lengths else 0
    if lengths is None or lengths[1] < FULL * most:
        return None
    seen = [f"answers are {lengths[1]:.1f} tokens long on average, of {most} at most (rollout.max_tokens)"]
    changes = {"rollout.max_tokens": 2 * most}
    return Finding(seen, "most answers are cut off before their end", changes, _again(facts, changes))


def unanimous(facts: Facts) -> Finding | None:
    """In reinforcement fewer than one question in twenty has both right and wrong answers, over the last quarter of the rows.

    Only such a question teaches anything: where all answers earn the same, none is better than its group. With a reward above
    0.95 that is success, and a note.
    """
    used, reward = _trend(facts, "grpo", "used"), _trend(facts, "grpo", "reward")
    if used is None or reward is None or used[1] >= SIGNAL:
        return None
    rollout, earned = facts.config.rollout, reward[1]
    seen = [f"{used[1]:.1%} of the questions have answers of both kinds; the reward is {earned:.3f}"]
    if earned > 1 - LOSS:
        return Finding(seen, "all is answered rightly: harder questions (--problems)", note=True)
    changes: dict[str, Any] = {"rollout.answers": 2 * rollout.answers} if earned > 0 else {}
    if rollout.temperature < 1:
        changes["rollout.temperature"] = 1.0
    commands = _again(facts, changes) if changes else []
    commands.append(command("sft", facts.project))
    hard = earned < LOSS
    cause = "the questions are too hard: what never succeeds can't be reinforced" if hard else "all answers are alike"
    return Finding(seen, cause, changes, commands)


def falling(facts: Facts) -> Finding | None:
    """In reinforcement the reward of the last quarter of the rows is below that of the first by a twentieth, and by three
    standard errors.

    What is reinforced can only become rarer if steps are so long that they spoil the rest.
    """
    reward = _trend(facts, "grpo", "reward")
    if reward is None or reward[1] > reward[0] - max(LOSS, ERRORS * reward[2]):
        return None
    seen = [f"the reward fell from {reward[0]:.3f} to {reward[1]:.3f} (± {reward[2]:.3f})"]
    shown = {"kl": "nats a token from the reference", "entropy": "nats of entropy", "length": "tokens an answer"}
    for key, words in shown.items():
        if (found := _trend(facts, "grpo", key)) is not None and found[1]:
            seen.append(f"{found[0]:.3g} -> {found[1]:.3g} {words}")
    changes = _calmer(facts)
    cause = f"steps that overshoot: train.lr {facts.loop.lr:g}, kl_weight {facts.config.kl_weight:g}"
    return Finding(seen, cause, changes, _again(facts, changes))


def drifting(facts: Facts) -> Finding | None:
    """In reinforcement the model is a nat a token away from its reference, over the last quarter of the rows.

    Then its tokens are e times likelier than they were: it writes another language than the one that it was taught, and
    a reward that still holds is held by tricks of the verifier.
    """
    kl = _trend(facts, "grpo", "kl")
    if kl is None or kl[1] < FAR:
        return None
    changes = _calmer(facts)
    seen = [f"{kl[1]:.3g} nats a token from the reference, {kl[0]:.3g} at first"]
    cause = f"nothing holds it: train.lr {facts.loop.lr:g}, kl_weight {facts.config.kl_weight:g}"
    return Finding(seen, cause, changes, _again(facts, changes))


def shrinking(facts: Facts) -> Finding | None:
    """In reinforcement the answers have become less than half as long, and the reward isn't higher for it by two standard errors."""
    length, reward = _trend(facts, "grpo", "length"), _trend(facts, "grpo", "reward")
    if length is None or reward is None or length[1] > length[0] / 2 or reward[1] > reward[0] + 2 * reward[2]:
        return None
    seen = [
        f"answers had {length[0]:.1f} tokens and have {length[1]:.1f}; the reward was {reward[0]:.3f} and is {reward[1]:.3f}"
    ]
    changes = _calmer(facts) | ({"normalise": "token"} if facts.config.normalise == "sequence" else {})
    cause = "short answers are reinforced: divided by its length, a short answer's token weighs more"
    return Finding(seen, cause if "normalise" in changes else "the answers collapse", changes, _again(facts, changes))


def standing(facts: Facts) -> Finding | None:
    """A finished reinforcement whose reward hasn't risen by two standard errors, though there was something to learn, and whose
    model is within a thousandth of a nat a token of its reference: it hasn't moved.
    """
    reward, kl = _trend(facts, "grpo", "reward"), _trend(facts, "grpo", "kl")
    if reward is None or kl is None or not facts.finished or not facts.config.kl_weight:
        return None
    if reward[1] > reward[0] + 2 * reward[2] or reward[1] > 1 - LOSS or kl[1] > NEAR:
        return None
    changes = {"train.lr": float(f"{10 * facts.loop.lr:.2g}")}
    seen = [
        f"the reward was {reward[0]:.3f} and is {reward[1]:.3f} (± {reward[2]:.3f}); {kl[1]:.1e} nats a token from the reference"
    ]
    return Finding(seen, f"the learning rate is too low: train.lr {facts.loop.lr:g}", changes, _again(facts, changes))


def fading(facts: Facts) -> Finding | None:
    """In learning preferences the chosen answers have become e times less likely than at first, and less likely by a tenth of
    their log-probability: the margin grows because the rejected ones have faded even more.

    DPO asks for a difference, and both sides may fall. What is to be preferred is then said less often than before.
    Source: Pang et al. 2024; Razin et al. 2024
    """
    chosen, margin = _trend(facts, "dpo", "chosen_logprob"), _trend(facts, "dpo", "margin")
    if chosen is None or margin is None:
        return None
    begun = facts.series("chosen_logprob")[0]  # where training begins it is the reference's
    if begun - chosen[1] < max(FADED, 0.1 * abs(begun)):
        return None
    changes: dict[str, Any] = {"train.lr": float(f"{facts.loop.lr / 3:.2g}")}
    if facts.config.nll_weight < 1:
        changes["nll_weight"] = 1.0
    seen = [f"log-probability of chosen answers {begun:.2f} -> {chosen[1]:.2f}; margin {margin[1]:.3f}"]
    cause = f"nothing holds the chosen answers up: nll_weight {facts.config.nll_weight:g}, train.lr {facts.loop.lr:g}"
    return Finding(seen, cause, changes, _again(facts, changes))


def _contradictions(facts: Facts) -> float:
    """Returns the share of the pairs that also stand in the file the other way round; 0 where the file isn't there any more."""
    file = facts.config.preferences or facts.run.path / "preferences.jsonl"
    pairs = [(str(p.prompt), p.chosen, p.rejected) for p in read_preferences(file)] if file.exists() else []
    known = set(pairs)
    return sum((prompt, rejected, chosen) in known for prompt, chosen, rejected in pairs) / len(pairs) if pairs else 0.0


def undecided(facts: Facts) -> Finding | None:
    """Preferences were learned to the end, and chosen and rejected answers have moved apart by less than a tenth of a nat; or the
    chosen one is preferred in no more than 55% of the pairs.

    Where a twentieth of the pairs or more also stand in the file the other way round, they contradict each other; else the
    rate is too low.
    """
    accuracy, margin = _trend(facts, "dpo", "accuracy"), _trend(facts, "dpo", "margin")
    if accuracy is None or margin is None or not facts.finished:
        return None
    apart = margin[1] / facts.config.beta
    if apart >= MOVED and accuracy[1] > 0.5 + LOSS:
        return None
    seen = [
        f"chosen and rejected answers moved apart by {apart:.2g} nats; the chosen one is preferred in {accuracy[1]:.0%} of the pairs"
    ]
    if (share := _contradictions(facts)) >= LOSS:
        seen.append(f"{share:.0%} of the pairs also stand in the file the other way round")
        commands = _again(facts, {"preferences": "BETTER-PAIRS.jsonl"})
        return Finding(seen, "the pairs contradict each other", commands=commands)
    changes = {"train.lr": float(f"{10 * facts.loop.lr:.2g}")}
    return Finding(seen, f"the learning rate is too low: train.lr {facts.loop.lr:g}", changes, _again(facts, changes))
