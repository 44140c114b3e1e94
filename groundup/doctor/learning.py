"""Faults of learning, told by the loss: not finite, flat, leaping, learning by heart, too small a model, too little reading."""

import statistics
from dataclasses import replace
from itertools import pairwise

from groundup.base.log import command
from groundup.doctor.facts import INITIAL_SPREAD, Facts
from groundup.doctor.finding import Finding
from groundup.doctor.text import likeness, squeezed
from groundup.plan.chinchilla import TOKENS_PER_PARAMETER, good_lr
from groundup.plan.cost import shape

__all__ = ["good_rate", "jumps", "nonfinite", "overfits", "rate_high", "rate_low", "small", "standstill", "tokens_few"]

FAR = 10  # times: an order of magnitude from a rule of thumb is a mistake and not a matter of taste
MUON_LR = 0.02  # the usual rate of Muon, whatever the shape: its steps are scaled to the matrix
NOISES = 10  # standard deviations: no noise leaps so far, not even a heavy-tailed one, in a run of any length
PART = 0.1  # of what has been learned: less isn't worth an alarm
BACK = 0.05  # of what has been learned, lost again on the held-out text
HALF = 0.5  # of the held-out loss itself
WIDER = 3  # times, as 128 -> 384
LATER = 1.5  # times the step with the lowest held-out loss
LONGER = 4  # times the steps, at most, in one correction
Text = tuple[str, str]  # what is wrong (flat, weak or nothing), and the evidence


def good_rate(facts: Facts) -> float:
    """Returns the rate that AdamW usually wants for a run of so many operations (DeepSeek's law)."""
    model = getattr(facts.config, "model", None)
    if model is None:
        return facts.loop.lr
    return good_lr(facts.planned_tokens * model.flops_per_token())


def slower(facts: Facts) -> dict[str, float]:
    """Returns the changes that make a run calmer: the rates back in their usual range, or a third of what they were."""
    loop, changes = facts.loop, {"train.warmup": max(0.1, facts.loop.warmup)}
    if loop.clip == 0 or loop.clip > 1:
        changes["train.clip"] = 1.0
    usual = good_rate(facts)
    if loop.lr > usual or loop.clip > 0:
        changes["train.lr"] = min(usual, loop.lr / 3)
    if loop.optim.kind == "muon" and loop.optim.muon_lr > MUON_LR:
        changes["train.optim.muon_lr"] = MUON_LR
    return changes


def sweep(facts: Facts, rate: float | None = None) -> str:
    """Returns the command that tries rates around one (the usual one, if none is given)."""
    rate = rate or good_rate(facts)
    values = ",".join(f"{rate * factor:.2g}" for factor in (0.1, 0.3, 1, 3))
    return command("sweep", facts.run.path / "config.toml", "--over", f"train.lr={values}")


def nonfinite(facts: Facts) -> Finding | None:
    """Any row that reports a loss or gradient which isn't finite, or a weight of the checkpoint that isn't.

    A healthy run has none at all, in bf16 either: it has the range of fp32. The row names the layer where it began. Few
    enough for the policy `skip` to have saved the run (less than one step in a thousand, and it went on) are a note.
    """
    bad = [r for r in facts.rows if r.get("nonfinite") and isinstance(r["nonfinite"], str)]
    steps = (
        [r["step"] for r in facts.rows if "loss" in r and r["loss"] is None] if not bad else [r["step"] for r in bad]
    )
    weights = facts.inside.bad_weights if facts.inside is not None else []
    if not steps and not weights:
        return None
    loop, seen = facts.loop, []
    if steps:
        where = f", first in {bad[0]['layer']}" if bad and bad[0].get("layer") else ""
        what = bad[0]["nonfinite"] if bad else "loss"
        seen.append(
            f"the {what} isn't finite at step {steps[0]}{where}; {len(steps)} such steps in {max(facts.done, steps[-1])}"
        )
        before = [r["grad_norm"] for r in facts.rows if r.get("grad_norm") is not None and r["step"] < steps[0]]
        if before:
            seen.append(f"gradient norms before it: {', '.join(f'{n:.3g}' for n in before[-4:])}")
    if weights:
        seen.append(f"weights that aren't numbers: {', '.join(weights[:3])}{' ...' if len(weights) > 3 else ''}")
    cause = f"the step is too long: train.lr {loop.lr:g}, where {good_rate(facts):.2g} is usual"
    if loop.clip == 0:
        cause += ", and train.clip 0 limits no gradient"
    went_on = bool(steps and facts.losses) and facts.losses[-1][0] > steps[-1]
    saved = not weights and bool(bad) and went_on and len(steps) < facts.done / 1000
    return Finding(seen, cause, slower(facts), [sweep(facts)], note=saved)


