/* Walking: every key present throughout comes exactly once. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>

enum { KEYS = 5000 };

static void fill(kist_bank *bank, uint64_t first, uint64_t last)
{
    char buf[VALUE_CAP];

    for (uint64_t key = first; key < last; key++)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, 1) }));
}

static uint64_t key_of(const kist_entry *entry)
{
    uint64_t key;

    must(entry->key.len == sizeof key);
    memcpy(&key, entry->key.data, sizeof key);
    return key;
}

/* Walks to the end; seen[key] counts. Keys from KEYS on are passed over. */
static uint64_t walk(kist_iter *iter, unsigned char *seen)
{
    kist_entry entry;
    uint64_t met = 0, version;
    int rc;

    while ((rc = kist_iter_next(iter, &entry)) == KIST_OK) {
        uint64_t key = key_of(&entry);
        must(value_check(entry.value, key, &version) && version == 1);
        must(entry.meta.value_bytes == entry.value.len && entry.meta.sequence > 0);
        met++;
        if (key < KEYS)
            seen[key]++;
    }
    must_rc(rc, KIST_END);
    return met;
}

static void must_be_once(const unsigned char *seen, uint64_t first, uint64_t last)
{
    for (uint64_t key = first; key < last; key++)
        must(seen[key] == 1);
}

TEST(a_walk_over_nothing_ends_at_once)
{
    struct fixture f = fixture_open();
    kist_iter *iter;
    kist_entry entry;

    must_ok(kist_iter_open(&iter, f.bank));
    must_rc(kist_iter_next(iter, &entry), KIST_END);
    must_rc(kist_iter_next(iter, &entry), KIST_END);
    kist_iter_close(iter);
    kist_iter_close(NULL);
    fixture_close(&f);
}

TEST(a_walk_meets_every_key_once)
{
    struct fixture f = fixture_open();
    unsigned char *seen = calloc(KEYS, 1);
    kist_iter *iter;

    fill(f.bank, 0, KEYS);
    for (uint64_t key = 0; key < KEYS; key += 5)
        must_ok(kist_delete(f.bank, number(key)));
    must_ok(kist_iter_open(&iter, f.bank));
    must(walk(iter, seen) == KEYS - KEYS / 5);
    for (uint64_t key = 0; key < KEYS; key++)
        must(seen[key] == (key % 5 != 0));
    kist_iter_close(iter);
    free(seen);
    fixture_close(&f);
}

TEST(an_entry_carries_the_metadata_of_its_key)
{
    struct fixture f = fixture_open();
    kist_iter *iter;
    kist_entry entry;
    kist_meta meta;

    put_text(f.bank, "k", "value");
    must_ok(kist_get_meta(f.bank, text("k"), &meta));
    must_ok(kist_iter_open(&iter, f.bank));
    must_ok(kist_iter_next(iter, &entry));
    must(entry.key.len == 1 && memcmp(entry.key.data, "k", 1) == 0);
    must(entry.value.len == 5 && memcmp(entry.value.data, "value", 5) == 0);
    must(memcmp(&entry.meta, &meta, sizeof meta) == 0);
    must_rc(kist_iter_next(iter, &entry), KIST_END);
    kist_iter_close(iter);
    fixture_close(&f);
}

TEST(an_entry_holds_until_the_next_call_even_when_its_key_goes)
{
    struct fixture f = fixture_open();
    kist_iter *iter;
    kist_entry entry;
    uint64_t version;

    fill(f.bank, 0, 100);
    must_ok(kist_iter_open(&iter, f.bank));
    for (int i = 0; i < 50; i++) {
        must_ok(kist_iter_next(iter, &entry));
        uint64_t key = key_of(&entry);
        must_ok(kist_delete(f.bank, number(key)));
        must_ok(kist_compact(f.bank, NULL, NULL));
        must(key_of(&entry) == key && value_check(entry.value, key, &version));
    }
    kist_iter_close(iter);
    must(count_of(f.bank) == 50);
    fixture_close(&f);
}

struct inserter {
    kist_bank *bank;
    uint64_t first, last;
    atomic_bool started;
};

static void *insert_many(void *arg)
{
    struct inserter *in = arg;

    in->started = true;
    fill(in->bank, in->first, in->last);
    return NULL;
}

/* The index grows by a hundred times below the walks. */
TEST(keys_present_throughout_come_once_while_a_thread_splits_the_index)
{
    struct fixture f = fixture_open();
    struct inserter in = { .bank = f.bank, .first = KEYS, .last = test_scaled(500000) };
    unsigned char *seen = malloc(KEYS);
    pthread_t thread;
    uint64_t before;

    fill(f.bank, 0, KEYS);
    must(pthread_create(&thread, NULL, insert_many, &in) == 0);
    do {
        kist_iter *iter;
        memset(seen, 0, KEYS);
        before = count_of(f.bank);
        must_ok(kist_iter_open(&iter, f.bank));
        must(walk(iter, seen) >= before);
        must_be_once(seen, 0, KEYS);
        kist_iter_close(iter);
    } while (before < in.last);
    must(pthread_join(thread, NULL) == 0);
    free(seen);
    fixture_close(&f);
}

