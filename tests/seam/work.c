/* work.c - see work.h. */
#include "seam/work.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t clock_of(const struct work *w)
{
    return w->log ? log_count(w->log) : w->o->ops;
}

static struct op *begin(struct work *w, enum op_kind kind, uint32_t key)
{
    return oracle_begin(w->o, kind, key, clock_of(w));
}

static int end(struct work *w, struct op *op, int rc)
{
    oracle_end(w->o, op, rc, clock_of(w));
    return rc;
}

/* ---- open and close --------------------------------------------------- */

int work_open_bank(struct work *w, uint32_t store_flags, uint32_t bank_flags)
{
    kist_store_options so = { .size = sizeof so, .flags = store_flags };
    kist_bank_options bo = {
        .size = sizeof bo,
        .flags = bank_flags,
        .segment_bytes = w->made.segment_bytes,
        .durability = w->made.durability,
        .verify = w->made.verify,
        .deadline_ms = w->deadline_ms,
    };
    char *path = path_join(w->root, "store");
    int rc = kist_store_open(&w->store, path, &so);

    free(path);
    if (rc < 0)
        return rc;
    rc = kist_bank_open(&w->bank, w->store, w->made.name, &bo);
    if (rc < 0) {
        (void)kist_store_close(w->store);
        w->store = NULL;
    }
    return rc;
}

void work_snapshot_close(struct work *w)
{
    (void)kist_bank_close(w->snapshot);
    w->snapshot = NULL;
}

void work_close_quietly(struct work *w)
{
    work_snapshot_close(w);
    (void)kist_bank_close(w->bank);
    (void)kist_store_close(w->store);
    w->bank = NULL;
    w->store = NULL;
}

int work_open(struct work *w)
{
    struct op *op = begin(w, OP_OPEN, 0);

    return end(w, op, work_open_bank(w, KIST_STORE_CREATE, KIST_BANK_CREATE));
}

int work_close(struct work *w)
{
    struct op *op = begin(w, OP_CLOSE, 0);
    int rc, rc2;

    work_snapshot_close(w);
    rc = kist_bank_close(w->bank);
    rc2 = kist_store_close(w->store);
    w->bank = NULL;
    w->store = NULL;
    return end(w, op, rc < 0 ? rc : rc2);
}

int work_drop(struct work *w)
{
    struct op *op = begin(w, OP_DROP, 0);
    int rc;

    work_snapshot_close(w);
    rc = kist_bank_close(w->bank);
    w->bank = NULL;
    if (rc >= 0)
        rc = kist_bank_drop(w->store, w->made.name);
    rc = end(w, op, rc);
    work_close_quietly(w);
    return rc;
}

int work_repair(struct work *w)
{
    struct op *op = begin(w, OP_REPAIR, 0);

    return end(w, op, kist_repair(w->store, w->made.name, NULL, NULL, NULL));
}

/* ---- writing ---------------------------------------------------------- */

static uint8_t value_buf[VALUE_MOST];
static char key_buf[KEY_MOST];

static kist_bytes key_of(const struct work *w, uint32_t key)
{
    return (kist_bytes){ key_buf, oracle_key(w->o, key, key_buf) };
}

static kist_bytes value_of(const struct work *w, const struct op *op)
{
    return (kist_bytes){ value_buf, oracle_value(w->o, op->key, op->version, value_buf) };
}

int work_put(struct work *w, uint32_t key)
{
    struct op *op = begin(w, OP_PUT, key);

    return end(w, op, kist_put(w->bank, key_of(w, key), value_of(w, op)));
}

int work_insert(struct work *w, uint32_t key)
{
    struct op *op = begin(w, OP_INSERT, key);

    op->changes = w->o->now.version[key] == 0;
    return end(w, op, kist_get_or_insert(w->bank, key_of(w, key), value_of(w, op), NULL));
}

int work_put_if(struct work *w, uint32_t key, bool wrong_sequence)
{
    kist_meta meta = { 0 };
    int rc = kist_get_meta(w->bank, key_of(w, key), &meta);
    struct op *op;

    if (rc < 0)
        return rc;
    op = begin(w, OP_PUT_IF, key);
    op->changes = !wrong_sequence;
    return end(w, op,
               kist_put_if_sequence(w->bank, key_of(w, key), value_of(w, op),
                                    meta.sequence + (wrong_sequence ? 1 : 0)));
}

