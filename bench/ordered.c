/*
 * ordered - what is measured of ordered banks, beside a BTreeMap with an arena,
 * tkrzw's TreeDBM and LMDB.
 *
 * A row says what it needs a store to hold, and finds it so. Of each key the
 * driver knows by its number which version of its value a store has; so what a get or a
 * scan has to meet is computed, and compared, with the order of the keys.
 * Before anything is measured each engine has to pass ordered_check().
 *
 * At most a million operations of a kind are timed in a turn, so that rows with
 * more records come to an end; puts of new keys are then the last million.
 */
#include "driver.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TIMED_MAX = 1000000,
    SCANNED = 4000000,   /* entries that a turn of scans meets, at least */
    SNAPSHOTS = 99,
    LARGE = 10000000,
    SMALL = 1000,
    CHANGED_PART = 100,  /* of the keys one in so many is written before a revert */
    REMOVED_PART = 1000,
};
static_assert((int)SNAPSHOTS <= ROUNDS_MAX, "median() sorts a copy of this size");

/* What a row needs; and what it leaves, in the column's `holds`. */
enum holds {
    NOTHING = 0,
    FRESH = ROW_OWN,       /* all spread keys, put in random order */
    LOADED = ROW_OWN * 2,  /* the same, and perhaps overwritten, or compacted */
    COMPACT = ROW_OWN * 3, /* the same, and compacted */
    GROUPS = ROW_OWN * 4,  /* keys in groups, put in random order */
    GROUPS_COMPACT = ROW_OWN * 5,
};

static uint64_t timed(uint64_t n)
{
    return n < TIMED_MAX ? n : TIMED_MAX;
}

static int wrong(const struct column *c, const char *what)
{
    return bench_fail(c->engine->name, what, "not what was stored");
}

static const struct bench_order *order_of(const struct column *c)
{
    return c->engine->order;
}

/* ---- what a store should hold ----------------------------------------- */

static const void *value_of_rank(const struct values *v, uint64_t rank)
{
    return v->bytes[rank % 64];
}

static unsigned char first_byte(const struct column *c, uint64_t rank)
{
    return (unsigned char)(rank % 64 + c->held[rank]);
}

static uint64_t digest_of(const struct column *c, const struct key_set *k, uint64_t from,
                          uint64_t to)
{
    uint64_t digest = 0;

    for (uint64_t i = from; i < to; i++) {
        unsigned char first = first_byte(c, i);
        digest = bench_touch(digest, &k->sorted[i], &first);
    }
    return digest;
}

static int check_all(struct column *c, const struct key_set *k, const char *what)
{
    uint64_t digest = 0;
    int64_t n;

    if (column_read_begin(c) < 0)
        return -1;
    n = order_of(c)->scan(c->self, "", 0, &digest);
    column_read_end(c);
    if (n < 0)
        return -1;
    return (uint64_t)n == k->n && digest == digest_of(c, k, 0, k->n) ? 0 : wrong(c, what);
}

/* ---- filling ---------------------------------------------------------- */

/* Some keys in an order; `rank` is NULL where it is their own. */
struct run {
    const bench_key *key;
    const uint32_t *rank;
    uint64_t n;
};

static struct run shuffled(const struct key_set *k, uint64_t from, uint64_t to)
{
    return (struct run){ k->order + from, k->rank + from, to - from };
}

static int put_run(struct column *c, const struct values *v, struct run r, uint64_t first)
{
    int (*put)(void *, const bench_key *, const void *) = c->engine->put;
    void *self = c->self;
    int rc = 0;

    for (uint64_t i = 0; i < r.n; i++)
        rc |= put(self, &r.key[i], value_of_rank(v, r.rank ? r.rank[i] : first + i));
    return rc;
}

static void note_run(struct column *c, struct run r, uint64_t first)
{
    for (uint64_t i = 0; i < r.n; i++)
        c->held[r.rank ? r.rank[i] : first + i] = (unsigned char)c->version;
}

