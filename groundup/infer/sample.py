"""Generating many answers at once: prompts padded on the left, a KV cache, one forward pass a token for the whole batch."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from groundup.base.errors import ConfigError
from groundup.infer.config import GenerateConfig, SamplingParams, locate
from groundup.infer.engine import Engine
from groundup.infer.pick import noise, pick
from groundup.infer.terminal import visible
from groundup.model.cache import KVCache
from groundup.model.transformer import Transformer

__all__ = ["generate", "main"]

ROWS = 1024  # sequences decoded together: with fewer, more steps are taken for the few longest answers
READ_TOKENS = (
    4096  # prompt tokens read together: more make intermediate results that fall out of the processor's caches
)
SHRINK = 0.9  # drop the finished rows from the batch once fewer than this share is left


class Rows(KVCache):
    """A KV cache in memory that is used again: it grows by copies of a prompt's row and shrinks in place.

    Fresh memory for every change of the batch costs more, in zeroing and page faults, than the model's own arithmetic.
    """

    def __init__(self, whole: KVCache, batch: int) -> None:
        self.config, self.capacity, self.length, self.whole = whole.config, whole.capacity, 0, whole.blocks
        self.kinds, self.place, self.windows = whole.kinds, whole.place, whole.windows
        self.first = [0] * len(self.kinds)
        self.blocks = [block[:, :, :batch] for block in self.whole]

    def part(self, first: int, end: int) -> "Rows":
        """Returns an empty cache of some of the rows, in the same memory."""
        part = Rows(self, end)
        part.blocks = [block[:, :, first:end] for block in self.blocks]
        return part

    def repeat(self, n: int) -> None:
        """Makes each row stand n times in a row."""
        count = self.batch
        for kind, whole in enumerate(self.whole):
            used = slice(self.used(kind))
            for row in reversed(range(count)):  # from the last, so that no row is overwritten before it is copied
                whole[:, :, row * n : (row + 1) * n, :, used] = whole[:, :, row : row + 1, :, used].clone()
        self.blocks = [whole[:, :, : count * n] for whole in self.whole]

    def drop(self, alive: Tensor) -> Tensor:
        """Keeps the rows that are alive (B,) bool; returns which old row each new one is. Rows from the end fill the gaps."""
        count = int(alive.sum())
        order = torch.arange(count, device=alive.device)
        gaps, movers = (~alive[:count]).nonzero()[:, 0], count + alive[count:].nonzero()[:, 0]
        order[gaps] = movers
        for kind, block in enumerate(self.blocks):
            used = slice(self.used(kind))
            block[:, :, gaps, :, used] = block[:, :, movers, :, used]
        self.blocks = [whole[:, :, :count] for whole in self.whole]
        return order


def generate(
    model: Transformer, prompts: Sequence[Sequence[int]], params: SamplingParams, n: int = 1
) -> list[list[int]]:
    """Returns n answers a prompt, as token ids: the answers of prompt i stand at [i*n, (i+1)*n).

    An answer ends with its stop id, after `max_tokens`, or where the model's context is full. Each prompt is read once,
    whatever n. The answers depend on the seed and on a prompt's place in the list, not on how the work is batched (but for
    a draw that falls within rounding of a boundary).

    Raises: ConfigError for parameters out of range, an empty prompt, or one that fills the context.
    Equal to: groundup.infer.plain.generate
    """
    params.validate()
    context = model.config.context
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ConfigError(f"prompt {number}: {len(prompt)} tokens; the model reads 1 to {context - 1}")
    answers: list[list[int]] = [[] for _ in range(len(prompts) * n)]
    if not answers:
        return answers
    uniform = noise(params.seed, len(answers), min(params.max_tokens, context))
    chunks = list(_chunks(prompts, max(1, ROWS // n), context - params.max_tokens))
    weight = next(model.parameters())
    slots = min(context, max(map(len, prompts)) + params.max_tokens)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            memory = KVCache(model.config, n * max(map(len, chunks)), slots, weight.device, weight.dtype)
            for chunk in chunks:
                samples = [i * n + k for i in chunk for k in range(n)]
                found = _decode(model, [prompts[i] for i in chunk], n, params, uniform[samples], memory)
                for sample, answer in zip(samples, found, strict=True):
                    answers[sample] = answer
    finally:
        model.train(training)
    return answers


def _chunks(prompts: Sequence[Sequence[int]], size: int, roomy: int) -> Iterator[list[int]]:
    """Yields the prompts' numbers, at most `size` at a time, by length, so that little padding is needed.

    Prompts of more than `roomy` tokens may meet the end of the context, where padding would cost them tokens: they are
    only put together with others of the same length.
    """
    chunk: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        length = len(prompts[number])
        if chunk and (len(chunk) == size or (length > roomy and length != len(prompts[chunk[0]]))):
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


def _prefill(model: Transformer, prompts: Sequence[Sequence[int]], cache: Rows) -> tuple[Tensor, Tensor]:
    """Reads the prompts into the cache; returns the logits after each, and how many padding tokens stand left of it.

    Shapes: (B, V), (B,).
    """
    device = cache.device
    longest = max(map(len, prompts))
    pad = torch.tensor([longest - len(p) for p in prompts], device=device)
    tokens = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)  # (B, T)
    positions = (torch.arange(longest, device=device) - pad[:, None]).clamp(min=0)
    logits, size = [], max(1, READ_TOKENS // longest)
    for first in range(0, len(prompts), size):
        some = slice(first, min(first + size, len(prompts)))
        part = cache.part(some.start, some.stop)
        logits.append(_last(model, tokens[some], positions[some], part, _unpadded(pad[some], longest)))
    cache.length, cache.first = longest, part.first  # every part has read as much
    return torch.cat(logits), pad


def _unpadded(pad: Tensor, slots: int) -> Tensor | None:
    """Returns which slots of the cache hold a token and no padding; None if all do. Shapes: (B,) -> (B, 1, 1, S)."""
    if not pad.any():
        return None
    return (torch.arange(slots, device=pad.device) >= pad[:, None])[:, None, None]


def _last(model: Transformer, tokens: Tensor, positions: Tensor | None, cache: KVCache, mask: Tensor | None) -> Tensor:
    """Returns the logits after the last token of each row. Shapes: tokens (B, T) -> (B, V)."""
    return model.logits(model.hidden(tokens, positions, cache, mask)[:, -1])


def _decode(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    n: int,
    params: SamplingParams,
    uniform: Tensor,
    memory: KVCache,
) -> list[list[int]]:
    """Returns n answers for each of some prompts of similar length. Shapes: uniform (B*n, steps)."""
    device, longest = memory.device, max(map(len, prompts))
    cache = Rows(memory, len(prompts))
    logits, pad = _prefill(model, prompts, cache)
    cache.repeat(n)
    logits, pad, uniform = logits.repeat_interleave(n, 0), pad.repeat_interleave(n, 0), uniform.to(device)
    stops = torch.tensor(params.stop_ids, dtype=torch.long, device=device)
    steps = min(params.max_tokens, model.config.context - longest)
    out = torch.zeros(len(pad), steps, dtype=torch.long, device=device)
    length = torch.full((len(pad),), steps, device=device)  # of each answer
    rows = torch.arange(len(pad), device=device)  # which answer each row of the batch is
    alive = torch.ones(len(pad), dtype=torch.bool, device=device)
    for step in range(steps):
        token = pick(logits, params, uniform[rows, step])
        out[rows, step] = token
        ends = torch.isin(token, stops)
        length[rows[alive & ends]] = step + 1
        alive &= ~ends
        left = int(alive.sum())
        if not left or step + 1 == steps:
            break
        if left < SHRINK * len(rows):
            order = cache.drop(alive)
            rows, token, alive, pad = rows[order], token[order], alive[order], pad[order]
        slot = longest + step
        logits = _last(model, token[:, None], (slot - pad)[:, None], cache, _unpadded(pad, slot + 1))
    return [row[:end] for row, end in zip(out.tolist(), length.tolist(), strict=True)]


def main(config: GenerateConfig) -> None:
    """Prints a text and its continuation, as it is written: `groundup generate`."""
    prompt = config.prompt
    if prompt == "-":
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        prompt = sys.stdin.read()
    engine = Engine.load(locate(config.project, config.stage, config.name), config.device)
    for number in range(config.samples):
        if config.samples > 1:
            print(f"--- {number + 1} of {config.samples}")
        answer = engine.complete(prompt, replace(config.sampling(), seed=config.seed + number))
        print(visible(prompt), end="", flush=True)
        for piece in answer:
            print(visible(piece), end="", flush=True)
        print()
