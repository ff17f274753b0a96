/* kist_store_open() and kist_store_close(), against what kist.h says of them. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int try_open(kist_store **out, const char *dir, uint32_t flags)
{
    kist_store_options opt = { .size = sizeof opt, .flags = flags };

    *out = (kist_store *)&opt;
    return kist_store_open(out, dir, &opt);
}

static void refused(const char *dir, const kist_store_options *opt, int want)
{
    kist_store *store = (kist_store *)&store;

    must_rc(kist_store_open(&store, dir, opt), want);
    must(store == NULL);
}

static mode_t mode_of(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    struct stat st;

    must(stat(path, &st) == 0);
    free(path);
    return st.st_mode & 07777;
}

TEST(a_folder_without_a_store_is_left_alone)
{
    char *dir = tmp_dir(TMP_FAST);
    uint64_t before = tree_hash(dir);
    kist_store *store;

    must_rc(try_open(&store, dir, 0), KIST_ENOSTORE);
    must(store == NULL);
    must_rc(kist_store_open(&store, dir, NULL), KIST_ENOSTORE);
    must(tree_hash(dir) == before);
    free(dir);
}

TEST(a_missing_folder_is_made_only_when_asked)
{
    char *dir = tmp_dir(TMP_FAST);
    char *below = path_join(dir, "store");
    kist_store *store;
    int rc = try_open(&store, below, 0);

    must(rc == -ENOENT || rc == KIST_ENOSTORE);
    must(store == NULL && access(below, F_OK) != 0);
    must_ok(try_open(&store, below, KIST_STORE_CREATE));
    must_ok(kist_store_close(store));
    must_ok(kist_store_open(&store, below, NULL));
    must_ok(kist_store_close(store));
    free(below);
    free(dir);
}

TEST(a_folder_is_not_made_below_a_missing_one)
{
    char *dir = tmp_dir(TMP_FAST);
    char *below = path_join(dir, "missing/store");
    kist_store *store;

    must_rc(try_open(&store, below, KIST_STORE_CREATE), -ENOENT);
    must(store == NULL);
    free(below);
    free(dir);
}

TEST(a_path_that_leads_to_a_file_is_an_error)
{
    char *dir = tmp_dir(TMP_FAST);
    char *path = path_join(dir, "file");
    FILE *f = fopen(path, "w");
    kist_store *store;

    must(f != NULL && fputs("no store", f) >= 0 && fclose(f) == 0);
    uint64_t before = tree_hash(dir);
    must(try_open(&store, path, KIST_STORE_CREATE) < 0);
    must(store == NULL && tree_hash(dir) == before);
    free(path);
    free(dir);
}

TEST(the_path_of_a_store_may_be_relative_or_a_symlink)
{
    char *dir = tmp_dir(TMP_FAST);
    char *to = path_join(dir, "store");
    char *link = path_join(dir, "link");
    char here[4096];
    kist_store *store;

    must(symlink("store", link) == 0);
    must_ok(kist_store_close(open_store(to)));
    must_ok(try_open(&store, link, 0));
    must_ok(kist_store_close(store));

    must(getcwd(here, sizeof here) != NULL && chdir(dir) == 0);
    must_ok(try_open(&store, "store", 0));
    must(chdir(here) == 0);
    kist_bank *bank = open_bank(store, "after/chdir");
    put_text(bank, "k", "v");
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(to);
    free(link);
    free(dir);
}

TEST(options_of_a_store_outside_their_range_are_refused)
{
    char *dir = tmp_dir(TMP_FAST);
    uint64_t before = tree_hash(dir);
    kist_store_options good = { .size = sizeof good, .flags = KIST_STORE_CREATE };
    kist_store_options opt;

    opt = good, opt.size = 0;
    refused(dir, &opt, KIST_EINVAL);
    opt = good, opt.flags |= 1u << 30;
    refused(dir, &opt, KIST_EINVAL);
    opt = good, opt.reserved = 1;
    refused(dir, &opt, KIST_EINVAL);
    opt = good, opt.max_open_banks = 65537;
    refused(dir, &opt, KIST_EINVAL);
    opt = good, opt.file_mode = 070000;
    refused(dir, &opt, KIST_EINVAL);
    opt = good, opt.dir_mode = 070000;
    refused(dir, &opt, KIST_EINVAL);
    must(tree_hash(dir) == before);
    free(dir);
}

TEST(a_field_of_a_newer_store_options_counts_only_when_set)
{
    struct {
        kist_store_options opt;
        uint64_t newer;
    } later = { .opt = { .size = sizeof later, .flags = KIST_STORE_CREATE } };
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store;

    must_ok(kist_store_open(&store, dir, &later.opt));
    must_ok(kist_store_close(store));
    later.newer = 1;
    refused(dir, &later.opt, KIST_EINVAL);
    free(dir);
}

TEST(files_are_private_unless_told_otherwise)
{
    char *dir = tmp_dir(TMP_FAST);
    char *store_dir = path_join(dir, "store");
    mode_t old = umask(022);
    kist_store *store = open_store(store_dir);
    kist_bank *bank = open_bank(store, "b");

    (void)umask(old);
    must(mode_of(store_dir, "") == 0700 && mode_of(store_dir, "b") == 0700);
    must(mode_of(store_dir, "kist.store") == 0600);
    must(mode_of(store_dir, "b/kist.bank") == 0600);
    must(mode_of(store_dir, "b/kist.live") == 0600);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(store_dir);
    free(dir);
}

TEST(files_get_the_modes_that_were_given)
{
    char *dir = tmp_dir(TMP_FAST);
    char *store_dir = path_join(dir, "store");
    kist_store_options opt = {
        .size = sizeof opt, .flags = KIST_STORE_CREATE, .file_mode = 0640, .dir_mode = 0750
    };
    mode_t old = umask(022);
    kist_store *store;

    must_ok(kist_store_open(&store, store_dir, &opt));
    kist_bank *bank = open_bank(store, "b");
    (void)umask(old);
    must(mode_of(store_dir, "") == 0750 && mode_of(store_dir, "b") == 0750);
    must(mode_of(store_dir, "kist.store") == 0640);
    must(mode_of(store_dir, "b/kist.bank") == 0640);
    must(mode_of(store_dir, "b/kist.live") == 0640);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(store_dir);
    free(dir);
}

TEST(closing_null_does_nothing)
{
    must_ok(kist_store_close(NULL));
    must_ok(kist_bank_close(NULL));
    kist_view_release(NULL);
}

TEST(two_handles_of_one_store_see_each_other)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *one = open_store(dir);
    kist_store *two = open_store(dir);
    kist_bank *here = open_bank(one, "b");
    kist_bank *there = open_bank(two, "b");

    put_text(here, "k", "first");
    must_hold(there, "k", "first");
    put_text(there, "k", "second");
    must_hold(here, "k", "second");
    must_ok(kist_bank_close(here));
    must_ok(kist_store_close(one));
    put_text(there, "k", "third");
    must_hold(there, "k", "third");
    must_ok(kist_bank_close(there));
    must_ok(kist_store_close(two));
    free(dir);
}

TEST(a_closed_store_keeps_what_was_put)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "b");

    put_text(bank, "k", "v");
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    store = open_store(dir);
    bank = open_bank(store, "b");
    must_hold(bank, "k", "v");
    must(count_of(bank) == 1);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
}

TEST(a_store_opened_read_only_changes_no_byte)
{
    struct fixture f = fixture_open();
    kist_store *store;
    kist_bank *bank;
    kist_bank_options create = { .size = sizeof create, .flags = KIST_BANK_CREATE };

    put_text(f.bank, "k", "v");
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    uint64_t before = tree_hash(f.dir);

    must_ok(try_open(&store, f.dir, KIST_STORE_READONLY));
    must_ok(kist_bank_open(&bank, store, "bank", NULL));
    must_hold(bank, "k", "v");
    must_rc(kist_put(bank, text("k"), text("w")), KIST_EREADONLY);
    must_rc(kist_bank_drop(store, "bank"), KIST_EREADONLY);
    must_rc(kist_repair(store, "bank", NULL, NULL, NULL), KIST_EREADONLY);
    must_ok(kist_bank_close(bank));
    must_rc(kist_bank_open(&bank, store, "new", &create), KIST_EREADONLY);
    must(bank == NULL);
    must_ok(kist_store_close(store));
    must(tree_hash(f.dir) == before);
    free(f.dir);
}

TEST(damage_to_the_file_of_a_store_is_told)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store;

    must_ok(kist_store_close(open_store(dir)));
    char *path = path_join(dir, "kist.store");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char byte;
    must(pread(fd, &byte, 1, 0) == 1);
    byte ^= 1;
    must(pwrite(fd, &byte, 1, 0) == 1);
    must_ok(try_open(&store, dir, 0)); /* by its second copy */
    must_ok(kist_store_close(store));
    must(pwrite(fd, &byte, 1, 40) == 1 && close(fd) == 0);

    int rc = try_open(&store, dir, KIST_STORE_CREATE);
    must(rc == KIST_ECORRUPT || rc == KIST_EFORMAT);
    must(store == NULL);
    must(truncate(path, 0) == 0);
    rc = try_open(&store, dir, KIST_STORE_CREATE);
    must(rc == KIST_ECORRUPT || rc == KIST_EFORMAT);
    must(store == NULL);
    free(path);
    free(dir);
}
