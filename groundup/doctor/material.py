"""Faults of the text: no structure, another tokenizer, copies, held-out text that was trained on; and of its amount."""

from groundup.base.log import command, quantity
from groundup.base.runs import open_run
from groundup.doctor.facts import Facts
from groundup.doctor.finding import Finding
from groundup.plan.budget import LAW_PARAMS, LAW_VOCABULARY
from groundup.plan.chinchilla import BESIROGLU, TOKENS_PER_PARAMETER, effective_tokens

__all__ = ["copied", "leaking", "mismatched", "unbalanced", "unstructured"]

NOTHING = 0.02  # of the unigram loss: what knowing the token before saves in text of any language is ten times that
WASTE = 10  # times the computation that the law needs for the same loss
FAR = 10  # times the rule of 20 tokens a parameter
LEAK = 0.01  # of the held-out documents; chance repeats few of 32 tokens or more


def unstructured(facts: Facts) -> Finding | None:
    """Knowing the token before saves less than a fiftieth of a token's cost: the tokens follow each other as if drawn by lot.

    Told by counts alone, before any training: in text of any language the saving is a fifth or more. Encrypted, compressed,
    shuffled or wrongly decoded data has none, and no model can learn it.
    """
    levels = facts.corpus.levels if facts.corpus else None
    if levels is None or facts.corpus is None or levels.unigram - levels.bigram > NOTHING * levels.unigram:
        return None
    if len(facts.corpus.read) < 10 * facts.corpus.train.vocab_size:  # too few to count pairs
        return None
    shown = facts.sample_of_text[:60].replace("\n", " ")
    seen = [
        f"a token costs {levels.unigram:.3f} nats by its frequency and {levels.bigram:.3f} by the token before it",
        f"it begins {shown!r}",
    ]
    commands = [
        command("data", "stats", facts.project),
        command("data", "build", facts.project, "--input", "BETTER-TEXT"),
    ]
    return Finding(seen, "the text has no structure: shuffled, compressed, encrypted or wrongly decoded", {}, commands)


def mismatched(facts: Facts) -> Finding | None:
    """The fingerprints of the checkpoint's tokenizer and of the one that made the token files differ.

    A fingerprint is a hash of the vocabulary: two that differ give other ids to the same text. What the model says is
    then decoded to other words than it meant, and further training unlearns what it knew.
    """
    if facts.inside is None or facts.corpus is None or not facts.inside.tokenizer:
        return None
    theirs, ours = facts.corpus.train.tokenizer, facts.inside.tokenizer
    if theirs == ours:
        return None
    seen = [f"the token files were made by tokenizer {theirs}, the checkpoint has {ours}"]
    here = open_run(facts.project, "tokenizer").path / "tokenizer.json"
    again = [command("shards", facts.project), command("pretrain", "--config", facts.run.path / "config.toml")]
    if not here.exists():
        again.insert(0, command("tokenizer", "train", facts.project))
    return Finding(
        seen, "tokenizer, token files and model don't belong together: one of them was made anew", commands=again
    )


def copied(facts: Facts) -> Finding | None:
    """More than half of the training text stands in documents that occurred before, word for word.

    Then the corpus counts for less than half of itself, and each epoch is two. Fewer copies, but a tenth of the text at
    least, are a note.
    """
    share = facts.corpus.copies if facts.corpus else 0.0
    if share < 0.1 or facts.corpus is None:
        return None
    unique = (1 - share) * facts.corpus.train.tokens
    epochs = facts.planned_tokens / max(unique, 1)
    seen = [
        f"{share:.0%} of the training text are copies; its {quantity(unique)} different tokens are read {epochs:.1f} times"
    ]
    commands = [command("data", "build", facts.project), command("shards", facts.project)]
    return Finding(seen, "the text holds the same documents many times", commands=commands, note=share <= 0.5)


def leaking(facts: Facts) -> Finding | None:
    """More than one in a hundred of the held-out documents also stands in the training text, word for word (32 tokens or more).

    The held-out loss then praises learning by heart.
    """
    share = facts.corpus.leaked if facts.corpus else 0.0
    if share <= LEAK:
        return None
    seen = [f"{share:.0%} of the held-out documents also stand in the training text"]
    commands = [command("data", "build", facts.project), command("shards", facts.project)]
    return Finding(seen, "the held-out text was trained on; its loss proves nothing", commands=commands)


def unbalanced(facts: Facts) -> Finding | None:
    """By Chinchilla's law the same loss could be had for a tenth of the computation, with another size or another amount of text.

    Repeated reading counts as Muennighoff et al. 2023 measured. The law is asked only where it was fitted, from 10M parameters
    and a vocabulary of 8,192 on; below, a ratio ten times off 20 tokens a parameter is a note, no more: there a larger
    model may well be the faster way.
    """
    if not facts.pretraining or not facts.params:
        return None
    params, tokens, model = facts.params, facts.planned_tokens, facts.config.model
    ratio = tokens / params
    lawful = params >= LAW_PARAMS and model.vocab_size >= LAW_VOCABULARY
    fresh = effective_tokens(tokens, facts.corpus.train.tokens) if facts.corpus else tokens
    excess = BESIROGLU.loss(params, fresh) - BESIROGLU.e
    flops = 6.0 * params * tokens
    best = BESIROGLU.loss(*BESIROGLU.optimum(flops)) - BESIROGLU.e
    exponent = BESIROGLU.alpha * BESIROGLU.beta / (BESIROGLU.alpha + BESIROGLU.beta)
    waste = (excess / best) ** (1 / exponent)
    far = not TOKENS_PER_PARAMETER / FAR <= ratio <= TOKENS_PER_PARAMETER * FAR
    if not (lawful and waste >= WASTE) and not far:
        return None
    wanted, reading = BESIROGLU.optimum(flops)
    seen = [
        f"{quantity(params)} parameters read {quantity(tokens)} tokens: {ratio:.2g} a parameter ({TOKENS_PER_PARAMETER} is the rule)"
    ]
    if lawful:
        seen.append(f"the law has the same loss for 1/{waste:.0f} of the computation; for this one {quantity(wanted)} parameters "
                    f"and {quantity(reading)} tokens")  # fmt: skip
    cause = (
        "too large a model for so little reading"
        if ratio < TOKENS_PER_PARAMETER
        else "too small a model for so much reading"
    )
    changes = (
        {"train.steps": round(TOKENS_PER_PARAMETER * params / facts.loop.batch_tokens)}
        if ratio < TOKENS_PER_PARAMETER
        else {}
    )
    enough = facts.corpus is not None and facts.corpus.train.tokens * 4 >= TOKENS_PER_PARAMETER * params
    minutes = max(1, round(facts.planned_tokens / max(facts.tokens_per_s, 1) / 60))
    commands = [command("plan", facts.project, "--minutes", minutes)]
    return Finding(seen, cause, changes if lawful and enough else {}, commands, note=not (lawful and waste >= WASTE))
