"""Learning merges from counted words: the most frequent pair of symbols is joined, and again, with no count taken anew.

All words lie end to end, a cell a byte, with an EDGE before and after each. A cell is four 32-bit numbers: the symbol that
begins there, the pair that it makes with the next symbol (-1: none), and the count of its word. The last cell of
a longer symbol holds how far back its first cell is, as a negative number: so both neighbours are found.

A pair can only come up while the later of its two symbols is being made. So when a merge is done, all places
of its new pairs are known, and are written side by side; no table of pairs is needed, only two rows of numbers, which say
for each symbol the pair that it makes with the new one on its right and on its left.
"""

import numpy as np

from groundup.tokenizer.kernels.machine import kernel, load64, part, prefetch, store64

__all__ = ["LEARNT", "PAIRS", "PLACES", "ROOM", "begin", "merge_pairs"]

EDGE = -(1 << 31)
AHEAD = 12  # places: how far ahead cells are asked for
LEARNT, PAIRS, PLACES, HEAP, FLOOR, ROOM = range(6)  # what `state` holds


@part
def precedes(count, pair, other_count, other, keys):
    """Returns whether a pair goes first: the more frequent, then the smaller ids."""
    return count > other_count or (count == other_count and load64(keys, pair) < load64(keys, other))


@part
def sink(heap, size, count, pair, keys):
    """Puts an entry at the top of the heap, in place of what is there, and lets it sink to where it belongs."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        first, first_pair = load64(heap, 2 * child), np.int64(load64(heap, 2 * child + 1))
        if child + 1 < size:
            second, second_pair = load64(heap, 2 * child + 2), np.int64(load64(heap, 2 * child + 3))
            if precedes(second, second_pair, first, first_pair, keys):
                child, first, first_pair = child + 1, second, second_pair
        if not precedes(first, first_pair, count, pair, keys):
            break
        store64(heap, 2 * at, first)
        store64(heap, 2 * at + 1, np.uint64(first_pair))
        at = child
    store64(heap, 2 * at, count)
    store64(heap, 2 * at + 1, np.uint64(pair))


@part
def rise(heap, size, count, pair, keys):
    """Adds an entry to a heap of `size`."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        above, above_pair = load64(heap, 2 * parent), np.int64(load64(heap, 2 * parent + 1))
        if not precedes(count, pair, above, above_pair, keys):
            break
        store64(heap, 2 * at, above)
        store64(heap, 2 * at + 1, np.uint64(above_pair))
        at = parent
    store64(heap, 2 * at, count)
    store64(heap, 2 * at + 1, np.uint64(pair))


@kernel
def begin(symbols, sizes, counts, first, cells, weights, pair_of, keys, totals, spans, places, state):
    """Fills cells and the pairs of the words as they are, `pair_of` being a square of `first` symbols, all -1."""
    at, source, pairs = 1, 0, 0
    cells[0, 0] = EDGE
    for word in range(len(sizes)):
        size, count = sizes[word], counts[word]
        for k in range(size):
            symbol, pair = symbols[source + k], -1
            if k + 1 < size:
                square = symbol * first + symbols[source + k + 1]
                pair = pair_of[square]
                if pair < 0:
                    pair = pair_of[square] = pairs
                    keys[pair] = np.uint64(symbol) << np.uint64(32) | np.uint64(symbols[source + k + 1])
                    totals[pair] = spans[pair, 1] = 0
                    pairs += 1
                totals[pair] += count
                spans[pair, 1] += 1
            cells[at + k, 0], cells[at + k, 1], weights[at + k, 1] = symbol, pair, count
        at, source = at + size + 1, source + size
        cells[at - 1, 0] = EDGE
    used = 0
    for pair in range(pairs):
        spans[pair, 0], used = used, used + spans[pair, 1]
        spans[pair, 1] = 0
    for cell in range(1, at):
        pair = cells[cell, 1]
        if cells[cell, 0] != EDGE and pair >= 0:
            places[spans[pair, 0] + spans[pair, 1]] = cell
            spans[pair, 1] += 1
    state[PAIRS], state[PLACES] = pairs, used


