/*
 * ordered_node - the words and nodes of the ordered index, as its own .c files
 * see them. Nothing in a node is trusted: a node is looked at through a view, whose
 * bounds were compared with what is mapped (I5).
 */
#ifndef KIST_INDEX_ORDERED_NODE_H
#define KIST_INDEX_ORDERED_NODE_H

#include <string.h>

#include "index/ordered.h"

#define NODE_OFFSET_MASK UINT64_C(0xffffffffff00)

enum { INNER_PREFIX_AT = 16, KEY_MOST = 65535 };

static inline struct ordered_file *ordered_head(const struct ordered_index *ix)
{
    return (struct ordered_file *)ix->base;
}

static inline uint64_t node_make(uint64_t offset, uint64_t bytes, unsigned level)
{
    return bytes / ORDERED_UNIT << 48 | offset | level;
}
static inline uint64_t node_offset(uint64_t word)
{
    return word & NODE_OFFSET_MASK;
}
static inline uint64_t node_bytes(uint64_t word)
{
    return (word >> 48) * ORDERED_UNIT;
}
static inline unsigned node_level(uint64_t word)
{
    return (unsigned)(word & 0xff);
}

/* O1, but for the level. */
static inline bool node_is_inside(const struct ordered_index *ix, uint64_t word)
{
    return node_offset(word) + node_bytes(word) <= index_len(&ix->file);
}

static inline struct ordered_leaf *leaf_of(const struct ordered_index *ix, uint64_t word)
{
    return (struct ordered_leaf *)(ix->base + node_offset(word));
}

/* ---- order ------------------------------------------------------------ */

static inline unsigned order_count(uint64_t order)
{
    return (unsigned)(order & 15);
}
/* Which entry comes as number `rank`; 15: none, damage. */
static inline unsigned order_at(uint64_t order, unsigned rank)
{
    return (unsigned)(order >> (4 * rank + 4)) & 15;
}
/* Whether there are entries where it says; there is none that is 15. */
static inline bool order_is_whole(uint64_t order)
{
    unsigned n = order_count(order);
    uint64_t all = order & order >> 1 & order >> 2 & order >> 3 & UINT64_C(0x1111111111111110);

    return (all & ((UINT64_C(1) << 4 << (4 * n & 63)) - 1)) == 0;
}
static inline uint64_t order_insert(uint64_t order, unsigned rank, unsigned entry)
{
    unsigned bit = 4 * rank + 4;
    uint64_t below = (UINT64_C(1) << bit) - 1;

    return ((order & below) | (uint64_t)entry << bit | (order & ~below) << 4) + 1;
}
static inline uint64_t order_remove(uint64_t order, unsigned rank)
{
    unsigned bit = 4 * rank + 4;
    uint64_t below = (UINT64_C(1) << bit) - 1;

    return ((order & below) | (order >> 4 & ~below)) - 1;
}
/* The entries 0 .. n - 1 as they stand. */
#define ORDER_AS_THEY_STAND UINT64_C(0xedcba9876543210)
static inline uint64_t order_straight(unsigned n)
{
    return n == 0 ? 0 : ((ORDER_AS_THEY_STAND << 4) & (UINT64_MAX >> (60 - 4 * n))) | n;
}

/* ---- bytes ------------------------------------------------------------ */

/* Bytes of nodes that may be used again meanwhile are read here only. */
#ifdef SHM_RACES_ARE_SEEN
/* Not as calls that the sanitizer would see. */
#define RACY static inline __attribute__((no_sanitize("thread")))
RACY int racy_compare(const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}
RACY void racy_copy(uint8_t *to, const volatile uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}
RACY uint64_t racy_load8(const volatile uint8_t *p)
{
    uint64_t w = 0;

    for (unsigned i = 8; i-- > 0;)
        w = w << 8 | p[i];
    return w;
}
#else
#define RACY static inline
RACY int racy_compare(const uint8_t *a, const uint8_t *b, size_t n)
{
    return n ? memcmp(a, b, n) : 0;
}
RACY void racy_copy(uint8_t *to, const uint8_t *from, size_t n)
{
    memcpy(to, from, n);
}
RACY uint64_t racy_load8(const uint8_t *p)
{
    return load8(p);
}
#endif

