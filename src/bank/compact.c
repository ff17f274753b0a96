/*
 * compact.c - give back the space of all dead records.
 *
 *     plan       seal the active segment, if it has dead records
 *     arrange    ordered banks: copy every live record to new segments, in the
 *                order of keys; then all segments of the plan are dead
 *     clean      each segment that has dead records, oldest first (clean.c)
 *
 * Arranging goes by the tree, a group of keys at a time, the lock let go between
 * them: keys that are written meanwhile lie behind the plan and stay there.
 *
 * As long as a snapshot is open nothing comes back of what is emptied. So only as
 * much is emptied as can be noted to wait for it, nothing for the sake of order, and
 * no tombstones: else each call would make the bank larger by all that lives.
 */
#include "bank/clean.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

enum { GROUP_BYTES = 1 << 20, GROUP_RECORDS = 4096 };

struct plan {
    uint64_t first, last; /* segments to look at */
    uint64_t bytes;       /* to be read, for progress */
    bool all;             /* there are tombstones: everything before them too */
    bool arrange;         /* put the records in the order of keys */
    bool waits;           /* what is emptied now will wait for a snapshot */
    uint64_t visible;     /* when it was made */
};

static bool wants_cleaning(struct core *c, uint64_t n, bool all)
{
    struct live_segment *e = ring_entry(c, n);

    return e && (all || shm_peek(&e->used) != shm_peek(&e->live));
}

static bool is_full(int rc)
{
    return rc == KIST_EFULL || rc == KIST_EQUOTA || rc == KIST_EFILESIZE;
}

/* Seal the active segment if it has dead records, so that it is cleaned too. */
static int make_plan(kist_bank *h, struct plan *p)
{
    struct state next;
    struct writer w;
    uint64_t n, horizon;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    rc = clean_died(w.core, &w.state);
    if (rc == KIST_OK)
        rc = pins_horizon(w.core, &w.state, &horizon);
    if (rc == KIST_OK)
        rc = clean_waiting(w.core, &w.state, horizon);
    next = w.state;
    p->waits = rc == KIST_OK && horizon < next.visible;
    p->all = next.deleted > 0 && !p->waits; /* else none of them goes, however much is moved */
    p->visible = next.visible;
    p->arrange = core_index(w.core)->kind == KIST_INDEX_ORDERED && !p->waits &&
                 (next.used != next.live || shm_peek(&w.core->live->arranged) != next.visible + 1);
    p->first = shm_peek(&w.core->live->oldest);
    n = place_n(next.tail);
    p->last = n - 1;
    if (rc == KIST_OK && (next.used != next.live || p->all || p->arrange) &&
        wants_cleaning(w.core, n, p->all || p->arrange) && place_offset(next.tail) > SEGMENT_FIRST_RECORD) {
        rc = append_seal(w.core, &next);
        if (is_full(rc)) { /* then without it */
            rc = KIST_OK;
        } else if (rc == KIST_OK) {
            core_step(w.core, &next);
            p->last = n;
        }
    }
    p->bytes = next.used + (p->arrange ? next.live : 0);
    write_end(&w);
    return rc;
}

/* The next segment from *n on that exists. KIST_MISS: it stays as it is. */
static int look_at(kist_bank *h, const struct plan *plan, uint64_t *n, uint64_t *bytes)
{
    struct live_segment *e;
    struct writer w;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    rc = bank_next_segment(h->bank, n, plan->last);
    if (rc == KIST_OK) {
        e = ring_entry(w.core, *n);
        *bytes = e ? shm_peek(&e->used) : 0;
        if (!e || (!wants_cleaning(w.core, *n, plan->all) && clean_cut_of(w.core, *n) == 0) ||
            clean_is_needed(w.core, *n) || waiting_has(w.core, *n) ||
            (plan->waits && waiting_is_full(w.core))) /* it would be emptied again and again */
            rc = KIST_MISS;
    }
    write_end(&w);
    return rc < 0 ? err_os(rc, h->bank->name, NULL, "list the segments") : rc;
}

