/*
 * Snapshots: each shows the moment at which it was taken, whatever happens to the
 * bank; and nothing is kept for one that is gone.
 */
#include "moments.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const uint32_t kinds[] = { KIST_INDEX_HASH, KIST_INDEX_ORDERED };

static struct fixture open_kind(uint32_t index, uint32_t segment_bytes)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = segment_bytes };

    return fixture_open_with(&opt);
}

static kist_stats stats_of(kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };

    must_ok(kist_stat(bank, &stats));
    return stats;
}

static uint64_t heap_files(const char *dir)
{
    char *pattern = path_join(dir, "bank/kist.heap.*");
    glob_t found;
    uint64_t n;
    int rc = glob(pattern, 0, NULL, &found);

    must(rc == 0 || rc == GLOB_NOMATCH);
    n = rc == 0 ? found.gl_pathc : 0;
    globfree(&found);
    free(pattern);
    return n;
}

/* Compacted, with no snapshot open: nothing is kept. */
static void must_be_tidy(const char *dir, kist_bank *bank)
{
    double share = 1;
    kist_stats stats;

    must_ok(kist_compact(bank, NULL, NULL));
    must_ok(kist_fragmentation(bank, &share));
    stats = stats_of(bank);
    must(stats.snapshots == 0 && stats.oldest_pin == 0 && stats.pinned_bytes == 0);
    must(share == 0 && stats.wasted_bytes == 0 && stats.deleted == 0);
    must(stats.segments == heap_files(dir));
    must_verify(bank);
}

/* ---- against what was remembered -------------------------------------- */

enum { SNAPSHOTS = 12, HANDLES = 2 };

struct held {
    kist_bank *snapshot;
    struct moment *moment;
};

struct run {
    uint32_t index;
    uint32_t segment_bytes;
    struct rng rng;
    struct keys keys;
    char *dir;
    kist_store *store[HANDLES];
    kist_bank *bank[HANDLES];
    kist_bank *other; /* of the first store, which has one bank open at a time */
    struct moment *now;
    struct held held[SNAPSHOTS];
};

static kist_bank *some_bank(struct run *r)
{
    return r->bank[rng_below(&r->rng, HANDLES)];
}

static void open_handle(struct run *r, int i)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .index = r->index,
                              .segment_bytes = r->segment_bytes };

    must_ok(kist_bank_open(&r->bank[i], r->store[i], "bank", &opt));
}

static void run_begin(struct run *r)
{
    kist_store_options opt = { .size = sizeof opt,
                               .flags = KIST_STORE_CREATE,
                               .max_open_banks = 1 };

    r->rng.state = mix(test_seed(), r->index * 7 + r->segment_bytes);
    r->keys = keys_make(&r->rng, 500, r->segment_bytes > 65536 ? 4 : 0);
    r->dir = tmp_dir(TMP_FAST);
    must_ok(kist_store_open(&r->store[0], r->dir, &opt));
    r->store[1] = open_store(r->dir);
    for (int i = 0; i < HANDLES; i++)
        open_handle(r, i);
    r->other = open_bank(r->store[0], "other");
    r->now = moment_make(&r->keys);
}

static void release(struct run *r, struct held *h)
{
    (void)r;
    if (!h->snapshot)
        return;
    must_ok(kist_bank_close(h->snapshot));
    moment_free(h->moment);
    *h = (struct held){ 0 };
}

static void look_at(struct run *r, struct held *h)
{
    kist_snapshot_info info = { .size = sizeof info };

    (void)r;
    if (!h->snapshot)
        return;
    must_ok(kist_snapshot_stat(h->snapshot, &info));
    must(info.entries == h->moment->entries && info.payload_bytes == h->moment->payload);
    must(info.index == r->index && info.saved_bytes == 0);
    moment_must_be_seen(h->moment, h->snapshot);
}

static void take(struct run *r, struct held *h)
{
    struct held *of = &r->held[rng_below(&r->rng, SNAPSHOTS)];

    if (h->snapshot)
        return;
    if (of->snapshot && rng_below(&r->rng, 3) == 0) { /* one of the same moment */
        must_ok(kist_snapshot_open(&h->snapshot, of->snapshot));
        h->moment = moment_copy(of->moment);
        return;
    }
    must_ok(kist_snapshot_open(&h->snapshot, some_bank(r)));
    moment_note_meta(r->now, some_bank(r));
    h->moment = moment_copy(r->now);
}

