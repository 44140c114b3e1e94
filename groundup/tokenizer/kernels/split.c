/* Cutting UTF-8 into pieces, as kernels/split.py and kernels/blocks.py do with Numba, piece for piece: words.c includes this.

   A mask has one bit for each of 64 bytes: there are masks of letters, of numbers and so on, and shifts of them say where pieces
   start. A chunk that masks can't cut (numbers outside ASCII, all of o200k) goes to the state machine. */

#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

enum { SIGN, UPPER, LOWER, LETTER, MARK, NUMBER, SPACE, WHITE, NEWLINE, SIGNS = 1 << SIGN | 1 << MARK }; /* as in unicode.py */
enum { LEAD = 4, CHUNK = 4096, GROUPS = CHUNK / 64 };

static inline u64 load(const u8 *p) { u64 x; memcpy(&x, p, 8); return x; }

static inline int kind_at(const u8 *p, const u8 *kinds, int *size) {
    u32 c = p[0], point = c, length = 1;
    if (c >= 0xF0) point = (c & 7) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u), length = 4;
    else if (c >= 0xE0) point = (c & 15) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u), length = 3;
    else if (c >= 0x80) point = (c & 31) << 6 | (p[1] & 63u), length = 2;
    *size = (int)length;
    u32 page = kinds[128 + 2 * (point >> 7)] | (u32)kinds[129 + 2 * (point >> 7)] << 8;
    return kinds[128 + 2 * (0x110000 >> 7) + (page << 7 | (point & 127))];
}

static int contraction(const u8 *p, const u8 *stop, int any_case) {
    if (p + 1 >= stop || p[0] != '\'') return 0;
    if (any_case && p[1] == 0xC5 && p + 2 < stop && p[2] == 0xBF) return 3; /* the long s */
    u8 c = p[1], d = p + 2 < stop ? p[2] : 0;
    if (any_case && c >= 'A' && c <= 'Z') c |= 32;
    if (any_case && d >= 'A' && d <= 'Z') d |= 32;
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    return (c == 'l' && d == 'l') || ((c == 'v' || c == 'r') && d == 'e') ? 3 : 0;
}

/* The state machine: `next_piece` is the whole specification of a pattern. */

static inline i64 run(const u8 *p, i64 i, i64 n, u32 members, const u8 *kinds) {
    for (int size; i < n && members >> kind_at(p + i, kinds, &size) & 1;) i += size;
    return i;
}

static i64 white(const u8 *p, i64 i, i64 n, const u8 *kinds, int lines_apart) {
    i64 j = i, last = i, line_end = 0, count = 0;
    for (int size, kind; j < n && (kind = kind_at(p + j, kinds, &size)) >= SPACE; count++) {
        last = j, j += size;
        if (kind == NEWLINE) line_end = j;
    }
    if (lines_apart && line_end) return line_end;
    return j >= n || count == 1 ? j : last;
}

/* Returns the end of o200k's first word at byte i, capitals* small+, or i; `capitals` is the end of the capitals there. */
static i64 cased(const u8 *p, i64 i, i64 n, const u8 *kinds, i64 *capitals) {
    i64 j = i, both = i;
    for (int size, kind; j < n; j += size, both = kind != UPPER ? j : both) {
        kind = kind_at(p + j, kinds, &size);
        if (kind == LOWER) {
            *capitals = j;
            return run(p, j, n, 1 << LOWER | 1 << LETTER | 1 << MARK, kinds);
        }
        if (kind != UPPER && kind != LETTER && kind != MARK) break;
    }
    *capitals = j;
    return both;
}

static i64 cased_word(const u8 *p, i64 i, i64 n, const u8 *kinds) {
    int size, kind = kind_at(p + i, kinds, &size);
    i64 end = i, capitals = i, j = i + size;
    if (kind == NEWLINE || kind == NUMBER) return i;
    if (kind == UPPER || kind == LOWER || kind == LETTER) end = cased(p, i, n, kinds, &capitals);
    else {
        i64 small = cased(p, j, n, kinds, &capitals);
        if (small > j) end = small;
        else if (kind == MARK) end = j;
        else if (capitals == j) capitals = i;
    }
    if (end == i) end = capitals;
    return end > i ? end + contraction(p + end, p + n, 1) : i;
}

