/*
 * Rights, read-only file systems, full disks and limits: each has an error
 * of its own, and a call that fails changed nothing. Where it takes root to
 * arrange (mounts of its own, another user), others skip and say so.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void need_root(void)
{
    if (geteuid() != 0)
        test_skip("only root can arrange it");
}

/* Mounts made from here on are the calling process's alone. */
static void own_mounts(void)
{
    need_root();
    if (unshare(CLONE_NEWNS) != 0)
        test_skip("no mount namespace of one's own is allowed here");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        test_skip("in a chroot the root is no mount point: what is mounted could be seen outside");
}

static void make_filled(const char *dir)
{
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "bank");

    put_text(bank, "k", "v");
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

/* ---- rights ----------------------------------------------------------- */

static void become_nobody(void)
{
    must(setgroups(0, NULL) == 0);
    must(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
}

static void open_without_rights(void *dir)
{
    kist_store_options create = { .size = sizeof create, .flags = KIST_STORE_CREATE };
    kist_store *store;

    become_nobody();
    must_rc(kist_store_open(&store, dir, NULL), -EACCES);
    must(store == NULL);
    must_rc(kist_store_open(&store, dir, &create), -EACCES);
    must(store == NULL);
}

TEST(a_store_that_one_may_not_open_says_so)
{
    char *dir;
    uint64_t before;

    need_root();
    dir = tmp_dir(TMP_FAST);
    make_filled(dir);
    before = tree_hash(dir);
    in_child(open_without_rights, dir);
    must(tree_hash(dir) == before);
    free(dir);
}

static void open_bank_without_rights(void *dir)
{
    kist_bank_options create = { .size = sizeof create, .flags = KIST_BANK_CREATE };
    kist_store *store;
    kist_bank *bank;

    become_nobody();
    must_ok(kist_store_open(&store, dir, NULL));
    must_rc(kist_bank_open(&bank, store, "bank", NULL), -EACCES);
    must(bank == NULL);
    must_rc(kist_bank_open(&bank, store, "new", &create), -EACCES);
    must(bank == NULL);
    must_rc(kist_bank_drop(store, "bank"), -EACCES);
    must_ok(kist_store_close(store));
}

/* Others may pass and read kist.store, not the bank's folder. */
TEST(a_bank_that_one_may_not_open_says_so)
{
    char *dir, *file, *parent;
    uint64_t before;

    need_root();
    parent = tmp_dir(TMP_FAST);
    dir = path_join(parent, "store");
    must(mkdir(dir, 0755) == 0);
    make_filled(dir);
    file = path_join(dir, "kist.store");
    must(chmod(file, 0644) == 0 && chmod(dir, 0755) == 0 && chmod(parent, 0755) == 0);
    before = tree_hash(dir);

    /* The temporary folder above is closed to others: enter it by name only. */
    char *above = path_join(parent, "..");
    must(chmod(above, 0711) == 0);
    in_child(open_bank_without_rights, dir);
    must(tree_hash(dir) == before);
    free(above), free(file), free(dir), free(parent);
}

/* ---- a read-only file system ------------------------------------------ */

static void use_read_only_mount(void *arg)
{
    const char *dir = arg;
    kist_store_options create = { .size = sizeof create, .flags = KIST_STORE_CREATE };
    kist_store_options reading = { .size = sizeof reading, .flags = KIST_STORE_READONLY };
    kist_bank_options make = { .size = sizeof make, .flags = KIST_BANK_CREATE };
    char *empty = path_join(dir, "empty");
    kist_store *store;
    kist_bank *bank;

    own_mounts();
    must(mount(dir, dir, NULL, MS_BIND, NULL) == 0);
    must(mount(NULL, dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0);

    must_rc(kist_store_open(&store, empty, &create), -EROFS);
    must(store == NULL);
    int rc = kist_store_open(&store, dir, NULL);
    if (rc == KIST_OK) { /* kist.store needs no writing: then the bank must say it */
        must_rc(kist_bank_open(&bank, store, "bank", NULL), -EROFS);
        must(bank == NULL);
        must_rc(kist_bank_open(&bank, store, "new", &make), -EROFS);
        must_rc(kist_bank_drop(store, "bank"), -EROFS);
        must_ok(kist_store_close(store));
    } else {
        must_rc(rc, -EROFS);
    }
    must_ok(kist_store_open(&store, dir, &reading));
    must_ok(kist_bank_open(&bank, store, "bank", NULL));
    must_hold(bank, "k", "v");
    must_rc(kist_put(bank, text("k"), text("w")), KIST_EREADONLY);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(empty);
}

TEST(a_read_only_file_system_says_so_and_can_be_read)
{
    char *dir = tmp_dir(TMP_FAST), *empty = path_join(dir, "empty");
    uint64_t before;

    make_filled(dir);
    must(mkdir(empty, 0700) == 0);
    before = tree_hash(dir);
    in_child(use_read_only_mount, dir);
    must(tree_hash(dir) == before);
    free(empty);
    free(dir);
}

/* ---- no space --------------------------------------------------------- */

enum { KEYS = 2000, DELETES_AT_ONCE = 20 };

/* Puts until it fails; all that was acknowledged counts. */
static uint64_t put_until(kist_bank *bank, int want)
{
    char buf[VALUE_CAP];

    for (uint64_t n = 0;; n++) {
        size_t len = value_make(buf, n % KEYS, n);
        int rc = kist_put(bank, number(n % KEYS), (kist_bytes){ buf, len });
        if (rc != KIST_OK) {
            must_rc(rc, want);
            must(strlen(kist_last_error()->what) > 0);
            return n;
        }
    }
}

/* The newest version of key, of the puts 0 .. n - 1. */
static void must_have_all(kist_bank *bank, uint64_t n)
{
    must(count_of(bank) == (n < KEYS ? n : KEYS));
    for (uint64_t key = 0; key < KEYS && key < n; key++) {
        kist_view *view;
        uint64_t version, newest = key + (n - 1 - key) / KEYS * KEYS;

        must_ok(kist_get_view(bank, number(key), &view));
        must(value_check(kist_view_bytes(view), key, &version) && version == newest);
        kist_view_release(view);
    }
}

static int many_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    static char buf[VALUE_CAP];
    uint64_t *next = arg;

    if (*next == 100000)
        return KIST_END;
    *key = number(*next);
    *value = (kist_bytes){ buf, sizeof buf };
    (*next)++;
    return 0;
}

/* Takes what is left on the disk, to the last byte. */
static void take_the_rest(const char *file)
{
    static char page[4096];
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    must(fd >= 0);
    while (write(fd, page, sizeof page) > 0)
        ;
    must(errno == ENOSPC && close(fd) == 0);
}

/* Room is kept for some deletes, and for cleaning to make more. */
static void delete_somehow(kist_bank *bank, uint64_t key)
{
    static unsigned deleted;
    int rc = kist_delete(bank, number(key));

    if (rc == KIST_EFULL && deleted >= DELETES_AT_ONCE) {
        must_ok(kist_compact(bank, NULL, NULL));
        rc = kist_delete(bank, number(key));
        deleted = 0;
    }
    must_ok(rc);
    deleted++;
}

/* n puts were acknowledged and not a block is left. */
static void live_with_no_space(kist_store *store, kist_bank *bank, const char *dir, uint64_t n)
{
    static char large[1 << 20];
    kist_bytes value = { large, sizeof large };
    kist_bank_options make = { .size = sizeof make, .flags = KIST_BANK_CREATE };
    uint64_t before = tree_hash(dir), next = 0;
    kist_bank *other;

    must_rc(kist_put(bank, number(1), value), KIST_EFULL);
    must_rc(kist_get_or_insert(bank, text("new"), value, NULL), KIST_EFULL);
    must_rc(kist_bank_open(&other, store, "other", &make), KIST_EFULL);
    must(tree_hash(dir) == before);
    must_rc(kist_replace(bank, many_next, &next), KIST_EFULL);
    must_have_all(bank, n);

    for (uint64_t key = 0; key < KEYS && key < n; key += 2)
        delete_somehow(bank, key);
    must_ok(kist_compact(bank, NULL, NULL));
    for (uint64_t key = 0; key < 100; key++)
        must_ok(kist_put(bank, number(key), text("room again")));
    must_verify(bank);
}

static void fill_small_disk(void *arg)
{
    const char *dir = arg;
    char *file = path_join(dir, "filler");
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .segment_bytes = 65536 };
    kist_bank *bank;

    own_mounts();
    must(mount("kist-test", dir, "tmpfs", 0, "size=2m") == 0);
    kist_store *store = open_store(dir);
    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    uint64_t n = put_until(bank, KIST_EFULL);
    take_the_rest(file);
    live_with_no_space(store, bank, dir, n);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(file);
}