int work_delete(struct work *w, uint32_t key)
{
    struct op *op = begin(w, OP_DELETE, key);

    return end(w, op, kist_delete(w->bank, key_of(w, key)));
}

int work_clear(struct work *w)
{
    struct op *op = begin(w, OP_CLEAR, 0);

    return end(w, op, kist_clear(w->bank));
}

struct feed {
    struct work *w;
    struct op op; /* whose key runs through all */
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *f = arg;

    while (f->op.key < f->w->o->keys && !replace_holds(f->w->o, f->op.version, f->op.key))
        f->op.key++;
    if (f->op.key == f->w->o->keys)
        return KIST_END;
    *key = key_of(f->w, f->op.key);
    *value = value_of(f->w, &f->op);
    f->op.key++;
    return 0;
}

int work_replace(struct work *w)
{
    struct op *op = begin(w, OP_REPLACE, 0);
    struct feed feed = { w, *op };

    return end(w, op, kist_replace(w->bank, feed_next, &feed));
}

/* All of the batch; each key it puts was put, or deleted, before. */
static int fill_batch(struct work *w, kist_batch *batch, const struct op *op)
{
    struct op each = *op;
    int rc = KIST_OK;

    for (each.key = 0; each.key < w->o->keys && rc == KIST_OK; each.key++) {
        enum batch_does does = batch_does(w->o, op->version, each.key);

        if (does != BATCH_LEAVES && each.key % 3 == 0)
            rc = kist_batch_delete(batch, key_of(w, each.key));
        if (does != BATCH_LEAVES && rc == KIST_OK)
            rc = kist_batch_put(batch, key_of(w, each.key), value_of(w, &each));
        if (does == BATCH_DELETES && rc == KIST_OK)
            rc = kist_batch_delete(batch, key_of(w, each.key));
    }
    return rc;
}

int work_batch(struct work *w, bool refused)
{
    struct op *op = begin(w, OP_BATCH, 0);
    kist_batch *batch;
    int rc = kist_batch_open(&batch, w->bank);

    op->changes = !refused;
    if (rc == KIST_OK)
        rc = fill_batch(w, batch, op);
    if (rc == KIST_OK && refused)
        rc = kist_batch_expect(batch, key_of(w, 1), UINT64_MAX);
    if (rc == KIST_OK)
        rc = kist_batch_commit(batch);
    kist_batch_close(batch);
    return end(w, op, rc);
}

/* ---- snapshots -------------------------------------------------------- */

static int save_bytes(const void *data, size_t len, void *arg)
{
    struct work *w = arg;

    w->saved = realloc(w->saved, w->saved_len + len);
    must(w->saved != NULL);
    memcpy(w->saved + w->saved_len, data, len);
    w->saved_len += len;
    return 0;
}

int work_save(struct work *w)
{
    w->saved_len = 0;
    w->of_saved = oracle_keep(w->o);
    return kist_snapshot_save(w->bank, save_bytes, w);
}

int work_snapshot(struct work *w)
{
    work_snapshot_close(w);
    w->of_snapshot = oracle_keep(w->o);
    return kist_snapshot_open(&w->snapshot, w->bank);
}

struct reading {
    const struct work *w;
    size_t at;
};

static int64_t read_bytes(void *buf, size_t len, void *arg)
{
    struct reading *r = arg;
    size_t left = r->w->saved_len - r->at, n = len < left ? len : left;

    memcpy(buf, r->w->saved + r->at, n);
    r->at += n;
    return (int64_t)n;
}

int work_restore(struct work *w)
{
    struct op *op = begin(w, OP_RESTORE, 0);
    struct reading reading = { w, 0 };

    op->kept = w->of_saved;
    return end(w, op, kist_snapshot_restore(w->bank, read_bytes, &reading));
}

int work_revert(struct work *w)
{
    struct op *op = begin(w, OP_REVERT, 0);

    op->kept = w->of_snapshot;
    return end(w, op, kist_snapshot_revert(w->bank, w->snapshot));
}

/* ---- care ------------------------------------------------------------- */

int work_sync(struct work *w)
{
    struct op *op = begin(w, OP_SYNC, 0);

    return end(w, op, kist_sync(w->bank));
}

int work_compact(struct work *w)
{
    struct op *op = begin(w, OP_COMPACT, 0);

    return end(w, op, kist_compact(w->bank, NULL, NULL));
}
