/* index.c - an index of either kind, see index.h. */
#include "index/index.h"

static_assert((int)ORDERED_KIND == (int)KIST_INDEX_ORDERED, "on-disk: the kind of an index");

static int made(int rc, struct index_file *f, struct index_file **out)
{
    if (rc == KIST_OK)
        *out = f;
    return rc;
}

int index_create(struct index_file **out, uint32_t kind, int dir, uint32_t mode,
                 const uint8_t bank_id[16], uint64_t generation, uint64_t expect)
{
    struct ordered_index *tree = NULL;
    struct hash_index *table = NULL;
    int rc;

    if (kind == KIST_INDEX_ORDERED) {
        rc = ordered_create(&tree, dir, mode, bank_id, generation);
        return made(rc, (struct index_file *)(void *)tree, out);
    }
    rc = hash_create(&table, dir, mode, bank_id, generation, expect);
    return made(rc, (struct index_file *)(void *)table, out);
}

int index_create_private(struct index_file **out, uint32_t kind, const uint8_t bank_id[16],
                         uint64_t expect)
{
    struct ordered_index *tree = NULL;
    struct hash_index *table = NULL;
    int rc;

    if (kind == KIST_INDEX_ORDERED) {
        rc = ordered_create_private(&tree, bank_id);
        return made(rc, (struct index_file *)(void *)tree, out);
    }
    rc = hash_create_private(&table, bank_id, expect);
    return made(rc, (struct index_file *)(void *)table, out);
}

int index_open(struct index_file **out, uint32_t kind, int fd, const uint8_t bank_id[16],
               uint64_t generation, bool writable)
{
    struct ordered_index *tree = NULL;
    struct hash_index *table = NULL;
    int rc;

    if (kind == KIST_INDEX_ORDERED) {
        rc = ordered_open(&tree, fd, bank_id, generation, writable);
        return made(rc, (struct index_file *)(void *)tree, out);
    }
    rc = hash_open(&table, fd, bank_id, generation, writable);
    return made(rc, (struct index_file *)(void *)table, out);
}

void index_close(struct index_file *f)
{
    /* release, then acquire: who frees it comes behind all who used it */
    if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) > 1)
        return;
    if (f->kind == KIST_INDEX_ORDERED)
        ordered_close(index_ordered(f));
    else
        hash_close(index_hash(f));
}

static void on_unseen(struct retired *r)
{
    index_close((struct index_file *)((char *)r - offsetof(struct index_file, retired)));
}

void index_retire(struct index_file *f)
{
    thread_retire(&f->retired, on_unseen);
}

int index_make_room(struct index_file *f, const struct index_owner *o, kist_bytes key,
                    uint64_t hash, struct index_room *room)
{
    return f->kind == KIST_INDEX_ORDERED
               ? ordered_room(index_ordered(f), o, key, &room->ordered)
               : hash_room(index_hash(f), o, hash, &room->hash);
}

void index_insert(struct index_file *f, struct index_room *room, kist_bytes key, uint64_t hash,
                  uint64_t place)
{
    if (f->kind == KIST_INDEX_ORDERED)
        ordered_insert(index_ordered(f), key, &room->ordered, place);
    else
        hash_insert(&room->hash, hash, place);
}

int index_remove(struct index_file *f, const struct index_owner *o, kist_bytes key,
                 shm_word *slot)
{
    struct ordered_spot at;
    int rc;

    if (f->kind == KIST_INDEX_HASH) {
        hash_empty(slot);
        return KIST_OK;
    }
    rc = ordered_find(index_ordered(f), o, key, ORDERED_AT, &at);
    if (rc != KIST_OK)
        return rc < 0 ? rc : KIST_ECORRUPT;
    ordered_empty(index_ordered(f), o, &at);
    return KIST_OK;
}
