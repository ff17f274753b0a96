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

void fill_init(struct fill *f, struct hash_index *ix, struct state *s,
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

static shm_word *find(struct fill *f, uint64_t hash, kist_bytes key, uint64_t *place,
                      const struct record **out)
{
    struct hash_block b;

    if (!hash_block_of(f->index, hash, &b))
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
    shm_word *slot = find(f, hash, key, &old_place, &old);
    struct hash_room room;
    int rc;

    if (slot) {
        if (old->sequence > r->sequence)
            return KIST_OK;
        count(f, old, old_place, false);
        hash_update(slot, hash, place);
    } else {
        rc = hash_room(f->index, &f->owner, hash, &room);
        if (rc < 0)
            return err_system(rc);
        hash_insert(&room, hash, place);
    }
    count(f, r, place, true);
    return KIST_OK;
}
