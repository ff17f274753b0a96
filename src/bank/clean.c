/*
 * clean.c - giving space back (I3, I10).
 *
 * A segment is emptied by copying the records that slots lead to, in groups,
 * the lock let go between them. Then, in this order:
 *
 *     sync            ⚑ covers the copies
 *     unlink          the emptied file
 *     sync directory  before a tombstone that kept something dead in this
 *                     file is given up with a later one
 *
 * In the oldest segment tombstones are left where they are, until nothing else
 * in it counts; then `emptying` tells that they are given up, and their slots
 * are emptied before the file goes.
 *
 * ⚑ A segment opened by a recovery says where its predecessor was cut off. It
 * stays as long as that one: else what lies behind the cut would come back. So
 * one that was cut is always cleaned, before the one that says so.
 *
 * ⚑ What a snapshot needs is not given up: a file that was emptied while one was
 * open waits (waiting.c), and a tombstone that one can't see yet is moved on.
 * pins_horizon() says how far history may go.
 *
 * Segments are taken oldest first. So when one is emptied that is the oldest,
 * every segment before it is gone for good: its tombstones, clears and commits
 * speak of nothing any more. In one that is not the oldest they are kept, by
 * being copied too.
 */
#include "bank/clean.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

enum { GROUP_BYTES = 1 << 20, GROUP_RECORDS = 4096 };

/* ---- unlinking -------------------------------------------------------- */

/* The lowest number from n on whose file exists. */
static uint64_t first_from(struct core *c, uint64_t n)
{
    uint64_t newest = core_newest(c);
    int rc = bank_next_segment(c->bank, &n, newest);

    return rc == KIST_END && n < newest ? newest : n;
}

static void drop_from_accounts(struct core *c, struct state *s, uint64_t n)
{
    struct live_segment *e = ring_entry(c, n);
    uint64_t used = e ? shm_peek(&e->used) : 0;

    s->used = s->used > used ? s->used - used : 0;
    if (e)
        shm_store(&e->n, 0);
}

/* Unlink the segments from..to-1, and sync the directory. Holding the lock. */
static int unlink_range(struct core *c, struct state *s, uint64_t from, uint64_t to)
{
    char name[SEGMENT_NAME_MAX];
    int dir = bank_open_dir(c->bank), rc = 0;
    bool any = false;

    if (dir < 0)
        return err_os(dir, c->bank->name, NULL, "open the bank's directory");
    (void)shm_add(&c->live->unlinks, 1); /* pairs with look_once() of copy.c */
    for (uint64_t n = from; n < to && rc == 0; n++) {
        segment_name(name, n);
        rc = os_unlink(dir, name);
        any |= rc == 0;
        if (rc == -ENOENT)
            rc = bank_skip_gap(c->bank, &n, to - 1);
    }
    if (rc == 0 && any) {
        rc = os_fsync(dir);
        if (rc < 0)
            rc = sync_failed(c, rc);
    }
    for (uint64_t n = from; n < to && rc == 0; n++) /* ⚑ behind the sync: see clean_is_needed() */
        if (ring_entry(c, n))
            drop_from_accounts(c, s, n);
    if (rc == 0 && shm_peek(&c->live->oldest) >= from && shm_peek(&c->live->oldest) < to)
        shm_publish(&c->live->oldest, first_from(c, to)); /* pairs with is_gone() */
    (void)os_close(dir);
    for (uint64_t n = waiting_next(c, from - 1, SEQUENCE_NOW); rc == 0 && n != 0 && n < to;
         n = waiting_next(c, n, SEQUENCE_NOW))
        waiting_forget(c, n);
    core_step(c, s);
    os_mutex_lock(&c->mapping);
    core_drop_old(c);
    os_mutex_unlock(&c->mapping);
    return rc < 0 && rc != KIST_EPOISON
               ? err_os(rc, c->bank->name, name, "unlink a cleaned segment")
               : rc;
}

/* The segments that are accounted for and have no file: are there any? Or drop them.
 * Bounded by the accounts and the files that there are, whatever the numbers are (I5). */