TEST(a_full_disk_says_so_and_keeps_what_was_acknowledged)
{
    char *dir = tmp_dir(TMP_FAST);

    in_child(fill_small_disk, dir);
    free(dir);
}

static void create_on_full_disk(void *arg)
{
    const char *dir = arg;
    char *file = path_join(dir, "filler"), *below = path_join(dir, "store");
    kist_store_options create = { .size = sizeof create, .flags = KIST_STORE_CREATE };
    kist_store *store;

    own_mounts();
    must(mount("kist-test", dir, "tmpfs", 0, "size=64k") == 0);
    take_the_rest(file);
    must_rc(kist_store_open(&store, below, &create), KIST_EFULL);
    must(store == NULL);
    must(unlink(file) == 0);
    must_ok(kist_store_open(&store, below, &create));
    must_ok(kist_store_close(store));
    free(file), free(below);
}

TEST(a_store_is_not_made_by_halves_on_a_full_disk)
{
    char *dir = tmp_dir(TMP_FAST);

    in_child(create_on_full_disk, dir);
    free(dir);
}

/* The next size that a file may not have comes while segments double. */
static void fill_to_file_limit(void *arg)
{
    const char *dir = arg;
    struct rlimit limit = { 256 << 10, 256 << 10 };
    char buf[VALUE_CAP];
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "bank");
    uint64_t n, before;

    must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    n = put_until(bank, KIST_EFILESIZE);
    must(n > 100);
    before = tree_hash(dir);
    must_rc(kist_put(bank, number(1), (kist_bytes){ buf, sizeof buf }), KIST_EFILESIZE);
    must(tree_hash(dir) == before);
    must_have_all(bank, n);
    must_ok(kist_delete(bank, number(0)));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(a_file_size_limit_is_an_error_and_no_signal)
{
    char *dir = tmp_dir(TMP_FAST);

    in_child(fill_to_file_limit, dir);
    free(dir);
}

static void map_without_address_space(void *arg)
{
    kist_store *store = open_store(arg);
    kist_bank *bank = open_bank(store, "bank");
    struct rlimit limit = { 512u << 20, 512u << 20 };

    must_ok(kist_bank_close(bank));
    must(setrlimit(RLIMIT_AS, &limit) == 0);
    bank = open_bank(store, "bank");
    for (uint64_t i = 0; i < 50000; i++)
        must_ok(kist_put(bank, number(i), number(i)));
    must(count_of(bank) == 50000);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

TEST(a_limit_on_address_space_does_not_hinder_a_small_bank)
{
    char *dir;

#ifdef SANITIZED
    test_skip("a sanitizer needs its address space");
#endif
    dir = tmp_dir(TMP_FAST);
    in_child(map_without_address_space, dir);
    free(dir);
}
