/*
 * ordered - the ordered index: a B+tree in a mapped file, keys in byte order.
 * Format 1.
 *
 *     kist.index.G
 *     +--------------------+
 *     | page 0: header     |   0  constant fields, see file.h
 *     |         words      |  64  root, fresh, walks, built
 *     |         leaves     | 256  15 of them
 *     +--------------------+
 *     | nodes of 256, 512, 1024 or 2048 bytes, one size a page; larger ones
 *     | in pages of their own; pages that nothing leads to
 *     +--------------------
 *
 *     node word     63            48 47                    8 7      0
 *                  +----------------+-----------------------+--------+
 *                  |  bytes / 256   |     offset / 256      | level  |
 *                  +----------------+-----------------------+--------+
 *                  0: an empty tree, or an empty range of keys
 *
 *     leaf, 256 bytes                     inner node, level 1 and up
 *     +------------------------------+    +------------------------------+
 *   0 | skip (16 bits)               |  0 | level, count, prefix length  |
 *   8 | order                        |  8 | bytes of the suffixes        |
 *  16 | head[15]                     | 16 | prefix, zeros to 8 bytes     |
 * 136 | slot[15]                     |    | head[count]                  |
 *     +------------------------------+    | child[count + 1]: node words |
 *                                         | end[count], 32 bits each     |
 *     order         63  60      7  4 3  0 | suffixes                     |
 *                  +------+- - +----+----+
 *                  | 15th |    |1st |  n |   n entries, and where they are
 *                  +------+- - +----+----+
 *
 * An entry of a leaf is a slot, which holds the location of a record, and a
 * head: the eight bytes of the record's key behind the first `skip`, zeros
 * behind its end, as a number that compares as the bytes do. All keys that may
 * come to a leaf agree in their first `skip` bytes. So a record is read only
 * where heads are equal. An inner node's separators are prefix and suffix; the
 * child i holds keys that are not below separator i - 1, and below separator i.
 *
 * An insert fills a free entry and publishes the order that has it. A full leaf
 * is split by building two, and a new parent for them, and so on up; one publish
 * into a child word, or the root, makes all of that visible. What it replaced
 * stays as it was until the reuse counter moved. So there is nothing to finish
 * when a writer dies: killed before the publish, it has changed nothing.
 *
 * Invariants (ordered_check proves those marked *)
 *   O1* a node word leads into the file, to a level below that of its node
 *   O2* separators ascend, and lie within what their node covers
 *   O3* the entries of a leaf ascend in its order, within what it covers; each is
 *       in the order once
 *   O4  nodes never change, but for child words, slots, the order, and entries
 *       that no order has had. An entry is free while its slot is 0; once taken
 *       it is never used again, until the node is
 *   O5  a record is complete before a slot leads to it, an entry before an order
 *       has it, a node before a word leads to it (I1)
 *   O6  a node that nothing leads to is written again only after the reuse
 *       counter moved (I4)
 *   O7  the writer alone stores here, under the bank's lock
 *
 * Who may call what. Searching, stepping, walking, checking: any thread of any
 * process, in a read section, without a lock; they store nothing. What they say
 * counts only if the reuse counter, read before with acquire, is the same after
 * an acquire fence: else the answer, be it an error, is to be thrown away and
 * the call made again. Room, insert, update, empty: the bank's one writer, for
 * whom the counter is its own.
 *
 * Memory orders: words that lead somewhere (root, child, order, slot) are
 * published with release and read with acquire. Heads, separators and what else
 * is in a node are written with release too, for readers of the node's last use,
 * and are ordered for readers of this one by the word that leads to them.
 */
#ifndef KIST_INDEX_ORDERED_H
#define KIST_INDEX_ORDERED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/shm.h"
#include "heap/record.h"
#include "index/file.h"

enum {
    ORDERED_FORMAT = 1,
    ORDERED_KIND = 2, /* in the file's head; hash is 1 */
    ORDERED_UNIT = 256,
    ORDERED_WAYS = 15,   /* entries of a leaf */
    ORDERED_FANOUT = 64, /* children of an inner node, at most */
    ORDERED_LEVEL_MAX = 31,
    ORDERED_SUFFIXES = 16 << 10, /* bytes from which on fewer children will do */
    ORDERED_FEW = 8,             /* but so many there may always be */
};

