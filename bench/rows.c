/*
 * rows - what is measured, and how.
 *
 * A row is measured in rounds; in each round every engine of the row has one
 * turn, so that a change of the machine's pace meets all of them. A turn
 * begins with a quarter as many operations that are not timed (the engine before
 * has used up the caches), and what it wrote is synced when its time has
 * been taken, so that no disk works during the turn of the next.
 *
 * Each turn that reads adds up the first bytes of the values, and the sum
 * must be right: no read can be left out.
 */
#include "driver.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OPENS = 41, DURABLE_PUTS = 50, DURABLE_WARM = 5, SLICES = 20 };

enum row_flag {
    WARM = 1,     /* read everything once before the first round */
    UNOPENED = 2, /* the turn opens the store itself */
    ONCE = 4,     /* one round is enough */
    SLICED = 8,   /* a round is many short turns in alternation: what the disk
                     is busy with otherwise then meets all alike */
    WRITES = 16,  /* memory that the page cache is to take is touched before */
};

bool (*rows_stop)(void);

static double clock_ns(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* For what waits for no disk. */
static double work_ns(const struct bench *b)
{
    return clock_ns(b->cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}
static_assert((int)OPENS <= ROUNDS_MAX, "median sorts a copy of this size");

/* ---- opening and closing ---------------------------------------------- */

static int column_open(struct bench *b, struct column *c, enum bench_mode mode)
{
    struct bench_conf conf = {
        .dir = c->dir,
        .entries = b->data.entries,
        .mode = mode,
        .huge_pages = b->huge_pages,
        .record_bytes = 160, /* key, value and a header of 40 bytes */
    };

    for (int i = 0; i < b->columns; i++) {
        if (b->column[i].use.record_bytes)
            conf.record_bytes = b->column[i].use.record_bytes;
    }
    return c->self ? 0 : c->engine->open(&c->self, &conf);
}

static int column_close(struct column *c)
{
    void *self = c->self;

    c->self = NULL;
    return self ? c->engine->close(self) : 0;
}

/* An engine in memory has its records nowhere else. */
static int column_rest(struct column *c)
{
    return c->engine->in_memory ? 0 : column_close(c);
}

static int read_begin(struct column *c)
{
    return c->engine->read_begin ? c->engine->read_begin(c->self) : 0;
}

static void read_end(struct column *c)
{
    if (c->engine->read_end)
        c->engine->read_end(c->self);
}

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

    if (read_begin(c) < 0)
        return -1;
    (void)get_all(c, d->sample, d->samples);
    start = work_ns(b);
    sum = get_all(c, keys, d->entries);
    *result = (work_ns(b) - start) / (double)d->entries;
    read_end(c);
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
        if (read_begin(c) < 0)
            return -1;
        *sum += (uint64_t)c->engine->get(c->self, &keys[i]);
        read_end(c);
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

    if (read_begin(c) < 0)
        return -1;
    (void)get_all(c, d->sample, d->samples);
    start = work_ns(b);
    for (uint64_t i = 0; i < n; i += BENCH_BATCH)
        found += (uint64_t)get_many(c->self, &d->order[i], &sum);
    *result = (work_ns(b) - start) / (double)n;
    expect = values_sum(d, c->version) - get_all(c, d->order + n, d->entries - n);
    read_end(c);
    return found == n && sum == expect ? 0 : wrong(c, "get many");
}

/* Open a store that was closed in order, and get one record. */
static int turn_open(struct bench *b, struct column *c, double *result, enum bench_mode mode)
{
    double took[OPENS];

    for (uint64_t i = 0; i < OPENS; i++) {
        const bench_key *key = &b->data.order[i % b->data.entries];
        double start = now_ns();
        if (column_open(b, c, mode) < 0 || read_begin(c) < 0)
            return -1;
        int first = c->engine->get(c->self, key);
        took[i] = now_ns() - start;
        read_end(c);
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
    if (column_close(c) < 0 || files_remove(c->dir) < 0)
        return -1;
    if (mkdir(c->dir, 0700) < 0)
        return bench_fail("bench", c->dir, strerror(errno));
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
struct row bench_rows[] = {
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
const int bench_row_count = sizeof bench_rows / sizeof *bench_rows;

bool row_has(const struct row *r, const struct column *c)
{
    size_t len = strlen(c->engine->name);

    for (const char *at = r->engines; (at = strstr(at, c->engine->name)); at += len) {
        if ((at == r->engines || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
            return true;
    }
    return false;
}

static int row_prepare(struct bench *b, struct row *r)
{
    for (int i = 0; i < b->columns; i++) {
        struct column *c = &b->column[i];
        double ignored;
        if (!row_has(r, c))
            continue;
        if (r->turn != turn_load && c->engine->get && !c->version && turn_load(b, c, &ignored) < 0)
            return -1;
        if (!(r->flags & UNOPENED) && column_open(b, c, r->mode) < 0)
            return -1;
        if (!(r->flags & WARM))
            continue;
        if (read_begin(c) < 0)
            return -1;
        (void)get_all(c, b->data.all, b->data.entries);
        read_end(c);
    }
    return 0;
}

/* About what the files of a turn grow by. */
static uint64_t bytes_written(const struct data *d)
{
    return d->entries * (BENCH_PAYLOAD_BYTES + 100);
}

static int row_slice(struct bench *b, struct row *r, int round, double share)
{
    for (int i = 0; i < b->columns; i++) {
        struct column *c = &b->column[i];
        double result;

        if (!row_has(r, c))
            continue;
        if (rows_stop && rows_stop())
            return bench_fail("bench", r->id, "interrupted");
        if (b->progress)
            fprintf(stderr, "\r\033[K%s, round %d, %s", r->id, round + 1, c->engine->name);
        if (r->flags & WRITES && files_touch_memory(c->dir, bytes_written(&b->data)) < 0)
            return -1;
        if (r->turn(b, c, &result) < 0)
            return -1;
        r->result[i].round[round] += result * share;
        r->result[i].rounds = round + 1;
    }
    return 0;
}

static int row_round(struct bench *b, struct row *r, int round)
{
    int slices = r->flags & SLICED ? SLICES : 1;

    for (int i = 0; i < slices; i++) {
        data_shuffle(&b->data);
        if (row_slice(b, r, round, 1.0 / slices) < 0)
            return -1;
    }
    return 0;
}

static int row_run(struct bench *b, struct row *r)
{
    int rounds = r->flags & ONCE ? 1 : b->rounds;

    if (row_prepare(b, r) < 0)
        return -1;
    for (int round = 0; round < rounds; round++) {
        if (row_round(b, r, round) < 0)
            return -1;
    }
    for (int i = 0; i < b->columns; i++) {
        struct result *result = &r->result[i];
        if (result->rounds)
            result->median = median(result->round, result->rounds);
        if (column_rest(&b->column[i]) < 0)
            return -1;
    }
    return 0;
}

int rows_run(struct bench *b)
{
    int rc = 0;

    for (int i = 0; i < bench_row_count && rc == 0; i++) {
        if (bench_rows[i].wanted)
            rc = row_run(b, &bench_rows[i]);
    }
    for (int i = 0; i < b->columns; i++) {
        if (column_close(&b->column[i]) < 0)
            rc = -1;
    }
    if (b->progress)
        fprintf(stderr, "\r\033[K");
    return rc;
}
