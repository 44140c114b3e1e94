"""The tokenizer itself: text to ids, ids to text, exactly, for any input."""

import codecs
import functools
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.base.errors import TokenizerError
from groundup.base.files import text_hash
from groundup.tokenizer.pattern import RULES, blocks, check, splitter

if TYPE_CHECKING:  # NumPy costs 0.1 s to import and `groundup tokenizer encode` has no use for it
    import numpy as np

    from groundup.tokenizer.engine import Engine, Joiner

__all__ = ["EOT", "StreamDecoder", "Tokenizer", "merge", "whole"]

EOT = "<|endoftext|>"
Pair = tuple[int, int]
RAW_BYTES = bytes(range(256))
NEVER = 1 << 62  # the rank of a pair that no merge joins
SHORT = 48  # symbols: up to here rescanning the word is faster than keeping lists of where each pair stands
CACHED_WORDS, CACHED_LENGTH = 1 << 18, 64  # bounds of the word cache: about 60 MB at most
# Compiled code takes half a second to load, and some more seconds the first time on a machine: it must be worth that.
WORTH_COMPILING = 1 << 21  # characters
SHORT_TEXT = 200  # characters: up to here the call alone costs more than the encoding
MANY_IDS = 1 << 16  # ids that are decoded by compiled code, once WORTH_JOINING were asked for
WORTH_JOINING = 1 << 22  # ids: half a second in Python


def whole(text: str) -> str:
    """Returns the text with lone surrogates, which UTF-8 can't express, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def merge(ids: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Returns the symbols after all merges that apply, the earliest learnt first; `ranks` maps a pair to its new id.

    Time is linear in the length, apart from a logarithm for the number of different merges.
    Equal to: groundup.tokenizer.plain.merge_all
    """
    return _merge_short(ids, ranks) if len(ids) <= SHORT else _merge_long(ids, ranks)


