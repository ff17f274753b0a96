/*
 * index - an index of either kind, as a bank uses it: what makes, opens and
 * changes one. Searching and walking differ too much; each kind has its own.
 *
 *     hash     by the key's hash       hash.h
 *     ordered  by the key's bytes      ordered.h
 *
 * An index is counted: the core that uses it holds one reference, each snapshot
 * that was taken with it one more. Once another generation takes its place nobody
 * changes it any more, and it stays readable, unlinked or not, for who holds it.
 */
#ifndef KIST_INDEX_INDEX_H
#define KIST_INDEX_INDEX_H

#include "index/file.h"
#include "index/hash.h"
#include "index/ordered.h"

static inline struct hash_index *index_hash(struct index_file *f)
{
    return (struct hash_index *)(void *)f; /* it begins with one */
}

static inline struct ordered_index *index_ordered(struct index_file *f)
{
    return (struct ordered_index *)(void *)f;
}

/* Make kist.index.G for about `expect` keys, mapped for writing. */
int index_create(struct index_file **out, uint32_t kind, int dir, uint32_t mode,
                 const uint8_t bank_id[16], uint64_t generation, uint64_t expect);

/* The same in private memory. */
int index_create_private(struct index_file **out, uint32_t kind, const uint8_t bank_id[16],
                         uint64_t expect);

/* Map an existing one; `fd` becomes the index's own, in any case. */
int index_open(struct index_file **out, uint32_t kind, int fd, const uint8_t bank_id[16],
               uint64_t generation, bool writable);

static inline void index_hold(struct index_file *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
}

/* Let go of one reference; NULL is a no-op. */
void index_close(struct index_file *f);

/* The same, once no read section can see it. */
void index_retire(struct index_file *f);

/* ---- writing (the bank's one writer) ---------------------------------- */

/* Where a new key's slot will be. */
struct index_room {
    union {
        struct hash_room hash;
        struct ordered_spot ordered; /* a search for the key put it there */
    };
};

/* Make room for a key that is not there. For an ordered index room->ordered is
 * where ordered_find() has just missed it. -ENOMEM: the map can't grow in place,
 * open it anew. Errors leave the index as it was, for readers and writers. */
int index_make_room(struct index_file *f, const struct index_owner *o, kist_bytes key,
                    uint64_t hash, struct index_room *room);

/* Publish a new key's location into the room made for it right before. */
void index_insert(struct index_file *f, struct index_room *room, kist_bytes key, uint64_t hash,
                  uint64_t place);

/* Publish another location for a key's slot. */
static inline void index_update(const struct index_file *f, shm_word *slot, uint64_t hash,
                                uint64_t place)
{
    if (f->kind == KIST_INDEX_HASH)
        hash_update(slot, hash, place);
    else
        ordered_update(slot, place);
}

/* Take a key out whose slot is this one; only for one that nobody needs any more.
 * Slots that were found before are good for nothing then. */
int index_remove(struct index_file *f, const struct index_owner *o, kist_bytes key,
                 shm_word *slot);

#endif
