/* gather.c - entries of a bank as of one sequence, see gather.h. */
#include "bank/gather.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

enum {
    LAG = 16, /* entries that are on their way while one is looked at */
    RECENT = 64,
    TRIES = 20,
    MISSES = 5, /* tries that met a missing segment, until that is damage */
    MISSING = 3, /* a result */
    PASSED = 2048, /* entries that are looked at for a full group; else it is a short one */
};

/* The core to gather from, if the moment is still kept there. */
static int enter(const struct source *src, struct core **c)
{
    int rc = core_enter_to_read(src->handle, c);

    return rc == KIST_OK && src->pin ? snapshot_check(src->pin, *c) : rc;
}

/* ---- a group ---------------------------------------------------------- */

static void let_go(struct group *g)
{
    for (size_t i = 0; i < g->held_n; i++)
        segment_release(g->held[i]);
    g->held_n = g->n = 0;
}

void group_drop(struct group *g)
{
    let_go(g);
    os_free(g->met);
    os_free(g->held);
    os_free(g->locs);
    *g = (struct group){ 0 };
}

static int room_for(void *list, size_t *room, size_t n, size_t size)
{
    size_t more = *room ? *room : 64;
    void *p;

    if (n <= *room)
        return KIST_OK;
    while (more < n)
        more *= 2;
    p = os_resize(*(void **)list, more * size);
    if (!p)
        return KIST_ENOMEM;
    *(void **)list = p;
    *room = more;
    return KIST_OK;
}

/* One way of gathering. */
struct gathering {
    const struct source *src;
    struct core *core;
    struct group *g;
    uint32_t verify;
    size_t n, held_n; /* what the group had before this try */
    struct segment *recent[RECENT]; /* held in this try; a hint */
    unsigned misses; /* tries before this one that ended so */
};

/* Each segment once, or a few times. */
static int hold(struct gathering *ga, struct segment *s)
{
    struct segment **seen = &ga->recent[s->n % RECENT];
    struct group *g = ga->g;
    int rc;

    if (*seen == s)
        return KIST_OK;
    rc = room_for(&g->held, &g->held_room, g->held_n + 1, sizeof(struct segment *));
    if (rc < 0)
        return rc;
    segment_hold(s);
    g->held[g->held_n++] = *seen = s;
    return KIST_OK;
}

/* Take back what this try has gathered. */
static void undo(struct gathering *ga)
{
    struct group *g = ga->g;

    for (; g->held_n > ga->held_n; g->held_n--)
        segment_release(g->held[g->held_n - 1]);
    g->n = ga->n;
    memset(ga->recent, 0, sizeof ga->recent);
}

static inline void fetch_record(const struct core *c, uint64_t loc)
{
    const struct segment *s = core_segment_of(c, loc);

    if (!s)
        return;
    __builtin_prefetch(s->base + place_offset(loc)); /* wherever that is: a hint */
    __builtin_prefetch(s->base + place_offset(loc) + RECORD_HEADER + RECORD_ALIGN);
}

/*
 * What nearly every entry is: a plain put that this sequence sees, verified
 * before, in a segment that this try holds. False: look_at() has to look; it makes
 * the same checks, and more.
 */
static inline bool look_plainly(const struct gathering *ga, uint64_t loc, struct met *out)
{
    const struct segment *s = core_segment_of(ga->core, loc);
    uint64_t offset = place_offset(loc), shape;
    const struct record *r;

    if (!s || offset + RECORD_MIN > s->len || ga->recent[s->n % RECENT] != s)
        return false;
    r = (const void *)(s->base + offset);
    shape = record_shape(r) - record_plain(0);
    if (shape >> 48 != 0 || (uint32_t)shape > CHUNKED_ABOVE ||
        offset + RECORD_HEADER + (shape >> 32) + (uint32_t)shape > s->len)
        return false;
    if (ga->verify == KIST_VERIFY_FIRST ? !segment_seen(s, offset)
                                        : ga->verify != KIST_VERIFY_NEVER)
        return false;
    *out = (struct met){ r, ga->recent[s->n % RECENT], offset };
    return r->sequence <= ga->src->at;
}