static i64 next_gpt2(const u8 *p, i64 i, i64 n, i64 rules, const u8 *kinds) {
    int size, kind = kind_at(p + i, kinds, &size), length;
    i64 j = i + size;
    if (kind == SPACE && j < n) kind = kind_at(p + j, kinds, &size), j += size;
    else if (rules & 3 && kind == SIGN && (length = contraction(p + i, p + n, 0))) return i + length;
    return kind >= SPACE ? white(p, i, n, kinds, 0) : run(p, j, n, 1u << kind, kinds);
}

static i64 next_gpt4(const u8 *p, i64 i, i64 n, i64 rules, const u8 *kinds) {
    int size, kind = kind_at(p + i, kinds, &size), length;
    i64 j = i + size, end;
    if ((rules & 3) == 3) {
        if ((end = cased_word(p, i, n, kinds)) > i) return end;
    } else if (kind == LETTER) return run(p, j, n, 1 << LETTER, kinds);
    else {
        if ((length = contraction(p + i, p + n, 1))) return i + length;
        if (kind != NUMBER && kind != NEWLINE && j < n && kind_at(p + j, kinds, &size) == LETTER)
            return run(p, j + size, n, 1 << LETTER, kinds);
    }
    if (kind == NUMBER) {
        for (i64 k = 1; k < rules >> 3 && j < n && kind_at(p + j, kinds, &size) == NUMBER; k++) j += size;
        return j;
    }
    if (kind == SPACE && j < n && SIGNS >> kind_at(p + j, kinds, &size) & 1) kind = SIGN;
    if (kind >= SPACE) return white(p, i, n, kinds, 1);
    j = run(p, j, n, SIGNS, kinds);
    while (j < n && (p[j] == 10 || p[j] == 13 || ((rules & 3) == 3 && p[j] == '/'))) j++;
    return j;
}

static inline i64 next_piece(const u8 *p, i64 i, i64 n, i64 rules, const u8 *kinds) {
    return rules & LEAD ? next_gpt4(p, i, n, rules, kinds) : next_gpt2(p, i, n, rules, kinds);
}

/* The masks: in WIDTH bytes at a time, by what the compiler may use. */

#if defined(__AVX512BW__)
enum { WIDTH = 64 };
typedef __m512i Bytes;
static inline Bytes bytes_at(const u8 *p) { return _mm512_loadu_si512(p); }
static inline u64 within(Bytes v, u8 low, u8 high) {
    return _mm512_cmple_epu8_mask(_mm512_sub_epi8(v, _mm512_set1_epi8((char)low)), _mm512_set1_epi8((char)(high - low)));
}
#elif defined(__AVX2__)
enum { WIDTH = 32 };
typedef struct { __m256i half[2]; } Bytes;
static inline Bytes bytes_at(const u8 *p) {
    return (Bytes){{_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 32))}};
}
static inline u64 within(Bytes v, u8 low, u8 high) {
    u64 mask = 0;
    for (int k = 0; k < 2; k++) {
        __m256i x = _mm256_sub_epi8(v.half[k], _mm256_set1_epi8((char)low));
        x = _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8((char)(high - low))), x);
        mask |= (u64)(u32)_mm256_movemask_epi8(x) << (32 * k);
    }
    return mask;
}
#else
enum { WIDTH = 8 };
typedef struct { u8 byte[64]; } Bytes;
static inline Bytes bytes_at(const u8 *p) { Bytes v; memcpy(v.byte, p, 64); return v; }
static inline u64 within(Bytes v, u8 low, u8 high) {
    u64 mask = 0;
    u8 flag[64];
    for (int k = 0; k < 64; k++) flag[k] = (u8)(v.byte[k] - low) <= (u8)(high - low);
    for (int k = 0; k < 8; k++) mask |= (load(flag + 8 * k) * 0x0102040810204080ull >> 56) << (8 * k);
    return mask;
}
#endif

typedef struct { /* what each byte is; [0] is the 64 bytes before the chunk, the last is for looking beyond it */
    u64 letter[GROUPS + 3], number[GROUPS + 3], space[GROUPS + 3], white[GROUPS + 3], sign[GROUPS + 3], line[GROUPS + 3];
    u64 quote[GROUPS + 3], start[GROUPS + 3];
} Masks;

static inline int has(const u64 *mask, int i) { return mask[(i >> 6) + 1] >> (i & 63) & 1; }
static inline void set(u64 *mask, int i) { mask[(i >> 6) + 1] |= 1ull << (i & 63); }
static inline void clear(u64 *mask, int i) { mask[(i >> 6) + 1] &= ~(1ull << (i & 63)); }
static inline u64 back(const u64 *mask, int g, int by) { return mask[g] << by | mask[g - 1] >> (64 - by); }
static inline u64 next(const u64 *mask, int g) { return mask[g] >> 1 | mask[g + 1] << 63; }

