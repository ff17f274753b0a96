/*
 * iter.c - a walk over a bank in the order of hashes, a block at a time.
 *
 * A block's slots are copied under the counter of changes, and the segments that
 * they lead to are held, so that nothing moves away before it is handed out.
 * Blocks cover disjoint ranges of hashes, whatever splits meanwhile: a key
 * that is present throughout is in exactly one of them.
 */
#include "bank/gather.h"

#include "base/err.h"

#include <string.h>

enum { LOAD_TRIES = 10 };

struct slot_met {
    struct segment *segment; /* NULL: it is missing */
    uint64_t offset;
    uint64_t n;
};

struct kist_iter {
    kist_bank *handle;
    kist_cursor *walk; /* of an ordered bank, or a snapshot: what does all of it; else NULL */
    struct hash_cursor cursor;
    uint64_t generation;
    uint64_t change; /* when the block was copied */
    size_t n, at, cap;
    uint64_t *slots;
    struct slot_met *met;
    struct segment *lent; /* what the last entry's pointers need */
    struct segment *also_lent;
};

int kist_iter_open(kist_iter **out, kist_bank *h)
{
    kist_iter *it;
    struct core *c;
    int rc;

    *out = NULL;
    rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = core_enter(h, &c);
    kist_read_end();
    if (rc < 0)
        return rc;
    it = os_alloc(sizeof *it);
    if (!it)
        return KIST_ENOMEM;
    it->handle = h;
    if (h->snapshot)
        rc = kist_cursor_open(&it->walk, h, NULL);
    else if (h->bank->set.index == KIST_INDEX_ORDERED)
        rc = cursor_open_weak(&it->walk, h);
    if (rc < 0) {
        os_free(it);
        return rc;
    }
    *out = it;
    return KIST_OK;
}

static void let_go(kist_iter *it)
{
    for (; it->at < it->n; it->at++)
        segment_release(it->met[it->at].segment);
    it->n = it->at = 0;
}

static void give_back(kist_iter *it)
{
    segment_release(it->lent);
    segment_release(it->also_lent);
    it->lent = it->also_lent = NULL;
}

static int make_room(kist_iter *it, size_t n)
{
    uint64_t *slots = os_resize(it->slots, n * sizeof *slots);
    struct slot_met *met;

    if (!slots)
        return KIST_ENOMEM;
    it->slots = slots;
    met = os_resize(it->met, n * sizeof *met);
    if (!met)
        return KIST_ENOMEM;
    it->met = met;
    it->cap = n;
    return KIST_OK;
}

/* Hold what the slots lead to. False: a segment went meanwhile; `last`: it is
 * missing, and its entries will say so. */
static bool hold_all(kist_iter *it, struct core *c, size_t n, bool last)
{
    for (size_t i = 0; i < n; i++) {
        struct segment *s;
        uint64_t place = loc_place(slot_loc(it->slots[i]), shm_read(&c->live->newest));

        s = core_segment(c, place_n(place));
        if (!s && core_map_segment(c, place_n(place), &s) < 0) {
            s = NULL;
            if (!last) {
                let_go(it);
                return false;
            }
        }
        if (s)
            segment_hold(s);
        it->met[it->n++] = (struct slot_met){ s, place_offset(place), place_n(place) };
    }
    return true;
}

/* One try to load the next block: KIST_OK, 1: again, or an error. */
static int load_once(kist_iter *it, struct core *c, bool last)
{
    uint64_t change = shm_read(c->change);
    struct index_file *ix = core_index(c);
    uint64_t seen = index_len(ix);
    struct hash_cursor next = it->cursor;
    bool same;
    size_t n;
    int rc;

    if (hash_walk(index_hash(ix), &next, it->slots, it->cap, &n)) {
        atomic_thread_fence(memory_order_acquire); /* the slots, then the counter */
        same = shm_peek(c->change) == change;
        if (!same || !hold_all(it, c, n, last))
            return 1;
        it->cursor = next;
        it->generation = ix->generation;
        it->change = change;
        return KIST_OK;
    }
    if (n > it->cap) {
        rc = make_room(it, n * 2);
        return rc < 0 ? rc : 1;
    }
    rc = core_refresh_index(c, seen);
    return rc < 0 ? rc : rc == 1 || shm_read(c->change) != change ? 1 : bank_index_damaged(it->handle->bank);
}

