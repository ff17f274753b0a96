/*
 * rows - what is measured of kist's hash banks, beside the limit, tkrzw and LMDB.
 *
 * Each turn that reads adds up the first bytes of the values, and the sum
 * must be right: no read can be left out.
 */
#include "driver.h"

#include <assert.h>

enum { OPENS = 41, DURABLE_PUTS = 50, DURABLE_WARM = 5 };
static_assert((int)OPENS <= ROUNDS_MAX, "median() sorts a copy of this size");

static int wrong(const struct column *c, const char *what)
{
    return bench_fail(c->engine->name, what, "not what was stored");
}

/* ---- reading ---------------------------------------------------------- */

static uint64_t get_all(struct column *c, const bench_key *keys, uint64_t n)
{
    int (*get)(void *, const bench_key *) = c->engine->get;
    void *self = c->self;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += (uint64_t)get(self, &keys[i]);
    return sum;
}

static int timed_get(const struct bench *b, struct column *c, const bench_key *keys,
                     uint64_t expect, double *result)
{
    const struct data *d = &b->data;
    double start;
    uint64_t sum;

    if (column_read_begin(c) < 0)
        return -1;
    (void)get_all(c, d->sample, d->samples);
    start = work_ns(b);
    sum = get_all(c, keys, d->entries);
    *result = (work_ns(b) - start) / (double)d->entries;
    column_read_end(c);
    return sum == expect ? 0 : wrong(c, "get");
}

static int turn_get(struct bench *b, struct column *c, double *result)
{
    return timed_get(b, c, b->data.order, values_sum(&b->data, c->version), result);
}

static int turn_miss(struct bench *b, struct column *c, double *result)
{
    return timed_get(b, c, b->data.absent, b->data.entries * BENCH_MISS, result);
}

static int get_each(struct column *c, const bench_key *keys, uint64_t n, uint64_t *sum)
{
    for (uint64_t i = 0; i < n; i++) {
        if (column_read_begin(c) < 0)
            return -1;
        *sum += (uint64_t)c->engine->get(c->self, &keys[i]);
        column_read_end(c);
    }
    return 0;
}

/* With what makes a pointer valid begun and ended around each get. */
static int turn_get_alone(struct bench *b, struct column *c, double *result)
{
    const struct data *d = &b->data;
    uint64_t ignored = 0, sum = 0;
    double start;

    if (get_each(c, d->sample, d->samples, &ignored) < 0)
        return -1;
    start = work_ns(b);
    if (get_each(c, d->order, d->entries, &sum) < 0)
        return -1;
    *result = (work_ns(b) - start) / (double)d->entries;
    return sum == values_sum(d, c->version) ? 0 : wrong(c, "get");
}

static int turn_get_many(struct bench *b, struct column *c, double *result)
{
    const struct data *d = &b->data;
    int (*get_many)(void *, const bench_key *, uint64_t *) = c->engine->get_many;
    uint64_t n = d->entries / BENCH_BATCH * BENCH_BATCH, found = 0, sum = 0, expect;
    double start;

    if (column_read_begin(c) < 0)
        return -1;
    (void)get_all(c, d->sample, d->samples);
    start = work_ns(b);
    for (uint64_t i = 0; i < n; i += BENCH_BATCH)
        found += (uint64_t)get_many(c->self, &d->order[i], &sum);
    *result = (work_ns(b) - start) / (double)n;
    expect = values_sum(d, c->version) - get_all(c, d->order + n, d->entries - n);
    column_read_end(c);
    return found == n && sum == expect ? 0 : wrong(c, "get many");
}

/* Open a store that was closed in order, and get one record. */
static int turn_open(struct bench *b, struct column *c, double *result, enum bench_mode mode)
{
    double took[OPENS];

    for (uint64_t i = 0; i < OPENS; i++) {
        const bench_key *key = &b->data.order[i % b->data.entries];
        double start = now_ns();
        if (column_open(b, c, mode) < 0 || column_read_begin(c) < 0)
            return -1;
        int first = c->engine->get(c->self, key);
        took[i] = now_ns() - start;
        column_read_end(c);
        if (column_close(c) < 0)
            return -1;
        if (first < 0 || first == BENCH_MISS)
            return wrong(c, "get after open");
    }
    *result = median(took, OPENS);
    return 0;
}

static int turn_open_writable(struct bench *b, struct column *c, double *result)
{
    return turn_open(b, c, result, BENCH_USE);
}

static int turn_open_readonly(struct bench *b, struct column *c, double *result)
{
    return turn_open(b, c, result, BENCH_READONLY);
}

/* ---- writing ---------------------------------------------------------- */

