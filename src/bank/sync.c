/*
 * sync.c - one process syncs for all (I6).
 *
 *     syncing = my seat       by compare-and-swap; others wait
 *     append a mark           it names what the sync before made durable
 *     fdatasync               each segment changed since; their names were
 *                             synced when they were made
 *     durable = the tail      as it was when the mark was written, or
 *     poison = errno          for every process, until a repair
 *     syncing = 0             and wake who waits
 *
 * A `syncing` left by a dead seat counts as a sync that failed, since the
 * kernel tells of an error once and the dead one may have heard it. What it
 * may have lost is still whole in the page cache, but marked as written: so
 * the next one writes the same bytes again, which makes the kernel write them
 * again, and only then syncs. If they are not whole any more, that is poison.
 *
 * ⚑ What keeps a sync from beginning (no descriptor is left, say) is no failed
 * sync: nothing that was to be written is lost. It is the caller's error
 * alone, and the next one tries again. Poison is what the kernel says of bytes:
 * an error of fdatasync or of writing them, as sync_failed() hears of it.
 */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>

static int poisoned(struct core *c)
{
    return bank_err(c->bank, KIST_EPOISON, NULL, ERR_NOWHERE,
                    "bank '%s': a sync failed (errno %llu); it is read-only until 'kist repair'",
                    c->bank->name, (unsigned long long)shm_peek(&c->live->poison));
}

int sync_failed(struct core *c, int rc)
{
    shm_publish(&c->live->poison, (uint64_t)-rc);
    bank_log(c->bank, KIST_LOG_DAMAGE, NULL, ERR_NOWHERE,
             "bank '%s': a sync failed: %s; it is read-only until 'kist repair'", c->bank->name,
             kist_strerror(rc));
    return poisoned(c);
}

/* -ENOENT: there is none. */
static int open_segment(const struct core *c, uint64_t n)
{
    char name[SEGMENT_NAME_MAX];
    int fd;

    segment_name(name, n);
    fd = bank_open_unasked(c->bank, name, OS_READ | OS_WRITE);
    return fd >= 0 || fd == -ENOENT ? fd : err_os(fd, c->bank->name, name, "open a segment to sync");
}

static int skip_gap(const struct core *c, uint64_t *n, uint64_t last)
{
    int rc = bank_skip_gap(c->bank, n, last);

    return rc < 0 ? err_os(rc, c->bank->name, NULL, "list the segments") : rc;
}

/* ---- what a dead one may have lost ------------------------------------ */

static uint64_t from_in(uint64_t from, uint64_t n)
{
    return place_n(from) == n ? place_offset(from) : 0;
}

/* Does nothing lie between `end` and the tail? So it is when the writer that died
 * had begun a new segment, and got no further. KIST_OK, or as below. */
static int ends_before(struct core *c, uint64_t end, uint64_t tail)
{
    struct segment *s = NULL;
    int rc = place_offset(tail) == SEGMENT_FIRST_RECORD ? core_map_segment(c, place_n(tail), &s)
                                                        : KIST_ECORRUPT;

    if (rc < 0)
        return rc == -ENOENT ? KIST_ECORRUPT : rc;
    if (s->header.predecessor != place_n(end) || s->header.cut16 != 0)
        return KIST_ECORRUPT;
    rc = core_map_segment(c, place_n(end), &s);
    if (rc == KIST_OK && !place_is_full(place_offset(end), s->len))
        rc = KIST_ECORRUPT;
    return rc == -ENOENT ? KIST_OK : rc; /* it was cleaned */
}

/* KIST_OK; KIST_ECORRUPT: it is not; or why that can't be told. */
static int still_whole(struct core *c, uint64_t from, uint64_t tail)
{
    struct walk w = { .core = c, .at = from, .newest = place_n(tail), .end = from };
    const struct record *r;
    uint64_t place;
    int rc;

    while ((rc = walk_next(&w, &r, &place)) == KIST_OK && w.end < tail)
        ;
    if (rc < 0)
        return rc;
    return w.end >= tail ? KIST_OK : ends_before(c, w.end, tail);
}

/* Write the bytes from `from` to `to` of segment N once more, as they are. */
static int write_again(struct core *c, uint64_t n, uint64_t from, uint64_t to)
{
    struct segment *s = core_segment(c, n);
    int fd, rc = 0;

    if (!s)
        rc = core_map_segment(c, n, &s);
    if (rc < 0)
        return rc;
    if (to == 0 || to > s->len)
        to = s->len;
    fd = open_segment(c, n);
    if (fd < 0)
        return fd;
    if (from < to)
        rc = os_write_all(fd, s->base + from, (size_t)(to - from), from);
    (void)os_close(fd);
    return rc < 0 ? sync_failed(c, rc) : 0;
}