/* Outcomes beside KIST_OK, KIST_MISS, KIST_END and KIST_ECORRUPT. */
enum {
    ORDERED_OUTSIDE = 100, /* an offset lies behind what is mapped: index_refresh(), and
                              again; if there is no more, it is damage */
    ORDERED_LOST,          /* the record at spot.lost can't be read */
};

struct ordered_file {
    char magic[8];
    uint32_t format;
    uint32_t kind;
    uint8_t bank_id[16];
    uint64_t generation;
    uint64_t checksum; /* of the 40 bytes before */
    uint64_t unused[2];
    shm_word root;
    shm_word fresh; /* pages that were given out; behind them none was written */
    shm_word walks; /* counts the times that free nodes were looked for */
    shm_word built; /* counts changes of the tree's shape */
};
static_assert(offsetof(struct ordered_file, root) == 64, "on-disk: root");
static_assert(offsetof(struct ordered_file, checksum) == offsetof(struct index_head, checksum),
              "on-disk: each kind's file begins with struct index_head");

struct ordered_leaf {
    shm_word skip;
    shm_word order;
    shm_word head[ORDERED_WAYS];
    shm_word slot[ORDERED_WAYS];
};
static_assert(sizeof(struct ordered_leaf) == ORDERED_UNIT, "on-disk: a leaf is one unit");
static_assert(offsetof(struct ordered_leaf, slot) == 136, "on-disk: slot");

struct ordered_index {
    union {
        struct index_file file;
        struct {
            INDEX_FILE_FIELDS;
        };
    };
    struct ordered_space *space; /* the writer's idea of free nodes, or NULL */
};

/* ---- opening ---------------------------------------------------------- */

/* Make kist.index.G, empty, mapped for writing. */
int ordered_create(struct ordered_index **out, int dir, uint32_t mode, const uint8_t bank_id[16],
                   uint64_t generation);

/* The same in private memory. */
int ordered_create_private(struct ordered_index **out, const uint8_t bank_id[16]);

/* Map an existing one; `fd` becomes the index's own, in any case. */
int ordered_open(struct ordered_index **out, int fd, const uint8_t bank_id[16], uint64_t generation,
                 bool writable);

void ordered_close(struct ordered_index *ix);

/* ---- searching and stepping (any process, no lock) -------------------- */

/* A place in the tree: an entry, or where one would be. Private to whoever
 * steps; good while the reuse counter stays. Nodes that were replaced since can
 * still be stepped through: they show the tree as it was. */
struct ordered_spot {
    uint64_t leaf;  /* node word; 0: an empty range */
    uint64_t order; /* of the leaf, as it was read */
    uint32_t rank;  /* in the order; n: behind the last entry */
    uint32_t upto;  /* while it is being searched: ranks from there on are above the key */
    uint32_t depth; /* of the path */
    struct {
        uint64_t node;
        uint32_t at; /* which child */
    } path[ORDERED_LEVEL_MAX];
    uint64_t seen; /* bytes of nodes that a step or walk went through (I5) */
    uint64_t lost; /* with ORDERED_LOST: the location; else 0 */
};

enum ordered_where {
    ORDERED_AT, /* the key itself */
    ORDERED_GE, /* the first entry >= key, */
    ORDERED_GT,
    ORDERED_LE, /* the last one <= key */
    ORDERED_LT,
};

/* KIST_OK: `out` is the entry. KIST_MISS: there is none; for ORDERED_AT it is
 * where the key would be. Or ORDERED_OUTSIDE, ORDERED_LOST, KIST_ECORRUPT. */
int ordered_find(const struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                 enum ordered_where where, struct ordered_spot *out);

/* The search for ORDERED_AT in three parts, so that something else can be done while what it
 * needs comes from memory. Down to the leaf, which is asked for, and not looked at; ... */
void ordered_approach(const struct ordered_index *ix, kist_bytes key, struct ordered_spot *out);

/* ... which entries have the key's head, if any, for the one writer (O7) and only if the reuse
 * counter is what it was before the approach; false: another writer has changed the path
 * since, search anew; ... */
bool ordered_arrive(const struct ordered_index *ix, kist_bytes key, struct ordered_spot *at);

/* ... the slot of the one that has, or NULL where there is none, or several; ... */
static inline shm_word *ordered_likely(const struct ordered_index *ix,
                                       const struct ordered_spot *at);

/* ... and the rest, with results as of ordered_find(). */
int ordered_decide(const struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                   struct ordered_spot *at);

