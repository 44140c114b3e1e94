"""What leaves: a trained model with its tokenizer, and what it was trained for."""

from dataclasses import dataclass
from pathlib import Path

from groundup.base.errors import CheckpointError
from groundup.export.config import CHAT_STAGES, stage_of
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model
from groundup.tokenizer.chat import chat_form, roles
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load

__all__ = ["Trained", "load_trained"]


@dataclass(frozen=True)
class Trained:
    """A model on its way out. `stage` is "" for a checkpoint that lies outside a project."""

    checkpoint: Path
    model: Transformer
    tokenizer: Tokenizer
    stage: str

    @property
    def chats(self) -> bool:
        """Whether it was taught to answer in chat form, here or before it came here."""
        form = chat_form(self.tokenizer)
        return form == "theirs" or (form == "ours" and self.stage in CHAT_STAGES)

    @property
    def end(self) -> str:
        """The special token with which a generation ends."""
        begin, end = roles(self.tokenizer)
        return end if self.chats else begin


def load_trained(checkpoint: Path) -> Trained:
    """Returns what a checkpoint holds. Raises: CheckpointError for a tokenizer that isn't the model's."""
    model, tokenizer = load_model(checkpoint), load(checkpoint)
    if tokenizer.vocab_size > model.config.vocab_size:
        sizes = f"{tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        raise CheckpointError(f"{checkpoint}: its tokenizer has {sizes}; they don't belong together")
    return Trained(checkpoint, model, tokenizer, stage_of(checkpoint))
