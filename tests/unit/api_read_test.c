/* Reading: sections, borrowed gets, copies, many keys at once, metadata. */
#include "support.h"

#include <limits.h>
#include <pthread.h>
#include <time.h>

static bool is_text(kist_bytes got, const char *want)
{
    return got.len == strlen(want) && memcmp(got.data, want, got.len) == 0;
}

TEST(a_borrowed_value_holds_until_the_section_ends)
{
    struct fixture f = fixture_open();
    kist_bytes value, later;

    put_text(f.bank, "k", "first");
    must_ok(kist_read_begin());
    must_ok(kist_get(f.bank, text("k"), &value));
    must(is_text(value, "first"));
    put_text(f.bank, "k", "second");
    must_ok(kist_delete(f.bank, text("k")));
    must_ok(kist_clear(f.bank));
    must_ok(kist_compact(f.bank, NULL, NULL));
    must(is_text(value, "first"));
    must_rc(kist_get(f.bank, text("k"), &later), KIST_MISS);
    kist_read_end();
    fixture_close(&f);
}

TEST(a_borrowed_value_outlives_the_closing_of_its_bank_and_store)
{
    struct fixture f = fixture_open();
    kist_bytes value;

    put_text(f.bank, "k", "still here");
    must_ok(kist_read_begin());
    must_ok(kist_get(f.bank, text("k"), &value));
    fixture_close(&f);
    must(is_text(value, "still here"));
    kist_read_end();
}

TEST(a_borrowed_get_needs_a_section)
{
    struct fixture f = fixture_open();
    kist_bytes key = text("k"), value = text("untouched");
    int rc = 12345;

    put_text(f.bank, "k", "v");
    must_rc(kist_get(f.bank, key, &value), KIST_ESECTION);
    must(is_text(value, "untouched"));
    must_rc(kist_get_many(f.bank, &key, 1, &value, &rc), KIST_ESECTION);
    must(is_text(value, "untouched") && rc == 12345);
    fixture_close(&f);
}

TEST(sections_nest)
{
    struct fixture f = fixture_open();
    kist_bytes value;

    put_text(f.bank, "k", "v");
    must_ok(kist_read_begin());
    must_ok(kist_read_begin());
    kist_read_end();
    must_ok(kist_get(f.bank, text("k"), &value));
    must(is_text(value, "v"));
    kist_read_end();
    must_rc(kist_get(f.bank, text("k"), &value), KIST_ESECTION);
    fixture_close(&f);
}

static void *leave_in_section(void *bank)
{
    kist_bytes value;

    must_ok(kist_read_begin());
    must_ok(kist_get(bank, text("k"), &value));
    return NULL;
}

static void *get_without_section(void *bank)
{
    kist_bytes value;

    must_rc(kist_get(bank, text("k"), &value), KIST_ESECTION);
    return NULL;
}

static void in_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, body, arg) == 0);
    must(pthread_join(thread, NULL) == 0);
}

TEST(a_section_belongs_to_its_thread_and_ends_with_it)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "v");
    must_ok(kist_read_begin());
    in_thread(get_without_section, f.bank);
    kist_read_end();
    for (int i = 0; i < 100; i++)
        in_thread(leave_in_section, f.bank);
    must_ok(kist_compact(f.bank, NULL, NULL));
    fixture_close(&f);
}

TEST(a_missing_key_leaves_the_output_alone)
{
    struct fixture f = fixture_open();
    kist_bytes value = text("untouched");
    kist_view *view = (kist_view *)&value;
    kist_meta meta = { .sequence = 42 };
    size_t len = 42;
    char buf[8] = "abc";

    must_ok(kist_read_begin());
    must_rc(kist_get(f.bank, text("k"), &value), KIST_MISS);
    kist_read_end();
    must(is_text(value, "untouched"));
    must_rc(kist_get_meta(f.bank, text("k"), &meta), KIST_MISS);
    must_rc(kist_get_copy(f.bank, text("k"), buf, sizeof buf, &len), KIST_MISS);
    must(meta.sequence == 42 && len == 42 && strcmp(buf, "abc") == 0);
    must_rc(kist_get_view(f.bank, text("k"), &view), KIST_MISS);
    must(view == NULL);
    fixture_close(&f);
}

TEST(a_copy_tells_the_length_when_the_buffer_is_too_small)
{
    struct fixture f = fixture_open();
    char buf[8] = "1234567";
    size_t len = 0;

    put_text(f.bank, "k", "abcdef");
    must_rc(kist_get_copy(f.bank, text("k"), buf, 5, &len), KIST_ESPACE);
    must(len == 6 && strcmp(buf, "1234567") == 0);
    must_rc(kist_get_copy(f.bank, text("k"), NULL, 0, &len), KIST_ESPACE);
    must(len == 6);
    must_ok(kist_get_copy(f.bank, text("k"), buf, 6, &len));
    must(len == 6 && memcmp(buf, "abcdef7", 8) == 0);
    put_text(f.bank, "empty", "");
    must_ok(kist_get_copy(f.bank, text("empty"), NULL, 0, &len));
    must(len == 0);
    fixture_close(&f);
}

