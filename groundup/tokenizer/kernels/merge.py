"""From bytes to ids: the merges of a word, short or long, and the table that remembers the words already merged.

A slot of the table is a word's key, as in words.py, and its ids: their number and three of them in the slot itself; or,
for a long word or more ids, their number and 4, and where they begin in the arena. A long word's bytes stand there behind
its ids and are compared at each use.
"""

import numpy as np

from groundup.tokenizer.kernels.blocks import pieces, rooms
from groundup.tokenizer.kernels.machine import (
    first_bit,
    kernel,
    load8,
    load32,
    load64,
    part,
    prefetch,
    store32,
    store64,
    word64,
)  # fmt: skip
from groundup.tokenizer.kernels.words import BATCH, EMPTY, LONG, MIXER, SLOT, key_of, place_of, same
from groundup.tokenizer.vocabulary import NEVER

__all__ = ["SHORT", "OUT", "ROOM", "SCRATCH", "encode_words", "know_words", "merge_symbols"]

NONE = 0xFFFFFFFF  # no place
SHORT = 64  # symbols: up to here looking through the whole word for the next merge is faster than keeping lists
REMEMBERED = 256  # bytes: longer words are merged anew each time
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOWEST, SYMBOL = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFF)
ROOM, SCRATCH, OUT = (
    1,
    2,
    3,
)  # what encode_words stopped for: table or arena, a longer word than scratch holds, a full `out`


@part
def rank_of(left, right, pairs, shift):
    """Returns the symbol that a pair is joined to, which is its rank too, or NEVER.

    A slot holds the two symbols, 20 bits each, and the joined one in 24: so the tables of GPT-2 stay near the processor.
    """
    key = np.uint64(left << 20 | right)
    slot, last = np.int64((key * MIXER) >> np.uint64(shift)), (1 << (64 - shift)) - 1
    while True:
        there = load64(pairs, slot)
        if there >> np.uint64(24) == key:
            return np.int64(there & SYMBOL)
        if there == FREE:
            return np.int64(NEVER)
        slot = (slot + 1) & last


@part
def merge_short(size, ids, ranks, pairs, shift):
    """Returns how many symbols are left of `size` after all merges; ranks[k] is that of the pair at k.

    Rank and place are compared as one number, without a branch: which of them is the lowest can't be foreseen.
    """
    while size > 1:
        best = np.uint64(NEVER << 6)
        for k in range(size - 1):
            best = min(best, (load64(ranks, k) << np.uint64(6)) | np.uint64(k))
        if best >= np.uint64(NEVER << 6):
            break
        at, new = np.int64(best & np.uint64(63)), np.int64(best >> np.uint64(6))
        size -= 1
        for k in range(at + 1, size):
            store32(ids, k, load32(ids, k + 1))
            store64(ranks, k, load64(ranks, k + 1))
        store32(ids, at, new)
        if at + 1 < size:
            store64(ranks, at, np.uint64(rank_of(new, load32(ids, at + 1), pairs, shift)))
        if at > 0:
            store64(ranks, at - 1, np.uint64(rank_of(load32(ids, at - 1), new, pairs, shift)))
    return size


@part
def unlist(place, ranks, after, before, heads, tails):
    """Takes a place out of the list of its pair's rank."""
    rank = load32(ranks, place)
    if rank != NEVER:
        following, previous = load32(after, place), load32(before, place)
        if previous != NONE:
            store32(after, previous, following)
        else:
            store32(heads, rank, following)
        if following != NONE:
            store32(before, following, previous)
        else:
            store32(tails, rank, previous)


@part
def enlist(place, rank, ranks, after, before, heads, tails, waiting):
    """Puts a place at the end of a rank's list."""
    store32(ranks, place, rank)
    if rank != NEVER:
        last = load32(tails, rank)
        store32(after, place, NONE)
        store32(before, place, last)
        store32(tails, rank, place)
        if last != NONE:
            store32(after, last, place)
        else:
            store32(heads, rank, place)
            store64(waiting, rank >> 6, load64(waiting, rank >> 6) | np.uint64(1) << np.uint64(rank & 63))


