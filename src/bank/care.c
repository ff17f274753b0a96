/* care.c - what a bank tells of itself: counts, statistics, verification. */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

/* ---- counts ------------------------------------------------------------ */

/* Enter, and read the state; of a snapshot, what it counts is as of its moment. */
static int read_state(kist_bank *h, struct core **c, struct state *s)
{
    int rc = core_enter_to_read(h, c);

    if (rc == KIST_OK && !live_state((*c)->live, s))
        rc = bank_err(h->bank, KIST_ECORRUPT, LIVE_FILE, 0,
                      "bank '%s': kist.live is damaged; run 'kist repair'", h->bank->name);
    if (rc == KIST_OK && h->snapshot) {
        s->visible = h->snapshot->at;
        s->entries = h->snapshot->state.entries;
        s->payload = h->snapshot->state.payload;
    }
    return rc;
}

/* The same for a call that asks for nothing else. */
static int read_counts(kist_bank *h, struct state *s)
{
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = read_state(h, &c, s);
    kist_read_end();
    return rc;
}

int kist_count(kist_bank *h, uint64_t *entries)
{
    struct state s;
    int rc = read_counts(h, &s);

    if (rc == KIST_OK)
        *entries = s.entries;
    return rc;
}

int kist_size_bytes(kist_bank *h, uint64_t *bytes)
{
    struct state s;
    int rc = read_counts(h, &s);

    if (rc == KIST_OK)
        *bytes = s.payload;
    return rc;
}

static uint64_t wasted(const struct state *s)
{
    return s->used > s->live ? s->used - s->live : 0;
}

int kist_fragmentation(kist_bank *h, double *share)
{
    struct state s;
    int rc = read_counts(h, &s);

    if (rc == KIST_OK)
        *share = s.used == 0 ? 0 : (double)wasted(&s) / (double)(wasted(&s) + s.live);
    return rc;
}

/* ---- statistics --------------------------------------------------------- */

static void count_segments(struct core *c, int dir, kist_stats *out)
{
    uint64_t newest = core_newest(c);
    uint64_t numbered = shm_read(&c->live->numbered);
    char name[SEGMENT_NAME_MAX];
    struct os_stat st;
    int rc = 0;

    if (numbered < newest || numbered - newest > 1 << LOC_N_BITS)
        numbered = newest;
    for (uint64_t n = shm_read(&c->live->oldest); n <= numbered && rc == 0; n++) {
        segment_name(name, n);
        if (os_stat_under(dir, name, &st) < 0) {
            rc = bank_skip_gap(c->bank, &n, numbered);
            continue;
        }
        out->segments++;
        out->heap_file_bytes += st.size;
    }
}

/* Segments that were unlinked and that somebody holds: the locks on their
 * numbers tell of other processes, the table of this one. */
static uint64_t held_bytes(const struct core *c)
{
    const struct segment_table *t = atomic_load_explicit(&c->segments, memory_order_acquire);
    uint64_t oldest = shm_read(&c->live->oldest), at = 0, found, bytes = 0;

    for (uint64_t i = 0; i <= t->mask; i++) {
        const struct segment *s = atomic_load_explicit(&t->at[i], memory_order_acquire);

        if (s && s->n < oldest)
            bytes += s->len;
    }
    while (c->lock_fd >= 0 && at < oldest &&
           os_lock_ask(c->lock_fd, SEAT_HELD + at, oldest - at, &found) == 0) {
        bytes += c->bank->set.segment_bytes; /* at most; its size is gone with its name */
        at = found - SEAT_HELD + 1;
    }
    return bytes;
}

struct index_facts {
    unsigned depth;
    uint64_t longest;
};

/* What snapshots keep: heap files that were emptied, and the lowest sequence that one
 * of any process holds. */
