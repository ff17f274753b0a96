/* Views: a value held stays whatever becomes of its key, bank and store. */
#include "support.h"

#include <pthread.h>

struct held {
    struct fixture f;
    kist_view *view;
};

/* A bank of small segments, so that cleaning has files to unlink. */
static struct held hold(void)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096 };
    struct held held = { .f = fixture_open_with(&opt) };
    char buf[VALUE_CAP];
    size_t len = value_make(buf, 1, 1);

    must_ok(kist_put(held.f.bank, number(1), (kist_bytes){ buf, len }));
    must_ok(kist_get_view(held.f.bank, number(1), &held.view));
    return held;
}

static void must_be_whole(const kist_view *view)
{
    uint64_t version;

    must(value_check(kist_view_bytes(view), 1, &version) && version == 1);
}

static void fill(kist_bank *bank, uint64_t version)
{
    char buf[VALUE_CAP];

    for (uint64_t key = 0; key < 200; key++) {
        size_t len = value_make(buf, key, version);
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, len }));
    }
}

static void let_go(struct held *held)
{
    must_be_whole(held->view);
    kist_view_release(held->view);
    fixture_close(&held->f);
}

TEST(a_view_outlives_overwriting)
{
    struct held held = hold();

    for (uint64_t version = 2; version < 30; version++)
        fill(held.f.bank, version);
    let_go(&held);
}

TEST(a_view_outlives_deleting)
{
    struct held held = hold();

    must_ok(kist_delete(held.f.bank, number(1)));
    let_go(&held);
}

TEST(a_view_outlives_cleaning)
{
    struct held held = hold();

    for (uint64_t version = 2; version < 10; version++) {
        fill(held.f.bank, version);
        must_ok(kist_compact(held.f.bank, NULL, NULL));
        must_be_whole(held.view);
    }
    let_go(&held);
}

TEST(a_view_outlives_clearing)
{
    struct held held = hold();

    must_ok(kist_clear(held.f.bank));
    must_ok(kist_compact(held.f.bank, NULL, NULL));
    fill(held.f.bank, 3);
    let_go(&held);
}

static int next_nothing(kist_bytes *key, kist_bytes *value, void *arg)
{
    (void)key, (void)value, (void)arg;
    return KIST_END;
}

TEST(a_view_outlives_replacing)
{
    struct held held = hold();

    must_ok(kist_replace(held.f.bank, next_nothing, NULL));
    must_ok(kist_compact(held.f.bank, NULL, NULL));
    must(count_of(held.f.bank) == 0);
    let_go(&held);
}

TEST(a_view_outlives_repair)
{
    struct held held = hold();

    must_ok(kist_repair(held.f.store, "bank", NULL, NULL, NULL));
    let_go(&held);
}

TEST(a_view_outlives_dropping)
{
    struct held held = hold();

    must_ok(kist_bank_drop(held.f.store, "bank"));
    let_go(&held);
}

TEST(a_view_outlives_its_bank_handle)
{
    struct held held = hold();

    must_ok(kist_bank_close(held.f.bank));
    must_be_whole(held.view);
    held.f.bank = open_bank(held.f.store, "bank");
    fill(held.f.bank, 9);
    let_go(&held);
}

TEST(a_view_outlives_its_store)
{
    struct held held = hold();

    fixture_close(&held.f);
    must_be_whole(held.view);
    kist_view_release(held.view);
}

TEST(a_view_of_a_bank_closed_as_idle_stays)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store_options opt = { .size = sizeof opt,
                               .flags = KIST_STORE_CREATE,
                               .max_open_banks = 1 };
    kist_store *store;
    kist_view *view;

    must_ok(kist_store_open(&store, dir, &opt));
    kist_bank *held = open_bank(store, "held");
    put_text(held, "k", "held value");
    must_ok(kist_get_view(held, text("k"), &view));
    kist_bank *other = open_bank(store, "other");
    for (int i = 0; i < 10; i++) {
        put_text(other, "k", "v");
        put_text(held, "k", "v");
    }
    kist_bytes bytes = kist_view_bytes(view);
    must(bytes.len == 10 && memcmp(bytes.data, "held value", 10) == 0);
    kist_view_release(view);
    must_ok(kist_bank_close(held));
    must_ok(kist_bank_close(other));
    must_ok(kist_store_close(store));
    free(dir);
}

static void *check_and_release(void *view)
{
    must_be_whole(view);
    kist_view_release(view);
    return NULL;
}

TEST(a_view_may_be_released_in_another_thread)
{
    struct held held = hold();
    pthread_t thread;

    fixture_close(&held.f);
    must(pthread_create(&thread, NULL, check_and_release, held.view) == 0);
    must(pthread_join(thread, NULL) == 0);
}

static void *take_view(void *arg)
{
    struct held *held = arg;

    must_ok(kist_get_view(held->f.bank, number(1), &held->view));
    return NULL;
}

TEST(a_view_outlives_the_thread_that_took_it)
{
    struct held held = hold();
    pthread_t thread;

    kist_view_release(held.view);
    must(pthread_create(&thread, NULL, take_view, &held) == 0);
    must(pthread_join(thread, NULL) == 0);
    must_ok(kist_clear(held.f.bank));
    let_go(&held);
}

TEST(thousands_of_views_of_all_ages_stay_as_they_were)
{
    enum { VIEWS = 4000 };
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 8192 };
    struct fixture f = fixture_open_with(&opt);
    static kist_view *views[VIEWS];
    char buf[VALUE_CAP];
    uint64_t version;

    for (uint64_t i = 0; i < VIEWS; i++) {
        size_t len = value_make(buf, i % 50, i);
        must_ok(kist_put(f.bank, number(i % 50), (kist_bytes){ buf, len }));
        must_ok(kist_get_view(f.bank, number(i % 50), &views[i]));
        if (i % 500 == 499)
            must_ok(kist_compact(f.bank, NULL, NULL));
    }
    must(count_of(f.bank) == 50);
    for (uint64_t i = 0; i < VIEWS; i++)
        must(value_check(kist_view_bytes(views[i]), i % 50, &version) && version == i);
    fixture_close(&f);
    for (uint64_t i = 0; i < VIEWS; i++) {
        must(value_check(kist_view_bytes(views[i]), i % 50, &version) && version == i);
        kist_view_release(views[i]);
    }
}
