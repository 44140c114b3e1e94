"""Answers in chat form, checked by a program: greedy exact match, sample@1 and pass@k."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from groundup.base.errors import DataError, TokenizerError
from groundup.base.log import progress
from groundup.base.records import Message, Problem
from groundup.evals.score import mean_interval, pass_at_k
from groundup.evals.verify import verify
from groundup.infer.config import SamplingParams
from groundup.infer.sample import generate
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import chat_form, end_id, render
from groundup.tokenizer.encode import Tokenizer

__all__ = [
    "Answered",
    "Answers",
    "answer",
    "answer_problems",
    "answer_text",
    "chat_prompt",
    "require_chat",
    "summarise",
]

CHUNK = 2048  # answers between two moves of the progress line


@dataclass(frozen=True)
class Answered:
    """What a model did with one problem: its greedy answer, and how many of `samples` sampled ones were right."""

    id: str
    skill: str
    greedy: str
    exact: int
    correct: int
    samples: int


@dataclass(frozen=True)
class Answers:
    """The answers to one problem: their tokens (with the closing one, where the model closed), texts and correctness."""

    tokens: list[list[int]]
    texts: list[str]
    correct: list[bool]


def require_chat(tokenizer: Tokenizer) -> None:
    """Raises: TokenizerError where the vocabulary has no words for whose turn it is."""
    if not chat_form(tokenizer):
        raise TokenizerError(
            "the tokenizer has no chat tokens (<|user|>, <|assistant|>, <|end|>), so the model can't hold a conversation; "
            "train a tokenizer with them and pretrain with that"
        )


def chat_prompt(question: str, tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens that ask a question in chat form and give the assistant the floor."""
    return render([Message("user", question)], tokenizer, generation_prompt=True).tokens


def answer_text(tokens: Sequence[int], tokenizer: Tokenizer) -> str | None:
    """Returns the text of a generated answer, or None where it wasn't closed: a half answer counts as wrong."""
    if not tokens or tokens[-1] != end_id(tokenizer):
        return None
    return tokenizer.decode(tokens[:-1])


def answer(
    model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], params: SamplingParams, n: int = 1
) -> Iterator[tuple[Problem, Answers]]:
    """Yields each problem with n answers, checked; in chunks of similar length, so not in the order given.

    A problem's answers depend on the seed, the problems' order and the model. An answer is right if it was closed by
    <|end|> within `max_tokens` and the verifier accepts its text.
    Raises: DataError naming a problem whose question fills the context.
    """
    prompts = [chat_prompt(problem.question, tokenizer) for problem in problems]
    for problem, prompt in zip(problems, prompts, strict=True):
        if len(prompt) >= model.config.context:
            raise DataError(
                f"problem {problem.id}: its question takes {len(prompt)} tokens; with a context of {model.config.context} "
                "the model can't answer it, so leave it out"
            )
    params = replace(params, stop_ids=(end_id(tokenizer), tokenizer.eot))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    size, verdicts = max(1, CHUNK // n), {}
    for first in range(0, len(order), size):
        chunk = order[first : first + size]
        found = generate(model, [prompts[i] for i in chunk], replace(params, seed=params.seed + first), n)
        for place, i in enumerate(chunk):
            tokens = found[place * n : (place + 1) * n]
            texts = [answer_text(ids, tokenizer) for ids in tokens]
            for text in set(texts):
                if (i, text) not in verdicts:
                    verdicts[i, text] = text is not None and verify(problems[i], text)
            yield problems[i], Answers(tokens, [text or "" for text in texts], [verdicts[i, text] for text in texts])


def answer_problems(
    model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], samples: int, max_tokens: int, seed: int
) -> list[Answered]:
    """Returns what the model does with each problem, in the order given: once greedily, `samples` times at temperature 1."""
    require_chat(tokenizer)
    greedy, sampled = {}, {}
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, seed=seed)
    with progress("answers", len(problems) * (1 + samples), "answers") as bar:
        for problem, found in answer(model, tokenizer, problems, params):
            greedy[problem.id] = (found.texts[0], int(found.correct[0]))
            bar.advance(1)
        for problem, found in answer(model, tokenizer, problems, replace(params, temperature=1.0), samples):
            sampled[problem.id] = sum(found.correct)
            bar.advance(samples)
    return [Answered(p.id, p.skill, *greedy[p.id], sampled[p.id], samples) for p in problems]


def summarise(answered: Sequence[Answered], k: int = 8, seed: int = 0) -> dict[str, Any]:
    """Returns {"exact_match", "sample_at_1", "pass_at_k": {"value", "low", "high", "by_skill"}, "per_problem": [...]}.

    Exact match is the share of problems whose greedy answer is right; sample@1 the mean share of right answers among the
    sampled ones; pass@k the chance that one of k is right. Intervals are over problems.
    """
    if not answered:
        raise ValueError("there are no answers to summarise")
    samples = answered[0].samples
    k = min(k, samples)
    vectors = {
        "exact_match": [float(a.exact) for a in answered],
        "sample_at_1": [a.correct / a.samples for a in answered],
        f"pass_at_{k}": pass_at_k(samples, [a.correct for a in answered], k),
    }
    skills = sorted({a.skill for a in answered})
    result: dict[str, Any] = {}
    for name, values in vectors.items():
        by_skill = {
            skill: mean_interval([v for v, a in zip(values, answered, strict=True) if a.skill == skill], seed).as_dict()
            for skill in skills
        }
        result[name] = mean_interval(values, seed).as_dict() | {"by_skill": by_skill}
    return result | {"per_problem": [asdict(a) for a in answered]}
