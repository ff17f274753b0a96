/*
 * hash_grow.c - how the hash index grows: free pages, full blocks, the
 * directory. One writer, under the bank's lock (H6).
 *
 * A full block is never changed: two new ones (or one larger) are built
 * aside, the intent is noted, then the directory's entries are exchanged one
 * by one. A reader finds the old block, whole, or a new one; whoever takes
 * over from a dead writer carries the exchange through (hash_finish).
 *
 * tests/model/reuse.pml has the steps that comments name, (model: Q1), and publish.pml
 * those with P.
 */
#include "index/hash.h"

#include "base/os.h"
#include "index/pages.h"
#include "kist/kist.h"

#include <string.h>

enum { TAKEN_MOST = 3 }; /* a directory and two blocks */

/* Pages that may be written: fresh ones, or released by the reuse counter. */
struct hash_space {
    struct pages pages;
    uint64_t splits; /* as of the last look at the directory */
    uint64_t blocks; /* that the directory leads to */
    struct {
        uint64_t at, len;
    } taken[TAKEN_MOST]; /* by the split under way: nothing leads there yet */
    unsigned taken_count;
};

enum { RELEASE_SHARE = 8 }; /* release pages when 1/8 of all would be free */

void hash_space_drop(struct hash_space *space);

static struct hash_file *file_of(const struct hash_index *ix)
{
    return (struct hash_file *)ix->base;
}

void hash_space_drop(struct hash_space *space)
{
    if (space)
        pages_drop(&space->pages);
    os_free(space);
}

/* ---- free pages ------------------------------------------------------- */

/* Mark what the directory reaches; returns the pages that it does not. */
static uint64_t look_around(const struct hash_index *ix, struct hash_space *sp)
{
    uint64_t root = shm_peek(&file_of(ix)->root), last = 0;
    const shm_word *dir = (const void *)(ix->base + root_offset(root));

    pages_all_free(&sp->pages);
    sp->blocks = 0;
    pages_take(&sp->pages, root_offset(root), UINT64_C(8) << root_depth(root));
    for (uint64_t i = 0; i < UINT64_C(1) << root_depth(root); i++) {
        uint64_t entry = shm_peek(&dir[i]);

        if (entry == last)
            continue;
        last = entry;
        sp->blocks++;
        pages_take(&sp->pages, entry_offset(entry), UINT64_C(64) << entry_lg(entry));
    }
    for (unsigned i = 0; i < sp->taken_count; i++)
        pages_take(&sp->pages, sp->taken[i].at, sp->taken[i].len);
    return pages_free(&sp->pages);
}

static int space_resize(struct hash_index *ix)
{
    return pages_resize(&ix->space->pages, index_len(&ix->file) / HASH_PAGE);
}

/* Release what is in quarantine, if it is worth it (H5). Every page that
 * nothing leads to may be written from here on: a reader that still looks at
 * one finds that the counter moved. */
static void release_pages(struct hash_index *ix, const struct index_owner *o, bool must)
{
    struct hash_space *sp = ix->space;
    uint64_t left = look_around(ix, sp);

    if (left > 0 && (must || left >= sp->pages.count / RELEASE_SHARE)) {
        o->reuse(o->arg); /* (model: Q3) */
        shm_fence(); /* the bump before every store into a released page (model: Q4) */
    } else {
        pages_none_free(&sp->pages);
    }
}

/* Another process may have split since: then our idea of free pages is void. */
static int space_ready(struct hash_index *ix, const struct index_owner *o)
{
    uint64_t splits = shm_peek(&file_of(ix)->splits);
    int rc;

    if (ix->space && ix->space->splits == splits) /* (model: Q1) */
        return 0;
    rc = index_refresh(&ix->file, UINT64_MAX);
    if (rc < 0)
        return rc;
    if (!ix->space) {
        ix->space = os_alloc(sizeof *ix->space);
        if (!ix->space)
            return KIST_ENOMEM;
        ix->space->splits = UINT64_MAX; /* void, should what follows fail */
    }
    rc = space_resize(ix);
    if (rc < 0)
        return rc;
    release_pages(ix, o, false);
    ix->space->splits = splits;
    return 0;
}