static void reopen(struct run *r)
{
    int i = (int)rng_below(&r->rng, HANDLES);

    must_ok(kist_bank_close(r->bank[i]));
    open_handle(r, i);
}

static void step(struct run *r)
{
    struct held *h = &r->held[rng_below(&r->rng, SNAPSHOTS)];
    uint64_t pick = rng_below(&r->rng, 1000);

    if (pick < 600)
        moment_change_many(r->now, some_bank(r), &r->rng, 1 + rng_below(&r->rng, 60));
    else if (pick < 700)
        take(r, h);
    else if (pick < 740)
        look_at(r, h);
    else if (pick < 790)
        release(r, h);
    else if (pick < 860)
        must_ok(kist_compact(some_bank(r), NULL, NULL));
    else if (pick < 870)
        moment_clear(r->now, some_bank(r));
    else if (pick < 885)
        moment_replace(r->now, some_bank(r));
    else if (pick < 900)
        must_ok(kist_repair(r->store[rng_below(&r->rng, HANDLES)], "bank", NULL, NULL, NULL));
    else if (pick < 940)
        reopen(r);
    else if (pick < 960)
        must_ok(kist_sync(some_bank(r)));
    else
        put_text(r->other, "the other", "takes the place"); /* the bank is closed as idle */
}

static void run_end(struct run *r)
{
    for (int i = 0; i < SNAPSHOTS; i++)
        look_at(r, &r->held[i]);
    for (int n = 0; n < SNAPSHOTS; n++) {
        int i = (int)rng_below(&r->rng, SNAPSHOTS), k = (i + 1) % SNAPSHOTS;

        release(r, &r->held[i]);
        must_ok(kist_compact(r->bank[0], NULL, NULL));
        look_at(r, &r->held[k]);
    }
    for (int i = 0; i < SNAPSHOTS; i++)
        release(r, &r->held[i]);
    must_be_tidy(r->dir, r->bank[1]);
    moment_must_be_seen(r->now, r->bank[0]);
    must_ok(kist_bank_close(r->other));
    for (int i = 0; i < HANDLES; i++) {
        must_ok(kist_bank_close(r->bank[i]));
        must_ok(kist_store_close(r->store[i]));
    }
    moment_free(r->now);
    keys_free(&r->keys);
    tmp_remove(r->dir);
    free(r->dir);
}

static void run(uint32_t index, uint32_t segment_bytes, uint64_t steps)
{
    struct run *r = calloc(1, sizeof *r);

    r->index = index;
    r->segment_bytes = segment_bytes;
    run_begin(r);
    for (test_case = 1; test_case <= steps; test_case++)
        step(r);
    run_end(r);
    test_case = 0;
    free(r);
}

TEST(each_of_many_snapshots_shows_its_moment_in_a_hash_bank)
{
    run(KIST_INDEX_HASH, 4096, test_scaled(1500));
    run(KIST_INDEX_HASH, 1 << 18, test_scaled(1500));
}

TEST(each_of_many_snapshots_shows_its_moment_in_an_ordered_bank)
{
    run(KIST_INDEX_ORDERED, 4096, test_scaled(1500));
    run(KIST_INDEX_ORDERED, 1 << 18, test_scaled(1500));
}

/* ---- what a snapshot is ----------------------------------------------- */

/* Some keys, and a snapshot of them; then all of them are overwritten. */
static struct moment *fill(struct fixture *f, const struct keys *keys, struct rng *rng,
                           kist_bank **snapshot)
{
    struct moment *m = moment_make(keys), *then;

    moment_change_many(m, f->bank, rng, 3000);
    moment_note_meta(m, f->bank);
    must_ok(kist_snapshot_open(snapshot, f->bank));
    then = moment_copy(m);
    moment_replace(m, f->bank);
    moment_change_many(m, f->bank, rng, 3000);
    moment_free(m);
    return then;
}

static int feed_nothing(kist_bytes *key, kist_bytes *value, void *arg)
{
    (void)key, (void)value, (void)arg;
    return KIST_END;
}

