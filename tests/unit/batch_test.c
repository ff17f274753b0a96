/* Batches: private until their commit, then all there at once, or not at all. */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static void batch_put_text(kist_batch *batch, const char *key, const char *value)
{
    must_ok(kist_batch_put(batch, text(key), text(value)));
}

/* `value` NULL: the batch must say that the key has none. */
static void batch_must_hold(kist_batch *batch, const char *key, const char *value)
{
    kist_view *view = NULL;
    int rc = kist_batch_get_view(batch, text(key), &view);

    must_rc(rc, value ? KIST_OK : KIST_MISS);
    must(value ? view != NULL : view == NULL);
    if (value) {
        kist_bytes got = kist_view_bytes(view);

        must(got.len == strlen(value) && memcmp(got.data, value, got.len) == 0);
    }
    kist_view_release(view);
}

static kist_batch *batch_of(kist_bank *bank)
{
    kist_batch *batch;

    must_ok(kist_batch_open(&batch, bank));
    return batch;
}

static uint64_t sequence_of(kist_bank *bank, const char *key)
{
    kist_meta meta;

    must_ok(kist_get_meta(bank, text(key), &meta));
    return meta.sequence;
}

static uint64_t records_of(kist_bank *bank)
{
    kist_report report = { .size = sizeof report };

    must_ok(kist_verify(bank, &report, NULL, NULL));
    return report.records;
}

/* ---- one batch -------------------------------------------------------- */

TEST(a_batch_is_private_until_its_commit)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);

    put_text(f.bank, "old", "1");
    put_text(f.bank, "gone", "1");
    put_text(f.bank, "other", "1");
    batch_put_text(batch, "old", "2");
    batch_put_text(batch, "new", "2");
    must_ok(kist_batch_delete(batch, text("gone")));
    must(kist_batch_count(batch) == 3);

    batch_must_hold(batch, "old", "2");
    batch_must_hold(batch, "new", "2");
    batch_must_hold(batch, "gone", NULL);
    batch_must_hold(batch, "other", "1");
    must_hold(f.bank, "old", "1");
    must_hold(f.bank, "new", NULL);
    must_hold(f.bank, "gone", "1");

    must_ok(kist_batch_commit(batch));
    must(kist_batch_count(batch) == 0);
    must_hold(f.bank, "old", "2");
    must_hold(f.bank, "new", "2");
    must_hold(f.bank, "gone", NULL);
    must_hold(f.bank, "other", "1");
    must(count_of(f.bank) == 3);
    batch_must_hold(batch, "old", "2");

    batch_put_text(batch, "old", "3"); /* it can be filled again */
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "old", "3");
    kist_batch_close(batch);
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(what_is_reset_or_closed_is_forgotten)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);

    batch_put_text(batch, "a", "1");
    must_ok(kist_batch_expect(batch, text("b"), 77));
    must_ok(kist_batch_reset(batch));
    must(kist_batch_count(batch) == 0);
    batch_must_hold(batch, "a", NULL);
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "a", NULL);
    batch_put_text(batch, "c", "1");
    kist_batch_close(batch);
    kist_batch_close(NULL);
    must_hold(f.bank, "c", NULL);
    must(records_of(f.bank) == 0);
    fixture_close(&f);
}

TEST(of_several_changes_of_a_key_the_last_is_written)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);

    put_text(f.bank, "kept", "0");
    for (uint64_t i = 0; i < 1000; i++) {
        must_ok(kist_batch_put(batch, text("k"), number(i)));
        must_ok(kist_batch_delete(batch, text("kept")));
        batch_put_text(batch, "kept", "again");
        batch_put_text(batch, "never", "there");
        must_ok(kist_batch_delete(batch, text("never")));
    }
    must(kist_batch_count(batch) == 3);
    batch_must_hold(batch, "never", NULL);
    must_ok(kist_batch_commit(batch));
    kist_batch_close(batch);

    uint64_t got;
    size_t len;
    must_ok(kist_get_copy(f.bank, text("k"), &got, sizeof got, &len));
    must(got == 999);
    must_hold(f.bank, "kept", "again");
    must_hold(f.bank, "never", NULL);
    must(records_of(f.bank) == 4); /* a put, two of the batch, its commit */
    fixture_close(&f);
}