static int dirty_again(struct core *c, uint64_t from, uint64_t tail)
{
    int rc = still_whole(c, from ? from : place_make(shm_peek(&c->live->oldest), 0), tail);

    if (rc == KIST_ECORRUPT)
        return sync_failed(c, -EIO);
    for (uint64_t n = place_n(from) ? place_n(from) : shm_peek(&c->live->oldest);
         n <= place_n(tail) && rc == 0; n++) {
        rc = write_again(c, n, from_in(from, n), n == place_n(tail) ? place_offset(tail) : 0);
        if (rc == -ENOENT) /* cleaned, or never used */
            rc = skip_gap(c, &n, place_n(tail));
    }
    return rc;
}

/* ---- the syncs themselves --------------------------------------------- */

static int sync_segment(struct core *c, uint64_t n)
{
    int fd = open_segment(c, n), rc;

    if (fd < 0)
        return fd;
    rc = os_fdatasync(fd);
    (void)os_close(fd);
    return rc < 0 ? sync_failed(c, rc) : 0;
}

/* KIST_EPOISON, or another error: then it can be tried again. */
static int sync_files(struct core *c, uint64_t from, uint64_t tail)
{
    uint64_t n = place_n(from) ? place_n(from) : shm_peek(&c->live->oldest);
    int rc = 0;

    for (; n <= place_n(tail) && rc == 0; n++) {
        rc = sync_segment(c, n);
        if (rc == -ENOENT)
            rc = skip_gap(c, &n, place_n(tail));
    }
    return rc;
}

/* Note what is durable now, and let go of `syncing`; `next`: what it says then. */
static void done(struct core *c, uint64_t tail, uint64_t next)
{
    if (tail > shm_peek(&c->live->durable))
        shm_publish(&c->live->durable, tail); /* pairs with sync_to() */
    (void)shm_add(&c->live->synced, 1);
    shm_publish(&c->live->syncing, next);
    (void)os_wake((uint32_t *)(void *)&c->live->synced);
}

/* Holding `syncing`. `dead`: the seat that held it before and died, or 0. */
static int lead(kist_bank *h, struct core *c, uint64_t dead)
{
    struct writer w;
    uint64_t from, tail;
    int rc = write_begin(&w, h, 0);

    if (rc == KIST_OK && w.core != c) /* rebuilt meanwhile: start over there */
        write_end(&w);
    if (rc < 0 || w.core != c) {
        done(c, 0, dead); /* ⚑ nothing was synced: what the dead one left is left */
        return rc;
    }
    from = shm_peek(&c->live->durable);
    if (w.state.tail != from) {
        rc = append_mark(c, &w.state, from);
        if (rc == KIST_OK)
            core_step(c, &w.state);
        else if (rc == KIST_EFULL || rc == KIST_EQUOTA || rc == KIST_EFILESIZE)
            rc = KIST_OK; /* a mark only makes a later recovery surer */
    }
    tail = w.state.tail;
    write_end(&w);
    if (rc == KIST_OK && dead)
        rc = dirty_again(c, from, tail);
    if (rc == KIST_OK)
        rc = sync_files(c, from, tail);
    /* ⚑ Not begun, or not all of it: what the dead one left is left. */
    done(c, rc < 0 ? 0 : tail, rc < 0 && rc != KIST_EPOISON ? dead : 0);
    return rc;
}

/* Wait for whoever syncs. *dead: its seat, if it died. */
static int follow(kist_bank *h, struct core *c, uint64_t holder, int64_t deadline)
{
    uint64_t seen = shm_read(&c->live->synced);

    if (shm_peek(&c->live->syncing) != holder)
        return KIST_OK;
    if (deadline != INT64_MAX && deadline_left(deadline, WAIT_MS) == 0)
        return bank_err(h->bank, KIST_EBUSY, NULL, ERR_NOWHERE,
                        "bank '%s': another process's sync lasted past the deadline",
                        h->bank->name);
    (void)os_wait((uint32_t *)(void *)&c->live->synced, (uint32_t)seen,
                  deadline_left(deadline, WAIT_MS));
    return KIST_OK;
}

static int sync_loop(kist_bank *h, uint64_t place)
{
    int64_t deadline = deadline_after(h->deadline_ms);
    struct core *c;
    int rc;

    for (;;) {
        uint64_t holder = 0;

        rc = core_enter(h, &c);
        if (rc < 0)
            return rc;
        if (shm_read(&c->live->poison) != 0) /* looked at first: it is final */
            return poisoned(c);
        if (shm_read(&c->live->durable) >= place) /* pairs with done() */
            return KIST_OK;
        if (shm_cas(&c->live->syncing, &holder, c->seat.number))
            rc = lead(h, c, 0);
        else if (holder != c->seat.number && seat_lives(c->lock_fd, holder) == 0 &&
                 shm_cas(&c->live->syncing, &holder, c->seat.number))
            rc = lead(h, c, holder); /* ⚑ the dead one's counts as failed */
        else
            rc = follow(h, c, holder, deadline);
        if (rc < 0)
            return rc;
    }
}