static inline int bytes_order(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int c = racy_compare(a, b, a_len < b_len ? a_len : b_len);

    return c != 0 ? c : (a_len > b_len) - (a_len < b_len);
}

/* How many bytes agree from the beginning. */
RACY size_t bytes_agree(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len, i = 0;

    while (i + 8 <= n && racy_load8(a + i) == racy_load8(b + i))
        i += 8;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* Eight bytes from `from` on, as a number that compares as they do. */
RACY uint64_t bytes_head(const uint8_t *p, size_t len, size_t from)
{
    uint64_t w = 0;

    if (len >= from + 8)
        return __builtin_bswap64(racy_load8(p + from));
    for (size_t i = from; i < len; i++)
        w |= (uint64_t)p[i] << (56 - 8 * (i - from));
    return w;
}

/* ---- inner nodes ------------------------------------------------------ */

struct inner {
    shm_word *head;
    shm_word *child;
    const uint32_t *end;
    const uint8_t *prefix, *suffix;
    uint32_t count; /* separators */
    uint32_t prefix_len, suffix_len;
};

static inline uint64_t inner_word(unsigned level, unsigned count, size_t prefix_len)
{
    return (uint64_t)prefix_len << 32 | (uint64_t)count << 16 | level;
}

/* Where the heads begin. The prefix is before them, in the line that is read first. */
static inline uint64_t inner_heads_at(uint64_t prefix_len)
{
    return INNER_PREFIX_AT + (prefix_len + 7) / 8 * 8;
}

/* Where the suffixes begin. */
static inline uint64_t inner_suffixes_at(uint64_t count, uint64_t prefix_len)
{
    return inner_heads_at(prefix_len) + 8 * count + 8 * (count + 1) + (count + 1) / 2 * 8;
}

/* False: no inner node that fits into its bytes. */
static inline bool inner_of(const struct ordered_index *ix, uint64_t word, struct inner *out)
{
    uint8_t *p = ix->base + node_offset(word);
    uint64_t first = shm_peek((shm_word *)p), second = shm_peek((shm_word *)p + 1);
    uint32_t count = first >> 16 & 0xffff;
    uint32_t prefix_len = first >> 32 & 0xffff;
    uint64_t suffixes_at = inner_suffixes_at(count, prefix_len);

    out->count = count;
    out->prefix_len = prefix_len;
    out->suffix_len = (uint32_t)second;
    out->prefix = p + INNER_PREFIX_AT;
    out->head = (shm_word *)(p + inner_heads_at(prefix_len));
    out->child = out->head + count;
    out->end = (const uint32_t *)(out->child + count + 1);
    out->suffix = p + suffixes_at;
    return count < ORDERED_FANOUT && suffixes_at + out->suffix_len <= node_bytes(word);
}

/* The same word as child[at] of inner_of(), for a node that was one when it was looked at. NULL:
 * it says something else by now, and the word would lie behind it (I5). */
static inline const shm_word *inner_child(const struct ordered_index *ix, uint64_t word,
                                          unsigned at)
{
    const uint8_t *p = ix->base + node_offset(word);
    uint64_t first = shm_peek((const shm_word *)p);
    uint64_t from = inner_heads_at(first >> 32 & 0xffff) + 8 * ((first >> 16 & 0xffff) + at);

    return from + 8 <= node_bytes(word) ? (const shm_word *)(p + from) : NULL;
}

/* Separator i behind the prefix. */
static inline const uint8_t *inner_suffix(const struct inner *n, unsigned i, size_t *len)
{
    uint32_t from = i ? __atomic_load_n(&n->end[i - 1], __ATOMIC_RELAXED) : 0;
    uint32_t to = __atomic_load_n(&n->end[i], __ATOMIC_RELAXED);

    if (to > n->suffix_len)
        to = n->suffix_len;
    if (from > to)
        from = to;
    *len = to - from;
    return n->suffix + from;
}

/* Separator i compared with a key. */
static inline int inner_order(const struct inner *n, unsigned i, const uint8_t *key, size_t len)
{
    size_t pre = n->prefix_len, suffix_len;
    const uint8_t *suffix = inner_suffix(n, i, &suffix_len);
    int c = racy_compare(n->prefix, key, pre < len ? pre : len);

    if (c != 0)
        return c;
    return len < pre ? 1 : bytes_order(suffix, suffix_len, key + pre, len - pre);
}

/* How many bytes separator i has in common with a key. */
static inline size_t inner_agree(const struct inner *n, unsigned i, const uint8_t *key, size_t len)
{
    size_t l = bytes_agree(n->prefix, n->prefix_len, key, len), suffix_len;
    const uint8_t *suffix = inner_suffix(n, i, &suffix_len);

    return l < n->prefix_len ? l : l + bytes_agree(suffix, suffix_len, key + l, len - l);
}

/* ---- between the .c files --------------------------------------------- */

/* Follow a word that a node of `level` has. KIST_OK, ORDERED_OUTSIDE, KIST_ECORRUPT. */
static inline int node_enter(const struct ordered_index *ix, uint64_t word, unsigned level)
{
    if (node_level(word) >= level || node_offset(word) == 0 || word >> 48 == 0 ||
        (node_level(word) == 0 && word >> 48 != 1))
        return KIST_ECORRUPT;
    return node_is_inside(ix, word) ? KIST_OK : ORDERED_OUTSIDE;
}

/* Write what is to be a node. Readers of the memory's last use may still look at it: the
 * fence, or else the release of each store, is what their counter is behind (O6) (model:
 * P5, Q5). */
static inline void node_write(const struct ordered_index *ix, uint64_t word,
                              const uint64_t *from, uint64_t bytes)
{
    shm_word *to = (shm_word *)(ix->base + node_offset(word));

#ifdef SHM_RACES_ARE_SEEN
    for (uint64_t i = 0; i < bytes / 8; i++)
        shm_publish(&to[i], from[i]);
#else
    atomic_thread_fence(memory_order_release);
    shm_copy(to, from, bytes);
#endif
}

void ordered_space_drop(struct ordered_space *space); /* ordered_space.c */

/* Begin a change of the tree's shape; `saves`: one that makes room, for which some is kept
 * when there is none for others (I7). KIST_ENOMEM, -errno, or KIST_OK. */
int space_begin(struct ordered_index *ix, bool saves);

/* Memory for a node of `bytes`; *word receives where, and how large it is. KIST
 * errors and -errno take nothing. */
int space_take(struct ordered_index *ix, const struct index_owner *o, uint64_t bytes,
               unsigned level, uint64_t *word);

/* The change was published: what was taken is in use. */
void space_done(struct ordered_index *ix);
/* Or it failed: what was taken is given back, nothing ever led there. */
void space_abandon(struct ordered_index *ix);

/* A node that nothing leads to any more. */
void space_retire(struct ordered_index *ix, uint64_t word);

/* Room for a key; there are three. And for a node that is being built. */
uint8_t *space_key(struct ordered_index *ix, unsigned which);
uint64_t *space_scratch(struct ordered_index *ix, uint64_t bytes);

/* All nodes that the root leads to, parents first; false ends it. ordered_space.c uses it
 * to find what is free. KIST_OK, ORDERED_OUTSIDE, KIST_ECORRUPT. */
int ordered_each(const struct ordered_index *ix, bool (*each)(void *arg, uint64_t word), void *arg);

#endif