TEST(a_snapshot_of_a_snapshot_is_of_its_moment_and_outlives_it)
{
    for (int k = 0; k < 2; k++) {
        struct rng rng = { test_seed() };
        struct keys keys = keys_make(&rng, 300, 1);
        struct fixture f = open_kind(kinds[k], 65536);
        kist_snapshot_info info[2] = { { .size = sizeof *info }, { .size = sizeof *info } };
        kist_bank *first, *second;
        struct moment *then = fill(&f, &keys, &rng, &first);

        must_ok(kist_snapshot_open(&second, first));
        for (int i = 0; i < 2; i++)
            must_ok(kist_snapshot_stat(i ? second : first, &info[i]));
        must(memcmp(&info[0], &info[1], sizeof *info) == 0);
        must(info[0].sequence == stats_of(f.bank).oldest_pin);
        must_ok(kist_bank_close(first));
        must_ok(kist_compact(f.bank, NULL, NULL));
        moment_must_be_seen(then, second);
        must(stats_of(f.bank).snapshots == 1);
        must_ok(kist_bank_close(second));
        must_be_tidy(f.dir, f.bank);
        moment_free(then);
        keys_free(&keys);
        fixture_close(&f);
    }
}

TEST(nothing_is_written_through_a_snapshot)
{
    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 65536);
        kist_view *view;
        kist_bank *snap;

        put_text(f.bank, "k", "value");
        must_ok(kist_snapshot_open(&snap, f.bank));
        must_rc(kist_put(snap, text("k"), text("w")), KIST_EREADONLY);
        must_rc(kist_delete(snap, text("k")), KIST_EREADONLY);
        must_rc(kist_get_or_insert(snap, text("l"), text("w"), &view), KIST_EREADONLY);
        must_rc(kist_put_if_sequence(snap, text("l"), text("w"), 0), KIST_EREADONLY);
        must_rc(kist_clear(snap), KIST_EREADONLY);
        must_rc(kist_replace(snap, feed_nothing, NULL), KIST_EREADONLY);
        must_rc(kist_compact(snap, NULL, NULL), KIST_EREADONLY);
        must_rc(kist_sync(snap), KIST_EREADONLY);
        must_hold(snap, "k", "value");
        must_hold(f.bank, "k", "value");
        must_ok(kist_bank_close(snap));
        fixture_close(&f);
    }
}

TEST(a_snapshot_tells_of_itself_and_others_do_not)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 65536);
    kist_snapshot_info info = { .size = sizeof info };
    kist_bank *snap;
    kist_meta meta;

    put_text(f.bank, "key", "value");
    must_ok(kist_get_meta(f.bank, text("key"), &meta));
    must_ok(kist_snapshot_open(&snap, f.bank));
    put_text(f.bank, "another", "value");
    must_ok(kist_snapshot_stat(snap, &info));
    must(info.sequence == meta.sequence && info.entries == 1 && info.payload_bytes == 8);
    must(info.taken_ns >= meta.mtime_ns && info.index == KIST_INDEX_ORDERED);
    must_rc(kist_snapshot_stat(f.bank, &info), KIST_EINVAL);
    info.size--;
    must_rc(kist_snapshot_stat(snap, &info), KIST_EINVAL);
    must_ok(kist_bank_close(snap));
    fixture_close(&f);
}

TEST(an_empty_banks_snapshot_stays_empty)
{
    for (int k = 0; k < 2; k++) {
        struct rng rng = { test_seed() };
        struct keys keys = keys_make(&rng, 100, 0);
        struct fixture f = open_kind(kinds[k], 4096);
        struct moment *now = moment_make(&keys), *then = moment_make(&keys);
        kist_bank *snap;

        must_ok(kist_snapshot_open(&snap, f.bank));
        moment_change_many(now, f.bank, &rng, 2000);
        moment_must_be_seen(then, snap);
        must_ok(kist_compact(f.bank, NULL, NULL));
        moment_must_be_seen(then, snap);
        must_ok(kist_bank_close(snap));
        must_be_tidy(f.dir, f.bank);
        moment_must_be_seen(now, f.bank);
        moment_free(now);
        moment_free(then);
        keys_free(&keys);
        fixture_close(&f);
    }
}

/* ---- ends ------------------------------------------------------------- */

static void must_say(kist_bank *snap, int rc)
{
    kist_bank *another;
    kist_cursor *cursor;
    kist_view *view;
    kist_iter *iter;
    kist_bytes value;
    uint64_t n;

    must_ok(kist_read_begin());
    must_rc(kist_get(snap, text("k"), &value), rc);
    kist_read_end();
    must_rc(kist_get_view(snap, text("k"), &view), rc);
    must_rc(kist_count(snap, &n), rc);
    must_rc(kist_cursor_open(&cursor, snap, NULL), rc);
    must(cursor == NULL);
    must_rc(kist_iter_open(&iter, snap), rc);
    must_rc(kist_snapshot_open(&another, snap), rc);
    must(another == NULL);
}

