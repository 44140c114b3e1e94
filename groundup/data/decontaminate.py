"""Documents that hold an evaluation problem: found by runs of words that they share.

Equal to: groundup.data.plain.contaminated
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.base.errors import DataError
from groundup.base.files import read_jsonl
from groundup.data.config import DecontaminateConfig
from groundup.data.dedup import shingles, words
from groundup.data.extract import Drop

__all__ = ["ProblemIndex", "Question", "read_questions"]

TOKEN = re.compile(r"\w+|[^\w\s]")
QUESTION_KEYS = ("question", "prompt", "query", "context", "text", "input", "instruction")


class Question(NamedTuple):
    """A problem's text. `whole`: made from a template, so that runs of words are shared by design and only all of it counts."""

    text: str
    whole: bool = False


def read_questions(paths: Sequence[Path], whole: bool = False) -> list[Question]:
    """Returns the problems in JSONL files. Raises: DataError for a file without any."""
    questions: list[Question] = []
    for path in paths:
        before = len(questions)
        for number, row in enumerate(read_jsonl(path), 1):
            key = next((k for k in QUESTION_KEYS if isinstance(row.get(k), str)), None)
            if key is None:
                raise DataError(
                    f"{path}, row {number}: none of the keys {', '.join(QUESTION_KEYS)} (it has {', '.join(row)})"
                )
            questions.append(Question(row[key], whole))
        if len(questions) == before:
            raise DataError(f"{path}: no problems in it, so nothing could be kept out of the training text")
    return questions


class ProblemIndex:
    """The runs of words that may not occur in a document: `ngram` words of a problem, or all of a shorter or templated one."""

    def __init__(self, questions: Iterable[Question], config: DecontaminateConfig) -> None:
        self.config = config
        self.runs: set[str] = set()
        self.templated: dict[
            str, set[str]
        ] = {}  # run -> the problems' wordings, with their punctuation: "e l i?" isn't in "e l i b"
        for question in questions:
            found = words(question.text)
            if len(found) >= config.min_words:
                n = len(found) if question.whole else min(config.ngram, len(found))
                self.runs |= (runs := {" ".join(found[i : i + n]) for i in range(len(found) - n + 1)})
                if question.whole:
                    self.templated.setdefault(runs.pop(), set()).add(_wording(question.text))
        self.lengths = sorted({run.count(" ") + 1 for run in self.runs})
        # The first words of each run, hashed: a document without any of them is clean, and most are.
        least = config.min_words
        self.heads = np.array(sorted({int(shingles(run.split(" ")[:least], least)[0]) for run in self.runs}), np.uint64)

    def check(self, text: str, found: list[str], hashes: np.ndarray | None = None) -> Drop | None:
        """Returns a drop for a document that shares a run. `found`: its words; `hashes`: its shingles of `min_words`, if at hand."""
        least = self.config.min_words
        if not self.runs or len(found) < least:
            return None
        hashes = shingles(found, least) if hashes is None else hashes
        nearest = self.heads[np.minimum(np.searchsorted(self.heads, hashes), len(self.heads) - 1)]
        for at in np.flatnonzero(nearest == hashes).tolist():
            for n in self.lengths:
                if (
                    at + n <= len(found)
                    and (run := " ".join(found[at : at + n])) in self.runs
                    and self._worded(text, run)
                ):
                    return Drop("decontaminate", "problem_overlap", n, min(self.config.ngram, n), run)
        return None

    def _worded(self, text: str, run: str) -> bool:
        """Returns whether a templated problem stands in the text word for word and mark for mark; True for other problems."""
        wordings = self.templated.get(run)
        return wordings is None or any(wording in _wording(text) for wording in wordings)


def _wording(text: str) -> str:
    return f" {' '.join(TOKEN.findall(text.lower()))} "
