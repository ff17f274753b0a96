/*
 * M1: a bank equals a plain map. Random operations over two handles of one
 * bank, with reopening, cleaning, clearing, replacing and repairing between
 * them; each result is compared with a model in memory, and everything with
 * everything now and then.
 */
#include "support.h"

#include <stdio.h>

enum { KEYS_MAX = 5000, KEY_BYTES = 3000, VALUE_BYTES = 40000, VIEWS = 16 };

struct config {
    uint32_t segment_bytes;
    uint32_t keys;
    uint32_t verify;
    uint32_t share; /* of all operations, in percent */
};

static const struct config configs[] = { { 4096, 40, KIST_VERIFY_FIRST, 20 },
                                         { 4096, 1500, KIST_VERIFY_ALWAYS, 20 },
                                         { 65536, 300, KIST_VERIFY_FIRST, 20 },
                                         { 65536, 5000, KIST_VERIFY_NEVER, 20 },
                                         { 1 << 20, 2000, KIST_VERIFY_ALWAYS, 20 } };

struct held {
    kist_view *view;
    uint64_t key, version;
};

struct run {
    const struct config *config;
    struct rng rng;
    char *dir;
    kist_store *store[2];
    kist_bank *bank[2];
    uint64_t version[KEYS_MAX];  /* the model: 0 for none */
    uint64_t sequence[KEYS_MAX]; /* the last that was seen */
    uint64_t newest;             /* version of the newest write */
    uint64_t entries;
    struct held held[VIEWS];
};

static struct row row = { .id = "M1" };
static unsigned char want_bytes[VALUE_BYTES];

/* ---- keys and values -------------------------------------------------- */

/* Key 0 is empty, some are long, most are short. */
static kist_bytes key_of(uint64_t key)
{
    static unsigned char bytes[KEYS_MAX][48];
    static unsigned char long_bytes[KEY_BYTES];
    size_t len = key == 0 ? 0 : 2 + mix(key, 7) % 40;

    if (key % 97 == 13) {
        value_fill(long_bytes, sizeof long_bytes, key, 0);
        return (kist_bytes){ long_bytes, sizeof long_bytes - key % 16 };
    }
    value_fill(bytes[key], sizeof *bytes, key, 0);
    return (kist_bytes){ bytes[key], len };
}

static size_t content_len(uint64_t key, uint64_t version)
{
    uint64_t h = mix(key, version);

    if (h % 31 == 0)
        return 0;
    if (h % 1009 == 1)
        return (h >> 10) % VALUE_BYTES;
    if (h % 61 == 2)
        return (h >> 10) % 5000;
    return (h >> 10) % 150;
}

static kist_bytes content(uint64_t key, uint64_t version)
{
    size_t len = content_len(key, version);
    unsigned char shortest[VALUE_MIN];

    if (len >= VALUE_MIN) {
        value_fill(want_bytes, len, key, version);
    } else {
        value_fill(shortest, sizeof shortest, key, version);
        memcpy(want_bytes, shortest, len);
    }
    return (kist_bytes){ want_bytes, len };
}

static void must_equal(kist_bytes got, uint64_t key, uint64_t version)
{
    kist_bytes want = content(key, version);

    must(version != 0);
    must(got.len == want.len);
    must(got.len == 0 || memcmp(got.data, want.data, got.len) == 0);
}

/* ---- the model -------------------------------------------------------- */

static uint64_t some_key(struct run *r)
{
    return rng_below(&r->rng, r->config->keys);
}

static kist_bank *some_bank(struct run *r)
{
    return r->bank[rng_below(&r->rng, 2)];
}

static void model_set(struct run *r, uint64_t key, uint64_t version)
{
    r->entries -= r->version[key] != 0;
    r->entries += version != 0;
    r->version[key] = version;
}

static void model_clear(struct run *r)
{
    memset(r->version, 0, sizeof r->version);
    r->entries = 0;
}

static int found(const struct run *r, uint64_t key)
{
    return r->version[key] ? KIST_OK : KIST_MISS;
}

/* ---- operations ------------------------------------------------------- */

static void op_put(struct run *r)
{
    uint64_t key = some_key(r), version = ++r->newest;

    must_ok(kist_put(some_bank(r), key_of(key), content(key, version)));
    model_set(r, key, version);
}

static void op_delete(struct run *r)
{
    uint64_t key = some_key(r);

    must_rc(kist_delete(some_bank(r), key_of(key)), found(r, key));
    model_set(r, key, 0);
}

static void op_get(struct run *r)
{
    uint64_t key = some_key(r);
    kist_bytes value;

    must_ok(kist_read_begin());
    must_rc(kist_get(some_bank(r), key_of(key), &value), found(r, key));
    if (r->version[key])
        must_equal(value, key, r->version[key]);
    kist_read_end();
}

