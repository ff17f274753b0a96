/*
 * What the child processes of the demonstration do: readers fetch at random
 * and check every byte, a writer rewrites at random until it is killed.
 *
 * A put raises `attempted`, stores, raises `acked`. So a get that began when
 * `acked` was a and ended when `attempted` was b must be handed a version from
 * a to b; and none below one that a reader was handed before it began.
 */
#include "demo.h"
#include "fail.h"
#include "progress.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9E3779B97F4A7C15u;

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

void demo_fail(struct demo *d, const char *format, ...)
{
    va_list list;

    if (atomic_exchange_explicit(&d->shared->failed, true, memory_order_acq_rel))
        return;
    va_start(list, format);
    (void)vsnprintf(d->shared->failure, sizeof d->shared->failure, format, list);
    va_end(list);
}

void demo_fail_kist(struct demo *d, const char *doing, int rc)
{
    const kist_error *error = kist_last_error();

    demo_fail(d, "%s: %s (%s)", doing, error->rc == rc ? error->what : kist_strerror(rc),
              kist_errname(rc));
}

kist_bank *demo_open(struct demo *d, kist_store **store, bool writing)
{
    kist_store_options store_options = { .size = sizeof store_options };
    kist_bank_options bank_options = { .size = sizeof bank_options };
    kist_bank *bank = NULL;
    int rc;

    store_options.flags = writing ? KIST_STORE_CREATE : KIST_STORE_READONLY;
    bank_options.flags = writing ? KIST_BANK_CREATE : KIST_BANK_READONLY;
    rc = kist_store_open(store, d->store, &store_options);
    if (rc == KIST_OK)
        rc = kist_bank_open(&bank, *store, "files", &bank_options);
    if (rc != KIST_OK)
        demo_fail_kist(d, "cannot open the bank", rc);
    return bank;
}

static void add(_Atomic uint64_t *count, uint64_t more)
{
    (void)atomic_fetch_add_explicit(count, more, memory_order_relaxed);
}

/* ---- reading ---------------------------------------------------------- */

