/* One cache, many threads: reads, slices, invalidations and pages handed in at
 * the same time. Runs under the thread sanitizer too. */
#include "paged.h"
#include "support.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { PAGE = 64, COUNT = 64, THREADS = 6 };

/* A device without state of its own: the byte at an address is a function of
 * it, and of the version, which only grows. */
static _Atomic uint64_t version;

static unsigned char byte_of(uint64_t addr, uint64_t at)
{
    return (unsigned char)(mix(addr, 9) + at);
}

static int64_t function(void *arg, uint64_t pos, void *buf, size_t len)
{
    uint64_t now = atomic_load(&version);
    unsigned char *out = buf;

    (void)arg;
    if (pos >= COUNT * PAGE)
        return 0;
    len = COUNT * PAGE - pos < len ? (size_t)(COUNT * PAGE - pos) : len;
    for (size_t i = 0; i < len; i++)
        out[i] = byte_of(pos + i, now);
    return (int64_t)len;
}

struct worker {
    kist_pages *pages;
    uint64_t number, steps;
};

/* All bytes are of one version, and that is none before `before`. */
static void check_bytes(uint64_t addr, const unsigned char *bytes, size_t len, uint64_t before)
{
    uint64_t after = atomic_load(&version);
    unsigned char age = (unsigned char)(bytes[0] - byte_of(addr, 0));

    for (size_t i = 0; i < len; i++)
        must(bytes[i] == byte_of(addr + i, age));
    if (after - before <= UCHAR_MAX) /* else every age came meanwhile */
        must((unsigned char)(after - age) <= after - before);
}

static void read_page(kist_pages *p, uint64_t page)
{
    unsigned char buf[PAGE];
    uint64_t before = atomic_load(&version);
    kist_slice s = { 0 };
    int rc;

    must_ok(kist_pages_read(p, page * PAGE, buf, PAGE));
    check_bytes(page * PAGE, buf, PAGE, before > 0 ? before - 1 : 0);
    must_ok(kist_pages_load(p, page * PAGE, 1, &s));
    memcpy(buf, s.bytes.data, PAGE);
    check_bytes(page * PAGE, buf, PAGE, before > 0 ? before - 1 : 0);
    rc = kist_pages_next(p, &s);
    must(rc == (page + 1 < COUNT ? KIST_OK : KIST_END));
    kist_slice_release(p, &s);
}

static void supply_page(kist_pages *p, uint64_t page)
{
    kist_pages_gap gap;
    unsigned char buf[PAGE];
    size_t n;
    int rc;

    must_ok(kist_pages_missing(p, page * PAGE, 1, &gap, 1, &n));
    if (n == 0)
        return;
    (void)function(NULL, gap.addr, buf, PAGE);
    rc = kist_pages_supply(p, gap.addr, buf, PAGE, gap.ticket);
    must(rc == KIST_OK || rc == KIST_CHANGED || rc == KIST_EBUSY);
}

/* The device changes, and then what is cached of it is forgotten. */
static void change(kist_pages *p)
{
    atomic_fetch_add(&version, 1);
    kist_pages_invalidate(p, 0, UINT64_MAX);
}

static void *work(void *arg)
{
    const struct worker *w = arg;
    struct rng rng = { mix(test_seed(), w->number) };

    for (uint64_t i = 0; i < w->steps; i++) {
        uint64_t page = rng_below(&rng, COUNT);

        if (w->number == 0 && i % 20 == 0)
            change(w->pages);
        else if (rng_below(&rng, 4) == 0)
            supply_page(w->pages, page);
        else
            read_page(w->pages, page);
    }
    return NULL;
}

