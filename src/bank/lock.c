/*
 * lock.c - one writer at a time (I8): a mutex for the threads of a process,
 * then the lock word for the processes.
 *
 * The word holds the seat of the holder. Who waits sets its lowest bit, sleeps
 * at most WAIT_MS, and asks whether that seat lives. A dead holder's word is
 * taken by exchanging it for one's own: of several who try one succeeds, and
 * it repairs before it goes on.
 *
 * tests/model/handover.pml has the steps that comments name: (model: L1).
 */
#include "bank/core.h"

#include "base/err.h"

enum { SPINS = 200 };

int64_t deadline_after(int32_t ms)
{
    return ms < 0 ? INT64_MAX : os_clock(OS_CLOCK_MONOTONIC) + (int64_t)ms * 1000000;
}

int deadline_left(int64_t deadline, int most)
{
    int64_t left;

    if (deadline == INT64_MAX)
        return most;
    left = (deadline - os_clock(OS_CLOCK_MONOTONIC)) / 1000000;
    return left < 0 ? 0 : left < most ? (int)left : most;
}

static bool past(int64_t deadline)
{
    return deadline != INT64_MAX && os_clock(OS_CLOCK_MONOTONIC) >= deadline;
}

/* Sleep until the word is no longer `held`, or WAIT_MS. */
static void wait_for_word(struct core *c, uint64_t held, int64_t deadline)
{
    if (!(held & 1) && !shm_cas(&c->live->lock, &held, held | 1))
        return; /* it changed */
    (void)os_wait((uint32_t *)(void *)&c->live->lock, (uint32_t)(held | 1),
                  deadline_left(deadline, WAIT_MS));
}

static int take_over(struct core *c, uint64_t held)
{
    if (!shm_cas(&c->live->lock, &held, c->seat.number << 1 | 1)) /* (model: L3) */
        return KIST_EBUSY; /* somebody else was first */
    if (shm_peek(c->retired) == 0)
        return KIST_OK;
    lock_leave(c); /* it died in a rebuild: what it left is no bank any more */
    return KIST_EGONE;
}

int lock_take_as_is(struct core *c, int32_t ms, uint64_t *dead)
{
    uint64_t mine = c->seat.number << 1, held = 0;
    int64_t deadline;

    *dead = 0;
    for (int i = 0; i < SPINS; i++) {
        held = 0;
        if (shm_cas(&c->live->lock, &held, mine)) /* acquire: with lock_leave() (model: L1) */
            return KIST_OK;
    }
    deadline = deadline_after(ms);
    for (;;) {
        held = 0;
        /* Others may wait too: keep their bit, or nobody wakes them. */
        if (shm_cas(&c->live->lock, &held, mine | 1))
            return KIST_OK;
        if (shm_peek(c->retired) != 0)
            return KIST_EGONE; /* told by the caller after a look */
        if (seat_lives(c->lock_fd, held >> 1) == 0) { /* (model: L2) */
            int rc = take_over(c, held);

            if (rc == KIST_EBUSY)
                continue;
            *dead = rc == KIST_OK ? held >> 1 : 0;
            return rc;
        }
        if (past(deadline))
            return bank_err(c->bank, KIST_EBUSY, NULL, ERR_NOWHERE,
                            "bank '%s': another writer kept it until the deadline", c->bank->name);
        wait_for_word(c, held, deadline);
    }
}

int lock_take(struct core *c, int32_t ms)
{
    uint64_t dead;
    int rc = lock_take_as_is(c, ms, &dead);

    if (rc < 0 || dead == 0)
        return rc;
    bank_log(c->bank, KIST_LOG_INFO, LIVE_FILE, ERR_NOWHERE,
             "a writer died holding bank '%s'; repairing what it left", c->bank->name);
    rc = repair(c);
    if (rc < 0)
        lock_give_back(c, dead); /* ⚑ nobody goes on by what is half repaired (model: L5) */
    return rc;
}

void lock_give_back(struct core *c, uint64_t dead)
{
    /* release: pairs with the acquire in lock_take_as_is() */
    if (shm_swap(&c->live->lock, dead << 1) & 1)
        (void)os_wake((uint32_t *)(void *)&c->live->lock);
}

void lock_leave(struct core *c)
{
    lock_give_back(c, 0); /* (model: L4) */
}

/* ---- a writer's frame -------------------------------------------------- */

/* L3: `clean` goes, and that it went is on the disk, before the first store
 * into the index or the heap. Repeated by the next one if it is cut off. */
