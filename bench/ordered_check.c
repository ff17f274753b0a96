/*
 * ordered_check - do the ordered engines give the same answers? Each is driven
 * through random operations beside a plain list of what it should hold.
 */
#include "driver.h"

#include <string.h>

enum { KEYS = 5 * KEYS_GROUP, OPERATIONS = 20000 };

struct model {
    struct key_set keys;
    unsigned char first[KEYS]; /* of the value */
    bool there[KEYS];
    struct bench bench;
    struct column column;
};

static int wrong(const struct model *m, const char *what)
{
    return bench_fail(m->column.engine->name, what, "not the answer of a plain sorted list");
}

static int check_put(struct model *m, uint64_t i)
{
    unsigned version = (unsigned)data_below(&m->keys.random, 200);

    values_fill(&m->bench.values, version);
    m->there[i] = true;
    m->first[i] = (unsigned char)(i % 64 + version);
    return m->column.engine->put(m->column.self, &m->keys.sorted[i],
                                 m->bench.values.bytes[i % 64]);
}

static int check_remove(struct model *m, uint64_t i)
{
    m->there[i] = false;
    return m->column.engine->order->remove(m->column.self, &m->keys.sorted[i]);
}

static int check_get(struct model *m, uint64_t i)
{
    int found = m->column.engine->get(m->column.self, &m->keys.sorted[i]);

    return found == (m->there[i] ? m->first[i] : (int)BENCH_MISS) ? 0 : wrong(m, "get");
}

/* The prefix of a key, that may reach into its second half. */
static int check_scan(struct model *m, uint64_t i, size_t len)
{
    uint64_t digest = 0, expect = 0;
    int64_t n = 0, met;

    for (uint64_t k = 0; k < KEYS; k++) {
        if (m->there[k] && memcmp(&m->keys.sorted[k], &m->keys.sorted[i], len) == 0) {
            expect = bench_touch(expect, &m->keys.sorted[k], &m->first[k]);
            n++;
        }
    }
    met = m->column.engine->order->scan(m->column.self, &m->keys.sorted[i], len, &digest);
    return met == n && digest == expect ? 0 : wrong(m, "scan");
}

static int check_one(struct model *m)
{
    uint64_t i = data_below(&m->keys.random, KEYS), what = data_below(&m->keys.random, 10);
    int rc;

    if (what < 4)
        return check_put(m, i);
    if (what < 6)
        return check_remove(m, i);
    if (column_read_begin(&m->column) < 0)
        return -1;
    rc = what < 9 ? check_get(m, i)
                  : check_scan(m, i, data_below(&m->keys.random, BENCH_KEY_BYTES + 1));
    column_read_end(&m->column);
    return rc;
}

static int check_whole(struct model *m)
{
    int rc;

    if (column_read_begin(&m->column) < 0)
        return -1;
    rc = check_scan(m, 0, 0);
    for (uint64_t i = 0; i < KEYS && rc == 0; i++)
        rc = check_get(m, i);
    column_read_end(&m->column);
    return rc;
}

static int check_engine(struct model *m)
{
    struct column *c = &m->column;

    if (column_open(&m->bench, c, BENCH_LOAD) < 0 || c->engine->sync(c->self) < 0 ||
        column_rest(c) < 0 || column_open(&m->bench, c, BENCH_USE) < 0)
        return -1;
    for (int i = 0; i < OPERATIONS; i++) {
        if (check_one(m) < 0)
            return -1;
    }
    if (check_whole(m) < 0 || c->engine->order->compact(c->self) < 0 || check_whole(m) < 0 ||
        column_rest(c) < 0 || column_open(&m->bench, c, BENCH_USE) < 0)
        return -1;
    return check_whole(m);
}

int ordered_check(const struct column *like)
{
    static struct model m;
    int rc;

    memset(&m, 0, sizeof m);
    m.bench.entries = KEYS;
    m.column.engine = like->engine;
    if ((size_t)snprintf(m.column.dir, sizeof m.column.dir, "%s-check", like->dir) >=
        sizeof m.column.dir)
        return bench_fail("bench", like->dir, "its path is too long");
    rc = keys_init(&m.keys, KEYS, KEYS_GROUPS);
    if (rc == 0 && (column_empty(&m.column) < 0 || check_engine(&m) < 0))
        rc = -1;
    if (column_close(&m.column) < 0 || files_remove(m.column.dir) < 0)
        rc = -1;
    keys_free(&m.keys);
    return rc;
}