TEST(an_empty_batch_and_deletes_of_absent_keys_write_nothing)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);

    put_text(f.bank, "k", "v");
    must_ok(kist_delete(f.bank, text("k")));
    uint64_t before = records_of(f.bank);
    must_ok(kist_batch_commit(batch));
    must_ok(kist_batch_delete(batch, text("k")));
    must_ok(kist_batch_delete(batch, text("never")));
    must_ok(kist_batch_commit(batch));
    must(records_of(f.bank) == before);
    kist_batch_close(batch);
    fixture_close(&f);
}

TEST(an_empty_key_and_an_empty_value_are_like_any_other)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);
    kist_bytes nothing = { NULL, 0 };

    must_ok(kist_batch_put(batch, nothing, nothing));
    batch_must_hold(batch, "", "");
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "", "");
    must_ok(kist_batch_delete(batch, nothing));
    batch_must_hold(batch, "", NULL);
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "", NULL);
    kist_batch_close(batch);
    fixture_close(&f);
}

TEST(what_is_too_long_is_refused_and_not_in_the_batch)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);
    static char key[KIST_KEY_MAX + 1];
    kist_view *view;

    must_rc(kist_batch_put(batch, (kist_bytes){ key, sizeof key }, text("v")), KIST_EKEYLEN);
    must_rc(kist_batch_delete(batch, (kist_bytes){ key, sizeof key }), KIST_EKEYLEN);
    must_rc(kist_batch_expect(batch, (kist_bytes){ key, sizeof key }, 0), KIST_EKEYLEN);
    must_rc(kist_batch_get_view(batch, (kist_bytes){ key, sizeof key }, &view), KIST_EKEYLEN);
    must_rc(kist_batch_put(batch, text("k"), (kist_bytes){ key, (size_t)KIST_VALUE_MAX + 1 }),
            KIST_EVALUELEN);
    must(kist_batch_count(batch) == 0);
    must_ok(kist_batch_put(batch, (kist_bytes){ key, sizeof key - 1 }, text("v")));
    must_ok(kist_batch_commit(batch));
    must_ok(kist_get_view(f.bank, (kist_bytes){ key, sizeof key - 1 }, &view));
    kist_view_release(view);
    kist_batch_close(batch);
    fixture_close(&f);
}

/* ---- conditions ------------------------------------------------------- */

static void must_refuse(kist_bank *bank, const char *key, uint64_t sequence, int want)
{
    kist_batch *batch = batch_of(bank);
    uint64_t before = records_of(bank);

    batch_put_text(batch, "changed", "by the batch");
    must_ok(kist_batch_expect(batch, text("there"), sequence_of(bank, "there")));
    must_ok(kist_batch_expect(batch, text(key), sequence));
    must_ok(kist_batch_expect(batch, text("not there"), 0));
    for (int i = 0; i < 2; i++)
        must_rc(kist_batch_commit(batch), want);
    must(kist_batch_count(batch) == 1); /* as it was */
    batch_must_hold(batch, "changed", "by the batch");
    must_hold(bank, "changed", NULL);
    must(records_of(bank) == before);
    kist_batch_close(batch);
}

TEST(a_batch_whose_expectations_fail_changes_nothing)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "there", "1");
    put_text(f.bank, "deleted", "1");
    uint64_t deleted = sequence_of(f.bank, "deleted");
    must_ok(kist_delete(f.bank, text("deleted")));
    must_refuse(f.bank, "there", sequence_of(f.bank, "there") + 1, KIST_CHANGED);
    must_refuse(f.bank, "there", 0, KIST_EXISTS);
    must_refuse(f.bank, "not there", 5, KIST_MISS);
    must_refuse(f.bank, "deleted", deleted, KIST_MISS);
    fixture_close(&f);
}

TEST(an_expectation_speaks_of_the_bank_without_the_batch)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);

    put_text(f.bank, "k", "1");
    uint64_t sequence = sequence_of(f.bank, "k");
    batch_put_text(batch, "k", "2");
    must_ok(kist_batch_expect(batch, text("k"), sequence));
    batch_put_text(batch, "new", "2");
    must_ok(kist_batch_expect(batch, text("new"), 0));
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "k", "2");
    must(sequence_of(f.bank, "k") > sequence);

    must_ok(kist_batch_expect(batch, text("k"), sequence)); /* expectations alone */
    must_rc(kist_batch_commit(batch), KIST_CHANGED);
    must_ok(kist_batch_reset(batch));
    must_ok(kist_batch_commit(batch));

    must_ok(kist_batch_expect(batch, text("k"), sequence_of(f.bank, "k")));
    batch_put_text(batch, "k", "3");
    put_text(f.bank, "k", "in between");
    must_rc(kist_batch_commit(batch), KIST_CHANGED);
    must_hold(f.bank, "k", "in between");
    kist_batch_close(batch);
    fixture_close(&f);
}

