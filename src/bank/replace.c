/*
 * replace.c - a whole new content at once: clear and replace.
 *
 *     gather     the caller's entries, in a spool; no lock held
 *     append     clear, puts, all flagged as in a batch      (lock word held)
 *     build      the next index, aside
 *     commit     the record that makes the batch count
 *     publish    the index's generation, the step
 *     sync, and unlink the segments before
 *
 * A failure before the commit leaves records that count for nothing. Killed
 * behind it, repair() builds and publishes the index.
 */
#include "bank/spool.h"

#include "base/err.h"

/* ---- the next index --------------------------------------------------- */

static const struct record *fill_record(void *arg, uint64_t loc, uint64_t *place)
{
    return core_record(arg, loc, NULL, place);
}

static void fill_live(void *arg, uint64_t n, int64_t bytes)
{
    ring_add(arg, n, 0, bytes);
}

static uint64_t next_generation(const struct core *c)
{
    return shm_peek(&c->live->generation) + 1;
}

static int make_index(struct core *c, uint64_t expect, struct index_file **out)
{
    int dir = bank_open_dir(c->bank), rc;

    if (dir < 0)
        return err_os(dir, c->bank->name, NULL, "open the bank's directory");
    rc = index_create(out, c->bank->set.index, dir, c->bank->env->file_mode,
                      c->bank->set.record.id, next_generation(c), expect);
    if (rc == KIST_OK)
        rc = bank_own(c->bank, (*out)->fd);
    (void)os_close(dir);
    return rc < 0 ? err_os(rc, c->bank->name, "kist.index", "make an index") : KIST_OK;
}

/* An index of the puts between two places; counts them in *s. */
static int build_index(struct core *c, struct state *s, uint64_t first, uint64_t end,
                       uint64_t expect, struct index_file **out)
{
    struct walk w = { .core = c, .at = first, .newest = place_n(end) };
    struct index_file *ix;
    const struct record *r;
    struct fill fill;
    uint64_t place;
    int rc = make_index(c, expect, &ix);

    if (rc < 0)
        return rc;
    s->entries = s->deleted = s->payload = s->live = 0;
    ring_forget_live(c);
    fill_init(&fill, ix, s, &c->bank->set.record, fill_record, fill_live, c);
    while ((rc = walk_next(&w, &r, &place)) == KIST_OK && place < end) {
        if (record_kind(r) == RECORD_PUT)
            rc = fill_add(&fill, r, place);
        if (rc < 0)
            break;
    }
    if (rc < 0) {
        index_close(ix);
        return bank_err(c->bank, rc, "kist.index", ERR_NOWHERE, "cannot build an index: %s",
                        kist_strerror(rc));
    }
    *out = ix;
    return KIST_OK;
}

/* From here on every process looks into `ix`, and the old file goes. ⚑ The step is still to
 * come: in between `next` tells of what is in the index, see look() of snapshot.c. */
static void publish_index(struct core *c, struct index_file *ix, uint64_t cleared,
                          struct state *next)
{
    uint64_t generation = shm_peek(&c->live->generation);
    struct index_file *old;
    struct os_stat st;
    char name[INDEX_NAME_MAX];
    int dir;

    if (os_stat(ix->fd, &st) == 0)
        shm_store(&c->live->ino_index[ix->generation & 1], st.ino);
    live_prepare(c->live, next);
    if (shm_peek(&c->live->cleared) != cleared) { /* else it was said by a dead one */
        shm_store(&c->live->cleared_by, ix->generation);
        shm_publish(&c->live->cleared, cleared);
    }
    shm_publish(&c->live->generation, ix->generation);
    (void)shm_add(&c->live->change, 1); /* pairs with core_ready() */
    os_mutex_lock(&c->mapping);
    old = atomic_load_explicit(&c->index, memory_order_relaxed);
    if (old->generation == ix->generation) { /* a reader was here first */
        index_retire(ix);
    } else {
        atomic_store_explicit(&c->index, ix, memory_order_release); /* core_enter() */
        index_retire(old);
    }
    os_mutex_unlock(&c->mapping);
    dir = bank_open_dir(c->bank);
    if (dir >= 0) {
        index_name(name, generation);
        (void)os_unlink(dir, name);
        (void)os_close(dir);
    }
}

int adopt_range(struct core *c, struct state *s, uint64_t first, uint64_t end)
{
    struct walk w = { .core = c, .at = first, .newest = place_n(first) };
    const struct record *clear;
    struct index_file *ix;
    uint64_t place;
    int rc = walk_next(&w, &clear, &place);

    if (rc == KIST_OK)
        rc = build_index(c, s, first, end, 0, &ix);
    if (rc == KIST_OK)
        publish_index(c, ix, clear->sequence, s);
    return rc < 0 ? rc : KIST_OK;
}

/* ---- records of the bank's own ---------------------------------------- */

static int append_clear(struct writer *w, struct state *s, uint8_t flags, uint64_t *place)
{
    uint64_t origin = place_n(s->tail);

    s->visible++;
    return append_own(w, s, RECORD_CLEAR | flags, &origin, sizeof origin, place);
}