TEST(a_snapshot_of_a_bank_that_was_dropped_says_so)
{
    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 65536);
        kist_bank *snap, *again;

        put_text(f.bank, "k", "value");
        must_ok(kist_snapshot_open(&snap, f.bank));
        must_ok(kist_bank_drop(f.store, "bank"));
        must_say(snap, KIST_EGONE);
        must_rc(kist_snapshot_open(&again, f.bank), KIST_EGONE);
        again = open_bank(f.store, "bank"); /* of the same name, and another one */
        put_text(again, "k", "another");
        must_say(snap, KIST_EGONE);
        must(stats_of(again).oldest_pin == 0 && stats_of(again).snapshots == 0);
        must_ok(kist_bank_close(snap));
        must_ok(kist_bank_close(again));
        fixture_close(&f);
    }
}

TEST(a_snapshot_of_a_store_that_was_closed_says_so)
{
    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 65536);
        kist_store *store;
        kist_bank *snap, *bank;

        put_text(f.bank, "k", "value");
        must_ok(kist_snapshot_open(&snap, f.bank));
        must_ok(kist_bank_close(f.bank));
        must_hold(snap, "k", "value"); /* it does not need the handle */
        must_ok(kist_store_close(f.store));
        must_say(snap, KIST_ECLOSED);
        must_ok(kist_bank_close(snap));
        store = open_store(f.dir);
        bank = open_bank(store, "bank");
        must(stats_of(bank).oldest_pin == 0);
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
        tmp_remove(f.dir);
        free(f.dir);
    }
}

/* ---- other processes -------------------------------------------------- */

struct family {
    struct fixture f;
    struct moment *then;
    kist_bank *snap;
    int to_child[2], to_parent[2];
};

static void tell(int fd)
{
    must(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
    char byte;

    must(read(fd, &byte, 1) == 1);
}

/* A child that is gone is not waited for. */
static pid_t family_begin(struct family *y, void (*body)(void *arg))
{
    pid_t child;

    must(pipe(y->to_child) == 0 && pipe(y->to_parent) == 0);
    child = child_start(body, y);
    (void)close(y->to_child[0]);
    (void)close(y->to_parent[1]);
    return child;
}

static void family_end(struct family *y)
{
    (void)close(y->to_child[1]);
    (void)close(y->to_parent[0]);
}

static void child_has_no_snapshot(void *arg)
{
    struct family *y = arg;

    must_say(y->snap, KIST_EFORK);
    tell(y->to_parent[1]);
    hear(y->to_child[0]); /* it lives on, with all that it inherited */
    must_ok(kist_bank_close(y->snap));
}

TEST(a_forked_child_neither_has_a_snapshot_nor_keeps_its_pin)
{
    for (int k = 0; k < 2; k++) {
        struct rng rng = { test_seed() };
        struct keys keys = keys_make(&rng, 300, 0);
        struct family y = { .f = open_kind(kinds[k], 4096) };
        pid_t child;

        y.then = fill(&y.f, &keys, &rng, &y.snap);
        child = family_begin(&y, child_has_no_snapshot);
        hear(y.to_parent[0]);
        must_ok(kist_compact(y.f.bank, NULL, NULL));
        must(stats_of(y.f.bank).pinned_bytes > 0);
        moment_must_be_seen(y.then, y.snap); /* the parent's pin is as it was */
        must_ok(kist_bank_close(y.snap));
        must_be_tidy(y.f.dir, y.f.bank);
        tell(y.to_child[1]);
        must_end_well(child);
        family_end(&y);
        moment_free(y.then);
        keys_free(&keys);
        fixture_close(&y.f);
    }
}

/* Takes a snapshot through a store that is opened read-only, and reads it when told to. */
static void child_holds_one(void *arg)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_READONLY };
    kist_bank_options none = { .size = sizeof none };
    struct family *y = arg;
    kist_store *store;
    kist_bank *bank, *snap;

    must_ok(kist_store_open(&store, y->f.dir, &opt));
    must_ok(kist_bank_open(&bank, store, "bank", &none));
    must_ok(kist_snapshot_open(&snap, bank));
    tell(y->to_parent[1]);
    for (;;) {
        hear(y->to_child[0]);
        moment_must_be_seen(y->then, snap);
        tell(y->to_parent[1]);
    }
}