/* Once over all segments. *full: one found no room to move to; *any: another
 * gave some back. */
static int compact_once(kist_bank *h, const struct plan *plan, uint64_t *done, int *full, bool *any,
                        kist_progress progress, void *arg)
{
    uint64_t bytes = 0;
    int rc = KIST_OK;

    for (uint64_t n = plan->first; rc == KIST_OK; n++) {
        struct cleaning cl = { .handle = h };

        rc = look_at(h, plan, &n, &bytes);
        if (rc == KIST_MISS) {
            rc = KIST_OK;
            continue;
        }
        if (rc == KIST_END)
            return KIST_OK;
        cl.n = n;
        if (rc == KIST_OK)
            rc = clean_segment(&cl);
        if (is_full(rc)) {
            *full = rc;
            rc = KIST_OK;
            continue;
        }
        *any |= cl.gone; /* ⚑ a damaged one that stays would be "cleaned" for ever */
        *done += bytes;
        if (rc == KIST_OK && progress)
            rc = progress(*done < plan->bytes ? *done : plan->bytes, plan->bytes, arg);
    }
    return rc;
}

/* ---- the order of keys ------------------------------------------------ */

struct arranging {
    kist_bank *handle;
    uint64_t last; /* segments up to here are emptied */
    struct cleaning cl;
    uint8_t *key; /* that was met last */
    size_t key_len, key_room;
    bool begun;
    uint64_t skip; /* entries behind it that can't be read */
};

static int remember(struct arranging *a, const struct record *r)
{
    if (r->key_len >= a->key_room) {
        uint8_t *p = os_resize(a->key, r->key_len + 64u);

        if (!p)
            return KIST_ENOMEM;
        a->key = p;
        a->key_room = r->key_len + 64u;
    }
    memcpy(a->key, record_key(r), r->key_len);
    a->key_len = r->key_len;
    a->begun = true;
    a->skip = 0;
    return KIST_OK;
}

/* ⚑ In a forged tree steps may go in circles (I5). */
static bool goes_on(const struct arranging *a, const struct record *r)
{
    size_t len = r->key_len < a->key_len ? r->key_len : a->key_len;
    int c = a->begun && len > 0 ? memcmp(record_key(r), a->key, len) : 0;

    return !a->begun || c > 0 || (c == 0 && r->key_len > a->key_len);
}

/* To the first entry behind the last key, and behind those that can't be read. KIST_OK,
 * KIST_END, or an error. */
static int find_next(struct arranging *a, struct core *c, struct ordered_spot *at)
{
    struct index_owner o = core_owner(c);
    int rc = core_refresh_index(c, UINT64_MAX); /* another process may have grown it */

    if (rc < 0)
        return rc;
    rc = a->begun ? ordered_find(index_ordered(core_index(c)), &o,
                                 (kist_bytes){ a->key, a->key_len }, ORDERED_GT, at)
                  : ordered_first(index_ordered(core_index(c)), at);
    for (uint64_t i = 0; i < a->skip && rc == KIST_OK; i++)
        rc = ordered_next(index_ordered(core_index(c)), at);
    return rc == KIST_OK || rc < 0 ? rc
           : rc == KIST_MISS || rc == KIST_END ? KIST_END
                                               : bank_index_damaged(c->bank);
}

/* The entry at `at`: moved, if it lies in the plan. */
static int arrange_one(struct arranging *a, struct writer *w, struct state *s,
                       const struct ordered_spot *at)
{
    uint64_t place;
    const struct record *r =
        core_record(w->core, ordered_loc(index_ordered(core_index(w->core)), at), NULL, &place);
    int rc;

    if (!r) /* damaged: it stays where it is. An entry takes eight bytes and more (I5) */
        return ++a->skip < index_len(core_index(w->core)) / 8
                   ? KIST_OK
                   : bank_index_damaged(w->core->bank);
    if (!goes_on(a, r))
        return bank_index_damaged(w->core->bank);
    rc = remember(a, r);
    if (rc != KIST_OK || place_n(place) > a->last || record_kind(r) != RECORD_PUT)
        return rc;
    return clean_move(w, &a->cl, s, r, place);
}