@kernel
def merge_long(size, scratch, lists, marks, pairs, shift):
    """The same for long words, in linear time: merge after merge, each at all its places, from left to right.

    A merge makes only pairs that hold its new symbol, and those have a higher rank: so going up through the ranks once
    is enough. The places of each rank are a list, linked through the places themselves.
    """
    row = 4 * scratch.shape[1]
    ids, waiting = scratch.ctypes.data, marks.ctypes.data
    ranks, after, before, right, left = ids + row, ids + 2 * row, ids + 3 * row, ids + 4 * row, ids + 5 * row
    heads, tails = lists.ctypes.data, lists.ctypes.data + 4 * lists.shape[1]
    for k in range(size):
        store32(left, k, k - 1)
        store32(right, k, k + 1)
        store32(ranks, k, NEVER)
    store32(right, size - 1, NONE)
    for k in range(size - 1):
        rank = rank_of(load32(ids, k), load32(ids, k + 1), pairs, shift)
        enlist(k, rank, ranks, after, before, heads, tails, waiting)
    for group in range(len(marks)):
        while load64(waiting, group):
            word = load64(waiting, group)
            rank = group * 64 + first_bit(word)
            store64(waiting, group, word & (word - np.uint64(1)))
            place = load32(heads, rank)
            while place != NONE:
                gone = load32(right, place)
                beyond, previous = load32(right, gone), load32(left, place)
                unlist(place, ranks, after, before, heads, tails)
                unlist(gone, ranks, after, before, heads, tails)
                store32(ids, place, rank)
                store32(ids, gone, NONE)
                store32(right, place, beyond)
                found = np.int64(NEVER)
                if beyond != NONE:
                    store32(left, beyond, place)
                    found = rank_of(rank, load32(ids, beyond), pairs, shift)
                if previous != NONE:
                    unlist(previous, ranks, after, before, heads, tails)
                    made = rank_of(load32(ids, previous), rank, pairs, shift)
                    enlist(previous, made, ranks, after, before, heads, tails, waiting)
                enlist(place, found, ranks, after, before, heads, tails, waiting)
                place = load32(heads, rank)
    count = 0
    for k in range(size):
        symbol = load32(ids, k)
        if symbol != NONE:
            store32(ids, count, symbol)
            count += 1
    return count


@kernel
def merge_symbols(size, long, scratch, heads, waiting, pairs, shift):
    """Merges the symbols in scratch[0]; returns how many are left there."""
    if long:
        return merge_long(size, scratch, heads, waiting, pairs.ctypes.data, shift)
    ranks = np.empty(SHORT, np.uint64)
    for k in range(size - 1):
        ranks[k] = rank_of(np.int64(scratch[0, k]), np.int64(scratch[0, k + 1]), pairs.ctypes.data, shift)
    return merge_short(size, scratch.ctypes.data, ranks.ctypes.data, pairs.ctypes.data, shift)


@part
def merge_word(text, i, size, letters, squares, pairs, shift, ids, ranks):
    """Writes the ids of a short word; returns how many there are. All but the numbers are addresses."""
    for k in range(size):
        store32(ids, k, load32(letters, load8(text, i + k)))
    for k in range(size - 1):
        store64(ranks, k, np.uint64(load32(squares, load8(text, i + k) << 8 | load8(text, i + k + 1))))
    return merge_short(size, ids, ranks, pairs, shift)


@part
def remember(text, i, size, low, high, count, ids, table, slot, used, arena):
    """Writes a word and its ids into a free slot. used[0] and used[1] are the words and the arena's numbers in use."""
    at = slot * SLOT
    if count <= 3 and high < LONG:
        second = np.uint64(load32(ids, 1) if count > 1 else 0)
        third = np.uint64(load32(ids, 2) if count > 2 else 0)
        store64(table, at + 2, np.uint64(count) | np.uint64(load32(ids, 0)) << np.uint64(32))
        store64(table, at + 3, second | third << np.uint64(32))
    else:
        place = np.int64(load64(used, 1))
        store64(table, at + 2, np.uint64(count + 4) | np.uint64(place) << np.uint64(32))
        for k in range(count):
            store32(arena, place + k, load32(ids, k))
        place += count
        if high >= LONG:
            for offset in range(0, size, 8):
                store64(arena + 4 * place + offset, 0, word64(text, i + offset))
            place += 2 * ((size + 7) >> 3)
        store64(used, 1, np.uint64(place))
    store64(table, at, low)
    store64(table, at + 1, high)
    store64(used, 0, load64(used, 0) + np.uint64(1))


@part
def lengths(ends, words):
    """Returns the length of the longest word, and what all take that are remembered."""
    longest, kept = np.int64(0), np.int64(0)
    for k in range(words):
        length = np.int64(load64(ends, k + 1)) - np.int64(load64(ends, k))
        longest, kept = max(longest, length), kept + min(length, REMEMBERED)
    return longest, kept


@part
def label_all(ids, size, labels, out):
    """Writes the labels of symbols in their place and into `out`."""
    for k in range(size):
        label = load32(labels, load32(ids, k))
        store32(ids, k, label)
        store32(out, k, label)


@part
def write_known(slot, high, text, ends, arena, out):
    """Writes the ids that stand in a slot; returns how many, or -1 if a long word's bytes are others."""
    value = load64(slot, 2)
    size, place = np.int64(value & LOWEST), np.int64(value >> np.uint64(32))
    if size <= 3:
        store32(out, 0, place)
        store64(out + 4, 0, load64(slot, 3))
        return size
    size -= 4
    start = np.int64(load64(ends, 0))
    if high >= LONG and not same(text, start, arena + 4 * (place + size), 0, np.int64(load64(ends, 1)) - start):
        return np.int64(-1)
    for k in range(size):
        store32(out, k, load32(arena, place + k))
    return size


@part
def make_keys(text, ends, count, table, shift, keys):
    """Writes each word's key and slot, and asks for the slots."""
    for k in range(count):
        start = np.int64(load64(ends, k))
        low, high = key_of(text, start, np.int64(load64(ends, k + 1)) - start)
        slot = place_of(low, high, shift)
        prefetch(table + 8 * SLOT * slot)
        store64(keys, 3 * k, low)
        store64(keys, 3 * k + 1, high)
        store64(keys, 3 * k + 2, np.uint64(slot))


