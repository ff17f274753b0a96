/* Writing single keys: put, get_or_insert, put_if_sequence, delete; keys and
 * values of every size. */
#include "support.h"

#include <pthread.h>

static uint64_t sequence_of(kist_bank *bank, const char *key)
{
    kist_meta meta;

    must_ok(kist_get_meta(bank, text(key), &meta));
    return meta.sequence;
}

TEST(a_put_replaces_what_was_there)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "one");
    must_hold(f.bank, "k", "one");
    put_text(f.bank, "k", "another, longer");
    must_hold(f.bank, "k", "another, longer");
    put_text(f.bank, "k", "");
    must_hold(f.bank, "k", "");
    must(count_of(f.bank) == 1);
    fixture_close(&f);
}

TEST(an_empty_key_is_a_key_like_any_other)
{
    struct fixture f = fixture_open();
    kist_bytes nothing = { NULL, 0 };

    must_hold(f.bank, "", NULL);
    put_text(f.bank, "", "value of nothing");
    must_hold(f.bank, "", "value of nothing");
    must_ok(kist_put(f.bank, nothing, nothing));
    must_hold(f.bank, "", "");
    must(count_of(f.bank) == 1);
    must_ok(kist_bank_close(f.bank));
    f.bank = open_bank(f.store, "bank");
    must_hold(f.bank, "", "");
    must_ok(kist_delete(f.bank, nothing));
    must_hold(f.bank, "", NULL);
    fixture_close(&f);
}

TEST(keys_are_bytes_not_strings)
{
    struct fixture f = fixture_open();
    kist_bytes with_zero = { "a\0b", 3 }, other = { "a\0c", 3 }, prefix = { "a", 1 };
    kist_view *view;

    must_ok(kist_put(f.bank, with_zero, text("1")));
    must_rc(kist_get_view(f.bank, other, &view), KIST_MISS);
    must_rc(kist_get_view(f.bank, prefix, &view), KIST_MISS);
    must_ok(kist_get_view(f.bank, with_zero, &view));
    kist_view_release(view);
    fixture_close(&f);
}

TEST(deleting_tells_whether_there_was_a_value)
{
    struct fixture f = fixture_open();

    must_rc(kist_delete(f.bank, text("k")), KIST_MISS);
    put_text(f.bank, "k", "v");
    must_ok(kist_delete(f.bank, text("k")));
    must_rc(kist_delete(f.bank, text("k")), KIST_MISS);
    must_hold(f.bank, "k", NULL);
    must(count_of(f.bank) == 0);
    put_text(f.bank, "k", "again");
    must_hold(f.bank, "k", "again");
    fixture_close(&f);
}

TEST(get_or_insert_stores_once_and_then_hands_out)
{
    struct fixture f = fixture_open();
    kist_view *view = (kist_view *)&f;

    must_ok(kist_get_or_insert(f.bank, text("k"), text("first"), &view));
    must(view == NULL);
    must_rc(kist_get_or_insert(f.bank, text("k"), text("second"), &view), KIST_EXISTS);
    kist_bytes got = kist_view_bytes(view);
    must(got.len == 5 && memcmp(got.data, "first", 5) == 0);
    kist_view_release(view);
    must_rc(kist_get_or_insert(f.bank, text("k"), text("third"), NULL), KIST_EXISTS);
    must_hold(f.bank, "k", "first");
    must_ok(kist_delete(f.bank, text("k")));
    must_ok(kist_get_or_insert(f.bank, text("k"), text("fourth"), NULL));
    must_hold(f.bank, "k", "fourth");
    fixture_close(&f);
}

TEST(put_if_sequence_stores_only_at_the_sequence_named)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "one");
    uint64_t first = sequence_of(f.bank, "k");
    must_ok(kist_put_if_sequence(f.bank, text("k"), text("two"), first));
    must(sequence_of(f.bank, "k") > first);
    must_rc(kist_put_if_sequence(f.bank, text("k"), text("three"), first), KIST_CHANGED);
    must_hold(f.bank, "k", "two");
    must_ok(kist_delete(f.bank, text("k")));
    must_rc(kist_put_if_sequence(f.bank, text("k"), text("four"), first), KIST_MISS);
    must_hold(f.bank, "k", NULL);
    fixture_close(&f);
}

