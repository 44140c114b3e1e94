"""Tokenizers that others made: the same byte-level BPE, with ids in any order and words that no merge makes."""

import functools
import heapq
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from groundup.base.errors import TokenizerError
from groundup.base.files import text_hash
from groundup.tokenizer.encode import CACHED_LENGTH, CACHED_WORDS, EOT, NEVER, Pair, Tokenizer, check_specials, merge

__all__ = ["Foreign", "alphabet", "assemble", "labels"]

FORMS = (None, "NFC", "NFD", "NFKC", "NFKD")


def alphabet() -> list[str]:
    """Returns the printable character that stands for each byte in GPT-2's files: itself if visible, else U+0100 on.

    Source: Radford et al. 2019, encoder.py
    """
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(256 + hidden.index(byte)) if byte in hidden else chr(byte) for byte in range(256)]


class Foreign(Tokenizer):
    """A tokenizer with what ours have no need of.

    `labels`: the id of each symbol (the bytes in `byte_order`, then the merges); ids may have gaps between them.
    `spare`: tokens that no merge makes. With `whole_words` a piece of text that is one of them takes its id before any
    merging, as in tiktoken and Llama 3; without, they can be decoded and are never written.
    `normal`: the Unicode normal form that a text takes before it is encoded (NFC for Qwen), or None.
    `begin`, `end`: the specials that begin a document and end an answer.
    Raises: TokenizerError as Tokenizer does, and for two tokens of one id.
    """

    labels: Sequence[int]

    def __init__(
        self,
        merges: Iterable[Pair],
        specials: Mapping[str, int],
        pattern: str,
        byte_order: bytes,
        chat_template: str | None = None,
        *,
        labels: Sequence[int],
        spare: Mapping[bytes, int],
        whole_words: bool = False,
        normal: str | None = None,
        begin: str = EOT,
        end: str = EOT,
    ) -> None:
        super().__init__(merges, (), pattern, byte_order, chat_template)
        check_specials(list(specials))
        if len(labels) != len(self._bytes) or normal not in FORMS:
            raise TokenizerError(
                "each of the bytes and merges needs an id, and a normal form is NFC, NFD, NFKC or NFKD"
            )
        self.labels, self.spare, self.specials = list(labels), dict(spare), dict(specials)
        self.whole_words, self.normal, self.begin, self.end = whole_words, normal, begin, end
        names = ((i, name.encode()) for name, i in self.specials.items())
        tokens: dict[int, bytes] = {}
        for i, token in chain(zip(labels, self._bytes, strict=True), names, ((i, name) for name, i in spare.items())):
            if tokens.setdefault(i, token) != token or i < 0:
                raise TokenizerError(f"id {i} is given to two tokens, {tokens[i]!r} and {token!r}, or is below 0")
        self._bytes = [tokens.get(i, b"") for i in range(max(tokens) + 1)]
        self._words = _Words(self)  # type: ignore[assignment]

    @property
    def eot(self) -> int:
        """The id of the special that begins every document. Raises: TokenizerError if the vocabulary has none."""
        return self.special(self.begin)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that are equal for two tokenizers exactly if they turn every text into the same ids."""
        spare = {name.hex(): i for name, i in self.spare.items()}
        made = [self.pattern, list(self.byte_order), self.merges, self.specials]
        return text_hash(json.dumps([*made, self.labels, spare, self.whole_words, self.normal]))

    def _normal(self, text: str) -> str:
        return text if self.normal is None else unicodedata.normalize(self.normal, text)  # type: ignore[arg-type]


class _Words(dict[str, Sequence[int]]):
    """word -> ids, computed when a word is first seen; emptied when full, so that memory stays bounded."""

    def __init__(self, tokenizer: Foreign) -> None:
        self.ranks, self.id_of_byte, self.labels = tokenizer._ranks, tokenizer._id_of_byte, tokenizer.labels
        self.whole = tokenizer.spare if tokenizer.whole_words else {}

    def __missing__(self, word: str) -> Sequence[int]:
        raw = word.encode()
        if raw in self.whole:
            ids: Sequence[int] = (self.whole[raw],)
        else:
            ids = tuple(self.labels[symbol] for symbol in merge(list(raw.translate(self.id_of_byte)), self.ranks))
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


def labels(tokenizer: Tokenizer) -> Sequence[int]:
    """Returns the id of each symbol: of the 256 bytes in `byte_order`, then of what each merge makes."""
    return tokenizer.labels if isinstance(tokenizer, Foreign) else range(256 + len(tokenizer.merges))


def assemble(
    tokens: Mapping[bytes, int],
    merges: Sequence[tuple[bytes, bytes]] | None,
    specials: Mapping[str, int],
    pattern: str,
    chat_template: str | None = None,
    *,
    whole_words: bool = False,
    normal: str | None = None,
    begin: str = EOT,
    end: str = EOT,
) -> Tokenizer:
    """Returns the tokenizer of a foreign vocabulary: one of ours where it can be, else a `Foreign` one. Ids stay equal.

    `merges` in the order of their rank; None as in tiktoken, where any two neighbours may be joined that together are a
    token, and the lowest id goes first. A token that several merges could make is in fact always made by one of them:
    which pair is joined last is decided by its own bytes, since nothing ever crossed its edges. So one merge a token
    is kept.
    Raises: TokenizerError if a byte is missing, or merges come in an order that ours can't have.
    """
    order = _Order(tokens)
    if merges is None:
        for token in sorted(tokens, key=tokens.__getitem__):
            if parts := order.last(token, tokens, by_sum=True):
                order.place(token, *parts)
        spare = order.spare()
    elif len(made := {left + right: (left, right) for left, right in merges}) == len(merges):
        for token, parts in made.items():
            order.place(token, *parts)
        spare = order.spare() | (order.unmade() if whole_words else {})
    else:
        rank = {pair: i for i, pair in enumerate(dict.fromkeys(merges))}
        lasts: dict[bytes, tuple[bytes, ...]] = {}
        for pair in rank:
            token = pair[0] + pair[1]
            if token not in lasts:
                lasts[token] = order.last(token, rank, by_sum=False)
            if lasts[token] == pair:
                order.place(token, *pair)
        spare = order.spare()
    given = [tokens[token] for token in order.tokens]
    plain = not spare and normal is None and begin == EOT and end == EOT
    byte_order = b"".join(order.tokens[:256])
    if plain and [*given, *specials.values()] == list(range(len(given) + len(specials))):
        return Tokenizer(order.ranks, list(specials), pattern, byte_order, chat_template)
    return Foreign(order.ranks, specials, pattern, byte_order, chat_template, labels=given, spare=spare,
                   whole_words=whole_words, normal=normal, begin=begin, end=end)  # fmt: skip


class _Late:
    """What follows at once from a token whose first part is `left`: merges of lower rank that had to wait for it.

    Theirs joins one place of the token and all that follows from it there, then the next place; ours goes merge by merge.
    That is the same unless two places can want the same neighbour.
    """

    def __init__(self, left: bytes) -> None:
        self.left, self.placed = left, set[bytes]()
        self.before, self.behind = set[bytes](), set[bytes]()  # the neighbours that such a place takes

    def overlaps(self, new: bytes, left: bytes, right: bytes) -> bool:
        """Takes the next of these merges; returns whether places can be in one another's way."""
        first, known = not self.placed, (left in self.placed, right in self.placed)
        self.placed.add(new)
        if known == (True, False):
            self.behind.add(right)
        elif known == (False, True):
            self.before.add(left)
        return not first and (right == self.left or all(known) or not self.before.isdisjoint(self.behind))


