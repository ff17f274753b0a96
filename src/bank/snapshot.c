/* snapshot.c - taking and holding moments of a bank, see snapshot.h. */
#include "bank/snapshot.h"

#include "bank/core.h"
#include "base/err.h"

#include <errno.h>

enum { SPINS = 100 };

/* ---- the pin ---------------------------------------------------------- */

/* Lock byte `at` (model: T2), and only then let go of what was locked before
 * (model: T5). -ENOENT: there is no lock file. Under the pins' lock. */
static int pin_at(struct bank *b, uint64_t at)
{
    struct pins *p = &b->pins;
    int fd, rc;

    thread_hold_forks();
    fd = bank_open_file(b, LOCK_FILE, OS_READ);
    rc = fd < 0 ? fd : seat_pin(&p->pin[!p->which], fd, at);
    thread_allow_forks();
    if (rc < 0)
        return rc;
    seat_leave(&p->pin[p->which]);
    p->which = !p->which;
    p->at = at;
    return 0;
}

static void list_add(struct pins *p, struct snapshot *snap)
{
    struct snapshot *older = p->newest;

    while (older && older->at > snap->at)
        older = older->older;
    snap->older = older;
    snap->newer = older ? older->newer : p->oldest;
    *(snap->older ? &snap->older->newer : &p->oldest) = snap;
    *(snap->newer ? &snap->newer->older : &p->newest) = snap;
    p->count++;
}

static void list_remove(struct pins *p, struct snapshot *snap)
{
    *(snap->older ? &snap->older->newer : &p->oldest) = snap->newer;
    *(snap->newer ? &snap->newer->older : &p->newest) = snap->older;
    p->count--;
}

int pins_lowest(const struct core *c, uint64_t below, uint64_t *lowest)
{
    int rc = c->lock_fd < 0 ? 0 : seat_lowest_pin(c->lock_fd, below, lowest);

    if (c->lock_fd < 0)
        *lowest = below;
    return rc < 0 ? err_os(rc, c->bank->name, LOCK_FILE, "ask for snapshots") : KIST_OK;
}

int pins_horizon(struct core *c, const struct state *s, uint64_t *horizon)
{
    uint64_t before = shm_peek(&c->live->horizon), to = s->visible;
    int rc;

    shm_store(&c->live->horizon, to > before ? to : before); /* (model: C1) */
    shm_fence();                                             /* (model: C2) */
    rc = pins_lowest(c, to, &to);                            /* (model: C3) */
    if (rc < 0) {
        shm_store(&c->live->horizon, before); /* nothing goes */
        return rc;
    }
    /* ⚑ Not below where it was: that pin may be of a taker who is about to start over. */
    shm_publish(&c->live->horizon, to > before ? to : before); /* (model: C4) */
    *horizon = to;
    return KIST_OK;
}

/* ---- moments ---------------------------------------------------------- */

/* A clear or replace publishes its index right before its step: which side of the index is
 * this one on, and what does the state have to be? 1: look again. ⚑ That step is still to
 * come when all was read: the next replacement says what comes before its index is there. */
static int look_within(struct core *c, struct state *s, const struct index_file *ix,
                       uint64_t cleared)
{
    struct live *l = c->live;
    uint64_t visible = s->visible;

    if (ix->generation < shm_read(&l->cleared_by)) /* before it, unless another one came since */
        return live_state(l, s) && s->visible == visible ? KIST_OK : 1;
    return live_next_state(l, s, s) && s->visible >= cleared &&
                   shm_read(&l->generation) == ix->generation
               ? KIST_OK
               : 1;
}

/* One look. 1: look again. */
static int look(struct core *c, struct state *s, struct index_file **ix)
{
    uint64_t cleared;
    int rc;

    *ix = core_index(c);
    if (!live_state(c->live, s))
        return bank_err(c->bank, KIST_ECORRUPT, LIVE_FILE, 0,
                        "bank '%s': kist.live is damaged; run 'kist repair'", c->bank->name);
    atomic_thread_fence(memory_order_acquire); /* the state, then what shows that it fits */
    if ((*ix)->generation != shm_read(&c->live->generation)) {
        rc = core_follow_index(c, false);
        return rc < 0 ? rc : 1;
    }
    cleared = shm_read(&c->live->cleared);
    return cleared > s->visible ? look_within(c, s, *ix, cleared) : KIST_OK;
}

int snapshot_moment(kist_bank *h, struct core *c, struct state *s, struct index_file **ix)
{
    int64_t deadline = deadline_after(h->deadline_ms);
    int rc = 1;

    for (int i = 0; (rc = look(c, s, ix)) == 1; i++) {
        if (i < SPINS)
            continue;
        if (deadline_left(deadline, 1) == 0)
            return bank_err(c->bank, KIST_EBUSY, LIVE_FILE, ERR_NOWHERE,
                            "bank '%s': a writer died while it replaced the content, and another "
                            "while it finished that; the next write does, or 'kist compact'",
                            c->bank->name);
        (void)os_sleep(1);
    }
    return rc;
}

