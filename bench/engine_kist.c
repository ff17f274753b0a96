/*
 * engine_kist - kist through its public header, as any program uses it. The
 * bank has the default settings but for the hint how many entries to expect
 * (LMDB needs none, tkrzw gets one too).
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <kist/kist.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct kist {
    kist_store *store;
    kist_bank *bank;
};

static int fail(const char *what, int rc)
{
    const kist_error *e = kist_last_error();

    if (e->rc == rc && e->what[0])
        fprintf(stderr, "%s\n", e->what);
    return bench_fail("kist", what, kist_strerror(rc));
}

static kist_bytes key_bytes(const bench_key *key)
{
    return (kist_bytes){ .data = key, .len = sizeof *key };
}

static int kist_engine_close(void *self)
{
    struct kist *t = self;
    int rc = kist_bank_close(t->bank);
    int rc2 = kist_store_close(t->store);

    free(t);
    rc = rc ? rc : rc2;
    return rc < 0 ? fail("close", rc) : 0;
}

static void options_of(const struct bench_conf *conf, kist_store_options *store,
                       kist_bank_options *bank)
{
    *store = (kist_store_options){ .size = sizeof *store };
    *bank = (kist_bank_options){ .size = sizeof *bank, .expect_entries = conf->entries };
    switch (conf->mode) {
    case BENCH_LOAD:
        store->flags = KIST_STORE_CREATE;
        bank->flags = KIST_BANK_CREATE | KIST_BANK_EXCLUSIVE;
        break;
    case BENCH_USE:
        break;
    case BENCH_DURABLE:
        bank->durability = KIST_DURABILITY_ALWAYS;
        break;
    case BENCH_READONLY:
        store->flags = KIST_STORE_READONLY;
        break;
    case BENCH_VERIFY_ALWAYS:
        bank->verify = KIST_VERIFY_ALWAYS;
        break;
    case BENCH_VERIFY_NEVER:
        bank->verify = KIST_VERIFY_NEVER;
        break;
    }
}

static int open_kind(void **self, const struct bench_conf *conf, uint32_t index)
{
    kist_store_options store;
    kist_bank_options bank;
    struct kist *t = calloc(1, sizeof *t);
    int rc;

    if (!t)
        return bench_fail("kist", "open", "out of memory");
    options_of(conf, &store, &bank);
    bank.index = index;
    if ((rc = kist_store_open(&t->store, conf->dir, &store)) ||
        (rc = kist_bank_open(&t->bank, t->store, "bench", &bank))) {
        rc = fail("open", rc);
        (void)kist_engine_close(t);
        return rc;
    }
    *self = t;
    return 0;
}

static int kist_engine_open(void **self, const struct bench_conf *conf)
{
    return open_kind(self, conf, KIST_INDEX_HASH);
}

static int kist_engine_put(void *self, const bench_key *key, const void *value)
{
    struct kist *t = self;
    int rc = kist_put(t->bank, key_bytes(key), (kist_bytes){ value, BENCH_VALUE_BYTES });

    return rc ? fail("put", rc) : 0;
}

static int kist_engine_get(void *self, const bench_key *key)
{
    struct kist *t = self;
    kist_bytes value;
    int rc = kist_get(t->bank, key_bytes(key), &value);

    if (rc == KIST_MISS)
        return BENCH_MISS;
    if (rc)
        return fail("get", rc);
    return *(const unsigned char *)value.data;
}

static int kist_engine_get_many(void *self, const bench_key *keys, uint64_t *sum)
{
    struct kist *t = self;
    kist_bytes key[BENCH_BATCH], value[BENCH_BATCH];
    int rc[BENCH_BATCH], found;

    for (int i = 0; i < BENCH_BATCH; i++)
        key[i] = key_bytes(&keys[i]);
    found = kist_get_many(t->bank, key, BENCH_BATCH, value, rc);
    if (found < 0)
        return fail("get many", found);
    for (int i = 0; i < BENCH_BATCH; i++) {
        if (rc[i] == KIST_OK)
            *sum += *(const unsigned char *)value[i].data;
    }
    return found;
}

static int kist_engine_read_begin(void *self)
{
    int rc = kist_read_begin();

    (void)self;
    return rc ? fail("read section", rc) : 0;
}

static void kist_engine_read_end(void *self)
{
    (void)self;
    kist_read_end();
}

static int kist_engine_sync(void *self)
{
    struct kist *t = self;
    int rc = kist_sync(t->bank);

    return rc ? fail("sync", rc) : 0;
}

static int kist_engine_tidy(void *self)
{
    struct kist *t = self;
    int rc = kist_compact(t->bank, NULL, NULL);

    return rc ? fail("compact", rc) : 0;
}

static int kist_engine_use(void *self, struct bench_use *use)
{
    struct kist *t = self;
    kist_stats stats = { .size = sizeof stats };
    int rc = kist_stat(t->bank, &stats);

    if (rc)
        return fail("stat", rc);
    use->reserved_bytes = stats.heap_file_bytes - stats.live_bytes - stats.wasted_bytes;
    use->record_bytes = stats.entries ? stats.live_bytes / stats.entries : 0;
    return 0;
}

/* ---- in order --------------------------------------------------------- */

