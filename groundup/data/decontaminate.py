"""Documents that hold an evaluation problem: found by runs of words that they share.

Equal to: groundup.data.plain.contaminated
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from groundup.base.errors import DataError
from groundup.base.files import read_jsonl
from groundup.data.config import DecontaminateConfig
from groundup.data.extract import Drop

__all__ = ["ProblemIndex", "Question", "read_questions", "words"]

WORD = re.compile(r"\w+")
TOKEN = re.compile(r"\w+|[^\w\s]")
QUESTION_KEYS = ("question", "prompt", "query", "context", "text", "input", "instruction")


def words(text: str) -> list[str]:
    """Returns the words of a text, in lower case, without punctuation: what duplicates and contamination are judged by."""
    return WORD.findall(text.lower())


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
        self.starts = {" ".join(run.split(" ", least)[:least]) for run in self.runs}
        self.first = {start.partition(" ")[0] for start in self.starts}
        self.heads = np.array(sorted(xxhash.xxh64_intdigest(start.encode()) for start in self.starts), np.uint64)

    def check(self, text: str) -> Drop | None:
        """Returns a drop for a document that shares a run."""
        least, found = self.config.min_words, words(text)
        for at in range(len(found) - least + 1 if self.runs else 0):
            if found[at] not in self.first or " ".join(found[at : at + least]) not in self.starts:
                continue
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