TEST(many_gets_answer_like_single_ones)
{
    enum { N = 1000 };
    struct fixture f = fixture_open();
    kist_bytes keys[N], values[N];
    uint64_t names[N];
    int rc[N];

    for (uint64_t i = 0; i < N; i++) {
        names[i] = i;
        keys[i] = (kist_bytes){ &names[i], sizeof names[i] };
        if (i % 3 != 0)
            must_ok(kist_put(f.bank, keys[i], number(i * 7)));
    }
    must_ok(kist_read_begin());
    must(kist_get_many(f.bank, keys, N, values, rc) == N - (N + 2) / 3);
    for (uint64_t i = 0; i < N; i++) {
        kist_bytes single = { NULL, 0 };
        must_rc(kist_get(f.bank, keys[i], &single), rc[i]);
        must(single.data == values[i].data && single.len == values[i].len);
        must(rc[i] == (i % 3 != 0 ? KIST_OK : KIST_MISS));
        must(rc[i] == KIST_MISS || memcmp(values[i].data, number(i * 7).data, 8) == 0);
    }
    kist_read_end();
    fixture_close(&f);
}

TEST(many_gets_accept_the_same_key_twice_and_no_key_at_all)
{
    struct fixture f = fixture_open();
    kist_bytes keys[2] = { text("k"), text("k") }, values[2];
    int rc[2];

    put_text(f.bank, "k", "v");
    must_ok(kist_read_begin());
    must(kist_get_many(f.bank, keys, 0, values, rc) == 0);
    must(kist_get_many(f.bank, keys, 2, values, rc) == 2);
    must(is_text(values[0], "v") && is_text(values[1], "v"));
    kist_read_end();
    fixture_close(&f);
}

TEST(one_bad_key_among_many_spoils_only_its_own_result)
{
    struct fixture f = fixture_open();
    char *long_key = calloc(1, KIST_KEY_MAX + 1);
    kist_bytes keys[3] = { text("a"), { long_key, KIST_KEY_MAX + 1 }, text("b") }, values[3];
    int rc[3];

    put_text(f.bank, "a", "1");
    put_text(f.bank, "b", "2");
    must_ok(kist_read_begin());
    must(kist_get_many(f.bank, keys, 3, values, rc) == 2);
    must(rc[0] == KIST_OK && rc[1] == KIST_EKEYLEN && rc[2] == KIST_OK);
    must(is_text(values[0], "1") && is_text(values[2], "2"));
    must(values[1].data == NULL && values[1].len == 0);
    kist_read_end();
    free(long_key);
    fixture_close(&f);
}

TEST(more_keys_at_once_than_can_be_counted_are_refused)
{
    struct fixture f = fixture_open();
    kist_bytes key = text("k"), value = text("untouched");
    int rc = 5;

    must_ok(kist_read_begin());
    must_rc(kist_get_many(f.bank, &key, (size_t)INT_MAX + 1, &value, &rc), KIST_EINVAL);
    must(rc == 5 && is_text(value, "untouched"));
    kist_read_end();
    fixture_close(&f);
}

static int64_t real_ns(void)
{
    struct timespec now;

    must(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

TEST(metadata_tells_size_sequence_and_time)
{
    enum { COARSE_NS = 20000000 };
    struct fixture f = fixture_open();
    kist_meta first, second, other;
    int64_t before = real_ns();

    put_text(f.bank, "k", "12345");
    must_ok(kist_get_meta(f.bank, text("k"), &first));
    must(first.value_bytes == 5 && first.expiry_ns == 0 && first.sequence > 0);
    must(first.mtime_ns >= before - COARSE_NS && first.mtime_ns <= real_ns() + COARSE_NS);
    put_text(f.bank, "other", "");
    put_text(f.bank, "k", "123");
    must_ok(kist_get_meta(f.bank, text("k"), &second));
    must_ok(kist_get_meta(f.bank, text("other"), &other));
    must(second.value_bytes == 3 && other.value_bytes == 0);
    must(first.sequence < other.sequence && other.sequence < second.sequence);
    must(first.mtime_ns <= other.mtime_ns && other.mtime_ns <= second.mtime_ns);
    fixture_close(&f);
}

TEST(metadata_survives_closing)
{
    struct fixture f = fixture_open();
    kist_meta before, after;

    put_text(f.bank, "k", "v");
    must_ok(kist_get_meta(f.bank, text("k"), &before));
    must_ok(kist_bank_close(f.bank));
    f.bank = open_bank(f.store, "bank");
    must_ok(kist_get_meta(f.bank, text("k"), &after));
    must(memcmp(&before, &after, sizeof before) == 0);
    fixture_close(&f);
}

TEST(each_level_of_verification_reads_what_was_put)
{
    for (uint32_t verify = KIST_VERIFY_FIRST; verify <= KIST_VERIFY_NEVER; verify++) {
        kist_bank_options opt = { .size = sizeof opt, .verify = verify };
        struct fixture f = fixture_open_with(&opt);

        for (uint64_t i = 0; i < 2000; i++)
            must_ok(kist_put(f.bank, number(i), number(~i)));
        must_ok(kist_read_begin());
        for (uint64_t i = 0; i < 4000; i++) {
            kist_bytes value;
            must_rc(kist_get(f.bank, number(i), &value), i < 2000 ? KIST_OK : KIST_MISS);
            must(i >= 2000 || memcmp(value.data, number(~i).data, 8) == 0);
        }
        kist_read_end();
        fixture_close(&f);
    }
}