TEST(what_a_snapshot_of_another_process_needs_stays_until_that_is_killed)
{
    for (int k = 0; k < 2; k++) {
        struct rng rng = { test_seed() };
        struct keys keys = keys_make(&rng, 300, 1);
        struct family y = { .f = open_kind(kinds[k], 16384) };
        struct moment *now = moment_make(&keys);
        kist_stats stats;
        pid_t child;

        moment_change_many(now, y.f.bank, &rng, 2000);
        moment_note_meta(now, y.f.bank);
        y.then = moment_copy(now);
        child = family_begin(&y, child_holds_one);
        hear(y.to_parent[0]);
        for (int i = 0; i < 6; i++) {
            if (i == 3)
                moment_clear(now, y.f.bank);
            if (i == 4)
                moment_replace(now, y.f.bank);
            if (i == 5)
                must_ok(kist_repair(y.f.store, "bank", NULL, NULL, NULL));
            moment_change_many(now, y.f.bank, &rng, 2000);
            must_ok(kist_compact(y.f.bank, NULL, NULL));
            stats = stats_of(y.f.bank);
            must(stats.oldest_pin != 0 && stats.pinned_bytes > 0 && stats.snapshots == 0);
            tell(y.to_child[1]);
            hear(y.to_parent[0]);
        }
        child_kill(child);
        must_be_tidy(y.f.dir, y.f.bank);
        moment_must_be_seen(now, y.f.bank);
        family_end(&y);
        moment_free(now);
        moment_free(y.then);
        keys_free(&keys);
        fixture_close(&y.f);
    }
}

/* ---- history ---------------------------------------------------------- */

TEST(a_tombstone_stays_for_a_snapshot_that_does_not_see_it_yet)
{
    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 4096);
        kist_bank *before, *behind;

        for (uint64_t key = 0; key < 300; key++)
            must_ok(kist_put(f.bank, number(key), text("a value that takes some room")));
        put_text(f.bank, "k", "value");
        must_ok(kist_snapshot_open(&before, f.bank));
        must_ok(kist_delete(f.bank, text("k")));
        must_ok(kist_snapshot_open(&behind, f.bank));
        for (int i = 0; i < 3; i++) {
            for (uint64_t key = 0; key < 300; key++)
                must_ok(kist_put(f.bank, number(key), text("another value, of some length")));
            must_ok(kist_compact(f.bank, NULL, NULL));
            must_hold(before, "k", "value");
            must_hold(behind, "k", NULL);
            must_hold(f.bank, "k", NULL);
        }
        must(stats_of(f.bank).deleted == 1);
        must_ok(kist_bank_close(before));
        must_ok(kist_compact(f.bank, NULL, NULL));
        must_hold(behind, "k", NULL);
        put_text(f.bank, "k", "anew");
        must_hold(behind, "k", NULL);
        must_ok(kist_bank_close(behind));
        must_be_tidy(f.dir, f.bank);
        must_hold(f.bank, "k", "anew");
        fixture_close(&f);
    }
}

/* In the oldest segment, where they are given up. */
TEST(a_tombstone_in_the_oldest_segment_stays_too)
{
    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 4096);
        kist_bank *snap;

        put_text(f.bank, "k", "value");
        must_ok(kist_snapshot_open(&snap, f.bank));
        must_ok(kist_delete(f.bank, text("k")));
        for (uint64_t i = 0; i < 300; i++)
            must_ok(kist_put(f.bank, number(i % 7), text("a value that takes some room")));
        for (int i = 0; i < 3; i++) {
            must_ok(kist_compact(f.bank, NULL, NULL));
            must_hold(snap, "k", "value");
            must_hold(f.bank, "k", NULL);
        }
        must_ok(kist_bank_close(snap));
        must_be_tidy(f.dir, f.bank);
        fixture_close(&f);
    }
}