class _Order:
    """Symbols in an order in which parts come before what is made of them, with the one merge that makes each.

    A merge whose parts are learnt after it (Llama 3 has such) happens as soon as the later part is there: it is put
    right behind that.
    """

    def __init__(self, known: Mapping[bytes, int]) -> None:
        self.known = known
        self.tokens = sorted((bytes([b]) for b in range(256) if bytes([b]) in known), key=known.__getitem__)
        if len(self.tokens) < 256:
            raise TokenizerError(f"{256 - len(self.tokens)} of the 256 bytes have no id: not a byte-level vocabulary")
        self.symbols = {token: symbol for symbol, token in enumerate(self.tokens)}
        self.byte_id = bytes(self.symbols[bytes([byte])] for byte in range(256))
        self.ranks: dict[Pair, int] = {}
        self.waiting: dict[bytes, list[tuple[int, bytes, bytes, bytes]]] = {}
        self.asked = 0

    def place(self, token: bytes, left: bytes, right: bytes) -> None:
        """Takes the next merge by rank."""
        if token not in self.known:
            raise TokenizerError(f"a merge makes {token!r}, which has no id")
        self.asked += 1
        ready, late = [(self.asked, token, left, right)], _Late(left)
        while ready:
            entry = heapq.heappop(ready)
            _, new, *parts = entry
            if missing := [part for part in parts if part not in self.symbols]:
                self.waiting.setdefault(missing[0], []).append(entry)
                continue
            if late.overlaps(new, *parts):
                raise TokenizerError(f"the merges of {token!r} and {new!r} overlap in an order that we can't follow")
            self.ranks[self.symbols[parts[0]], self.symbols[parts[1]]] = self.symbols[new] = len(self.tokens)
            self.tokens.append(new)
            for waiting in self.waiting.pop(new, ()):
                heapq.heappush(ready, waiting)

    def last(self, token: bytes, rank: Mapping[Any, int], by_sum: bool) -> tuple[bytes, ...]:
        """Returns the two parts that are joined last when a token's own bytes are joined; () if they never are.

        To be asked when all merges of lower rank have been placed.
        """
        parts = [self.tokens[i] for i in merge(list(token.translate(self.byte_id)), self.ranks)]
        if len(parts) != 2 or not (by_sum or tuple(parts) in rank):
            parts = _last_parts(token, rank, by_sum)
        return tuple(parts) if len(parts) == 2 else ()

    def spare(self) -> dict[bytes, int]:
        """Returns the tokens that no merge makes, or only one of parts that no merge makes."""
        return {token: i for token, i in self.known.items() if token not in self.symbols}

    def unmade(self) -> dict[bytes, int]:
        """Returns the tokens that have a merge, and yet don't arise from their own bytes: others come before it."""
        words = ((token, list(token.translate(self.byte_id)), [symbol]) for token, symbol in self.symbols.items())
        return {token: self.known[token] for token, ids, whole in words if merge(ids, self.ranks) != whole}


def _last_parts(token: bytes, rank: Mapping[Any, int], by_sum: bool) -> list[bytes]:
    """Returns what a token's bytes are joined to, by the foreign rule, before the last merge: two parts, if it is made.

    `rank` is that of a pair of tokens, or, `by_sum`, of the token that they make together.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [rank.get(left + right if by_sum else (left, right), NEVER) for left, right in pairwise(parts)]
        at = found.index(min(found))
        if found[at] == NEVER:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts if by_sum or tuple(parts) in rank else []
