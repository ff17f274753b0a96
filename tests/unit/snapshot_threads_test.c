/*
 * Threads that take snapshots and open cursors beside one that writes and one that
 * compacts: each moment is one.
 */
#include "ledger.h"

#include <pthread.h>
#include <stdatomic.h>

enum { READERS = 3, HELD = 4 };

struct scene {
    struct fixture f;
    bool is_ordered;
    uint64_t reads;      /* of each reader */
    atomic_uint readers; /* that are not done */
};

struct reader {
    struct scene *scene;
    uint64_t number;
    pthread_t thread;
};

static void *write_all(void *arg)
{
    struct scene *scene = arg;
    struct rng rng = { test_seed() };
    struct ledger l;

    ledger_begin(&l, scene->f.bank);
    while (scene->readers > 0) {
        if (rng_below(&rng, 3000) == 0)
            must_ok(ledger_replace(&l, scene->f.bank));
        else
            must_ok(ledger_write(&l, scene->f.bank, &rng));
    }
    return NULL;
}

static void *compact_all(void *arg)
{
    struct scene *scene = arg;

    while (scene->readers > 0)
        must_ok(kist_compact(scene->f.bank, NULL, NULL));
    return NULL;
}

struct held {
    kist_bank *snapshot;
    struct ledger ledger;
};

static void read_once(struct reader *r, struct rng *rng, struct held *h, uint64_t *t)
{
    struct scene *scene = r->scene;
    uint64_t pick = rng_below(rng, 10);
    struct ledger now;

    if (pick < 3 && scene->is_ordered) {
        ledger_add_up(scene->f.bank);
    } else if (pick < 6) {
        ledger_read(&now, scene->f.bank, scene->is_ordered);
        must(now.t >= *t); /* never back */
        *t = now.t;
    } else if (!h->snapshot) {
        must_ok(kist_snapshot_open(&h->snapshot, scene->f.bank));
        ledger_read(&h->ledger, h->snapshot, scene->is_ordered);
        must(h->ledger.t >= *t);
        *t = h->ledger.t;
    } else if (pick < 9) {
        ledger_must_be(&h->ledger, h->snapshot);
    } else {
        ledger_read(&now, h->snapshot, scene->is_ordered);
        must(memcmp(&now, &h->ledger, sizeof now) == 0);
        must_ok(kist_bank_close(h->snapshot));
        h->snapshot = NULL;
    }
}

static void *read_all(void *arg)
{
    struct reader *r = arg;
    struct rng rng = { mix(test_seed(), r->number) };
    struct held held[HELD] = { 0 };
    uint64_t t = 0;

    for (uint64_t n = 0; n < r->scene->reads; n++)
        read_once(r, &rng, &held[rng_below(&rng, HELD)], &t);
    for (int i = 0; i < HELD; i++)
        must_ok(kist_bank_close(held[i].snapshot));
    r->scene->readers--;
    return NULL;
}

static void share(uint32_t index)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = 65536 };
    struct scene scene = { .f = fixture_open_with(&opt),
                           .is_ordered = index == KIST_INDEX_ORDERED,
                           .reads = test_scaled(1500),
                           .readers = READERS };
    struct reader readers[READERS];
    pthread_t writer, cleaner;
    struct ledger l;
    kist_stats stats = { .size = sizeof stats };

    ledger_begin(&l, scene.f.bank);
    must(pthread_create(&writer, NULL, write_all, &scene) == 0);
    must(pthread_create(&cleaner, NULL, compact_all, &scene) == 0);
    for (uint64_t i = 0; i < READERS; i++) {
        readers[i] = (struct reader){ .scene = &scene, .number = i };
        must(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]) == 0);
    }
    for (int i = 0; i < READERS; i++)
        must(pthread_join(readers[i].thread, NULL) == 0);
    must(pthread_join(writer, NULL) == 0);
    must(pthread_join(cleaner, NULL) == 0);
    must_ok(kist_compact(scene.f.bank, NULL, NULL));
    must_ok(kist_stat(scene.f.bank, &stats));
    must(stats.snapshots == 0 && stats.oldest_pin == 0 && stats.pinned_bytes == 0);
    must(stats.wasted_bytes == 0);
    must_verify(scene.f.bank);
    fixture_close(&scene.f);
}

TEST(readers_of_a_hash_bank_each_see_moments)
{
    share(KIST_INDEX_HASH);
}

TEST(readers_of_an_ordered_bank_each_see_moments)
{
    share(KIST_INDEX_ORDERED);
}

/* ---- long runs of deleted keys ---------------------------------------- */

struct grower {
    kist_bank *bank;
    atomic_bool done;
};

static void *grow(void *arg)
{
    struct grower *g = arg;
    struct rng rng = { test_seed() };

    while (!g->done) /* nodes are split, and those that were replaced are used again */
        must_ok(kist_put(g->bank, number(rng_next(&rng) | 1), text("value")));
    return NULL;
}

/* Whoever walks over deleted keys finds nothing to hand out for long, and the index
 * changes meanwhile. */
TEST(a_cursor_gets_across_deleted_keys_while_the_index_grows)
{
    struct grower g = { 0 };
    kist_bank_options opt = { .size = sizeof opt, .index = KIST_INDEX_ORDERED };
    struct fixture f = fixture_open_with(&opt);
    kist_cursor_options range = { .size = sizeof range, .prefix = text("d"), .limit = 1 };
    uint64_t keys = test_scaled(200000);
    pthread_t thread;
    char key[16] = "d";

    for (uint64_t i = 0; i < keys; i++) {
        memcpy(key + 1, number(__builtin_bswap64(i)).data, 8);
        must_ok(kist_put(f.bank, (kist_bytes){ key, 9 }, text("value")));
        must_ok(kist_delete(f.bank, (kist_bytes){ key, 9 }));
    }
    must_ok(kist_put(f.bank, (kist_bytes){ "dz", 2 }, text("at last")));
    g.bank = f.bank;
    must(pthread_create(&thread, NULL, grow, &g) == 0);
    for (int i = 0; i < 30; i++) {
        kist_cursor *cursor;
        kist_entry entry;

        must_ok(kist_cursor_open(&cursor, f.bank, &range));
        must_ok(kist_cursor_next(cursor, &entry));
        must(entry.value.len == 7);
        kist_cursor_close(cursor);
    }
    g.done = true;
    must(pthread_join(thread, NULL) == 0);
    fixture_close(&f);
}