static int put_all(struct column *c, const struct values *v, const bench_key *keys, uint64_t n)
{
    int (*put)(void *, const bench_key *, const void *) = c->engine->put;
    void *self = c->self;
    int rc = 0;

    for (uint64_t i = 0; i < n; i++)
        rc |= put(self, &keys[i], value_of(v, &keys[i]));
    return rc;
}

static int load_anew(struct bench *b, struct column *c)
{
    if (column_empty(c) < 0)
        return -1;
    c->version = 1;
    values_fill(&b->values, c->version);
    return column_open(b, c, BENCH_LOAD);
}

static int turn_load(struct bench *b, struct column *c, double *result)
{
    const struct data *d = &b->data;
    double start;

    if (load_anew(b, c) < 0)
        return -1;
    start = now_ns();
    if (put_all(c, &b->values, d->all, d->entries) < 0 || c->engine->sync(c->self) < 0)
        return -1;
    *result = (now_ns() - start) / (double)d->entries;
    if (c->engine->use && c->engine->use(c->self, &c->use) < 0)
        return -1;
    if (column_rest(c) < 0)
        return -1;
    return files_bytes(c->dir, &c->disk_bytes);
}

static int turn_overwrite(struct bench *b, struct column *c, double *result)
{
    const struct data *d = &b->data;
    double start;

    values_fill(&b->values, ++c->version);
    if (put_all(c, &b->values, d->sample, d->samples) < 0)
        return -1;
    start = work_ns(b);
    if (put_all(c, &b->values, d->order, d->entries) < 0)
        return -1;
    *result = (work_ns(b) - start) / (double)d->entries;
    if (c->engine->sync(c->self) < 0)
        return -1;
    return c->engine->tidy ? c->engine->tidy(c->self) : 0;
}

static int turn_durable(struct bench *b, struct column *c, double *result)
{
    const struct data *d = &b->data;
    uint64_t n = d->entries < DURABLE_PUTS ? d->entries : DURABLE_PUTS;
    double start;

    values_fill(&b->values, c->version);
    for (uint64_t i = 0; i < DURABLE_WARM && i < d->samples; i++) {
        if (put_all(c, &b->values, &d->sample[i], 1) < 0)
            return -1;
    }
    start = now_ns();
    if (put_all(c, &b->values, d->order, n) < 0)
        return -1;
    *result = (now_ns() - start) / (double)n;
    return 0;
}

/* ---- size ------------------------------------------------------------- */

static double per_payload(const struct bench *b, uint64_t bytes)
{
    return (double)bytes / (double)(b->data.entries * BENCH_PAYLOAD_BYTES);
}

static int turn_disk(struct bench *b, struct column *c, double *result)
{
    *result = per_payload(b, c->disk_bytes);
    return 0;
}

static int turn_disk_used(struct bench *b, struct column *c, double *result)
{
    *result = per_payload(b, c->disk_bytes - c->use.reserved_bytes);
    return 0;
}

/* ---- all of them ------------------------------------------------------ */

/* clang-format off */
static struct row rows[] = {
    { "load", "load, one sync at the end", "ns", 1, "limit kist tkrzw lmdb",
      BENCH_LOAD, UNOPENED | WRITES, turn_load, true, {{0}} },
    { "disk", "bytes on disk / payload", "", 1, "kist tkrzw lmdb",
      BENCH_USE, UNOPENED | ONCE, turn_disk, true, {{0}} },
    { "disk-used", "  the same without what is reserved", "", 1, "kist tkrzw lmdb",
      BENCH_USE, UNOPENED | ONCE, turn_disk_used, true, {{0}} },
    { "get", "get", "ns", 1, "limit kist tkrzw lmdb",
      BENCH_USE, WARM, turn_get, true, {{0}} },
    { "get-16", "  16 at once", "ns", 1, "limit kist",
      BENCH_USE, WARM, turn_get_many, true, {{0}} },
    { "get-alone", "  a section or transaction each", "ns", 1, "kist lmdb",
      BENCH_USE, WARM, turn_get_alone, true, {{0}} },
    { "get-always", "  verification `always`", "ns", 1, "limit kist",
      BENCH_VERIFY_ALWAYS, WARM, turn_get, true, {{0}} },
    { "get-never", "  verification `never`", "ns", 1, "limit kist",
      BENCH_VERIFY_NEVER, WARM, turn_get, true, {{0}} },
    { "miss", "get of a missing key", "ns", 1, "limit kist tkrzw lmdb",
      BENCH_USE, WARM, turn_miss, true, {{0}} },
    { "overwrite", "overwrite, not synced", "ns", 1, "limit kist tkrzw lmdb",
      BENCH_USE, WARM | WRITES, turn_overwrite, true, {{0}} },
    { "open", "open and first get", "us", 1e3, "kist tkrzw lmdb",
      BENCH_USE, UNOPENED, turn_open_writable, true, {{0}} },
    { "open-read", "  for reading alone", "us", 1e3, "kist tkrzw lmdb",
      BENCH_READONLY, UNOPENED, turn_open_readonly, true, {{0}} },
    { "durable", "durable put", "us", 1e3, "pwrite kist tkrzw lmdb",
      BENCH_DURABLE, SLICED, turn_durable, true, {{0}} },
};
/* clang-format on */