/* ---- against an oracle ------------------------------------------------ */

enum { KEYS = 200, LARGE = 20000 };

struct oracle {
    uint64_t now[KEYS];   /* version of each key; 0: none */
    uint64_t later[KEYS]; /* through the batch */
    uint64_t version;
};

static size_t make_value(char *buf, uint64_t key, uint64_t version)
{
    if (version % 23 != 0)
        return value_make(buf, key, version);
    value_fill(buf, LARGE, key, version);
    return LARGE;
}

static void check_value(kist_bytes value, uint64_t key, uint64_t want)
{
    static char buf[LARGE];

    must(value.len == make_value(buf, key, want) && memcmp(buf, value.data, value.len) == 0);
}

static void check_key(kist_bank *bank, kist_batch *batch, uint64_t key, uint64_t want)
{
    kist_view *view;
    int rc = batch ? kist_batch_get_view(batch, number(key), &view)
                   : kist_get_view(bank, number(key), &view);

    must_rc(rc, want ? KIST_OK : KIST_MISS);
    if (want)
        check_value(kist_view_bytes(view), key, want);
    kist_view_release(view);
}

static void check_all(kist_bank *bank, const struct oracle *o)
{
    uint64_t count = 0;

    for (uint64_t key = 0; key < KEYS; key++) {
        check_key(bank, NULL, key, o->now[key]);
        count += o->now[key] != 0;
    }
    must(count_of(bank) == count);
}

static void change_some(kist_batch *batch, struct oracle *o, struct rng *rng)
{
    static char buf[LARGE];

    for (uint64_t n = rng_below(rng, 40); n > 0; n--) {
        uint64_t key = rng_below(rng, KEYS);

        if (rng_below(rng, 4) == 0) {
            must_ok(kist_batch_delete(batch, number(key)));
            o->later[key] = 0;
        } else {
            uint64_t version = ++o->version;
            must_ok(kist_batch_put(batch, number(key),
                                   (kist_bytes){ buf, make_value(buf, key, version) }));
            o->later[key] = version;
        }
        check_key(NULL, batch, key, o->later[key]);
        key = rng_below(rng, KEYS);
        check_key(NULL, batch, key, o->later[key]);
    }
}

/* Expect something of some key; returns what the commit has to say. */
static int expect_some(kist_bank *bank, kist_batch *batch, const struct oracle *o, struct rng *rng)
{
    uint64_t key = rng_below(rng, KEYS);
    kist_meta meta = { 0 };

    must(kist_get_meta(bank, number(key), &meta) >= 0);
    switch (rng_below(rng, 4)) {
    case 0:
        must_ok(kist_batch_expect(batch, number(key), 0));
        return o->now[key] ? KIST_EXISTS : KIST_OK;
    case 1:
        must_ok(kist_batch_expect(batch, number(key), meta.sequence + 1));
        return o->now[key] ? KIST_CHANGED : KIST_MISS;
    default:
        must_ok(kist_batch_expect(batch, number(key), meta.sequence));
        return KIST_OK;
    }
}

static void one_of_the_others(struct fixture *f, struct oracle *o, struct rng *rng)
{
    static char buf[LARGE];
    uint64_t key = rng_below(rng, KEYS), version = o->version + 1;

    switch (rng_below(rng, 40)) {
    case 0:
        must_ok(kist_compact(f->bank, NULL, NULL));
        break;
    case 1:
        must_ok(kist_bank_close(f->bank));
        f->bank = open_bank(f->store, "bank");
        break;
    case 2: /* a rebuild from the heap alone */
        must_ok(kist_repair(f->store, "bank", NULL, NULL, NULL));
        break;
    case 3:
        must_ok(kist_sync(f->bank));
        break;
    case 4:
        if (rng_below(rng, 5) == 0) {
            must_ok(kist_clear(f->bank));
            memset(o->now, 0, sizeof o->now);
        }
        break;
    default:
        must_ok(kist_put(f->bank, number(key),
                         (kist_bytes){ buf, make_value(buf, key, version) }));
        o->now[key] = o->version = version;
    }
}