static int begin_load(struct bench *b, struct column *c)
{
    if (!c->held && !(c->held = malloc(b->entries)))
        return bench_fail("bench", "load", "out of memory");
    if (column_empty(c) < 0)
        return -1;
    c->holds = NOTHING;
    c->version = 1;
    values_fill(&b->values, c->version);
    memset(c->held, (int)c->version, b->entries);
    return column_open(b, c, BENCH_LOAD);
}

static int end_load(struct column *c)
{
    if (c->engine->sync(c->self) < 0)
        return -1;
    return column_rest(c);
}

static int load(struct bench *b, struct column *c, const struct key_set *k)
{
    if (begin_load(b, c) < 0 || put_run(c, &b->values, shuffled(k, 0, k->n), 0) < 0)
        return -1;
    return end_load(c);
}

static int compact(struct bench *b, struct column *c)
{
    if (column_open(b, c, BENCH_USE) < 0 || order_of(c)->compact(c->self) < 0 ||
        c->engine->sync(c->self) < 0)
        return -1;
    return column_rest(c);
}

static bool has(const struct column *c, enum holds needs)
{
    switch (needs) {
    case NOTHING:
        return true;
    case LOADED:
        return c->holds == FRESH || c->holds == LOADED || c->holds == COMPACT;
    default:
        return c->holds == needs;
    }
}

static int prepare(struct bench *b, const struct row *r, struct column *c)
{
    enum holds needs = (enum holds)(r->flags / ROW_OWN * ROW_OWN);
    bool groups = needs == GROUPS || needs == GROUPS_COMPACT;
    bool compacted = needs == COMPACT || needs == GROUPS_COMPACT;

    if (has(c, needs))
        return 0;
    if (!compacted || !has(c, groups ? GROUPS : LOADED)) {
        if (load(b, c, groups ? &b->groups : &b->spread) < 0)
            return -1;
        c->holds = groups ? GROUPS : FRESH;
    }
    if (compacted && compact(b, c) < 0)
        return -1;
    if (needs != LOADED)
        c->holds = needs;
    return 0;
}

/* Everything is read once, which is also when checksums are tested at `first`. */
static int warm(struct bench *b, const struct row *r, struct column *c)
{
    unsigned needs = r->flags / ROW_OWN * ROW_OWN;

    return check_all(c, needs >= GROUPS ? &b->groups : &b->spread, r->id);
}

/* ---- puts and gets ---------------------------------------------------- */

/* Of new keys, from an empty store on; or the last ones. */
static int turn_put_new(struct bench *b, struct column *c, double *result, bool ascending)
{
    const struct key_set *k = &b->spread;
    uint64_t before = k->n - timed(k->n);
    struct run all = shuffled(k, 0, k->n), some;
    double start;

    if (ascending)
        all = (struct run){ k->sorted, NULL, k->n };
    some = (struct run){ all.key + before, all.rank ? all.rank + before : NULL, k->n - before };
    all.n = before;
    if (begin_load(b, c) < 0 || put_run(c, &b->values, all, 0) < 0 || end_load(c) < 0 ||
        column_open(b, c, BENCH_USE) < 0)
        return -1;
    start = work_ns(b);
    if (put_run(c, &b->values, some, before) < 0)
        return -1;
    *result = (work_ns(b) - start) / (double)some.n;
    if (end_load(c) < 0)
        return -1;
    c->holds = ascending ? NOTHING : FRESH;
    return 0;
}

static int turn_put(struct bench *b, struct column *c, double *result)
{
    return turn_put_new(b, c, result, false);
}

static int turn_put_ascending(struct bench *b, struct column *c, double *result)
{
    return turn_put_new(b, c, result, true);
}

static int overwrite(struct bench *b, struct column *c, struct run r, double *result)
{
    struct run first = { r.key + r.n / 4 * 3, r.rank ? r.rank + r.n / 4 * 3 : NULL, r.n / 4 };
    double start;

    values_fill(&b->values, ++c->version);
    c->holds = LOADED;
    if (put_run(c, &b->values, first, r.n / 4 * 3) < 0)
        return -1;
    start = work_ns(b);
    if (put_run(c, &b->values, r, 0) < 0)
        return -1;
    *result = (work_ns(b) - start) / (double)r.n;
    note_run(c, r, 0);
    return c->engine->sync(c->self);
}

