/* From text to ids, as kernels/merge.py does it with Numba, id for id: engine.py compiles this where there is a compiler.

   A chunk of text is cut into words by masks of 64 bytes (the rules are those of kernels/blocks.py); a chunk that can't be is
   given back with SPLIT. Then batch by batch: the keys of all words, their lines of the tables on the way from memory
   meanwhile, and the ids that stand there. A word met for the first time is merged and remembered.

   Words of up to 8 bytes stand four a line (64 bytes) in one table: four keys, four values. All others stand two a line in a second
   one: two first halves of keys, two second halves, two values, two values more. The key of a word of 9 to 16 bytes is the word;
   that of a longer one is a hash and its length under a byte that no text holds, and its bytes are compared at each use.
   A value is up to three ids of 20 bits and their number above them (4 to 6: the others are in the second value); or SPILL,
   the number of ids (28 bits) and where they stand in the arena (32 bits), there followed by the bytes of a long word.

   All threads read and write the same tables. Looking up takes no lock: a place, once written, never changes, and its value, zero in
   a free one, is written last (release), so whoever sees it (acquire: free on x86) sees what belongs to it. Who sees the key alone,
   or neither, looks again below. Only remembering takes a lock, and the tables are a cache: a thread that can't have the lock
   soon, or finds them full, goes on without. Nobody writes to full tables: larger ones take their words (move), and every
   thread changes to those before its next chunk (ROOM), while others may still be reading the old ones. */

#include "split.c"
#include <stdlib.h>

enum { DONE, ROOM, OUT, MEMORY };          /* why encode() returns */
enum { BATCH = 256, LONGEST = 256, SPILL = 15, PATIENCE = 64 };
#define NEVER 0xFFFFFFu
#define NONE 0xFFFFFFFFu
#define MIXER 0x9E3779B97F4A7C15ull
#define SECOND 0xC2B2AE3D27D4EB4Full
#define HASHED (0xFFull << 56)

typedef struct { /* field for field what native.py calls Words */
    u64 *small, *large;                    /* the two tables */
    i64 small_shift, large_shift, small_most, large_most;
    i32 *arena;
    i64 arena_most;
    i64 small_used, large_used, arena_used, full, lock;
} Words;

typedef struct { /* field for field what native.py calls Work */
    const u8 *text;
    const i64 *edges;
    i64 edge, last, at;                    /* the text between two edges that is being read, and where */
    i32 *out;
    i64 done, room, before, *marks;        /* ids written, and at most; those of earlier calls; ids before each edge */
    i64 rules;
    const u8 *kinds;
    const i32 *letters, *squares;          /* the symbol of a byte; the rank of a pair of bytes */
    const u64 *pairs, *likely;             /* the table of pairs; a bit for each hash of one: most pairs there are have none */
    i64 pair_shift;
    const i32 *labels;
    Words *words;
    u32 *heads, *tails;                    /* for long words: the list of the places of each rank */
    u64 *waiting;
    i64 groups;                            /* of 64 ranks */
    i64 wanted;                            /* bytes that OUT is about */
} Work;

/* Merging: the places of a word's symbols, the first dead when two are joined to one. */

static inline u32 rank(const Work *w, i32 left, i32 right) {
    u64 key = (u64)left << 20 | (u64)right, hash = key * MIXER, ring = (1ull << (64 - w->pair_shift)) - 1;
    if (!(w->likely[hash >> 51] >> (hash >> 45 & 63) & 1)) return NEVER;
    for (u64 slot = hash >> w->pair_shift;; slot = (slot + 1) & ring) {
        u64 there = w->pairs[slot];
        if (there >> 24 == key) return there & NEVER;
        if (there == ~0ull) return NEVER;
    }
}

/* Returns how many ids a word of up to LONGEST bytes has. A pair's rank and place are compared as one number. */
static int merge(const Work *w, const u8 *p, int size, i32 *ids) {
    u32 pair[LONGEST + 16];
    i32 symbol[LONGEST];
    int16_t after[LONGEST], before[LONGEST];
    int padded = (size + 15) & ~15, count = 0;
    for (int k = 0; k < size; k++) symbol[k] = w->letters[p[k]], after[k] = (int16_t)(k + 1), before[k] = (int16_t)(k - 1);
    for (int k = 0; k < size - 1; k++) pair[k] = (u32)w->squares[p[k] << 8 | p[k + 1]] << 8 | (u32)k;
    for (int k = size - 1; k < padded; k++) pair[k] = ~0u;
    for (;;) {
        u32 best = ~0u;
        for (int k = 0; k < padded; k++) best = pair[k] < best ? pair[k] : best;
        if (best >= NEVER << 8) break;
        int at = best & 255, gone = after[at], beyond = after[gone], previous = before[at];
        symbol[at] = (i32)(best >> 8), after[at] = (int16_t)beyond, pair[gone] = pair[at] = ~0u;
        if (beyond < size) before[beyond] = (int16_t)at, pair[at] = rank(w, symbol[at], symbol[beyond]) << 8 | (u32)at;
        if (previous >= 0) pair[previous] = rank(w, symbol[previous], symbol[at]) << 8 | (u32)previous;
    }
    for (int k = 0; k < size; k = after[k]) ids[count++] = w->labels[symbol[k]];
    return count;
}