/* What was appended counts for nothing: step past it. */
static void abandon(struct writer *w, const struct state *next)
{
    w->state.visible = next->visible;
    w->state.tail = next->tail;
    w->state.last = next->last;
    w->state.used = next->used;
    core_step(w->core, &w->state);
}

int kist_clear(kist_bank *h)
{
    struct index_file *ix = NULL;
    struct state next;
    struct writer w;
    uint64_t place;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    next = w.state;
    rc = append_room(w.core, &next, RECORD_MIN, APPEND_DELETE);
    if (rc == KIST_OK)
        rc = build_index(w.core, &next, next.tail, next.tail, 0, &ix);
    if (rc == KIST_OK)
        rc = append_clear(&w, &next, 0, &place);
    if (rc == KIST_OK) {
        publish_index(w.core, ix, next.visible, &next);
        core_step(w.core, &next);
    } else if (ix) {
        index_close(ix);
    }
    write_end(&w);
    if (rc == KIST_OK)
        rc = sync_to(h, place + 1);
    return rc < 0 ? rc : clean_below(h, place_n(place));
}

/* ---- gathering -------------------------------------------------------- */

static int gather(kist_bank *h, struct spool *sp,
                  int (*next)(kist_bytes *key, kist_bytes *value, void *arg), void *arg)
{
    uint64_t at;
    int rc;

    for (;;) {
        kist_bytes key = { 0 }, value = { 0 };

        rc = next(&key, &value, arg);
        if (rc != 0)
            break;
        rc = spool_add(sp, RECORD_PUT, key, value, &at);
        if (rc < 0)
            return rc;
    }
    if (rc != KIST_END)
        return rc < 0 ? rc
                      : bank_err(h->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                                 "the iterator returned %d", rc);
    return KIST_OK;
}

/* ---- replacing -------------------------------------------------------- */

static int append_spooled(struct writer *w, struct state *s, const struct spool *sp,
                          const struct record *r, struct commit_body *body)
{
    struct entry e = spool_entry(r);
    uint64_t place;
    int rc;

    e.kind |= RECORD_IN_BATCH;
    e.sequence = ++s->visible;
    e.mtime_ns = spool_mtime(sp, r);
    rc = append_room(w->core, s, entry_size(&e), APPEND_PUT);
    if (rc == KIST_OK)
        rc = append(w->core, s, &e, w->handle->durability == KIST_DURABILITY_ALWAYS, &place);
    if (rc == KIST_OK)
        append_count(w->core, body, place);
    return rc;
}

static int append_batch(struct writer *w, struct state *s, const struct spool *sp,
                        struct commit_body *body, uint64_t *count)
{
    uint64_t place;
    int rc = append_room(w->core, s, RECORD_MIN, APPEND_DELETE);

    if (rc == KIST_OK)
        rc = append_clear(w, s, RECORD_IN_BATCH, &place);
    if (rc < 0)
        return rc;
    *body = (struct commit_body){ 0 };
    append_count(w->core, body, place);
    for (uint64_t at = 0; at < sp->len && rc == KIST_OK; at = spool_behind(sp, at))
        rc = append_spooled(w, s, sp, spool_at(sp, at), body);
    *count = body->count - 1;
    return rc;
}

static int replace_locked(struct writer *w, const struct spool *sp, uint64_t *first,
                          uint64_t *commit)
{
    struct index_file *ix = NULL;
    struct state next = w->state;
    struct commit_body body;
    uint64_t count;
    int rc = append_batch(w, &next, sp, &body, &count);

    if (rc == KIST_OK)
        rc = append_room(w->core, &next, 2 * RECORD_MIN, APPEND_DELETE);
    if (rc == KIST_OK)
        rc = build_index(w->core, &next, body.first, next.tail, count, &ix);
    if (rc == KIST_OK)
        rc = append_own(w, &next, RECORD_COMMIT, &body, sizeof body, commit);
    if (rc < 0) {
        if (ix)
            index_close(ix);
        abandon(w, &next);
        return rc;
    }
    publish_index(w->core, ix, w->state.visible + 1, &next); /* the clear's sequence */
    core_step(w->core, &next);
    w->state = next;
    *first = body.first;
    return KIST_OK;
}

int replace_may(kist_bank *h)
{
    struct writer w;
    int rc = write_begin(&w, h, 0);

    if (rc == KIST_OK)
        write_end(&w);
    return rc;
}

int replace_by(kist_bank *h, const struct spool *sp)
{
    struct writer w;
    uint64_t first = 0, commit = 0;
    int rc = write_begin(&w, h, 0);

    if (rc == KIST_OK) {
        rc = replace_locked(&w, sp, &first, &commit);
        write_end(&w);
    }
    if (rc == KIST_OK)
        rc = sync_to(h, commit + 1);
    return rc < 0 ? rc : clean_before_batch(h, first, commit);
}

int kist_replace(kist_bank *h, int (*next)(kist_bytes *key, kist_bytes *value, void *arg),
                 void *arg)
{
    struct spool sp;
    int rc = replace_may(h);

    if (rc < 0)
        return rc;
    spool_open(&sp, h->bank);
    rc = gather(h, &sp, next, arg);
    if (rc == KIST_OK)
        rc = replace_by(h, &sp);
    spool_close(&sp);
    return rc;
}