TEST(put_if_sequence_zero_stores_only_when_there_is_nothing)
{
    struct fixture f = fixture_open();

    must_ok(kist_put_if_sequence(f.bank, text("k"), text("one"), 0));
    must_rc(kist_put_if_sequence(f.bank, text("k"), text("two"), 0), KIST_CHANGED);
    must_hold(f.bank, "k", "one");
    must_ok(kist_delete(f.bank, text("k")));
    must_ok(kist_put_if_sequence(f.bank, text("k"), text("three"), 0));
    must_hold(f.bank, "k", "three");
    fixture_close(&f);
}

TEST(sequences_grow_over_deletes_clears_and_reopening)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "v");
    uint64_t last = sequence_of(f.bank, "k");
    for (int i = 0; i < 20; i++) {
        if (i % 4 == 0)
            must_ok(kist_delete(f.bank, text("k")));
        if (i % 4 == 1)
            must_ok(kist_clear(f.bank));
        if (i % 4 == 2)
            must_ok(kist_compact(f.bank, NULL, NULL));
        must_ok(kist_bank_close(f.bank));
        f.bank = open_bank(f.store, "bank");
        put_text(f.bank, "k", "v");
        must(sequence_of(f.bank, "k") > last);
        last = sequence_of(f.bank, "k");
    }
    fixture_close(&f);
}

struct adders {
    kist_bank *bank;
    int each;
};

static void add_one(kist_bank *bank)
{
    for (;;) {
        uint64_t n = 0;
        size_t len;
        kist_meta meta = { .sequence = 0 };
        int rc = kist_get_meta(bank, text("sum"), &meta);

        if (rc == KIST_OK)
            rc = kist_get_copy(bank, text("sum"), &n, sizeof n, &len);
        must(rc == KIST_OK || rc == KIST_MISS);
        rc = kist_put_if_sequence(bank, text("sum"), number(n + 1), meta.sequence);
        if (rc == KIST_OK)
            return;
        must_rc(rc, KIST_CHANGED);
    }
}

static void *add_many(void *arg)
{
    struct adders *adders = arg;

    for (int i = 0; i < adders->each; i++)
        add_one(adders->bank);
    return NULL;
}

/* Between meta and copy another thread may have stored: then the sequence is
 * older than the number, and the put must fail. */
TEST(threads_that_add_with_put_if_sequence_lose_nothing)
{
    struct fixture f = fixture_open();
    struct adders adders = { f.bank, 2000 };
    pthread_t threads[4];
    uint64_t sum;
    size_t len;

    for (int i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, add_many, &adders) == 0);
    for (int i = 0; i < 4; i++)
        must(pthread_join(threads[i], NULL) == 0);
    must_ok(kist_get_copy(f.bank, text("sum"), &sum, sizeof sum, &len));
    must(sum == 8000);
    fixture_close(&f);
}

TEST(keys_of_every_length_up_to_the_limit_are_kept_apart)
{
    static const size_t lengths[] = { 0,    1,     2,     7,     8,     15,   16,   17,
                                      31,   255,   256,   1000,  4055,  4056, 4057, 4096,
                                      8191, 32767, 32768, 65519, 65534, 65535 };
    enum { N = sizeof lengths / sizeof *lengths };
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096 };
    struct fixture f = fixture_open_with(&opt);
    char *key = malloc(KIST_KEY_MAX);

    must(key != NULL);
    memset(key, 'k', KIST_KEY_MAX);
    for (size_t i = 0; i < N; i++)
        must_ok(kist_put(f.bank, (kist_bytes){ key, lengths[i] }, number(lengths[i])));
    must(count_of(f.bank) == N);
    must_ok(kist_bank_close(f.bank));
    f.bank = open_bank(f.store, "bank");
    for (size_t i = 0; i < N; i++) {
        uint64_t got;
        size_t len;
        must_ok(kist_get_copy(f.bank, (kist_bytes){ key, lengths[i] }, &got, sizeof got, &len));
        must(len == sizeof got && got == lengths[i]);
    }
    free(key);
    fixture_close(&f);
}