static int make_dirty(struct core *c)
{
    int fd, rc;

    if (shm_peek(&c->live->dirty) == 1)
        return 0;
    shm_store(&c->live->clean, 0);
    fd = bank_open_file(c->bank, LIVE_FILE, OS_READ | OS_WRITE);
    rc = fd < 0 ? fd : os_fdatasync(fd);
    if (fd >= 0)
        (void)os_close(fd);
    if (rc < 0)
        return err_os(rc, c->bank->name, LIVE_FILE, "sync that the bank is in use");
    shm_store(&c->live->dirty, 1);
    return 0;
}

void core_step(struct core *c, struct state *s)
{
    live_step(c->live, s);
    c->state = *s;
    c->step = shm_peek(&c->live->step);
}

bool core_state(struct core *c, struct state *out)
{
    if (c->step == 0 || c->step != shm_peek(&c->live->step)) {
        if (!live_state(c->live, &c->state))
            return false;
        c->step = shm_peek(&c->live->step);
    }
    *out = c->state;
    return true;
}

/* Under the lock word: is this still the bank, and may it be written? */
static int ready(struct writer *w, int flags)
{
    struct core *c = w->core;
    int rc;

    if (shm_peek(&c->live->poison) != 0 && !(flags & WRITE_POISONED))
        return bank_err(c->bank, KIST_EPOISON, NULL, ERR_NOWHERE,
                        "bank '%s': a sync failed; it is read-only until 'kist repair'",
                        c->bank->name);
    rc = make_dirty(c);
    if (rc < 0)
        return rc;
    if (!core_state(c, &w->state)) /* (model: W1) */
        return bank_err(c->bank, KIST_ECORRUPT, LIVE_FILE, 0,
                        "bank '%s': kist.live is damaged; run 'kist repair'", c->bank->name);
    rc = append_ready(c, &w->state);
    if (rc == 0 && core_index(c)->generation != shm_peek(&c->live->generation))
        rc = core_follow_index(c, false);
    return rc;
}

static int begin_locked(struct writer *w, int flags)
{
    int rc;

    for (int i = 0; i < READ_TRIES; i++) {
        rc = core_enter(w->handle, &w->core);
        if (rc < 0)
            return rc;
        rc = lock_take(w->core, w->handle->deadline_ms);
        if (rc < 0 && rc != KIST_EGONE)
            return rc;
        if (rc == KIST_OK && shm_peek(w->core->retired) == 0) {
            rc = ready(w, flags);
            if (rc < 0)
                lock_leave(w->core);
            return rc;
        }
        if (rc == KIST_OK) /* retired while we waited: enter anew */
            lock_leave(w->core);
        /* Who retired it may have died before `change` told of it. */
        atomic_store_explicit(&w->core->stamp, 0, memory_order_relaxed);
    }
    return bank_err(w->handle->bank, KIST_EGONE, NULL, ERR_NOWHERE, "bank '%s' was dropped",
                    w->handle->bank->name);
}

int write_begin(struct writer *w, kist_bank *h, int flags)
{
    int rc;

    *w = (struct writer){ .handle = h };
    if (!*h->bank->env->forked || atomic_load_explicit(&h->bank->closed, memory_order_acquire))
        return core_enter_slow(h, &w->core); /* says which */
    if (h->readonly)
        return bank_err(h->bank, KIST_EREADONLY, NULL, ERR_NOWHERE,
                        "bank '%s' was opened read-only", h->bank->name);
    if (os_mutex_lock_for(&h->bank->writing, h->deadline_ms) < 0)
        return bank_err(h->bank, KIST_EBUSY, NULL, ERR_NOWHERE,
                        "bank '%s': another thread kept it until the deadline", h->bank->name);
    rc = kist_read_begin();
    if (rc == KIST_OK) {
        rc = begin_locked(w, flags);
        if (rc < 0)
            kist_read_end();
    }
    if (rc < 0)
        os_mutex_unlock(&h->bank->writing);
    return rc;
}

void write_end(struct writer *w)
{
    lock_leave(w->core);
    kist_read_end();
    os_mutex_unlock(&w->handle->bank->writing);
}

void write_undo(struct writer *w)
{
    /* ⚑ If it can't be undone now, nobody goes on by it: whoever writes next repairs. */
    lock_give_back(w->core, repair(w->core) < 0 ? SEAT_NOBODY : 0);
    kist_read_end();
    os_mutex_unlock(&w->handle->bank->writing);
}
