/* From text to ids, as kernels/merge.py does it with Numba, id for id: engine.py compiles this where there is a compiler.

   A chunk of text is cut into words by masks of 64 bytes (the rules are those of kernels/blocks.py); a chunk that can't be is
   given back with SPLIT. Then batch by batch: the keys of all words, their lines of the tables on the way from memory
   meanwhile, and the ids that stand there. A word met for the first time is merged and remembered.

   Words of up to 8 bytes stand four a line (64 bytes) in one table: four keys, four values. All others stand two a line in a second
   one: two first halves of keys, two second halves, two values, two values more. The key of a word of 9 to 16 bytes is the word;
   that of a longer one is a hash and its length under a byte that no text holds, and its bytes are compared at each use.
   A value is up to three ids of 20 bits and their number above them (4 to 6: the others are in the second value); or SPILL,
   the number of ids (28 bits) and where they stand in the arena (32 bits), there followed by the bytes of a long word. */

#include "split.c"
#include <stdlib.h>

enum { DONE, ROOM, OUT, MEMORY };          /* why encode() returns */
enum { BATCH = 256, LONGEST = 256, SPILL = 15 };
#define NEVER 0xFFFFFFu
#define NONE 0xFFFFFFFFu
#define MIXER 0x9E3779B97F4A7C15ull
#define SECOND 0xC2B2AE3D27D4EB4Full
#define HASHED (0xFFull << 56)

