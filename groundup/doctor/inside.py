"""A look into a checkpoint: weights that aren't numbers, units that never act, heads that can't learn, logits that run away."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from groundup.doctor.facts import Facts
from groundup.infer.config import SamplingParams
from groundup.infer.sample import generate
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.parallel.mesh import choose_device
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load as load_tokenizer

__all__ = ["Inside", "look", "probe"]

ROWS = 4  # windows that are read: enough that a unit which is ever used is used in them
SAMPLES, SAMPLE_TOKENS = 4, 160
IDLE = 1e-3  # of its layer's mean activity: a unit below it could be taken out without a trace
CERTAIN = 0.999  # of a head's attention on one token: the gradient, p(1 - p), is then a thousandth


@dataclass
class Inside:
    """What was found. `dead` and `stuck` are shares of a layer's units and heads, by the layer's name."""

    bad_weights: list[str] = field(default_factory=list)
    dead: dict[str, float] = field(default_factory=dict)
    stuck: dict[str, float] = field(default_factory=dict)
    logit: float = 0.0  # the largest logit of a prediction, without its sign, on average
    log_z: float = 0.0  # the log of the softmax's denominator, on average
    samples: list[str] = field(default_factory=list)
    tokenizer: str = ""  # the fingerprint of the checkpoint's tokenizer


class _Scores(TorchFunctionMode):
    """Sees each attention as it is computed, whatever made its queries and keys; keeps each head's mean certainty."""

    def __init__(self) -> None:
        super().__init__()
        self.certainty: list[Tensor] = []  # (H,) a layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k = args[0].float(), args[1].float()
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
            scores = (q @ k.mT) / math.sqrt(q.shape[-1])  # (B, H, T, T)
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            weights = scores.masked_fill(future, -math.inf).softmax(-1)
            self.certainty.append(
                (weights.amax(-1)[..., 1:] > CERTAIN).float().mean((0, 2))
            )  # the first sees only itself
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def probe(model: Transformer, tokens: Tensor) -> Inside:
    """Returns what the model's weights and its work on tokens (B, T) show."""
    found = Inside([name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())])
    activity: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            units = inputs[0].float().flatten(0, -2)
            activity[name] = activity.get(name, torch.zeros(())) + units.square().sum(0)

        return hook

    hooks = [
        module.register_forward_pre_hook(watch(name.removesuffix(".down")))
        for name, module in model.named_modules()
        if name.endswith("mlp.down")
    ]
    training, implementation = model.training, model.implementation
    model.eval()
    model.implementation = "sdpa"
    try:
        with _Scores() as scores:
            logits = model(tokens)  # (B, T, V)
    finally:
        model.train(training)
        model.implementation = implementation
        for hook in hooks:
            hook.remove()
    for name, squares in activity.items():
        rms = squares.sqrt()
        found.dead[name] = float((rms <= IDLE * rms.mean()).float().mean())
    for layer, certain in enumerate(scores.certainty):
        found.stuck[f"blocks.{layer}.attn"] = float((certain > 0.5).float().mean())  # for most of the queries
    found.logit = float(logits.abs().amax(-1).mean())
    found.log_z = float(logits.logsumexp(-1).mean())
    return found


def _samples(model: Transformer, tokenizer: Tokenizer, prompt: str) -> list[str]:
    """Returns texts that the model writes by itself, as the run's own samples are written."""
    ids = [tokenizer.eot, *tokenizer.encode_ordinary(prompt)][-(model.config.context // 2) :]
    params = SamplingParams(temperature=0.8, max_tokens=SAMPLE_TOKENS, seed=1, stop_ids=(tokenizer.eot,))
    return [
        tokenizer.decode([i for i in answer if i != tokenizer.eot])
        for answer in generate(model, [ids], params, SAMPLES)
    ]


def look(facts: Facts, device: str = "auto") -> Inside:
    """Returns what the run's newest checkpoint shows on windows of its held-out text (or training text, or its own samples)."""
    assert facts.checkpoint is not None
    model = load_model(facts.checkpoint, choose_device(device))
    tokenizer = load_tokenizer(facts.checkpoint)
    where = next(model.parameters()).device
    corpus, context = facts.corpus, model.config.context
    tokens = torch.randint(0, model.config.vocab_size, (ROWS, context), generator=torch.Generator().manual_seed(0))
    shards = corpus and (corpus.heldout if corpus.heldout.tokens >= context else corpus.train)
    if shards and shards.vocab_size == model.config.vocab_size and shards.tokens >= context:
        starts = [i * (shards.tokens - context) // ROWS for i in range(ROWS)]
        tokens = torch.stack([torch.from_numpy(shards.slice(s, s + context).astype("int64")) for s in starts])
    found = probe(model, tokens.to(where))
    found.tokenizer = tokenizer.fingerprint
    if facts.pretraining and not found.bad_weights:
        found.samples = _samples(model, tokenizer, facts.config.prompt)
    return found
