/* The accounts of segments, when there are more than kist.live has room for in
 * its first page: none is lost, and cleaning takes no live record along. */
#include "support.h"

#include <dirent.h>
#include <stdio.h>

enum { BIG = 4000, RING = 128, KEYS_MAX = 100000 };

static kist_bank *bank;
static char heap_dir[512];

/* Lowest and highest number of a segment. */
static void numbers(unsigned long *low, unsigned long *high)
{
    DIR *d = opendir(heap_dir);
    struct dirent *e;
    unsigned long n;

    must(d != NULL);
    *low = ~0ul, *high = 0;
    while ((e = readdir(d)) != NULL) {
        if (sscanf(e->d_name, "kist.heap.%lu", &n) != 1)
            continue;
        *low = n < *low ? n : *low;
        *high = n > *high ? n : *high;
    }
    must(closedir(d) == 0);
}

static unsigned long newest(void)
{
    unsigned long low, high;

    numbers(&low, &high);
    return high;
}

static void put(char kind, int number, size_t len)
{
    static char value[BIG];
    char key[32];

    (void)snprintf(key, sizeof key, "%c%07d", kind, number);
    must_ok(kist_put(bank, text(key), (kist_bytes){ value, len }));
}

/* Dead records, until segment `n` is there. */
static void waste_until(unsigned long n)
{
    while (newest() < n)
        for (int i = 0; i < 16; i++)
            put('f', 0, BIG);
}

static void compact(void)
{
    must_ok(kist_compact(bank, NULL, NULL));
}

/* The oldest segment is full of live records, one whose number is a multiple
 * of the grown ring's size is full of small ones, and then the ring grows. */
TEST(a_ring_that_grows_keeps_every_account)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 512 << 10 };
    struct fixture f = fixture_open_with(&opt);
    unsigned long oldest, high;
    int live = 0, small = 0;

    bank = f.bank;
    (void)snprintf(heap_dir, sizeof heap_dir, "%s/bank", f.dir);
    for (int i = 0; i < 5; i++) /* so that the first segment is cleaned, too */
        put('f', 0, 1);
    for (unsigned long n = 50; n <= 100; n += 25) {
        waste_until(n);
        compact();
    }
    while (live < 250)
        put('o', live++, BIG);
    waste_until(RING - 6);
    compact();
    while (newest() < RING)
        put('o', live++, BIG);
    while (newest() == RING && small < KEYS_MAX)
        put('t', small++, 0);
    numbers(&oldest, &high);
    while (newest() < oldest + RING / 2 - 1)
        put('o', live++, BIG);
    for (int i = 0; i < 100; i++)
        put('o', live++, BIG);
    for (int i = 100; i < 110; i++) /* some dead ones in segment RING */
        put('t', i, 1);
    compact();

    must_ok(kist_bank_close(bank)); /* no map of ours holds what was unlinked */
    f.bank = bank = open_bank(f.store, "bank");
    must(count_of(bank) == (uint64_t)live + (uint64_t)small + 1);
    must_verify(bank);
    for (int i = 0; i < small; i++) {
        char key[32];
        kist_bytes value;

        (void)snprintf(key, sizeof key, "t%07d", i);
        must_ok(kist_read_begin());
        must_ok(kist_get(bank, text(key), &value));
        kist_read_end();
    }
    fixture_close(&f);
}
