/*
 * engine_lmdb - LMDB at its best: a writable map, no sync but where the row
 * asks for it, no read-ahead, one read transaction held open for gets, and a
 * load in as few transactions as can be: smaller ones copy the same pages
 * again and again, and take more time and more disk.
 *
 * Durable puts go without the writable map, whose msync is slower than
 * LMDB's pwrite and fdatasync.
 */
#include "bench.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOAD_TXN_PUTS = 1000000 };

struct lmdb {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *read;  /* between read_begin and read_end open, else reset */
    MDB_cursor *cursor; /* of `read`; NULL until the first scan */
    MDB_txn *write; /* while loading */
    int puts;       /* in `write` */
    bool loading;
};

static int fail(const char *what, int rc)
{
    return bench_fail("lmdb", what, mdb_strerror(rc));
}

static unsigned flags_of(enum bench_mode mode)
{
    switch (mode) {
    case BENCH_DURABLE:
        return MDB_NORDAHEAD;
    case BENCH_READONLY:
        return MDB_NORDAHEAD | MDB_RDONLY;
    default:
        return MDB_NORDAHEAD | MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC;
    }
}

static int lmdb_close(void *self)
{
    struct lmdb *t = self;

    if (t->write)
        mdb_txn_abort(t->write);
    if (t->cursor)
        mdb_cursor_close(t->cursor);
    if (t->read)
        mdb_txn_abort(t->read);
    if (t->env)
        mdb_env_close(t->env);
    free(t);
    return 0;
}

static int open_dbi(struct lmdb *t, enum bench_mode mode)
{
    MDB_txn *txn;
    int rc;

    if ((rc = mdb_txn_begin(t->env, NULL, mode == BENCH_LOAD ? 0 : MDB_RDONLY, &txn)))
        return rc;
    if ((rc = mdb_dbi_open(txn, NULL, 0, &t->dbi))) {
        mdb_txn_abort(txn);
        return rc;
    }
    if (mode == BENCH_LOAD)
        return mdb_txn_commit(txn);
    mdb_txn_reset(txn); /* the main database's handle is good all the same */
    t->read = txn;
    return 0;
}

static int lmdb_open(void **self, const struct bench_conf *conf)
{
    struct lmdb *t = calloc(1, sizeof *t);
    size_t map = conf->entries * 8 * BENCH_PAYLOAD_BYTES + (1u << 30);
    int rc;

    if (!t)
        return bench_fail("lmdb", "open", "out of memory");
    t->loading = conf->mode == BENCH_LOAD;
    if ((rc = mdb_env_create(&t->env)) || (rc = mdb_env_set_mapsize(t->env, map)) ||
        (rc = mdb_env_open(t->env, conf->dir, flags_of(conf->mode), 0600)) ||
        (rc = open_dbi(t, conf->mode))) {
        (void)lmdb_close(t);
        return fail("open", rc);
    }
    *self = t;
    return 0;
}

static MDB_val key_val(const bench_key *key)
{
    return (MDB_val){ .mv_size = sizeof *key, .mv_data = (void *)(uintptr_t)key };
}

static int put_in(struct lmdb *t, MDB_txn *txn, const bench_key *key, const void *value)
{
    MDB_val k = key_val(key);
    MDB_val v = { .mv_size = BENCH_VALUE_BYTES, .mv_data = (void *)(uintptr_t)value };

    return mdb_put(txn, t->dbi, &k, &v, 0);
}

static int commit_load(struct lmdb *t)
{
    MDB_txn *txn = t->write;

    t->write = NULL;
    t->puts = 0;
    return txn ? mdb_txn_commit(txn) : 0;
}

static int load_put(struct lmdb *t, const bench_key *key, const void *value)
{
    int rc;

    if (!t->write && (rc = mdb_txn_begin(t->env, NULL, 0, &t->write)))
        return fail("begin", rc);
    if ((rc = put_in(t, t->write, key, value)))
        return fail("put", rc);
    if (++t->puts == LOAD_TXN_PUTS && (rc = commit_load(t)))
        return fail("commit", rc);
    return 0;
}

static int lmdb_put(void *self, const bench_key *key, const void *value)
{
    struct lmdb *t = self;
    MDB_txn *txn;
    int rc;

    if (t->loading)
        return load_put(t, key, value);
    if ((rc = mdb_txn_begin(t->env, NULL, 0, &txn)))
        return fail("begin", rc);
    if ((rc = put_in(t, txn, key, value))) {
        mdb_txn_abort(txn);
        return fail("put", rc);
    }
    if ((rc = mdb_txn_commit(txn)))
        return fail("commit", rc);
    return 0;
}

static int lmdb_get(void *self, const bench_key *key)
{
    struct lmdb *t = self;
    MDB_val k = key_val(key), v;
    int rc = mdb_get(t->read, t->dbi, &k, &v);

    if (rc == MDB_NOTFOUND)
        return BENCH_MISS;
    if (rc)
        return fail("get", rc);
    return *(const unsigned char *)v.mv_data;
}

static int lmdb_read_begin(void *self)
{
    struct lmdb *t = self;
    int rc = mdb_txn_renew(t->read);

    if (!rc && t->cursor)
        rc = mdb_cursor_renew(t->read, t->cursor);
    return rc ? fail("renew", rc) : 0;
}

