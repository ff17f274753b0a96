/*
 * repair.c - finish what a dead writer left. The page cache is as it was, so
 * every store that it made counts.
 *
 * From the tail of the last step on, each whole record is published again,
 * unless its slot leads to a newer one; the first that is not whole was being
 * written, and is zeroed (S2). Records of a batch without a whole commit are taken
 * out again: each slot leads to what it led to before. Each step may be repeated: whoever dies in here
 * leaves it to the next one. Readers need none of this and notice nothing.
 * tests/model/handover.pml has that: (model: M1).
 */
#include "bank/core.h"

#include "base/err.h"

#include <string.h>

/* What came before a record of its key, by the record's own word. */
static struct key_record before(struct core *c, const struct record *r)
{
    const struct record *old;
    struct segment *s;
    uint64_t n = place_n(r->previous);

    if (r->previous == 0)
        return (struct key_record){ 0 };
    s = core_segment(c, n);
    if (!s && core_map_segment(c, n, &s) < 0)
        return (struct key_record){ 0 };
    old = segment_record(s, place_offset(r->previous));
    return old ? key_record_of(old, r->previous) : (struct key_record){ 0 };
}

static int publish_again(struct core *c, const struct record *r, uint64_t place)
{
    kist_bytes key = { record_key(r), r->key_len };
    uint64_t hash = record_hash_key(&c->bank->set.record, key.data, key.len);
    struct index_room room;
    struct found f;
    int rc = core_find_room(c, key, hash, KIST_VERIFY_NEVER, false, &f, &room);

    if (rc == KIST_OK) {
        if (f.record->sequence <= r->sequence && f.place != place)
            core_publish(c, f.slot, NULL, key, hash, place); /* (model: M1) */
    } else if (rc == KIST_ECORRUPT && f.slot) {
        if (f.place < place) /* the write had made it well again */
            core_publish(c, f.slot, NULL, key, hash, place);
        rc = KIST_OK;
    } else if (rc == KIST_MISS || (rc == KIST_ECORRUPT && core_can_write(c, &f, &room))) {
        rc = core_room(c, key, hash, &room);
        if (rc == KIST_OK)
            core_publish(c, NULL, &room, key, hash, place);
    }
    return rc < 0 ? rc : KIST_OK;
}

/* ---- batches ----------------------------------------------------------- */

/* The records of a batch that were met since it began. */
struct batch {
    uint64_t first, count, sum;
    bool replaces; /* it begins with a clear: its index is made aside */
};

/* Its records, all between two places, one after the other. */
static int each(struct core *c, struct state *s, uint64_t first, uint64_t end,
                int (*one)(struct core *c, struct state *s, const struct record *r, uint64_t place))
{
    struct walk w = { .core = c, .at = first, .newest = place_n(end) };
    const struct record *r;
    uint64_t place;
    int rc;

    while ((rc = walk_next(&w, &r, &place)) == KIST_OK && place < end)
        if (record_kind(r) == RECORD_PUT || record_kind(r) == RECORD_DELETE) {
            rc = one(c, s, r, place);
            if (rc < 0)
                return rc;
        }
    return rc < 0 ? rc : KIST_OK;
}

/* The dead one has accounted for it in the segments: all of that came before
 * the commit record. */
static int redo(struct core *c, struct state *s, const struct record *r, uint64_t place)
{
    int rc = publish_again(c, r, place);

    if (rc == KIST_OK)
        state_count(s, before(c, r), key_record_of(r, place));
    return rc;
}

/* ⚑ Where the slot leads to exactly this record: it may be undone already, or not
 * be published yet. */
static int undo(struct core *c, struct state *s, const struct record *r, uint64_t place)
{
    kist_bytes key = { record_key(r), r->key_len };
    uint64_t hash = record_hash_key(&c->bank->set.record, key.data, key.len);
    struct index_room room;
    struct found f = { 0 };
    int rc = core_find_room(c, key, hash, KIST_VERIFY_NEVER, false, &f, &room);

    (void)s; /* it counts what was visible */
    if (rc < 0) /* another's damaged entry is none of our business */
        return rc == KIST_ECORRUPT && core_can_write(c, &f, &room) ? KIST_OK : rc;
    if (rc == KIST_MISS || f.place != place)
        return KIST_OK;
    ring_replace(c, key_record_of(r, place), before(c, r));
    if (r->previous == 0)
        return core_remove(c, key, f.slot);
    core_publish(c, f.slot, NULL, key, hash, r->previous);
    return KIST_OK;
}

/* No commit vouches for it: what its slots led to before counts. */
static int give_up(struct core *c, const struct batch *b, uint64_t end)
{
    int rc;

    if (b->count == 0 || b->replaces)
        return KIST_OK;
    rc = each(c, NULL, b->first, end, undo);
    /* ⚑ Before the step raises `visible` past its records: who has met one of them
     * in a slot, and asks only then what is visible, has to look again. */
    (void)shm_add(&c->live->change, 1); /* pairs with find_live() */
    return rc;
}

