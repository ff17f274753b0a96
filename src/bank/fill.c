/* fill.c - build an index from records that are in the heap already. */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>

static const struct record *owner_record(void *arg, uint64_t loc)
{
    struct fill *f = arg;
    uint64_t place;

    return f->record(f->arg, loc, &place);
}

/* Nobody reads this index yet, and nobody will finish it. */
static void owner_reuse(void *arg)
{
    (void)arg;
}

static void owner_intent(void *arg, uint64_t old_entry, uint64_t prefix, uint64_t lo, uint64_t hi)
{
    (void)arg, (void)old_entry, (void)prefix, (void)lo, (void)hi;
}

void fill_init(struct fill *f, struct index_file *ix, struct state *s,
               const struct record_bank *bank,
               const struct record *(*record)(void *arg, uint64_t loc, uint64_t *place),
               void (*live)(void *arg, uint64_t n, int64_t bytes), void *arg)
{
    *f = (struct fill){
        .index = ix,
        .owner = { .bank = bank,
                   .record = owner_record,
                   .reuse = owner_reuse,
                   .intent = owner_intent,
                   .intent_done = owner_reuse,
                   .arg = f },
        .record = record,
        .state = s,
        .live = live,
        .arg = arg,
    };
}

static shm_word *find_in_table(struct fill *f, uint64_t hash, kist_bytes key, uint64_t *place,
                               const struct record **out)
{
    struct hash_block b;

    if (!hash_block_of(index_hash(f->index), hash, &b))
        return NULL;
    for (uint32_t i = 0; i <= b.mask; i++) {
        struct hash_bucket *k = hash_bucket_at(&b, i);

        for (unsigned m = hash_bucket_match(k, hash); m; m &= m - 1) {
            shm_word *slot = &k->slot[hash_way(m)];
            uint64_t loc = slot_loc(shm_peek(slot));

            *out = loc ? f->record(f->arg, loc, place) : NULL;
            if (*out && record_key_is(*out, key))
                return slot;
        }
        if (!hash_bucket_overflows(k))
            break;
    }
    return NULL;
}

/* The key's slot, or NULL with *rc KIST_OK, or an error in *rc. */
static shm_word *find(struct fill *f, uint64_t hash, kist_bytes key, struct index_room *room,
                      uint64_t *place, const struct record **out, int *rc)
{
    *rc = KIST_OK;
    if (f->index->kind == KIST_INDEX_HASH)
        return find_in_table(f, hash, key, place, out);
    *rc = ordered_find(index_ordered(f->index), &f->owner, key, ORDERED_AT, &room->ordered);
    if (*rc == KIST_MISS)
        *rc = KIST_OK;
    else if (*rc == KIST_OK && (*out = f->record(f->arg, ordered_loc(index_ordered(f->index),
                                                                     &room->ordered), place)))
        return ordered_slot(index_ordered(f->index), &room->ordered);
    else if (*rc >= 0)
        *rc = KIST_ECORRUPT;
    return NULL;
}

static void count(struct fill *f, const struct record *r, uint64_t place, bool add)
{
    struct key_record k = key_record_of(r, place);
    uint64_t by = add ? 1 : UINT64_MAX; /* plus or minus one, modulo 2^64 */

    if (k.counts) {
        f->state->entries += by;
        f->state->payload += by * k.payload;
        f->state->live += by * k.size;
        f->live(f->arg, k.n, add ? (int64_t)k.size : -(int64_t)k.size);
    } else {
        f->state->deleted += by;
    }
}

int fill_add(struct fill *f, const struct record *r, uint64_t place)
{
    kist_bytes key = { record_key(r), r->key_len };
    uint64_t hash = record_hash_key(f->owner.bank, key.data, key.len), old_place = 0;
    const struct record *old = NULL;
    struct index_room room;
    int rc;
    shm_word *slot = find(f, hash, key, &room, &old_place, &old, &rc);

    if (rc < 0)
        return rc;
    if (slot) {
        if (old->sequence > r->sequence)
            return KIST_OK;
        count(f, old, old_place, false);
        index_update(f->index, slot, hash, place);
    } else {
        rc = index_make_room(f->index, &f->owner, key, hash, &room);
        if (rc != KIST_OK)
            return rc < 0 ? err_system(rc) : KIST_ECORRUPT;
        index_insert(f->index, &room, key, hash, place);
    }
    count(f, r, place, true);
    return KIST_OK;
}