/* ---- holding ---------------------------------------------------------- */

/* Pin it, unless a pin of this process covers S already. 1: the horizon passed. */
static int cover(struct core *c, struct snapshot *snap)
{
    struct pins *p = &c->bank->pins;
    /* not by what is locked alone: that may be lower, and nothing of it kept */
    bool covered = p->count > 0 && p->oldest->at <= snap->at && p->pin[p->which].map;
    int rc = covered ? 0 : pin_at(c->bank, snap->at);

    if (rc == -ENOENT && c->is_private) { /* nobody ever wrote here: no pin is asked for */
        snap->unkept = true;
        return KIST_OK;
    }
    if (rc < 0)
        return err_os(rc, c->bank->name, LOCK_FILE, "pin a snapshot");
    shm_fence(); /* (model: T3) */
    return !covered && shm_read(&c->live->horizon) > snap->at ? 1 : KIST_OK; /* (model: T4) */
}

/* Nobody needs what was locked below the oldest. */
static void uncover(struct bank *b)
{
    struct pins *p = &b->pins;

    if (p->count == 0)
        seat_leave(&p->pin[p->which]);
    else if (p->oldest->at > p->at && !p->oldest->unkept)
        (void)pin_at(b, p->oldest->at); /* else it stays lower: that keeps more */
}

int snapshot_hold(struct core *c, const struct state *s, struct index_file *ix,
                  struct snapshot **out)
{
    struct pins *p = &c->bank->pins;
    struct snapshot *snap = os_alloc(sizeof *snap);
    int rc;

    if (!snap)
        return KIST_ENOMEM;
    *snap = (struct snapshot){
        .bank = c->bank,
        .at = s->visible,
        .state = *s,
        .index = ix,
        .taken_ns = os_clock(OS_CLOCK_REAL_COARSE),
    };
    os_mutex_lock(&p->lock);
    rc = cover(c, snap);
    if (rc == KIST_OK && !core_was_right(c))
        rc = 1; /* rebuilt, or dropped: what was locked may be another's file */
    if (rc == KIST_OK)
        list_add(p, snap);
    else
        uncover(c->bank);
    os_mutex_unlock(&p->lock);
    if (rc != KIST_OK) {
        os_free(snap);
        return rc;
    }
    index_hold(ix);
    *out = snap;
    return KIST_OK;
}

int snapshot_take(kist_bank *h, struct snapshot **out)
{
    struct index_file *ix;
    struct core *c;
    struct state s;
    int rc = 1;

    for (int i = 0; i < READ_TRIES && rc == 1; i++) {
        rc = kist_read_begin();
        if (rc < 0)
            return rc;
        rc = core_enter(h, &c);
        if (rc == KIST_OK)
            rc = snapshot_moment(h, c, &s, &ix);
        if (rc == KIST_OK)
            rc = snapshot_hold(c, &s, ix, out);
        kist_read_end();
    }
    return rc == 1 ? bank_err(h->bank, KIST_EBUSY, NULL, ERR_NOWHERE,
                              "bank '%s' is being recovered or cleaned by others; try again",
                              h->bank->name)
                   : rc;
}

int snapshot_share(const struct snapshot *of, struct snapshot **out)
{
    struct snapshot *snap = os_alloc(sizeof *snap);

    if (!snap)
        return KIST_ENOMEM;
    *snap = *of;
    os_mutex_lock(&of->bank->pins.lock);
    list_add(&of->bank->pins, snap);
    os_mutex_unlock(&of->bank->pins.lock);
    index_hold(snap->index);
    *out = snap;
    return KIST_OK;
}

void snapshot_release(struct snapshot *snap)
{
    struct bank *b;

    if (!snap)
        return;
    b = snap->bank;
    if (*b->env->forked) { /* a child has no pins, and nobody to wait for */
        os_mutex_lock(&b->pins.lock);
        list_remove(&b->pins, snap);
        uncover(b);
        os_mutex_unlock(&b->pins.lock);
    }
    index_close(snap->index);
    os_free(snap);
}

int snapshot_check(const struct snapshot *snap, const struct core *c)
{
    if (!snap->unkept || (c->is_private && c->lock_fd < 0))
        return KIST_OK;
    return bank_err(c->bank, KIST_ELOST, NULL, ERR_NOWHERE,
                    "bank '%s' had no lock file when the snapshot was taken, and is written by "
                    "now; take another one",
                    c->bank->name);
}