def _merge_short(ids: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    find = ranks.get
    while len(ids) > 1:
        found = [find(pair, NEVER) for pair in pairwise(ids)]
        new = min(found)
        if new == NEVER:
            break
        at = found.index(new)
        joined = [*ids[:at], new]
        at, last = at + 2, len(ids) - 1
        while at < last:
            if found[at] == new:
                joined.append(new)
                at += 2
            else:
                joined.append(ids[at])
                at += 1
        if at == last:
            joined.append(ids[at])
        ids = joined
    return ids


def _merge_long(ids: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    """The same for long words: merge after merge, each at all its places, which are kept in lists.

    A merge only makes pairs that contain its new symbol, and those were learnt later: so no place is ever added to a
    merge that is already done.
    """
    ids, size, find = list(ids), len(ids), ranks.get
    after, before = list(range(1, size + 1)), list(range(-1, size - 1))
    places: dict[int, list[int]] = {}
    parts: dict[int, Pair] = {}
    waiting: list[int] = []

    def add(pair: Pair, place: int) -> None:
        new = find(pair)
        if new is None:
            return
        if new not in places:
            places[new], parts[new] = [], pair
            heapq.heappush(waiting, new)
        places[new].append(place)

    for place, pair in enumerate(pairwise(ids)):
        add(pair, place)
    while waiting:
        new = heapq.heappop(waiting)
        left, right = parts[new]
        for place in sorted(places.pop(new)):
            gone = after[place]
            if ids[place] != left or gone == size or ids[gone] != right:
                continue  # another merge took one of the two since this place was noted
            ids[place], ids[gone] = new, -1
            following, previous = after[gone], before[place]
            after[place] = following
            if previous >= 0:
                add((ids[previous], new), previous)
            if following < size:
                before[following] = place
                add((new, ids[following]), place)
    return [symbol for symbol in ids if symbol >= 0]


class _Words(dict[str, Sequence[int]]):
    """word -> ids, computed when a word is first seen; emptied when full, so that memory stays bounded."""

    def __init__(self, ranks: Mapping[Pair, int], id_of_byte: bytes) -> None:
        self.ranks, self.id_of_byte = ranks, id_of_byte

    def __missing__(self, word: str) -> Sequence[int]:
        ids = merge(list(word.encode().translate(self.id_of_byte)), self.ranks)
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = tuple(ids)
        return ids


class Tokenizer:
    """Byte-level BPE: ids 0..255 are bytes, then one id for each merge in the order learnt, then the specials.

    `byte_order` lists the byte that each of the first 256 ids stands for; ours are in order, GPT-2's are not.
    Raises: TokenizerError for merges of ids that don't exist yet, a merge given twice, duplicate or empty specials.
    """

    # What only the vocabularies of others have: see foreign.py.
    labels: Sequence[int] | None = None
    spare: Mapping[bytes, int] = {}
    whole_words = False
    normal: str | None = None
    _asked = 0  # characters that were to be encoded so far
    _asked_back = 0  # ids that were to be decoded so far

    def __init__(
        self,
        merges: Iterable[Pair],
        specials: Sequence[str] = (EOT,),
        pattern: str = "qwen2",
        byte_order: bytes = RAW_BYTES,
        chat_template: str | None = None,
    ) -> None:
        check(pattern)
        if sorted(byte_order) != list(RAW_BYTES):
            raise TokenizerError("byte_order must hold each of the 256 bytes once")
        self.pattern, self.byte_order, self.chat_template = pattern, bytes(byte_order), chat_template
        self.merges: list[Pair] = []
        self._ranks: dict[Pair, int] = {}
        self._bytes = [bytes([byte]) for byte in byte_order]
        for left, right in merges:
            new = len(self._bytes)
            if not (0 <= left < new and 0 <= right < new) or (left, right) in self._ranks:
                wrong = "its parts must be ids below its own, and no merge may come twice"
                raise TokenizerError(f"merge {new - 256} ({left}, {right}): {wrong}")
            self.merges.append((left, right))
            self._ranks[left, right] = new
            self._bytes.append(self._bytes[left] + self._bytes[right])
        check_specials(specials)
        if pattern == "bytes" and self.merges:
            raise TokenizerError("the pattern 'bytes' has no merges")
        self.specials = {name: len(self._bytes) + i for i, name in enumerate(specials)}
        self._bytes += [name.encode() for name in specials]
        self._id_of_byte = bytes(byte_order.index(byte) for byte in RAW_BYTES)
        self._words = _Words(self._ranks, self._id_of_byte)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.pattern}, {len(self.merges)} merges, {len(self.specials)} specials, {self.fingerprint})"
        )

    @property
    def vocab_size(self) -> int:
        """The number of ids, specials included."""
        return len(self._bytes)

    @property
    def eot(self) -> int:
        """The id of <|endoftext|>, which begins every document. Raises: TokenizerError if the vocabulary has none."""
        return self.special(EOT)

    def special(self, name: str) -> int:
        """Returns the id of a special token. Raises: TokenizerError if there is none of that name."""
        if name not in self.specials:
            raise TokenizerError(
                f"this tokenizer has no special token {name} (it has: {', '.join(self.specials) or 'none'})"
            )
        return self.specials[name]

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that are equal for two tokenizers exactly if they turn every text into the same ids."""
        return text_hash(json.dumps([self.pattern, list(self.byte_order), self.merges, list(self.specials)]))

    def _byte_ids(self, text: str) -> bytes:
        """Returns the id of each byte of the text, before any merge."""
        return whole(text).encode().translate(self._id_of_byte)

    def _normal(self, text: str) -> str:
        """Returns the text in the normal form that this vocabulary wants; ours want none."""
        return text

    def _stream(self, text: str) -> Iterable[int]:
        """Yields the ids of a text in which specials are mere characters, without compiled code."""
        if self.pattern == "bytes":
            return self._byte_ids(text)
        words = chain.from_iterable(
            map(splitter(self.pattern), blocks(whole(self._normal(text)), pattern=self.pattern))
        )
        return chain.from_iterable(map(self._words.__getitem__, words))

    @functools.cached_property
    def _engine(self) -> "Engine":
        from groundup.tokenizer.engine import Engine
        from groundup.tokenizer.vocabulary import Vocabulary

        whole_words = self.spare if self.whole_words else {}
        return Engine(Vocabulary(self.merges, self._id_of_byte, self.pattern, self.labels, whole_words))

    def _worth(self, size: int) -> bool:
        """Returns whether a text of `size` characters is encoded by compiled code: once so much was asked for that loading
        it pays, and then for all but the shortest texts.
        """
        if self.pattern not in RULES:
            return False
        self._asked += size
        return size > SHORT_TEXT and ("_engine" in self.__dict__ or self._asked > WORTH_COMPILING)

    def encode_ordinary(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Returns the ids of a text, the first `max_tokens` at most; the names of specials in it are mere characters.

        Lone surrogates become U+FFFD.
        Equal to: groundup.tokenizer.plain.encode
        """
        if max_tokens is not None:
            return list(islice(self._stream(text), max_tokens))
        return self.encode_batch([text])[0].tolist() if self._worth(len(text)) else list(self._stream(text))

    def encode(
        self,
        text: str,
        allowed_special: Set[str] | Literal["all"] = frozenset(),
        disallowed_special: Set[str] | Literal["all"] = frozenset(),
        max_tokens: int | None = None,
    ) -> list[int]:
        """Returns the ids of a text; of the specials' names in it, only those allowed become their special ids.

        The others are mere characters, unless they are disallowed ("all": those that aren't allowed).
        Raises: TokenizerError for an allowed special that doesn't exist, and for a text that holds a disallowed one.
        """
        allowed = self.specials.keys() if allowed_special == "all" else allowed_special
        refused = self.specials.keys() - allowed if disallowed_special == "all" else disallowed_special
        if refused and (found := self._special_splitter(frozenset(refused)).search(text)):
            raise TokenizerError(
                f"the text holds the special token {found[0]} at character {found.start()}, which isn't allowed"
            )
        if not allowed:
            return self.encode_ordinary(text, max_tokens)
        ids: list[int] = []
        for i, part in enumerate(self._special_splitter(frozenset(allowed)).split(text)):
            room = None if max_tokens is None else max_tokens - len(ids)
            ids += [self.specials[part]][:room] if i % 2 else self.encode_ordinary(part, room)
        return ids

    @functools.lru_cache(maxsize=16)  # noqa: B019 - a tokenizer lives as long as the process, and the cache is small
    def _special_splitter(self, allowed: frozenset[str]) -> re.Pattern[str]:
        for name in allowed:
            self.special(name)
        return re.compile("(" + "|".join(map(re.escape, sorted(allowed, key=len, reverse=True))) + ")")

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns the ids of a text as `encode_ordinary` does, and the characters (start, end) that each belongs to.

        Tokens that share a character both name it. Where a vocabulary has a normal form, it is that text's characters.
        """
        ids = self.encode_ordinary(text)
        character = [i for i, c in enumerate(whole(self._normal(text))) for _ in c.encode()]
        ends = list(accumulate(len(self._bytes[token]) for token in ids))
        return ids, [(character[start], character[end - 1] + 1) for start, end in zip([0, *ends], ends, strict=False)]

    def encode_batch(self, texts: Iterable[str], threads: int = 1) -> list["np.ndarray"]:
        """Returns one int32 array of ids for each text, as `encode_ordinary` would; `threads` 0 means one a core."""
        import numpy as np

        texts = list(texts)
        if self.pattern == "bytes":
            return [np.frombuffer(self._byte_ids(text), np.uint8).astype(np.int32) for text in texts]
        if texts and self._worth(sum(map(len, texts))):
            from groundup.tokenizer.count import threads_here

            return self._engine.encode_texts(map(self._normal, texts), threads or threads_here())
        return [np.fromiter(self._stream(text), np.int32) for text in texts]

    def encode_files(
        self, paths: Iterable[Path | str], threads: int = 0, invalid: str = "strict"
    ) -> Iterator["np.ndarray"]:
        """Yields one int32 array of ids for each text of the files and folders, as `texts.read_batches` finds them.

        Memory: a few batches of 16 MB of text and their ids, and all ids of the text in hand, 4 bytes each. With GPT-2's
        vocabulary and one thread, 1 GB in 4,200 files took 0.3 GiB, and as one file of 426M ids 2.2.
        """
        from groundup.tokenizer.count import threads_here
        from groundup.tokenizer.texts import batches, find_texts, read_batches, strings

        corpus = (batch for path in find_texts(map(Path, paths)) for batch in read_batches(path, invalid))
        if self.pattern not in RULES:
            for text in strings(corpus):
                yield from self.encode_batch([text])
        elif self.normal:
            yield from self._engine.stream(batches(map(self._normal, strings(corpus))), threads or threads_here())
        else:
            yield from self._engine.stream(corpus, threads or threads_here())

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token (a special's are its name's). Raises: TokenizerError for an id out of range."""
        if 0 <= token < len(self._bytes):
            return self._bytes[token]
        raise TokenizerError(f"id {token} is out of range: this vocabulary has ids 0 to {len(self._bytes) - 1}")

    @functools.cached_property
    def _joiner(self) -> "Joiner":
        from groundup.tokenizer.engine import Joiner

        return Joiner(self._bytes)

    def decode_bytes(self, ids: "Iterable[int] | np.ndarray") -> bytes:
        """Returns the bytes that the ids stand for. Raises: TokenizerError for an id out of range."""
        return bytes(self._decoded(ids))

    def _decoded(self, ids: Any) -> bytes | memoryview:
        """Returns the same; many ids are decoded by compiled code, once so much was asked for that loading it pays."""
        ids, table = ids if isinstance(ids, Sized) else list(ids), self._bytes
        self._asked_back += len(ids)
        if len(ids) > MANY_IDS and ("_joiner" in self.__dict__ or self._asked_back > WORTH_JOINING):
            return self._joined(ids).data
        ids = list(ids)
        if ids and not (min(ids) >= 0 and max(ids) < len(table)):
            self.token_bytes(int(next(i for i in ids if not 0 <= i < len(table))))
        return b"".join([table[i] for i in ids])

    def _joined(self, ids: Any) -> "np.ndarray":
        """Returns the same as an array, by compiled code."""
        import numpy as np

        array = np.ascontiguousarray(ids)
        if array.dtype.kind not in "iu":
            array = array.astype(np.int64)
        if (stranger := self._joiner.stranger(array)) is not None:
            self.token_bytes(stranger)
        return self._joiner.join(array)

    def decode(self, ids: "Iterable[int] | np.ndarray") -> str:
        """Returns the text of the ids; bytes that aren't UTF-8 become U+FFFD.

        Raises: TokenizerError for an id out of range.
        Equal to: groundup.tokenizer.plain.decode
        """
        return str(self._decoded(ids), "utf-8", "replace")


def check_specials(specials: Sequence[str]) -> None:
    """Raises: TokenizerError for a special that is empty or given twice."""
    seen: set[str] = set()
    for name in specials:
        if not name or name in seen:
            wrong = f"special token '{name}' is given twice" if name else "a special token must not be empty"
            raise TokenizerError(wrong)
        seen.add(name)


class StreamDecoder:
    """Turns ids into text one by one. The pieces joined are `decode` of all ids, and none holds half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Returns the characters that this id completes, maybe none. Raises: TokenizerError for an id out of range."""
        return self._utf8.decode(self.tokenizer.token_bytes(token))

    def flush(self) -> str:
        """Returns what the unfinished bytes at the end amount to: U+FFFD, or nothing."""
        return self._utf8.decode(b"", final=True)