static void op_get_copy(struct run *r)
{
    static unsigned char buf[VALUE_BYTES];
    uint64_t key = some_key(r);
    size_t len = 0, cap = rng_below(&r->rng, 200);
    size_t want = r->version[key] ? content_len(key, r->version[key]) : 0;
    int rc = kist_get_copy(some_bank(r), key_of(key), buf, cap, &len);

    if (!r->version[key]) {
        must_rc(rc, KIST_MISS);
        return;
    }
    must(len == want);
    must_rc(rc, want > cap ? KIST_ESPACE : KIST_OK);
    if (rc == KIST_OK)
        must_equal((kist_bytes){ buf, len }, key, r->version[key]);
}

static void op_get_many(struct run *r)
{
    enum { MANY = 12 };
    uint64_t key[MANY];
    kist_bytes keys[MANY], values[MANY];
    int rc[MANY], want = 0;

    for (int i = 0; i < MANY; i++) {
        do
            key[i] = some_key(r);
        while (key[i] % 97 == 13); /* long keys share a buffer */
        keys[i] = key_of(key[i]);
        want += r->version[key[i]] != 0;
    }
    must_ok(kist_read_begin());
    must(kist_get_many(some_bank(r), keys, MANY, values, rc) == want);
    for (int i = 0; i < MANY; i++) {
        must_rc(rc[i], found(r, key[i]));
        if (rc[i] == KIST_OK)
            must_equal(values[i], key[i], r->version[key[i]]);
    }
    kist_read_end();
}

static void op_meta(struct run *r)
{
    uint64_t key = some_key(r);
    kist_meta meta;

    must_rc(kist_get_meta(some_bank(r), key_of(key), &meta), found(r, key));
    if (!r->version[key])
        return;
    must(meta.value_bytes == content_len(key, r->version[key]));
    must(meta.expiry_ns == 0 && meta.mtime_ns > 0 && meta.sequence > 0);
}

static void op_insert(struct run *r)
{
    uint64_t key = some_key(r), version = ++r->newest;
    kist_view *view = NULL;
    int rc = kist_get_or_insert(some_bank(r), key_of(key), content(key, version), &view);

    must_rc(rc, r->version[key] ? KIST_EXISTS : KIST_OK);
    if (rc == KIST_OK) {
        must(view == NULL);
        model_set(r, key, version);
        return;
    }
    must_equal(kist_view_bytes(view), key, r->version[key]);
    kist_view_release(view);
}

static void op_put_if(struct run *r)
{
    uint64_t key = some_key(r), version = ++r->newest;
    bool stale = rng_below(&r->rng, 3) == 0;
    kist_meta meta = { .sequence = 0 };
    int want = KIST_OK;

    must_rc(kist_get_meta(some_bank(r), key_of(key), &meta), found(r, key));
    if (stale) {
        meta.sequence += 1 + rng_below(&r->rng, 5);
        want = r->version[key] ? KIST_CHANGED : KIST_MISS;
    }
    must_rc(kist_put_if_sequence(some_bank(r), key_of(key), content(key, version), meta.sequence),
            want);
    if (want == KIST_OK)
        model_set(r, key, version);
}

static void op_view(struct run *r)
{
    struct held *held = &r->held[rng_below(&r->rng, VIEWS)];

    if (held->view) {
        must_equal(kist_view_bytes(held->view), held->key, held->version);
        kist_view_release(held->view);
    }
    held->key = some_key(r);
    held->version = r->version[held->key];
    must_rc(kist_get_view(some_bank(r), key_of(held->key), &held->view), found(r, held->key));
}

static void op_count(struct run *r)
{
    must(count_of(some_bank(r)) == r->entries);
}

static void op_sync(struct run *r)
{
    must_ok(kist_sync(some_bank(r)));
}

static void op_clear(struct run *r)
{
    must_ok(kist_clear(some_bank(r)));
    model_clear(r);
}

static int progress_stop(uint64_t done, uint64_t all, void *arg)
{
    uint64_t *left = arg;

    (void)done, (void)all;
    return (*left)-- == 0 ? 66 : 0;
}

static void op_compact(struct run *r)
{
    uint64_t left = rng_below(&r->rng, 30);
    int rc = kist_compact(some_bank(r), progress_stop, &left);

    must(rc == KIST_OK || rc == 66);
}

struct feed {
    struct run *run;
    uint64_t key;
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *feed = arg;
    struct run *r = feed->run;

    while (feed->key < r->config->keys && mix(feed->key, r->newest) % 3 == 0)
        feed->key++;
    if (feed->key >= r->config->keys)
        return KIST_END;
    *key = key_of(feed->key);
    *value = content(feed->key, r->newest);
    model_set(r, feed->key++, r->newest);
    return 0;
}

static void op_replace(struct run *r)
{
    struct feed feed = { r, 0 };

    r->newest++;
    model_clear(r);
    must_ok(kist_replace(some_bank(r), feed_next, &feed));
}