static void run_over(uint32_t cache, uint32_t ahead)
{
    kist_device device = { .size = sizeof device, .map = function };
    kist_pages_options opt = { .size = sizeof opt,
                               .flags = KIST_PAGES_THREADS,
                               .page_bytes = PAGE,
                               .cache_pages = cache,
                               .ahead_pages = ahead };
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    kist_pages_stats stats;
    kist_pages *p;

    atomic_store(&version, 0);
    must_ok(kist_pages_open(&p, &device, &opt));
    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ p, i, test_scaled(20000) };
        must(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (uint64_t i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    stats = paged_stats(p);
    must(stats.pinned == 0 && stats.hits > 0 && stats.misses > 0);
    kist_pages_close(p);
}

TEST(threads_read_whole_pages_of_no_version_before_the_last_invalidation)
{
    run_over(256, 0);
    run_over(16, 0);
    run_over(2, 0);
}

TEST(reading_ahead_in_many_threads_takes_no_stale_pages)
{
    run_over(64, 8);
    run_over(8, 4);
}

/* ---- two invalidations ------------------------------------------------- */

static _Atomic bool asked, go_on;

/* Whoever asks for page 0 waits, and holds its set locked. */
static int64_t slow_at_first(void *arg, uint64_t pos, void *buf, size_t len)
{
    (void)arg;
    atomic_store(&asked, true);
    while (pos == 0 && !atomic_load(&go_on))
        (void)sched_yield();
    memset(buf, 0, len);
    return (int64_t)len;
}

static void *read_first(void *arg)
{
    char byte;

    must_ok(kist_pages_read(arg, 0, &byte, 1));
    return NULL;
}

static void *forget_both(void *arg)
{
    kist_pages_invalidate(arg, 0, 2 * PAGE);
    return NULL;
}

/* The first one has begun and waits for page 0; a page 1 is fetched; the second
 * one forgets that, and only then the first comes to it. */
TEST(what_the_later_of_two_invalidations_forgot_is_not_handed_in)
{
    kist_device device = { .size = sizeof device, .map = slow_at_first };
    kist_pages_options opt = {
        .size = sizeof opt, .flags = KIST_PAGES_THREADS, .page_bytes = PAGE, .cache_pages = 64
    };
    static const unsigned char stale[PAGE] = "stale";
    pthread_t reader, first;
    kist_pages_gap gap = { 0 };
    kist_pages *p;
    size_t n;

    must_ok(kist_pages_open(&p, &device, &opt));
    must(pthread_create(&reader, NULL, read_first, p) == 0);
    while (!atomic_load(&asked))
        (void)sched_yield();
    must(pthread_create(&first, NULL, forget_both, p) == 0);
    while (gap.ticket == 0)
        must_ok(kist_pages_missing(p, PAGE, 1, &gap, 1, &n));
    kist_pages_invalidate(p, PAGE, 1);
    atomic_store(&go_on, true);
    must(pthread_join(reader, NULL) == 0 && pthread_join(first, NULL) == 0);
    must(kist_pages_supply(p, PAGE, stale, PAGE, gap.ticket) == KIST_CHANGED);
    kist_pages_close(p);
}

/* ---- one writer ------------------------------------------------------- */

enum { SPREAD = 40, NUMBERS = 200 };

struct setter {
    kist_writer *writer;
    kist_pages *pages;
    uint64_t number;
};

/* Each thread has words of its own, side by side with those of the others. */
static void *set_and_get(void *arg)
{
    const struct setter *s = arg;
    struct rng rng = { mix(test_seed(), s->number) };
    uint64_t last[NUMBERS] = { 0 };

    for (uint64_t n = test_scaled(20000); n > 0; n--) {
        uint64_t i = rng_below(&rng, NUMBERS), addr = (i * SPREAD) + s->number * 6, v = 0, w = 0;

        if (rng_below(&rng, 3) == 0) {
            v = n & 0xFFFFFFFF;
            must_ok(kist_writer_set_u32_le(s->writer, addr, (uint32_t)v));
            last[i] = v;
        } else {
            uint32_t got = 0;

            must_ok(kist_writer_get_u32_le(s->writer, addr, &got));
            must(got == last[i]);
            must_ok(kist_pages_get_u64_le(s->pages, addr, &w)); /* some version of it */
        }
        if (rng_below(&rng, 500) == 0)
            must_ok(rng_below(&rng, 2) ? kist_writer_commit(s->writer)
                                       : kist_writer_persist(s->writer, addr, 1000));
    }
    return NULL;
}

TEST(threads_share_a_writer_and_each_sees_what_it_has_set)
{
    static _Alignas(16) unsigned char memory[NUMBERS * SPREAD + 64];
    kist_device device;
    kist_pages_options opt = {
        .size = sizeof opt, .flags = KIST_PAGES_THREADS, .page_bytes = 256, .cache_pages = 16
    };
    kist_writer_options wopt = { .size = sizeof wopt,
                                 .flags = KIST_WRITER_SPILL,
                                 .pending_pages = 8 };
    struct setter setters[THREADS];
    pthread_t threads[THREADS];
    kist_pages *p;
    kist_writer *w;

    must_ok(kist_device_memory(&device, memory, sizeof memory, true));
    must_ok(kist_pages_open(&p, &device, &opt));
    must_ok(kist_writer_open(&w, p, &wopt));
    for (uint64_t i = 0; i < THREADS; i++) {
        setters[i] = (struct setter){ w, p, i };
        must(pthread_create(&threads[i], NULL, set_and_get, &setters[i]) == 0);
    }
    for (uint64_t i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    must_ok(kist_writer_commit(w));
    kist_writer_close(w);
    kist_pages_close(p);
    kist_device_close(&device);
}
