"""The engine behind `generate`, `chat` and `serve`: a model with its tokenizer that writes one text at a time, as a stream."""

import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.records import Message
from groundup.base.runs import STAGES, resolve_checkpoint
from groundup.infer.config import SamplingParams
from groundup.infer.pick import pick
from groundup.model.cache import KVCache
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.tokenizer import io
from groundup.tokenizer.chat import chat_form, render, roles
from groundup.tokenizer.encode import StreamDecoder, Tokenizer

__all__ = ["Answer", "Engine", "Likelihood", "choose_device"]


def choose_device(wanted: str) -> torch.device:
    """Returns the device that a name means; "auto" is the GPU where there is one. Raises: ConfigError if it isn't there."""
    if wanted == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    kind, _, number = wanted.partition(":")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in there or (number and not number.isdigit()):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, not {wanted!r}")
    if int(number or 0) >= there[kind]:
        raise ConfigError(f"device: there is no {wanted} here; --device auto takes what there is")
    return torch.device(wanted)


@dataclass(frozen=True)
class Likelihood:
    """A token that was picked, its log-probability (before temperature and cuts), and the likeliest with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Engine:
    """A model and its tokenizer. One text is written at a time: a second stream waits until the first is closed.

    The keys and values of the last text are kept, so that the next turn of a conversation reads only what is new.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, name: str = "model", stage: str = "") -> None:
        if model.config.vocab_size < tokenizer.vocab_size:
            sizes = f"{tokenizer.vocab_size} ids, the model knows {model.config.vocab_size}"
            raise CheckpointError(f"{name}: the tokenizer doesn't belong to the model (it has {sizes})")
        self.model, self.tokenizer, self.name, self.stage = model.eval(), tokenizer, name, stage
        self.context = model.config.context
        self._lock, self._owner = threading.Lock(), 0
        self._cache: KVCache | None = None
        self._read: list[int] = []  # the tokens whose keys and values stand in the cache

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> "Engine":
        """Returns the engine for a checkpoint, a run, a stage, or a project (its furthest finished stage).

        Raises: CheckpointError or TokenizerError saying what is missing or damaged, ConfigError for an absent device.
        """
        folder = resolve_checkpoint(path).resolve()
        stages = {STAGES[stage]: stage for stage in STAGES}
        stage = stages.get(folder.parents[2].name, "") if len(folder.parents) > 3 else ""
        name = folder.parents[3].name if stage else folder.name
        return cls(load_model(folder, choose_device(device)), io.load(folder), name, stage)

    @property
    def chats(self) -> bool:
        """Whether the model knows a chat form; one that was only pretrained here continues texts instead."""
        form = chat_form(self.tokenizer)
        return form == "theirs" or (form == "ours" and self.stage != "pretrain")

    def stream(
        self, prompt: Sequence[int], params: SamplingParams, cancel: threading.Event | None = None
    ) -> Iterator[int]:
        """Yields the tokens that follow the prompt, up to and with a stop id, `max_tokens`, or the end of the context.

        It ends early once `cancel` is set. Closing the iterator frees the engine.
        Raises: ConfigError for parameters out of range, or a prompt that is empty or fills the context.
        Equal to: groundup.infer.plain.generate
        """
        for token, _ in self._steps(prompt, params, cancel):
            yield token

    def _steps(
        self, prompt: Sequence[int], params: SamplingParams, cancel: threading.Event | None
    ) -> Generator[tuple[int, Tensor], None, None]:
        """Yields each token with the logits (V,) that it was picked from."""
        params.validate()
        self.check(prompt)
        if self._owner == threading.get_ident():
            raise ConfigError("this engine is already writing a text; finish or close that one first")
        with self._lock:
            self._owner = threading.get_ident()
            try:
                dice = torch.Generator().manual_seed(params.seed)
                unread = self._rewind(prompt)
                for _ in range(min(params.max_tokens, self.context - len(prompt))):
                    if cancel is not None and cancel.is_set():
                        return
                    token, logits = self._step(unread, params, dice)
                    yield token, logits
                    if token in params.stop_ids:
                        return
                    unread = [token]
            finally:
                self._owner = 0

    def check(self, prompt: Sequence[int]) -> None:
        """Raises: ConfigError if the prompt is empty or leaves no room in the context."""
        if not prompt:
            raise ConfigError("the prompt is empty; give at least one token")
        if len(prompt) >= self.context:
            raise ConfigError(
                f"the prompt has {len(prompt)} tokens; the model's context holds {self.context}, the answer included"
            )

    def _rewind(self, prompt: Sequence[int]) -> list[int]:
        """Shortens the cache to what it has in common with the prompt; returns the prompt's tokens that remain to be read."""
        if self._cache is None:
            weight = next(self.model.parameters())
            with torch.inference_mode():
                self._cache = KVCache(self.model.config, 1, self.context, weight.device, weight.dtype)
        known = 0
        for ours, theirs in zip(self._read, prompt[:-1]):  # the last token is always read: its logits are wanted
            if ours != theirs:
                break
            known += 1
        known = self._cache.rewind(known)
        self._read = list(prompt[:known])
        return list(prompt[known:])

    # Inference mode belongs to a thread, and whoever reads a stream may do so from several: so it is entered for each step
    # and never stays on while the reader has its turn.
    @torch.inference_mode()
    def _step(self, unread: list[int], params: SamplingParams, dice: torch.Generator) -> tuple[int, Tensor]:
        """Returns the next token and the logits (V,) it was picked from, after reading what hasn't been read yet."""
        tokens = torch.tensor([unread], device=next(self.model.parameters()).device)  # (1, T)
        hidden = self.model.hidden(tokens, cache=self._cache)
        self._read += unread
        logits = self.model.logits(hidden[:, -1])[
            :, : self.tokenizer.vocab_size
        ]  # (1, V): ids without a text are left out
        uniform = torch.rand(1, generator=dice).to(logits.device)
        return int(pick(logits, params, uniform)), logits[0]

    def answer(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        stop: Sequence[str] = (),
        cancel: threading.Event | None = None,
        likelihoods: int | None = None,
    ) -> "Answer":
        """Returns the text that follows the prompt, to be iterated over as it is written.

        It ends before the first of the texts in `stop`, or at any special token. With `likelihoods` = k each token's
        log-probability is kept, and those of the k likeliest.
        """
        params.validate()
        self.check(prompt)
        params = replace(params, stop_ids=(*params.stop_ids, *self.tokenizer.specials.values()))
        return Answer(self, prompt, params, stop, cancel, likelihoods)

    def beginning(self, text: str) -> list[int]:
        """Returns the tokens of a text that begins a document, for a model to continue."""
        begin, _ = roles(self.tokenizer)
        eot = [self.tokenizer.eot] if begin in self.tokenizer.specials else []
        return eot + self.tokenizer.encode_ordinary(text)

    def complete(self, text: str, params: SamplingParams) -> "Answer":
        """Returns the continuation of a text."""
        return self.answer(self.beginning(text), params)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Returns a conversation's tokens, up to where its answer begins."""
        return render(messages, self.tokenizer, generation_prompt=True).tokens

    def chat(self, messages: Sequence[Message], params: SamplingParams) -> "Answer":
        """Returns the answer to a conversation; its oldest turns are left out if they don't fit the context."""
        return self.answer(self.fit(messages, params.max_tokens)[0], params)

    def room(self, max_tokens: int) -> int:
        """Returns how long a prompt may be that leaves room for an answer of `max_tokens`, or a quarter of the context."""
        return self.context - min(max_tokens, max(1, self.context // 4))

    def fit(self, messages: Sequence[Message], max_tokens: int) -> tuple[list[int], int]:
        """Returns a conversation's tokens, up to where its answer begins, and how many of its messages were left out.

        The system message stays; of the others, the oldest turns go until the prompt leaves `room` for the answer.
        Raises: ConfigError if not even the newest message fits.
        """
        system = [m for m in messages[:1] if m.role == "system"]
        turns = list(messages[len(system) :])
        for start in [0, *(i for i, turn in enumerate(turns) if i and turn.role == "user")]:
            tokens = self.render([*system, *turns[start:]])
            if len(tokens) <= self.room(max_tokens):
                return tokens, start
        self.check(tokens)  # a message that takes the answer's room is still answered, if only in a word
        return tokens, start


class Answer(Iterator[str]):
    """A text that is being written. Iterate over its pieces; none holds half a character or the beginning of a stop text.

    `finish_reason` is None while it is written, then "stop" (it came to its end), "length" (max_tokens, or the context is
    full) or "cancelled".
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        params: SamplingParams,
        stop: Sequence[str],
        cancel: threading.Event | None,
        likelihoods: int | None,
    ) -> None:
        self.prompt_tokens, self.completion_tokens = len(prompt), 0
        self.finish_reason: str | None = None
        self.likelihoods: list[Likelihood] = []
        self._stops, self._cancel = [text for text in stop if text], cancel
        self._pieces = self._write(engine, prompt, params, likelihoods)

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stops writing and frees the engine."""
        self._pieces.close()
        self.finish_reason = self.finish_reason or "cancelled"

    def _write(
        self, engine: Engine, prompt: Sequence[int], params: SamplingParams, likelihoods: int | None
    ) -> Generator[str, None, None]:  # fmt: skip
        decoder, held, cut = StreamDecoder(engine.tokenizer), "", False
        steps = engine._steps(prompt, params, self._cancel)
        try:
            for token, logits in steps:
                self.completion_tokens += 1
                if token in params.stop_ids:
                    self.finish_reason = "stop"
                    break
                if likelihoods is not None:
                    self.likelihoods.append(_likelihood(token, logits, likelihoods))
                held += decoder.push(token)
                if (end := self._find_stop(held)) is not None:
                    self.finish_reason, held, cut = "stop", held[:end], True
                    break
                ready = len(held) - self._overlap(held)
                if ready:
                    yield held[:ready]
                    held = held[ready:]
            else:
                cancelled = self._cancel is not None and self._cancel.is_set()
                self.finish_reason = "cancelled" if cancelled else "length"
        finally:
            steps.close()
        if rest := held if cut else held + decoder.flush():
            yield rest

    def _find_stop(self, text: str) -> int | None:
        """Returns where the first stop text begins, or None."""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _overlap(self, text: str) -> int:
        """Returns how many characters at the end may be the beginning of a stop text."""
        longest = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:size]):
                    longest = size
                    break
        return longest


def _likelihood(token: int, logits: Tensor, k: int) -> Likelihood:
    """Returns the log-probabilities of the token and of the k likeliest."""
    logprobs = logits.log_softmax(-1)
    top = logprobs.topk(min(k, len(logprobs)))
    return Likelihood(token, float(logprobs[token]), tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