static void put_filled(kist_bank *bank, char *buf, size_t len, uint64_t version)
{
    value_fill(buf, len, len, version);
    must_ok(kist_put(bank, number(len), (kist_bytes){ buf, len }));
}

static void must_be_filled(kist_bank *bank, size_t len, uint64_t want)
{
    kist_view *view;
    uint64_t version;

    must_ok(kist_get_view(bank, number(len), &view));
    must(kist_view_bytes(view).len == len);
    must(value_check(kist_view_bytes(view), len, &version) && version == want);
    kist_view_release(view);
}

/* Around a page, the checksum pieces of 64 KiB, 1 MiB, and the segment. */
TEST(values_of_every_size_come_back_whole)
{
    static const size_t lengths[] = { 24,      100,     4000,    4040,    4096,    5000,
                                      65535,   65536,   65537,   1048575, 1048576, 1048577,
                                      1114113, 2097152, 3145728, 5000001 };
    enum { N = sizeof lengths / sizeof *lengths, LARGEST = 5000001 };
    char *buf = malloc(LARGEST);

    must(buf != NULL);
    for (uint64_t segment = 4096; segment <= 1u << 26; segment <<= 7) {
        kist_bank_options opt = { .size = sizeof opt, .segment_bytes = (uint32_t)segment };
        struct fixture f = fixture_open_with(&opt);

        for (uint64_t version = 1; version <= 2; version++)
            for (size_t i = 0; i < N; i++)
                put_filled(f.bank, buf, lengths[i], version);
        for (size_t i = 0; i < N; i++)
            must_be_filled(f.bank, lengths[i], 2);
        must_ok(kist_compact(f.bank, NULL, NULL));
        must_ok(kist_bank_close(f.bank));
        f.bank = open_bank(f.store, "bank");
        for (size_t i = 0; i < N; i++)
            must_be_filled(f.bank, lengths[i], 2);
        fixture_close(&f);
    }
    free(buf);
}

TEST(a_value_larger_than_the_default_segment_comes_back_whole)
{
    enum { LEN = 70 << 20 };
    struct fixture f = fixture_open();
    char *buf = malloc(LEN);

    must(buf != NULL);
    put_text(f.bank, "before", "1");
    put_filled(f.bank, buf, LEN, 1);
    put_text(f.bank, "after", "2");
    must_be_filled(f.bank, LEN, 1);
    must_ok(kist_bank_close(f.bank));
    f.bank = open_bank(f.store, "bank");
    must_be_filled(f.bank, LEN, 1);
    must_hold(f.bank, "before", "1");
    must_hold(f.bank, "after", "2");
    free(buf);
    fixture_close(&f);
}

TEST(each_durability_keeps_what_was_put)
{
    for (uint32_t durability = KIST_DURABILITY_NONE; durability <= KIST_DURABILITY_ALWAYS;
         durability++) {
        kist_bank_options opt = { .size = sizeof opt,
                                  .durability = durability,
                                  .segment_bytes = 16384 };
        struct fixture f;

        if (durability == KIST_DURABILITY_INTERVAL)
            opt.interval_ms = 5;
        f = fixture_open_with(&opt);
        for (uint64_t i = 0; i < 1000; i++)
            must_ok(kist_put(f.bank, number(i % 300), number(i)));
        must_ok(kist_delete(f.bank, number(5)));
        must_ok(kist_bank_close(f.bank));
        f.bank = open_bank(f.store, "bank");
        must(count_of(f.bank) == 299);
        fixture_close(&f);
    }
}
