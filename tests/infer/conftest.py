"""Checkpoints of tiny models that nobody trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.base.files import write_json
from groundup.base.runs import STAGES, write_checkpoint
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
from groundup.tokenizer import io
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer

LETTERS = "abcdefgh "


@pytest.fixture(scope="session")
def make_project() -> Callable[..., Path]:
    """Makes a project whose model, whatever it reads, writes any of LETTERS alike, and so never ends by itself."""

    def make(folder: Path, stage: str = "sft", context: int = 256, letters: str = LETTERS, end: float = -50.0) -> Path:
        tokenizer = Tokenizer([], DEFAULT_SPECIALS, "bytes")
        config = ModelConfig(family="gpt2", vocab_size=tokenizer.vocab_size, context=context, d_model=16, n_layers=1,
                             n_heads=2, tie_embeddings=False)  # fmt: skip
        model = Transformer(config, seed=0)
        with torch.no_grad():  # the last norm gives (1, 0, 0, ...) always, so the head's first column are the logits
            model.norm.weight.zero_()
            model.norm.bias.zero_()[0] = 1
            model.head.weight.zero_()[:, 0] = -50
            model.head.weight[list(letters.encode()), 0] = 1
            model.head.weight[tokenizer.specials["<|end|>"], 0] = end
        run = folder / STAGES[stage] / "main"
        with write_checkpoint(run, 1) as checkpoint:
            save_model(model, checkpoint)
            io.save(tokenizer, checkpoint)
        write_json(run / "run.json", {"status": "done"})
        return folder

    return make


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("chat") / "tiny")