/* Writes what each byte of ASCII is; returns the groups' bits: 1 there is more than ASCII, 2 there is a zero byte. */
static int classify(Masks *m, const u8 *p, int size, i64 rules) {
    u64 high = 0, zero = 0;
    for (int g = 1; g <= (size + 63) / 64; g++, p += 64) {
        Bytes v = bytes_at(p);
        u64 lines = within(v, 10, 10) | within(v, 13, 13), top = within(v, 128, 255);
        m->letter[g] = within(v, 'a', 'z') | within(v, 'A', 'Z');
        m->number[g] = within(v, '0', '9');
        m->space[g] = within(v, ' ', ' ');
        m->line[g] = rules & LEAD ? lines : 0;
        m->white[g] = within(v, 9, 13) & ~m->line[g];
        m->sign[g] = ~(m->letter[g] | m->number[g] | m->space[g] | m->line[g] | m->white[g] | top);
        m->quote[g] = within(v, '\'', '\'');
        high |= top;
        zero |= within(v, 0, 0);
    }
    return (high != 0) | (zero != 0) << 1;
}

/* Writes what the characters beyond ASCII are; returns 0 for numbers that have to be counted. White ones are listed. */
static int foreign(Masks *m, const u8 *p, int size, int left, i64 rules, const u8 *kinds, int *blanks, int *count) {
    for (int g = 0; g < (size + 63) / 64; g++)
        for (u64 lead = within(bytes_at(p + 64 * g), 0xC0, 255); lead; lead &= lead - 1) {
            int i = 64 * g + __builtin_ctzll(lead), length, after;
            if (i >= size) break;
            int kind = kind_at(p + i, kinds, &length);
            if (kind == NUMBER && rules & LEAD) return 0;
            u64 *mask = kind == LETTER ? m->letter : kind == NUMBER ? m->number : kind >= SPACE ? m->white : m->sign, *rest = mask;
            if (kind >= SPACE) blanks[(*count)++] = i << 3 | length;
            /* One sign alone may lead a word. Then only its first byte counts as a sign, so that it looks like one of ASCII. */
            if (kind == SIGN && rules & LEAD && !has(m->sign, i - 1) && !has(m->space, i - 1) && i + length < left
                && kind_at(p + i + length, kinds, &after) == LETTER) rest = m->letter;
            set(mask, i);
            for (int k = 1; k < length; k++) set(rest, i + k);
        }
    return 1;
}

static void starts_gpt2(Masks *m, int groups) {
    for (int g = 1; g <= groups; g++) {
        u64 blank = m->space[g] | m->white[g], was_blank = back(m->space, g, 1) | back(m->white, g, 1);
        u64 blank_next = next(m->space, g) | next(m->white, g);
        u64 change = (m->letter[g] & ~back(m->letter, g, 1)) | (m->number[g] & ~back(m->number, g, 1)) | (m->sign[g] & ~back(m->sign, g, 1));
        m->start[g] = (change & ~back(m->space, g, 1)) | (blank & ~(was_blank & blank_next));
    }
}

static void starts_gpt4(Masks *m, int groups, i64 digits, u64 *again) {
    u64 each = digits == 1 ? ~0ull : 0, three = digits == 3 ? ~0ull : 0;
    for (int g = 1; g <= groups; g++) {
        u64 blank = m->space[g] | m->white[g], number = m->number[g];
        u64 letter1 = back(m->letter, g, 1), number1 = back(m->number, g, 1), number2 = back(m->number, g, 2);
        u64 sign1 = back(m->sign, g, 1), space1 = back(m->space, g, 1), line1 = back(m->line, g, 1);
        u64 solid_next = next(m->letter, g) | next(m->number, g) | next(m->sign, g);
        m->start[g] = (m->letter[g] & (line1 | number1 | (sign1 & (back(m->sign, g, 2) | back(m->space, g, 2)))))
            | (m->sign[g] & ~(sign1 | space1)) | (number & (~number1 | each)) | (m->line[g] & (letter1 | number1))
            | (blank & (letter1 | number1 | sign1 | line1 | solid_next));
        again[g] = m->quote[g] | (blank & line1) | (number & number1 & number2 & three & ~back(m->number, g, 3));
    }
}