static int grow_file(struct hash_index *ix, uint64_t pages)
{
    int rc = index_grow(&ix->file, pages);

    return rc < 0 ? rc : space_resize(ix);
}

/* Memory for a block or directory of `len` bytes; *at receives its offset. */
static int space_take(struct hash_index *ix, const struct index_owner *o, uint64_t len, uint64_t *at)
{
    uint64_t pages = (len + HASH_PAGE - 1) / HASH_PAGE, first;
    int rc;

    first = pages_find(&ix->space->pages, pages);
    if (first == 0 && pages == 1) {
        release_pages(ix, o, false);
        first = pages_find(&ix->space->pages, pages);
    }
    if (first == 0) {
        rc = grow_file(ix, pages);
        if (index_no_space(rc)) /* then all that nothing leads to, however little */
            release_pages(ix, o, true);
        else if (rc < 0)
            return rc;
        first = pages_find(&ix->space->pages, pages);
        if (first == 0)
            return rc < 0 ? rc : KIST_EFULL;
    }
    /* Told before the pages are written: who comes next looks around anew (model: Q2). */
    shm_publish(&file_of(ix)->splits, ix->space->splits + 1);
    ix->space->splits++;
    *at = first * HASH_PAGE;
    ix->space->taken[ix->space->taken_count].at = *at;
    ix->space->taken[ix->space->taken_count++].len = len;
    return 0;
}

/* Pages that were taken last, and then not used. */
static void space_give_back(struct hash_index *ix, uint64_t at, uint64_t len)
{
    pages_give(&ix->space->pages, at, len);
    ix->space->taken_count--;
}

/* ---- blocks ----------------------------------------------------------- */

/* A free way within reach of home. */
static bool find_way(const struct hash_block *b, struct hash_room *out)
{
    uint32_t buckets = b->mask + 1;
    uint32_t reach = buckets <= 1u << HASH_LG && buckets > HASH_REACH ? HASH_REACH : buckets;

    for (uint32_t away = 0; away < reach; away++) {
        struct hash_bucket *k = hash_bucket_at(b, away);

        for (unsigned w = 0; w < HASH_WAYS; w++) {
            if (slot_loc(shm_peek(&k->slot[w])) == 0) {
                *out = (struct hash_room){ .slot = &k->slot[w], .block = *b, .away = away };
                return true;
            }
        }
    }
    return false;
}

static void overflow_set(struct hash_bucket *k)
{
    uint64_t s = shm_peek(&k->slot[0]);

    if (!(s & SLOT_OVERFLOW))
        shm_publish(&k->slot[0], s | SLOT_OVERFLOW); /* with hash_bucket_overflows */
}

void hash_insert(const struct hash_room *room, uint64_t hash, uint64_t place)
{
    const struct hash_block *b = &room->block;

    for (uint32_t i = 0; i < room->away; i++) /* H4: before the key is there */
        overflow_set(hash_bucket_at(b, i));
    hash_update(room->slot, hash, place);
}

/* A slot's key, hashed anew from its record. */
struct moving {
    uint64_t slot;
    uint64_t hash;
    uint32_t bucket; /* where it was */
    bool lost;       /* its record is damaged: the hash is not known */
};

static size_t collect(const struct hash_index *ix, const struct index_owner *o, uint64_t entry,
                      struct moving *out)
{
    const struct hash_bucket *b = (const void *)(ix->base + entry_offset(entry));
    size_t n = 0;

    for (uint32_t i = 0; i < UINT32_C(1) << entry_lg(entry); i++) {
        for (unsigned w = 0; w < HASH_WAYS; w++) {
            uint64_t slot = shm_peek(&b[i].slot[w]) & ~SLOT_OVERFLOW;

            if (slot_loc(slot) == 0)
                continue;
            out[n++] = (struct moving){ .slot = slot, .bucket = i };
            __builtin_prefetch(o->record(o->arg, slot_loc(slot)));
        }
    }
    for (size_t i = 0; i < n; i++) {
        const struct record *r = o->record(o->arg, slot_loc(out[i].slot));

        if (r)
            out[i].hash = record_hash_key(o->bank, record_key(r), r->key_len);
        out[i].lost = !r || !slot_tag_is(out[i].slot, out[i].hash);
    }
    return n;
}