static void count_pins(struct core *c, int dir, kist_stats *out)
{
    struct pins *p = &c->bank->pins;
    char name[SEGMENT_NAME_MAX];
    uint64_t lowest;
    struct os_stat st;

    os_mutex_lock(&p->lock);
    out->snapshots = p->count;
    os_mutex_unlock(&p->lock);
    if (pins_lowest(c, SEAT_HELD, &lowest) == KIST_OK && lowest < SEAT_HELD)
        out->oldest_pin = lowest;
    for (uint64_t n = waiting_next(c, 0, SEQUENCE_NOW); n != 0;
         n = waiting_next(c, n, SEQUENCE_NOW)) {
        segment_name(name, n);
        if (dir >= 0 && os_stat_under(dir, name, &st) == 0)
            out->pinned_bytes += st.size;
    }
}

/* What of an index must hold while writers go on; KIST_ECORRUPT: it does not, or what
 * was read is in use again by now. */
static int check_once(struct index_file *ix, struct index_facts *out)
{
    struct ordered_facts tree;
    struct hash_facts table;
    int rc;

    if (ix->kind == KIST_INDEX_HASH) {
        rc = hash_check(index_hash(ix), &table) ? KIST_OK : KIST_ECORRUPT;
        *out = (struct index_facts){ table.depth, table.longest };
        return rc;
    }
    rc = ordered_check(index_ordered(ix), NULL, &tree);
    *out = (struct index_facts){ tree.depth, tree.depth };
    return rc == ORDERED_OUTSIDE ? KIST_ECORRUPT : rc;
}

/* The same, with all that other processes have added to the file. */
static int check_index(struct core *c, struct index_facts *facts)
{
    uint64_t seen, change;
    int rc;

    do {
        change = shm_read(c->change);
        seen = index_len(core_index(c));
        rc = check_once(core_index(c), facts);
        atomic_thread_fence(memory_order_acquire); /* what was read, then the counter (I4) */
    } while (rc == KIST_ECORRUPT &&
             (shm_peek(c->change) != change || core_refresh_index(c, seen) == 1));
    return rc;
}

static void fill_stats(struct core *c, int dir, const struct state *s, kist_stats *out)
{
    const struct index_file *ix;
    uint64_t durable = shm_read(&c->live->durable);
    struct index_facts facts = { 0 };
    int64_t writers = c->lock_fd < 0 ? 0 : seat_count(c->lock_fd);

    (void)check_index(c, &facts);
    ix = core_index(c);
    *out = (kist_stats){
        .size = out->size,
        .index_depth = facts.depth,
        .entries = s->entries,
        .deleted = s->deleted,
        .payload_bytes = s->payload,
        .live_bytes = s->live,
        .wasted_bytes = wasted(s),
        .index_file_bytes = index_len(ix),
        .index = ix->kind,
        .held_bytes = held_bytes(c),
        .longest_search = facts.longest,
        .sequence = s->visible,
        .unsynced_bytes = place_n(durable) == place_n(s->tail) && durable <= s->tail
                              ? place_offset(s->tail) - place_offset(durable)
                          : durable < s->tail ? s->used
                                              : 0,
        .generation = ix->generation,
        .writers = writers < 0 ? 0 : (uint64_t)writers,
        .damaged_bytes = shm_peek(&c->live->damaged_bytes),
        .last_recovery = (uint32_t)shm_peek(&c->live->recovery),
        .poisoned = shm_peek(&c->live->poison) != 0,
        .last_recovery_ns = (int64_t)shm_peek(&c->live->recovery_ns),
    };
    if (dir >= 0)
        count_segments(c, dir, out);
    count_pins(c, dir, out);
}

int kist_stat(kist_bank *h, kist_stats *out)
{
    struct core *c;
    struct state s;
    int rc, dir;

    if (out->size < sizeof *out)
        return bank_err(h->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                        "kist_stats.size is not set to sizeof(kist_stats)");
    rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = read_state(h, &c, &s);
    if (rc == KIST_OK) {
        dir = bank_open_dir(h->bank);
        fill_stats(c, dir, &s, out);
        if (dir >= 0)
            (void)os_close(dir);
    }
    kist_read_end();
    return rc;
}