static void compare_with_oracle(uint32_t index, uint32_t durability, uint32_t segment_bytes,
                                uint64_t rounds)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = segment_bytes,
                              .durability = durability };
    struct fixture f = fixture_open_with(&opt);
    struct oracle *o = calloc(1, sizeof *o);
    struct rng rng = { mix(test_seed(), segment_bytes + durability) };

    for (test_case = 0; test_case < rounds; test_case++) {
        for (uint64_t n = rng_below(&rng, 4); n > 0; n--)
            one_of_the_others(&f, o, &rng);
        kist_batch *batch = batch_of(f.bank);
        int want = KIST_OK;

        memcpy(o->later, o->now, sizeof o->now);
        change_some(batch, o, &rng);
        if (rng_below(&rng, 3) == 0)
            want = expect_some(f.bank, batch, o, &rng);
        if (rng_below(&rng, 10) == 0) {
            if (rng_below(&rng, 2) == 0)
                must_ok(kist_batch_reset(batch));
        } else {
            must_rc(kist_batch_commit(batch), want);
            if (want == KIST_OK)
                memcpy(o->now, o->later, sizeof o->now);
        }
        kist_batch_close(batch);
        if (test_case % 8 == 0)
            check_all(f.bank, o);
    }
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    check_all(f.bank, o);
    must_ok(kist_compact(f.bank, NULL, NULL));
    check_all(f.bank, o);
    must_verify(f.bank);
    free(o);
    fixture_close(&f);
}

TEST(random_batches_do_what_an_oracle_says)
{
    for (uint32_t index = KIST_INDEX_HASH; index <= KIST_INDEX_ORDERED; index++) {
        compare_with_oracle(index, KIST_DURABILITY_NONE, 4096, test_scaled(600));
        compare_with_oracle(index, KIST_DURABILITY_NONE, 1 << 20, test_scaled(600));
        compare_with_oracle(index, KIST_DURABILITY_ALWAYS, 65536, test_scaled(100));
    }
}

/* ---- size ------------------------------------------------------------- */

static void has_no_named_spool(const char *dir)
{
    char *command = malloc(strlen(dir) + 64);

    (void)sprintf(command, "! find '%s' -name 'kist.spool*' | grep -q .", dir);
    must(system(command) == 0);
    free(command);
}

TEST(a_large_batch_spills_to_a_nameless_file_and_spans_segments)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch = batch_of(f.bank);
    static char buf[VALUE_CAP];
    enum { MANY = 3000 };

    for (int round = 1; round <= 3; round++) {
        for (uint64_t key = 0; key < MANY; key++)
            must_ok(kist_batch_put(batch, number(key),
                                   (kist_bytes){ buf, value_make(buf, key, (uint64_t)round) }));
        has_no_named_spool(f.dir);
        for (uint64_t key = 0; key < MANY; key += 7) {
            kist_view *view;
            uint64_t version;
            must_ok(kist_batch_get_view(batch, number(key), &view));
            must(value_check(kist_view_bytes(view), key, &version) && version == (uint64_t)round);
            kist_view_release(view);
        }
        must(kist_batch_count(batch) == MANY);
        must_ok(kist_batch_commit(batch));
        must(count_of(f.bank) == MANY);
        if (round == 2)
            must_ok(kist_compact(f.bank, NULL, NULL));
        else
            must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
        for (uint64_t key = 0; key < MANY; key++) {
            size_t len;
            uint64_t version;
            must_ok(kist_get_copy(f.bank, number(key), buf, sizeof buf, &len));
            must(value_check((kist_bytes){ buf, len }, key, &version) &&
                 version == (uint64_t)round);
        }
    }
    kist_batch_close(batch);
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(a_value_larger_than_a_segment_comes_by_a_batch_too)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch = batch_of(f.bank);
    size_t len = 6 << 20;
    char *buf = malloc(len);
    kist_view *view;

    value_fill(buf, len, 1, 1);
    must_ok(kist_batch_put(batch, text("large"), (kist_bytes){ buf, len }));
    batch_put_text(batch, "small", "1");
    must_ok(kist_batch_commit(batch));
    must_ok(kist_get_view(f.bank, text("large"), &view));
    must(kist_view_bytes(view).len == len && memcmp(kist_view_bytes(view).data, buf, len) == 0);
    kist_view_release(view);
    must_hold(f.bank, "small", "1");
    kist_batch_close(batch);
    free(buf);
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(a_batch_of_a_million_changes)
{
    uint64_t many = test_scaled(1000000);
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank);

    must_ok(kist_batch_put(batch, text("deleted"), text("v")));
    for (uint64_t n = 0; n < many; n++)
        must_ok(kist_batch_put(batch, number(n), number(~n)));
    must_ok(kist_batch_delete(batch, text("deleted")));
    must(kist_batch_count(batch) == many + 1 && count_of(f.bank) == 0);
    must_ok(kist_batch_commit(batch));
    must(count_of(f.bank) == many);
    for (uint64_t n = 0; n < many; n++) {
        uint64_t got;
        size_t len;
        must_ok(kist_get_copy(f.bank, number(n), &got, sizeof got, &len));
        must(got == ~n);
    }
    kist_batch_close(batch);
    fixture_close(&f);
}