/* One whose hash is not known stays near its old bucket, in every new block,
 * so that a search for it still ends in an error, not in a miss. */
static bool put_lost(struct hash_bucket *bucket, uint32_t mask, const struct moving *m)
{
    struct hash_room room;
    struct hash_block b = { .bucket = bucket, .home = &bucket[m->bucket & mask], .mask = mask };

    if (!find_way(&b, &room))
        return false;
    for (uint32_t i = 1; i < HASH_REACH; i++)
        overflow_set(hash_bucket_at(&b, 0 - i));
    for (uint32_t i = 0; i < room.away; i++)
        overflow_set(hash_bucket_at(&b, i));
    shm_publish(room.slot, (shm_peek(room.slot) & SLOT_OVERFLOW) | m->slot);
    return true;
}

/* Fill a block with those of `m` whose hash has `prefix` in its upper `depth`
 * bits. False: it does not hold them. */
static bool fill(const struct hash_index *ix, uint64_t at, unsigned lg, const struct moving *m,
                 size_t n, unsigned depth, uint64_t prefix)
{
    shm_word *words = (shm_word *)(ix->base + at);
    struct hash_bucket *bucket = (struct hash_bucket *)(ix->base + at);
    uint32_t mask = (UINT32_C(1) << lg) - 1;
    struct hash_room room;

    for (uint64_t i = 0; i < (uint64_t)HASH_WAYS << lg; i++)
        shm_publish(&words[i], 0); /* release: readers of the page's last use (model: P5, Q5) */
    for (size_t i = 0; i < n; i++) {
        struct hash_block b = { bucket, &bucket[hash_home(m[i].hash) & mask], mask };

        if (m[i].lost) {
            if (!put_lost(bucket, mask, &m[i]))
                return false;
        } else if (hash_prefix(m[i].hash, depth) == prefix) {
            if (!find_way(&b, &room))
                return false;
            hash_insert(&room, m[i].hash, slot_loc(m[i].slot));
        }
    }
    return true;
}

/* A new block of at least 2^lg buckets for these keys; *entry receives it. */
static int build(struct hash_index *ix, const struct index_owner *o, unsigned lg,
                 const struct moving *m, size_t n, unsigned depth, uint64_t prefix, uint64_t *entry)
{
    for (; lg <= HASH_LG_MAX; lg++) {
        uint64_t at;
        int rc = space_take(ix, o, UINT64_C(64) << lg, &at);

        if (rc < 0)
            return rc;
        if (fill(ix, at, lg, m, n, depth, prefix)) {
            *entry = entry_make(at, lg, depth);
            return 0;
        }
        space_give_back(ix, at, UINT64_C(64) << lg);
    }
    return KIST_EFULL;
}

/* ---- the directory ---------------------------------------------------- */

void hash_finish(struct hash_index *ix, uint64_t old_entry, uint64_t prefix, uint64_t lo,
                 uint64_t hi)
{
    uint64_t root = shm_peek(&file_of(ix)->root);
    unsigned depth = root_depth(root), covers = entry_depth(old_entry);
    shm_word *dir = (shm_word *)(ix->base + root_offset(root));
    uint64_t len = atomic_load_explicit(&ix->len, memory_order_acquire), n;

    if (covers > depth || depth > HASH_DEPTH_MAX || prefix >> covers != 0 ||
        root_offset(root) >= len || len - root_offset(root) < UINT64_C(8) << depth)
        return; /* no intent of ours (I5) */
    n = UINT64_C(1) << (depth - covers);
    for (uint64_t i = 0; i < n; i++) /* release: pairs with hash_block_of (model: P6, Q6) */
        shm_publish(&dir[prefix * n + i], i < n / 2 ? lo : hi);
}