static int turn_over(struct bench *b, struct column *c, double *result)
{
    return overwrite(b, c, shuffled(&b->spread, 0, timed(b->spread.n)), result);
}

static int turn_over_ascending(struct bench *b, struct column *c, double *result)
{
    return overwrite(b, c, (struct run){ b->spread.sorted, NULL, timed(b->spread.n) }, result);
}

static uint64_t get_run(struct column *c, struct run r)
{
    int (*get)(void *, const bench_key *) = c->engine->get;
    void *self = c->self;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < r.n; i++)
        sum += (uint64_t)get(self, &r.key[i]);
    return sum;
}

static int turn_get(struct bench *b, struct column *c, double *result)
{
    struct run r = shuffled(&b->spread, 0, timed(b->spread.n));
    uint64_t expect = 0, sum;
    double start;

    for (uint64_t i = 0; i < r.n; i++)
        expect += first_byte(c, r.rank[i]);
    if (column_read_begin(c) < 0)
        return -1;
    (void)get_run(c, (struct run){ r.key + r.n / 4 * 3, NULL, r.n / 4 });
    start = work_ns(b);
    sum = get_run(c, r);
    *result = (work_ns(b) - start) / (double)r.n;
    column_read_end(c);
    return sum == expect ? 0 : wrong(c, "get");
}

/* ---- scans ------------------------------------------------------------ */

static int turn_scan(struct bench *b, struct column *c, double *result)
{
    const struct key_set *k = &b->spread;
    uint64_t passes = SCANNED / k->n + 1, sum = 0;
    int64_t n = 0;
    double start;

    if (column_read_begin(c) < 0)
        return -1;
    start = work_ns(b);
    for (uint64_t i = 0; i < passes; i++) {
        uint64_t digest = 0;
        int64_t met = order_of(c)->scan(c->self, "", 0, &digest);
        if (met < 0)
            return -1;
        n += met;
        sum += digest;
    }
    *result = (work_ns(b) - start) / (double)(passes * k->n);
    column_read_end(c);
    return (uint64_t)n == passes * k->n && sum == passes * digest_of(c, k, 0, k->n)
               ? 0
               : wrong(c, "scan");
}

static int scan_prefixes(struct column *c, struct run r, int64_t *n, uint64_t *sum)
{
    int64_t (*scan)(void *, const void *, size_t, uint64_t *) = order_of(c)->scan;

    for (uint64_t i = 0; i < r.n; i++) {
        uint64_t digest = 0;
        int64_t met = scan(c->self, &r.key[i], sizeof r.key[i].word[0], &digest);
        if (met < 0)
            return -1;
        *n += met;
        *sum += digest;
    }
    return 0;
}

static int turn_prefix(struct bench *b, struct column *c, double *result)
{
    const struct key_set *k = &b->prefixes;
    struct run all = shuffled(k, 0, k->n);
    uint64_t passes = SCANNED / b->groups.n + 1, expect = 0, sum = 0, ignored = 0;
    int64_t n = 0, n_ignored = 0;
    double start;

    for (uint64_t i = 0; i < k->n; i++)
        expect += digest_of(c, &b->groups, i * KEYS_GROUP, (i + 1) * KEYS_GROUP);
    if (column_read_begin(c) < 0 ||
        scan_prefixes(c, shuffled(k, 0, k->n / 4), &n_ignored, &ignored) < 0)
        return -1;
    start = work_ns(b);
    for (uint64_t i = 0; i < passes; i++) {
        if (scan_prefixes(c, all, &n, &sum) < 0)
            return -1;
    }
    *result = (work_ns(b) - start) / (double)(passes * k->n);
    column_read_end(c);
    return (uint64_t)n == passes * b->groups.n && sum == passes * expect ? 0
                                                                          : wrong(c, "prefix scan");
}

/* ---- snapshots -------------------------------------------------------- */

