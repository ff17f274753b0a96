/*
 * hash - the hash index: extendible hashing in a mapped file. Format 1.
 *
 *     kist.index.G, in pages of 4 KiB
 *     +--------------------+
 *     | page 0: header     |   0  constant fields
 *     |         root       |  64  root word, splits word
 *     |         directory  | 128  the first one, up to 16 entries
 *     |         block      | 2048 the first one, 32 buckets
 *     +--------------------+
 *     | blocks of 64 buckets (or more), directories, free pages
 *     +--------------------
 *
 *     root word     63                                6 5      0
 *                  +-----------------------------------+--------+
 *                  |  directory offset / 64            | depth  |
 *                  +-----------------------------------+--------+
 *     entry         63                    12 11      6 5      0
 *                  +------------------------+---------+---------+
 *                  |  block offset / 64     | depth   | buckets |  buckets: log2
 *                  +------------------------+---------+---------+
 *     slot          63          48  47  46                     0
 *                  +--------------+---+------------------------+
 *                  |     tag      | o |       location         |
 *                  +--------------+---+------------------------+
 *
 * A hash's upper bits choose the directory entry, so that entries in order
 * cover ranges of hashes in order; bits 16 and up the bucket in its block;
 * the lower 16 are the tag. A search starts at that bucket and goes on to the
 * next in the block exactly when the bucket's overflow bit (o, in its first
 * slot) is set.
 *
 * Invariants (hash_check proves those marked *)
 *   H1* an entry leads to a block inside the file, aligned to 64 bytes
 *   H2* entries that agree in the first `depth` bits of a block are the same
 *   H3  a record is complete before a slot leads to it (I1)
 *   H4  a bucket's overflow bit is set before a slot behind it is published,
 *       and never cleared; slots never move within a block
 *   H5  a page that nothing leads to is written again only after the reuse
 *       counter moved (I4)
 *   H6  the writer alone stores here, under the bank's lock
 *
 * Which pages are free is not stored: what the directory does not reach is.
 */
#ifndef KIST_INDEX_HASH_H
#define KIST_INDEX_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/shm.h"
#include "heap/record.h"
#include "index/file.h"

/* The thread sanitizer takes plain vector loads for races. */
#if defined(__SSE2__) && !defined(SHM_RACES_ARE_SEEN)
#include <emmintrin.h>
#define HASH_SSE2 1
#endif

enum {
    HASH_FORMAT = 1,
    HASH_PAGE = INDEX_PAGE,
    HASH_WAYS = 8,
    HASH_BUCKET = 64,
    HASH_DIR_AT = 128,    /* the first directory */
    HASH_DIR_DEPTH = 4,   /* and the most that fits there */
    HASH_BLOCK_AT = 2048, /* the first block */
    HASH_BLOCK_LG = 5,
    HASH_LG = 6, /* log2 of the buckets of the others */
    HASH_LG_MAX = 24,
    HASH_DEPTH_MAX = 32,
    HASH_REACH = 4, /* buckets that a key may be away, in a block of
                                HASH_LG or less; larger ones have no bound */
    HASH_NAME_MAX = INDEX_NAME_MAX,
    HASH_CURSOR_SLOTS = 512,
};

#define SLOT_OVERFLOW (UINT64_C(1) << LOC_BITS)
enum { SLOT_TAG_SHIFT = 48 };

struct hash_bucket {
    _Alignas(HASH_BUCKET) shm_word slot[HASH_WAYS];
};
static_assert(sizeof(struct hash_bucket) == HASH_BUCKET, "one bucket, one cache line");

struct hash_file {
    char magic[8];
    uint32_t format;
    uint32_t kind;
    uint8_t bank_id[16];
    uint64_t generation;
    uint64_t checksum; /* of the 40 bytes before */
    uint64_t unused[2];
    shm_word root;
    shm_word splits; /* counts allocations, so that a process notices that
                        another one made some */
};
static_assert(offsetof(struct hash_file, root) == 64, "on-disk: root");
static_assert(offsetof(struct hash_file, checksum) == offsetof(struct index_head, checksum),
              "on-disk: each kind's file begins with struct index_head");

struct hash_index {
    union {
        struct index_file file;
        struct {
            INDEX_FILE_FIELDS;
        };
    };
    struct hash_space *space; /* the writer's idea of free pages, or NULL */
};

/* ---- words ------------------------------------------------------------ */

static inline uint64_t root_make(uint64_t offset, unsigned depth)
{
    return offset | depth;
}
static inline uint64_t root_offset(uint64_t root)
{
    return root & ~UINT64_C(63);
}
static inline unsigned root_depth(uint64_t root)
{
    return (unsigned)(root & 63);
}

