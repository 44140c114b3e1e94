"""A checkpoint as nanoGPT writes it comes in with equal logits, its characters included, and nothing in it is run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.base.errors import CheckpointError, TokenizerError
from groundup.base.runs import latest_checkpoint, open_run
from groundup.export.adopt import main, read
from groundup.export.config import ImportConfig
from groundup.export.nanogpt import characters
from groundup.model.weights import load_model
from groundup.tokenizer.encode import EOT
from groundup.tokenizer.io import load, save
from groundup.tokenizer.train import train

Make = Callable[..., Any]
TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak!\n"


def imported(project: Path) -> tuple[Any, Any]:
    found = latest_checkpoint(open_run(project, "pretrain").path)
    assert found is not None
    return load_model(found), load(found)


@pytest.mark.parametrize("bias", [True, False])
def test_a_model_of_tokens(bias: bool, nanogpt: Make, differ: Make, tmp_path: Path) -> None:
    words = train([TEXT * 9], 280, specials=(EOT,))
    save(words, tmp_path / "words.json")
    theirs = nanogpt(tmp_path / "out" / "ckpt.pt", 320, bias, compiled=True)  # nanoGPT pads its vocabulary
    main(ImportConfig(tmp_path / "out", tmp_path / "mine", tokenizer=tmp_path / "words.json"))
    model, tokenizer = imported(tmp_path / "mine")
    tokens = torch.randint(280, (2, 48), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, others = model(tokens), theirs(tokens)
    assert others.std() > 0.3
    known = [*range(280), *range(tokenizer.vocab_size, 320)]  # all but the rows that became the words of our chat form
    differ("nanoGPT, imported", "logits", float((ours - others)[..., known].abs().max()), 1e-4)
    assert model.config.params() == sum(p.numel() for p in model.parameters())
    assert tokenizer.encode("hear me") == words.encode("hear me")


@pytest.mark.parametrize("bias", [True, False])
def test_a_model_of_characters(bias: bool, nanogpt: Make, differ: Make, tmp_path: Path) -> None:
    text = TEXT + "naïve, 日本\n"
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    found = sorted(set(text))
    theirs = nanogpt(tmp_path / "out" / "ckpt.pt", len(found), bias)
    main(ImportConfig(tmp_path / "out" / "ckpt.pt", tmp_path / "mine", text=tmp_path / "input.txt"))
    model, tokenizer = imported(tmp_path / "mine")
    piece = "naïve Citizen:\n日本 speak"
    ids, their_ids = tokenizer.encode(piece), [found.index(character) for character in piece]
    assert len(ids) == len(piece)
    assert tokenizer.decode(ids) == piece
    with torch.no_grad():
        ours, others = model(torch.tensor([ids])), theirs(torch.tensor([their_ids]))
    rows = [tokenizer.encode(character)[0] for character in found]
    assert others.std() > 0.3
    differ("nanoGPT of characters, imported", "logits", float((ours[..., rows] - others).abs().max()), 1e-4)
    rest = sorted(set(range(tokenizer.vocab_size - 4)) - set(rows))  # what its text never held, our chat's words apart
    assert (ours[..., rest] + 20).abs().max() <= 1e-3


def test_characters_are_tokens_of_their_own() -> None:
    text = "añb日ñc日月"
    tokenizer, found = characters(text)
    assert found == sorted(set(text))
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.decode(tokenizer.encode("other: ó 🙂")) == "other: ó 🙂"
    assert characters("abc")[0].pattern == "bytes"


def test_bad_checkpoints_are_named(nanogpt: Make, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.write_text, (tmp_path / "run", "was run")

    def refused(message: str, saved: Any = None, **more: Any) -> None:
        if saved is not None:
            torch.save(saved, tmp_path / "ckpt.pt")
        with pytest.raises((CheckpointError, TokenizerError), match=message):
            read(tmp_path / "ckpt.pt", **more)

    refused("no such file")
    refused("nothing else is opened", {"model": Evil()})
    assert not (tmp_path / "run").exists()
    (tmp_path / "ckpt.pt").write_bytes(pickle.dumps({"model": 1}))
    refused("nothing else is opened")
    (tmp_path / "ckpt.pt").write_bytes(b"half a fi")
    refused("nothing else is opened")
    refused("no 'model' and 'model_args'", {"model": {}})
    model = nanogpt(tmp_path / "good" / "ckpt.pt", 30)
    state = dict(model.state_dict())
    good = {"model": state, "model_args": model.args}
    refused("30 tokens and no word of what they mean .* give --text", good)
    refused("no n_head", {**good, "model_args": {k: v for k, v in model.args.items() if k != "n_head"}})
    refused("not divisible", {**good, "model_args": {**model.args, "n_head": 5}})
    refused(
        "transformer.extra.weight is unknown", {**good, "model": {**state, "transformer.extra.weight": torch.zeros(2)}}
    )
    refused(
        "norm.weight is missing", {**good, "model": {k: v for k, v in state.items() if k != "transformer.ln_f.weight"}}
    )
    refused("embed.weight is .* expect", {**good, "model": {**state, "transformer.wte.weight": torch.zeros(7, 32)}})
    refused("int64", {**good, "model": {**state, "transformer.ln_f.weight": torch.ones(32, dtype=torch.long)}})
    (tmp_path / "input.txt").write_text("abc")
    refused("3 different characters, the model has 30", good, text=tmp_path / "input.txt")
    save(train([TEXT * 9], 280), tmp_path / "words.json")
    refused("280 tokens, the model 30", good, tokenizer=tmp_path / "words.json")