TEST(a_value_is_found_behind_a_hundred_thousand_newer_ones)
{
    enum { WRITES = 100000 };

    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 1 << 20);
        kist_bank *snap, *late;
        kist_cursor *cursor;
        kist_entry entry;

        put_text(f.bank, "other", "stays");
        must_ok(kist_snapshot_open(&late, f.bank));
        put_text(f.bank, "key", "the first");
        must_ok(kist_snapshot_open(&snap, f.bank));
        for (uint64_t n = 0; n < WRITES; n++) {
            must_ok(kist_put(f.bank, text("key"), number(n)));
            if (n % (WRITES / 4) == 0)
                must_ok(kist_compact(f.bank, NULL, NULL));
        }
        must_hold(snap, "key", "the first");
        must_hold(late, "key", NULL);
        must_ok(kist_cursor_open(&cursor, snap, NULL));
        for (int i = 0; i < 2; i++) {
            must_ok(kist_cursor_next(cursor, &entry));
            must(entry.value.len == (entry.key.len == 3 ? 9 : 5));
        }
        must_rc(kist_cursor_next(cursor, &entry), KIST_END);
        kist_cursor_close(cursor);
        must_ok(kist_bank_close(snap));
        must_ok(kist_bank_close(late));
        must_be_tidy(f.dir, f.bank);
        must(heap_files(f.dir) <= 2);
        fixture_close(&f);
    }
}

/* More heap files than are told of in the first page of kist.live, and behind a clear. */
TEST(a_snapshot_sees_its_moment_though_thousands_of_segments_come_behind_it)
{
    for (int k = 0; k < 2; k++) {
        struct rng rng = { test_seed() };
        struct keys keys = keys_make(&rng, 100, 0);
        struct fixture f = open_kind(kinds[k], 4096);
        struct moment *now = moment_make(&keys), *then;
        static const char filler[3000];
        uint64_t n = test_scaled(4000);
        kist_bank *snap;

        moment_change_many(now, f.bank, &rng, 500);
        then = moment_copy(now);
        must_ok(kist_snapshot_open(&snap, f.bank));
        moment_clear(now, f.bank);
        for (uint64_t i = 0; i < n; i++) {
            must_ok(kist_put(f.bank, text("filler"), (kist_bytes){ filler, sizeof filler }));
            if (i % 1000 == 500)
                must_ok(kist_compact(f.bank, NULL, NULL));
        }
        moment_must_be_seen(then, snap);
        must_ok(kist_bank_close(snap));
        must_ok(kist_compact(f.bank, NULL, NULL));
        must_ok(kist_put(f.bank, text("filler"), text("there is room again")));
        must_be_tidy(f.dir, f.bank);
        moment_free(now);
        moment_free(then);
        keys_free(&keys);
        fixture_close(&f);
    }
}

/* As long as a snapshot is open nothing comes back: then nothing must be moved again and
 * again either. */
TEST(compacting_again_and_again_beside_a_snapshot_does_not_fill_the_disk)
{
    enum { KEYS = 1000, REPLACES = 8, TIMES = 60 };

    for (int k = 0; k < 2; k++) {
        struct rng rng = { test_seed() };
        struct keys keys = keys_make(&rng, KEYS, 0);
        struct fixture f = open_kind(kinds[k], 4096);
        struct moment *now = moment_make(&keys);
        uint64_t first, second;
        kist_bank *snap;

        moment_change_many(now, f.bank, &rng, 2 * KEYS);
        must_ok(kist_snapshot_open(&snap, f.bank));
        for (int i = 0; i < REPLACES; i++) /* more heap files than can be noted as waiting */
            moment_replace(now, f.bank);
        moment_change_many(now, f.bank, &rng, KEYS);
        must_ok(kist_compact(f.bank, NULL, NULL));
        first = stats_of(f.bank).heap_file_bytes;
        for (int i = 0; i < TIMES; i++) {
            must_ok(kist_compact(f.bank, NULL, NULL));
            second = stats_of(f.bank).heap_file_bytes;
            must(second <= first + 64 * 4096); /* LIVE_WAITING files, and some */
        }
        must_ok(kist_bank_close(snap));
        must_be_tidy(f.dir, f.bank);
        moment_must_be_seen(now, f.bank);
        moment_free(now);
        keys_free(&keys);
        fixture_close(&f);
    }
}