static inline uint64_t entry_make(uint64_t offset, unsigned lg, unsigned depth)
{
    return offset << 6 | (uint64_t)depth << 6 | lg;
}
static inline uint64_t entry_offset(uint64_t entry)
{
    return entry >> 6 & ~UINT64_C(63);
}
static inline unsigned entry_lg(uint64_t entry)
{
    return (unsigned)(entry & 63);
}
static inline unsigned entry_depth(uint64_t entry)
{
    return (unsigned)(entry >> 6 & 63);
}

static inline uint64_t slot_make(uint64_t hash, uint64_t place)
{
    return hash << SLOT_TAG_SHIFT | (place & LOC_MASK);
}
static inline uint64_t slot_loc(uint64_t slot)
{
    return slot & LOC_MASK;
}
static inline bool slot_tag_is(uint64_t slot, uint64_t hash)
{
    return (slot ^ hash << SLOT_TAG_SHIFT) >> SLOT_TAG_SHIFT == 0;
}

enum { HOME_SHIFT = 10 };

/* The bits that choose the home bucket; as many as there are buckets count. */
static inline uint64_t hash_home(uint64_t hash)
{
    return hash >> (HOME_SHIFT + 6);
}

/* The directory entry for a hash: its upper `depth` bits. */
static inline uint64_t hash_prefix(uint64_t hash, unsigned depth)
{
    return hash >> 1 >> (63 - depth); /* depth 0: none */
}

/* ---- searching (any process, no lock) --------------------------------- */

/* A block, as one entry describes it. */
struct hash_block {
    struct hash_bucket *bucket;
    struct hash_bucket *home; /* the one where a search begins */
    uint32_t mask;
};

/* The i-th bucket that a search visits. */
static inline struct hash_bucket *hash_bucket_at(const struct hash_block *b, uint32_t i)
{
    return &b->bucket[((uint32_t)(b->home - b->bucket) + i) & b->mask];
}

/*
 * The block that a hash belongs to, by a root word that lies within what is
 * mapped. False: the block does not.
 * Order: root, entry and slots are read with acquire; each pairs with the
 * release store by which the writer published it (H3) (model: G1, R2).
 */
static inline bool hash_block_under(const struct hash_index *ix, uint64_t root, uint64_t hash,
                                    struct hash_block *out)
{
    uint8_t *base = ix->base;
    uint64_t entry =
        shm_read((shm_word *)(base + root_offset(root)) + hash_prefix(hash, root_depth(root)));
    uint64_t at = entry_offset(entry);
    unsigned lg = entry_lg(entry) & 31; /* one larger than HASH_LG_MAX does not fit */
    uint64_t bytes = UINT64_C(64) << lg;

    if (at + bytes > atomic_load_explicit(&ix->len, memory_order_acquire))
        return false;
    out->bucket = (struct hash_bucket *)(base + at);
    out->home = (struct hash_bucket *)(base + at + (hash >> HOME_SHIFT & (bytes - 64)));
    out->mask = (UINT32_C(1) << lg) - 1;
    return true;
}

static inline uint64_t hash_root(const struct hash_index *ix)
{
    return shm_read(&((const struct hash_file *)ix->base)->root);
}

/* The same, when the root is the one that was found right before. */
static inline bool hash_block_ready(const struct hash_index *ix, uint64_t hash,
                                    struct hash_block *out)
{
    uint64_t root = hash_root(ix);

    return root == atomic_load_explicit(&ix->root_ok, memory_order_relaxed) &&
           hash_block_under(ix, root, hash, out);
}

/* The same, whatever the root is. False: an offset lies outside of what is
 * mapped (then look at the file's size again, see index_refresh), or is damage. */
static inline bool hash_block_of(struct hash_index *ix, uint64_t hash, struct hash_block *out)
{
    uint64_t len = atomic_load_explicit(&ix->len, memory_order_acquire), root = hash_root(ix);

    if (root != atomic_load_explicit(&ix->root_ok, memory_order_relaxed)) {
        if (root_depth(root) > HASH_DEPTH_MAX || root_offset(root) >= len ||
            len - root_offset(root) < UINT64_C(8) << root_depth(root))
            return false;
        atomic_store_explicit(&ix->root_ok, root, memory_order_relaxed);
    }
    return hash_block_under(ix, root, hash, out);
}

/* A mask with one bit in two for each way whose tag matches; an empty way may
 * be among them. Take them out with hash_way(). */
