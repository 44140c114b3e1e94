"""From bytes to ids: the merges of a word, short or long, and the table that remembers the words already merged.

A slot of the table is a word's key, as in words.py, and its ids: their number and three of them in the slot itself, or
where more begin in the arena. A long word's bytes stand in the arena behind its ids and are compared at each use.
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

__all__ = ["NEVER", "SHORT", "OUT", "ROOM", "SCRATCH", "encode_words", "fill_pairs", "know_words", "merge_symbols"]

NEVER = 0x7FFFFFFF  # the rank of a pair that no merge joins
SHORT = 64  # symbols: up to here looking through the whole word for the next merge is faster than keeping lists
REMEMBERED = 256  # bytes: longer words are merged anew each time
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOWEST = np.uint64(0xFFFFFFFF)
ROOM, SCRATCH, OUT = (
    1,
    2,
    3,
)  # what encode_words stopped for: table or arena, a longer word than scratch holds, a full `out`


@part
def rank_of(left, right, pairs, shift):
    """Returns the symbol that a pair is joined to, which is its rank too, or NEVER."""
    key = np.uint64(left << 32 | right)
    slot, last = np.int64((key * MIXER) >> np.uint64(shift)), (1 << (64 - shift)) - 1
    while True:
        there = load64(pairs, 2 * slot)
        if there == key:
            return np.int64(load64(pairs, 2 * slot + 1))
        if there == FREE:
            return NEVER
        slot = (slot + 1) & last


@kernel
def fill_pairs(merges, first, pairs, shift):
    """Writes each merge, and the symbol it makes, into an empty table."""
    table, last = pairs.ctypes.data, (1 << (64 - shift)) - 1
    for i in range(len(merges)):
        key = np.uint64(np.int64(merges[i, 0]) << 32 | np.int64(merges[i, 1]))
        slot = np.int64((key * MIXER) >> np.uint64(shift))
        while load64(table, 2 * slot) != FREE:
            slot = (slot + 1) & last
        store64(table, 2 * slot, key)
        store64(table, 2 * slot + 1, np.uint64(first + i))


@kernel
def merge_short(size, ids, ranks, pairs, shift):
    """Returns how many symbols are left of `size` after all merges; ranks[k] is that of the pair at k."""
    while size > 1:
        best, at = np.int64(NEVER), 0
        for k in range(size - 1):
            rank = load32(ranks, k)
            if rank < best:
                best, at = rank, k
        if best == NEVER:
            break
        store32(ids, at, best)
        size -= 1
        for k in range(at + 1, size):
            store32(ids, k, load32(ids, k + 1))
            store32(ranks, k, load32(ranks, k + 1))
        if at + 1 < size:
            store32(ranks, at, rank_of(best, load32(ids, at + 1), pairs, shift))
        if at > 0:
            store32(ranks, at - 1, rank_of(load32(ids, at - 1), best, pairs, shift))
    return size


@part
def unlist(place, ranks, after, before, heads):
    """Takes a place out of the list of its pair's rank."""
    rank, following, previous = ranks[place], after[place], before[place]
    if rank != NEVER:
        if previous >= 0:
            after[previous] = following
        else:
            heads[0, rank] = following
        if following >= 0:
            before[following] = previous
        else:
            heads[1, rank] = previous


@part
def enlist(place, rank, ranks, after, before, heads, waiting):
    """Puts a place at the end of a rank's list."""
    ranks[place] = rank
    if rank != NEVER:
        last = heads[1, rank]
        after[place], before[place], heads[1, rank] = -1, last, place
        if last >= 0:
            after[last] = place
        else:
            heads[0, rank] = place
            waiting[rank >> 6] |= np.uint64(1) << np.uint64(rank & 63)


@kernel
def merge_long(size, scratch, heads, waiting, pairs, shift):
    """The same for long words, in linear time: merge after merge, each at all its places, from left to right.

    A merge makes only pairs that hold its new symbol, and those have a higher rank: so going up through the ranks once
    is enough. The places of each rank are a list, linked through the places themselves.
    """
    ids, ranks, after, before, right, left = (
        scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5],
    )  # fmt: skip
    for k in range(size):
        left[k], right[k], ranks[k] = k - 1, k + 1, NEVER
    right[size - 1] = -1
    for k in range(size - 1):
        enlist(k, rank_of(np.int64(ids[k]), np.int64(ids[k + 1]), pairs, shift), ranks, after, before, heads, waiting)
    for group in range(len(waiting)):
        while waiting[group]:
            rank = group * 64 + first_bit(waiting[group])
            waiting[group] &= waiting[group] - np.uint64(1)
            place = heads[0, rank]
            while place >= 0:
                gone = right[place]
                beyond, previous = right[gone], left[place]
                unlist(place, ranks, after, before, heads)
                unlist(gone, ranks, after, before, heads)
                ids[place], ids[gone], right[place] = rank, -1, beyond
                found = np.int64(NEVER)
                if beyond >= 0:
                    left[beyond] = place
                    found = rank_of(rank, np.int64(ids[beyond]), pairs, shift)
                if previous >= 0:
                    unlist(previous, ranks, after, before, heads)
                    made = rank_of(np.int64(ids[previous]), rank, pairs, shift)
                    enlist(previous, made, ranks, after, before, heads, waiting)
                enlist(place, found, ranks, after, before, heads, waiting)
                place = heads[0, rank]
    count = 0
    for k in range(size):
        if ids[k] >= 0:
            ids[count] = ids[k]
            count += 1
    return count