@part
def refill(heap, totals, keys, state):
    """Puts into the empty heap the pairs that are at least a quarter as frequent as the most frequent one.

    All others can wait: none of them can come up before these are gone. Returns whether there was one.
    """
    best = np.int64(0)
    for pair in range(state[PAIRS]):
        best = max(best, np.int64(load64(totals, pair)))
    if best <= 0:
        return False
    floor, size = max(best // 4, 1), 0
    for pair in range(state[PAIRS]):
        total = np.int64(load64(totals, pair))
        if total >= floor:
            rise(heap, size, np.uint64(total), pair, keys)
            size += 1
    state[FLOOR], state[HEAP] = floor, size
    return True


@part
def join(pair, new, ends, cells, weights, keys, totals, spans, places, notes, ahead, behind, pairs):
    """Replaces a pair by the symbol `new` wherever it stands; returns how many places were noted, and of how many pairs.

    `ends` is where the pair's second symbol begins and where it ends, from the first's beginning.
    """
    base, begins, size, noted = cells.ctypes.data, spans[pair, 0], spans[pair, 1], 0
    for k in range(begins, begins + size):
        if k + AHEAD < begins + size:
            prefetch(base + 16 * np.int64(places[k + AHEAD]))
        cell = np.int64(places[k])
        if cells[cell, 1] != pair:
            continue  # an earlier merge, or this one in a run like "aaa", has used it up
        weight, second, beyond = weights[cell, 1], cell + ends[0], cell + ends[1]
        back = np.int64(cells[cell - 1, 0])
        if back != EDGE:
            previous = cell - 1 + min(back, 0)
            symbol = np.int64(cells[previous, 0])
            found = ahead[symbol]
            if found < 0:
                found = ahead[symbol] = pairs
                keys[pairs], totals[pairs], spans[pairs, 1] = np.uint64(symbol << 32 | new), 0, 0
                pairs += 1
            totals[cells[previous, 1]] -= weight
            totals[found] += weight
            cells[previous, 1] = found
            notes[noted, 0], notes[noted, 1] = found, previous
            noted += 1
        found, symbol = np.int64(-1), np.int64(cells[beyond, 0])
        if symbol != EDGE:
            row = ahead if symbol == new else behind
            found = row[symbol]
            if found < 0:
                found = row[symbol] = pairs
                keys[pairs], totals[pairs], spans[pairs, 1] = np.uint64(new << 32 | symbol), 0, 0
                pairs += 1
            totals[cells[second, 1]] -= weight
            totals[found] += weight
            notes[noted, 0], notes[noted, 1] = found, cell
            noted += 1
        cells[cell, 0], cells[cell, 1], cells[second, 1] = new, found, -1
        cells[beyond - 1, 0] = cell - beyond + 1
    return noted, pairs


@part
def settle(noted, first, pairs, cells, keys, spans, places, used, notes, ahead, behind):
    """Writes the places of the pairs from `first` on side by side, those that still hold; returns where they end."""
    for k in range(noted):
        spans[notes[k, 0], 1] += cells[notes[k, 1], 1] == notes[k, 0]
    for pair in range(first, pairs):
        spans[pair, 0], used, spans[pair, 1] = used, used + spans[pair, 1], 0
        ahead[np.int64(keys[pair] >> np.uint64(32))] = -1
        behind[np.int64(keys[pair] & np.uint64(0xFFFFFFFF))] = -1
    for k in range(noted):
        pair = notes[k, 0]
        if cells[notes[k, 1], 1] == pair:
            places[spans[pair, 0] + spans[pair, 1]] = notes[k, 1]
            spans[pair, 1] += 1
    return used


@kernel
def merge_pairs(
    limit, first, merges, lengths, cells, weights, keys, totals, spans, places, notes, heap, ahead, behind, state
):
    """Learns merges until there are `limit` or no pair is left; returns False if it stopped for want of room.

    state[ROOM] is then how many more pairs, places and notes the next merge can need.
    """
    keys_, totals_, heap_ = keys.ctypes.data, totals.ctypes.data, heap.ctypes.data
    while state[LEARNT] < limit:
        if state[HEAP] == 0 and not refill(heap_, totals_, keys_, state):
            break
        count, pair = np.int64(load64(heap_, 0)), np.int64(load64(heap_, 1))
        if (
            totals[pair] != count
        ):  # merges since then have lowered it: it sinks, or waits until the heap is filled again
            if totals[pair] >= state[FLOOR]:
                sink(heap_, state[HEAP], np.uint64(totals[pair]), pair, keys_)
            else:
                last = state[HEAP] = state[HEAP] - 1
                sink(heap_, last, load64(heap_, 2 * last), np.int64(load64(heap_, 2 * last + 1)), keys_)
            continue
        begins, size, pairs = spans[pair, 0], spans[pair, 1], state[PAIRS]
        state[ROOM] = 2 * size
        if pairs + 2 * size > len(totals) or state[PLACES] + 2 * size > len(places) or 2 * size > len(notes):
            return False
        left, right = np.int64(keys[pair] >> np.uint64(32)), np.int64(keys[pair] & np.uint64(0xFFFFFFFF))
        if left == right and size > 1 and places[begins] > places[begins + size - 1]:
            for k in range(size // 2):  # "aaa" joins from the left
                low, high = begins + k, begins + size - 1 - k
                places[low], places[high] = places[high], places[low]
        new, ends = first + state[LEARNT], (lengths[left], lengths[left] + lengths[right])
        noted, after = join(pair, new, ends, cells, weights, keys, totals, spans, places, notes, ahead, behind, pairs)
        totals[pair] = 0
        state[PLACES] = settle(noted, pairs, after, cells, keys, spans, places, state[PLACES], notes, ahead, behind)
        for made in range(pairs, after):
            if totals[made] >= state[FLOOR]:
                rise(heap_, state[HEAP], np.uint64(totals[made]), made, keys_)
                state[HEAP] += 1
        merges[state[LEARNT], 0], merges[state[LEARNT], 1], lengths[new] = left, right, ends[1]
        state[PAIRS], state[LEARNT] = after, state[LEARNT] + 1
    return True
