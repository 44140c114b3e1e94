"""Answers in chat form: who is right, what counts as an answer, and that the seed decides."""

import pytest

from groundup.base.errors import DataError, TokenizerError
from groundup.base.records import Problem
from groundup.evals.generate import Answered, answer, answer_problems, answer_text, chat_prompt, require_chat, summarise
from groundup.infer.config import SamplingParams
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import DEFAULT_SPECIALS, end_id
from groundup.tokenizer.encode import Tokenizer


def test_what_was_learnt_is_right_and_what_was_not_is_wrong(
    model: Transformer, tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    answered = answer_problems(model, tokenizer, problems, samples=4, max_tokens=6, seed=0)
    assert [a.id for a in answered] == [p.id for p in problems]
    assert [a.exact for a in answered[:10]] == [1] * 10
    assert [a.greedy for a in answered[:10]] == [p.answer for p in problems[:10]]
    assert sum(a.exact for a in answered[10:]) < 15
    assert all(0 <= a.correct <= 4 for a in answered)
    assert answer_problems(model, tokenizer, problems, samples=4, max_tokens=6, seed=0) == answered
    assert answer_problems(model, tokenizer, problems, samples=4, max_tokens=6, seed=1) != answered


def test_summary(model: Transformer, tokenizer: Tokenizer, problems: list[Problem]) -> None:
    answered = [Answered("a", "x", "1", 1, 8, 8), Answered("b", "x", "2", 0, 2, 8), Answered("c", "y", "", 0, 0, 8)]
    found = summarise(answered)
    assert found["exact_match"]["value"] == pytest.approx(1 / 3)
    assert found["sample_at_1"]["value"] == pytest.approx((1 + 0.25 + 0) / 3)
    assert found["pass_at_8"]["value"] == pytest.approx(2 / 3)
    assert found["exact_match"]["by_skill"]["x"]["value"] == 0.5
    assert found["pass_at_8"]["by_skill"]["y"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["per_problem"][1] == {"id": "b", "skill": "x", "greedy": "2", "exact": 0, "correct": 2, "samples": 8}
    assert found["exact_match"]["low"] <= found["exact_match"]["value"] <= found["exact_match"]["high"]


def test_an_answer_that_was_not_closed_is_wrong(
    model: Transformer, tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    assert answer_text([*b"4", end_id(tokenizer)], tokenizer) == "4"
    assert answer_text([*b"4"], tokenizer) is None
    assert answer_text([*b"4", tokenizer.eot], tokenizer) is None
    assert answer_text([], tokenizer) is None
    params = SamplingParams(temperature=0.0, max_tokens=1)  # room for "2", none for <|end|>
    found = dict(answer(model, tokenizer, problems[:4], params))
    assert not any(answers.correct[0] for answers in found.values())


def test_a_question_that_fills_the_context_is_named(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"problem long: its question takes 84 tokens; with a context of 64"):
        list(answer(model, tokenizer, [Problem("long", "x", "What? " * 13 + "??", "1")], SamplingParams(max_tokens=1)))


def test_a_prompt_gives_the_assistant_the_floor(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(chat_prompt("Hi?", tokenizer)) == "<|endoftext|><|user|>Hi?<|end|><|assistant|>"


def test_a_tokenizer_without_chat_tokens_is_named() -> None:
    with pytest.raises(TokenizerError, match=r"no chat tokens \(<\|user\|>, <\|assistant\|>, <\|end\|>\)"):
        require_chat(Tokenizer([], ["<|endoftext|>"], "bytes"))
    require_chat(Tokenizer([], list(DEFAULT_SPECIALS), "bytes"))