static int each_missing(struct core *c, struct state *s, bool drop, bool *any)
{
    uint64_t lg = shm_peek(&c->live->ring_lg), n = shm_peek(&c->live->oldest);
    uint64_t end = core_newest(c), next;
    int rc = KIST_OK;

    if (lg <= LOC_N_BITS && end > n + (UINT64_C(1) << lg))
        end = n + (UINT64_C(1) << lg);
    for (; n < end && rc == KIST_OK && lg <= LOC_N_BITS; n++) {
        next = n;
        rc = bank_next_segment(c->bank, &next, end);
        for (; n < end && (n < next || rc == KIST_END); n++) {
            if (!ring_entry(c, n))
                continue;
            *any = true;
            if (!drop)
                continue;
            drop_from_accounts(c, s, n);
            waiting_forget(c, n);
        }
    }
    return rc < 0 ? rc : KIST_OK;
}

int clean_died(struct core *c, struct state *s)
{
    uint64_t oldest = shm_peek(&c->live->oldest), first = first_from(c, oldest);
    bool any = first != oldest;
    int dir, rc = each_missing(c, s, false, &any);

    if (rc == KIST_OK && !any)
        return KIST_OK;
    dir = rc < 0 ? rc : bank_open_dir(c->bank);
    if (dir < 0)
        return err_os(dir, c->bank->name, NULL, "look for the heap's files");
    rc = os_fsync(dir); /* ⚑ they are gone for good, before anything goes by that (I10) */
    (void)os_close(dir);
    if (rc < 0)
        return sync_failed(c, rc);
    rc = each_missing(c, s, true, &any);
    shm_publish(&c->live->oldest, first);
    core_step(c, s);
    return rc < 0 ? err_os(rc, c->bank->name, NULL, "look for the heap's files") : KIST_OK;
}

bool clean_is_needed(struct core *c, uint64_t n)
{
    struct segment *s;

    return core_map_segment(c, n, &s) == KIST_OK && s->header.cut16 != 0 &&
           ring_entry(c, s->header.predecessor) != NULL;
}

int clean_waiting(struct core *c, struct state *s, uint64_t horizon)
{
    int rc = KIST_OK;

    for (uint64_t n = waiting_next(c, 0, horizon); rc == KIST_OK && n != 0;
         n = waiting_next(c, n, horizon))
        if (!clean_is_needed(c, n))
            rc = unlink_range(c, s, n, n + 1);
    return rc;
}

/* The segments from..to-1 are of no use to anything but snapshots. *waits: and
 * there are some. Holding the lock, behind a sync of what replaces them. */
static int give_up_range(struct core *c, struct state *s, uint64_t from, uint64_t to, bool *waits)
{
    uint64_t horizon;
    int rc = pins_horizon(c, s, &horizon);

    *waits = rc == KIST_OK && horizon < s->visible;
    if (rc == KIST_OK && !*waits)
        return unlink_range(c, s, from, to); /* what waits is older, and goes with the next call */
    for (uint64_t n = from; rc == KIST_OK && n < to; n++) {
        rc = bank_next_segment(c->bank, &n, to - 1);
        if (rc == KIST_OK)
            waiting_add(c, n, s->visible);
    }
    rc = rc == KIST_END ? KIST_OK : err_system(rc);
    return rc == KIST_OK ? clean_waiting(c, s, horizon) : rc;
}

int clean_below(kist_bank *h, uint64_t n)
{
    bool waits;
    struct writer w;
    int rc = sync_vouched(h);

    if (rc == KIST_OK)
        rc = write_begin(&w, h, 0);
    if (rc < 0)
        return rc;
    rc = give_up_range(w.core, &w.state, shm_peek(&w.core->live->oldest), n, &waits);
    write_end(&w);
    return rc;
}

/* ---- batches ---------------------------------------------------------- */

/* ⚑ A batch that is cleaned in part counts because a mark says that its commit is
 * durable: no segment goes before such a mark is (sync_vouched()). */
int clean_before_batch(kist_bank *h, uint64_t first, uint64_t commit)
{
    struct writer w;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    live_note_batch(w.core->live, first, commit);
    write_end(&w);
    return clean_below(h, place_n(first));
}

/* Look whether the record at `place` is in a batch that was committed, and note that. The
 * commit ends the run of records in batches that it lies in; where it was moved nothing
 * is known. */