def condition(facts: Facts) -> Text:
    """Returns ("flat" | "weak" | "", evidence): what the run has learned beside what counting alone would have.

    Flat: less than a tenth of what the token before tells, that is of the way from the loss of knowing each token's
    frequency to that of knowing each pair's. Weak: not even all of it; or its samples read more like letters in random
    order than like the text.
    """
    loss, levels = facts.last_loss, facts.corpus.levels if facts.corpus else None
    if not facts.pretraining or not facts.judged or loss is None or facts.corpus is None:
        return "", ""
    if levels is None:
        first = facts.losses[0][1]
        return ("flat", f"the loss is {loss:.3f} and was {first:.3f}") if loss > (1 - PART) * first else ("", "")
    known = f"counting tokens gives {levels.unigram:.3f}, counting pairs of tokens {levels.bigram:.3f}, guessing {levels.uniform:.3f}"
    if loss > levels.unigram - PART * max(0.0, levels.unigram - levels.bigram):
        return "flat", f"the loss is {loss:.3f} nats per token at step {facts.done}; {known}"
    if not facts.finished:
        return "", ""
    if loss > levels.bigram:
        return "weak", f"the loss is {loss:.3f} nats per token at the end; {known}"
    return gibberish(facts)


def gibberish(facts: Facts) -> Text:
    """Returns ("weak", evidence) if the texts that the model writes don't read like its corpus, else ("", "")."""
    inside, corpus = facts.inside, facts.corpus
    if inside is None or corpus is None or not inside.samples or not (text := facts.sample_of_text):
        return "", ""
    length = round(statistics.median(map(len, inside.samples)))
    if length < 80:  # too little to be judged
        return "", ""
    alike = statistics.median(likeness(sample, text) for sample in inside.samples)
    start = inside.samples[0][:60].replace("\n", " ")
    if alike < 0.5:
        return "weak", f"its samples read {max(alike, 0):.0%} like the text (0% is letters in random order): {start!r}"
    pieces = [text[i * (len(text) - length) // 199 :][:length] for i in range(200)]
    densest, shrunk = min(map(squeezed, pieces)), statistics.median(map(squeezed, inside.samples))
    if shrunk < densest:
        return (
            "weak",
            f"its samples repeat themselves (zlib leaves {shrunk:.0%}; of the text never below {densest:.0%}): {start!r}",
        )
    return "", ""


def rates(facts: Facts) -> str:
    """Returns the learning rates as they were, and as they usually are."""
    loop = facts.loop
    muon = f", train.optim.muon_lr {loop.optim.muon_lr:g} ({MUON_LR:g} is usual)" if loop.optim.kind == "muon" else ""
    return f"train.lr {loop.lr:g} ({good_rate(facts):.2g} is usual for a run of this size{' with AdamW' if muon else ''}){muon}"


def _main_rate(facts: Facts) -> tuple[str, float, float]:
    """Returns the key, the value and the usual value of the rate that the hidden matrices follow."""
    loop = facts.loop
    if loop.optim.kind == "muon":
        return "train.optim.muon_lr", loop.optim.muon_lr, MUON_LR
    return "train.lr", loop.lr, good_rate(facts)


def rate_low(facts: Facts) -> Finding | None:
    """The run is flat or weak, and its rate is ten times below the usual one; or all steps together, each of about the rate,
    can't have moved a weight by the spread that weights begin with (0.02), at a rate below the usual one.

    The usual rate is DeepSeek's law for AdamW (`groundup.plan.chinchilla.good_lr`) and 0.02 for Muon. A factor of ten is
    beyond what tuning changes; a weight that hasn't moved by its own size can't have learned.
    """
    state, evidence = condition(facts)
    key, rate, usual = _main_rate(facts)
    if not state or not (rate < usual / FAR or (facts.reach < INITIAL_SPREAD and rate < usual)):
        return None
    seen = [
        evidence,
        f"the steps taken add up to {facts.reach:.2g} at most; weights begin with a spread of {INITIAL_SPREAD:g}",
    ]
    return Finding(seen, f"the learning rate is too low: {rates(facts)}", {key: float(f"{usual:.2g}")}, [sweep(facts)])


def rate_high(facts: Facts) -> Finding | None:
    """The run is flat or weak, and its rate is ten times above the usual one; or it is flat, at a rate above the usual one, and
    the loss is above that of guessing, or above its own lowest by a tenth.

    What was learned and is lost again, or what is worse than nothing, was overshot: too small a rate does neither.
    """
    state, evidence = condition(facts)
    if not state or facts.last_loss is None:
        return None
    loop, (key, rate, usual), seen = facts.loop, _main_rate(facts), [evidence]
    lowest = min(loss for _, loss in facts.losses)
    levels = facts.corpus.levels if facts.corpus else None
    if levels and facts.last_loss > levels.uniform:
        seen.append("that is worse than guessing")
    if facts.last_loss > 1.1 * lowest:
        seen.append(f"it has been lower: {lowest:.3f}")
    overshot = state == "flat" and len(seen) > 1 and rate > usual
    if not (rate > FAR * usual or overshot):
        return None
    late = [r["grad_norm"] for r in facts.rows if r.get("grad_norm") is not None and r["step"] > facts.warmup]
    if late and loop.clip:
        clipped = sum(norm > loop.clip for norm in late) / len(late)
        seen.append(f"{clipped:.0%} of the gradients after the warm-up were longer than train.clip {loop.clip:g}")
    changes = {key: float(f"{usual:.2g}")} | ({"train.clip": 1.0} if loop.clip == 0 else {})
    return Finding(seen, f"the learning rate is too high: {rates(facts)}", changes, [sweep(facts)])


def jumps(facts: Facts) -> Finding | None:
    """A row whose loss stands above the median of the ten rows before it by ten standard deviations of the noise, and by a
    tenth of all that had been learned until then (from the loss of guessing).

    The noise is the median size of the difference between neighbouring rows, which a few leaps don't change. Ten
    deviations don't happen by chance; a tenth of what was learned is a loss of time that is worth an alarm.
    """
    values = [(step, loss) for step, loss in facts.losses if step > facts.warmup]
    if len(values) < 12 or not facts.pretraining:
        return None
    losses = [loss for _, loss in values]
    noise = 1.4826 / 2**0.5 * statistics.median(abs(b - a) for a, b in pairwise(losses))
    start = max(facts.losses[0][1], *losses[:1])
    found: list[tuple[int, float, float]] = []
    for i in range(5, len(values)):
        before = statistics.median(losses[max(0, i - 10) : i])
        if losses[i] - before > max(NOISES * noise, PART * (start - before)):
            found.append((values[i][0], before, losses[i]))
    if not found:
        return None
    step, before, after = max(found, key=lambda f: f[2] - f[1])
    seen = [
        f"{len(found)} leap{'s' * (len(found) > 1)} of the loss; the highest at step {step}: "
        f"from {before:.3f} to {after:.3f} (noise {noise:.3f})"
    ]
    row = next(r for r in facts.rows if r.get("step") == step and "loss" in r)
    norms = {key: row[key] for key in row if key.startswith("grad_norm") and row[key] is not None}
    growth = {key: norms[key] / max(statistics.median(facts.series(key)), 1e-12) for key in norms}
    if growth:
        layer = max((key for key in growth if "." in key), key=lambda k: growth[k], default="grad_norm")
        seen.append(f"gradient norm {norms['grad_norm']:.3g} there, {growth['grad_norm']:.1f} times the median; "
                    f"most in {layer.partition('.')[2] or 'all layers'} ({growth[layer]:.1f} times)")  # fmt: skip
    cause = f"steps that overshoot: {rates(facts)}"
    if facts.loop.clip == 0 or facts.loop.clip > FAR * statistics.median(facts.series("grad_norm") or [1.0]):
        cause += f"; train.clip {facts.loop.clip:g} limits no gradient"
    return Finding(seen, cause, slower(facts), [sweep(facts, facts.loop.lr / 3)])


def overfits(facts: Facts) -> Finding | None:
    """The held-out loss has risen for two looks or more, by a twentieth of all that had been learned (from the loss of guessing, or
    else from the first that was seen) or by half of itself, while the training loss fell.

    The held-out text is the same at each look, so its loss has little noise; a fine-tuned model's, which is small, sways by a
    fifth of itself while the rate is high. Later checkpoints are worse ones. The correction ends half as long again after the
    best look (a shorter schedule learns less in its first steps) and keeps the best checkpoint.
    """
    held = facts.heldout
    if len(held) < 3:
        return None
    best = min(range(len(held)), key=lambda i: held[i][1])
    step, lowest = held[best]
    levels = facts.corpus.levels if facts.corpus else None
    start = levels.uniform if levels else max(loss for _, loss in (held[0], *facts.losses[:1]))
    rise, enough = held[-1][1] - lowest, min(BACK * (start - lowest), HALF * lowest)
    train_then = [loss for s, loss in facts.losses if s <= step][-3:]
    if best > len(held) - 3 or lowest >= start or rise < enough or not train_then:
        return None
    now = facts.last_loss
    if now is None or now >= statistics.fmean(train_then):
        return None
    seen = [
        f"held-out loss {held[-1][1]:.3f} at the end, {lowest:.3f} at step {step}; the training loss fell on to {now:.3f}"
    ]
    cause = "the model learns the training text by heart"
    if facts.corpus is not None:
        epochs = facts.done * facts.loop.batch_tokens / max(facts.corpus.train.tokens, 1)
        seen.append(
            f"the {facts.corpus.train.tokens:,} tokens of the text were read {epochs:.1f} times; {facts.params:,} parameters"
        )
        cause += f": it is read {epochs:.1f} times (up to 4 times is nearly as good as new text)"
    changes = {"train.steps": min(facts.loop.steps, round(LATER * step)), "train.checkpoint.best": True}
    return Finding(seen, cause, changes, [command("data build", facts.project, "--input", "MORE-TEXT")])


def small(facts: Facts) -> Finding | None:
    """A finished run is weak (or flat) at a usual rate, although it has read 20 tokens or more for each parameter.

    By Chinchilla's rule more reading would no longer help such a model as much as more parameters would.
    """
    state, evidence = condition(facts)
    if not state or not facts.finished or facts.planned_tokens < TOKENS_PER_PARAMETER * facts.params:
        return None
    model = facts.config.model
    wider = replace(shape(max(64, model.d_model * WIDER // 32 * 32), model), dropout=model.dropout)
    keys = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "head_dim")
    changes = {f"model.{key}": getattr(wider, key) for key in keys}
    changes["train.lr"] = float(f"{good_lr(facts.planned_tokens * wider.flops_per_token()):.2g}")
    seen = [
        evidence,
        f"it has read {facts.planned_tokens / facts.params:.0f} tokens a parameter; {facts.params:,} parameters hold no more",
    ]
    times = wider.flops_per_token() / model.flops_per_token()
    cause = f"the model is too small: widen it, {model.d_model} -> {wider.d_model} (a step computes {times:.0f} times as much)"
    return Finding(seen, cause, changes, [command("plan", facts.project, "--minutes", 30)])


def tokens_few(facts: Facts) -> Finding | None:
    """A finished run is weak (or flat) at a usual rate, and has read fewer than 20 tokens for each parameter."""
    state, evidence = condition(facts)
    few = facts.planned_tokens / max(facts.params, 1)
    if not state or not facts.finished or few >= TOKENS_PER_PARAMETER:
        return None
    times = min(LONGER, max(2, round(TOKENS_PER_PARAMETER / max(few, 1e-9))))
    seen = [evidence, f"it has read {few:.2g} tokens a parameter; about {TOKENS_PER_PARAMETER} is the rule"]
    changes = {"train.steps": facts.loop.steps * times}
    return Finding(
        seen, "it has read too little: more steps", changes, [command("plan", facts.project, "--minutes", 30)]
    )


def standstill(facts: Facts) -> Finding | None:
    """The loss is flat, and neither the rate nor the text nor the size explains it."""
    state, evidence = condition(facts)
    if state != "flat":
        return None
    test = command("sweep", facts.run.path / "config.toml", "--range-test")
    return Finding(
        [evidence, rates(facts)],
        "not clear from the files; a range test shows at which rates the loss falls",
        {},
        [test],
    )
