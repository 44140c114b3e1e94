"""A quality classifier learnt from good and bad examples: hashed runs of words, logistic regression; scores as a Parquet column.

In the manner of DCLM and FineWeb-Edu (Li et al. 2024; Penedo et al. 2024), small enough to train in seconds. A score is the probability
that a document is like the good examples. Memory: eight bytes a word of the examples; scoring goes by pieces of the files, on all cores.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groundup.base.errors import DataError
from groundup.base.files import atomic_file, os_error, read_jsonl
from groundup.base.kernels import kernel
from groundup.base.log import command, progress, say
from groundup.base.records import Document, read_documents
from groundup.data.characters import letters
from groundup.data.config_classifier import ClassifierScoreConfig, ClassifierTrainConfig
from groundup.data.engine import processes_for, workers
from groundup.data.minhash import lower_buffer, run_hash, word_bytes

__all__ = ["Classifier", "area", "hashed", "read_texts", "score", "train"]

BATCH = 1000  # documents scored at a time
FORMAT = "groundup-classifier-1"


class Classifier(NamedTuple):
    """A weight for every bucket of runs of 1 to `ngram` words, and the bias in the last place."""

    weights: np.ndarray
    ngram: int

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the probability that each text is good. Shape: (texts,)."""
        return _scores(*hashed(texts, self.ngram, len(self.weights) - 1), self.weights)

    def save(self, path: Path) -> None:
        """Writes the classifier atomically, as NumPy's .npz without pickles."""
        with atomic_file(path) as temporary, open(temporary, "wb") as handle:
            np.savez_compressed(handle, format=FORMAT, weights=self.weights, ngram=self.ngram)

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Returns a saved classifier. Raises: DataError for another file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file["format"]) == FORMAT:
                    return cls(file["weights"], int(file["ngram"]))
        except OSError as error:
            raise os_error(error, path) from error
        except (ValueError, KeyError, EOFError):
            pass
        raise DataError(f"{path}: no classifier; make one with `groundup data classifier train --good FILE --bad FILE`")


def read_texts(path: Path) -> Iterator[Document]:
    """Yields the documents of a Parquet or JSONL file (key text), or the lines of a text file. Raises: DataError."""
    if path.suffix == ".parquet":
        yield from read_documents(path)
    elif ".jsonl" in path.suffixes:
        for number, row in enumerate(read_jsonl(path), 1):
            if not isinstance(row.get("text"), str):
                raise DataError(f"{path}, row {number}: 'text' is missing or not text")
            yield Document(str(row.get("id", f"{path.name}:{number}")), row["text"], path.name)
    elif path.suffix == ".txt":
        try:
            with open(path, encoding="utf-8", errors="replace") as lines:
                yield from (
                    Document(f"{path.name}:{n}", line.strip(), path.name)
                    for n, line in enumerate(lines, 1)
                    if line.strip()
                )
        except OSError as error:
            raise os_error(error, path) from error
    else:
        raise DataError(f"{path}: expected .jsonl, .parquet or .txt (one example a line)")


