"""A model on its way in, whoever made it, and the words of a conversation for one that has none."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from groundup.base.errors import TokenizerError
from groundup.model.config import ModelConfig
from groundup.tokenizer.chat import DEFAULT_SPECIALS, END, TEMPLATE, roles
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.foreign import Foreign
from groundup.tokenizer.io import load, read_merges

__all__ = ["Incoming", "read_words", "with_chat"]


@dataclass(frozen=True)
class Incoming:
    """A model in our own form: config, state, tokenizer, and where it came from."""

    config: ModelConfig
    state: Mapping[str, Tensor]
    tokenizer: Tokenizer
    source: str

    def validate(self) -> None:
        """Raises: TokenizerError for a tokenizer with more tokens than the model, or without a beginning of documents."""
        size = self.tokenizer.vocab_size
        if size > self.config.vocab_size:
            raise TokenizerError(
                f"{self.source}: the tokenizer has {size} tokens, the model {self.config.vocab_size}; they don't belong together"
            )
        if roles(self.tokenizer)[0] not in self.tokenizer.specials:
            raise TokenizerError(f"{self.source}: the tokenizer has no special token that begins a document")


def read_words(path: Path) -> Tokenizer:
    """Returns the tokenizer in a file or a folder: whatever `load` knows by its content, and GPT-2's bare merges (vocab.bpe)."""
    return read_merges(path) if path.suffix in (".bpe", ".txt") else load(path)


def with_chat(model: Incoming) -> Incoming:
    """Returns the model with the words of our chat form in its vocabulary, each new one with the mean of all rows.

    One that brings its own chat template stays as it is.
    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models" (the mean).
    """
    old = model.tokenizer
    if old.chat_template is not None:
        return model
    begin, _ = roles(old)  # what our chat form calls <|endoftext|>
    new = [name for name in DEFAULT_SPECIALS if name != EOT and name not in old.specials]
    template = TEMPLATE.replace(EOT, begin)
    if isinstance(old, Foreign):
        specials = old.specials | {name: old.vocab_size + i for i, name in enumerate(new)}
        tokenizer: Tokenizer = Foreign(
            old.merges, specials, old.pattern, old.byte_order, template, labels=old.labels, spare=old.spare,
            whole_words=old.whole_words, normal=old.normal, begin=begin, end=END,
        )  # fmt: skip
    else:
        tokenizer = Tokenizer(old.merges, [*old.specials, *new], old.pattern, old.byte_order, template)
    size = max(model.config.vocab_size, tokenizer.vocab_size)
    state = dict(model.state)
    for name in state.keys() & {"embed.weight", "head.weight"}:
        state[name] = _grown(state[name], old.vocab_size, tokenizer.vocab_size, size)
    return replace(model, config=replace(model.config, vocab_size=size), state=state, tokenizer=tokenizer)


def _grown(table: Tensor, used: int, wanted: int, size: int) -> Tensor:
    """Returns the table with `size` rows; rows [used, wanted) are the mean of those before, what pads the end stays."""
    rows = torch.cat([table, table.new_zeros(max(0, size - len(table)), table.shape[1])])
    rows[used:wanted] = table[:used].mean(0)
    return rows
