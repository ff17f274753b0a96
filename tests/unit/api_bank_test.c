/* Banks by name: open, create, list, drop, and their options. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

struct names {
    char all[1024];
    int stop_after; /* 0: never */
    int seen;
};

static int note_name(const char *name, void *arg)
{
    struct names *names = arg;

    (void)snprintf(names->all + strlen(names->all), sizeof names->all - strlen(names->all), "%s ",
                   name);
    return ++names->seen == names->stop_after ? 77 : 0;
}

static void make_bank(kist_store *store, const char *name)
{
    must_ok(kist_bank_close(open_bank(store, name)));
}

static int open_flags(kist_bank **out, kist_store *store, const char *name, uint32_t flags)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = flags };

    *out = (kist_bank *)&opt;
    return kist_bank_open(out, store, name, &opt);
}

TEST(a_missing_bank_is_made_only_when_asked)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    uint64_t before = tree_hash(dir);
    kist_bank *bank;

    must_rc(open_flags(&bank, store, "b", 0), KIST_ENOBANK);
    must(bank == NULL);
    must_rc(open_flags(&bank, store, "b", KIST_BANK_READONLY), KIST_ENOBANK);
    must_rc(open_flags(&bank, store, "deep/er", 0), KIST_ENOBANK);
    must(tree_hash(dir) == before);
    must_ok(open_flags(&bank, store, "b", KIST_BANK_CREATE));
    must_ok(kist_bank_close(bank));
    must_ok(kist_bank_open(&bank, store, "b", NULL));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(exclusive_creation_refuses_a_bank_that_is_there)
{
    struct fixture f = fixture_open();
    kist_bank *bank;
    uint32_t flags = KIST_BANK_CREATE | KIST_BANK_EXCLUSIVE;

    must_rc(open_flags(&bank, f.store, "bank", flags), KIST_EBANKEXISTS);
    must(bank == NULL);
    must_ok(open_flags(&bank, f.store, "another", flags));
    must_ok(kist_bank_close(bank));
    fixture_close(&f);
}

static void *create_shared(void *store)
{
    kist_bank *bank = open_bank(store, "raced");

    must_ok(kist_put(bank, number((uint64_t)pthread_self()), text("x")));
    must_ok(kist_bank_close(bank));
    return NULL;
}