static int ordered_open(void **self, const struct bench_conf *conf)
{
    return open_kind(self, conf, KIST_INDEX_ORDERED);
}

static int ordered_remove(void *self, const bench_key *key)
{
    struct kist *t = self;
    int rc = kist_delete(t->bank, key_bytes(key));

    return rc < 0 ? fail("delete", rc) : 0;
}

static int64_t ordered_scan(void *self, const void *prefix, size_t len, uint64_t *digest)
{
    struct kist *t = self;
    kist_cursor_options opt = { .size = sizeof opt, .prefix = { prefix, len } };
    kist_cursor *cursor;
    kist_entry entry;
    uint64_t sum = *digest;
    int64_t n = 0;
    int rc = kist_cursor_open(&cursor, t->bank, &opt);

    if (rc)
        return fail("open a cursor", rc);
    for (; (rc = kist_cursor_next(cursor, &entry)) == KIST_OK; n++)
        sum = bench_touch(sum, entry.key.data, entry.value.data);
    kist_cursor_close(cursor);
    *digest = sum;
    return rc == KIST_END ? n : fail("scan", rc);
}

static int ordered_snapshot(void *self, void **out)
{
    struct kist *t = self;
    kist_bank *snapshot;
    int rc = kist_snapshot_open(&snapshot, t->bank);

    *out = snapshot;
    return rc ? fail("snapshot", rc) : 0;
}

static void ordered_snapshot_free(void *self, void *snapshot)
{
    (void)self;
    (void)kist_bank_close(snapshot);
}

static int ordered_revert(void *self, void *snapshot)
{
    struct kist *t = self;
    int rc = kist_snapshot_revert(t->bank, snapshot);

    return rc ? fail("revert", rc) : 0;
}

static int ordered_save(void *self, const char *path)
{
    struct kist *t = self;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

    if (fd < 0)
        return bench_fail("kist", path, strerror(errno));
    rc = kist_snapshot_save(t->bank, kist_write_fd, &fd);
    (void)close(fd);
    return rc ? fail("save", rc) : 0;
}

static int ordered_restore(void *self, const char *path)
{
    struct kist *t = self;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return bench_fail("kist", path, strerror(errno));
    rc = kist_snapshot_restore(t->bank, kist_read_fd, &fd);
    (void)close(fd);
    return rc ? fail("restore", rc) : 0;
}

static const struct bench_order order = {
    .remove = ordered_remove,
    .scan = ordered_scan,
    .compact = kist_engine_tidy,
    .snapshot = ordered_snapshot,
    .snapshot_free = ordered_snapshot_free,
    .revert = ordered_revert,
    .save = ordered_save,
    .restore = ordered_restore,
};

/* ---- both kinds ------------------------------------------------------- */

#define COMMON                                                                                     \
    .name = "kist", .put = kist_engine_put, .get = kist_engine_get, .sync = kist_engine_sync,      \
    .close = kist_engine_close, .read_begin = kist_engine_read_begin,                              \
    .read_end = kist_engine_read_end, .version = kist_version

const struct bench_engine bench_kist_ordered = {
    COMMON,
    .open = ordered_open,
    .setup = "ordered bank, defaults (verification `first`, durability `none`), one read section "
             "around many gets, a cursor to each scan",
    .order = &order,
};

const struct bench_engine bench_kist = {
    COMMON,
    .open = kist_engine_open,
    .get_many = kist_engine_get_many,
    .tidy = kist_engine_tidy,
    .use = kist_engine_use,
    .setup = "defaults (verification `first`, durability `none`), told how many entries to "
             "expect, one read section around many gets",
};