typedef struct { /* field for field what engine.py calls Work */
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
    u64 *small, *large;                    /* the two tables */
    i64 small_shift, large_shift, small_used, large_used, small_most, large_most;
    i32 *arena;
    i64 arena_used, arena_room;
    u32 *heads, *tails;                    /* for long words: the list of the places of each rank */
    u64 *waiting;
    i64 groups;                            /* of 64 ranks */
    i64 wanted;                            /* bytes that ROOM or OUT are about */
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
static inline int same(const Work *w, u64 value, const u8 *p, int size) {
    return !memcmp(w->arena + (u32)value + (value >> 32 & 0xFFFFFFF), p, (size_t)size);
}

/* Finds a word among the lines from its own on, or the first free place: `value` points to it. */
static int find(const Work *w, const u8 *p, int size, int zero, u64 **key, u64 **value) {
    if (size <= 8 && !zero) {
        u64 wanted = small_key(p, size), ring = (1ull << (64 - w->small_shift)) - 1;
        for (u64 slot = wanted * MIXER >> w->small_shift;; slot = (slot + 1) & ring)
            for (int k = 0; k < 4; k++) {
                *key = w->small + 8 * slot + k, *value = *key + 4;
                if (**key == wanted) return 1;
                if (!**value) return 0;
            }
    }
    Key wanted = large_key(p, size, zero);
    u64 ring = (1ull << (64 - w->large_shift)) - 1;
    for (u64 slot = mixed(wanted) * MIXER >> w->large_shift;; slot = (slot + 1) & ring)
        for (int k = 0; k < 2; k++) {
            *key = w->large + 8 * slot + k, *value = *key + 4;
            if (!**value) return 0;
            if (**key == wanted.low && (*key)[2] == wanted.high && (wanted.high < HASHED || same(w, **value, p, size))) return 1;
        }
}

/* Writes a word and its ids into a free place. */
static void remember(Work *w, const u8 *p, int size, int zero, const i32 *ids, int count, u64 *key, u64 *value) {
    int small = size <= 8 && !zero, fits = count <= (small ? 3 : 6), hashed = size > 16 || zero;
    for (int k = 0; k < count; k++) fits &= ids[k] < 1 << 20;
    if (fits && !hashed) {
        u64 parts[2] = {0, 0};
        for (int k = 0; k < count; k++) parts[k / 3] |= (u64)ids[k] << (20 * (k % 3));
        value[0] = parts[0] | (u64)count << 60;
        if (!small) value[2] = parts[1];
    } else {
        value[0] = (u64)SPILL << 60 | (u64)count << 32 | (u64)w->arena_used;
        memcpy(w->arena + w->arena_used, ids, 4 * (size_t)count);
        w->arena_used += count;
        if (hashed) memcpy(w->arena + w->arena_used, p, (size_t)size), w->arena_used += (size + 3) / 4;
    }
    if (small) key[0] = small_key(p, size), w->small_used++;
    else {
        Key made = large_key(p, size, zero);
        key[0] = made.low, key[2] = made.high, w->large_used++;
    }
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
    i32 *out = w->out + w->done;
    for (; count > 0; count -= BATCH, ends += BATCH) {
        int n = count < BATCH ? count : BATCH, large = 0;
        for (int k = 0; k < n; k++) {
            const u8 *word = p + ends[k];
            int size = (int)(ends[k + 1] - ends[k]);
            keys[k] = small_key(word, size);
            lines[k] = line_of(w->small, w->small_shift, keys[k]);
            __builtin_prefetch(lines[k]);
            others[large] = (uint16_t)k;
            large += size > most;
        }
        for (int k = 0; k < large; k++) {
            const i64 *end = ends + others[k];
            other_keys[k] = large_key(p + end[0], (int)(end[1] - end[0]), zero);
            other_lines[k] = line_of(w->large, w->large_shift, mixed(other_keys[k]));
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
            u64 found = (equal & line[2])[0] | (equal & line[2])[1], rest = (equal & line[3])[0] | (equal & line[3])[1];
            int at = others[k];
            if (other_keys[k].high >= HASHED && found && !same(w, found, p + ends[at], (int)(ends[at + 1] - ends[at]))) found = 0;
            values[at] = found, more[at] = rest;
        }
        for (int k = 0; k < n; k++) {
            u64 value = values[k];
            if (!value) { /* not on its own line: further on, or new */
                i32 ids[LONGEST];
                u64 *key, *there;
                const u8 *word = p + ends[k];
                int size = (int)(ends[k + 1] - ends[k]);
                if (!find(w, word, size, zero, &key, &there)) remember(w, word, size, zero, ids, merge(w, word, size, ids), key, there);
                value = *there, more[k] = size > 8 ? there[2] : 0;
            }
            int number = (int)(value >> 60);
            write3(out, value);
            if (number > 3) {
                if (number == SPILL) {
                    const i32 *from = w->arena + (u32)value;
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
                u64 *key, *value;
                i64 number = 1;
                if (find(w, p, (int)ends[1], 0, &key, &value)) w->out[w->done] = w->arena[(u32)*value];
                else if (!(number = merge_long(w, p, ends[1], w->out + w->done))) return MEMORY;
                w->done += number;
            } else { /* no more words than bytes, no more than two numbers of the arena for a byte */
                if (w->small_used + w->wanted > w->small_most || w->large_used + w->wanted > w->large_most
                    || w->arena_used + 2 * w->wanted + 16 > w->arena_room) return ROOM;
                encode_pieces(w, p, ends, words, zero);
            }
            w->at += w->wanted;
        }
        w->marks[++w->edge] = w->before + w->done;
    }
    return DONE;
}

/* Remembers a word that has an id of its own, whatever its merges; among zero bytes, too. */
void know(Work *w, const u8 *p, i64 size, i32 label) {
    u64 *key, *value;
    for (int zero = memchr(p, 0, (size_t)size) != 0; zero < 2; zero++)
        if (!find(w, p, (int)size, zero, &key, &value)) remember(w, p, (int)size, zero, &label, 1, key, value);
}

/* Moves the words of a table of other size into the empty ones that are there now. */
void move_small(Work *w, const u64 *from, i64 lines) {
    u64 ring = (1ull << (64 - w->small_shift)) - 1;
    for (i64 i = 0; i < 8 * lines; i += i % 8 == 3 ? 5 : 1) {
        if (!from[i + 4]) continue;
        u64 slot = from[i] * MIXER >> w->small_shift;
        for (int k = 0;; k++) {
            if (k == 4) k = 0, slot = (slot + 1) & ring;
            u64 *key = w->small + 8 * slot + k;
            if (!key[4]) { key[0] = from[i], key[4] = from[i + 4]; break; }
        }
    }
}

void move_large(Work *w, const u64 *from, i64 lines) {
    u64 ring = (1ull << (64 - w->large_shift)) - 1;
    for (i64 i = 0; i < 8 * lines; i += i % 8 == 1 ? 7 : 1) {
        if (!from[i + 4]) continue;
        u64 slot = mixed((Key){from[i], from[i + 2]}) * MIXER >> w->large_shift;
        for (int k = 0;; k++) {
            if (k == 2) k = 0, slot = (slot + 1) & ring;
            u64 *key = w->large + 8 * slot + k;
            if (!key[4]) { for (int j = 0; j < 8; j += 2) key[j] = from[i + j]; break; }
        }
    }
}