/* Somebody removes a heap file: that is damage, and no word of the key. */
TEST(a_lost_heap_file_is_an_error_in_a_snapshot_and_no_miss)
{
    for (int k = 0; k < 2; k++) {
        kist_store_options one = { .size = sizeof one, .max_open_banks = 1 };
        struct fixture f = open_kind(kinds[k], 4096);
        char *path = path_join(f.dir, "bank/kist.heap.1");
        kist_store *store;
        kist_bank *bank, *other, *snap;
        kist_cursor *cursor;
        kist_entry entry;
        kist_view *view;
        int rc, failed = 0;

        put_text(f.bank, "key", "the first");
        for (uint64_t i = 0; i < 100; i++)
            must_ok(kist_put(f.bank, number(i), text("a value that takes some room")));
        must_ok(kist_bank_close(f.bank));
        must_ok(kist_store_close(f.store));
        must_ok(kist_store_open(&store, f.dir, &one));
        other = open_bank(store, "other");
        bank = open_bank(store, "bank");
        must_ok(kist_snapshot_open(&snap, bank));
        put_text(bank, "key", "the second");
        put_text(other, "key", "takes its place"); /* the bank is closed as idle */
        if (access(path, F_OK) != 0)
            test_fail(__FILE__, __LINE__, path, "is not the first heap file");
        must(unlink(path) == 0);
        rc = kist_get_view(snap, text("key"), &view);
        must_rc(rc, KIST_ECORRUPT);
        rc = kist_cursor_open(&cursor, snap, NULL); /* a tree may have lost its way at once */
        failed += rc == KIST_ECORRUPT;
        while (rc != KIST_END && cursor)
            failed += (rc = kist_cursor_next(cursor, &entry)) == KIST_ECORRUPT;
        must(failed > 0);
        kist_cursor_close(cursor);
        must_ok(kist_bank_close(snap));
        (void)kist_bank_close(bank);
        must_ok(kist_bank_close(other));
        (void)kist_store_close(store);
        tmp_remove(f.dir);
        free(path);
        free(f.dir);
    }
}

/* Flip a byte of the value that a snapshot still sees. */
TEST(damage_to_history_is_an_error_and_no_value)
{
    test_needs_files();
    for (int k = 0; k < 2; k++) {
        struct fixture f = open_kind(kinds[k], 4096);
        char *path = path_join(f.dir, "bank/kist.heap.1"), content[4096], *at;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        kist_cursor *cursor;
        kist_entry entry;
        kist_view *view;
        kist_bank *snap;
        ssize_t len;

        put_text(f.bank, "key", "value of then");
        must_ok(kist_snapshot_open(&snap, f.bank));
        put_text(f.bank, "key", "value of today");
        len = pread(fd, content, sizeof content, 0);
        must(fd >= 0 && len > 0);
        at = memmem(content, (size_t)len, "value of then", 13);
        must(at != NULL && pwrite(fd, "V", 1, at - content) == 1);
        (void)close(fd);
        must_rc(kist_get_view(snap, text("key"), &view), KIST_ECORRUPT);
        must_ok(kist_cursor_open(&cursor, snap, NULL));
        must_rc(kist_cursor_next(cursor, &entry), KIST_ECORRUPT);
        must_rc(kist_cursor_next(cursor, &entry), KIST_END);
        kist_cursor_close(cursor);
        must_hold(f.bank, "key", "value of today");
        must_ok(kist_bank_close(snap));
        free(path);
        fixture_close(&f);
    }
}

/* ---- moments of a bank that waits for its rebuild ----------------------- */

enum { STALE_KEYS = 300 };

static void put_version(kist_bank *bank, unsigned from, unsigned step, const char *value)
{
    char key[16];

    for (unsigned i = from; i < STALE_KEYS; i += step) {
        (void)snprintf(key, sizeof key, "key %04u", i);
        put_text(bank, key, value);
    }
}

/* A copy of a bank that is open: whoever opens that has to rebuild it; who may only read
 * makes an index of his own. */
TEST(a_snapshot_from_before_a_rebuild_outlives_a_compaction_behind_it)
{
    test_needs_files();
    for (int k = 0; k < 2; k++) {
        static const kist_bank_options may_read = { .size = sizeof may_read,
                                                    .flags = KIST_BANK_READONLY };
        struct fixture f = open_kind(kinds[k], 4096);
        char *dir = tmp_dir(TMP_FAST);
        kist_store *reads, *writes;
        kist_bank *reader, *snap, *writer;
        char key[16];

        put_version(f.bank, 0, 1, "dead");
        put_version(f.bank, 0, 2, "even");
        put_version(f.bank, 1, 2, "odd");
        put_version(f.bank, 0, 4, "fourth");
        tree_copy(f.dir, dir);
        reads = open_store(dir);
        must_ok(kist_bank_open(&reader, reads, "bank", &may_read));
        must_ok(kist_snapshot_open(&snap, reader));
        writes = open_store(dir);
        writer = open_bank(writes, "bank");
        must_ok(kist_compact(writer, NULL, NULL));
        for (unsigned i = 0; i < STALE_KEYS; i++) {
            (void)snprintf(key, sizeof key, "key %04u", i);
            must_hold(snap, key, i % 4 == 0 ? "fourth" : i % 2 == 0 ? "even" : "odd");
        }
        must_ok(kist_bank_close(snap));
        must_be_tidy(dir, writer);
        must_ok(kist_bank_close(writer));
        must_ok(kist_store_close(writes));
        must_ok(kist_bank_close(reader));
        must_ok(kist_store_close(reads));
        tmp_remove(dir);
        free(dir);
        fixture_close(&f);
    }
}