/* Taking one, each of a new moment: a put, untimed, comes before. */
static int time_snapshots(struct bench *b, struct column *c, const bench_key *key, double *result)
{
    double took[SNAPSHOTS], begin = now_ns();
    int n = 0;

    while (n < SNAPSHOTS && (n < 3 || now_ns() - begin < 1e9)) {
        void *snapshot;
        double start;
        if (c->engine->put(c->self, key, value_of_rank(&b->values, 0)) < 0)
            return -1;
        start = now_ns();
        if (order_of(c)->snapshot(c->self, &snapshot) < 0)
            return -1;
        took[n++] = now_ns() - start;
        order_of(c)->snapshot_free(c->self, snapshot);
    }
    *result = median(took, n);
    return 0;
}

static int turn_snapshot(struct bench *b, struct column *c, double *result)
{
    values_fill(&b->values, c->held[0]);
    return time_snapshots(b, c, &b->spread.sorted[0], result);
}

/* Of a store of its own, made at the first round. */
static int snapshot_of_size(const struct bench *b, const struct column *like, uint64_t entries,
                            double *result)
{
    static struct bench other;
    static struct column c;
    bench_key key;
    int rc;

    other = (struct bench){ .entries = entries, .cpu_time = b->cpu_time };
    c = (struct column){ .engine = like->engine };
    if ((size_t)snprintf(c.dir, sizeof c.dir, "%s-%llu", like->dir, (unsigned long long)entries) >=
        sizeof c.dir)
        return bench_fail("bench", like->dir, strerror(ENAMETOOLONG));
    values_fill(&other.values, 1);
    if (access(c.dir, F_OK) < 0) {
        if (column_empty(&c) < 0 || column_open(&other, &c, BENCH_LOAD) < 0)
            return -1;
        for (uint64_t i = 0; i < entries; i++) {
            key = data_key(i);
            if (c.engine->put(c.self, &key, value_of_rank(&other.values, i)) < 0)
                return -1;
        }
        if (end_load(&c) < 0)
            return -1;
    }
    key = data_key(entries / 2);
    rc = column_open(&other, &c, BENCH_USE) < 0 ? -1 : time_snapshots(&other, &c, &key, result);
    return column_close(&c) < 0 ? -1 : rc;
}

static int turn_snapshot_small(struct bench *b, struct column *c, double *result)
{
    return snapshot_of_size(b, c, SMALL, result);
}

static int turn_snapshot_large(struct bench *b, struct column *c, double *result)
{
    return snapshot_of_size(b, c, LARGE, result);
}

/* Write some keys, remove others, with nothing noted: it is to be undone. */
static int disturb(struct bench *b, struct column *c)
{
    const struct key_set *k = &b->spread;
    uint64_t changed = k->n / CHANGED_PART, removed = k->n / REMOVED_PART;

    c->holds = LOADED;
    values_fill(&b->values, c->version + 1);
    if (put_run(c, &b->values, shuffled(k, 0, changed), 0) < 0)
        return -1;
    for (uint64_t i = changed; i < changed + removed; i++) {
        if (order_of(c)->remove(c->self, &k->order[i]) < 0)
            return -1;
    }
    return 0;
}

static int turn_revert(struct bench *b, struct column *c, double *result)
{
    void *snapshot;
    double start;

    if (order_of(c)->snapshot(c->self, &snapshot) < 0 || disturb(b, c) < 0)
        return -1;
    start = now_ns();
    if (order_of(c)->revert(c->self, snapshot) < 0)
        return -1;
    *result = now_ns() - start;
    order_of(c)->snapshot_free(c->self, snapshot);
    if (c->engine->sync(c->self) < 0)
        return -1;
    return check_all(c, &b->spread, "revert");
}

static int saved_path(const struct column *c, char *path, size_t size)
{
    if ((size_t)snprintf(path, size, "%s.saved", c->dir) >= size)
        return bench_fail("bench", c->dir, strerror(ENAMETOOLONG));
    if (unlink(path) < 0 && errno != ENOENT)
        return bench_fail("bench", path, strerror(errno));
    return 0;
}

static int turn_save(struct bench *b, struct column *c, double *result)
{
    char path[PATH_BYTES];
    double start;

    if (saved_path(c, path, sizeof path) < 0)
        return -1;
    start = now_ns();
    if (order_of(c)->save(c->self, path) < 0)
        return -1;
    *result = (now_ns() - start) / (double)b->entries;
    return 0;
}

