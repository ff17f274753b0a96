/* Copying with system calls that fail or let something come between. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/os.h"

enum { KEYS = 300 };

static uint64_t deleted = 30;

static uint64_t names_in(const char *dir)
{
    DIR *d = opendir(dir);
    uint64_t count = 0;

    must(d != NULL);
    while (readdir(d) != NULL)
        count++;
    (void)closedir(d);
    return count - 2;
}

static kist_bank *fill(kist_store *store)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE,
                              .segment_bytes = 16 << 10 };
    char buf[VALUE_CAP];
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    for (uint64_t version = 0; version < 2; version++)
        for (uint64_t k = 0; k < KEYS; k++)
            must_ok(kist_put(bank, number(k), (kist_bytes){ buf, value_make(buf, k, version) }));
    for (uint64_t k = 0; k < deleted; k++)
        must_ok(kist_delete(bank, number(k)));
    return bank;
}

static void must_be_the_copy(const char *dir)
{
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "bank");

    must(count_of(bank) == KEYS - deleted);
    for (uint64_t k = 0; k < KEYS; k++) {
        kist_view *view = NULL;
        uint64_t version;

        must_rc(kist_get_view(bank, number(k), &view), k < deleted ? KIST_MISS : KIST_OK);
        must(k < deleted || (value_check(kist_view_bytes(view), k, &version) && version == 1));
        kist_view_release(view);
    }
    must_verify(bank);
    must_close(bank, store);
}

/* ---- what comes between ----------------------------------------------- */

static struct {
    kist_bank *bank;
    bool armed, done;
} between;

/* The copy has read the state, and looks which segments there are: now all of
 * them are emptied and unlinked, one after the other. */
static int stat_and_clean(int dir, const char *path, struct os_stat *out)
{
    if (between.armed && !between.done && strncmp(path, "kist.heap.", 10) == 0) {
        between.done = true;
        must_ok(kist_compact(between.bank, NULL, NULL));
    }
    return os_real_stat_under(dir, path, out);
}

static void clean_between(void)
{
    char *dir = tmp_dir(TMP_FAST), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    kist_store *store = open_store(from);
    kist_copied copied = { .size = sizeof copied };
    int rc;

    between.bank = fill(store);
    os_seam.stat_under = stat_and_clean;
    between.armed = true;
    between.done = false;
    rc = kist_store_copy(store, to, NULL, &copied, NULL, NULL);
    os_seam.stat_under = os_real_stat_under;
    must_ok(rc);
    must(between.done && copied.entries == KEYS - deleted);
    must_be_the_copy(to);
    must_close(between.bank, store);
    free(dir);
    free(from);
    free(to);
}

/* With something deleted the segment that has the tail is emptied too, without
 * it stays: then nothing but the count of unlinks tells. */
TEST(cleaning_between_the_tail_and_the_segments_makes_it_look_again)
{
    deleted = 0;
    clean_between();
    deleted = 30;
    clean_between();
}

/* ---- what fails ------------------------------------------------------- */

static int64_t calls, fail_at;

static bool fails(void)
{
    return ++calls == fail_at;
}

static int failing_open_under(int dir, const char *path, int flags, uint32_t mode)
{
    return fails() ? -EIO : os_real_open_under(dir, path, flags, mode);
}

static int64_t failing_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
    return fails() ? -ENOSPC : os_real_pwrite(fd, buf, len, off);
}

static int failing_fsync(int fd)
{
    return fails() ? -EIO : os_real_fsync(fd);
}

static int failing_fdatasync(int fd)
{
    return fails() ? -EIO : os_real_fdatasync(fd);
}

static int failing_truncate(int fd, uint64_t size)
{
    return fails() ? -EFBIG : os_real_truncate(fd, size);
}

static int failing_allocate(int fd, uint64_t off, uint64_t len)
{
    return fails() ? -ENOSPC : os_real_allocate(fd, off, len);
}

static int failing_mkdir(int dir, const char *path, uint32_t mode)
{
    return fails() ? -EACCES : os_real_mkdir(dir, path, mode);
}

static int failing_rename_new(int dir, const char *from, const char *to)
{
    return fails() ? -EACCES : os_real_rename_new(dir, from, to);
}

static int failing_rename(int dir, const char *from, const char *to)
{
    return fails() ? -EACCES : os_real_rename(dir, from, to);
}

static void *failing_alloc(size_t len)
{
    return fails() ? NULL : os_real_alloc(len);
}

static void *failing_resize(void *p, size_t len)
{
    return fails() ? NULL : os_real_resize(p, len);
}

static void let_fail(void)
{
    os_seam.open_under = failing_open_under;
    os_seam.pwrite = failing_pwrite;
    os_seam.fsync = failing_fsync;
    os_seam.fdatasync = failing_fdatasync;
    os_seam.truncate = failing_truncate;
    os_seam.allocate = failing_allocate;
    os_seam.mkdir = failing_mkdir;
    os_seam.rename_new = failing_rename_new;
    os_seam.rename = failing_rename;
    os_seam.alloc = failing_alloc;
    os_seam.resize = failing_resize;
}

static void let_work(void)
{
#define X_(ret, name, params, args) os_seam.name = os_real_##name;
    OS_CALLS(X_)
#undef X_
}

/* The N-th call fails, for every N: either the copy is there and whole, since
 * that call did not matter, or it says why not, and leaves nothing. One call
 * is behind the name: the last sync of the directory. */
TEST(each_system_call_of_a_copy_may_fail)
{
    char *dir = tmp_dir(TMP_FAST), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    kist_store *store = open_store(from);
    kist_bank *bank = fill(store);
    uint64_t failed = 0, whole = 0;
    int rc;

    for (fail_at = 1;; fail_at++) {
        test_case = (uint64_t)fail_at;
        calls = 0;
        let_fail();
        rc = kist_store_copy(store, to, NULL, NULL, NULL, NULL);
        let_work();
        if (calls < fail_at)
            break;
        failed += rc != KIST_OK;
        if (access(to, F_OK) == 0) {
            whole++;
            must_be_the_copy(to);
            tmp_remove(to);
        } else {
            must(rc < 0);
            must(rc == KIST_ENOMEM || (kist_last_error()->rc == rc && kist_last_error()->what[0]));
        }
        must(names_in(dir) == 1);
    }
    must_ok(rc);
    must_be_the_copy(to);
    must(failed > 60 && failed + 40 > (uint64_t)fail_at);
    print_message("%lld calls, %llu failed copies, %llu that did not mind\n",
                  (long long)fail_at - 1, (unsigned long long)failed, (unsigned long long)whole);
    must_close(bank, store);
    free(dir);
    free(from);
    free(to);
}
