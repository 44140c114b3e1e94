"""Learning a vocabulary: count the pieces of the corpus, then join the most frequent pair of symbols, and again."""

from collections.abc import Iterable, Sequence

import numpy as np

from groundup.base.config import to_toml
from groundup.base.errors import DataError, TokenizerError
from groundup.base.log import Progress, command, progress, quantity, say
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.tokenizer.chat import DEFAULT_SPECIALS, TEMPLATE
from groundup.tokenizer.config import TrainConfig, check_vocab_size
from groundup.tokenizer.count import Counted, CountedPieces, count_batches, count_custom
from groundup.tokenizer.encode import Tokenizer, check_specials
from groundup.tokenizer.io import save
from groundup.tokenizer.learn import BYTES_PER_SYMBOL, learn_words
from groundup.tokenizer.pattern import CUSTOM, check
from groundup.tokenizer.texts import Batch, batches, find_texts, read_batches, strings

__all__ = ["bytes_per_token", "main", "train", "train_batches"]


def train(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str = "qwen2",
    specials: Sequence[str] = DEFAULT_SPECIALS,
    threads: int = 0,
    memory_gb: float | None = None,
) -> Tokenizer:
    """Returns the tokenizer that byte-level BPE learns from the texts: 256 bytes, then merges, then the specials.

    The texts may be any iterable, larger than memory too; see `train_batches` for the rest.
    """
    return train_batches(batches(texts), vocab_size, pattern, specials, threads, memory_gb)


def train_batches(
    corpus: Iterable[Batch],
    vocab_size: int,
    pattern: str = "qwen2",
    specials: Sequence[str] = DEFAULT_SPECIALS,
    threads: int = 0,
    memory_gb: float | None = None,
) -> Tokenizer:
    """Returns the tokenizer that byte-level BPE learns from batches of texts; the same for any number of threads (0: all).

    The pattern "bytes" learns nothing and doesn't look at vocab_size: 256 bytes and the specials. Where the different
    words would need more than `memory_gb` GiB, the rarest are left out and it says how many.
    Raises: TokenizerError if vocab_size is below 256 and the specials, or above what the texts support (it says what
    they do); DataError if there is no text.
    Equal to: groundup.tokenizer.plain.train_bytes
    """
    check(pattern)
    check_specials(specials)
    template = TEMPLATE if set(DEFAULT_SPECIALS) <= set(specials) else None
    if pattern == "bytes":
        return Tokenizer([], specials, pattern, chat_template=template)
    check_vocab_size(vocab_size, specials)
    wanted = vocab_size - 256 - len(specials)
    with progress("counting words", None, "bytes") as bar:
        words = _count(corpus, pattern, threads, memory_gb, bar)
    if not len(words[1]):
        raise DataError("the corpus is empty: no text to learn a vocabulary from")
    with progress("learning merges", wanted, "merges") as bar:
        merges = learn_words(*words, wanted, 256, bar)
    if len(merges) < wanted:
        largest = 256 + len(merges) + len(specials)
        raise TokenizerError(
            f"vocab_size: {vocab_size} is more than this corpus supports; at most {largest}, or more text"
        )
    return Tokenizer(merges, specials, pattern, chat_template=template)


def _count(
    corpus: Iterable[Batch], pattern: str, threads: int, memory_gb: float | None, bar: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the different words' bytes end to end, their sizes and their counts."""
    most = int(memory_gb * (1 << 30) / BYTES_PER_SYMBOL) if memory_gb else None
    counted: CountedPieces | Counted
    if pattern.startswith(CUSTOM):
        say("a custom expression is cut by the regex module, some twenty times slower than a named pattern")
        counted = count_custom(corpus, pattern, most, bar)
    else:
        counted = count_batches(corpus, pattern, threads, most, bar)
    if counted.dropped:
        left = f"{quantity(counted.dropped)} of the rarest words ({quantity(counted.dropped_count)} occurrences)"
        say(f"to stay within {memory_gb:g} GiB, {left} were left out")
    return counted.words.laid_out()


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str], limit: int = 1 << 21) -> float:
    """Returns how many bytes of text one token holds on average, over the first `limit` bytes; 0 without text."""
    size = tokens = 0
    for text in texts:
        text = text[:limit]  # a book is one text
        size, tokens = size + len(text.encode("utf-8", "replace")), tokens + len(tokenizer.encode_ordinary(text))
        if size >= limit:
            break
    return size / tokens if tokens else 0.0


def _report(run: Run, tokenizer: Tokenizer, config: TrainConfig) -> dict[str, object]:
    """Prints how well the vocabulary does and its longest tokens; returns the same as results."""
    heldout = config.inputs().get("heldout")
    paths = find_texts([heldout] if heldout else config.input)
    blocks = (batch._replace(joined=False) for path in paths for batch in read_batches(path, config.invalid))
    texts = strings(blocks)
    ratio = bytes_per_token(tokenizer, texts)
    longest = sorted(range(256, 256 + len(tokenizer.merges)), key=lambda i: (-len(tokenizer.token_bytes(i)), i))[:10]
    names = [tokenizer.decode([token]) for token in longest]
    where = "held-out text" if heldout else "the text it was learnt from"
    run.log(f"{quantity(tokenizer.vocab_size)} ids, {ratio:.3f} bytes per token on {where}")
    if names:
        run.log("longest tokens: " + "  ".join(map(repr, names)))
    return {"vocab_size": tokenizer.vocab_size, "pattern": tokenizer.pattern, "bytes_per_token": round(ratio, 4),
            "heldout": bool(heldout), "longest": names, "fingerprint": tokenizer.fingerprint}  # fmt: skip


def main(config: TrainConfig) -> None:
    """Trains the project's tokenizer: `groundup tokenizer train`."""
    if not config.input:
        open_run(config.project, "data", config.data).require_done("data build")
    run, inputs, toml = open_run(config.project, "tokenizer", config.name), config.inputs(), to_toml(config)
    for path in inputs.values():
        if not path.exists():
            raise DataError(f"{path}: no such file")
    if unchanged(run, toml, inputs):
        return
    sources = config.input or (inputs["documents"],)
    with record(run, toml, inputs) as results:
        corpus = (batch for path in find_texts(sources) for batch in read_batches(path, config.invalid))
        tokenizer = train_batches(
            corpus, config.vocab_size, config.pattern, threads=config.threads, memory_gb=config.memory_gb
        )
        save(tokenizer, run.path / "tokenizer.json")
        results.update(_report(run, tokenizer, config))
    run.log(f"next: {command('shards', config.project)}")
