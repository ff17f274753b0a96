/*
 * ahead - a search that a writer begins before it is its turn, so that what it will need is
 * on its way: before it has the lock, or while it is busy with the change before.
 *
 * Both parts in one read section: the index that the first one found is there then, whatever
 * has become of the bank.
 */
#ifndef KIST_BANK_AHEAD_H
#define KIST_BANK_AHEAD_H

#include "bank/core.h"

struct ahead {
    const struct index_file *index; /* NULL: nothing was begun */
    uint64_t change;                /* the reuse counter, from before */
    struct index_room room;
};

/* Ask for where the key is, or would be. */
static inline void ahead_begin(struct ahead *a, struct core *c, kist_bytes key, uint64_t hash)
{
    struct index_file *ix = core_index(c);
    struct hash_block b;

    a->index = ix;
    a->change = shm_read(c->change); /* (model: R1) */
    if (ix->kind == KIST_INDEX_ORDERED)
        ordered_approach(index_ordered(ix), key, &a->room.ordered);
    else if (hash_block_of(index_hash(ix), hash, &b))
        __builtin_prefetch(b.home);
}

/* Under the lock: a search in a tree goes on, as far as it does without a record. False: it
 * has to be made as if none had begun. */
static inline bool ahead_arrive(struct ahead *a, struct core *c, kist_bytes key)
{
    struct index_file *ix = core_index(c);

    return ix->kind == KIST_INDEX_ORDERED && a->index == ix && a->change == shm_read(c->change) &&
           ordered_arrive(index_ordered(ix), key, &a->room.ordered);
}

#endif