TEST(threads_that_create_the_same_bank_share_one)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    pthread_t threads[8];

    for (int i = 0; i < 8; i++)
        must(pthread_create(&threads[i], NULL, create_shared, store) == 0);
    for (int i = 0; i < 8; i++)
        must(pthread_join(threads[i], NULL) == 0);
    kist_bank *bank = open_bank(store, "raced");
    must(count_of(bank) == 8);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(names_may_be_nested_and_hold_any_byte)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    static const char *const names[] = { "a",       "a/b",  "a/b/c",   "sp ace",     "...",
                                         ".hidden", "kist", "kis.t/x", "\xff\x01\n", "x/kistx.y" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        kist_bank *bank = open_bank(store, names[i]);
        put_text(bank, "name", names[i]);
        must_ok(kist_bank_close(bank));
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        kist_bank *bank = open_bank(store, names[i]);
        must_hold(bank, "name", names[i]);
        must(count_of(bank) == 1);
        must_ok(kist_bank_close(bank));
    }
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(names_of_the_longest_allowed_length_work)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    char name[1024];

    memset(name, 'n', sizeof name);
    name[255] = name[511] = name[767] = '/';
    name[1023] = '\0';
    kist_bank *bank = open_bank(store, name);
    put_text(bank, "k", "v");
    must_ok(kist_bank_close(bank));
    must_ok(kist_bank_drop(store, name));
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(listing_gives_every_bank_in_byte_order)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    struct names all = { 0 }, below = { 0 }, none = { 0 };

    must_ok(kist_bank_list(store, NULL, note_name, &none));
    must(none.seen == 0);
    make_bank(store, "b");
    make_bank(store, "a/c");
    make_bank(store, "a-b");
    make_bank(store, "a");
    make_bank(store, "a0");
    make_bank(store, "deep/down/below");
    must_ok(kist_bank_list(store, "", note_name, &all));
    must(strcmp(all.all, "a a-b a/c a0 b deep/down/below ") == 0);
    must_ok(kist_bank_list(store, "a", note_name, &below));
    must(strcmp(below.all, "a a/c ") == 0);
    memset(&below, 0, sizeof below);
    must_ok(kist_bank_list(store, "deep", note_name, &below));
    must(strcmp(below.all, "deep/down/below ") == 0);
    must_ok(kist_bank_list(store, "nowhere", note_name, &none));
    must(none.seen == 0);
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(listing_stops_when_the_callback_says_so)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    struct names names = { .stop_after = 2 };

    make_bank(store, "one");
    make_bank(store, "three");
    make_bank(store, "two");
    must_rc(kist_bank_list(store, NULL, note_name, &names), 77);
    must(names.seen == 2);
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(a_dropped_bank_is_gone_with_its_files_and_not_those_below_it)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    kist_bank *below = open_bank(store, "a/b");
    kist_bank *bank;
    struct names names = { 0 };

    make_bank(store, "a");
    put_text(below, "k", "v");
    must_ok(kist_bank_drop(store, "a"));
    must_rc(open_flags(&bank, store, "a", 0), KIST_ENOBANK);
    must_rc(kist_bank_drop(store, "a"), KIST_ENOBANK);
    must_ok(kist_bank_list(store, NULL, note_name, &names));
    must(strcmp(names.all, "a/b ") == 0);
    must_hold(below, "k", "v");
    must_ok(kist_bank_close(below));
    must_ok(kist_bank_drop(store, "a/b"));
    char *folder = path_join(dir, "a/b/kist.bank");
    must(access(folder, F_OK) != 0);
    free(folder);
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(handles_of_a_dropped_bank_say_that_it_is_gone)
{
    struct fixture f = fixture_open();
    kist_view *view;
    uint64_t entries;

    put_text(f.bank, "k", "old");
    must_ok(kist_bank_drop(f.store, "bank"));
    must_rc(kist_put(f.bank, text("k"), text("v")), KIST_EGONE);
    must_rc(kist_get_view(f.bank, text("k"), &view), KIST_EGONE);
    must_rc(kist_count(f.bank, &entries), KIST_EGONE);

    kist_bank *again = open_bank(f.store, "bank");
    must(count_of(again) == 0);
    put_text(again, "k", "new");
    must_rc(kist_get_view(f.bank, text("k"), &view), KIST_EGONE);
    must_rc(kist_delete(f.bank, text("k")), KIST_EGONE);
    must_hold(again, "k", "new");
    must_ok(kist_bank_close(again));
    fixture_close(&f);
}

static void refused(kist_store *store, const kist_bank_options *opt)
{
    kist_bank *bank = (kist_bank *)&bank;

    must_rc(kist_bank_open(&bank, store, "fresh", opt), KIST_EINVAL);
    must(bank == NULL);
}

