/*
 * Ten thousand banks of two keys each, under a limit of 1,024 open files: a
 * normal case. They take at most 200 MiB of disk, folders included. Syncs are
 * left out: some hundred thousand of them tell of the disk alone.
 */
#include "support.h"

#include "base/os.h"

#include <stdio.h>
#include <sys/resource.h>

enum { BANKS = 10000, BYTES_OF_ALL = 200 << 20 };

static struct row row = { .id = "banks" };

static const char *name_of(uint64_t i)
{
    static char name[32];

    (void)snprintf(name, sizeof name, "m%02u/bank%05u", (unsigned)(i % 100), (unsigned)i);
    return name;
}

static void put_two(kist_bank *bank, uint64_t i, uint64_t version)
{
    char buf[VALUE_CAP];

    for (uint64_t key = 2 * i; key < 2 * i + 2; key++)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) }));
}

static void must_have_two(kist_bank *bank, uint64_t i, uint64_t want)
{
    uint64_t version;

    must(count_of(bank) == 2);
    for (uint64_t key = 2 * i; key < 2 * i + 2; key++) {
        kist_view *view;
        must_ok(kist_get_view(bank, number(key), &view));
        must(value_check(kist_view_bytes(view), key, &version) && version == want);
        kist_view_release(view);
    }
}

static int count_name(const char *name, void *arg)
{
    uint64_t *count = arg;

    must(strncmp(name, "m", 1) == 0);
    ++*count;
    return 0;
}

static int synced_at_once(int fd)
{
    (void)fd;
    return 0;
}

struct scene {
    char *dir;
    uint64_t banks;
};

/* All handles stay open; all but a few are closed below as idle. */
static void use_many(void *arg)
{
    const struct scene *scene = arg;
    struct rlimit limit = { 1024, 1024 };
    kist_bank **banks = calloc(scene->banks, sizeof(kist_bank *));
    kist_store *store;
    uint64_t names = 0;

    must(setrlimit(RLIMIT_NOFILE, &limit) == 0 && banks != NULL);
    store = open_store(scene->dir);
    for (uint64_t i = 0; i < scene->banks; i++) {
        banks[i] = open_bank(store, name_of(i));
        put_two(banks[i], i, 1);
    }
    for (uint64_t i = 0; i < scene->banks; i++) {
        must_have_two(banks[i], i, 1);
        if (i % 3 == 0)
            put_two(banks[i], i, 2);
    }
    for (uint64_t i = 0; i < scene->banks; i++)
        must_have_two(banks[i], i, i % 3 == 0 ? 2 : 1);
    must_ok(kist_bank_list(store, NULL, count_name, &names));
    must(names == scene->banks);
    for (uint64_t i = 0; i < scene->banks; i += 2)
        must_ok(kist_bank_close(banks[i]));
    must_ok(kist_store_close(store));
    for (uint64_t i = 1; i < scene->banks; i += 2)
        must_ok(kist_bank_close(banks[i]));
    free(banks);
}

static void look_again(void *arg)
{
    const struct scene *scene = arg;
    kist_store *store = open_store(scene->dir);

    for (uint64_t i = 0; i < scene->banks; i++) {
        kist_bank *bank = open_bank(store, name_of(i));
        must_have_two(bank, i, i % 3 == 0 ? 2 : 1);
        must_ok(kist_bank_close(bank));
    }
    must_ok(kist_store_close(store));
}

TEST(ten_thousand_small_banks_are_a_normal_case)
{
    struct scene scene = { tmp_dir(TMP_DISK), test_scaled(BANKS) };
    uint64_t bytes;

    if (scene.banks > BANKS)
        scene.banks = BANKS;
    os_seam.fsync = os_seam.fdatasync = synced_at_once;
    in_child(use_many, &scene);
    in_child(look_again, &scene);
    os_seam.fsync = os_real_fsync;
    os_seam.fdatasync = os_real_fdatasync;
    bytes = tree_blocks(scene.dir);
    printf("%llu banks take %llu bytes, %llu each\n", (unsigned long long)scene.banks,
           (unsigned long long)bytes, (unsigned long long)(bytes / scene.banks));
    if (scene.banks == BANKS)
        must(bytes <= BYTES_OF_ALL);
    row.cases = scene.banks;
    row_print(&row);
    tmp_remove(scene.dir);
    free(scene.dir);
}