int kist_snapshot_stat(kist_bank *h, kist_snapshot_info *out)
{
    const struct snapshot *snap = h->snapshot;

    if (!snap || out->size < sizeof *out)
        return bank_err(h->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                        snap ? "kist_snapshot_info.size is not set to sizeof(kist_snapshot_info)"
                             : "the handle is no snapshot");
    *out = (kist_snapshot_info){
        .size = out->size,
        .index = h->bank->set.index,
        .sequence = snap->at,
        .taken_ns = snap->taken_ns,
        .entries = snap->state.entries,
        .payload_bytes = snap->state.payload,
    };
    memcpy(out->bank_id, h->bank->set.record.id, sizeof out->bank_id);
    return KIST_OK;
}

/* ---- verification -------------------------------------------------------- */

struct verifying {
    kist_bank *handle;
    kist_report report;
    uint64_t done, all;
    kist_progress progress;
    void *arg;
};

static void found_damage(struct verifying *v, uint64_t n, uint64_t offset, uint64_t len)
{
    if (v->report.damaged == 0) {
        segment_name(v->report.first_file, n);
        v->report.first_offset = offset;
    }
    v->report.damaged++;
    v->report.damaged_bytes += len;
}

/* A put that the index should lead to, if it is the newest of its key. */
static void check_reached(struct verifying *v, struct core *c, const struct record *r,
                         uint64_t place)
{
    kist_bytes key = { record_key(r), r->key_len };
    uint64_t hash = record_hash_key(&c->bank->set.record, key.data, key.len);
    struct found f;
    int rc = core_find(c, key, hash, KIST_VERIFY_NEVER, &f);

    if (rc == KIST_OK && f.place == place)
        v->report.entries++;
    else if (live_counts(c->live, r, place) && place_n(place) != shm_read(&c->live->emptying) &&
             !waiting_has(c, place_n(place)) &&
             (rc == KIST_OK ? f.record->sequence < r->sequence
                            : r->sequence > shm_read(&c->live->cleared)))
        v->report.unreachable++;
}

/* How far a segment reaches: up to the tail in the active one. */
static uint64_t reach(const struct segment *s, uint64_t tail)
{
    return place_n(tail) == s->n ? place_offset(tail) : s->len;
}

static int verify_segment(struct verifying *v, struct core *c, struct segment *s, uint64_t tail)
{
    uint64_t next = 0, until = reach(s, tail), limit;
    struct scan scan = { .segment = s, .bank = &c->bank->set.record };
    struct scan_step step;
    struct segment *after;
    int rc = 0;

    /* A recovery may have cut it: the segment behind it says where. */
    for (uint64_t n = s->n + 1; n <= place_n(tail) && next == 0 && rc == 0; n++) {
        if (core_map_segment(c, n, &after) == 0)
            next = n;
        else
            rc = bank_skip_gap(c->bank, &n, place_n(tail));
    }
    if (rc < 0)
        return err_os(rc, c->bank->name, NULL, "list the segments");
    if (next && after->header.predecessor != 0 && after->header.predecessor < s->n)
        return KIST_OK; /* void (S4) */
    if (next && after->header.predecessor == s->n && after->header.cut16 != 0) {
        limit = (uint64_t)after->header.cut16 * RECORD_ALIGN;
        until = limit < until ? limit : until;
    }
    scan.until = until;
    if (segment_header_is_damaged(s))
        found_damage(v, s->n, 0, 0);
    while (until > SEGMENT_FIRST_RECORD) {
        scan_next(&scan, &step);
        if (step.found == SCAN_END)
            break;
        if (step.found == SCAN_DAMAGED || !scan_value_is_whole(step.record)) {
            found_damage(v, s->n, step.offset, step.len);
            continue;
        }
        v->report.records++;
        if (record_kind(step.record) == RECORD_PUT)
            check_reached(v, c, step.record, place_make(s->n, step.offset));
    }
    if (scan.at != 0 && scan.at < until && !place_is_full(scan.at, until)) /* zeros where records were */
        found_damage(v, s->n, scan.at, until - scan.at);
    v->done += until;
    return v->progress ? v->progress(v->done < v->all ? v->done : v->all, v->all, v->arg) : KIST_OK;
}