static void batch_add(struct batch *b, const struct record *r, uint64_t place)
{
    if (record_kind(r) == RECORD_CLEAR) /* a replace begins */
        *b = (struct batch){ .first = place, .replaces = true };
    if (b->count == 0)
        b->first = place;
    b->count++;
    b->sum = record_chain(b->sum, r->checksum);
}

static bool batch_is_whole(const struct batch *b, const struct record *commit)
{
    struct commit_body body;

    if (commit->value_len != sizeof body)
        return false;
    memcpy(&body, record_value(commit), sizeof body);
    return b->first != 0 && body.first == b->first && body.count == b->count &&
           body.sum == b->sum;
}

/* ⚑ A clear that is not new was moved here by a compaction: what it speaks of
 * lies before. */
static int again(struct core *c, struct state *s, struct batch *b, const struct record *r,
                 uint64_t place, uint64_t end)
{
    bool is_new = r->sequence > s->visible;
    int rc = KIST_OK;

    if (is_new)
        s->visible = r->sequence;

    if (r->kind & RECORD_IN_BATCH) {
        batch_add(b, r, place);
    } else if (record_kind(r) == RECORD_COMMIT && batch_is_whole(b, r)) {
        rc = b->replaces ? adopt_range(c, s, b->first, place) : each(c, s, b->first, place, redo);
    } else {
        rc = give_up(c, b, place);
        if (rc == KIST_OK && record_kind(r) == RECORD_CLEAR && is_new)
            rc = adopt_range(c, s, place, end);
        else if (rc == KIST_OK &&
                 (record_kind(r) == RECORD_PUT || record_kind(r) == RECORD_DELETE)) {
            rc = publish_again(c, r, place);
            if (rc == KIST_OK)
                state_replace(c, s, before(c, r), key_record_of(r, place));
        }
    }
    if (!(r->kind & RECORD_IN_BATCH))
        *b = (struct batch){ 0 };
    return rc;
}

/* The record that was being written: as far as its lengths say, or all. */
static void zero_rest(struct core *c, uint64_t tail)
{
    uint64_t at = place_offset(tail), rest;
    struct record head;

    if (place_is_full(at, c->active.len))
        return;
    rest = c->active.len - at;
    memcpy(&head, c->active.base + at, RECORD_HEADER);
    if (head.value_len == 0 && head.key_len == 0)
        rest = RECORD_MIN; /* not even the header was done */
    else if (record_kind(&head) == RECORD_PADDING)
        rest = RECORD_MIN;
    else if (record_size(&head) < rest)
        rest = record_size(&head);
    /* The header last: whoever repairs this repair needs its lengths too. */
    if (rest > RECORD_MIN)
        shm_zero(c->active.base + at + RECORD_MIN, rest - RECORD_MIN);
    atomic_signal_fence(memory_order_seq_cst);
    shm_zero(c->active.base + at, RECORD_MIN);
}

int repair(struct core *c)
{
    struct live *l = c->live;
    struct batch batch = { 0 };
    struct state s;
    struct walk w;
    const struct record *r;
    uint64_t place;
    int rc;

    if (!live_state(l, &s))
        return bank_err(c->bank, KIST_ECORRUPT, LIVE_FILE, 0,
                        "bank '%s': kist.live is damaged; run 'kist repair'", c->bank->name);
    rc = core_follow_index(c, false);
    if (rc < 0)
        return rc;
    if (shm_read(&l->intent) && core_index(c)->kind == KIST_INDEX_HASH) { /* pairs with owner_intent() */
        rc = core_refresh_index(c, UINT64_MAX); /* the dead one may have grown the file for it */
        if (rc < 0)
            return err_os(rc, c->bank->name, "kist.index", "map the index");
        hash_finish(index_hash(core_index(c)), shm_peek(&l->intent_old),
                    shm_peek(&l->intent_prefix), shm_peek(&l->intent_lo), shm_peek(&l->intent_hi));
    }
    rc = KIST_OK;
    shm_publish(&l->intent, 0);

    w = (struct walk){ .core = c, .at = s.tail, .newest = shm_read(&l->newest) };
    while (rc == KIST_OK && (rc = walk_next(&w, &r, &place)) == KIST_OK) {
        if (record_kind(r) == RECORD_PUT || record_kind(r) == RECORD_DELETE)
            s.used += record_size(r);
        rc = again(c, &s, &batch, r, place, w.end);
    }
    if (rc == KIST_END)
        rc = give_up(c, &batch, w.end);
    if (rc < 0)
        return rc;
    if (w.end != 0) {
        s.tail = w.end;
        s.last = w.last;
    }
    rc = append_ready(c, &s);
    /* It rolled on, and got no further. ⚑ Not where the last one is not full: then an operation
     * had begun the next one in vain, and life went on before it. */
    if (rc == 0 && place_n(s.tail) < w.newest &&
        place_is_full(place_offset(s.tail), c->active.len)) {
        s.tail = place_make(w.newest, SEGMENT_FIRST_RECORD);
        s.last = 0;
        rc = append_ready(c, &s);
    }
    if (rc < 0)
        return rc;
    zero_rest(c, s.tail); /* (model: M2) */
    core_step(c, &s);     /* (model: S1, S2) */
    return KIST_OK;
}
