"""DPO: the preferences it makes of the model's own answers, what training does to their margins, and the user's mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.align import dpo
from groundup.align.branches import Group
from groundup.align.config import DPOConfig, SampleConfig
from groundup.align.dpo import PreferenceSource, encode_pairs, main, sample_preferences
from groundup.base.errors import DataError
from groundup.base.files import read_jsonl, write_jsonl
from groundup.base.records import Message, Preference, read_preferences, read_problems
from groundup.base.runs import Run, latest_checkpoint, open_run
from groundup.cli import main as cli_main
from groundup.evals.verify import verify
from groundup.infer.config import SamplingParams
from groundup.model.weights import load_model
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load
from groundup.train.config import LoopConfig


def test_own_preferences_are_right_against_wrong(project: Path) -> None:
    file = open_run(project, "dpo").path / "preferences.jsonl"
    found = list(read_preferences(file))
    assert len(found) >= 10
    for preference in found:
        question = preference.prompt[0].content
        assert verify(question, preference.chosen)
        assert not verify(question, preference.rejected)


def test_training_begins_at_the_reference(project: Path) -> None:
    run = open_run(project, "dpo")
    rows = run.metrics()
    assert rows[0]["margin"] == pytest.approx(0.0, abs=1e-4)  # where no answer has gained yet
    assert abs(rows[-1]["margin"]) > 1e-3
    assert {"chosen_logprob", "rejected_logprob", "loss", "lr"} <= rows[0].keys()
    assert run.results["pairs"] >= 10


def test_sampling_continues_from_the_parts_on_disk(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = latest_checkpoint(project / "06-sft" / "main")
    assert start is not None
    model, tokenizer = load_model(start), load(start)
    problems = list(read_problems(project / "tasks" / "problems-train.jsonl"))[:24]
    params = SamplingParams(max_tokens=4, seed=1)
    monkeypatch.setattr(dpo, "CHUNK", 8)
    whole = sample_preferences(Run(tmp_path / "a"), model, tokenizer, problems, params, 4).read_text()
    calls: list[int] = []
    real = dpo.answer

    def stops_at_the_second(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(dpo, "answer", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sample_preferences(Run(tmp_path / "b"), model, tokenizer, problems, params, 4)
    assert sample_preferences(Run(tmp_path / "b"), model, tokenizer, problems, params, 4).read_text() == whole
    assert len(calls) == 4  # of the three parts the first was on disk


def test_a_user_s_preferences_are_trained_on(project: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"Q{i}?"}], "chosen": f"yes {i}", "rejected": "no"} for i in range(8)
    ]
    file = tmp_path / "preferences.jsonl"
    write_jsonl(file, rows)
    loop = LoopConfig(steps=10, lr=2e-3, log_every=1)
    results = main(DPOConfig(project, "own", preferences=file, batch=8, train=loop))
    assert results["pairs"] == 8
    assert results["margin"] > 0.1
    assert results["accuracy"] == 1.0
    assert open_run(project, "dpo", "own").info["inputs"].keys() == {"start", "preferences"}


def test_the_nll_term_keeps_the_chosen_answers_likely(project: Path) -> None:
    file = open_run(project, "dpo").path / "preferences.jsonl"
    loop = LoopConfig(steps=25, lr=3e-3, log_every=1)
    ends = {}
    for weight in (0.0, 1.0):
        config = DPOConfig(project, f"nll{weight:g}", preferences=file, nll_weight=weight, batch=16, train=loop)
        ends[weight] = main(config)["chosen_logprob"]
    assert ends[1.0] > ends[0.0]


def test_only_the_last_answer_is_scored() -> None:
    tokenizer = Tokenizer([], list(DEFAULT_SPECIALS), "bytes")
    prompt = (Message("user", "1?"), Message("assistant", "one"), Message("user", "2?"))
    pairs, dropped = encode_pairs([Preference(prompt, "two", "II")], tokenizer, context=64)
    assert dropped == 0
    assert [tokenizer.decode(answer) for answer in pairs[0].answers] == ["two<|end|>", "II<|end|>"]
    assert tokenizer.decode(pairs[0].prompt).endswith("<|assistant|>one<|end|><|user|>2?<|end|><|assistant|>")


def test_a_batch_keeps_pairs_and_their_reference_together() -> None:
    pairs = [Group(np.full(3 + i % 4, i + 1), [np.full(1 + i % 3, 2 * i), np.full(2, 2 * i + 1)]) for i in range(10)]
    reference = np.arange(20, dtype=np.float32).reshape(10, 2)
    source = PreferenceSource(pairs, reference, batch=4, context=32, seed=0)
    for step in (0, 1, 7):
        batch = source.batch(step)
        expected = batch.reference.long()  # the tokens of each answer are its reference's number
        for part in batch.parts:
            assert torch.equal(part.targets, expected[part.answers])
        assert batch.token_share == 4 / sum(int((part.answers % 2 == 0).sum()) for part in batch.parts)


def test_mistakes_are_one_line(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    same, long = tmp_path / "same.jsonl", tmp_path / "long.jsonl"
    prompt = [{"role": "user", "content": "Hi"}]
    write_jsonl(same, [{"prompt": prompt, "chosen": "a", "rejected": "a"}])
    write_jsonl(long, [{"prompt": prompt, "chosen": "a" * 99, "rejected": "b"}])
    write_jsonl(tmp_path / "half.jsonl", [{"prompt": prompt, "chosen": "a"}])
    rows = list(read_jsonl(project / "tasks" / "problems-train.jsonl"))
    write_jsonl(tmp_path / "keyless.jsonl", [{k: v for k, v in rows[0].items() if k != "answer"}])
    (tmp_path / "empty.jsonl").write_text("")
    for argv, message in (
        ([tmp_path], "06-sft/main: not there or not finished; run `groundup sft` first"),
        ([project, "--preferences", same], "same.jsonl, row 1: chosen and rejected are the same text"),
        ([project, "--preferences", long], "all 1 pairs are longer than the context (64)"),
        ([project, "--preferences", tmp_path / "half.jsonl"], "row 1: 'chosen' and 'rejected' must be text"),
        ([project, "--sample.problems", tmp_path / "keyless.jsonl"], "keyless.jsonl, row 1: 'answer' is missing"),
        ([project, "--sample.problems", tmp_path / "empty.jsonl"], "empty.jsonl: empty"),
        ([project, "--beta", "0"], "beta: expected a number above 0"),
        ([project, "--sample.answers", "1"], "sample.answers: expected at least 2"),
    ):
        assert cli_main(["dpo", *map(str, argv), *(() if argv[0] == tmp_path else ("--name", "x"))]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1, error


def test_no_pairs_at_all_is_explained(project: Path, tmp_path: Path) -> None:
    problem = {"id": "1", "skill": "none", "question": "Say the unsayable.", "answer": "\u2603" * 9}
    write_jsonl(tmp_path / "hopeless.jsonl", [problem])
    sample = SampleConfig(problems=tmp_path / "hopeless.jsonl", answers=2, max_tokens=2)
    with pytest.raises(DataError, match="of 1 problems none had both a right and a wrong answer"):
        main(DPOConfig(project, "hopeless", sample=sample))
    assert json.loads((open_run(project, "dpo", "hopeless").path / "run.json").read_text())["status"] == "failed"
