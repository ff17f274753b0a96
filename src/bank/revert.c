/*
 * revert.c - a bank made what an open snapshot of it sees.
 *
 *     walk     the heap from where it ended at the snapshot's moment: each put or
 *              delete that came later names a key
 *     ask      what did the snapshot see of that key, what is there now? where
 *              they differ, a change in a batch
 *     commit   and, with the lock word held, the same for what came meanwhile
 *
 * A record that was moved by cleaning lies behind where it lay; a key that was
 * changed is led to by its newest record, which no cleaning gives up while the
 * snapshot is pinned. So each key that was changed is met. Where that does not
 * hold, since the content was cleared, replaced or rebuilt, or the walk does not
 * get to the end, all that the snapshot sees becomes the content, as of one of
 * another bank.
 */
#include "bank/batch.h"
#include "bank/spool.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

struct reverting {
    kist_bank *bank, *to;
    kist_batch *batch;
    uint64_t from; /* up to this place of the heap all was looked at */
    uint64_t round; /* 1: before the lock; 2: with it. A key is asked about once in each */
};

/* ---- key by key ------------------------------------------------------- */

/* As it is. */
static int leave(const struct reverting *rv, kist_bytes key)
{
    return batch_note(rv->batch, key, rv->round);
}

/* Has the bank this very value for the key? What an earlier revert has put is there
 * under another sequence. */
static bool has_it(kist_bank *h, kist_bytes key, kist_bytes want)
{
    kist_view *v;
    bool same = false;

    if (kist_get_view(h, key, &v) == KIST_OK) {
        kist_bytes has = kist_view_bytes(v);

        same = has.len == want.len && (want.len == 0 || memcmp(has.data, want.data, want.len) == 0);
        kist_view_release(v);
    }
    return same;
}

static int put_back(struct reverting *rv, kist_bytes key, int64_t mtime_ns, bool same_time)
{
    kist_view *v;
    int rc = kist_get_view(rv->to, key, &v);

    if (rc != KIST_OK)
        return rc;
    rc = same_time && has_it(rv->bank, key, kist_view_bytes(v))
             ? leave(rv, key)
             : batch_put_again(rv->batch, key, kist_view_bytes(v), mtime_ns);
    kist_view_release(v);
    return rc;
}

static int set_back(struct reverting *rv, kist_bytes key)
{
    kist_meta then, now;
    int rc_now = kist_get_meta(rv->bank, key, &now), rc = kist_get_meta(rv->to, key, &then);

    if (rc_now < 0 && rc_now != KIST_ECORRUPT)
        return rc_now;
    if (rc < 0)
        return rc;
    if (rc == KIST_MISS)
        return rc_now == KIST_MISS ? leave(rv, key) : batch_delete(rv->batch, key);
    if (rc_now == KIST_OK && then.sequence == now.sequence)
        return leave(rv, key);
    return put_back(rv, key, then.mtime_ns, rc_now == KIST_OK && then.mtime_ns == now.mtime_ns);
}

static int look_at(struct reverting *rv, const struct record *r)
{
    kist_bytes key = { record_key(r), r->key_len };
    uint64_t note;

    if ((record_kind(r) != RECORD_PUT && record_kind(r) != RECORD_DELETE) ||
        r->sequence <= rv->to->at || batch_has(rv->batch, key, &note) || note == rv->round)
        return KIST_OK;
    return set_back(rv, key);
}

/* ---- what was written since ------------------------------------------- */

static bool same_content(const struct core *c, const struct snapshot *snap)
{
    struct index_file *then = snapshot_index(snap), *now = core_index(c);
    struct os_stat a, b;

    return !snap->unkept && then->generation == now->generation &&
           shm_read(&c->live->cleared) <= snap->at && then->fd >= 0 && now->fd >= 0 &&
           os_stat(then->fd, &a) == 0 && os_stat(now->fd, &b) == 0 && a.dev == b.dev &&
           a.ino == b.ino;
}

/* Up to the place `end`. KIST_MISS: it can't be told so. In a read section. */
static int look_until(struct reverting *rv, struct core *c, uint64_t end)
{
    struct walk w = { .core = c, .at = rv->from, .newest = place_n(end), .end = rv->from };
    const struct record *r;
    uint64_t place;
    int rc = same_content(c, rv->to->snapshot) ? KIST_OK : KIST_MISS;

    while (rc == KIST_OK && w.end < end) {
        rc = walk_next(&w, &r, &place);
        if (rc == KIST_OK && place < end)
            rc = look_at(rv, r);
    }
    if (rc == KIST_OK)
        rv->from = end;
    return rc == KIST_END || rc == -ENOENT ? KIST_MISS : rc;
}

static int look_before(struct reverting *rv)
{
    struct core *c;
    struct state s;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = core_enter(rv->bank, &c);
    if (rc == KIST_OK)
        rc = live_state(c->live, &s) ? look_until(rv, c, s.tail) : KIST_MISS;
    kist_read_end();
    return rc;
}

static int look_again(struct writer *w, void *arg)
{
    struct reverting *rv = arg;

    rv->round = 2;
    return look_until(rv, w->core, w->state.tail);
}

static int revert_changes(kist_bank *h, kist_bank *to)
{
    struct reverting rv = { .bank = h, .to = to, .from = to->snapshot->state.tail,
                            .round = 1 };
    int rc = kist_batch_open(&rv.batch, h);

    if (rc == KIST_OK)
        rc = look_before(&rv);
    if (rc == KIST_OK)
        rc = batch_commit_with(rv.batch, look_again, &rv);
    kist_batch_close(rv.batch);
    return rc;
}

/* ---- everything ------------------------------------------------------- */

static int gather(struct spool *sp, kist_bank *from)
{
    kist_cursor *cur;
    kist_entry e;
    uint64_t at;
    int rc = kist_cursor_open(&cur, from, NULL);

    while (rc == KIST_OK) {
        rc = kist_cursor_next(cur, &e);
        if (rc == KIST_OK)
            rc = spool_add(sp, RECORD_PUT, e.key, e.value, &at);
        if (rc == KIST_OK)
            spool_at(sp, at)->sequence = (uint64_t)e.meta.mtime_ns;
    }
    kist_cursor_close(cur);
    return rc == KIST_END ? KIST_OK : rc;
}

static int copy_all(kist_bank *h, kist_bank *from)
{
    struct spool sp;
    int rc = replace_may(h);

    if (rc < 0)
        return rc;
    spool_open(&sp, h->bank);
    sp.has_times = true;
    rc = gather(&sp, from);
    if (rc == KIST_OK)
        rc = replace_by(h, &sp);
    spool_close(&sp);
    return rc;
}

int kist_snapshot_revert(kist_bank *h, kist_bank *snapshot)
{
    int rc = KIST_MISS;

    if (!snapshot->snapshot)
        return bank_err(snapshot->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                        "the handle to revert to is no snapshot");
    if (h->bank == snapshot->bank)
        rc = revert_changes(h, snapshot);
    return rc == KIST_MISS ? copy_all(h, snapshot) : rc;
}
