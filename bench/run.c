/*
 * run - rows, rounds and turns, of whatever set of rows.
 *
 * A row is measured in rounds; in each round every engine of the row has one
 * turn, so that a change of the machine's pace meets all of them. A turn
 * begins with a quarter as many operations that are not timed (the engine before
 * has used up the caches), and what it wrote is synced when its time has
 * been taken, so that no disk works during the turn of the next.
 */
#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SLICES = 20 };

bool (*rows_stop)(void);

static double clock_ns(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* For what waits for no disk. */
double work_ns(const struct bench *b)
{
    return clock_ns(b->cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double median(const double *values, int n)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}
/* ---- opening and closing ---------------------------------------------- */

int column_open(struct bench *b, struct column *c, enum bench_mode mode)
{
    struct bench_conf conf = {
        .dir = c->dir,
        .entries = b->entries,
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

int column_close(struct column *c)
{
    void *self = c->self;

    c->self = NULL;
    return self ? c->engine->close(self) : 0;
}

/* An engine in memory has its records nowhere else. */
int column_rest(struct column *c)
{
    return c->engine->in_memory ? 0 : column_close(c);
}

int column_read_begin(struct column *c)
{
    return c->engine->read_begin ? c->engine->read_begin(c->self) : 0;
}

void column_read_end(struct column *c)
{
    if (c->engine->read_end)
        c->engine->read_end(c->self);
}

int column_empty(struct column *c)
{
    if (column_close(c) < 0 || files_remove(c->dir) < 0)
        return -1;
    return mkdir(c->dir, 0700) < 0 ? bench_fail("bench", c->dir, strerror(errno)) : 0;
}

/* ---- rows ------------------------------------------------------------- */

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
        if (!row_has(r, c))
            continue;
        if (b->set->prepare(b, r, c) < 0)
            return -1;
        if (!(r->flags & UNOPENED) && column_open(b, c, r->mode) < 0)
            return -1;
        if (!(r->flags & WARM))
            continue;
        if (b->set->warm(b, r, c) < 0)
            return -1;
    }
    return 0;
}

/* About what the files of a turn grow by. */
static uint64_t bytes_written(const struct bench *b)
{
    return b->entries * (BENCH_PAYLOAD_BYTES + 100);
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
        if (r->flags & WRITES && files_touch_memory(c->dir, bytes_written(b)) < 0)
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
        b->set->shuffle(b, r);
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

    for (int i = 0; i < b->set->row_count && rc == 0; i++) {
        if (b->set->rows[i].wanted)
            rc = row_run(b, &b->set->rows[i]);
    }
    for (int i = 0; i < b->columns; i++) {
        if (column_close(&b->column[i]) < 0)
            rc = -1;
    }
    if (b->progress)
        fprintf(stderr, "\r\033[K");
    return rc;
}