/* clang-format off */
static const struct comparison comparisons[] = {
    { "get: time / the limit's",       "get", "kist", "get", "limit", AT_MOST, 1.4, 1.25 },
    { "get: times faster than LMDB",   "get", "lmdb", "get", "kist", AT_LEAST, 6, 8 },
    { "get: times faster than tkrzw",  "get", "tkrzw", "get", "kist", AT_LEAST, 0, 0 },
    { "16 at once: times faster than single", "get", "kist", "get-16", "kist", AT_LEAST, 0, 1.6 },
    { "16 at once: time / the limit's", "get-16", "kist", "get-16", "limit", AT_MOST, 0, 0 },
    { "miss: time / the limit's",      "miss", "kist", "miss", "limit", AT_MOST, 0, 1.25 },
    { "miss: times faster than LMDB",  "miss", "lmdb", "miss", "kist", AT_LEAST, 0, 0 },
    { "overwrite: time / the limit's", "overwrite", "kist", "overwrite", "limit", AT_MOST, 0, 2.5 },
    { "overwrite: times faster than tkrzw", "overwrite", "tkrzw", "overwrite", "kist", AT_LEAST, 3, 3.5 },
    { "overwrite: times faster than LMDB", "overwrite", "lmdb", "overwrite", "kist", AT_LEAST, 10, 15 },
    { "load: times faster than tkrzw", "load", "tkrzw", "load", "kist", AT_LEAST, 0, 3 },
    { "load: times faster than LMDB",  "load", "lmdb", "load", "kist", AT_LEAST, 0, 9 },
    { "durable put: speed / pwrite + fdatasync", "durable", "pwrite", "durable", "kist", AT_LEAST, 0.8, 0.9 },
    { "open, first get: time / tkrzw's", "open", "kist", "open", "tkrzw", AT_MOST, 3, 0 },
    { "open, first get: us",           "open", "kist", NULL, NULL, AT_MOST, 0, 100 },
    { "bytes on disk / LMDB's",        "disk", "kist", "disk", "lmdb", AT_MOST, 1, 0 },
    { "  without what is reserved",    "disk-used", "kist", "disk", "lmdb", AT_MOST, 1, 0 },
    { "  without it / payload",        "disk-used", "kist", NULL, NULL, AT_MOST, 0, 1.5 },
};
/* clang-format on */

/* ---- the set ---------------------------------------------------------- */

static const struct bench_engine *const engines[] = {
    &bench_limit, &bench_pwrite, &bench_kist,
#ifdef HAVE_TKRZW
    &bench_tkrzw,
#endif
#ifdef HAVE_LMDB
    &bench_lmdb,
#endif
};
static_assert(sizeof engines / sizeof *engines <= COLUMNS_MAX, "a column for each");

static int set_init(struct bench *b)
{
    return data_init(&b->data, b->entries);
}

static void set_free(struct bench *b)
{
    data_free(&b->data);
}

static void set_shuffle(struct bench *b, const struct row *r)
{
    (void)r;
    data_shuffle(&b->data);
}

static int set_prepare(struct bench *b, const struct row *r, struct column *c)
{
    double ignored;

    if (r->turn == turn_load || !c->engine->get || c->version)
        return 0;
    return turn_load(b, c, &ignored);
}

static int set_warm(struct bench *b, const struct row *r, struct column *c)
{
    (void)r;
    if (column_read_begin(c) < 0)
        return -1;
    (void)get_all(c, b->data.all, b->data.entries);
    column_read_end(c);
    return 0;
}

const struct bench_set bench_set_hash = {
    .engines = engines,
    .engine_count = sizeof engines / sizeof *engines,
    .rows = rows,
    .row_count = sizeof rows / sizeof *rows,
    .comparisons = comparisons,
    .comparison_count = sizeof comparisons / sizeof *comparisons,
    .init = set_init,
    .free = set_free,
    .shuffle = set_shuffle,
    .prepare = set_prepare,
    .warm = set_warm,
};