static void check_all(struct run *r)
{
    kist_bank *bank = some_bank(r);
    kist_bytes value;

    for (uint64_t key = 0; key < r->config->keys; key++) {
        must_ok(kist_read_begin());
        must_rc(kist_get(bank, key_of(key), &value), found(r, key));
        if (r->version[key])
            must_equal(value, key, r->version[key]);
        kist_read_end();
    }
    op_count(r);
}

static void op_walk(struct run *r)
{
    kist_iter *iter;
    kist_entry entry;
    uint64_t met = 0, bytes = 0, want = 0;
    int rc;

    must_ok(kist_iter_open(&iter, some_bank(r)));
    while ((rc = kist_iter_next(iter, &entry)) == KIST_OK) {
        met++;
        bytes += entry.key.len + entry.value.len;
    }
    must_rc(rc, KIST_END);
    kist_iter_close(iter);
    for (uint64_t key = 0; key < r->config->keys; key++)
        if (r->version[key])
            want += key_of(key).len + content_len(key, r->version[key]);
    must(met == r->entries && bytes == want);
    check_all(r);
}

static void op_stat(struct run *r)
{
    kist_stats stats = { .size = sizeof stats };
    double share;

    must_ok(kist_stat(some_bank(r), &stats));
    must_ok(kist_fragmentation(some_bank(r), &share));
    must(stats.entries == r->entries && stats.live_bytes >= stats.payload_bytes);
    must(stats.live_bytes + stats.wasted_bytes <= stats.heap_file_bytes);
    must(share >= 0 && share <= 1);
}

static void op_verify(struct run *r)
{
    must_verify(some_bank(r));
}

static void op_repair(struct run *r)
{
    must_ok(kist_repair(r->store[0], "m1", NULL, NULL, NULL));
    check_all(r);
}

static void open_handle(struct run *r, int i)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .segment_bytes = r->config->segment_bytes,
                              .verify = r->config->verify };

    must_ok(kist_bank_open(&r->bank[i], r->store[i], "m1", &opt));
}

static void op_reopen_bank(struct run *r)
{
    int i = (int)rng_below(&r->rng, 2);

    must_ok(kist_bank_close(r->bank[i]));
    open_handle(r, i);
}

static void op_reopen_all(struct run *r)
{
    for (int i = 0; i < 2; i++) {
        must_ok(kist_bank_close(r->bank[i]));
        must_ok(kist_store_close(r->store[i]));
    }
    for (int i = 0; i < 2; i++) {
        r->store[i] = open_store(r->dir);
        open_handle(r, i);
    }
    check_all(r);
}

/* ---- the run ---------------------------------------------------------- */

static const struct {
    void (*run)(struct run *r);
    uint32_t weight;
} ops[] = {
    { op_put, 40000 },     { op_delete, 15000 }, { op_get, 25000 },      { op_get_copy, 3000 },
    { op_get_many, 2000 }, { op_meta, 3000 },    { op_insert, 4000 },    { op_put_if, 4000 },
    { op_view, 3000 },     { op_count, 1000 },   { op_sync, 30 },        { op_compact, 60 },
    { op_clear, 4 },       { op_replace, 6 },    { op_walk, 10 },        { op_stat, 100 },
    { op_verify, 5 },      { op_repair, 5 },     { op_reopen_bank, 30 }, { op_reopen_all, 15 },
};
enum { OPS = sizeof ops / sizeof *ops };

static void step(struct run *r)
{
    uint64_t all = 0, pick;
    size_t i = 0;

    for (size_t k = 0; k < OPS; k++)
        all += ops[k].weight;
    for (pick = rng_below(&r->rng, all); pick >= ops[i].weight; i++)
        pick -= ops[i].weight;
    ops[i].run(r);
}

static void run_config(const struct config *config, uint64_t count)
{
    struct run *r = calloc(1, sizeof *r);

    r->config = config;
    r->rng.state = mix(test_seed(), config->keys);
    r->dir = tmp_dir(TMP_FAST);
    for (int i = 0; i < 2; i++) {
        r->store[i] = open_store(r->dir);
        open_handle(r, i);
    }
    for (uint64_t n = 0; n < count; n++) {
        test_case = ++row.cases;
        step(r);
    }
    op_walk(r);
    op_reopen_all(r);
    op_repair(r);
    for (int i = 0; i < VIEWS; i++)
        kist_view_release(r->held[i].view);
    for (int i = 0; i < 2; i++) {
        must_ok(kist_bank_close(r->bank[i]));
        must_ok(kist_store_close(r->store[i]));
    }
    tmp_remove(r->dir);
    free(r->dir);
    free(r);
}

TEST(a_bank_equals_a_plain_map_after_any_operations)
{
    uint64_t count = test_scaled(3000000);

    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        run_config(&configs[i], count * configs[i].share / 100);
    row_print(&row);
}