/* KIST_OK, or KIST_END in an empty tree; or as above. */
int ordered_first(const struct ordered_index *ix, struct ordered_spot *out);
int ordered_last(const struct ordered_index *ix, struct ordered_spot *out);

/* To the next entry, or the one before. KIST_OK, KIST_END; or as above; then
 * `at` is good for nothing but another search.
 *
 * A cursor keeps its key. When the reuse counter moved, it seeks again: the first
 * entry > key, or the last < key. It has to compare each key with the last one:
 * one that is not beyond it is damage (in a forged tree steps may go in circles). */
int ordered_next(const struct ordered_index *ix, struct ordered_spot *at);
int ordered_prev(const struct ordered_index *ix, struct ordered_spot *at);

/* To the first entry of the next leaf. Over a whole tree, from ordered_first() on, the
 * number of such steps is bounded, whatever the file says. */
int ordered_next_leaf(const struct ordered_index *ix, struct ordered_spot *at);

/* To the last entry of the leaf before. */
int ordered_prev_leaf(const struct ordered_index *ix, struct ordered_spot *at);

/* The slot of an entry. */
static inline shm_word *ordered_slot(const struct ordered_index *ix, const struct ordered_spot *at)
{
    struct ordered_leaf *leaf = (struct ordered_leaf *)(ix->base + (at->leaf & 0xffffffffff00));
    unsigned i = (unsigned)(at->order >> (4 * at->rank + 4)) & 15;

    return &leaf->slot[i < ORDERED_WAYS ? i : 0];
}

static inline shm_word *ordered_likely(const struct ordered_index *ix,
                                       const struct ordered_spot *at)
{
    return at->upto == at->rank + 1 ? ordered_slot(ix, at) : NULL;
}

/* The location in it; never 0 in an entry that is whole. */
static inline uint64_t ordered_loc(const struct ordered_index *ix, const struct ordered_spot *at)
{
    return shm_read(ordered_slot(ix, at)) & LOC_MASK; /* pairs with ordered_update() (O5) */
}

/* The locations of this entry and those behind it in its leaf, in order: to
 * fetch the records ahead, and to walk over slots a leaf at a time. */
unsigned ordered_ahead(const struct ordered_index *ix, const struct ordered_spot *at,
                       uint64_t loc[ORDERED_WAYS]);

/* The same of this entry and those before it, backwards. */
unsigned ordered_behind(const struct ordered_index *ix, const struct ordered_spot *at,
                        uint64_t loc[ORDERED_WAYS]);

/* ---- writing (one writer, O7) ----------------------------------------- */

/* Make room for a key that ordered_find(ORDERED_AT) has just missed at `at`, or could not
 * tell from one that is lost (it will stand beside it): what can fail comes here. KIST_OK: `at` is where it will be. -ENOMEM: the map can't
 * grow in place, open it anew. Errors, ORDERED_LOST too, leave the index as it was. */
int ordered_room(struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                 struct ordered_spot *at);

/* Publish a new key's location into the room made for it right before. */
void ordered_insert(struct ordered_index *ix, kist_bytes key, struct ordered_spot *at,
                    uint64_t place);

/* Publish another location for an entry. */
static inline void ordered_update(shm_word *slot, uint64_t place)
{
    shm_publish(slot, place & LOC_MASK); /* release: pairs with ordered_loc() (O5) (model: P2) */
}

/* Take an entry out; only for tombstones that nobody needs any more. Leaves that
 * have few entries are joined, as far as there is room for that. The spot is good
 * for nothing but another search. */
void ordered_empty(struct ordered_index *ix, const struct index_owner *o,
                   struct ordered_spot *at);

/* ---- proving ---------------------------------------------------------- */

struct ordered_facts {
    unsigned depth; /* nodes from root to the deepest leaf */
    uint64_t leaves, inner, entries;
    uint64_t bytes; /* of nodes in use */
};

/* Prove O1, O2 and O3, and gather facts. With `o`, records are read: keys
 * ascend, and lie where searches look for them. KIST_OK, KIST_ECORRUPT, ORDERED_OUTSIDE,
 * KIST_ENOMEM. A record that can't be read is passed over, and no fault of the index. */
int ordered_check(const struct ordered_index *ix, const struct index_owner *o,
                  struct ordered_facts *out);

/* Grows with each change of the tree's shape. */
static inline uint64_t ordered_built(const struct ordered_index *ix)
{
    return shm_read(&((const struct ordered_file *)ix->base)->built);
}

#endif