/* Segment *n; if it is missing, *n becomes the one before the next. */
static int verify_one(struct verifying *v, uint64_t *n, uint64_t *newest)
{
    struct segment *seg;
    struct core *c;
    struct state s;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = read_state(v->handle, &c, &s);
    if (rc == KIST_OK) {
        *newest = place_n(s.tail);
        rc = core_map_segment(c, *n, &seg);
        if (rc == KIST_OK)
            rc = verify_segment(v, c, seg, s.tail);
        else if (rc == -ENOENT)
            rc = err_system(bank_skip_gap(c->bank, n, *newest));
        else if (rc == KIST_ECORRUPT) { /* its header: nothing in it can be read */
            found_damage(v, *n, 0, 0);
            rc = KIST_OK;
        }
    }
    kist_read_end();
    return rc;
}

/* Grows with each change of the index's shape. */
static uint64_t shape_of(struct index_file *ix)
{
    return ix->kind == KIST_INDEX_HASH ? hash_splits(index_hash(ix))
                                       : ordered_built(index_ordered(ix));
}

/* H1 and H2, or O1 to O3. While a split exchanges entries of a hash index, or where
 * a writer died doing so, H2 does not hold, and `intent` says so, unless it ended
 * during the look. Each change is counted before it begins: what three looks find
 * that end with the same count is damage, since the third met none. */
static int index_holds(struct core *c, bool *holds)
{
    uint64_t shape, last = UINT64_MAX;
    int same = 0;

    *holds = true;
    for (int i = 0; i < READ_TRIES; i++) {
        struct index_facts facts;
        int rc = check_index(c, &facts);

        if (rc != KIST_ECORRUPT || shm_read(&c->live->intent) != 0)
            return rc == KIST_ECORRUPT ? KIST_OK : rc;
        shape = shape_of(core_index(c));
        same = shape == last ? same + 1 : 0;
        last = shape;
        if (same == 2) {
            *holds = false;
            return KIST_OK;
        }
    }
    return KIST_OK; /* changes without end */
}

static int verify_index(struct verifying *v, uint64_t *oldest, uint64_t *newest)
{
    struct core *c;
    struct state s;
    bool holds;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = read_state(v->handle, &c, &s);
    if (rc == KIST_OK) {
        *oldest = shm_read(&c->live->oldest);
        *newest = place_n(s.tail);
        v->all = s.used + 1;
        rc = index_holds(c, &holds);
        if (rc == KIST_OK && !holds)
            v->report.unreachable++;
    }
    kist_read_end();
    return rc;
}

/* What a file that is missing held, or the part of one that was cut off. */
static int count_lost(struct verifying *v)
{
    uint64_t lost, first;
    int rc = iter_lost(v->handle, &lost, &first);

    if (rc == KIST_OK && lost > 0) {
        found_damage(v, first, 0, 0);
        v->report.damaged += lost - 1;
    }
    return rc;
}

int kist_verify(kist_bank *h, kist_report *report, kist_progress progress, void *arg)
{
    struct verifying v = { .handle = h, .progress = progress, .arg = arg };
    uint64_t oldest, newest;
    int rc;

    if (report && report->size < sizeof *report)
        return bank_err(h->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                        "kist_report.size is not set to sizeof(kist_report)");
    v.report.size = sizeof v.report;
    rc = verify_index(&v, &oldest, &newest);
    for (uint64_t n = oldest; rc == KIST_OK && n <= newest; n++)
        rc = verify_one(&v, &n, &newest);
    if (rc == KIST_OK)
        rc = count_lost(&v);
    if (rc != KIST_OK)
        return rc;
    if (report)
        *report = v.report;
    if (v.report.damaged == 0 && v.report.unreachable == 0)
        return KIST_OK;
    return bank_err(h->bank, KIST_ECORRUPT, v.report.first_file, v.report.first_offset,
                    "bank '%s': %llu damaged records, %llu that the index does not find; run "
                    "'kist repair'",
                    h->bank->name, (unsigned long long)v.report.damaged,
                    (unsigned long long)v.report.unreachable);
}
