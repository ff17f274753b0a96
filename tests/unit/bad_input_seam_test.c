/* Bad input that only a replaced system call can bring about: a quota, and a
 * network file system. */
#include "support.h"

#include <errno.h>

#include "base/os.h"

static int allocate_over_quota(int fd, uint64_t off, uint64_t len)
{
    (void)fd, (void)off, (void)len;
    return -EDQUOT;
}

static int64_t write_over_quota(int fd, const void *buf, size_t len, uint64_t off)
{
    (void)fd, (void)buf, (void)len, (void)off;
    return -EDQUOT;
}

static int answer_not_local(int fd, bool *out)
{
    (void)fd;
    *out = false;
    return 0;
}

static uint64_t put_until_quota(kist_bank *bank)
{
    char buf[VALUE_CAP];

    for (uint64_t n = 0;; n++) {
        int rc = kist_put(bank, number(n), (kist_bytes){ buf, value_make(buf, n, n) });
        if (rc == KIST_OK)
            continue;
        must_rc(rc, KIST_EQUOTA);
        return n;
    }
}

TEST(a_quota_says_so_and_keeps_what_was_acknowledged)
{
    static char large[1 << 16];
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 16384 };
    struct fixture f = fixture_open_with(&opt);
    uint64_t version;

    for (uint64_t n = 0; n < 10; n++)
        put_text(f.bank, "k", "v");
    os_seam.allocate = allocate_over_quota;
    uint64_t n = put_until_quota(f.bank);
    uint64_t before = tree_hash(f.dir);
    must_rc(kist_put(f.bank, text("large"), (kist_bytes){ large, sizeof large }), KIST_EQUOTA);
    must(tree_hash(f.dir) == before);
    must_ok(kist_delete(f.bank, text("k")));
    os_seam.allocate = os_real_allocate;

    must(count_of(f.bank) == n);
    for (uint64_t key = 0; key < n; key++) {
        kist_view *view;
        must_ok(kist_get_view(f.bank, number(key), &view));
        must(value_check(kist_view_bytes(view), key, &version) && version == key);
        kist_view_release(view);
    }
    put_text(f.bank, "k", "again");
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(a_bank_is_not_made_by_halves_over_quota)
{
    struct fixture f = fixture_open();
    kist_bank_options make = { .size = sizeof make, .flags = KIST_BANK_CREATE };
    kist_bank *bank;

    os_seam.allocate = allocate_over_quota;
    must_rc(kist_bank_open(&bank, f.store, "new", &make), KIST_EQUOTA);
    must(bank == NULL);
    os_seam.allocate = os_real_allocate;
    os_seam.pwrite = write_over_quota;
    must_rc(kist_bank_open(&bank, f.store, "new", &make), KIST_EQUOTA);
    must(bank == NULL);
    os_seam.pwrite = os_real_pwrite;
    must_ok(kist_bank_open(&bank, f.store, "new", &make));
    put_text(bank, "k", "v");
    must_ok(kist_bank_close(bank));
    fixture_close(&f);
}

TEST(a_network_file_system_is_refused_unless_asked_for)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_CREATE };
    uint64_t before = tree_hash(dir);
    kist_store *store;

    os_seam.is_local = answer_not_local;
    must_rc(kist_store_open(&store, dir, &opt), KIST_ENETFS);
    must(store == NULL && tree_hash(dir) == before);
    opt.flags |= KIST_STORE_ANY_FS;
    must_ok(kist_store_open(&store, dir, &opt));
    kist_bank *bank = open_bank(store, "b");
    put_text(bank, "k", "v");
    must_hold(bank, "k", "v");
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    os_seam.is_local = os_real_is_local;
    free(dir);
}