/* The same for longer words, in linear time: merge after merge, each at all its places, from left to right. A merge makes only
   pairs that hold its new symbol, and those have a higher rank: going up through the ranks once is enough. The places of each rank
   are a list, linked through the places themselves. */

typedef struct { u32 symbol, rank, after, before, right, left; } Place;

static inline void unlist(Work *w, Place *word, u32 at) {
    Place *x = word + at;
    if (x->rank == NEVER) return;
    *(x->before != NONE ? &word[x->before].after : w->heads + x->rank) = x->after;
    *(x->after != NONE ? &word[x->after].before : w->tails + x->rank) = x->before;
}

static inline void enlist(Work *w, Place *word, u32 at, u32 rank) {
    Place *x = word + at;
    x->rank = rank;
    if (rank == NEVER) return;
    x->after = NONE, x->before = w->tails[rank], w->tails[rank] = at;
    *(x->before != NONE ? &word[x->before].after : w->heads + rank) = at;
    if (x->before == NONE) w->waiting[rank >> 6] |= 1ull << (rank & 63);
}

/* Writes the ids of a word of any size into `out`; returns how many there are, 0 if there is no memory. */
static i64 merge_long(Work *w, const u8 *p, i64 size, i32 *out) {
    Place *word = malloc((size_t)size * sizeof(Place));
    i64 count = 0;
    if (!word) return 0;
    for (u32 k = 0; k < size; k++) word[k] = (Place){(u32)w->letters[p[k]], NEVER, NONE, NONE, k + 1 < size ? k + 1 : NONE, k - 1};
    for (u32 k = 0; k + 1 < size; k++) enlist(w, word, k, rank(w, (i32)word[k].symbol, (i32)word[k + 1].symbol));
    for (i64 group = 0; group < w->groups; group++)
        while (w->waiting[group]) {
            u32 new = (u32)(64 * group) + (u32)__builtin_ctzll(w->waiting[group]);
            w->waiting[group] &= w->waiting[group] - 1;
            for (u32 at; (at = w->heads[new]) != NONE;) {
                u32 gone = word[at].right, beyond = word[gone].right, previous = word[at].left, made = NEVER;
                unlist(w, word, at), unlist(w, word, gone);
                word[at].symbol = new, word[gone].symbol = NONE, word[at].right = beyond;
                if (beyond != NONE) word[beyond].left = at, made = rank(w, (i32)new, (i32)word[beyond].symbol);
                if (previous != NONE) {
                    unlist(w, word, previous);
                    enlist(w, word, previous, rank(w, (i32)word[previous].symbol, (i32)new));
                }
                enlist(w, word, at, made);
            }
        }
    for (i64 k = 0; k < size; k++)
        if (word[k].symbol != NONE) out[count++] = w->labels[word[k].symbol];
    free(word);
    return count;
}

/* Looking up. */

typedef struct { u64 low, high; } Key;
typedef u64 Four __attribute__((vector_size(32)));
typedef u64 Two __attribute__((vector_size(16)));

static inline u64 small_key(const u8 *p, int size) { return load(p) << (-8 * size & 63); } /* a size of 1 to 8 */
static inline u64 *line_of(u64 *table, i64 shift, u64 hash) { return table + 8 * (hash * MIXER >> shift); }
static inline u64 mixed(Key key) { return key.low ^ key.high * SECOND; }

static inline Key large_key(const u8 *p, int size, int zero) {
    if (size <= 16 && !zero) return (Key){load(p), small_key(p + 8, size - 8)};
    u64 low = (u64)size;
    int i = 0;
    for (; i + 8 <= size; i += 8) low = (low ^ load(p + i)) * MIXER, low ^= low >> 29;
    if (i < size) low = (low ^ small_key(p + i, size - i)) * MIXER, low ^= low >> 29;
    return (Key){low, HASHED | (u64)size};
}

/* Returns whether the word of a value with HASHED key is this one. */
static inline int same(const i32 *arena, u64 value, const u8 *p, int size) {
    return !memcmp(arena + (u32)value + (value >> 32 & 0xFFFFFFF), p, (size_t)size);
}