def hashed(texts: Sequence[str], ngram: int, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the buckets of the different runs of 1 to `ngram` words of each text, and where each text's begin.

    Shapes: (runs of all texts,) int32, (texts + 1,).
    """
    data, offsets = lower_buffer(texts)
    return _hashed(data, offsets, letters(), ngram, buckets)


@kernel
def _hashed(data, offsets, letters, ngram, buckets):  # type: ignore[no-untyped-def]
    longest = 8
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    bounds, text = np.empty(longest + 2, np.int64), np.zeros(2 * longest + 8, np.uint8)
    ids, ends = np.empty(len(data) * ngram + 1, np.int32), np.zeros(len(offsets), np.int64)
    seen = np.full(buckets, -1, np.int64)  # the last document with something in the bucket
    size = 0
    for d in range(len(offsets) - 1):
        count = word_bytes(data, offsets[d], offsets[d + 1], letters, text, bounds)
        for n in range(1, ngram + 1):
            for i in range(count - n + 1):
                bucket = np.int64(run_hash(text, bounds[i], bounds[i + n] - 1) % np.uint64(buckets))
                if seen[bucket] != d:
                    seen[bucket] = d
                    ids[size] = bucket
                    size += 1
        ends[d + 1] = size
    return ids[:size].copy(), ends


@kernel
def _scores(ids, ends, weights):  # type: ignore[no-untyped-def]
    """Returns sigmoid(bias + sum of weights / sqrt(runs)) for each text."""
    out = np.empty(len(ends) - 1)
    for d in range(len(out)):
        total = 0.0
        for k in range(ends[d], ends[d + 1]):
            total += weights[ids[k]]
        out[d] = 1 / (1 + np.exp(-(weights[-1] + total / np.sqrt(max(ends[d + 1] - ends[d], 1)))))
    return out


@kernel
def _epoch(ids, ends, labels, shares, order, weights, squares, rate, decay):  # type: ignore[no-untyped-def]
    """One pass of AdaGrad over the examples in the given order. Source: Duchi et al. 2011."""
    for d in order:
        total, scale = 0.0, 1 / np.sqrt(max(ends[d + 1] - ends[d], 1))
        for k in range(ends[d], ends[d + 1]):
            total += weights[ids[k]]
        error = (1 / (1 + np.exp(-(weights[-1] + total * scale))) - labels[d]) * shares[d]
        for k in range(ends[d], ends[d + 1]):
            slope = error * scale + decay * weights[ids[k]]
            squares[ids[k]] += slope * slope
            weights[ids[k]] -= rate * slope / np.sqrt(squares[ids[k]] + 1e-8)
        squares[-1] += error * error
        weights[-1] -= rate * error / np.sqrt(squares[-1] + 1e-8)


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the area under the ROC curve: how often a good example scores above a bad one (ties count half)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    good = int(labels.sum())
    return float((ranks[labels == 1].sum() - good * (good + 1) / 2) / (good * (len(labels) - good)))


def fit(texts: Sequence[str], labels: np.ndarray, config: ClassifierTrainConfig) -> Classifier:
    """Returns the classifier after all epochs; good and bad examples weigh the same however many there are."""
    ids, ends = hashed(texts, config.ngram, config.buckets)
    weights, squares = np.zeros(config.buckets + 1), np.zeros(config.buckets + 1)
    good = labels.mean()
    shares, dice = np.where(labels == 1, 0.5 / good, 0.5 / (1 - good)), np.random.default_rng(config.seed)
    for _ in range(config.epochs):
        _epoch(ids, ends, labels, shares, dice.permutation(len(texts)), weights, squares, config.rate, config.decay)
    return Classifier(weights.astype(np.float32), config.ngram)


def train(config: ClassifierTrainConfig) -> None:
    """Trains on the examples, tells how it does on those it hasn't seen, and writes the classifier."""
    texts: list[str] = []
    labels: list[int] = []
    for label, paths in ((1, config.good), (0, config.bad)):
        before = len(texts)
        texts += [document.text for path in paths for document in read_texts(path)]
        labels += [label] * (len(texts) - before)
        if len(texts) - before < 10:
            raise DataError(
                f"{'good' if label else 'bad'}: {len(texts) - before} examples are too few; give at least 10"
            )
    truth, order = np.array(labels, np.float64), np.random.default_rng(config.seed).permutation(len(texts))
    held = order[: max(int(config.heldout * len(texts)), 2)]
    rest = np.setdiff1d(order, held)
    classifier = fit([texts[k] for k in rest], truth[rest], config)
    scores, known = classifier.scores([texts[k] for k in held]), truth[held]
    say(f"{int(truth.sum()):,} good and {int((1 - truth).sum()):,} bad examples, of which {len(held):,} were held out")
    if 0 < known.sum() < len(known):
        say(
            f"held out: right in {((scores >= 0.5) == known).mean():.1%}, a good one above a bad one in {area(scores, known):.1%}"
        )
    classifier.save(config.out)
    say(f"wrote {config.out}\nnext: {command('data', 'classifier', 'score')} --model {config.out}")


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH)):
        yield batch


_loaded: list[Classifier] = []  # one entry a worker, made by `_begin`


def _begin(model: Path) -> None:
    _loaded[:] = [Classifier.load(model)]


def _pieces(paths: Iterable[Path]) -> Iterator[tuple[Path, int | None]]:
    """Yields what a worker scores at a time: a row group of a Parquet file, another file whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        groups = 0
        with suppress(pa.ArrowInvalid, OSError):  # who reads it, names it
            groups = pq.read_metadata(path).num_row_groups if path.suffix == ".parquet" else 0
        yield from ((path, group) for group in range(groups)) if groups else ((path, None),)


def _score_piece(task: tuple[Path, int | None]) -> tuple[list[str], np.ndarray]:
    """Returns the ids and scores of a piece's documents."""
    path, group = task
    ids, scores = list[str](), [np.zeros(0)]
    for batch in _batches(read_texts(path) if group is None else read_documents(path, group)):
        ids += [document.id for document in batch]
        scores.append(_loaded[0].scores([document.text for document in batch]))
    return ids, np.concatenate(scores)


def score(config: ClassifierScoreConfig) -> None:
    """Writes id and score of every document to Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    Classifier.load(config.model)  # a foreign file is named before any worker starts
    processes = processes_for(config.processes, sum(path.stat().st_size for path in config.inputs if path.exists()))
    schema: Any = pa.schema([("id", pa.large_string()), ("score", pa.float64())])
    histogram = np.zeros(10, np.int64)
    with atomic_file(config.target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer, \
            progress("scoring", None, "documents") as bar, workers(processes, _begin, (config.model,)) as run_map:  # fmt: skip
        for ids, values in run_map(_score_piece, _pieces(config.inputs)):
            writer.write_table(pa.table([ids, values], schema=schema))
            histogram += np.histogram(values, 10, (0, 1))[0]
            bar.advance(len(ids))
    for k, count in enumerate(histogram.tolist()):
        say(f"  {k / 10:.1f} to {(k + 1) / 10:.1f}  {count:>10,}  {'#' * round(50 * count / max(histogram.max(), 1))}")
    say(
        f"wrote {config.target}\nnext: {command('data', 'build', config.project)} --scores.path {config.target} --scores.least 0.5"
    )
