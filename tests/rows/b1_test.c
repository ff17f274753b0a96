/*
 * B1: the page cache and the write pipeline equal a byte array.
 *
 * A program is some thousand random operations: numbers of every type set and
 * got at any address, ranges written and read, pages persisted, everything
 * committed, invalidated, discarded; over a device that ends anywhere, with
 * pages of 1 to 4,096 bytes, a cache of one page or more than fit, every kind
 * of device, while now and then a call of it fails, a writev in its middle.
 *
 * Three arrays know what must be seen:
 *   logical   through the writer: what is pending over what the device has
 *   the device's own bytes: through the cache, always, since nobody else
 *             writes it, so that a page that is not forgotten is noticed
 *   dirty     which pages are pending: how many calls a commit may take, and
 *             that it touches no other page
 */
#include "paged.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>

enum { OPS = 10000000, STEPS = 4000, PAGES = 24, NUMBER = 16, ROOM = (PAGES + 4) * 4096 };

struct program {
    struct rng rng;
    struct paged d;
    enum paged_kind kind;
    kist_pages *pages;
    kist_writer *writer;
    uint32_t flags; /* of the writer */
    uint64_t most;  /* pending pages */

    unsigned char logical[ROOM];
    uint64_t len;
    bool dirty[ROOM];
    uint64_t failed; /* calls that were told to fail and did */
};

static struct row row = { .id = "B1" };
static uint64_t operations, failures_met;

/* ---- numbers, as their bytes in the device ---------------------------- */

static void swap(unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        unsigned char c = bytes[i];

        bytes[i] = bytes[n - 1 - i];
        bytes[n - 1 - i] = c;
    }
}

struct type {
    const char *name;
    size_t size;
    int (*get)(kist_pages *p, uint64_t addr, unsigned char *out);
    int (*get_pending)(kist_writer *w, uint64_t addr, unsigned char *out);
    int (*set)(kist_writer *w, uint64_t addr, const unsigned char *from);
};

#define X_(name, type, convert)                                                                    \
    static int get_##name(kist_pages *p, uint64_t addr, unsigned char *out)                        \
    {                                                                                              \
        type v = 0;                                                                                \
        int rc = kist_pages_get_##name(p, addr, &v);                                               \
                                                                                                   \
        memcpy(out, &v, sizeof v);                                                                 \
        return rc;                                                                                 \
    }                                                                                              \
    static int get_pending_##name(kist_writer *w, uint64_t addr, unsigned char *out)               \
    {                                                                                              \
        type v = 0;                                                                                \
        int rc = kist_writer_get_##name(w, addr, &v);                                              \
                                                                                                   \
        memcpy(out, &v, sizeof v);                                                                 \
        return rc;                                                                                 \
    }                                                                                              \
    static int set_##name(kist_writer *w, uint64_t addr, const unsigned char *from)                \
    {                                                                                              \
        type v;                                                                                    \
                                                                                                   \
        memcpy(&v, from, sizeof v);                                                                \
        return kist_writer_set_##name(w, addr, v);                                                 \
    }
KIST_PAGES_TYPES(X_)
#undef X_

static const struct type types[] = {
#define X_(name, type, convert) { #name, sizeof(type), get_##name, get_pending_##name, set_##name },
    KIST_PAGES_TYPES(X_)
#undef X_
};
enum { TYPES = sizeof types / sizeof *types };

static bool is_big(const struct type *t)
{
    return strstr(t->name, "_be") != NULL;
}

/* ---- what must be seen ------------------------------------------------ */

/* A read of `n` bytes at `addr` returned `rc` and `got`. */
static void must_see(struct program *g, int rc, uint64_t addr, size_t n, const unsigned char *got,
                     const unsigned char *bytes, uint64_t len)
{
    if (rc == PAGED_FAILS) {
        g->failed++;
        return;
    }
    if (n > 0 && (addr > len || len - addr < n)) {
        must_rc(rc, KIST_EBOUNDS);
        must(kist_last_error()->offset == addr);
        return;
    }
    must_ok(rc);
    must(memcmp(got, bytes + addr, n) == 0);
}

