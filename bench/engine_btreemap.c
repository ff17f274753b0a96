/*
 * engine_btreemap - what btreemap.rs has, reached from C.
 */
#include "bench.h"

#include <stdbool.h>

struct btreemap;
struct btreemap *btreemap_new(size_t arena_bytes);
void btreemap_free(struct btreemap *t);
size_t btreemap_len(const struct btreemap *t);
void btreemap_put(struct btreemap *t, const void *key, size_t key_len, const void *value,
                  size_t len);
const void *btreemap_get(const struct btreemap *t, const void *key, size_t key_len, size_t *len);
bool btreemap_remove(struct btreemap *t, const void *key, size_t key_len);
size_t btreemap_scan(const struct btreemap *t, const void *prefix, size_t len, uint64_t *digest);
void btreemap_compact(struct btreemap *t);
struct btreemap *btreemap_snapshot(const struct btreemap *t);
void btreemap_revert(struct btreemap *t, const struct btreemap *snapshot);
bool btreemap_save(const struct btreemap *t, const char *path);
bool btreemap_restore(struct btreemap *t, const char *path);

static int map_open(void **self, const struct bench_conf *conf)
{
    *self = btreemap_new(conf->entries * BENCH_VALUE_BYTES);
    return 0;
}

static int map_put(void *self, const bench_key *key, const void *value)
{
    btreemap_put(self, key, sizeof *key, value, BENCH_VALUE_BYTES);
    return 0;
}

static int map_get(void *self, const bench_key *key)
{
    size_t len;
    const unsigned char *value = btreemap_get(self, key, sizeof *key, &len);

    return value ? *value : BENCH_MISS;
}

static int map_sync(void *self)
{
    (void)self;
    return 0;
}

static int map_close(void *self)
{
    btreemap_free(self);
    return 0;
}

static int map_remove(void *self, const bench_key *key)
{
    (void)btreemap_remove(self, key, sizeof *key);
    return 0;
}

static int64_t map_scan(void *self, const void *prefix, size_t len, uint64_t *digest)
{
    return (int64_t)btreemap_scan(self, prefix, len, digest);
}

static int map_compact(void *self)
{
    btreemap_compact(self);
    return 0;
}

static int map_snapshot(void *self, void **out)
{
    *out = btreemap_snapshot(self);
    return 0;
}

static void map_snapshot_free(void *self, void *snapshot)
{
    (void)self;
    btreemap_free(snapshot);
}

static int map_revert(void *self, void *snapshot)
{
    btreemap_revert(self, snapshot);
    return 0;
}

static int map_save(void *self, const char *path)
{
    return btreemap_save(self, path) ? 0 : bench_fail("btreemap", path, "can't be written");
}

static int map_restore(void *self, const char *path)
{
    return btreemap_restore(self, path) ? 0 : bench_fail("btreemap", path, "can't be read");
}

static const struct bench_order order = {
    .remove = map_remove,
    .scan = map_scan,
    .compact = map_compact,
    .snapshot = map_snapshot,
    .snapshot_free = map_snapshot_free,
    .revert = map_revert,
    .save = map_save,
    .restore = map_restore,
};

const struct bench_engine bench_btreemap = {
    .name = "btreemap",
    .in_memory = true,
    .open = map_open,
    .put = map_put,
    .get = map_get,
    .sync = map_sync,
    .close = map_close,
    .setup = "Rust's BTreeMap of keys over an arena of values, told how many bytes to expect; "
             "compacted: both anew, in order; a snapshot is a copy of both",
    .order = &order,
};
