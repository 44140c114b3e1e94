"""Learning a vocabulary: count the pieces of the corpus, then join the most frequent pair of symbols, and again."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from groundup.base.config import to_toml
from groundup.base.errors import DataError, TokenizerError
from groundup.base.files import open_text, read_jsonl
from groundup.base.log import Progress, command, progress, quantity
from groundup.base.records import read_documents
from groundup.base.runs import Run, open_run, record, unchanged
from groundup.tokenizer.chat import DEFAULT_SPECIALS, TEMPLATE
from groundup.tokenizer.config import TrainConfig, check_vocab_size
from groundup.tokenizer.encode import Pair, Tokenizer, check_specials, whole
from groundup.tokenizer.io import save
from groundup.tokenizer.pattern import blocks, check, splitter

__all__ = ["bytes_per_token", "count_words", "learn", "main", "read_texts", "train"]


def count_words(texts: Iterable[str], pattern: str, bar: Progress | None = None) -> Counter[str]:
    """Returns how often each different piece occurs: a corpus of 20 MB has about 150,000, so the rest is quick.

    Equal to: groundup.tokenizer.plain.count_words
    """
    split, words = splitter(pattern), Counter[str]()
    for text in texts:
        text = whole(text)
        for block in blocks(text):
            words.update(split(block))
        if bar:
            bar.advance(len(text))
    return words


class _Corpus:
    """The different words laid end to end, each symbol with its neighbours, and for each pair its count and its places.

    `weight` is the count of the word a symbol belongs to. A symbol that was joined to its left neighbour is -1.
    """

    def __init__(self, words: Mapping[Sequence[int], int]) -> None:
        self.symbols: list[int] = []
        self.before: list[int] = []
        self.after: list[int] = []
        self.weight: list[int] = []
        for word, count in words.items():
            start, end = len(self.symbols), len(self.symbols) + len(word)
            self.symbols += word
            self.weight += [count] * len(word)
            self.before += [-1, *range(start, end - 1)] if word else []
            self.after += [*range(start + 1, end), -1] if word else []
        self.counts: dict[Pair, int] = {}
        self.places: dict[Pair, list[int]] = {}
        for place, following in enumerate(self.after):
            if following >= 0:
                self.note((self.symbols[place], self.symbols[following]), place, self.weight[place])

    def note(self, pair: Pair, place: int, weight: int) -> None:
        """Counts one place of a pair. Places come in ascending order, so that runs like "aaa" join from the left."""
        if pair in self.counts:
            self.counts[pair] += weight
            self.places[pair].append(place)
        else:
            self.counts[pair], self.places[pair] = weight, [place]

    def join(self, pair: Pair, new: int) -> set[Pair]:
        """Replaces a pair by a new symbol wherever it stands; returns the pairs that this made."""
        symbols, before, after, weight, counts = self.symbols, self.before, self.after, self.weight, self.counts
        left, right = pair
        made: set[Pair] = set()
        for place in self.places.pop(pair):
            gone = after[place]
            if symbols[place] != left or gone < 0 or symbols[gone] != right:
                continue  # a place that an earlier merge, or this one in a run like "aaa", has used up
            previous, following, count = before[place], after[gone], weight[place]
            symbols[place], symbols[gone], after[place] = new, -1, following
            if previous >= 0:
                old, fresh = (symbols[previous], left), (symbols[previous], new)
                counts[old] -= count
                self.note(fresh, previous, count)
                made.add(fresh)
            if following >= 0:
                before[following] = place
                old, fresh = (right, symbols[following]), (new, symbols[following])
                counts[old] -= count
                self.note(fresh, place, count)
                made.add(fresh)
        del counts[pair]
        return made


def learn(words: Mapping[Sequence[int], int], merges: int, first: int, bar: Progress | None = None) -> list[Pair]:
    """Returns up to `merges` pairs in the order learnt; pair i becomes symbol `first + i`. Fewer: none was left.

    The most frequent pair goes first; among equals the one with the smallest ids, left before right.
    Source: Sennrich et al. 2016, with counts kept up to date rather than taken anew.
    Equal to: groundup.tokenizer.plain.learn
    """
    corpus = _Corpus(words)
    waiting = [(-count, pair) for pair, count in corpus.counts.items()]
    heapq.heapify(waiting)
    learnt: list[Pair] = []
    while waiting and len(learnt) < merges:
        noted, pair = waiting[0]
        count = corpus.counts[pair]
        if count != -noted:  # merges since then have lowered it: put it where it belongs now
            if count > 0:
                heapq.heapreplace(waiting, (-count, pair))
            else:
                heapq.heappop(waiting)
            continue
        heapq.heappop(waiting)
        for fresh in corpus.join(pair, first + len(learnt)):
            if corpus.counts.get(fresh, 0) > 0:
                heapq.heappush(waiting, (-corpus.counts[fresh], fresh))
        learnt.append(pair)
        if bar:
            bar.advance(1)
    return learnt


def train(
    texts: Iterable[str], vocab_size: int, pattern: str = "qwen2", specials: Sequence[str] = DEFAULT_SPECIALS
) -> Tokenizer:
    """Returns the tokenizer that byte-level BPE learns from the texts: 256 bytes, then merges, then the specials.

    The pattern "bytes" learns nothing and doesn't look at vocab_size: 256 bytes and the specials.
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
    with progress("counting words", None, "characters") as bar:
        words = count_words(texts, pattern, bar)
    if not words:
        raise DataError("the corpus is empty: no text to learn a vocabulary from")
    with progress("learning merges", wanted, "merges") as bar:
        merges = learn({tuple(word.encode()): count for word, count in words.items()}, wanted, 256, bar)
    if len(merges) < wanted:
        largest = 256 + len(merges) + len(specials)
        raise TokenizerError(
            f"vocab_size: {vocab_size} is more than this corpus supports; at most {largest}, or more text"
        )
    return Tokenizer(merges, specials, pattern, chat_template=template)


def read_texts(path: Path) -> Iterator[str]:
    """Yields the texts of a file: a Parquet file's column `text`, a JSONL file's key `text`, else its UTF-8 text.

    Raises: DataError naming the file, and the line or row.
    """
    names = path.name.removesuffix(".gz").removesuffix(".zst")
    if names.endswith(".parquet"):
        yield from (document.text for document in read_documents(path))
    elif names.endswith(".jsonl"):
        for number, row in enumerate(read_jsonl(path), 1):
            if not isinstance(row.get("text"), str):
                raise DataError(f"{path}, row {number}: no text under the key 'text'")
            yield row["text"]
    else:
        with open_text(path) as stream:
            while text := "".join(stream.readlines(1 << 24)):
                yield text


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str], limit: int = 1 << 21) -> float:
    """Returns how many bytes of text one token holds on average, over the first `limit` bytes; 0 without text."""
    size = tokens = 0
    for text in texts:
        size, tokens = size + len(whole(text).encode()), tokens + len(tokenizer.encode_ordinary(text))
        if size >= limit:
            break
    return size / tokens if tokens else 0.0


def _report(run: Run, tokenizer: Tokenizer, config: TrainConfig) -> dict[str, object]:
    """Prints how well the vocabulary does and its longest tokens; returns the same as results."""
    heldout = config.inputs().get("heldout")
    texts = read_texts(heldout) if heldout else (text for path in config.input for text in read_texts(path))
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
        tokenizer = train((text for path in sources for text in read_texts(path)), config.vocab_size, config.pattern)
        save(tokenizer, run.path / "tokenizer.json")
        results.update(_report(run, tokenizer, config))
    run.log(f"next: {command('shards', config.project)}")