/* One group, under the lock. KIST_END: that was the last. */
static int arrange_group(struct arranging *a)
{
    struct ordered_spot at;
    struct state next;
    struct writer w;
    uint64_t before = a->cl.moved;
    int rc = write_begin(&w, a->handle, 0);

    if (rc < 0)
        return rc;
    next = w.state;
    rc = find_next(a, w.core, &at);
    for (int i = 0; rc == KIST_OK && i < GROUP_RECORDS && a->cl.moved - before < GROUP_BYTES;
         i++) {
        rc = arrange_one(a, &w, &next, &at);
        if (rc == KIST_OK)
            rc = ordered_next(index_ordered(core_index(w.core)), &at);
    }
    core_step(w.core, &next); /* also what came before a failure */
    write_end(&w);
    return rc <= KIST_OK || rc == KIST_END ? rc : bank_index_damaged(a->handle->bank);
}

/* All is in order, if nothing came meanwhile. */
static int note_arranged(kist_bank *h, const struct plan *plan)
{
    struct writer w;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    if (w.state.visible == plan->visible)
        shm_store(&w.core->live->arranged, plan->visible + 1);
    write_end(&w);
    return KIST_OK;
}

static int arrange(kist_bank *h, const struct plan *plan, uint64_t *done, kist_progress progress,
                   void *arg)
{
    struct arranging a = { .handle = h, .last = plan->last, .cl = { .handle = h, .arranges = true } };
    int rc;

    do {
        rc = arrange_group(&a);
        *done = a.cl.moved;
        if (rc == KIST_OK && progress)
            rc = progress(*done < plan->bytes ? *done : plan->bytes, plan->bytes, arg);
    } while (rc == KIST_OK);
    os_free(a.key);
    if (is_full(rc)) /* the rest is left in the order in which it lies */
        return KIST_OK;
    return rc == KIST_END ? note_arranged(h, plan) : rc;
}

/* ---- accounts ---------------------------------------------------------- */

/* No segment has dead records, by its account. */
static int nothing_is_dead(struct core *c, bool *holds)
{
    uint64_t n = shm_peek(&c->live->oldest), newest = core_newest(c);
    int rc;

    *holds = true;
    for (;; n++) {
        const struct live_segment *e;

        rc = bank_next_segment(c->bank, &n, newest);
        if (rc != KIST_OK)
            return rc == KIST_END ? KIST_OK : rc;
        e = ring_entry(c, n);
        *holds = *holds && e && shm_peek(&e->used) == shm_peek(&e->live);
    }
}

/* A writer that was killed between a record and its account left the sum of all too
 * high for good. Where no segment has anything dead, nothing is. */
static int settle_accounts(kist_bank *h)
{
    struct writer w;
    bool holds;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    rc = w.state.used == w.state.live ? KIST_OK : nothing_is_dead(w.core, &holds);
    if (rc == KIST_OK && w.state.used != w.state.live && holds) {
        w.state.used = w.state.live;
        core_step(w.core, &w.state);
    }
    write_end(&w);
    return rc < 0 ? err_os(rc, h->bank->name, NULL, "list the segments") : KIST_OK;
}

int kist_compact(kist_bank *h, kist_progress progress, void *arg)
{
    struct plan plan = { 0 };
    uint64_t done = 0;
    int full, rc = make_plan(h, &plan);
    bool any = true;

    if (rc == KIST_OK && plan.arrange)
        rc = arrange(h, &plan, &done, progress, arg);
    for (full = KIST_OK; rc == KIST_OK && any;) {
        any = false;
        full = KIST_OK;
        rc = compact_once(h, &plan, &done, &full, &any, progress, arg);
        if (full == KIST_OK) /* on a full disk: again, with what came back */
            break;
    }
    if (rc == KIST_OK && full == KIST_OK)
        rc = settle_accounts(h);
    return rc == KIST_OK && !any ? full : rc;
}
