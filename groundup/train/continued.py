"""Going on from weights that are there: new text, some of the old beside it, and how much of the old is forgotten."""

from collections.abc import Callable
from pathlib import Path

from groundup.base.errors import DataError, TokenizerError
from groundup.base.runs import open_run
from groundup.model.transformer import Transformer
from groundup.model.weights import fill, load_tensors
from groundup.shards.dataset import Replayed, TokenDataset
from groundup.shards.read import Shards
from groundup.tokenizer.encode import Tokenizer
from groundup.train.config import PretrainConfig

__all__ = ["forgetting", "load_start", "old_folder", "training_data"]


def old_folder(config: PretrainConfig) -> Path | None:
    """Returns the run with the token files of the older text, or None where none is named.

    Raises: DataError if it isn't there, or has no held-out text to measure forgetting on.
    """
    if not config.replay.shards:
        return None
    folder = open_run(config.project, "shards", config.replay.shards).require_done("shards").path
    if Shards(folder / "heldout").tokens < 2:
        raise DataError(
            f"{folder / 'heldout'}: empty, so what is forgotten can't be measured; keep some text out of training"
        )
    return folder


def training_data(config: PretrainConfig, tokenizer: Tokenizer) -> TokenDataset:
    """Returns the text to train on, with a share of the older text where that is replayed.

    Raises: TokenizerError if the older text was made into tokens by another tokenizer.
    """
    folder = open_run(config.project, "shards", config.shards).path / "train"
    options = (config.model.context, config.train.seed, config.document_mask)
    old = old_folder(config)
    if old is not None and Shards(old / "train").tokenizer != tokenizer.fingerprint:
        raise TokenizerError(f"{old}: made with another tokenizer than the new text; encode both with one")
    if old is None or not config.replay.share:
        return TokenDataset(folder, *options)
    return Replayed(folder, TokenDataset(old / "train", *options), config.replay.share)


def load_start(config: PretrainConfig, model: Transformer) -> None:
    """Fills the model with the weights that it starts from, if it starts from any."""
    if config.start is not None:
        file = config.start / "model.safetensors"
        fill(model, load_tensors(file), file)


def forgetting(
    config: PretrainConfig, model: Transformer, loss: Callable[[Transformer, Shards], float]
) -> Callable[[Transformer], dict[str, float]]:
    """Returns what measures {"old_heldout_loss", "forgotten"}: nats per token on the older text, and their rise since now.

    It measures nothing where no older text is named. The model is as it starts.
    """
    folder = old_folder(config)
    if folder is None:
        return lambda model: {}
    shards = Shards(folder / "heldout")
    before = loss(model.eval(), shards)
    model.train()

    def measure(model: Transformer) -> dict[str, float]:
        after = loss(model, shards)
        return {"old_heldout_loss": after, "forgotten": after - before}

    return measure