static void supply(struct program *g, const kist_pages_gap *gap)
{
    uint64_t end = gap->addr + gap->len < g->d.len ? gap->addr + gap->len : g->d.len;
    uint64_t n = gap->addr < end ? end - gap->addr : 0;

    must_ok(kist_pages_supply(g->pages, gap->addr, g->d.bytes + gap->addr, n, gap->ticket));
}

/* Where the device can't be asked: hand in what is missing of the range. */
static void have(struct program *g, uint64_t addr, uint64_t len)
{
    kist_pages_gap gap;
    size_t n;

    while (g->kind == PAGED_NEITHER) {
        must_ok(kist_pages_missing(g->pages, addr, len, &gap, 1, &n));
        if (n == 0)
            return;
        supply(g, &gap);
    }
}

/* Commit, or persist a range. What is absent is handed in, and it goes on: a
 * write that made the device longer has the cache forget where it ended. */
static int write_out(struct program *g, bool all, uint64_t addr, uint64_t len)
{
    int rc;

    do {
        have(g, 0, g->len);
        rc = all ? kist_writer_commit(g->writer) : kist_writer_persist(g->writer, addr, len);
    } while (rc == KIST_ABSENT && g->kind == PAGED_NEITHER);
    return rc;
}

/* ---- operations ------------------------------------------------------- */

static uint64_t any_address(struct program *g)
{
    uint64_t near = rng_below(&g->rng, 40), page = g->d.page, base = 0;

    switch (rng_below(&g->rng, 4)) {
    case 0:
        base = (rng_below(&g->rng, g->len / page + 1) + 1) * page; /* around a border */
        break;
    case 1:
        base = g->len; /* around the end */
        break;
    default:
        return rng_below(&g->rng, g->len + 1);
    }
    return base + near < 20 ? near : base + near - 20;
}

static void op_get(struct program *g, bool pending)
{
    const struct type *t = &types[rng_below(&g->rng, TYPES)];
    unsigned char got[NUMBER];
    uint64_t addr = any_address(g);
    int rc;

    have(g, addr < ROOM ? addr : 0, NUMBER);
    rc = pending ? t->get_pending(g->writer, addr, got) : t->get(g->pages, addr, got);
    if (is_big(t))
        swap(got, t->size);
    must_see(g, rc, addr, t->size, got, pending ? g->logical : g->d.bytes,
             pending ? g->len : g->d.len);
}

static void op_read(struct program *g)
{
    static unsigned char got[ROOM];
    uint64_t addr = any_address(g), len = rng_below(&g->rng, 3 * g->d.page);
    bool pending = rng_below(&g->rng, 2);
    int rc;

    have(g, addr < ROOM ? addr : 0, len);
    rc = pending ? kist_writer_read(g->writer, addr, got, len)
                 : kist_pages_read(g->pages, addr, got, len);
    must_see(g, rc, addr, len, got, pending ? g->logical : g->d.bytes, pending ? g->len : g->d.len);
}

static uint64_t dirty_pages(const struct program *g)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < ROOM / g->d.page && i < ROOM; i++)
        n += g->dirty[i];
    return n;
}

/* The device as it is now is what is seen: nothing is pending. */
static void nothing_pending(struct program *g)
{
    memset(g->logical, 0, sizeof g->logical);
    memcpy(g->logical, g->d.bytes, g->d.len);
    g->len = g->d.len;
    memset(g->dirty, 0, sizeof g->dirty);
}

/* Bytes were to be pending. True if they are. */
static bool was_set(struct program *g, int rc, uint64_t addr, size_t n)
{
    uint64_t first = addr / g->d.page, last = (addr + n - 1) / g->d.page, fresh = 0;

    for (uint64_t i = first; i <= last; i++)
        fresh += !g->dirty[i];
    if (rc == KIST_EPENDING) {
        must(last - first + 1 > g->most || dirty_pages(g) + fresh > g->most);
        return false;
    }
    must_ok(rc);
    for (uint64_t i = first; i <= last; i++)
        g->dirty[i] = true;
    must(dirty_pages(g) <= g->most);
    return true;
}