static int look_for_commit(struct writer *w, struct cleaning *cl, const struct state *s,
                           uint64_t place)
{
    struct live *l = w->core->live;
    struct walk walk = { .core = w->core, .at = place, .newest = place_n(s->tail) };
    struct commit_body body;
    const struct record *r;
    uint64_t at;
    int rc;

    if (place < cl->looked || live_has_batch(l, place))
        return KIST_OK;
    do
        rc = walk_next(&walk, &r, &at);
    while (rc == KIST_OK && at < s->tail && r->kind & RECORD_IN_BATCH);
    if (rc < 0)
        return rc;
    cl->looked = rc == KIST_OK ? at : s->tail;
    if (rc != KIST_OK || record_kind(r) != RECORD_COMMIT || r->value_len != sizeof body)
        return KIST_OK; /* it was given up */
    memcpy(&body, record_value(r), sizeof body);
    if (body.count != 0 && body.first <= place)
        live_note_batch(l, body.first, at);
    else if (body.count != 0) /* ⚑ given up, and another one follows in the run */
        cl->looked = body.first;
    return KIST_OK;
}

/* ---- moving ----------------------------------------------------------- */

/* A clear or commit; a clear in a batch that never counted is nothing, nor is the
 * commit of a batch that lies with it in one segment. */
static bool keeps_history(const struct live *l, const struct record *r, uint64_t place)
{
    struct commit_body body;

    if (record_kind(r) == RECORD_COMMIT && r->value_len == sizeof body) {
        memcpy(&body, record_value(r), sizeof body);
        return body.count == 0 || place_n(body.first) != place_n(place);
    }
    return record_kind(r) == RECORD_CLEAR && live_counts(l, r, place);
}

/* A clear or commit that still speaks of something. A commit's records may
 * have been moved since, so from now on it vouches for a range of places. */
static int move_own(struct writer *w, struct state *s, const struct record *r, uint64_t place)
{
    const struct record_bank *b = &w->core->bank->set.record;
    struct commit_body body = { 0 };
    struct entry e = {
        .kind = (uint8_t)record_kind(r),
        .sequence = r->sequence,
        .mtime_ns = r->mtime_ns,
        .value = { record_value(r), r->value_len },
        .key_hash = record_hash_key(b, NULL, 0),
    };
    int rc;

    if (record_kind(r) == RECORD_COMMIT && r->value_len == sizeof body) {
        memcpy(&body, record_value(r), sizeof body);
        if (body.count != 0) {
            body.count = 0;
            body.sum = place;
        }
        e.value = (kist_bytes){ &body, sizeof body };
    }
    e.value_hash = record_hash_value(e.value.data, e.value.len, NULL);
    rc = append_room(w->core, s, entry_size(&e), APPEND_LAST);
    return rc < 0 ? rc
                  : append(w->core, s, &e, w->handle->durability == KIST_DURABILITY_ALWAYS,
                           &place);
}

/* The index does not lead to `r`: because of a newer one, a clear, or a batch
 * that never counted. Anything else is damage to the index, and must not cost
 * the record (I2). */
static int is_dead(struct core *c, uint64_t place, const struct record *r,
                   const struct record *newest)
{
    if (newest ? newest->sequence >= r->sequence
               : r->sequence <= shm_peek(&c->live->cleared) ||
                     record_kind(r) == RECORD_DELETE ||
                     place_n(place) == shm_peek(&c->live->emptying))
        return KIST_OK;
    if (!live_counts(c->live, r, place))
        return KIST_OK;
    return bank_err(c->bank, KIST_ECORRUPT, "kist.index", ERR_NOWHERE,
                    "bank '%s': the index does not lead to a live record; run 'kist repair'",
                    c->bank->name);
}

int clean_move(struct writer *w, struct cleaning *cl, struct state *s,
               const struct record *r, uint64_t place)
{
    bool durable = w->handle->durability == KIST_DURABILITY_ALWAYS;
    kist_bytes key = { record_key(r), r->key_len };
    struct key_record what = key_record_of(r, place), now = what;
    uint64_t hash, to;
    struct found f = { 0 };
    int rc;

    if (r->kind & RECORD_IN_BATCH) {
        rc = look_for_commit(w, cl, s, place);
        if (rc < 0)
            return rc;
    }
    if (keeps_history(w->core->live, r, place))
        return cl->is_oldest ? KIST_OK : move_own(w, s, r, place);
    if (!what.counts && !what.tombstone)
        return KIST_OK;
    hash = record_hash_key(&w->core->bank->set.record, key.data, key.len);
    rc = core_find(w->core, key, hash, KIST_VERIFY_NEVER, &f);
    /* ⚑ A search that got nowhere says nothing of a tombstone (I10). */
    if (rc < 0 && !(rc == KIST_ECORRUPT && f.slot))
        return rc;
    if (rc != KIST_OK || f.place != place)
        return is_dead(w->core, place, r, rc == KIST_OK ? f.record : NULL);
    if (what.tombstone && cl->is_oldest) {
        cl->kept++;
        if (!cl->giving_up)
            return KIST_OK;
        if (r->sequence <= cl->horizon) { /* I10: all it could speak of is gone */
            rc = core_remove(w->core, key, f.slot);
            if (rc < 0)
                return rc;
            state_replace(w->core, s, what, (struct key_record){ 0 });
            return KIST_OK;
        }
    }
    rc = append_room(w->core, s, what.size, cl->arranges ? APPEND_PUT : APPEND_LAST);
    if (rc == KIST_OK)
        rc = append_moved(w->core, s, r, place, durable, &to);
    if (rc < 0)
        return rc;
    core_publish(w->core, f.slot, NULL, key, hash, to);
    now.n = place_n(to);
    state_replace(w->core, s, what, now);
    cl->moved += what.size;
    return KIST_OK;
}