static int load(kist_iter *it)
{
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = 1;
    for (int i = 0; i < LOAD_TRIES && rc == 1; i++) {
        rc = core_enter(it->handle, &c);
        if (rc == KIST_OK)
            rc = load_once(it, c, i >= LOAD_TRIES / 2);
    }
    kist_read_end();
    if (rc == 1)
        rc = bank_index_damaged(it->handle->bank);
    if (rc < 0)
        it->cursor.done = true; /* no way on: a walk ends after an error of the index */
    return rc;
}

/* What the key has now. */
static int find_now(kist_iter *it, struct core *c, kist_bytes key, struct found *f)
{
    uint64_t hash = record_hash_key(&c->bank->set.record, key.data, key.len), change;
    int rc = SEARCH_AGAIN;

    for (int i = 0; i < READ_TRIES && rc == SEARCH_AGAIN; i++) {
        change = shm_read(c->change);
        rc = core_find(c, key, hash, it->handle->verify, f);
        if (rc == KIST_OK)
            rc = core_as_of(c, f, SEQUENCE_NOW, false, it->handle->verify);
        if (rc == KIST_OK && f->record->kind & RECORD_IN_BATCH && shm_peek(c->change) != change)
            rc = SEARCH_AGAIN; /* see find_live() */
    }
    return rc;
}

/* The content was replaced since the block was copied, or a batch given up: what has
 * the key that `old` had? */
static int look_again(kist_iter *it, struct core *c, const struct record *old, kist_entry *out)
{
    kist_bytes key = { record_key(old), old->key_len }, value;
    struct found f;
    int rc = find_now(it, c, key, &f);

    if (rc == SEARCH_AGAIN)
        rc = bank_index_damaged(c->bank);
    if (rc != KIST_OK || record_kind(f.record) != RECORD_PUT)
        return rc < 0 ? rc : KIST_MISS;
    rc = core_value(c, &f, it->handle->verify, &value);
    if (rc < 0)
        return rc;
    entry_fill(out, f.record, value);
    segment_hold(f.segment);
    it->also_lent = f.segment;
    return KIST_OK;
}

/* The entry that a slot led to. KIST_MISS: no live value. */
static int look(kist_iter *it, struct core *c, const struct slot_met *m, kist_entry *out)
{
    struct found f = { .segment = m->segment, .offset = m->offset };
    kist_bytes value = { 0 };
    char name[SEGMENT_NAME_MAX];
    int rc;

    if (!m->segment)
        return bank_index_damaged(it->handle->bank);
    f.record = segment_record(m->segment, m->offset);
    if (f.record && it->cursor.floor != 0 &&
        record_hash_key(&c->bank->set.record, record_key(f.record), f.record->key_len) <
            it->cursor.floor)
        return KIST_MISS; /* came with an earlier block */
    if (f.record && it->generation != shm_read(&c->live->generation))
        return look_again(it, c, f.record, out);
    if (!f.record || !core_verified(c, m->segment, f.record, m->offset, it->handle->verify)) {
        segment_name(name, m->segment->n);
        return bank_err(it->handle->bank, KIST_ECORRUPT, name, m->offset,
                        "bank '%s': a record is damaged", it->handle->bank->name);
    }
    f.place = place_make(m->segment->n, m->offset);
    rc = core_as_of(c, &f, SEQUENCE_NOW, false, it->handle->verify);
    if (f.record->kind & RECORD_IN_BATCH && shm_read(c->change) != it->change)
        rc = SEARCH_AGAIN;
    if (rc == SEARCH_AGAIN) /* it was in a batch, and is visible by now, or was given up */
        return look_again(it, c, f.record, out);
    if (rc < 0)
        return rc;
    if (rc == KIST_MISS || record_kind(f.record) != RECORD_PUT)
        return KIST_MISS;
    if (f.segment != m->segment) {
        segment_hold(f.segment);
        it->also_lent = f.segment;
    }
    rc = core_value(c, &f, it->handle->verify, &value);
    if (rc < 0)
        return rc;
    entry_fill(out, f.record, value);
    return KIST_OK;
}

