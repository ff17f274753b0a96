/* Files of a newer format, with checksums that are right: each is refused as
 * newer, not as damaged, and not changed. */
#include "support.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/hash.h"

/* Every file begins with a magic of eight bytes and a format of four. */
enum { FORMAT_AT = 8, NEWER = 1000 };

struct sealed {
    const char *file;
    uint32_t copies[2]; /* where they begin; the same twice: one copy */
    uint32_t sum_at;    /* within a copy: XXH3 of the bytes before it; 0: none */
};

static void write_newer(int fd, uint32_t copy, uint32_t sum_at)
{
    unsigned char bytes[256];
    uint32_t newer = NEWER;
    uint64_t sum;

    must(pread(fd, bytes, sizeof bytes, copy) >= (ssize_t)(sum_at + sizeof sum));
    memcpy(bytes + FORMAT_AT, &newer, sizeof newer);
    must(pwrite(fd, bytes + FORMAT_AT, sizeof newer, copy + FORMAT_AT) == sizeof newer);
    if (sum_at == 0)
        return;
    sum = hash_bytes(bytes, sum_at);
    must(pwrite(fd, &sum, sizeof sum, copy + sum_at) == sizeof sum);
}

static void make_newer(const char *dir, const struct sealed *s)
{
    char *path = path_join(dir, s->file);
    int fd = open(path, O_RDWR | O_CLOEXEC);

    must(fd >= 0);
    write_newer(fd, s->copies[0], s->sum_at);
    if (s->copies[1] != s->copies[0])
        write_newer(fd, s->copies[1], s->sum_at);
    must(close(fd) == 0);
    free(path);
}

static char *make_filled(void)
{
    struct fixture f = fixture_open();

    for (uint64_t i = 0; i < 20; i++)
        must_ok(kist_put(f.bank, number(i), number(i)));
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    return f.dir;
}

TEST(a_store_of_a_newer_format_is_refused)
{
    static const struct sealed file = { "kist.store", { 0, 0 }, 32 };
    kist_store_options create = { .size = sizeof create, .flags = KIST_STORE_CREATE };
    char *dir = make_filled();
    kist_store *store;
    uint64_t before;

    make_newer(dir, &file);
    before = tree_hash(dir);
    must_rc(kist_store_open(&store, dir, NULL), KIST_ENEWER);
    must(store == NULL);
    must_rc(kist_store_open(&store, dir, &create), KIST_ENEWER);
    must(tree_hash(dir) == before);
    free(dir);
}

static void bank_refused(const struct sealed *file)
{
    char *dir = make_filled();
    kist_store *store;
    kist_bank *bank;
    uint64_t before;

    make_newer(dir, file);
    before = tree_hash(dir);
    must_ok(kist_store_open(&store, dir, NULL));
    must_rc(kist_bank_open(&bank, store, "bank", NULL), KIST_ENEWER);
    must(bank == NULL);
    must_rc(kist_repair(store, "bank", NULL, NULL, NULL), KIST_ENEWER);
    must_ok(kist_store_close(store));
    must(tree_hash(dir) == before);
    free(dir);
}

TEST(a_bank_of_a_newer_format_is_refused)
{
    static const struct sealed file = { "bank/kist.bank", { 0, 2048 }, 64 };

    bank_refused(&file);
}

/* Not passed over as damaged, and not lost by a rebuild. */
TEST(a_segment_of_a_newer_format_is_refused)
{
    static const struct sealed file = { "bank/kist.heap.1", { 0, 64 }, 56 };
    char *dir = make_filled();
    kist_store *store;
    uint64_t before;

    make_newer(dir, &file);
    before = tree_hash(dir);
    must_ok(kist_store_open(&store, dir, NULL));
    must_rc(kist_repair(store, "bank", NULL, NULL, NULL), KIST_ENEWER);
    must_ok(kist_store_close(store));
    must(tree_hash(dir) == before);
    free(dir);
}