/* ---- handles that are no good ----------------------------------------- */

static void must_say(kist_batch *batch, int want)
{
    kist_view *view;

    must_rc(kist_batch_put(batch, text("k"), text("w")), want);
    must_rc(kist_batch_delete(batch, text("k")), want);
    must_rc(kist_batch_expect(batch, text("k"), 0), want);
    must_rc(kist_batch_get_view(batch, text("k"), &view), want);
    must(view == NULL);
    must_rc(kist_batch_commit(batch), want);
}

TEST(batches_of_a_closed_store_say_so)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank), *other;

    batch_put_text(batch, "k", "v");
    must_ok(kist_store_close(f.store));
    must_say(batch, KIST_ECLOSED);
    must_rc(kist_batch_open(&other, f.bank), KIST_ECLOSED);
    must(other == NULL);
    kist_batch_close(batch);
    must_ok(kist_bank_close(f.bank));
    tmp_remove(f.dir);
    free(f.dir);
}

TEST(batches_of_a_dropped_bank_say_so)
{
    struct fixture f = fixture_open();
    kist_batch *batch = batch_of(f.bank), *other;
    kist_view *view;

    batch_put_text(batch, "k", "v");
    must_ok(kist_bank_drop(f.store, "bank"));
    must_rc(kist_batch_commit(batch), KIST_EGONE);
    must_rc(kist_batch_get_view(batch, text("other"), &view), KIST_EGONE);
    must_rc(kist_batch_open(&other, f.bank), KIST_EGONE);
    must(other == NULL && kist_batch_count(batch) == 1);
    kist_batch_close(batch);
    fixture_close(&f);
}

TEST(a_read_only_handle_has_no_batches)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };
    struct fixture f = fixture_open();
    kist_batch *batch;
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, f.store, "bank", &opt));
    must_rc(kist_batch_open(&batch, bank), KIST_EREADONLY);
    must(batch == NULL);
    must_ok(kist_bank_close(bank));
    fixture_close(&f);
}

struct inherited {
    kist_batch *batch;
    kist_bank *bank;
};

static void use_inherited(void *arg)
{
    const struct inherited *i = arg;
    kist_batch *other;

    must_say(i->batch, KIST_EFORK);
    must_rc(kist_batch_reset(i->batch), KIST_EFORK);
    must_rc(kist_batch_open(&other, i->bank), KIST_EFORK);
    kist_batch_close(i->batch);
}

TEST(a_batch_made_before_fork_is_the_parents_alone)
{
    static char buf[VALUE_CAP];
    struct fixture f = fixture_open();

    for (uint64_t many = 1; many <= 2000; many += 1999) { /* in memory; in a file */
        struct inherited i = { batch_of(f.bank), f.bank };

        for (uint64_t key = 0; key < many; key++)
            must_ok(kist_batch_put(i.batch, number(key),
                                   (kist_bytes){ buf, value_make(buf, key, 1) }));
        in_child(use_inherited, &i);
        must_ok(kist_batch_commit(i.batch));
        must(count_of(f.bank) == many);
        kist_batch_close(i.batch);
    }
    fixture_close(&f);
}

/* ---- damage ----------------------------------------------------------- */

/* Spoil one byte of the value in the bank's heap. */
static void spoil(const char *dir, const char *value)
{
    char *path = path_join(dir, "bank/kist.heap.1");
    static char bytes[1 << 20];
    int fd = open(path, O_RDWR);
    ssize_t len = read(fd, bytes, sizeof bytes);
    char *at = memmem(bytes, (size_t)len, value, strlen(value));

    must(fd >= 0 && at != NULL);
    must(pwrite(fd, "?", 1, at - bytes) == 1);
    must(close(fd) == 0);
    free(path);
}

