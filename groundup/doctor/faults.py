"""All faults that the doctor knows, the most fundamental first; and the page that tells them to readers."""

from groundup.doctor import alignment, learning, material, network, speed
from groundup.doctor.facts import Facts
from groundup.doctor.finding import Fault, Finding

__all__ = ["FAULTS", "diagnose"]

FLAT = ("rate-low", "rate-high", "standstill", "too-small", "too-few-tokens")

FAULTS = (
    Fault("not-finite", "Loss or gradient is NaN or infinite", "The step is too long",
          "Clip the gradient (`train.clip` 1.0), lower `train.lr`, lengthen `train.warmup`", learning.nonfinite,
          explains=(*FLAT, "spikes", "dead-units", "stuck-heads", "loud-logits")),
    Fault("tokenizer", "Gibberish, though the loss was fine", "Tokenizer, token files and model don't belong together",
          "Make the token files anew (`groundup shards`), then train again", material.mismatched, explains=FLAT),
    Fault("no-structure", "The loss stays at what counting tokens gives", "The text is shuffled, compressed or wrongly decoded",
          "Look at the text (`groundup data stats`), and mend its source", material.unstructured, explains=FLAT, live=True),
    Fault("rate-low", "The loss is flat", "The learning rate is too low",
          "Sweep it: `groundup sweep RUN/config.toml`; 3e-4 is a first guess for AdamW, more for small models",
          learning.rate_low, explains=FLAT, live=True),
    Fault("rate-high", "The loss is flat, or was lower before", "The learning rate is too high",
          "Sweep it: `groundup sweep RUN/config.toml`; clip the gradient", learning.rate_high,
          explains=(*FLAT, "spikes", "dead-units", "stuck-heads", "loud-logits"), live=True),
    Fault("spikes", "The loss leaps up", "Single steps overshoot", "Clip the gradient, lower `train.lr`, lengthen `train.warmup`",
          learning.jumps, live=True),
    Fault("too-small", "Gibberish or repetition after long training", "The model is too small",
          "Widen it: `model.d_model` 128 -> 384, and the depth with it", learning.small, explains=("unbalanced", "standstill")),
    Fault("too-few-tokens", "Gibberish or repetition after short training", "It has read too little",
          "More steps, and more text", learning.tokens_few, explains=("unbalanced", "standstill")),
    Fault("standstill", "The loss is flat, at a usual rate", "Not clear from the files",
          "Test the range of rates: `groundup sweep RUN/config.toml --range-test`", learning.standstill, live=True),
    Fault("overfitting", "The held-out loss rises while the training loss falls", "The text is too little for the model",
          "Stop earlier (`train.steps`), or more text; dropout (`model.dropout` 0.1) with more steps", learning.overfits, live=True),
    Fault("copies", "The training loss is low, the model parrots", "The text holds the same documents many times",
          "Build the data with deduplication: `groundup data build`", material.copied),
    Fault("leak", "The held-out loss is too good to be true", "Held-out documents stand in the training text",
          "Build the data anew: `groundup data build`, then `groundup shards`", material.leaking),
    Fault("unbalanced", "Much computation for the loss that was reached", "Far from Chinchilla's balance of size and reading",
          "Let the planner choose: `groundup plan PROJECT --minutes M`", material.unbalanced),
    Fault("dead-units", "The loss is worse than that of a narrower model", "Units that never act",
          "Lower `train.lr`, lengthen `train.warmup`, train anew", network.dead),
    Fault("stuck-heads", "The loss stops falling early", "Attention is saturated",
          "Lower `train.lr`; a family with QK-norm (`model.family` qwen3)", network.stuck),
    Fault("loud-logits", "The loss creeps up late in a long run", "The logits run away",
          "z-loss (`train.optim.z_loss` 1e-4), a lower `train.lr`", network.loud),
    Fault("reward-falls", "The reward falls", "Steps of reinforcement overshoot", "A third of `train.lr`, `kl_weight` 0.04",
          alignment.falling, explains=("cut-off", "no-signal", "drift", "short-answers"), live=True),
    Fault("cut-off", "The reward stays low, answers are long", "Answers are cut off before their end",
          "Let them be longer: `rollout.max_tokens`", alignment.cut_off, explains=("no-signal", "reward-stands"), live=True),
    Fault("no-signal", "GRPO learns nothing", "All answers to a question earn the same",
          "Questions that are sometimes answered rightly (`--problems`), more answers to each (`rollout.answers`), or more SFT first",
          alignment.unanimous, explains=("reward-stands",), live=True),
    Fault("drift", "The distance to the reference (KL) explodes", "Nothing holds the model to what it was",
          "`kl_weight` 0.04, a third of `train.lr`", alignment.drifting, live=True),
    Fault("short-answers", "Answers shrink, the reward doesn't rise", "Length collapse",
          "`normalise` token; a third of `train.lr`", alignment.shrinking, live=True),
    Fault("reward-stands", "The reward doesn't rise", "The learning rate of GRPO is too low", "Ten times `train.lr`", alignment.standing),
    Fault("fading", "The margin grows, the answers get worse", "DPO makes chosen answers unlikelier too",
          "`nll_weight` 1, a third of `train.lr`", alignment.fading, live=True),
    Fault("undecided", "DPO prefers neither answer", "The rate is too low, or the pairs contradict each other",
          "Ten times `train.lr`; look at the pairs", alignment.undecided),
    Fault("loader", "Fewer tokens/s than `groundup machine` promises", "Steps wait for their batches",
          "Put the token files on a local disk", speed.waiting, live=True),
    Fault("idle", "Fewer tokens/s than `groundup machine` promises", "Half of the machine has nothing to do",
          "`threads` 0, `device` auto, `precision` auto", speed.idle),
    Fault("slowing", "Tokens/s fall during the run", "Other work shares the machine", "Leave it alone; the run is none the worse",
          speed.slowing),
    Fault("weeks", "Training would take weeks", "Too much work for one machine",
          "Data parallel (DDP): `torchrun --nproc_per_node=8 -m groundup pretrain ...`; or a smaller plan", speed.weeks, live=True),
)  # fmt: skip


def diagnose(facts: Facts, live: bool = False) -> list[tuple[Fault, Finding]]:
    """Returns what is wrong with a run, the most fundamental first; a fault that another one explains is left out.

    `live` looks only for what a run can be told while it trains.
    """
    found: list[tuple[Fault, Finding]] = []
    explained: set[str] = set()
    for fault in FAULTS:
        if fault.key in explained or (live and not fault.live):
            continue
        if (finding := fault.check(facts)) is not None:
            found.append((fault, finding))
            if not finding.note:
                explained |= set(fault.explains)
    return found
