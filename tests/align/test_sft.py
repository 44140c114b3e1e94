"""SFT: which conversations a step sees, that answers are learnt and text is kept, resuming, and the user's mistakes."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groundup.align.config import SFTConfig
from groundup.align.logprobs import Encoded, Order
from groundup.align.sft import ChatSource, encode_chats, main
from groundup.base.errors import CheckpointError, ConfigError, DataError, TokenizerError
from groundup.base.files import write_jsonl
from groundup.base.records import Message
from groundup.base.runs import Run, open_run
from groundup.cli import main as cli_main
from groundup.shards.dataset import TokenDataset
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer
from groundup.train.config import CheckpointConfig, LoopConfig


def chats(count: int) -> list[Encoded]:
    """Returns conversations that can be told apart by their first token."""
    return [Encoded(np.array([i + 1] * (4 + i % 5)), np.arange(4 + i % 5) >= 2) for i in range(count)]


def first_tokens(source: ChatSource, step: int) -> list[int]:
    return [int(row[0]) for part in source.batch(step).parts for row in part.tokens]


def test_each_conversation_is_seen_once_an_epoch_and_ranks_share_a_step() -> None:
    source = ChatSource(chats(12), batch=4, seed=3)
    epoch = [first_tokens(source, step) for step in range(3)]
    assert sorted(itertools.chain(*epoch)) == list(range(1, 13))
    assert [first_tokens(ChatSource(chats(12), 4, 3), step) for step in range(3)] == epoch  # a function of the step
    assert sorted(first_tokens(source, 3)) != sorted(epoch[0])
    ranks = [first_tokens(ChatSource(chats(12), 4, 3, rank, 2), 1) for rank in (0, 1)]
    assert sorted(itertools.chain(*ranks)) == sorted(epoch[1])
    assert source.tokens(source.batch(0)) == sum(4 + (first - 1) % 5 for first in epoch[0])


def test_order_straddles_epochs() -> None:
    order = Order(5, seed=0)
    assert sorted(order[i] for i in range(5, 10)) == [0, 1, 2, 3, 4]
    assert order.share(1, 3) == [order[3], order[4], order[5]]


def test_answers_are_learnt_and_text_is_kept(project: Path) -> None:
    run = open_run(project, "sft")
    rows = [row for row in run.metrics() if "loss" in row]
    assert run.results["accuracy"] > 0.7
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert rows[-1]["replay_loss"] < 0.3 * rows[0]["replay_loss"]
    assert run.results["heldout_accuracy"] > 0.7
    assert {"loss", "accuracy", "lr", "grad_norm", "tokens", "tokens_per_s", "wall_s"} <= rows[0].keys()
    assert run.info["inputs"].keys() == {"start", "chats", "replay"}


def test_a_rerun_does_nothing_and_an_interrupted_run_continues_bit_for_bit(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = SFTConfig(
        project, "short", batch=8, replay=1, train=LoopConfig(steps=6, checkpoint=CheckpointConfig(2), log_every=1)
    )
    whole = main(config)["parameter_hash"]
    assert main(config)["parameter_hash"] == whole
    assert "already done" in capfd.readouterr().out
    run = open_run(project, "sft", "short")
    newest = run.path / "checkpoints" / "step_000006"
    (newest / "DONE").unlink()  # as if it had been killed while writing the last checkpoint
    (run.path / "run.json").write_text(json.dumps(run.info | {"status": "interrupted"}))
    assert main(config)["parameter_hash"] == whole
    assert "continuing from step_000004" in capfd.readouterr().out
    assert [row["step"] for row in run.metrics() if "loss" in row] == [1, 2, 3, 4, 5, 6]


def test_sft_can_be_continued_under_another_name(project: Path) -> None:
    start = project / "06-sft" / "main"
    more = SFTConfig(project, "continued", start, batch=8, replay=0, train=LoopConfig(steps=2, log_every=1))
    assert main(more)["steps"] == 2
    info = open_run(project, "sft", "continued").info
    assert "06-sft/main" in info["inputs"]["start"]["path"] or "../main/" in info["inputs"]["start"]["path"]
    with pytest.raises(ConfigError, match="this very run"):
        main(replace(more, name="main"))
    assert Run(start).done  # untouched


def test_replay_adds_windows_of_the_pretraining_text(project: Path) -> None:
    data = TokenDataset(project / "03-shards" / "main" / "train", 64)
    batch = ChatSource(chats(8), 4, replay=data, windows=2, replay_weight=0.5).batch(1)
    assert batch.replay is not None
    assert batch.replay.tokens.shape == (2, 64)
    assert (batch.replay.tokens[0] == data.batch(2, 2).tokens[0]).all()
    scored = sum(int((part.targets != -100).sum()) for part in batch.parts)
    assert batch.replay_scale == pytest.approx(0.5 * scored / 128)


def test_conversations_that_cannot_be_learnt_are_named() -> None:
    tokenizer = Tokenizer([], list(DEFAULT_SPECIALS), "bytes")
    good = [Message("user", "Hi"), Message("assistant", "Ho")]
    long = [Message("user", "Hi" * 40), Message("assistant", "Ho")]
    found, dropped = encode_chats([good, long], tokenizer, context=32)
    assert (len(found), dropped) == (1, 1)
    with pytest.raises(DataError, match="chats, row 2: no message has the role 'assistant'"):
        encode_chats([good, good[:1]], tokenizer, context=32)
    with pytest.raises(DataError, match=r"all 1 conversations are longer than the context \(32 tokens\)"):
        encode_chats([long], tokenizer, context=32)
    with pytest.raises(DataError, match="empty"):
        encode_chats([], tokenizer, context=32)


def test_mistakes_are_one_line(
    project: Path, make_project: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "mute.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}])
    write_jsonl(tmp_path / "odd.jsonl", [{"messages": [{"role": "bot", "content": "Hi"}]}])
    deaf = make_project(specials=("<|endoftext|>",))
    for argv, message in (
        ([tmp_path / "none"], "05-pretrain/main: not there or not finished; run `groundup pretrain` first"),
        ([project, "--chats", tmp_path / "none.jsonl"], "none.jsonl: no such file"),
        (
            [project, "--chats", tmp_path / "mute.jsonl", "--name", "x"],
            "mute.jsonl, row 1: no message has the role 'assistant'",
        ),
        ([project, "--chats", tmp_path / "odd.jsonl", "--name", "x"], "odd.jsonl, row 1: a message needs 'role'"),
        ([deaf], "tokenizer.json: the tokenizer has no chat tokens"),
        ([project, "--batch", 0], "batch: expected at least 1, not 0"),
        ([project, "--train.micro-batch", 4], "train.micro_batch: pretraining alone knows it"),
        ([project, "--start", project / "01-data"], "not there or not finished"),
    ):
        assert cli_main(["sft", *map(str, argv)]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1, error
    assert not (deaf / "06-sft").exists()
    with pytest.raises(TokenizerError, match="no chat tokens"):
        main(SFTConfig(deaf))
    with pytest.raises(CheckpointError):
        main(SFTConfig(tmp_path / "none"))
