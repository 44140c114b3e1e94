"""Bits per byte: a model that knows nothing needs log2(V) bits a token; context, padding and vocabulary change nothing."""

import math

import pytest
import torch

from groundup.base.errors import DataError
from groundup.evals import perplexity
from groundup.evals.perplexity import bits_per_byte
from groundup.model.transformer import Transformer
from groundup.tokenizer.encode import Tokenizer


def test_an_ignorant_model_needs_the_logarithm_of_its_vocabulary(model: Transformer, tokenizer: Tokenizer) -> None:
    ignorant = Transformer(model.config, seed=0)
    torch.nn.init.zeros_(ignorant.embed.weight)
    texts = ["Ein Satz.", "Zwölf Bären", "x" * 200]
    found = bits_per_byte(ignorant, tokenizer, texts)
    size = sum(len(text.encode()) for text in texts)
    assert found["value"] == pytest.approx(math.log2(tokenizer.vocab_size) * (size + 3) / size, rel=1e-6)  # 3 ends
    assert found["nats_per_token"] == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-6)
    assert (found["documents"], found["bytes"], found["tokens"]) == (3, size, size + 3)


def test_documents_do_not_see_each_other(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["What is 1 + 1?", "a" * 150, "", "2"]
    together = bits_per_byte(model, tokenizer, texts)
    bits = sum(bits_per_byte(model, tokenizer, [text])["value"] * len(text) for text in texts if text)
    assert together["value"] == pytest.approx(bits / sum(map(len, texts)), rel=1e-5)
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 1)  # one window at a time
    assert bits_per_byte(model, tokenizer, texts)["value"] == pytest.approx(together["value"], rel=1e-5)


def test_the_interval_of_a_single_long_text_is_over_its_windows(model: Transformer, tokenizer: Tokenizer) -> None:
    text = "".join(f"{n} bears, ä, and {n * n} more. " for n in range(200))
    found = bits_per_byte(model, tokenizer, [text])
    assert found["low"] < found["value"] < found["high"]
    assert found["bytes"] == len(text.encode())


def test_nothing_to_measure_is_said(model: Transformer, tokenizer: Tokenizer) -> None:
    for texts in ([], [""]):
        with pytest.raises(DataError, match="no held-out text"):
            bits_per_byte(model, tokenizer, texts)