/* Finds a word among the lines from its own on, and its value, or the first free place and 0. */
static u64 find(const Words *words, const u8 *p, int size, int zero, u64 **place) {
    if (size <= 8 && !zero) {
        u64 wanted = small_key(p, size), ring = (1ull << (64 - words->small_shift)) - 1;
        for (u64 slot = wanted * MIXER >> words->small_shift;; slot = (slot + 1) & ring)
            for (int k = 0; k < 4; k++) {
                *place = words->small + 8 * slot + k;
                u64 value = __atomic_load_n(*place + 4, __ATOMIC_ACQUIRE);
                if (!value || **place == wanted) return value;
            }
    }
    Key wanted = large_key(p, size, zero);
    u64 ring = (1ull << (64 - words->large_shift)) - 1;
    for (u64 slot = mixed(wanted) * MIXER >> words->large_shift;; slot = (slot + 1) & ring)
        for (int k = 0; k < 2; k++) {
            *place = words->large + 8 * slot + k;
            u64 value = __atomic_load_n(*place + 4, __ATOMIC_ACQUIRE);
            if (!value || ((*place)[0] == wanted.low && (*place)[2] == wanted.high
                           && (wanted.high < HASHED || same(words->arena, value, p, size)))) return value;
        }
}

/* Writes a word and its ids into a free place, if there is one and no other thread has or is just writing. */
static void remember(Words *words, const u8 *p, int size, int zero, const i32 *ids, int count) {
    int small = size <= 8 && !zero, fits = count <= (small ? 3 : 6), hashed = size > 16 || zero, turns = 0;
    u64 *place, value, parts[2] = {0, 0};
    while (__atomic_exchange_n(&words->lock, 1, __ATOMIC_ACQUIRE))
        if (++turns == PATIENCE) return;
    if (!words->full && !find(words, p, size, zero, &place)) {
        for (int k = 0; k < count; k++) fits &= ids[k] < 1 << 20;
        if (fits && !hashed) {
            for (int k = 0; k < count; k++) parts[k / 3] |= (u64)ids[k] << (20 * (k % 3));
            value = parts[0] | (u64)count << 60;
        } else {
            value = (u64)SPILL << 60 | (u64)count << 32 | (u64)words->arena_used;
            memcpy(words->arena + words->arena_used, ids, 4 * (size_t)count);
            words->arena_used += count;
            if (hashed) memcpy(words->arena + words->arena_used, p, (size_t)size), words->arena_used += (size + 3) / 4;
        }
        if (small) place[0] = small_key(p, size), words->small_used++;
        else {
            Key key = large_key(p, size, zero);
            place[0] = key.low, place[2] = key.high, place[6] = parts[1], words->large_used++;
        }
        __atomic_store_n(place + 4, value, __ATOMIC_RELEASE);
        int full = words->small_used >= words->small_most || words->large_used >= words->large_most
            || words->arena_used >= words->arena_most;
        __atomic_store_n(&words->full, full, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&words->lock, 0, __ATOMIC_RELEASE);
}

static inline i32 *write3(i32 *out, u64 value) {
    u64 two = (value & 0xFFFFF) | (value << 12 & 0xFFFFFull << 32);
    memcpy(out, &two, 8);
    out[2] = (i32)(value >> 40 & 0xFFFFF);
    return out;
}

/* Writes the ids of the words between `ends`. */
static void encode_pieces(Work *w, const u8 *p, const i64 *ends, int count, int zero) {
    u64 keys[BATCH], values[BATCH], more[BATCH], *lines[BATCH];
    Key other_keys[BATCH];
    u64 *other_lines[BATCH];
    uint16_t others[BATCH];
    int most = zero ? 0 : 8;
    Words *words = w->words;
    u64 *small = words->small, *second = words->large; /* not read anew for every word: others write beside them */
    i64 small_shift = words->small_shift, large_shift = words->large_shift;
    const i32 *arena = words->arena;
    i32 *out = w->out + w->done;
    for (; count > 0; count -= BATCH, ends += BATCH) {
        int n = count < BATCH ? count : BATCH, large = 0;
        for (int k = 0; k < n; k++) {
            const u8 *word = p + ends[k];
            int size = (int)(ends[k + 1] - ends[k]);
            keys[k] = small_key(word, size);
            lines[k] = line_of(small, small_shift, keys[k]);
            __builtin_prefetch(lines[k]);
            others[large] = (uint16_t)k;
            large += size > most;
        }
        for (int k = 0; k < large; k++) {
            const i64 *end = ends + others[k];
            other_keys[k] = large_key(p + end[0], (int)(end[1] - end[0]), zero);
            other_lines[k] = line_of(second, large_shift, mixed(other_keys[k]));
            __builtin_prefetch(other_lines[k]);
        }
        for (int k = 0; k < n; k++) { /* without a branch: which place it is can't be foreseen */
            const Four *line = (const Four *)lines[k];
            Four found = (Four)(line[0] == keys[k]) & line[1];
            values[k] = found[0] | found[1] | found[2] | found[3];
        }
        for (int k = 0; k < large; k++) {
            const Two *line = (const Two *)other_lines[k];
            Two equal = (Two)(line[0] == other_keys[k].low) & (Two)(line[1] == other_keys[k].high);
            Two held = equal & line[2];
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            Two further = equal & line[3];
            u64 found = held[0] | held[1], rest = further[0] | further[1];
            int at = others[k];
            if (other_keys[k].high >= HASHED && found && !same(arena, found, p + ends[at], (int)(ends[at + 1] - ends[at]))) found = 0;
            values[at] = found, more[at] = rest;
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        for (int k = 0; k < n; k++) {
            u64 value = values[k];
            if (!value) { /* not on its own line: further on, or new */
                u64 *place;
                const u8 *word = p + ends[k];
                int size = (int)(ends[k + 1] - ends[k]);
                if (!(value = find(words, word, size, zero, &place))) {
                    int number = merge(w, word, size, out);
                    remember(words, word, size, zero, out, number);
                    out += number;
                    continue;
                }
                more[k] = size > 8 ? place[6] : 0;
            }
            int number = (int)(value >> 60);
            write3(out, value);
            if (number > 3) {
                if (number == SPILL) {
                    const i32 *from = arena + (u32)value;
                    number = (int)(value >> 32 & 0xFFFFFFF);
                    for (int i = 0; i < number; i += 8) memcpy(out + i, from + i, 32);
                } else write3(out + 3, more[k]);
            }
            out += number;
        }
    }
    w->done = out - w->out;
}

/* Returns which of split.c's ways this build takes; tests ask. */
int width(void) { return WIDTH; }

/* Writes the ids of the texts between `edge` and `last` into `out`; returns why it stopped, and goes on where it was. */
int encode(Work *w) {
    i64 ends[CHUNK + 64];
    while (w->edge < w->last) {
        i64 stop = w->edges[w->edge + 1];
        while (w->at < stop) {
            const u8 *p = w->text + w->at;
            int zero, words = 0, count = cut(p, stop - w->at, w->rules, w->kinds, ends, &zero);
            while (words < count && ends[words + 1] - ends[words] <= LONGEST) words++;
            w->wanted = words ? ends[words] : ends[1];
            if (w->wanted + 16 > w->room - w->done) return OUT;
            if (!words) { /* a long word: merged anew each time, unless it has an id of its own */
                u64 *place, value = find(w->words, p, (int)ends[1], 0, &place);
                i64 number = 1;
                if (value) w->out[w->done] = w->words->arena[(u32)value];
                else if (!(number = merge_long(w, p, ends[1], w->out + w->done))) return MEMORY;
                w->done += number;
            } else {
                if (__atomic_load_n(&w->words->full, __ATOMIC_ACQUIRE)) return ROOM;
                encode_pieces(w, p, ends, words, zero);
            }
            w->at += w->wanted;
        }
        w->marks[++w->edge] = w->before + w->done;
    }
    return DONE;
}

/* Remembers a word that has an id of its own, whatever its merges; among zero bytes, too. */
void know(Words *words, const u8 *p, i64 size, i32 label) {
    for (int zero = memchr(p, 0, (size_t)size) != 0; zero < 2; zero++) remember(words, p, (int)size, zero, &label, 1);
}

/* Gives the words of full tables to empty ones with more room. */
void move(const Words *from, Words *to) {
    u64 small = 1ull << (64 - to->small_shift), large = 1ull << (64 - to->large_shift);
    for (const u64 *at = from->small, *end = at + (8ull << (64 - from->small_shift)); at < end; at += 8)
        for (int k = 0; k < 4 && at[k + 4]; k++) {
            u64 place = 4 * (at[k] * MIXER >> to->small_shift), *free;
            while (*(free = to->small + 2 * (place & ~3ull) + (place & 3) + 4)) place = (place + 1) & (4 * small - 1);
            free[-4] = at[k], free[0] = at[k + 4];
        }
    for (const u64 *at = from->large, *end = at + (8ull << (64 - from->large_shift)); at < end; at += 8)
        for (int k = 0; k < 2 && at[k + 4]; k++) {
            u64 place = 2 * (mixed((Key){at[k], at[k + 2]}) * MIXER >> to->large_shift), *free;
            while (*(free = to->large + 4 * (place & ~1ull) + (place & 1) + 4)) place = (place + 1) & (2 * large - 1);
            for (int j = -4; j < 4; j += 2) free[j] = at[k + 4 + j];
        }
    memcpy(to->arena, from->arena, 4 * (size_t)from->arena_used);
    to->small_used = from->small_used, to->large_used = from->large_used, to->arena_used = from->arena_used;
}