@kernel
def merge_symbols(size, long, scratch, heads, waiting, pairs, shift):
    """Merges the symbols in scratch[0]; returns how many are left there."""
    if long:
        return merge_long(size, scratch, heads, waiting, pairs.ctypes.data, shift)
    for k in range(size - 1):
        scratch[1, k] = rank_of(np.int64(scratch[0, k]), np.int64(scratch[0, k + 1]), pairs.ctypes.data, shift)
    return merge_short(size, scratch[0].ctypes.data, scratch[1].ctypes.data, pairs.ctypes.data, shift)


@kernel
def merge_word(buffer, i, size, letters, squares, pairs, shift, scratch, heads, waiting):
    """Writes the ids of a word into scratch[0]; returns how many there are."""
    text, pairs_ = buffer.ctypes.data, pairs.ctypes.data
    for k in range(size):
        scratch[0, k] = letters[load8(text, i + k)]
    if size > SHORT:
        return merge_long(size, scratch, heads, waiting, pairs_, shift)
    for k in range(size - 1):
        scratch[1, k] = squares[load8(text, i + k) << 8 | load8(text, i + k + 1)]
    return merge_short(size, scratch[0].ctypes.data, scratch[1].ctypes.data, pairs_, shift)


@kernel
def remember(text, i, size, low, high, count, ids, table, slot, used, arena):
    """Writes a word and its ids into a free slot. used[0] and used[1] are the words and the arena's numbers in use."""
    at = slot * SLOT
    if count <= 3 and high < LONG:
        second = np.uint64(load32(ids, 1) if count > 1 else 0)
        third = np.uint64(load32(ids, 2) if count > 2 else 0)
        store64(table, at + 2, np.uint64(count) | np.uint64(load32(ids, 0)) << np.uint64(32))
        store64(table, at + 3, second | third << np.uint64(32))
    else:
        place = used[1]
        store64(table, at + 2, np.uint64(count) | np.uint64(place) << np.uint64(32))
        for k in range(count):
            store32(arena, place + k, load32(ids, k))
        used[1] = place + count
        if high >= LONG:
            for offset in range(0, size, 8):
                store64(arena + 4 * used[1] + offset, 0, word64(text, i + offset))
            used[1] += 2 * ((size + 7) >> 3)
    store64(table, at, low)
    store64(table, at + 1, high)
    used[0] += 1


@kernel
def encode_words(buffer, edges, last, at, rules, kinds, letters, squares, pairs, pair_shift, labels, table, shift, used,
                 arena, scratch, heads, waiting, out, marks):  # fmt: skip
    """Writes the ids of the words between edges at[0] and `last`, from byte at[1] on, into `out` from at[2] on.

    marks[edge] becomes the number of ids before an edge, at[3] counting those of earlier calls. Returns 0 when done,
    else what it stopped for want of: at says where to go on.
    """
    text, kinds_, table_, arena_ = buffer.ctypes.data, kinds.ctypes.data, table.ctypes.data, arena.ctypes.data
    ids, out_ = scratch[0].ctypes.data, out.ctypes.data
    ends, flags, starts, again = rooms()
    keys = np.empty((BATCH, 3), np.uint64)
    most, ring = (1 << (64 - shift)) // 2, (1 << (64 - shift)) - 1
    while at[0] < last:
        stop, done, words = edges[at[0] + 1], at[2], 0
        if at[1] < stop:
            words = pieces(buffer, at[1], stop, rules, kinds_, ends, flags, starts, again)
            longest = 0
            for k in range(words):
                longest = max(longest, ends[k + 1] - ends[k])
            span = ends[words] - ends[0]
            if span + 4 > len(out) - done:
                used[3] = span
                return OUT
            if longest > scratch.shape[1]:
                used[3] = longest
                return SCRATCH
            if used[0] + words > most or used[1] + 3 * span + 8 * words > len(arena):
                used[3] = 3 * span + 8 * words
                return ROOM
        for begin in range(0, words, BATCH):
            count = min(BATCH, words - begin)
            for k in range(count):
                start = ends[begin + k]
                keys[k, 0], keys[k, 1] = key_of(text, start, ends[begin + k + 1] - start)
                slot = place_of(keys[k, 0], keys[k, 1], shift)
                keys[k, 2] = np.uint64(slot)
                prefetch(table_ + 8 * SLOT * slot)
            for k in range(count):
                low, high, slot = keys[k, 0], keys[k, 1], np.int64(keys[k, 2])
                start, length = ends[begin + k], ends[begin + k + 1] - ends[begin + k]
                while True:
                    at_slot = table_ + 8 * SLOT * slot
                    there = load64(at_slot, 1)
                    if (load64(at_slot, 0) == low) & (there == high):
                        value = load64(at_slot, 2)
                        size, place = np.int64(value & LOWEST), np.int64(value >> np.uint64(32))
                        if size <= 3 and high < LONG:
                            store32(out_, done, place)
                            store64(out_ + 4 * done + 4, 0, load64(at_slot, 3))
                        elif high < LONG or same(text, start, arena_ + 4 * (place + size), 0, length):
                            for z in range(size):
                                store32(out_, done + z, load32(arena_, place + z))
                        else:
                            slot = (slot + 1) & ring
                            continue
                    elif there == EMPTY:
                        size = merge_word(
                            buffer, start, length, letters, squares, pairs, pair_shift, scratch, heads, waiting
                        )
                        for z in range(size):
                            label = np.int64(labels[scratch[0, z]])
                            scratch[0, z] = label
                            store32(out_, done + z, label)
                        if length <= REMEMBERED:
                            remember(text, start, length, low, high, size, ids, table_, slot, used, arena_)
                    else:
                        slot = (slot + 1) & ring
                        continue
                    done += size
                    break
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
        remember(text, start, size, low, high, 1, ids, table.ctypes.data, slot, used, arena.ctypes.data)
