"""Two vocabularies on the same text: which needs fewer tokens, where, and on which words they differ most."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.base.errors import TokenizerError
from groundup.base.log import say
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.foreign import labels
from groundup.tokenizer.io import find, load
from groundup.tokenizer.measure import Tally, Usage, measure
from groundup.tokenizer.show import facts, name, table, texts_of

if TYPE_CHECKING:
    from groundup.tokenizer.config import CompareConfig

__all__ = ["differences", "main", "shared"]


def vocabulary(tokenizer: Tokenizer) -> set[bytes]:
    """Returns the tokens as bytes, specials apart."""
    return {tokenizer.token_bytes(i) for i in labels(tokenizer)} | set(tokenizer.spare)


def shared(a: Tokenizer, b: Tokenizer) -> tuple[int, int, int]:
    """Returns how many tokens only the first has, both have, only the second has."""
    ours, theirs = vocabulary(a), vocabulary(b)
    return len(ours - theirs), len(ours & theirs), len(theirs - ours)


def differences(a: Tokenizer, b: Tokenizer, usage: Usage, top: int) -> tuple[list[str], list[str]]:
    """Returns the words that cost the first the most tokens beyond the second's, and the other way round."""
    gain = {
        word: count * (len(b.encode_ordinary(word)) - len(a.encode_ordinary(word)))
        for word, count in usage.words.items()
    }
    order = sorted((word for word in gain if gain[word]), key=lambda word: (gain[word], word))
    return [w for w in order[:top] if gain[w] < 0], [w for w in reversed(order[-top:]) if gain[w] > 0]


def _rows(a: dict[str, Tally], b: dict[str, Tally]) -> list[tuple[str, ...]]:
    keys = sorted(a.keys() | b.keys(), key=lambda key: -a.get(key, b.get(key, Tally())).bytes)
    rows: list[tuple[str, ...]] = []
    for key in keys:
        left, right = a.get(key, Tally()), b.get(key, Tally())
        ratio = f"{right.tokens / left.tokens:.3f}" if left.tokens and left.bytes == right.bytes else ""
        rows.append((key, f"{left.bytes:,}", f"{left.tokens:,}", f"{right.tokens:,}",
                     f"{left.bytes_per_token:.3f}", f"{right.bytes_per_token:.3f}", ratio))  # fmt: skip
    return rows


def _pair(word: str, a: Tokenizer, b: Tokenizer) -> str:
    cut = [" ".join(name(t, i)[1:-1].replace(" ", "·") for i in t.encode_ordinary(word)) for t in (a, b)]
    return f"    A: {cut[0]}   B: {cut[1]}"


def report(a: Tokenizer, b: Tokenizer, uses: tuple[Usage, Usage], top: int) -> Iterable[str]:
    """Yields the lines of `tokenizer compare`."""
    columns = ("bytes", "tokens A", "tokens B", "bytes/token A", "B", "B/A tokens")
    sources = _rows(uses[0].sources | {"all": uses[0].total}, uses[1].sources | {"all": uses[1].total})
    yield from table(("source", *columns), sources)
    yield ""
    yield from table(("script", *columns), _rows(uses[0].scripts, uses[1].scripts))
    only_a, both, only_b = shared(a, b)
    yield f"\ntokens: {both:,} in both, {only_a:,} only in A, {only_b:,} only in B"
    dearer_a, dearer_b = differences(a, b, uses[0], top)
    for words, text in ((dearer_b, "A needs fewer tokens for"), (dearer_a, "B needs fewer tokens for")):
        if words:
            yield f"{text}, by what it saves in this text:"
            yield from (_pair(word, a, b) for word in words)
    tokens = [use.total.tokens for use in uses]
    if tokens[0] == tokens[1]:
        yield f"\nboth need {tokens[0]:,} tokens"
    else:
        better, share = ("A", tokens[0] / tokens[1]) if tokens[0] < tokens[1] else ("B", tokens[1] / tokens[0])
        yield f"\n{better} needs {1 - share:.1%} fewer tokens for this text"


def main(config: "CompareConfig") -> None:
    """Prints how two tokenizers cut the same text: `groundup tokenizer compare`."""
    paths: list[Path] = [find(path, config.name) for path in (config.a, config.b)]
    a, b = (load(path) for path in paths)
    texts = texts_of(config, config.a)
    uses = measure(a, texts), measure(b, texts)
    if not uses[0].total.tokens:
        raise TokenizerError("there is no text to compare the two on")
    for letter, path, tokenizer in zip("AB", paths, (a, b), strict=True):
        print(f"{letter}: {path}, {facts(tokenizer)}")
    print("\n".join(["", *report(a, b, uses, config.top)]))
    if config.html is not None:
        from groundup.tokenizer.page import write_page

        write_page(config.html, {str(paths[0]): (a, uses[0]), str(paths[1]): (b, uses[1])}, texts)
        say(f"page: {config.html}")