uint64_t clean_cut_of(struct core *c, uint64_t n)
{
    uint64_t newest = core_newest(c);
    struct segment *s;
    int rc = 0;

    for (uint64_t m = n + 1; m <= newest && rc == 0; m++) {
        if (ring_entry(c, m) && core_map_segment(c, m, &s) == KIST_OK)
            return s->header.predecessor == n ? (uint64_t)s->header.cut16 * RECORD_ALIGN : 0;
        rc = bank_skip_gap(c->bank, &m, newest);
    }
    return 0;
}

/* Has another cleaner been faster? Then what a map still shows of it speaks of
 * nothing any more. Only the file itself tells; the accounts may lack it. */
static int look_for_file(struct cleaning *cl)
{
    int dir = bank_open_dir(cl->handle->bank), rc;
    char name[SEGMENT_NAME_MAX];
    struct os_stat st;

    if (dir < 0)
        return err_os(dir, cl->handle->bank->name, NULL, "open the bank's directory");
    segment_name(name, cl->n);
    rc = os_stat_under(dir, name, &st);
    (void)os_close(dir);
    cl->gone = rc == -ENOENT;
    return rc == 0 || rc == -ENOENT ? rc
                                    : err_os(rc, cl->handle->bank->name, name, "look at a segment");
}

/* ⚑ A rebuild leads to tombstones again that were given up. */
static void note_incarnation(struct cleaning *cl, const struct writer *w)
{
    if (cl->incarnation == 0)
        cl->incarnation = w->core->live->incarnation;
    cl->was_rebuilt |= cl->incarnation != w->core->live->incarnation;
}

/* One group of the segment, under the lock. KIST_END: that was the last. */
static int move_group(struct cleaning *cl)
{
    struct scan scan = { .at = cl->at, .hashed = cl->hashed };
    struct scan_step step = { .found = SCAN_END };
    struct segment *seg;
    struct state next;
    struct writer w;
    uint64_t bytes = 0, before = cl->moved;
    int rc = write_begin(&w, cl->handle, 0);

    if (rc < 0)
        return rc;
    rc = look_for_file(cl);
    note_incarnation(cl, &w);
    seg = core_segment(w.core, cl->n);
    if (rc == KIST_OK && !seg)
        rc = core_map_segment(w.core, cl->n, &seg);
    cl->is_oldest = !cl->keeps_all && shm_peek(&w.core->live->oldest) == cl->n;
    next = w.state;
    if (rc == KIST_OK && cl->giving_up && cl->is_oldest) {
        rc = pins_horizon(w.core, &next, &cl->horizon);
        shm_publish(&w.core->live->emptying, cl->n);
    }
    scan.segment = seg;
    scan.until = clean_cut_of(w.core, cl->n); /* what lies behind is void (S4) */
    scan.bank = &w.core->bank->set.record;
    for (int i = 0; rc == KIST_OK && i < GROUP_RECORDS && bytes < GROUP_BYTES; i++) {
        scan_next(&scan, &step);
        if (step.found == SCAN_DAMAGED) {
            cl->damaged = true;
            cl->at = scan.at;
            continue;
        }
        if (step.found != SCAN_RECORD)
            break;
        rc = clean_move(&w, cl, &next, step.record, place_make(cl->n, step.offset));
        bytes += step.len < GROUP_BYTES / 64 ? step.len : cl->moved - before;
        if (rc == KIST_OK)
            cl->at = scan.at;
    }
    cl->hashed = scan.hashed;
    core_step(w.core, &next); /* also what came before a failure */
    write_end(&w);
    if (rc == -ENOENT)
        return KIST_END;
    return rc < 0 ? rc : step.found == SCAN_END ? KIST_END : KIST_OK;
}

