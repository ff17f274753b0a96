/*
 * R1: threads of one process in one mapping: a writer and two readers, under
 * the thread sanitizer too. Counts bound it, not time.
 */
#include "support.h"
#include "witness.h"

#include <pthread.h>
#include <stdio.h>

enum { READERS = 2 };

struct scene {
    struct witness *w;
    struct fixture f;
    uint64_t writes, reads; /* to be made by each */
};

struct reader {
    struct scene *scene;
    uint64_t number;
    pthread_t thread;
};

static struct row row = { .id = "R1" };

struct feed {
    struct witness *w;
    uint64_t key;
    char buf[VALUE_CAP];
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *feed = arg;

    if (feed->key == WITNESS_KEYS)
        return KIST_END;
    *key = number(feed->key);
    *value =
        (kist_bytes){ feed->buf, value_make(feed->buf, feed->key, feed->w->key[feed->key].begun) };
    feed->key++;
    return 0;
}

static void change_all(struct scene *scene, bool clear)
{
    static struct feed feed;

    feed.w = scene->w;
    feed.key = 0;
    for (uint64_t key = 0; key < WITNESS_KEYS; key++)
        witness_begin(scene->w, key, witness_next(scene->w, key, clear));
    if (clear)
        must_ok(kist_clear(scene->f.bank));
    else
        must_ok(kist_replace(scene->f.bank, feed_next, &feed));
    for (uint64_t key = 0; key < WITNESS_KEYS; key++)
        witness_ack(scene->w, key, scene->w->key[key].begun);
}

static void change_one(struct scene *scene, struct rng *rng)
{
    char buf[VALUE_CAP];
    uint64_t key = rng_below(rng, WITNESS_KEYS);
    bool is_delete = rng_below(rng, 6) == 0;
    uint64_t version = witness_next(scene->w, key, is_delete);
    int rc;

    witness_begin(scene->w, key, version);
    if (is_delete)
        rc = kist_delete(scene->f.bank, number(key));
    else
        rc = kist_put(scene->f.bank, number(key),
                      (kist_bytes){ buf, value_make(buf, key, version) });
    must(rc == KIST_OK || (rc == KIST_MISS && is_delete));
    witness_ack(scene->w, key, version);
}

static void *write_all(void *arg)
{
    struct scene *scene = arg;
    struct rng rng = { test_seed() };

    for (uint64_t n = 0; n < scene->writes; n++) {
        uint64_t pick = rng_below(&rng, 4000);
        if (pick < 4)
            change_all(scene, pick == 0);
        else if (pick < 12)
            must_ok(kist_compact(scene->f.bank, NULL, NULL));
        else if (pick < 16)
            must_ok(kist_sync(scene->f.bank));
        else if (pick == 16)
            must_ok(kist_repair(scene->f.store, "bank", NULL, NULL, NULL));
        else
            change_one(scene, &rng);
    }
    return NULL;
}

static void *read_all(void *arg)
{
    const struct reader *reader = arg;
    struct scene *scene = reader->scene;
    struct rng rng = { mix(test_seed(), reader->number) };
    uint64_t seen[WITNESS_KEYS] = { 0 };

    for (uint64_t n = 0; n < scene->reads; n++) {
        uint64_t key = rng_below(&rng, WITNESS_KEYS);
        witness_read(scene->w, scene->f.bank, key, &seen[key], &rng);
        if (n % 5000 == 0)
            witness_walk(scene->w, scene->f.bank);
    }
    return NULL;
}

TEST(a_writer_and_two_readers_share_a_handle)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct scene scene = { .w = witness_make(),
                           .f = fixture_open_with(&opt),
                           .writes = test_scaled(4000000),
                           .reads = test_scaled(12000000) };
    struct reader readers[READERS];
    pthread_t writer;

    must(pthread_create(&writer, NULL, write_all, &scene) == 0);
    for (uint64_t i = 0; i < READERS; i++) {
        readers[i] = (struct reader){ .scene = &scene, .number = i };
        must(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]) == 0);
    }
    must(pthread_join(writer, NULL) == 0);
    for (int i = 0; i < READERS; i++)
        must(pthread_join(readers[i].thread, NULL) == 0);
    must_verify(scene.f.bank);
    fixture_close(&scene.f);
    row.cases = scene.writes + READERS * scene.reads;
    row_print(&row);
}