static int double_directory(struct hash_index *ix, const struct index_owner *o)
{
    uint64_t root = shm_peek(&file_of(ix)->root), at;
    unsigned depth = root_depth(root) + 1;
    const shm_word *old;
    shm_word *dir;
    int rc;

    rc = space_take(ix, o, UINT64_C(8) << depth, &at);
    if (rc < 0)
        return rc;
    old = (const void *)(ix->base + root_offset(root));
    dir = (shm_word *)(ix->base + at);
    for (uint64_t i = 0; i < UINT64_C(1) << depth; i++)
        shm_publish(&dir[i], shm_peek(&old[i / 2]));
    shm_publish(&file_of(ix)->root, root_make(at, depth)); /* pairs with hash_block_of */
    return 0;
}

/* Keys that agree in many bits must not blow up the directory: it may have at
 * most 16 entries a block. Then the block grows instead. */
static bool may_split(const struct hash_index *ix, unsigned block_depth)
{
    unsigned depth = root_depth(shm_peek(&file_of(ix)->root));

    if (block_depth < depth)
        return true;
    return depth < HASH_DEPTH_MAX && (UINT64_C(2) << depth) <= ix->space->blocks * 16;
}

static int split(struct hash_index *ix, const struct index_owner *o, uint64_t old_entry,
                 uint64_t hash, struct moving *m)
{
    unsigned depth = entry_depth(old_entry);
    uint64_t prefix = hash_prefix(hash, depth), lo, hi;
    size_t n;
    int rc = 0;

    ix->space->taken_count = 0;
    if (entry_lg(old_entry) >= HASH_LG && may_split(ix, depth)) {
        if (depth == root_depth(shm_peek(&file_of(ix)->root)))
            rc = double_directory(ix, o);
        if (rc < 0)
            return rc;
        n = collect(ix, o, old_entry, m);
        rc = build(ix, o, HASH_LG, m, n, depth + 1, prefix * 2, &lo);
        if (rc == 0)
            rc = build(ix, o, HASH_LG, m, n, depth + 1, prefix * 2 + 1, &hi);
        ix->space->blocks++;
    } else {
        n = collect(ix, o, old_entry, m);
        rc = build(ix, o, entry_lg(old_entry) < HASH_LG ? HASH_LG : entry_lg(old_entry) + 1, m, n,
                   depth, prefix, &lo);
        hi = lo;
    }
    if (rc < 0)
        return rc; /* what was taken is found again by the next look around */
    o->intent(o->arg, old_entry, prefix, lo, hi);
    hash_finish(ix, old_entry, prefix, lo, hi);
    o->intent_done(o->arg);
    return 0;
}

int hash_room(struct hash_index *ix, const struct index_owner *o, uint64_t hash,
              struct hash_room *out)
{
    struct hash_block b;
    int rc = 0;

    while (rc == 0) {
        uint64_t root = shm_peek(&file_of(ix)->root), entry;
        uint64_t seen = atomic_load_explicit(&ix->len, memory_order_acquire);
        struct moving *m;

        if (!hash_block_of(ix, hash, &b)) {
            rc = index_refresh(&ix->file, seen);
            if (rc == 0) /* nothing more there: an entry leads nowhere */
                rc = KIST_ECORRUPT;
            else if (rc == 1)
                rc = 0;
            continue;
        }
        if (find_way(&b, out))
            return KIST_OK;
        rc = space_ready(ix, o);
        if (rc < 0)
            break;
        entry = shm_peek((shm_word *)(ix->base + root_offset(root)) +
                         hash_prefix(hash, root_depth(root)));
        if (entry_depth(entry) > root_depth(root) || entry_lg(entry) > HASH_LG_MAX)
            return KIST_ECORRUPT;
        m = os_alloc(((size_t)HASH_WAYS << entry_lg(entry)) * sizeof *m);
        if (!m)
            return KIST_ENOMEM;
        rc = split(ix, o, entry, hash, m);
        os_free(m);
    }
    return rc;
}