/* What a location leads to, as of the sequence. KIST_OK, also for a damaged one;
 * KIST_MISS: no entry, but some record of its key; 1: history went; MISSING: its
 * segment is not there, as when it was emptied since the location was read. */
static int look_at(struct gathering *ga, uint64_t loc, struct met *out)
{
    struct core *c = ga->core;
    uint32_t verify = ga->verify;
    struct found f = { .place = loc_place(loc, shm_read(&c->live->newest)) };
    int rc;

    f.offset = place_offset(f.place);
    f.segment = core_segment(c, place_n(f.place));
    if (!f.segment && (rc = core_map_segment(c, place_n(f.place), &f.segment)) < 0) {
        if (rc == -ENOENT && ga->misses < MISSES)
            return MISSING;
        *out = (struct met){ .offset = f.place };
        return rc == KIST_ENOMEM ? rc : KIST_OK;
    }
    f.record = segment_record(f.segment, f.offset);
    *out = (struct met){ NULL, f.segment, f.offset };
    if (!f.record || !core_verified(c, f.segment, f.record, f.offset, verify))
        return hold(ga, f.segment);
    rc = core_as_of(c, &f, ga->src->at, ga->src->pin != NULL, verify);
    if (rc == SEARCH_AGAIN)
        return 1;
    if (rc == KIST_OK && record_kind(f.record) != RECORD_PUT)
        rc = KIST_MISS;
    if (rc != KIST_OK && rc != KIST_ECORRUPT && rc != KIST_MISS)
        return rc;
    *out = (struct met){ rc == KIST_ECORRUPT ? NULL : f.record, f.segment, f.offset };
    return rc == KIST_MISS ? rc : hold(ga, f.segment);
}

/* ---- in the order of keys --------------------------------------------- */

static inline int key_order(const struct record *r, kist_bytes key)
{
    size_t len = r->key_len < key.len ? r->key_len : key.len;
    int c;

    if (len >= 8) { /* mostly these tell */
        uint64_t a = __builtin_bswap64(load8(record_key(r))), b = __builtin_bswap64(load8(key.data));

        if (a != b)
            return a < b ? -1 : 1;
    }
    c = len ? memcmp(record_key(r), key.data, len) : 0;
    return c != 0 ? c : r->key_len < key.len ? -1 : r->key_len > key.len;
}

static bool is_outside(const struct key_range *range, const struct record *r, bool down)
{
    return down ? key_order(r, range->lower) < 0
                : range->has_upper && key_order(r, range->upper) >= 0;
}

struct keys {
    struct gathering ga;
    const struct key_range *range;
    const struct key_start *from;
    size_t want;
    size_t skip; /* entries still to be passed over */
    size_t collected, resolved;
    size_t passed; /* collected before that */
    struct met passed_by; /* the last one that was deleted */
    bool down, outside;
};

/* Where the group begins. KIST_MISS: behind all there is. */
static int find_start(const struct keys *k, const struct ordered_index *ix,
                      struct ordered_spot *at)
{
    const struct key_start *from = k->from;
    kist_bytes key = from->has_key ? from->key : k->down ? k->range->upper : k->range->lower;
    struct comparing m = { .core = k->ga.core, .key = key, .verify = k->ga.src->handle->verify };
    struct index_owner o = { .record = record_to_compare, .arg = &m };
    int rc;

    if (k->down && !from->has_key && !k->range->has_upper) {
        rc = ordered_last(ix, at);
    } else if (k->down) {
        rc = ordered_find(ix, &o, key, from->has_key && from->inclusive ? ORDERED_LE : ORDERED_LT,
                          at);
    } else {
        rc = ordered_find(ix, &o, key, from->has_key && !from->inclusive ? ORDERED_GT : ORDERED_GE,
                          at);
    }
    return rc == KIST_END ? KIST_MISS : rc;
}

