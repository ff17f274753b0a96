/*
 * What the demonstration measured and found, on one page.
 */
#include "demo.h"
#include "fail.h"
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- times ------------------------------------------------------------ */

static unsigned bucket_of(uint64_t ns)
{
    unsigned log;

    if (ns < TIMES_STEPS)
        return (unsigned)ns;
    log = 63 - (unsigned)__builtin_clzll(ns);
    return (log - 4) * TIMES_STEPS + (unsigned)(ns >> (log - 5) & (TIMES_STEPS - 1));
}

/* The least time that falls into a bucket. */
static uint64_t bucket_start(unsigned bucket)
{
    unsigned log = bucket / TIMES_STEPS + 4;

    if (bucket < TIMES_STEPS)
        return bucket;
    return (uint64_t)(TIMES_STEPS + bucket % TIMES_STEPS) << (log - 5);
}

void times_add(struct times *times, uint64_t ns)
{
    (void)atomic_fetch_add_explicit(&times->count[bucket_of(ns)], 1, memory_order_relaxed);
}

uint64_t times_count(const struct times *times)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < TIMES_BUCKETS; i++)
        n += atomic_load_explicit(&times->count[i], memory_order_relaxed);
    return n;
}

uint64_t times_quantile(const struct times *times, double share)
{
    uint64_t n = times_count(times), below = 0, want = (uint64_t)(share * (double)n);

    for (unsigned i = 0; i < TIMES_BUCKETS && n > 0; i++) {
        below += atomic_load_explicit(&times->count[i], memory_order_relaxed);
        if (below > want)
            return bucket_start(i);
    }
    return 0;
}

/* Those of several processes in one. */
static void times_join(struct times *all, const struct times *more)
{
    for (unsigned i = 0; i < TIMES_BUCKETS; i++)
        (void)atomic_fetch_add_explicit(&all->count[i], more->count[i], memory_order_relaxed);
}

/* ---- the page --------------------------------------------------------- */

struct totals {
    uint64_t reads, bytes, wrong_bytes, stale, missing, errors;
};

static void totals_add(struct totals *t, const struct reader_tally *tally)
{
    t->reads += tally->reads;
    t->bytes += tally->bytes;
    t->wrong_bytes += tally->wrong_bytes;
    t->stale += tally->stale;
    t->missing += tally->missing;
    t->errors += tally->errors;
}

static const char *human_time(uint64_t ns)
{
    static char ring[4][32];
    static unsigned next;
    char *buf = ring[next++ % 4];

    if (ns < 10000)
        (void)snprintf(buf, sizeof ring[0], "%" PRIu64 " ns", ns);
    else if (ns < 1000000)
        (void)snprintf(buf, sizeof ring[0], "%.1f us", (double)ns / 1e3);
    else
        (void)snprintf(buf, sizeof ring[0], "%.1f ms", (double)ns / 1e6);
    return buf;
}

static void print_times(const char *name, const struct times *times, const char *note)
{
    printf("  %-16s median %s, 99.9th percentile %s%s\n", name,
           human_time(times_quantile(times, 0.5)), human_time(times_quantile(times, 0.999)), note);
}

static void print_loading(const struct demo *d)
{
    double seconds = (double)d->load_ns / 1e9;

    printf("  %-16s %zu, of %" PRIu64 " files below %s", "entries", d->count, d->files_found,
           d->dir);
    if (d->files_unreadable > 0)
        printf(" (%" PRIu64 " more could not be read)", d->files_unreadable);
    printf("\n  %-16s %s, loaded in %.1f s, reading the files included\n", "keys and values",
           human_bytes(d->payload), seconds);
}

static void print_space(const struct demo *d)
{
    double payload = (double)d->payload;

    printf("  %-16s %s, %.2f x keys and values", "on disk", human_bytes(d->disk_bytes),
           (double)d->disk_bytes / payload);
    if (d->reserved_bytes < d->disk_bytes)
        printf("; %.2f x without what is kept ready for growth",
               (double)(d->disk_bytes - d->reserved_bytes) / payload);
    printf("\n  %-16s %s, after rewriting %s and compacting %u times\n", "",
           human_bytes(d->end_disk_bytes), human_bytes(d->shared->put_bytes),
           (unsigned)d->shared->compactions);
}

static void print_kills(const struct demo *d)
{
    printf("  %-16s %u writers by SIGKILL in %.1f s: %u inside a put, %u inside a compaction\n",
           "killed", d->kills, (double)d->churn_ns / 1e9, d->kills_in_put, d->kills_in_compact);
    if (d->kills_in_put < d->want_kills)
        printf("  %-16s fewer inside a put than the %u wanted, for lack of time\n", "",
               d->want_kills);
}

void report_print(const struct demo *d)
{
    static struct times gets; /* large */
    struct totals t = { 0 };

    for (unsigned i = 0; i < READERS; i++) {
        totals_add(&t, &d->shared->readers[i]);
        times_join(&gets, &d->shared->readers[i].gets);
    }
    print_loading(d);
    print_space(d);
    print_times("put", &d->shared->put_times, "");
    print_times("get", &gets, " (a record's first read checks it)");
    printf("  %-16s %" PRIu64 " by %d processes meanwhile, %s compared byte by byte\n", "reads",
           t.reads, READERS, human_bytes(t.bytes));
    print_kills(d);
    totals_add(&t, &d->shared->last);
    printf("  %-16s %s; %" PRIu64 " entries read again and compared\n", "in the end",
           d->verified.damaged == 0 && d->verified.unreachable == 0 ? "kist verify finds it whole"
                                                                    : "kist verify finds damage",
           d->shared->last.reads);
    printf("  %-16s %" PRIu64 "; values too old or too new %" PRIu64 ", missing %" PRIu64
           ", errors %" PRIu64 "\n",
           "wrong bytes", t.wrong_bytes, t.stale, t.missing, t.errors);
}

uint64_t report_faults(const struct demo *d)
{
    struct totals t = { 0 };

    for (unsigned i = 0; i < READERS; i++)
        totals_add(&t, &d->shared->readers[i]);
    totals_add(&t, &d->shared->last);
    return t.wrong_bytes + t.stale + t.missing + t.errors + d->verified.damaged +
           d->verified.unreachable;
}
