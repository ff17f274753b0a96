/*
 * kist-guard - a number of operations of one kind, for callgrind to count.
 * Usage: kist-guard KIND DIR, where DIR is to be made; or kist-guard --compiler.
 * bench/guard runs it. Kinds: get, put (of a key that is there), get-16 (a batched get),
 * in a hash bank; tree-get, tree-put, tree-new (a key that is not there) and tree-asc
 * (new ones, in order), in an ordered one.
 *
 * Everything is made ready and done once before; what counts happens inside
 * counted(), and that is how callgrind is told to collect.
 */
#include <kist/kist.h>

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES = 20000, OPS = 8000, BATCH = 16, VALUE_BYTES = 100 };
static_assert(OPS % BATCH == 0, "whole batches");

typedef struct key {
    uint64_t word[2];
} key;

static kist_bank *bank;
static key keys[ENTRIES + 2 * OPS]; /* those that are stored, and new ones for two runs */
static unsigned char value[VALUE_BYTES];

static void check(int rc, int expect, const char *what)
{
    if (rc == expect)
        return;
    fprintf(stderr, "kist-guard: %s: %s\n", what, kist_strerror(rc));
    exit(2);
}

/* Different from one another, and the same in each run. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * UINT64_C(0xbf58476d1ce4e5b9) + 1;
    return x ^ (x >> 29);
}

static kist_bytes key_bytes(int i)
{
    return (kist_bytes){ .data = &keys[i], .len = sizeof keys[i] };
}

/* Far from the one before. */
static int nth(int i)
{
    return (int)((int64_t)i * 7919 % ENTRIES);
}

static void get(void)
{
    kist_bytes v;

    for (int i = 0; i < OPS; i++)
        check(kist_get(bank, key_bytes(nth(i)), &v), KIST_OK, "get");
}

static void get_many(void)
{
    kist_bytes k[BATCH], v[BATCH];
    int rc[BATCH];

    for (int i = 0; i < OPS; i += BATCH) {
        for (int j = 0; j < BATCH; j++)
            k[j] = key_bytes(nth(i + j));
        check(kist_get_many(bank, k, BATCH, v, rc), BATCH, "get many");
    }
}

static void put(void)
{
    for (int i = 0; i < OPS; i++)
        check(kist_put(bank, key_bytes(nth(i)), (kist_bytes){ value, sizeof value }), KIST_OK,
              "put");
}

static int fresh = ENTRIES;

static void put_new(void)
{
    for (int i = 0; i < OPS; i++)
        check(kist_put(bank, key_bytes(fresh++), (kist_bytes){ value, sizeof value }), KIST_OK,
              "put of a new key");
}

/* Above all others, and ascending by their bytes. */
static void put_ascending(void)
{
    for (int i = 0; i < OPS; i++, fresh++) {
        for (int b = 0; b < 8; b++)
            ((unsigned char *)&keys[fresh])[b] =
                b < 4 ? 0xff : (unsigned char)(fresh >> 8 * (7 - b));
        check(kist_put(bank, key_bytes(fresh), (kist_bytes){ value, sizeof value }), KIST_OK,
              "put of an ascending key");
    }
}

__attribute__((noinline)) static void counted(void (*what)(void))
{
    what();
}

static void fill(void)
{
    for (int i = 0; i < ENTRIES + 2 * OPS; i++)
        keys[i] = (key){ { mix((uint64_t)i), mix(~(uint64_t)i) } };
    for (int i = 0; i < ENTRIES; i++) {
        check(kist_put(bank, key_bytes(i), (kist_bytes){ value, sizeof value }), KIST_OK, "put");
    }
}

/* Figures depend on it; "gcc-12-x86_64". */
static int print_compiler(void)
{
#ifdef __clang__
    printf("clang-%d", __clang_major__);
#else
    printf("gcc-%d", __GNUC__);
#endif
#ifdef __x86_64__
    puts("-x86_64");
#else
    puts("-other");
#endif
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
        uint32_t index;
    } kinds[] = {
        { "get", get, KIST_INDEX_HASH },
        { "put", put, KIST_INDEX_HASH },
        { "get-16", get_many, KIST_INDEX_HASH },
        { "tree-get", get, KIST_INDEX_ORDERED },
        { "tree-put", put, KIST_INDEX_ORDERED },
        { "tree-new", put_new, KIST_INDEX_ORDERED },
        { "tree-asc", put_ascending, KIST_INDEX_ORDERED },
    };
    kist_store_options so = { .size = sizeof so, .flags = KIST_STORE_CREATE };
    kist_bank_options bo = { .size = sizeof bo, .flags = KIST_BANK_CREATE };
    void (*run)(void) = NULL;
    kist_store *store;

    if (argc == 2 && strcmp(argv[1], "--compiler") == 0)
        return print_compiler();
    for (size_t i = 0; argc == 3 && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name) == 0) {
            run = kinds[i].run;
            bo.index = kinds[i].index;
        }
    }
    if (!run) {
        fputs("usage: kist-guard KIND DIR, or --compiler\n", stderr);
        return 2;
    }
    bo.expect_entries = ENTRIES;
    check(kist_store_open(&store, argv[2], &so), KIST_OK, "store");
    check(kist_bank_open(&bank, store, "guard", &bo), KIST_OK, "bank");
    fill();
    check(kist_read_begin(), KIST_OK, "read section");
    run();
    counted(run);
    kist_read_end();
    check(kist_bank_close(bank), KIST_OK, "close");
    check(kist_store_close(store), KIST_OK, "close");
    printf("%d\n", OPS);
    return 0;
}