int sync_to(kist_bank *h, uint64_t place)
{
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    atomic_fetch_add_explicit(&h->bank->syncing, 1, memory_order_acq_rel);
    rc = sync_loop(h, place);
    atomic_fetch_sub_explicit(&h->bank->syncing, 1, memory_order_acq_rel);
    kist_read_end();
    return rc;
}

int kist_sync(kist_bank *h)
{
    struct core *c;
    struct state s;
    int rc;

    if (h->readonly && *h->bank->env->forked && !atomic_load_explicit(&h->bank->closed, memory_order_acquire))
        return bank_err(h->bank, KIST_EREADONLY, NULL, ERR_NOWHERE,
                        "bank '%s' was opened read-only", h->bank->name);
    rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = core_enter(h, &c);
    if (rc == KIST_OK && !live_state(c->live, &s))
        rc = bank_err(h->bank, KIST_ECORRUPT, LIVE_FILE, 0,
                      "bank '%s': kist.live is damaged; run 'kist repair'", h->bank->name);
    kist_read_end();
    return rc < 0 ? rc : sync_to(h, s.tail);
}

/* ⚑ An index that was not written, and whose pages the kernel calls clean, must
 * never be marked clean: so its failed sync is as final as any. */
int kist_save_index(kist_bank *h)
{
    struct core *c;
    int rc = kist_sync(h);

    if (rc == KIST_OK)
        rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = core_enter(h, &c);
    if (rc == KIST_OK) {
        rc = index_file_sync(core_index(c));
        rc = rc < 0 ? sync_failed(c, rc) : KIST_OK;
    }
    kist_read_end();
    return rc;
}

/* A mark names only what the sync before it made durable. Where files are to
 * go for good, a second one vouches for what replaces them: else damage to a
 * record of the last sync would pass for a torn tail, and take it along. */
int sync_vouched(kist_bank *h)
{
    struct writer w;
    int rc = kist_sync(h);

    if (rc == KIST_OK)
        rc = write_begin(&w, h, 0);
    if (rc < 0)
        return rc;
    rc = append_mark(w.core, &w.state, shm_peek(&w.core->live->durable));
    if (rc == KIST_OK)
        core_step(w.core, &w.state);
    write_end(&w);
    return rc == KIST_OK ? kist_sync(h) : rc;
}

/* For a close while others have the bank open: after it nothing of ours holds
 * the segments, and what the kernel may have to tell of them (see poison). If
 * somebody is syncing, that is his to hear. When it can't be done, `syncing` is
 * left as by one who died in it: the next one writes the same bytes again. */
int sync_before_leaving(struct core *c)
{
    uint64_t from = shm_peek(&c->live->durable), nobody = 0;
    struct state s;
    int rc;

    if (shm_peek(&c->live->poison) != 0 || !live_state(c->live, &s) || s.tail <= from ||
        !shm_cas(&c->live->syncing, &nobody, c->seat.number))
        return KIST_OK;
    rc = sync_files(c, from, s.tail);
    done(c, rc < 0 ? 0 : s.tail, rc < 0 && rc != KIST_EPOISON ? c->seat.number : 0);
    return rc;
}

/* For a close: nobody else is there, and the recovery lock is held. Twice, so
 * that the mark may name its own start: all before it is durable by then. When
 * it can't be done, `syncing` is left, see above. */
int sync_alone(struct core *c, struct state *s)
{
    uint64_t from = shm_peek(&c->live->durable);
    bool again = shm_swap(&c->live->syncing, c->seat.number) != 0; /* by a dead one */
    int rc = again ? dirty_again(c, from, s->tail) : 0;

    if (rc == 0)
        rc = sync_files(c, from, s->tail);
    if (rc < 0)
        return rc;
    rc = append_room(c, s, RECORD_MIN, APPEND_LAST);
    if (rc == 0)
        rc = append_mark(c, s, s->tail);
    if (rc < 0) { /* a full disk: then the next open repairs */
        shm_publish(&c->live->syncing, 0);
        return rc;
    }
    core_step(c, s);
    rc = sync_files(c, from, s->tail);
    if (rc < 0)
        return rc;
    shm_publish(&c->live->durable, s->tail);
    shm_publish(&c->live->syncing, 0);
    return KIST_OK;
}