/* ---- snapshots that nothing is kept for ---------------------------------- */

enum { MANY = 3000 }; /* more than a cursor reads ahead */

/* As on media that can't be written: nobody locks anything. */
static void remove_file(const char *dir, const char *name)
{
    char *path = path_join(dir, name);

    must(unlink(path) == 0);
    free(path);
}

static kist_store *read_alone(const char *dir, uint32_t store_flags, kist_bank **bank)
{
    kist_store_options so = { .size = sizeof so, .flags = store_flags };
    kist_bank_options bo = { .size = sizeof bo, .flags = KIST_BANK_READONLY };
    kist_store *store;

    must_ok(kist_store_open(&store, dir, &so));
    must_ok(kist_bank_open(bank, store, "bank", &bo));
    return store;
}

static int take_no_bytes(const void *data, size_t len, void *arg)
{
    (void)data, (void)len, (void)arg;
    return 0;
}

/* What it had read ahead a cursor hands out, and nothing else. */
static void must_lose_its_way(kist_cursor *cursor)
{
    kist_entry e;
    uint64_t n = 0;
    int rc;

    while ((rc = kist_cursor_next(cursor, &e)) == KIST_OK) {
        must(e.value.len == strlen("then") && memcmp(e.value.data, "then", e.value.len) == 0);
        n++;
    }
    must_rc(rc, KIST_ELOST);
    must(n < MANY);
    kist_cursor_close(cursor);
}

static void lose(uint32_t index, bool live_too, bool same_store)
{
    struct fixture f = open_kind(index, 4096);
    kist_bank *reader, *snap, *writer;
    kist_cursor *of_snap, *of_bank;
    kist_store *reads, *writes;
    uint64_t n;

    for (uint64_t i = 1; i < MANY; i++)
        must_ok(kist_put(f.bank, number(i), text("then")));
    put_text(f.bank, "k", "then");
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    remove_file(f.dir, "bank/kist.lock");
    if (live_too)
        remove_file(f.dir, "bank/kist.live");

    reads = read_alone(f.dir, same_store ? 0 : KIST_STORE_READONLY, &reader);
    must_ok(kist_snapshot_open(&snap, reader));
    must_ok(kist_cursor_open(&of_snap, snap, NULL));
    must_ok(kist_cursor_open(&of_bank, reader, NULL));
    must_hold(snap, "k", "then"); /* as long as nobody writes it is what it was */
    must(count_of(snap) == MANY);
    must_ok(kist_snapshot_save(snap, take_no_bytes, NULL));

    writes = same_store ? reads : open_store(f.dir);
    writer = open_bank(writes, "bank");
    put_text(writer, "k", "now");
    must_ok(kist_compact(writer, NULL, NULL));
    must_hold(reader, "k", "now");
    must_say(snap, KIST_ELOST);
    must_rc(kist_snapshot_save(snap, take_no_bytes, NULL), KIST_ELOST);
    must_rc(kist_snapshot_revert(writer, snap), KIST_ELOST);
    must_lose_its_way(of_snap);
    must_lose_its_way(of_bank);
    must_hold(writer, "k", "now");
    must_ok(kist_count(writer, &n));
    must(n == MANY);

    must_ok(kist_bank_close(snap));
    must_ok(kist_snapshot_open(&snap, reader)); /* of today, and kept */
    put_text(writer, "k", "tomorrow");
    must_ok(kist_compact(writer, NULL, NULL));
    must_hold(snap, "k", "now");
    must_ok(kist_bank_close(snap));
    must_ok(kist_bank_close(reader));
    must_ok(kist_bank_close(writer));
    if (!same_store)
        must_ok(kist_store_close(reads));
    must_ok(kist_store_close(writes));
    tmp_remove(f.dir);
    free(f.dir);
}

TEST(a_snapshot_that_nothing_was_kept_for_is_lost_when_somebody_writes)
{
    test_needs_files();
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++)
            lose(kinds[k], i & 1, i & 2);
}