static void now_logical(struct program *g, uint64_t addr, const unsigned char *bytes, size_t n)
{
    memcpy(g->logical + addr, bytes, n);
    g->len = addr + n > g->len ? addr + n : g->len;
}

static void op_set(struct program *g)
{
    const struct type *t = &types[rng_below(&g->rng, TYPES)];
    unsigned char raw[NUMBER], value[NUMBER];
    uint64_t addr = any_address(g), a = rng_next(&g->rng), b = rng_next(&g->rng);

    if (addr > ROOM - 8192)
        return;
    memcpy(raw, &a, 8);
    memcpy(raw + 8, &b, 8);
    memcpy(value, raw, NUMBER);
    if (is_big(t))
        swap(value, t->size);
    if (was_set(g, t->set(g->writer, addr, value), addr, t->size))
        now_logical(g, addr, raw, t->size);
}

static void op_write(struct program *g)
{
    static unsigned char bytes[3 * 4096];
    uint64_t addr = any_address(g), len = rng_below(&g->rng, 2 * g->d.page) + 1;

    if (addr > ROOM - 3 * 8192)
        return;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)rng_next(&g->rng);
    if (was_set(g, kist_writer_write(g->writer, addr, bytes, len), addr, len))
        now_logical(g, addr, bytes, len);
}

/* Runs of dirty pages in a range. */
static uint64_t runs(const struct program *g, uint64_t first, uint64_t last)
{
    uint64_t n = 0;

    for (uint64_t i = first; i <= last && i < ROOM / g->d.page; i++)
        n += g->dirty[i] && (i == first || !g->dirty[i - 1]);
    return n;
}

/* Pages of the range are written, others are as they were. */
static void after_persist(struct program *g, const unsigned char *before, uint64_t before_len,
                          uint64_t first, uint64_t last)
{
    uint64_t page = g->d.page;

    for (uint64_t i = 0; i * page < g->d.len; i++) {
        uint64_t end = (i + 1) * page < g->d.len ? (i + 1) * page : g->d.len;

        if (g->dirty[i] && i >= first && i <= last) {
            must(memcmp(g->d.bytes + i * page, g->logical + i * page, end - i * page) == 0);
            g->dirty[i] = false;
        } else if (i * page < before_len) {
            end = end < before_len ? end : before_len;
            must(memcmp(g->d.bytes + i * page, before + i * page, end - i * page) == 0);
        }
    }
}

static void op_persist(struct program *g, bool all)
{
    static unsigned char before[ROOM];
    uint64_t addr = all ? 0 : any_address(g), len = all ? ROOM : rng_below(&g->rng, 4 * g->d.page);
    uint64_t first = addr / g->d.page, last = (addr + len - 1) / g->d.page;
    uint64_t before_len = g->d.len, writes = g->d.writes, wanted;
    kist_writer_stats s = { .size = sizeof s };
    int rc;

    if (addr >= ROOM || len == 0)
        return;
    memcpy(before, g->d.bytes, ROOM);
    wanted = runs(g, first, last);
    rc = write_out(g, all, addr, len);
    if (rc == PAGED_FAILS) {
        g->failed++; /* logical holds, whatever of it was written */
        must_ok(kist_writer_stat(g->writer, &s));
        must(s.pending_pages > 0);
        return;
    }
    must_ok(rc);
    if (g->kind != PAGED_NEITHER && !(g->flags & KIST_WRITER_IN_ORDER))
        must(g->d.writes - writes == wanted);
    after_persist(g, before, before_len, first, last);
    if (all)
        must(g->d.len == g->len && memcmp(g->d.bytes, g->logical, g->len) == 0);
}

/* After a failure it is not known which pages left; ask nothing of `dirty`
 * before everything was written. */
static void recover(struct program *g)
{
    g->d.map_fails_at = g->d.write_fails_at = g->d.sync_fails_at = 0;
    must_ok(write_out(g, true, 0, 0));
    must(g->d.len == g->len && memcmp(g->d.bytes, g->logical, g->len) == 0);
    nothing_pending(g);
}