/* Each step of the walk is followed by inserts, so that every block splits
 * while the walk stands in it. */
TEST(keys_present_throughout_come_once_with_splits_at_every_step)
{
    struct fixture f = fixture_open();
    unsigned char *seen = calloc(KEYS, 1);
    uint64_t next = KEYS, key;
    kist_iter *iter;
    kist_entry entry;
    int rc;

    fill(f.bank, 0, 1000);
    must_ok(kist_iter_open(&iter, f.bank));
    while ((rc = kist_iter_next(iter, &entry)) == KIST_OK) {
        if ((key = key_of(&entry)) < KEYS)
            seen[key]++;
        if (next < 100000)
            fill(f.bank, next, next + 40);
        next += 40;
    }
    must_rc(rc, KIST_END);
    must_be_once(seen, 0, 1000);
    kist_iter_close(iter);
    free(seen);
    fixture_close(&f);
}

TEST(keys_present_throughout_come_once_while_the_bank_is_cleaned)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 16384 };
    struct fixture f = fixture_open_with(&opt);
    unsigned char *seen = calloc(KEYS, 1);
    uint64_t steps = 0;
    kist_iter *iter;
    kist_entry entry;
    int rc;

    fill(f.bank, 0, 3000);
    for (uint64_t key = 0; key < 3000; key += 2)
        must_ok(kist_delete(f.bank, number(key)));
    must_ok(kist_iter_open(&iter, f.bank));
    while ((rc = kist_iter_next(iter, &entry)) == KIST_OK) {
        seen[key_of(&entry)]++;
        if (++steps % 100 == 0)
            must_ok(kist_compact(f.bank, NULL, NULL));
        if (steps % 300 == 0)
            must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    }
    must_rc(rc, KIST_END);
    for (uint64_t key = 1; key < 3000; key += 2)
        must(seen[key] == 1);
    kist_iter_close(iter);
    free(seen);
    fixture_close(&f);
}

static int next_pair(kist_bytes *key, kist_bytes *value, void *arg)
{
    static char buf[VALUE_CAP];
    uint64_t *next = arg;

    if (*next == 3000)
        return KIST_END;
    *key = number((*next)++);
    *value = (kist_bytes){ buf, value_make(buf, *next - 1, 1) };
    return 0;
}

TEST(a_walk_goes_on_in_the_new_content_after_clear_and_replace)
{
    struct fixture f = fixture_open();
    unsigned char *seen = calloc(KEYS, 1);
    uint64_t next = 2000;
    kist_iter *iter;
    kist_entry entry;

    fill(f.bank, 0, 1000);
    must_ok(kist_iter_open(&iter, f.bank));
    must_ok(kist_iter_next(iter, &entry));
    must_ok(kist_replace(f.bank, next_pair, &next));
    must(walk(iter, seen) <= 1000);
    for (uint64_t key = 0; key < KEYS; key++)
        must(seen[key] <= (key >= 2000 && key < 3000));
    kist_iter_close(iter);

    must_ok(kist_iter_open(&iter, f.bank));
    must_ok(kist_iter_next(iter, &entry));
    must_ok(kist_clear(f.bank));
    must_rc(kist_iter_next(iter, &entry), KIST_END);
    kist_iter_close(iter);
    free(seen);
    fixture_close(&f);
}

TEST(a_walk_ends_with_an_error_when_its_bank_is_dropped)
{
    struct fixture f = fixture_open();
    kist_iter *iter;
    kist_entry entry;

    fill(f.bank, 0, 1000);
    must_ok(kist_iter_open(&iter, f.bank));
    must_ok(kist_iter_next(iter, &entry));
    must_ok(kist_bank_drop(f.store, "bank"));
    must_rc(kist_iter_next(iter, &entry), KIST_EGONE);
    kist_iter_close(iter);
    must_rc(kist_iter_open(&iter, f.bank), KIST_EGONE);
    must(iter == NULL);
    fixture_close(&f);
}

TEST(several_walks_go_on_side_by_side)
{
    struct fixture f = fixture_open();
    kist_iter *iters[8];
    unsigned char *seen = calloc(KEYS, 1);
    kist_entry entry;

    fill(f.bank, 0, 1000);
    for (int i = 0; i < 8; i++)
        must_ok(kist_iter_open(&iters[i], f.bank));
    for (int step = 0; step < 1000; step++)
        for (int i = 0; i < 8; i++) {
            must_ok(kist_iter_next(iters[i], &entry));
            seen[key_of(&entry)]++;
        }
    for (int i = 0; i < 8; i++) {
        must_rc(kist_iter_next(iters[i], &entry), KIST_END);
        kist_iter_close(iters[i]);
    }
    for (uint64_t key = 0; key < 1000; key++)
        must(seen[key] == 8);
    free(seen);
    fixture_close(&f);
}