/* Look at what was collected, but for the last `lag`. */
static int resolve(struct keys *k, size_t lag)
{
    struct group *g = k->ga.g;

    while (k->resolved + lag < k->collected && !k->outside) {
        struct met *m = &g->met[g->n];
        uint64_t loc = g->locs[k->resolved++];
        int rc = look_plainly(&k->ga, loc, m) ? KIST_OK : look_at(&k->ga, loc, m);

        if (rc == KIST_MISS) {
            k->passed_by = *m;
            k->outside = is_outside(k->range, m->record, k->down);
            continue;
        }
        if (rc != KIST_OK)
            return rc;
        if (m->record && is_outside(k->range, m->record, k->down)) {
            k->outside = true;
        } else if (k->skip > 0 && !m->record) {
            k->skip--;
        } else {
            k->skip = 0;
            g->n++;
        }
    }
    return KIST_OK;
}

/* A leaf's locations, from `at` on. */
static int collect(struct keys *k, const struct ordered_index *ix, const struct ordered_spot *at)
{
    struct group *g = k->ga.g;
    unsigned got;
    int rc = room_for(&g->locs, &g->locs_room, k->collected + ORDERED_WAYS, sizeof *g->locs);

    if (rc == KIST_OK) /* one more, for the entry that turns out to be outside */
        rc = room_for(&g->met, &g->room, g->n + k->collected - k->resolved + ORDERED_WAYS + 1,
                      sizeof *g->met);
    if (rc < 0)
        return rc;
    got = k->down ? ordered_behind(ix, at, g->locs + k->collected)
                  : ordered_ahead(ix, at, g->locs + k->collected);
    for (unsigned i = 0; i < got; i++)
        fetch_record(k->ga.core, g->locs[k->collected + i]);
    k->collected += got;
    return KIST_OK;
}

/* KIST_OK; KIST_END: and there is nothing behind; 1, or an error; ORDERED_OUTSIDE and
 * ORDERED_LOST. */
static int gather_leaves(struct keys *k, const struct ordered_index *ix, struct ordered_spot *at)
{
    int rc = find_start(k, ix, at);

    while (rc == KIST_OK) {
        rc = collect(k, ix, at);
        if (rc == KIST_OK)
            rc = resolve(k, LAG);
        if (rc != KIST_OK || k->outside)
            break;
        if (k->ga.g->n + (k->collected - k->resolved) >= k->want) {
            rc = resolve(k, 0);
            k->passed += k->collected;
            if (rc != KIST_OK || k->outside || k->ga.g->n >= k->want || k->passed >= PASSED)
                break;
            k->collected = k->resolved = 0;
        }
        rc = k->down ? ordered_prev_leaf(ix, at) : ordered_next_leaf(ix, at);
    }
    if (rc == KIST_END || rc == KIST_MISS) {
        rc = resolve(k, 0);
        return rc == KIST_OK ? KIST_END : rc;
    }
    return rc == KIST_OK && k->outside ? KIST_END : rc;
}

/* A key that decides where to go on can't be read. */
static int lost(struct keys *k, uint64_t loc)
{
    struct met m;
    int rc = look_at(&k->ga, loc, &m);

    if (rc == KIST_ENOMEM || rc == 1 || rc == MISSING)
        return rc;
    return m.segment ? core_damaged(k->ga.core, m.segment, m.offset)
                     : bank_index_damaged(k->ga.core->bank);
}