static int turn_restore(struct bench *b, struct column *c, double *result)
{
    char path[PATH_BYTES];
    double start;

    if (saved_path(c, path, sizeof path) < 0 || order_of(c)->save(c->self, path) < 0 ||
        disturb(b, c) < 0)
        return -1;
    start = now_ns();
    if (order_of(c)->restore(c->self, path) < 0)
        return -1;
    *result = (now_ns() - start) / (double)b->entries;
    if (c->engine->sync(c->self) < 0)
        return -1;
    return check_all(c, &b->spread, "restore");
}

/* ---- the rows --------------------------------------------------------- */

#define ALL "kist btreemap tkrzw lmdb"

/* clang-format off */
static struct row rows[] = {
    { "put-asc", "put, new keys, ascending", "ns", 1, ALL,
      BENCH_LOAD, UNOPENED | WRITES, turn_put_ascending, true, {{0}} },
    { "put", "put, new keys, random", "ns", 1, ALL,
      BENCH_LOAD, UNOPENED | WRITES, turn_put, true, {{0}} },
    { "scan", "full scan, as loaded, an entry", "ns", 1, ALL,
      BENCH_USE, WARM | FRESH, turn_scan, true, {{0}} },
    { "scan-always", "  verification `always`", "ns", 1, "kist",
      BENCH_VERIFY_ALWAYS, WARM | FRESH, turn_scan, true, {{0}} },
    { "scan-never", "  verification `never`", "ns", 1, "kist",
      BENCH_VERIFY_NEVER, WARM | FRESH, turn_scan, true, {{0}} },
    { "get", "get", "ns", 1, ALL,
      BENCH_USE, WARM | LOADED, turn_get, true, {{0}} },
    { "get-always", "  verification `always`", "ns", 1, "kist",
      BENCH_VERIFY_ALWAYS, WARM | LOADED, turn_get, true, {{0}} },
    { "get-never", "  verification `never`", "ns", 1, "kist",
      BENCH_VERIFY_NEVER, WARM | LOADED, turn_get, true, {{0}} },
    { "over-asc", "overwrite, ascending", "ns", 1, ALL,
      BENCH_USE, WARM | WRITES | LOADED, turn_over_ascending, true, {{0}} },
    { "over", "overwrite, random", "ns", 1, ALL,
      BENCH_USE, WARM | WRITES | LOADED, turn_over, true, {{0}} },
    { "scan-compact", "full scan, compacted, an entry", "ns", 1, ALL,
      BENCH_USE, WARM | COMPACT, turn_scan, true, {{0}} },
    { "snap-1k", "take a snapshot, 1,000 records", "us", 1e3, "kist lmdb",
      BENCH_USE, UNOPENED | LOADED, turn_snapshot_small, true, {{0}} },
    { "snap-10m", "  10,000,000 records", "us", 1e3, "kist",
      BENCH_USE, UNOPENED | LOADED, turn_snapshot_large, true, {{0}} },
    { "snap", "  as many as the other rows", "us", 1e3, "kist btreemap lmdb",
      BENCH_USE, LOADED, turn_snapshot, true, {{0}} },
    { "revert", "revert 1 % put, 0.1 % removed", "ms", 1e6, "kist btreemap",
      BENCH_USE, WARM | WRITES | LOADED, turn_revert, true, {{0}} },
    { "save", "save to a file, an entry", "ns", 1, "kist btreemap",
      BENCH_USE, WARM | WRITES | LOADED, turn_save, true, {{0}} },
    { "restore", "restore from it, an entry", "ns", 1, "kist btreemap",
      BENCH_USE, WARM | WRITES | LOADED, turn_restore, true, {{0}} },
    { "prefix", "prefix scan of 100, as loaded", "ns", 1, ALL,
      BENCH_USE, WARM | GROUPS, turn_prefix, true, {{0}} },
    { "prefix-compact", "  compacted", "ns", 1, ALL,
      BENCH_USE, WARM | GROUPS_COMPACT, turn_prefix, true, {{0}} },
};