static void arm(struct program *g)
{
    struct paged *d = &g->d;

    switch (rng_below(&g->rng, 3)) {
    case 0:
        d->map_fails_at = d->maps + 1 + rng_below(&g->rng, 4);
        break;
    case 1:
        d->write_fails_at = d->writes + 1 + rng_below(&g->rng, 4);
        d->torn = rng_below(&g->rng, 3 * d->page);
        break;
    default:
        d->sync_fails_at = d->syncs + 1;
    }
}

static void op_get_cached(struct program *g)
{
    op_get(g, false);
}

static void op_get_pending(struct program *g)
{
    op_get(g, true);
}

static void op_persist_range(struct program *g)
{
    op_persist(g, false);
}

static void op_commit(struct program *g)
{
    op_persist(g, true);
}

static void op_invalidate(struct program *g)
{
    kist_pages_invalidate(g->pages, any_address(g), rng_below(&g->rng, 3 * g->d.page));
}

static void op_discard(struct program *g)
{
    kist_writer_discard(g->writer);
    nothing_pending(g);
}

/* How often each is done, in a thousand. */
static const struct {
    void (*run)(struct program *g);
    uint64_t share;
} ops[] = {
    { op_get_pending, 370 },  { op_get_cached, 160 },
    { op_set, 260 },          { op_write, 90 },
    { op_read, 80 },          { op_invalidate, 19 },
    { op_persist_range, 12 }, { op_commit, 4 },
    { op_discard, 1 },        { arm, 4 },
};

static void step(struct program *g)
{
    uint64_t failed = g->failed, at = rng_below(&g->rng, 1000);
    size_t i = 0;

    for (; at >= ops[i].share; i++)
        at -= ops[i].share;
    ops[i].run(g);
    if (g->failed != failed)
        recover(g);
}

static void open_all(struct program *g)
{
    kist_writer_options opt = { .size = sizeof opt };
    uint32_t cache = 1u << rng_below(&g->rng, 6);

    g->kind = (enum paged_kind)rng_below(&g->rng, PAGED_KINDS);
    if (g->kind == PAGED_NEITHER)
        cache = 1u << 16;
    g->pages = paged_open(&g->d, g->kind, cache,
                          rng_below(&g->rng, 4) == 0 ? (uint32_t)KIST_PAGES_THREADS : 0);
    opt.flags = (uint32_t)rng_below(&g->rng, 4); /* SYNC, IN_ORDER */
    opt.pending_pages = (uint32_t)rng_below(&g->rng, 40) + 1;
    g->flags = opt.flags;
    g->most = opt.pending_pages;
    must_ok(kist_writer_open(&g->writer, g->pages, &opt));
}

static void run_program(uint64_t number)
{
    static struct program g;
    uint64_t page;

    memset(&g, 0, sizeof g);
    g.rng.state = mix(test_seed(), number);
    page = UINT64_C(1) << (rng_below(&g.rng, 8) == 0 ? rng_below(&g.rng, 6)
                                                     : 6 + rng_below(&g.rng, 7));
    paged_init(&g.d, rng_below(&g.rng, PAGES * page), ROOM, page, number);
    nothing_pending(&g);
    open_all(&g);
    for (int i = 0; i < STEPS; i++) {
        operations++;
        step(&g);
    }
    recover(&g);
    failures_met += g.failed;
    kist_writer_close(g.writer);
    kist_pages_close(g.pages);
    paged_free(&g.d);
}

TEST(page_cache_and_write_pipeline_equal_a_byte_array)
{
    uint64_t programs = test_scaled(OPS) / STEPS + 1;

    for (test_case = 1; test_case <= programs; test_case++)
        run_program(test_case);
    test_case = 0;
    row.cases = operations;
    row.states = programs;
    row_print(&row);
    (void)printf("B1: %" PRIu64 " calls of devices failed\n", failures_met);
    must(failures_met > 0 || programs < 10);
}