TEST(options_of_a_bank_outside_their_range_are_refused)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    uint64_t before = tree_hash(dir);
    kist_bank_options good = { .size = sizeof good, .flags = KIST_BANK_CREATE }, opt;

    opt = good, opt.size = 3, refused(store, &opt);
    opt = good, opt.flags |= 1u << 20, refused(store, &opt);
    opt = good, opt.index = 9, refused(store, &opt);
    opt = good, opt.segment_bytes = 2048, refused(store, &opt);
    opt = good, opt.segment_bytes = 5000, refused(store, &opt);
    opt = good, opt.segment_bytes = 1u << 31, refused(store, &opt);
    opt = good, opt.durability = 4, refused(store, &opt);
    opt = good, opt.interval_ms = 3600001, refused(store, &opt);
    opt = good, opt.verify = 4, refused(store, &opt);
    opt = good, opt.deadline_ms = -2, refused(store, &opt);
    must(tree_hash(dir) == before);
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(a_field_of_a_newer_bank_options_counts_only_when_set)
{
    struct {
        kist_bank_options opt;
        uint64_t newer;
    } later = { .opt = { .size = sizeof later, .flags = KIST_BANK_CREATE } };
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    kist_bank *bank;

    later.newer = 1;
    refused(store, &later.opt);
    later.newer = 0;
    must_ok(kist_bank_open(&bank, store, "fresh", &later.opt));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(every_segment_size_and_hint_gives_a_working_bank)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);

    for (uint64_t bytes = 4096; bytes <= 1u << 30; bytes <<= 6) {
        kist_bank_options opt = { .size = sizeof opt,
                                  .flags = KIST_BANK_CREATE,
                                  .segment_bytes = (uint32_t)bytes,
                                  .expect_entries = bytes % 100000,
                                  .index = KIST_INDEX_HASH };
        char name[32];
        kist_bank *bank;

        (void)snprintf(name, sizeof name, "s%u", (unsigned)bytes);
        must_ok(kist_bank_open(&bank, store, name, &opt));
        for (uint64_t i = 0; i < 500; i++)
            must_ok(kist_put(bank, number(i), number(i * i)));
        must(count_of(bank) == 500);
        must_ok(kist_bank_close(bank));
    }
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(a_read_only_handle_cannot_change_a_byte)
{
    struct fixture f = fixture_open();
    kist_bank *reader;

    put_text(f.bank, "k", "v");
    must_ok(kist_bank_close(f.bank));
    uint64_t before = tree_hash(f.dir);
    must_ok(open_flags(&reader, f.store, "bank", KIST_BANK_READONLY));
    must_hold(reader, "k", "v");
    must_rc(kist_put(reader, text("k"), text("w")), KIST_EREADONLY);
    must_rc(kist_get_or_insert(reader, text("n"), text("w"), NULL), KIST_EREADONLY);
    must_rc(kist_put_if_sequence(reader, text("n"), text("w"), 0), KIST_EREADONLY);
    must_rc(kist_delete(reader, text("k")), KIST_EREADONLY);
    must_rc(kist_clear(reader), KIST_EREADONLY);
    must_rc(kist_sync(reader), KIST_EREADONLY);
    must_rc(kist_compact(reader, NULL, NULL), KIST_EREADONLY);
    must_ok(kist_bank_close(reader));
    must(tree_hash(f.dir) == before);
    f.bank = NULL;
    fixture_close(&f);
}

TEST(a_read_only_handle_follows_a_writer_in_the_same_process)
{
    struct fixture f = fixture_open();
    kist_bank *reader;

    must_ok(open_flags(&reader, f.store, "bank", KIST_BANK_READONLY));
    must_hold(reader, "k", NULL);
    put_text(f.bank, "k", "v");
    must_hold(reader, "k", "v");
    must_ok(kist_delete(f.bank, text("k")));
    must_hold(reader, "k", NULL);
    must_ok(kist_bank_close(reader));
    fixture_close(&f);
}

TEST(more_banks_than_may_be_open_come_back_by_themselves)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store_options opt = { .size = sizeof opt,
                               .flags = KIST_STORE_CREATE,
                               .max_open_banks = 2 };
    kist_store *store;
    kist_bank *banks[12];
    char name[16];

    must_ok(kist_store_open(&store, dir, &opt));
    for (unsigned i = 0; i < 12; i++) {
        (void)snprintf(name, sizeof name, "b%u", i);
        banks[i] = open_bank(store, name);
    }
    for (uint64_t round = 0; round < 5; round++)
        for (uint64_t i = 0; i < 12; i++)
            must_ok(kist_put(banks[i], number(round), number(i)));
    for (uint64_t i = 0; i < 12; i++) {
        uint64_t got;
        size_t len;

        must(count_of(banks[i]) == 5);
        must_ok(kist_get_copy(banks[i], number(3), &got, sizeof got, &len));
        must(got == i);
        must_ok(kist_bank_close(banks[i]));
    }
    must_ok(kist_store_close(store));
    free(dir);
}
