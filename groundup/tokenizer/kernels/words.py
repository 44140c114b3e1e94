"""Counting the different words of a text, in a table that holds a word of up to 15 bytes in its own slot.

A slot is four 64-bit numbers: two of key, the count, and for a longer word where its bytes stand in the arena. The key of a
short word is the word, filled up with zeros, and its length in the last byte; that of a longer one is a hash and its
length, and its bytes are compared one by one: two words are never taken for one.
"""

import numpy as np

from groundup.tokenizer.kernels.blocks import BLOCK, pieces, rooms
from groundup.tokenizer.kernels.machine import kernel, load8, load64, part, prefetch, store64, word64

__all__ = ["BATCH", "MIXER", "MOST", "SLOT", "add_words", "count_words", "grow", "key_of", "lay_out", "same"]

SLOT = 4
BATCH = 128  # words looked at together: their slots are on the way from memory while the keys of the next are made
MOST = BLOCK + 16  # words that `pieces` can give at once
MIXER, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
ALL, LONG = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFF << 56)
EMPTY = np.uint64(0)


@part
def key_of(text, i, size):
    """Returns the two halves of a word's key."""
    if size <= 15:
        low = word64(text, i) & (ALL >> np.uint64(64 - 8 * min(size, 8)))
        high = word64(text, i + 8) & ((ALL >> np.uint64(8)) >> np.uint64(56 - 8 * max(size - 8, 0)))
        return low, high | (np.uint64(size) << np.uint64(56))
    low, end = np.uint64(size), i + size
    while i + 8 <= end:
        low = (low ^ word64(text, i)) * MIXER
        low ^= low >> np.uint64(29)
        i += 8
    if i < end:
        low = (low ^ (word64(text, i) & (ALL >> np.uint64(64 - 8 * (end - i))))) * MIXER
        low ^= low >> np.uint64(29)
    return low, LONG | np.uint64(size)


@part
def place_of(low, high, shift):
    """Returns the slot where a key belongs: the highest bits of its hash."""
    return np.int64(((low ^ (high * SECOND)) * MIXER) >> np.uint64(shift))


@part
def same(one, i, other, j, size):
    """Returns whether two stretches of bytes are equal."""
    while size >= 8:
        if word64(one, i) != word64(other, j):
            return False
        i, j, size = i + 8, j + 8, size - 8
    while size > 0:
        if load8(one, i) != load8(other, j):
            return False
        i, j, size = i + 1, j + 1, size - 1
    return True


@part
def tally(text, i, low, high, count, table, shift, used, arena):
    """Adds `count` to a word's slot, or makes one. The table has room; used[0] and used[1] are its words and arena bytes.

    used[2] is the length of all different words together.
    """
    slot, last = place_of(low, high, shift), (1 << (64 - shift)) - 1
    while True:
        at = slot * SLOT
        there = load64(table, at + 1)
        if there == high and load64(table, at) == low:
            if high < LONG or same(text, i, arena, np.int64(load64(table, at + 3)), np.int64(high & ~LONG)):
                store64(table, at + 2, load64(table, at + 2) + count)
                return
        elif there == EMPTY:
            size = np.int64(high >> np.uint64(56))
            if high >= LONG:
                size, place = np.int64(high & ~LONG), np.int64(load64(used, 1))
                for offset in range(0, size, 8):
                    store64(arena + place + offset, 0, word64(text, i + offset))
                store64(table, at + 3, np.uint64(place))
                store64(used, 1, np.uint64(place + ((size + 7) & ~7)))
            store64(table, at, low)
            store64(table, at + 1, high)
            store64(table, at + 2, count)
            store64(used, 0, load64(used, 0) + np.uint64(1))
            store64(used, 2, load64(used, 2) + np.uint64(size))
            return
        slot = (slot + 1) & last


@kernel
def count_words(buffer, edges, last, at, rules, kinds, table, shift, used, arena):
    """Counts the words between edges at[0] and `last`, from byte at[1] on; no word crosses an edge.

    Returns False if it stopped for want of room: at[0] and at[1] say where, used[3] how many bytes of arena it takes.
    """
    text, kinds_, table_, arena_ = buffer.ctypes.data, kinds.ctypes.data, table.ctypes.data, arena.ctypes.data
    ends, flags, starts, again = rooms()
    keys = np.empty((BATCH, 2), np.uint64)
    most = (1 << (64 - shift)) // 2
    while at[0] < last:
        stop = edges[at[0] + 1]
        if at[1] < stop:
            count = pieces(buffer, at[1], stop, rules, kinds_, ends, flags, starts, again)
            used[3] = ends[count] - ends[0] + 8 * count
            if used[0] + count > most or used[1] + used[3] > len(arena):
                return False
            for first in range(0, count, BATCH):
                size = min(BATCH, count - first)
                for k in range(size):
                    keys[k, 0], keys[k, 1] = key_of(text, ends[first + k], ends[first + k + 1] - ends[first + k])
                    prefetch(table_ + 8 * SLOT * place_of(keys[k, 0], keys[k, 1], shift))
                for k in range(size):
                    tally(
                        text,
                        ends[first + k],
                        keys[k, 0],
                        keys[k, 1],
                        np.uint64(1),
                        table_,
                        shift,
                        used.ctypes.data,
                        arena_,
                    )
            at[1] = ends[count]
        if at[1] >= stop:
            at[0] += 1
    return True


@kernel
def add_words(source, source_arena, first, least, table, shift, used, arena):
    """Adds the words of another table that occur `least` times or more, from slot `first` on; returns where it stopped."""
    from_, from_arena, into, into_arena = (
        source.ctypes.data, source_arena.ctypes.data, table.ctypes.data, arena.ctypes.data,
    )  # fmt: skip
    most = (1 << (64 - shift)) // 2
    for slot in range(first, source.size // SLOT):
        at = slot * SLOT
        low, high, count = load64(from_, at), load64(from_, at + 1), load64(from_, at + 2)
        if high != EMPTY and count >= least:
            used[3] = np.int64(high & ~LONG) + 8 if high >= LONG else 0
            if used[0] >= most or used[1] + used[3] > len(arena):
                return slot
            tally(
                from_arena, np.int64(load64(from_, at + 3)), low, high, count, into, shift, used.ctypes.data, into_arena
            )
    return source.size // SLOT


@kernel
def grow(source, table, shift):
    """Moves every word of a table into a larger, empty one."""
    from_, into, last = source.ctypes.data, table.ctypes.data, (1 << (64 - shift)) - 1
    for at in range(0, source.size, SLOT):
        high = load64(from_, at + 1)
        if high != EMPTY:
            slot = place_of(load64(from_, at), high, shift)
            while load64(into, slot * SLOT + 1) != EMPTY:
                slot = (slot + 1) & last
            for k in range(SLOT):
                store64(into, slot * SLOT + k, load64(from_, at + k))


@kernel
def lay_out(table, arena, symbols, sizes, counts):
    """Writes the bytes of all words end to end, and each word's size and count."""
    slots, text, at, word = table.ctypes.data, arena.ctypes.data, 0, 0
    for slot in range(0, table.size, SLOT):
        high = load64(slots, slot + 1)
        if high != EMPTY:
            source, i, size = slots + 8 * slot, 0, np.int64(high >> np.uint64(56))
            if high >= LONG:
                source, i, size = text, np.int64(load64(slots, slot + 3)), np.int64(high & ~LONG)
            for k in range(size):
                symbols[at + k] = load8(source, i + k)
            sizes[word], counts[word] = size, np.int64(load64(slots, slot + 2))
            at, word = at + size, word + 1