static const struct comparison comparisons[] = {
    { "get: times faster than BTreeMap", "get", "btreemap", "get", "kist", AT_LEAST, 2, 3 },
    { "get: times faster than LMDB", "get", "lmdb", "get", "kist", AT_LEAST, 0, 2 },
    { "put, new: times faster than BTreeMap", "put", "btreemap", "put", "kist", AT_LEAST, 2, 3 },
    { "put, new: times faster than LMDB", "put", "lmdb", "put", "kist", AT_LEAST, 3, 0 },
    { "put, new, ascending: than BTreeMap", "put-asc", "btreemap", "put-asc", "kist", AT_LEAST, 0, 0 },
    { "put, new, ascending: than LMDB", "put-asc", "lmdb", "put-asc", "kist", AT_LEAST, 3, 0 },
    { "overwrite: times faster than BTreeMap", "over", "btreemap", "over", "kist", AT_LEAST, 2, 3 },
    { "overwrite: times faster than LMDB", "over", "lmdb", "over", "kist", AT_LEAST, 3, 0 },
    { "overwrite, ascending: than BTreeMap", "over-asc", "btreemap", "over-asc", "kist", AT_LEAST, 0, 0 },
    { "overwrite, ascending: than LMDB", "over-asc", "lmdb", "over-asc", "kist", AT_LEAST, 3, 0 },
    { "prefix scan: times faster than LMDB", "prefix", "lmdb", "prefix", "kist", AT_LEAST, 1, 1.3 },
    { "  both compacted", "prefix-compact", "lmdb", "prefix-compact", "kist", AT_LEAST, 0, 0 },
    { "full scan: times faster than LMDB", "scan", "lmdb", "scan", "kist", AT_LEAST, 1, 1.5 },
    { "  compacted, than LMDB as loaded", "scan", "lmdb", "scan-compact", "kist", AT_LEAST, 1.5, 2.5 },
    { "  both compacted", "scan-compact", "lmdb", "scan-compact", "kist", AT_LEAST, 0, 0 },
    { "snapshot: time at 10,000,000 / at 1,000", "snap-10m", "kist", "snap-1k", "kist", AT_MOST, 1.2, 0 },
};
/* clang-format on */

/* ---- the set ---------------------------------------------------------- */

static const struct bench_engine *const engines[] = {
    &bench_kist_ordered,
#ifdef HAVE_BTREEMAP
    &bench_btreemap,
#endif
#ifdef HAVE_TKRZW
    &bench_tkrzw_tree,
#endif
#ifdef HAVE_LMDB
    &bench_lmdb_ordered,
#endif
};
static_assert(sizeof engines / sizeof *engines <= COLUMNS_MAX, "a column for each");

static int set_init(struct bench *b)
{
    b->entries -= b->entries % KEYS_GROUP;
    if (keys_init(&b->spread, b->entries, KEYS_SPREAD) < 0 ||
        keys_init(&b->groups, b->entries, KEYS_GROUPS) < 0 ||
        keys_init(&b->prefixes, b->entries / KEYS_GROUP, KEYS_PREFIXES) < 0)
        return -1;
    for (int i = 0; i < b->columns; i++) {
        if (ordered_check(&b->column[i]) < 0)
            return -1;
    }
    return 0;
}

static void set_free(struct bench *b)
{
    keys_free(&b->spread);
    keys_free(&b->groups);
    keys_free(&b->prefixes);
    for (int i = 0; i < b->columns; i++)
        free(b->column[i].held);
}

static void set_shuffle(struct bench *b, const struct row *r)
{
    keys_shuffle(r->turn == turn_prefix ? &b->prefixes : &b->spread);
}

const struct bench_set bench_set_ordered = {
    .engines = engines,
    .engine_count = sizeof engines / sizeof *engines,
    .rows = rows,
    .row_count = sizeof rows / sizeof *rows,
    .comparisons = comparisons,
    .comparison_count = sizeof comparisons / sizeof *comparisons,
    .init = set_init,
    .free = set_free,
    .shuffle = set_shuffle,
    .prepare = prepare,
    .warm = warm,
};
