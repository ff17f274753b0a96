/* Changing everything at once: kist_clear() and kist_replace(). */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static void fill(kist_bank *bank, uint64_t first, uint64_t last, uint64_t version)
{
    char buf[VALUE_CAP];

    for (uint64_t key = first; key < last; key++)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) }));
}

/* Exactly the keys first .. last - 1, each at the version. */
static void must_be_filled(kist_bank *bank, uint64_t first, uint64_t last, uint64_t want)
{
    uint64_t version;

    must(count_of(bank) == last - first);
    for (uint64_t key = first; key < last; key++) {
        kist_view *view;
        must_ok(kist_get_view(bank, number(key), &view));
        must(value_check(kist_view_bytes(view), key, &version) && version == want);
        kist_view_release(view);
    }
}

static void reopen(struct fixture *f)
{
    must_ok(kist_bank_close(f->bank));
    f->bank = open_bank(f->store, "bank");
}

/* What kist_replace() is fed with. */
struct feed {
    uint64_t next, last, version;
    uint64_t fail_at;
    int fail_rc;
    size_t len; /* 0: as value_make() */
    uint64_t key;
    char *buf; /* freed and made anew at each call: it holds no longer */
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *feed = arg;
    size_t len = feed->len;

    free(feed->buf);
    feed->buf = NULL;
    if (feed->fail_rc && feed->next == feed->fail_at)
        return feed->fail_rc;
    if (feed->next == feed->last)
        return KIST_END;
    feed->key = feed->next++;
    feed->buf = malloc(len ? len : VALUE_CAP);
    must(feed->buf != NULL);
    if (len)
        value_fill(feed->buf, len, feed->key, feed->version);
    else
        len = value_make(feed->buf, feed->key, feed->version);
    *key = (kist_bytes){ &feed->key, sizeof feed->key };
    *value = (kist_bytes){ feed->buf, len };
    return 0;
}

TEST(a_clear_removes_everything_and_goes_on)
{
    struct fixture f = fixture_open();

    must_ok(kist_clear(f.bank));
    fill(f.bank, 0, 3000, 1);
    must_ok(kist_clear(f.bank));
    must(count_of(f.bank) == 0);
    for (uint64_t key = 0; key < 3000; key++) {
        kist_view *view;
        must_rc(kist_get_view(f.bank, number(key), &view), KIST_MISS);
    }
    fill(f.bank, 100, 200, 2);
    must_be_filled(f.bank, 100, 200, 2);
    reopen(&f);
    must_be_filled(f.bank, 100, 200, 2);
    fixture_close(&f);
}

TEST(what_was_cleared_stays_away_after_rebuilding)
{
    struct fixture f = fixture_open();

    fill(f.bank, 0, 500, 1);
    must_ok(kist_clear(f.bank));
    fill(f.bank, 400, 600, 2);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_be_filled(f.bank, 400, 600, 2);
    must_ok(kist_compact(f.bank, NULL, NULL));
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_be_filled(f.bank, 400, 600, 2);
    fixture_close(&f);
}

TEST(a_replace_leaves_exactly_what_was_yielded)
{
    struct fixture f = fixture_open();
    struct feed feed = { .next = 500, .last = 1500, .version = 2 };

    fill(f.bank, 0, 1000, 1);
    must_ok(kist_replace(f.bank, feed_next, &feed));
    must_be_filled(f.bank, 500, 1500, 2);
    reopen(&f);
    must_be_filled(f.bank, 500, 1500, 2);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_be_filled(f.bank, 500, 1500, 2);
    fixture_close(&f);
}

TEST(a_replace_with_nothing_empties_the_bank)
{
    struct fixture f = fixture_open();
    struct feed feed = { 0 };

    fill(f.bank, 0, 100, 1);
    must_ok(kist_replace(f.bank, feed_next, &feed));
    must(count_of(f.bank) == 0);
    fill(f.bank, 0, 10, 3);
    must_be_filled(f.bank, 0, 10, 3);
    fixture_close(&f);
}

TEST(a_replace_larger_than_a_segment_works)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096 };
    struct fixture f = fixture_open_with(&opt);
    struct feed feed = { .last = 300, .version = 2, .len = 3000 };

    fill(f.bank, 0, 100, 1);
    must_ok(kist_replace(f.bank, feed_next, &feed));
    must_be_filled(f.bank, 0, 300, 2);
    feed = (struct feed){ .last = 5, .version = 3, .len = 100000 };
    must_ok(kist_replace(f.bank, feed_next, &feed));
    must_be_filled(f.bank, 0, 5, 3);
    reopen(&f);
    must_be_filled(f.bank, 0, 5, 3);
    fixture_close(&f);
}