static inline unsigned hash_bucket_match(const struct hash_bucket *b, uint64_t hash)
{
#ifdef HASH_SSE2
    const __m128i *v = (const __m128i *)b;
    __m128i want = _mm_set1_epi16((short)hash);
    __m128i a0 = _mm_cmpeq_epi16(_mm_load_si128(v), want);
    __m128i a1 = _mm_cmpeq_epi16(_mm_load_si128(v + 1), want);
    __m128i a2 = _mm_cmpeq_epi16(_mm_load_si128(v + 2), want);
    __m128i a3 = _mm_cmpeq_epi16(_mm_load_si128(v + 3), want);
    /* A slot's four 16-bit pieces become four bytes, then two: of these the
     * upper one is negative exactly when the tag was the same. */
    __m128i lo = _mm_packs_epi16(a0, a1), hi = _mm_packs_epi16(a2, a3);

    return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(lo, hi)) & 0xaaaa;
#else
    unsigned m = 0;

    for (unsigned i = 0; i < HASH_WAYS; i++)
        m |= (unsigned)slot_tag_is(shm_read(&b->slot[i]), hash) << (2 * i + 1);
    return m;
#endif
}

static inline unsigned hash_way(unsigned match)
{
    return (unsigned)__builtin_ctz(match) >> 1;
}

static inline bool hash_bucket_overflows(const struct hash_bucket *b)
{
    return (shm_read(&b->slot[0]) & SLOT_OVERFLOW) != 0;
}

/* ---- opening ---------------------------------------------------------- */

void hash_name(char out[HASH_NAME_MAX], uint64_t generation);

/* Make kist.index.G for about `expect` keys, mapped for writing. */
int hash_create(struct hash_index **out, int dir, uint32_t mode, const uint8_t bank_id[16],
                uint64_t generation, uint64_t expect);

/* The same in private memory. */
int hash_create_private(struct hash_index **out, const uint8_t bank_id[16], uint64_t expect);

/* Map an existing one; `fd` becomes the index's own. */
int hash_open(struct hash_index **out, int fd, const uint8_t bank_id[16], uint64_t generation,
              bool writable);

void hash_close(struct hash_index *ix);

/* ---- writing (one writer, H6) ----------------------------------------- */

/* Where a new key's slot will be: made by hash_room, used by hash_insert. */
struct hash_room {
    shm_word *slot;
    struct hash_block block;
    uint32_t away; /* buckets from home */
};

/* Find room for one more key of this hash, splitting and growing as needed.
 * Errors leave the index as it was, for readers and writers. */
int hash_room(struct hash_index *ix, const struct index_owner *o, uint64_t hash,
              struct hash_room *out);

/* Publish a new key's location into the room found. */
void hash_insert(const struct hash_room *room, uint64_t hash, uint64_t place);

/* Publish another location for a key's slot. */
static inline void hash_update(shm_word *slot, uint64_t hash, uint64_t place)
{
    /* release: pairs with the acquire of the search (H3); o stays (H4) (model: P2) */
    shm_publish(slot, (shm_peek(slot) & SLOT_OVERFLOW) | slot_make(hash, place));
}

/* Empty a slot; only for tombstones that nobody needs any more. */
static inline void hash_empty(shm_word *slot)
{
    shm_publish(slot, shm_peek(slot) & SLOT_OVERFLOW);
}

/* Carry an interrupted split through; safe to repeat. */
void hash_finish(struct hash_index *ix, uint64_t old_entry, uint64_t prefix, uint64_t lo,
                 uint64_t hi);

/* ---- walking ---------------------------------------------------------- */

/* Where a walk stands: hashes below `next` have been handed out. */
struct hash_cursor {
    uint64_t next;
    uint64_t floor;            /* the block also holds hashes below this, handed out before */
    uint64_t generation, seen; /* bytes of blocks met, in this generation's index */
    bool done;
};

/* Copy the slots of the next block into `slots` (room for `cap`); *n receives
 * how many. False: damage, or *n > cap: come again with more room. */
bool hash_walk(const struct hash_index *ix, struct hash_cursor *c, uint64_t *slots, size_t cap,
               size_t *n);

struct hash_facts {
    unsigned depth;
    uint64_t longest; /* buckets that the longest search may visit */
};

/* Prove H1 and H2, and gather facts. False: damaged. */
bool hash_check(const struct hash_index *ix, struct hash_facts *out);

/* Grows before each split and doubling of the directory. */
static inline uint64_t hash_splits(const struct hash_index *ix)
{
    return shm_read(&((const struct hash_file *)ix->base)->splits);
}

#endif