static void lmdb_read_end(void *self)
{
    struct lmdb *t = self;

    mdb_txn_reset(t->read);
}

static int lmdb_sync(void *self)
{
    struct lmdb *t = self;
    int rc = commit_load(t);

    if (rc)
        return fail("commit", rc);
    rc = mdb_env_sync(t->env, 1);
    return rc ? fail("sync", rc) : 0;
}

static const char *lmdb_version(void)
{
    static char text[32];
    int major, minor, patch;

    (void)mdb_version(&major, &minor, &patch);
    (void)snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}

/* ---- in order --------------------------------------------------------- */

static int lmdb_remove(void *self, const bench_key *key)
{
    struct lmdb *t = self;
    MDB_val k = key_val(key);
    MDB_txn *txn;
    int rc;

    if ((rc = mdb_txn_begin(t->env, NULL, 0, &txn)))
        return fail("begin", rc);
    if ((rc = mdb_del(txn, t->dbi, &k, NULL))) {
        mdb_txn_abort(txn);
        return rc == MDB_NOTFOUND ? 0 : fail("delete", rc);
    }
    rc = mdb_txn_commit(txn);
    return rc ? fail("commit", rc) : 0;
}

static int64_t lmdb_scan(void *self, const void *prefix, size_t len, uint64_t *digest)
{
    struct lmdb *t = self;
    MDB_val k = { .mv_size = len, .mv_data = (void *)(uintptr_t)prefix }, v;
    uint64_t sum = *digest;
    int64_t n = 0;
    int rc = t->cursor ? 0 : mdb_cursor_open(t->read, t->dbi, &t->cursor);

    if (!rc)
        rc = mdb_cursor_get(t->cursor, &k, &v, len ? MDB_SET_RANGE : MDB_FIRST);
    for (; !rc && k.mv_size >= len && memcmp(k.mv_data, prefix, len) == 0; n++) {
        sum = bench_touch(sum, k.mv_data, v.mv_data);
        rc = mdb_cursor_get(t->cursor, &k, &v, MDB_NEXT);
    }
    *digest = sum;
    return !rc || rc == MDB_NOTFOUND ? n : fail("scan", rc);
}

/* A copy without free pages, its leaves in a row, takes the place of the file. */
static int lmdb_compact(void *self)
{
    struct lmdb *t = self;
    char from[4096], to[4096];
    const char *dir;
    size_t map;
    MDB_envinfo info;
    int rc;

    if ((rc = mdb_env_get_path(t->env, &dir)) || (rc = mdb_env_info(t->env, &info)))
        return fail("compact", rc);
    map = info.me_mapsize;
    (void)snprintf(to, sizeof to, "%s/data.mdb", dir);
    (void)snprintf(from, sizeof from, "%s/compact", dir);
    if (mkdir(from, 0700) < 0 || (rc = mdb_env_copy2(t->env, from, MDB_CP_COMPACT)))
        return fail("compact", rc ? rc : errno);
    (void)snprintf(from, sizeof from, "%s/compact/data.mdb", dir);
    if (rename(from, to) < 0)
        return fail("compact", errno);
    *strrchr(from, '/') = 0;
    (void)rmdir(from);
    *strrchr(to, '/') = 0; /* the folder, which the closed environment forgets */
    if (t->cursor)
        mdb_cursor_close(t->cursor);
    mdb_txn_abort(t->read);
    mdb_env_close(t->env);
    t->cursor = NULL;
    t->read = NULL;
    if ((rc = mdb_env_create(&t->env)) || (rc = mdb_env_set_mapsize(t->env, map)) ||
        (rc = mdb_env_open(t->env, to, flags_of(BENCH_USE), 0600)) || (rc = open_dbi(t, BENCH_USE)))
        return fail("open what was compacted", rc);
    return 0;
}

/* A read transaction is one: it sees the moment at which it began. */
static int lmdb_snapshot(void *self, void **out)
{
    struct lmdb *t = self;
    MDB_txn *txn;
    int rc = mdb_txn_begin(t->env, NULL, MDB_RDONLY, &txn);

    *out = txn;
    return rc ? fail("snapshot", rc) : 0;
}

static void lmdb_snapshot_free(void *self, void *snapshot)
{
    (void)self;
    mdb_txn_abort(snapshot);
}

static const struct bench_order order = {
    .remove = lmdb_remove,
    .scan = lmdb_scan,
    .compact = lmdb_compact,
    .snapshot = lmdb_snapshot,
    .snapshot_free = lmdb_snapshot_free,
};

#define COMMON                                                                                     \
    .name = "lmdb", .open = lmdb_open, .put = lmdb_put, .get = lmdb_get, .sync = lmdb_sync,        \
    .close = lmdb_close, .read_begin = lmdb_read_begin, .read_end = lmdb_read_end,                 \
    .version = lmdb_version

const struct bench_engine bench_lmdb_ordered = {
    COMMON,
    .setup = "NOSYNC, WRITEMAP, NORDAHEAD, a transaction to each put, one open read transaction "
             "and one cursor; compacted: a copy with CP_COMPACT",
    .order = &order,
};

const struct bench_engine bench_lmdb = {
    COMMON,
    .setup = "NOSYNC, WRITEMAP, NORDAHEAD, one open read transaction, a million puts to a "
             "transaction when loading, one when overwriting; durable: without NOSYNC and "
             "WRITEMAP",
};