TEST(a_replace_whose_source_fails_leaves_the_old_content)
{
    static const int codes[] = { -EIO, -1, KIST_ECORRUPT };
    struct fixture f = fixture_open();

    fill(f.bank, 0, 100, 1);
    for (uint64_t at = 0; at < 200; at += 67)
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
            struct feed feed = { .last = 300, .version = 2, .fail_at = at, .fail_rc = codes[i] };
            must_rc(kist_replace(f.bank, feed_next, &feed), codes[i]);
            must_be_filled(f.bank, 0, 100, 1);
        }
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_be_filled(f.bank, 0, 100, 1);
    fixture_close(&f);
}

static int long_key_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    int *calls = arg;
    static char bytes[KIST_KEY_MAX + 1];

    if (++*calls == 3)
        return KIST_END;
    *key = (kist_bytes){ bytes, *calls == 2 ? sizeof bytes : 4 };
    *value = text("v");
    return 0;
}

TEST(a_replace_refuses_a_key_too_long_and_leaves_the_old_content)
{
    struct fixture f = fixture_open();
    int calls = 0;

    fill(f.bank, 0, 10, 1);
    must_rc(kist_replace(f.bank, long_key_next, &calls), KIST_EKEYLEN);
    must_be_filled(f.bank, 0, 10, 1);
    fixture_close(&f);
}

static int twice_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    static const char *const values[] = { "first", "other", "last" };
    static const char *const keys[] = { "twice", "once", "twice" };
    int *calls = arg;

    if (*calls == 3)
        return KIST_END;
    *key = text(keys[*calls]);
    *value = text(values[(*calls)++]);
    return 0;
}

TEST(a_key_that_comes_twice_in_a_replace_has_its_last_value)
{
    struct fixture f = fixture_open();
    int calls = 0;

    put_text(f.bank, "old", "x");
    must_ok(kist_replace(f.bank, twice_next, &calls));
    must_hold(f.bank, "twice", "last");
    must_hold(f.bank, "once", "other");
    must_hold(f.bank, "old", NULL);
    must(count_of(f.bank) == 2);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_hold(f.bank, "twice", "last");
    must(count_of(f.bank) == 2);
    fixture_close(&f);
}

static int using_the_bank(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *feed = arg;
    kist_bank *bank = (void *)feed->buf;

    if (feed->next == feed->last)
        return KIST_END;
    must_ok(kist_put(bank, text("from inside"), text("x")));
    must_hold(bank, "from inside", "x");
    feed->key = feed->next++;
    *key = (kist_bytes){ &feed->key, sizeof feed->key };
    *value = text("v");
    return 0;
}

/* No lock is held while the source runs: it may use the bank itself. */
TEST(the_source_of_a_replace_may_use_the_bank)
{
    kist_bank_options opt = { .size = sizeof opt, .deadline_ms = 2000 };
    struct fixture f = fixture_open_with(&opt);
    struct feed feed = { .last = 10, .buf = (void *)f.bank };

    must_ok(kist_replace(f.bank, using_the_bank, &feed));
    must(count_of(f.bank) == 10);
    must_hold(f.bank, "from inside", NULL);
    fixture_close(&f);
}

struct watcher {
    kist_bank *bank;
    atomic_bool stop;
    uint64_t looked;
};

/* In a mixture of two contents a key read later would be older than one read
 * before it. */
static void look_once(struct watcher *w)
{
    uint64_t newest = 0, version;
    kist_bytes value;

    must_ok(kist_read_begin());
    for (uint64_t i = 0; i < 100; i++) {
        must_ok(kist_get(w->bank, number(i % 50), &value));
        must(value_check(value, i % 50, &version) && version >= newest);
        newest = version;
    }
    w->looked++;
    kist_read_end();
}

static void *watch(void *arg)
{
    struct watcher *w = arg;

    while (!w->stop || w->looked < 100)
        look_once(w);
    return NULL;
}

TEST(readers_see_the_old_content_or_the_new_one)
{
    struct fixture f = fixture_open();
    struct watcher w = { .bank = f.bank };
    pthread_t thread;

    fill(f.bank, 0, 50, 1);
    must(pthread_create(&thread, NULL, watch, &w) == 0);
    for (uint64_t version = 2; version < 200; version++) {
        struct feed feed = { .last = 50, .version = version };
        must_ok(kist_replace(f.bank, feed_next, &feed));
    }
    w.stop = true;
    must(pthread_join(thread, NULL) == 0);
    must_be_filled(f.bank, 0, 50, 199);
    fixture_close(&f);
}

TEST(many_clears_and_replaces_leave_little_behind)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct fixture f = fixture_open_with(&opt);

    for (uint64_t version = 1; version <= 100; version++) {
        struct feed feed = { .last = 200, .version = version };
        must_ok(kist_replace(f.bank, feed_next, &feed));
        if (version % 10 == 0)
            must_ok(kist_compact(f.bank, NULL, NULL));
    }
    must_be_filled(f.bank, 0, 200, 100);
    must(tree_blocks(f.dir) < (2u << 20));
    fixture_close(&f);
}