/* Corrects the starts at contractions, at numbers of more than three digits, and at white space behind a line end. */
static void look_again(Masks *m, const u8 *p, int groups, int left, i64 rules, const u64 *again) {
    for (int g = 1; g <= groups; g++)
        for (u64 marks = again[g]; marks; marks &= marks - 1) {
            int i = 64 * (g - 1) + __builtin_ctzll(marks), k = i;
            if (has(m->number, i)) {
                for (k = i + 1; has(m->number, k); k += 3) {
                    set(m->start, k);
                    if (!has(m->number, k + 1) || !has(m->number, k + 2)) break;
                }
            } else if (has(m->space, i) || has(m->white, i)) {
                do k--; while (has(m->line, k));
                if (has(m->sign, k)) continue; /* the line ends belong to the sign before them */
                for (k = i; k < 64 * groups && (has(m->space, k) || has(m->white, k));) k++;
                if (has(m->line, k)) clear(m->start, i);
            } else if (has(m->start, i)) {
                int length = contraction(p + i, p + left, (rules & 3) == 2);
                for (k = 1; k < length; k++) clear(m->start, i + k);
                if (length) set(m->start, i + length);
            }
        }
}

/* Writes where the pieces of the next chunk start, and where the last ends; returns their number, 0 if masks can't tell. */
static int cut_by_masks(const u8 *p, i64 n, i64 rules, const u8 *kinds, i64 *ends, int *zero) {
    Masks m;
    u64 again[GROUPS + 3];
    int blanks[CHUNK / 2], blank = 0, count = 0, left = n < 2 * CHUNK ? (int)n : 2 * CHUNK;
    int size = left < CHUNK ? left : CHUNK, groups = (size + 63) / 64, whole = size == n;
    u64 *all[] = {m.letter, m.number, m.space, m.sign, m.line, m.quote};
    for (int k = 0; k < 6; k++) all[k][0] = all[k][groups + 1] = all[k][groups + 2] = 0;
    m.letter[0] = 3ull << 61, m.white[0] = 1ull << 63, m.start[0] = m.white[groups + 1] = m.white[groups + 2] = 0;
    int seen = classify(&m, p, size, rules);
    if (seen & 1 && !foreign(&m, p, size, left, rules, kinds, blanks, &blank)) return 0;
    u64 inside = size & 63 ? (1ull << (size & 63)) - 1 : ~0ull;
    for (int k = 0; k < 6; k++) all[k][groups] &= inside, all[k][groups + 1] = 0;
    m.white[groups] |= ~inside, m.white[groups + 1] = ~0ull, m.start[groups + 1] = 0;
    if (!rules)
        for (int g = 1; g <= groups; g++) m.sign[g] |= m.letter[g] | m.number[g], m.letter[g] = m.number[g] = 0;
    if (rules & LEAD) starts_gpt4(&m, groups, rules >> 3, again);
    else starts_gpt2(&m, groups), memcpy(again, m.quote, sizeof again);
    for (int k = 0; k < blank; k++) { /* white space alone starts at its first byte, not at its last */
        int i = blanks[k] >> 3, tail = i + (blanks[k] & 7) - 1;
        if (has(m.start, tail)) clear(m.start, tail), set(m.start, i);
    }
    set(m.start, 0);
    if (rules) look_again(&m, p, groups, left, rules, again);
    int most = whole ? size : size - 8;
    for (int g = 1; g <= (most + 63) / 64; g++) {
        int base = 64 * (g - 1);
        u64 bits = m.start[g];
        if (base + 64 > most) bits &= most & 63 ? (1ull << (most & 63)) - 1 : ~0ull;
        int found = __builtin_popcountll(bits);
        for (i64 *e = ends + count; bits; e += 8)
            for (int k = 0; k < 8; k++) e[k] = base + __builtin_ctzll(bits | 1ull << 63), bits &= bits - 1;
        count += found;
    }
    *zero = seen >> 1;
    if (whole) ends[count] = size;
    return whole ? count : count > 2 ? count - 2 : 0; /* the last two may look different with what follows */
}

/* The same by whichever way can; `zero` says whether there is a zero byte, or may be one. */
static int cut(const u8 *p, i64 n, i64 rules, const u8 *kinds, i64 *ends, int *zero) {
    int count = (rules & 3) == 3 ? 0 : cut_by_masks(p, n, rules, kinds, ends, zero);
    if (count) return count;
    i64 at = 0;
    for (ends[0] = 0; at < n && at < CHUNK; ends[++count] = at) at = next_piece(p, at, n, rules, kinds);
    *zero = memchr(p, 0, (size_t)at) != 0;
    return count;
}