static int finish(struct cleaning *cl)
{
    struct writer w;
    int rc = sync_vouched(cl->handle); /* ⚑ the copies, before the originals go */

    if (rc == KIST_OK)
        rc = write_begin(&w, cl->handle, 0);
    if (rc < 0)
        return rc;
    note_incarnation(cl, &w);
    if (cl->was_rebuilt) { /* it stays; the next compaction empties it anew */
        write_end(&w);
        return KIST_OK;
    }
    rc = give_up_range(w.core, &w.state, cl->n, cl->n + 1, &cl->waits);
    cl->gone = rc == KIST_OK && !cl->waits;
    if (cl->gone && shm_peek(&w.core->live->emptying) == cl->n)
        shm_publish(&w.core->live->emptying, 0);
    write_end(&w);
    return rc;
}

static int move_all(struct cleaning *cl)
{
    int rc;

    cl->at = 0;
    do
        rc = move_group(cl);
    while (rc == KIST_OK);
    return rc;
}

static bool table_leads_to(const struct core *c, const struct hash_index *ix, uint64_t n)
{
    uint64_t newest = shm_peek(&c->live->newest), *slots;
    struct hash_cursor cursor = { 0 };
    size_t cap = HASH_CURSOR_SLOTS, got;
    bool found = false;

    slots = os_alloc(cap * sizeof *slots);
    while (slots && !found && !cursor.done) {
        if (hash_walk(ix, &cursor, slots, cap, &got)) {
            for (size_t i = 0; i < got; i++)
                found |= place_n(loc_place(slot_loc(slots[i]), newest)) == n;
        } else if (got > cap) {
            uint64_t *more = os_resize(slots, got * sizeof *more);

            found = !more;
            slots = more ? more : slots;
            cap = got;
        } else {
            found = true; /* the index is damaged: nothing is certain */
        }
    }
    os_free(slots);
    return found || !cursor.done;
}

static bool tree_leads_to(const struct core *c, const struct ordered_index *ix, uint64_t n)
{
    uint64_t newest = shm_peek(&c->live->newest), loc[ORDERED_WAYS];
    struct ordered_spot at;
    bool found = false;
    int rc = ordered_first(ix, &at);

    while (rc == KIST_OK && !found) {
        unsigned got = ordered_ahead(ix, &at, loc);

        for (unsigned i = 0; i < got; i++)
            found |= place_n(loc_place(loc[i], newest)) == n;
        rc = ordered_next_leaf(ix, &at);
    }
    return found || rc != KIST_END; /* of a damaged index nothing is certain */
}

/* Does any slot lead into segment N? Holding the lock word. */
static bool is_led_to(struct core *c, uint64_t n)
{
    int rc = core_refresh_index(c, UINT64_MAX); /* another process may have grown it */

    return rc < 0 || (core_index(c)->kind == KIST_INDEX_HASH
                          ? table_leads_to(c, index_hash(core_index(c)), n)
                          : tree_leads_to(c, index_ordered(core_index(c)), n));
}

/* What can't be read of it may be somebody's only copy: it stays while a slot
 * leads there. Its tombstones move too, since it may stay. */
static int clean_damaged(struct cleaning *cl)
{
    char name[SEGMENT_NAME_MAX];
    struct writer w;
    bool stays;
    int rc;

    cl->keeps_all = true;
    rc = move_all(cl);
    if (rc >= 0)
        rc = write_begin(&w, cl->handle, 0);
    if (rc < 0)
        return rc;
    stays = is_led_to(w.core, cl->n);
    write_end(&w);
    if (!stays)
        return finish(cl);
    segment_name(name, cl->n);
    bank_log(cl->handle->bank, KIST_LOG_WARNING, name, cl->at, "%s is damaged and stays as it is",
             name);
    return KIST_OK;
}

int clean_segment(struct cleaning *cl)
{
    int rc = move_all(cl);

    if (rc >= 0 && cl->damaged && !cl->gone)
        return clean_damaged(cl);
    if (rc >= 0 && cl->kept > 0 && !cl->gone) {
        cl->giving_up = true;
        rc = move_all(cl);
    }
    return rc < 0 ? rc : cl->gone ? KIST_OK : finish(cl);
}