@kernel
def merge_letters(text, start, length, letters, scratch, heads, waiting, pairs, pair_shift):
    """Returns how many ids, in scratch[0], a long word comes to."""
    for z in range(length):
        scratch[0, z] = load32(letters, load8(text, start + z))
    return merge_long(length, scratch, heads, waiting, pairs, pair_shift)


@kernel
def short_of(words, span, longest, kept, room, widest, most, space, used):
    """Returns what the words of an edge may want for (0: nothing), and puts how much of it into used[3]."""
    if span + 4 > room:
        used[3] = span
        return OUT
    if longest > widest:
        used[3] = longest
        return SCRATCH
    if used[0] + words > most or used[1] + 3 * kept + 8 * words > space:
        used[3] = 3 * kept + 8 * words
        return ROOM
    return 0


@kernel
def encode_words(buffer, edges, last, at, rules, kinds, letters, squares, pairs, pair_shift, labels, table, shift, used,
                 arena, scratch, heads, waiting, out, marks):  # fmt: skip
    """Writes the ids of the words between edges at[0] and `last`, from byte at[1] on, into `out` from at[2] on.

    marks[edge] becomes the number of ids before an edge, at[3] counting those of earlier calls. Returns 0 when done,
    else what it stopped for want of: at says where to go on.
    """
    text, kinds_, table_, arena_ = buffer.ctypes.data, kinds.ctypes.data, table.ctypes.data, arena.ctypes.data
    letters_, squares_, pairs_, out_ = letters.ctypes.data, squares.ctypes.data, pairs.ctypes.data, out.ctypes.data
    ends, flags, starts, again = rooms()
    keys, few, ranks = np.empty(3 * BATCH, np.uint64), np.empty(SHORT, np.int32), np.empty(SHORT, np.uint64)
    ends_, keys_, few_, ranks_ = ends.ctypes.data, keys.ctypes.data, few.ctypes.data, ranks.ctypes.data
    ids_, used_ = scratch.ctypes.data, used.ctypes.data
    most, ring = (1 << (64 - shift)) // 2, (1 << (64 - shift)) - 1
    while at[0] < last:
        stop, done, words = edges[at[0] + 1], at[2], 0
        if at[1] < stop:
            words = pieces(buffer, at[1], stop, rules, kinds_, ends, flags, starts, again)
            longest, kept = lengths(ends_, words)
            short = short_of(
                words, ends[words] - ends[0], longest, kept, len(out) - done, scratch.shape[1], most, len(arena), used
            )
            if short:
                return short
        for begin in range(0, words, BATCH):
            count = min(BATCH, words - begin)
            make_keys(text, ends_ + 8 * begin, count, table_, shift, keys_)
            for k in range(count):
                low, high, slot = load64(keys_, 3 * k), load64(keys_, 3 * k + 1), np.int64(load64(keys_, 3 * k + 2))
                while True:
                    here = table_ + 8 * SLOT * slot
                    there = load64(here, 1)
                    if (load64(here, 0) == low) & (there == high):
                        size = write_known(here, high, text, ends_ + 8 * (begin + k), arena_, out_ + 4 * done)
                        if size >= 0:
                            done += size
                            break
                    elif there == EMPTY:
                        start = np.int64(load64(ends_, begin + k))
                        length = np.int64(load64(ends_, begin + k + 1)) - start
                        if length <= SHORT:
                            size = merge_word(text, start, length, letters_, squares_, pairs_, pair_shift, few_, ranks_)
                        else:
                            size = merge_letters(
                                text, start, length, letters_, scratch, heads, waiting, pairs_, pair_shift
                            )
                        ids = few_ if length <= SHORT else ids_
                        label_all(ids, size, labels.ctypes.data, out_ + 4 * done)
                        if length <= REMEMBERED:
                            remember(text, start, length, low, high, size, ids, table_, slot, used_, arena_)
                        done += size
                        break
                    slot = (slot + 1) & ring
        if words:
            at[1], at[2] = ends[words], done
        if at[1] >= stop:
            at[0] += 1
            marks[at[0]] = at[3] + done
    return 0


@kernel
def know_words(buffer, edges, labels, table, shift, used, arena, scratch):
    """Writes words that have an id of their own, whatever their merges, into an empty table with room for them."""
    text, ids = buffer.ctypes.data, scratch[0].ctypes.data
    for word in range(len(labels)):
        start, size = edges[word], edges[word + 1] - edges[word]
        low, high = key_of(text, start, size)
        slot = place_of(low, high, shift)
        while load64(table.ctypes.data, slot * SLOT + 1) != EMPTY:
            slot = (slot + 1) & ((1 << (64 - shift)) - 1)
        scratch[0, 0] = labels[word]
        remember(text, start, size, low, high, 1, ids, table.ctypes.data, slot, used.ctypes.data, arena.ctypes.data)