static void raise_to(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);

    while (old < value &&
           !atomic_compare_exchange_weak_explicit(word, &old, value, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

/* The version below which no get that begins now may answer. */
static uint64_t floor_of(struct versions *v)
{
    uint64_t acked = atomic_load_explicit(&v->acked, memory_order_acquire);
    uint64_t seen = atomic_load_explicit(&v->seen, memory_order_acquire);

    return acked > seen ? acked : seen;
}

static void check_value(struct demo *d, kist_bytes value, size_t index, uint64_t least,
                        struct reader_tally *tally)
{
    struct versions *v = &d->shared->versions[index];
    uint64_t most = atomic_load_explicit(&v->attempted, memory_order_acquire);
    uint64_t version = 0, wrong = value_check(value, d, index, &version);

    if (wrong > 0)
        add(&tally->wrong_bytes, wrong);
    else if (version < least || version > most)
        add(&tally->stale, 1);
    else
        raise_to(&v->seen, version);
    add(&tally->reads, 1);
    add(&tally->bytes, value.len);
}

static void note_failure(struct demo *d, int rc, size_t index, struct reader_tally *tally)
{
    char doing[600];

    add(rc == KIST_MISS ? &tally->missing : &tally->errors, 1);
    (void)snprintf(doing, sizeof doing, "getting %s", quoted(d->entries[index].key));
    if (rc == KIST_MISS)
        demo_fail(d, "%s: not found, though it is always there", doing);
    else
        demo_fail_kist(d, doing, rc);
}

void read_entry(struct demo *d, kist_bank *bank, size_t index, struct reader_tally *tally)
{
    const struct entry *e = &d->entries[index];
    uint64_t least = floor_of(&d->shared->versions[index]), start;
    kist_bytes value;
    int rc = kist_read_begin();

    if (rc != KIST_OK) {
        note_failure(d, rc, index, tally);
        return;
    }
    start = now_ns();
    rc = kist_get(bank, (kist_bytes){ e->key, e->key_len }, &value);
    times_add(&tally->gets, now_ns() - start);
    if (rc == KIST_OK)
        check_value(d, value, index, least, tally);
    else
        note_failure(d, rc, index, tally);
    kist_read_end();
}

static bool stopped(const struct demo *d)
{
    return atomic_load_explicit(&d->shared->stop, memory_order_acquire);
}

int reader_run(struct demo *d, unsigned number)
{
    uint64_t seed = number + 1;
    kist_store *store = NULL;
    kist_bank *bank = demo_open(d, &store, false);

    while (bank != NULL && !stopped(d))
        read_entry(d, bank, random_next(&seed) % d->count, &d->shared->readers[number]);
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
    return bank == NULL;
}

/* ---- writing ---------------------------------------------------------- */

struct writer {
    struct demo *d;
    kist_bank *bank;
    unsigned char *buf; /* for the longest value */
    uint64_t seed;
    uint64_t puts;
    timer_t fuse; /* sends SIGKILL to this process */
    bool has_fuse;
    uint64_t fuse_after; /* puts */
};

/* So many bytes a second are rewritten, that the demonstration does not fill
 * the disk: a fifth of all, 8 MiB at least. */
static uint64_t pace(const struct demo *d)
{
    uint64_t fifth = d->payload / 5;

    return fifth > 8 << 20 ? fifth : 8 << 20;
}

static void keep_pace(const struct demo *d, uint64_t written, uint64_t start)
{
    const struct timespec nap = { .tv_nsec = 200000 };

    while (!stopped(d) && written > pace(d) * (now_ns() - start + 20000000) / 1000000000)
        (void)nanosleep(&nap, NULL);
}

/* Any entry, but large ones seldom: they would take all of the pace. */
static size_t draw_entry(const struct demo *d, uint64_t *seed)
{
    enum { OFTEN = 256 << 10 };

    for (;;) {
        size_t index = random_next(seed) % d->count;

        if (d->entries[index].size <= OFTEN || random_next(seed) % d->entries[index].size < OFTEN)
            return index;
    }
}

/* A put takes a microsecond or two, too short to be caught from outside often.
 * So the kernel is asked for a SIGKILL in a moment, from one put to the next
 * until it comes. Without such timers the parent has to do all the killing. */
static void light_fuse(struct writer *w, uint64_t typical_ns)
{
    struct itimerspec when = { 0 };

    when.it_value.tv_nsec = (long)(1 + random_next(&w->seed) % (2 * typical_ns));
    (void)timer_settime(w->fuse, 0, &when, NULL);
}

static void put_out_fuse(struct writer *w)
{
    (void)timer_settime(w->fuse, 0, &(struct itimerspec){ 0 }, NULL);
}

static bool make_fuse(struct writer *w)
{
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };

    w->fuse_after = atomic_load_explicit(&w->d->shared->fuse, memory_order_relaxed);
    return w->fuse_after != 0 && timer_create(CLOCK_MONOTONIC, &event, &w->fuse) == 0;
}

static int rewrite(struct writer *w, size_t index)
{
    struct demo_shared *s = w->d->shared;
    struct versions *v = &s->versions[index];
    const struct entry *e = &w->d->entries[index];
    kist_bytes key = { e->key, e->key_len }, value = { w->buf, value_len(e) };
    uint64_t version = atomic_load_explicit(&v->attempted, memory_order_relaxed) + 1, start, end;
    bool lit = w->has_fuse && w->puts++ >= w->fuse_after;
    int rc;

    value_make(w->buf, w->d, index, version);
    atomic_store_explicit(&v->attempted, version, memory_order_release);
    atomic_store_explicit(&s->writer_place, WRITER_IN_PUT, memory_order_release);
    if (lit)
        light_fuse(w, 2000 + value.len / 4);
    start = now_ns();
    rc = kist_put(w->bank, key, value);
    end = now_ns();
    atomic_store_explicit(&s->writer_place, WRITER_OUTSIDE, memory_order_release);
    if (lit)
        put_out_fuse(w);
    if (rc != KIST_OK)
        return rc;
    atomic_store_explicit(&v->acked, version, memory_order_release);
    times_add(&s->put_times, end - start);
    add(&s->puts, 1);
    add(&s->put_bytes, e->key_len + value_len(e));
    return KIST_OK;
}

/* When half of the heap is dead, give its space back. */
static int compact_if_due(struct demo *d, kist_bank *bank)
{
    struct demo_shared *s = d->shared;
    double dead = 0;
    int rc = kist_fragmentation(bank, &dead);

    if (rc != KIST_OK || dead < 0.5)
        return rc;
    atomic_store_explicit(&s->writer_place, WRITER_IN_COMPACT, memory_order_release);
    rc = kist_compact(bank, NULL, NULL);
    atomic_store_explicit(&s->writer_place, WRITER_OUTSIDE, memory_order_release);
    add(&s->compactions, rc == KIST_OK);
    return rc;
}

static int write_on(struct writer *w)
{
    uint64_t start = now_ns(), written = 0;
    int rc = KIST_OK;

    for (unsigned n = 0; rc == KIST_OK && !stopped(w->d); n++) {
        size_t index = draw_entry(w->d, &w->seed);

        rc = rewrite(w, index);
        if (rc == KIST_OK && n % 64 == 0)
            rc = compact_if_due(w->d, w->bank);
        written += value_len(&w->d->entries[index]);
        keep_pace(w->d, written, start);
    }
    return rc;
}

static size_t longest_value(const struct demo *d)
{
    size_t most = 0;

    for (size_t i = 0; i < d->count; i++)
        if (value_len(&d->entries[i]) > most)
            most = value_len(&d->entries[i]);
    return most;
}

int writer_run(struct demo *d, uint64_t seed)
{
    struct writer w = { .d = d, .seed = seed, .buf = malloc(longest_value(d)) };
    kist_store *store = NULL;
    int rc = w.buf == NULL ? KIST_ENOMEM : KIST_OK;

    w.bank = demo_open(d, &store, true);
    if (w.bank == NULL)
        return 1;
    w.has_fuse = make_fuse(&w);
    if (rc == KIST_OK)
        rc = write_on(&w);
    if (rc != KIST_OK)
        demo_fail_kist(d, "rewriting", rc);
    free(w.buf);
    if (kist_bank_close(w.bank) != KIST_OK || kist_store_close(store) != KIST_OK)
        demo_fail(d, "closing the store: %s", kist_last_error()->what);
    return rc != KIST_OK;
}