/* One try. 2 or MISSING: again; else as gather_keys(). */
static int keys_once(struct keys *k)
{
    struct core *c = k->ga.core;
    uint64_t change = shm_read(c->change);
    struct index_file *ix = k->ga.src->fixed ? k->ga.src->fixed : core_index(c);
    uint64_t seen = index_len(ix);
    struct ordered_spot at;
    int rc = gather_leaves(k, index_ordered(ix), &at);

    if (rc == ORDERED_OUTSIDE) {
        rc = core_look_further(c, k->ga.src->fixed, seen, change);
        return rc == KIST_OK ? 2 : rc;
    }
    atomic_thread_fence(memory_order_acquire); /* what was read, then the counter */
    if (shm_peek(c->change) != change && rc != KIST_ENOMEM)
        return 2;
    if (rc == ORDERED_LOST)
        return lost(k, at.lost);
    if (rc == KIST_ECORRUPT)
        return bank_index_damaged(c->bank);
    k->ga.g->ended = rc == KIST_END;
    if (rc == KIST_OK && k->ga.g->n == 0) { /* all of it was deleted: from there it goes on */
        k->ga.g->reached = k->passed_by.record;
        rc = hold(&k->ga, k->passed_by.segment);
    }
    return rc == KIST_END ? KIST_OK : rc;
}

/* ⚑ In a forged tree steps may go in circles (I5). */
static bool goes_on(const struct keys *k)
{
    const struct group *g = k->ga.g;
    const struct record *last = g->n > 0 ? g->met[g->n - 1].record : g->reached;
    int order;

    if (!last || !k->from->has_key)
        return true;
    order = key_order(last, k->from->key);
    return k->down ? order < k->from->inclusive : order > -(int)k->from->inclusive;
}

int gather_keys(const struct source *src, const struct key_range *range,
                const struct key_start *from, bool down, size_t want, struct group *g)
{
    struct group made = { .down = down };
    unsigned misses = 0;
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = room_for(&made.met, &made.room, want + 2 * LAG, sizeof *made.met);
    if (rc == KIST_OK)
        rc = 2;
    for (int i = 0; i < TRIES && (rc == 2 || rc == MISSING); i++) {
        misses += rc == MISSING;
        rc = enter(src, &c);
        if (rc == KIST_OK) {
            struct keys k = { .ga = { .src = src, .core = c, .g = &made,
                                      .verify = src->handle->verify, .misses = misses },
                              .range = range, .from = from, .want = want,
                              .skip = from->skip, .down = down };

            rc = keys_once(&k);
            if (rc == KIST_OK && !goes_on(&k))
                rc = bank_index_damaged(c->bank);
            if (rc != KIST_OK)
                undo(&k.ga);
        }
    }
    if (rc == 2 || rc == MISSING)
        rc = bank_index_damaged(c->bank);
    kist_read_end();
    if (rc != KIST_OK) {
        group_drop(&made);
        return rc;
    }
    let_go(g);
    os_free(made.locs);
    made.locs = NULL;
    group_drop(g);
    *g = made;
    return KIST_OK;
}

/* ---- in the order of hashes ------------------------------------------- */

/* Blocks cover disjoint ranges of hashes, but one that was met in part. */
static bool came_before(const struct gathering *ga, const struct hash_cursor *cursor,
                        const struct met *m)
{
    return cursor->floor != 0 && m->record &&
           record_hash_key(&ga->core->bank->set.record, record_key(m->record),
                           m->record->key_len) < cursor->floor;
}

static int resolve_block(struct gathering *ga, const struct hash_cursor *cursor, size_t n)
{
    struct group *g = ga->g;
    int rc = room_for(&g->met, &g->room, g->n + n, sizeof *g->met);

    for (size_t i = 0; i < n && i < LAG; i++)
        fetch_record(ga->core, slot_loc(g->locs[i]));
    for (size_t i = 0; i < n && rc == KIST_OK; i++) {
        if (i + LAG < n)
            fetch_record(ga->core, slot_loc(g->locs[i + LAG]));
        rc = look_plainly(ga, slot_loc(g->locs[i]), &g->met[g->n])
                 ? KIST_OK
                 : look_at(ga, slot_loc(g->locs[i]), &g->met[g->n]);
        if (rc == KIST_OK && !came_before(ga, cursor, &g->met[g->n]))
            g->n++;
        if (rc == KIST_MISS)
            rc = KIST_OK;
    }
    return rc;
}