int kist_iter_next(kist_iter *it, kist_entry *entry)
{
    struct core *c;
    int rc;

    if (it->walk)
        return kist_cursor_next(it->walk, entry);
    give_back(it);
    for (;;) {
        struct slot_met m;

        while (it->at == it->n) {
            it->n = it->at = 0;
            if (it->cursor.done)
                return KIST_END;
            rc = it->cap ? KIST_OK : make_room(it, HASH_CURSOR_SLOTS);
            if (rc == KIST_OK)
                rc = load(it);
            if (rc < 0)
                return rc;
        }
        m = it->met[it->at++];
        rc = kist_read_begin();
        if (rc == KIST_OK) {
            rc = core_enter(it->handle, &c);
            if (rc == KIST_OK)
                rc = look(it, c, &m, entry);
            kist_read_end();
        }
        if (rc == KIST_OK)
            it->lent = m.segment;
        else
            segment_release(m.segment);
        if (rc != KIST_MISS)
            return rc;
    }
}

/* What entries led to no place, and the segment that the first of them names. */
struct losses {
    uint64_t count, first;
};

static void note_loss(struct losses *l, uint64_t n)
{
    l->first = l->count++ == 0 ? n : l->first;
}

static int lost_in_table(kist_iter *it, struct losses *l)
{
    int rc = KIST_OK;

    while (rc == KIST_OK && !it->cursor.done) {
        rc = it->cap ? load(it) : make_room(it, HASH_CURSOR_SLOTS);
        for (; it->at < it->n; it->at++) {
            const struct slot_met *m = &it->met[it->at];

            if (!m->segment || m->offset + RECORD_MIN > m->segment->len)
                note_loss(l, m->n);
            segment_release(m->segment);
        }
        it->n = it->at = 0;
    }
    return rc;
}

static int lost_in_tree(kist_bank *h, struct losses *l)
{
    const struct source src = { .handle = h, .at = SEQUENCE_NOW };
    const struct key_range all = { 0 };
    struct key_start from = { 0 };
    struct group g = { 0 }, last;
    int rc;

    do {
        last = g;
        g = (struct group){ 0 };
        rc = gather_keys(&src, &all, &from, false, HASH_CURSOR_SLOTS, &g);
        for (size_t i = 0; rc == KIST_OK && i < g.n; i++) {
            const struct met *m = &g.met[i];

            if (m->record) {
                from = (struct key_start){ .has_key = true,
                                           .key = { record_key(m->record), m->record->key_len } };
                continue;
            }
            from.skip++;
            if (!m->segment || m->offset + RECORD_MIN > m->segment->len)
                note_loss(l, m->segment ? m->segment->n : place_n(m->offset));
        }
        if (rc == KIST_OK && g.n == 0 && !g.ended)
            from = (struct key_start){ .has_key = true,
                                       .key = { record_key(g.reached), g.reached->key_len } };
        group_drop(&last); /* the key was in it */
    } while (rc == KIST_OK && !g.ended);
    group_drop(&g);
    return rc;
}

int iter_lost(kist_bank *h, uint64_t *lost, uint64_t *first)
{
    struct losses l = { 0 };
    kist_iter *it;
    int rc = kist_iter_open(&it, h);

    if (rc == KIST_OK)
        rc = it->walk ? lost_in_tree(h, &l) : lost_in_table(it, &l);
    kist_iter_close(it);
    *lost = l.count;
    *first = l.first;
    return rc == KIST_ECORRUPT ? KIST_OK : rc; /* a damaged index is told of otherwise */
}

void kist_iter_close(kist_iter *it)
{
    if (!it)
        return;
    kist_cursor_close(it->walk);
    give_back(it);
    let_go(it);
    os_free(it->slots);
    os_free(it->met);
    os_free(it);
}
