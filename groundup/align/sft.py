"""`groundup sft`: the base model learns to answer, by imitating the assistant's words in conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.align.config import SFTConfig
from groundup.align.logprobs import Encoded, Order, encode, pad, pad_in_parts, scored
from groundup.align.start import Stage, run_stage
from groundup.base.errors import ConfigError, DataError
from groundup.base.log import progress
from groundup.base.records import Message, read_chats
from groundup.base.runs import open_run
from groundup.model.transformer import Transformer
from groundup.shards.dataset import Batch, TokenDataset
from groundup.tokenizer.encode import Tokenizer
from groundup.train.loop import train

__all__ = ["ChatBatch", "ChatSource", "encode_chats", "heldout_loss", "main", "sft_loss"]

PARTS = 4  # batches of like lengths that a step is split into: 80% more conversations a second than one batch


@dataclass(frozen=True)
class ChatBatch:
    """The conversations of a step, padded in a few parts of like length, and windows of pretraining text beside them.

    `replay_scale` weighs a token of that text as a share of a scored token of the conversations.
    """

    parts: tuple[Batch, ...]
    tokens: int
    replay: Batch | None = None
    replay_scale: float = 0.0


def encode_chats(
    chats: Sequence[Sequence[Message]], tokenizer: Tokenizer, context: int, where: str = "chats"
) -> tuple[list[Encoded], int]:
    """Returns the conversations as tokens with masks, and how many were dropped because they don't fit the context.

    Raises: DataError naming a conversation in which the assistant says nothing, or saying that none is left.
    """
    found, dropped = [], 0
    with progress("conversations", len(chats), "conversations") as bar:
        for number, messages in enumerate(chats, 1):
            if not any(message.role == "assistant" for message in messages):
                raise DataError(
                    f"{where}, row {number}: no message has the role 'assistant', so there is nothing to learn"
                )
            encoded = encode(messages, tokenizer)
            if len(encoded.tokens) > context + 1:
                dropped += 1
            else:
                found.append(encoded)
            bar.advance()
    if not found:
        raise DataError(
            f"{where}: "
            + (f"all {dropped} conversations are longer than the context ({context} tokens)" if dropped else "empty")
        )
    return found, dropped


class ChatSource:
    """Batches of conversations in an order that depends on the seed alone; each is seen once an epoch.

    `replay` adds that many windows of the pretraining text to each step.
    """

    def __init__(
        self, chats: Sequence[Encoded], batch: int, seed: int = 0, rank: int = 0, world: int = 1,
        replay: TokenDataset | None = None, windows: int = 0, replay_weight: float = 0.0,
    ) -> None:  # fmt: skip
        self.chats, self.size, self.rank, self.world = chats, batch, rank, world
        self.replay, self.windows, self.replay_weight = replay, windows, replay_weight
        self.order = Order(len(chats), seed)
        self.scored = [int(chat.mask.sum()) for chat in chats]

    def batch(self, step: int) -> ChatBatch:
        """Returns the batch of a step: a pure function of it."""
        drawn = self.order.share(step, self.size)
        rows = [self.chats[i] for i in drawn[self.rank :: self.world]]
        parts, _ = pad_in_parts(rows, PARTS)
        tokens = sum(len(row.tokens) for row in rows)
        if self.replay is None or not self.windows:
            return ChatBatch(tuple(parts), tokens)
        replay = self.replay.batch(step * self.windows, self.windows, self.rank, self.world)
        # By the whole step's counts, so that sharing it among processes changes nothing.
        scale = self.replay_weight * sum(self.scored[i] for i in drawn) / (self.windows * self.replay.context)
        return ChatBatch(tuple(parts), tokens + replay.tokens.numel(), replay, scale)

    def tokens(self, batch: ChatBatch) -> int:
        """Returns the tokens that the model reads, padding left out."""
        return batch.tokens


def sft_loss(model: Transformer, batch: ChatBatch) -> tuple[Tensor, int, dict[str, float]]:
    """Returns the summed loss of the assistant's tokens, their number, and {"accuracy"}: the share predicted first.

    Replayed text adds to the sum, and not to the number; the metrics then tell "chat_loss" and "replay_loss" apart.
    Equal to: groundup.align.plain.sft_loss
    """
    total, count, right = torch.zeros(()), 0, 0
    for part in batch.parts:
        found = scored(model, part)
        total = total.to(found.logprobs.device) - found.logprobs.sum()
        count += len(found.logprobs)
        with torch.no_grad():
            chosen = part.targets[part.targets != -100].to(found.logits.device)
            right += int((found.logits.argmax(-1) == chosen).sum())
    metrics = {"accuracy": right / max(1, count)}
    if batch.replay is not None and batch.replay_scale:
        replay = batch.replay.to(total.device)
        logits = model(replay.tokens, positions=replay.positions).flatten(0, 1)
        nats = F.cross_entropy(logits, replay.targets.flatten(), reduction="sum")
        metrics |= {
            "chat_loss": float(total.detach()) / max(1, count),
            "replay_loss": float(nats.detach()) / replay.targets.numel(),
        }
        total = total + batch.replay_scale * nats
    return total, count, metrics


def heldout_loss(model: Transformer, chats: Sequence[Encoded], batch: int = 128) -> dict[str, float]:
    """Returns {"heldout_loss", "heldout_accuracy"} of the assistant's tokens in conversations that aren't trained on."""
    total, count, right = 0.0, 0, 0.0
    ordered = sorted(chats, key=lambda chat: len(chat.tokens))
    with torch.no_grad():
        for first in range(0, len(ordered), batch):
            loss, scored_tokens, metrics = sft_loss(model, ChatBatch((pad(ordered[first : first + batch]),), 0))
            total, count = total + float(loss), count + scored_tokens
            right += metrics["accuracy"] * scored_tokens
    return {"heldout_loss": total / max(1, count), "heldout_accuracy": right / max(1, count)}


def _work(config: SFTConfig, stage: Stage) -> dict[str, Any]:
    """Returns the results of the training itself."""
    context = stage.model.config.context
    messages = list(read_chats(config.chats_path))
    chats, dropped = encode_chats(messages, stage.tokenizer, context, str(config.chats_path))
    held = min(round(config.heldout * len(chats)), len(chats) - 1)
    aside, chats = chats[:held], chats[held:]
    if stage.world.main:
        epochs = config.train.steps * config.batch / len(chats)
        long = f"; {dropped} longer than the context of {context} tokens were left out" if dropped else ""
        stage.run.log(f"{len(chats)} conversations ({epochs:.2g} times each), {held} held out{long}")
    replay = None
    if config.replay:
        if config.replay % stage.world.size:
            raise ConfigError(f"replay: {config.replay} windows can't be shared evenly by {stage.world.size} processes")
        replay = TokenDataset(config.shards_path, context, config.train.seed)
        if replay.shards.tokenizer != stage.tokenizer.fingerprint:
            raise DataError(
                f"{config.shards_path}: made by another tokenizer than the model's; give --replay 0 or make it anew"
            )
    source = ChatSource(
        chats,
        config.batch,
        config.train.seed,
        stage.world.rank,
        stage.world.size,
        replay,
        config.replay,
        config.replay_weight,
    )
    results = train(
        stage.model, source, sft_loss, config.train, stage.run, tokenizer_path=stage.tokenizer_path,
        evaluate=(lambda model, step: heldout_loss(model, aside)) if aside else None, precision=stage.precision,
        world=stage.world, flops_per_token=stage.model.config.flops_per_token(),
    )  # fmt: skip
    return results | {"conversations": len(chats), "dropped": dropped}


def main(config: SFTConfig) -> dict[str, Any]:
    """Returns the results of fine-tuning on conversations; continues a run that was interrupted."""
    run = open_run(config.project, "sft", config.name)
    inputs = {"chats": config.chats_path} | ({"replay": config.shards_path / "index.json"} if config.replay else {})
    return run_stage(config, run, "pretrain", "dpo", inputs, lambda stage: _work(config, stage))