/* One try. 2 or MISSING: again. */
static int block_once(struct gathering *ga, struct hash_cursor *cursor)
{
    struct core *c = ga->core;
    struct group *g = ga->g;
    uint64_t change = shm_read(c->change);
    struct index_file *ix = ga->src->fixed ? ga->src->fixed : core_index(c);
    uint64_t seen = index_len(ix);
    struct hash_cursor next = *cursor;
    size_t n;
    int rc;

    if (!hash_walk(index_hash(ix), &next, g->locs, g->locs_room, &n)) {
        rc = n > g->locs_room ? room_for(&g->locs, &g->locs_room, n, sizeof *g->locs)
                              : core_look_further(c, ga->src->fixed, seen, change);
        return rc == KIST_OK ? 2 : rc;
    }
    rc = resolve_block(ga, &next, n);
    atomic_thread_fence(memory_order_acquire); /* the slots, then the counter */
    if (shm_peek(c->change) != change && rc != KIST_ENOMEM)
        return 2;
    if (rc == KIST_OK) {
        *cursor = next;
        g->ended = next.done;
    }
    return rc;
}

int gather_block(const struct source *src, struct hash_cursor *cursor, struct group *g)
{
    unsigned misses = 0;
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = room_for(&g->locs, &g->locs_room, HASH_CURSOR_SLOTS, sizeof *g->locs);
    if (rc == KIST_OK)
        rc = 2;
    for (int i = 0; i < TRIES && (rc == 2 || rc == MISSING); i++) {
        misses += rc == MISSING;
        rc = enter(src, &c);
        if (rc == KIST_OK) {
            struct gathering ga = { .src = src, .core = c, .g = g, .n = g->n,
                                    .held_n = g->held_n, .verify = src->handle->verify,
                                    .misses = misses };

            rc = block_once(&ga, cursor);
            if (rc != KIST_OK)
                undo(&ga);
        }
    }
    if (rc == 2 || rc == MISSING)
        rc = bank_index_damaged(c->bank);
    kist_read_end();
    return rc;
}

/* ---- handing out ------------------------------------------------------ */

/* In full, since it is longer than a header's checksum says. */
static int long_value(const struct source *src, const struct met *m, kist_bytes *value)
{
    struct found f = { .record = m->record, .segment = m->segment, .offset = m->offset };
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = core_enter_to_read(src->handle, &c);
    if (rc == KIST_OK)
        rc = core_value(c, &f, src->handle->verify, value);
    kist_read_end();
    return rc;
}

static int damaged_entry(const struct source *src, const struct met *m)
{
    const struct bank *b = src->handle->bank;
    char name[SEGMENT_NAME_MAX];

    if (!m->segment)
        return bank_err(b, KIST_ECORRUPT, "kist.index", ERR_NOWHERE,
                        "bank '%s': an entry leads to a heap file that is missing; run 'kist "
                        "repair'",
                        b->name);
    segment_name(name, m->segment->n);
    return bank_err(b, KIST_ECORRUPT, name, m->offset, "bank '%s': a record is damaged", b->name);
}

int group_entry(const struct source *src, const struct group *g, size_t i, kist_entry *out)
{
    const struct met *m = &g->met[i];
    kist_bytes value;
    int rc = KIST_OK;

    if (!m->record)
        return damaged_entry(src, m);
    value = (kist_bytes){ record_value(m->record), m->record->value_len };
    if (m->record->kind & RECORD_CHUNKED)
        rc = long_value(src, m, &value);
    if (rc == KIST_OK)
        entry_fill(out, m->record, value);
    return rc;
}