TEST(damage_in_a_batch_costs_one_record_and_is_told)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch = batch_of(f.bank);
    kist_view *view;

    put_text(f.bank, "b", "before the batch");
    batch_put_text(batch, "a", "first");
    batch_put_text(batch, "b", "to be spoilt");
    batch_put_text(batch, "c", "third");
    must_ok(kist_batch_commit(batch));
    kist_batch_close(batch);
    must_ok(kist_sync(f.bank));
    put_text(f.bank, "d", "so that a mark names the batch");
    must_ok(kist_sync(f.bank));
    must_ok(kist_bank_close(f.bank));
    spoil(f.dir, "to be spoilt");
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_ok(kist_bank_open(&f.bank, f.store, "bank", NULL));
    must_hold(f.bank, "a", "first");
    must_hold(f.bank, "c", "third");
    must_hold(f.bank, "d", "so that a mark names the batch");
    must_rc(kist_get_view(f.bank, text("b"), &view), KIST_ECORRUPT);
    fixture_close(&f);
}

/* ---- readers meanwhile ------------------------------------------------- */

enum { TOGETHER = 8, SOME_READS = 3000 };

struct scene {
    const char *dir;
    _Atomic bool stop;
    _Atomic uint64_t begun, acked, reads;
};

static uint64_t version_of(kist_bank *bank, uint64_t key, bool borrowed)
{
    uint64_t version;
    size_t len = sizeof version;

    if (borrowed) {
        kist_bytes value;
        must_ok(kist_read_begin());
        must_ok(kist_get(bank, number(key), &value));
        must(value.len == sizeof version);
        memcpy(&version, value.data, sizeof version);
        kist_read_end();
    } else {
        must_ok(kist_get_copy(bank, number(key), &version, sizeof version, &len));
    }
    must(len == sizeof version);
    return version;
}

/* All keys always have one version; so versions seen one after the other only grow,
 * whichever key each is of. */
static void read_until_told(struct scene *scene, kist_bank *bank, uint64_t seed)
{
    struct rng rng = { mix(test_seed(), seed) };
    uint64_t seen = 0;

    for (uint64_t n = 0; !scene->stop || n < SOME_READS; n++) {
        uint64_t low = scene->acked, now;

        now = version_of(bank, rng_below(&rng, TOGETHER), n % 2);

        must(now >= low && now >= seen && now <= scene->begun);
        seen = now;
        scene->reads++;
    }
}

static void *read_in_thread(void *arg)
{
    struct scene *scene = arg;
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_bank(store, "bank");

    read_until_told(scene, bank, 1);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    return NULL;
}

static void read_in_child(void *arg)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };
    struct scene *scene = arg;
    kist_store *store = open_store(scene->dir);
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    read_until_told(scene, bank, 2);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void commit_version(struct scene *scene, kist_batch *batch, uint64_t version, bool downwards)
{
    for (uint64_t i = 0; i < TOGETHER; i++)
        must_ok(kist_batch_put(batch, number(downwards ? TOGETHER - 1 - i : i), number(version)));
    scene->begun = version;
    must_ok(kist_batch_commit(batch));
    scene->acked = version;
}

static void read_beside_batches(uint32_t index)
{
    struct scene *scene = shared_memory(sizeof *scene);
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = 16384 };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch = batch_of(f.bank);
    pthread_t thread;
    pid_t child;

    scene->dir = f.dir;
    commit_version(scene, batch, 1, false);
    child = child_start(read_in_child, scene);
    must(pthread_create(&thread, NULL, read_in_thread, scene) == 0);
    for (uint64_t version = 2; version <= test_scaled(30000) + 1; version++) {
        commit_version(scene, batch, version, version % 2);
        if (version % 2000 == 0)
            must_ok(kist_compact(f.bank, NULL, NULL));
    }
    scene->stop = true;
    must(pthread_join(thread, NULL) == 0);
    must_end_well(child);
    must(scene->reads >= 2 * SOME_READS);
    kist_batch_close(batch);
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(readers_see_all_of_a_batch_or_nothing)
{
    read_beside_batches(KIST_INDEX_HASH);
    read_beside_batches(KIST_INDEX_ORDERED);
}
