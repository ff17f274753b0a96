/*
 * killed STORE BANK: clears the bank, and dies where the new index is the bank's and the
 * step is not made yet.
 */
#include "bank/core.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const shm_word *last;

static void die_at_the_last(const void *addr, size_t len)
{
    (void)len;
    if (addr == (const void *)last)
        (void)kill(getpid(), SIGKILL);
}

int main(int argc, char **argv)
{
    kist_store_options so = { .size = sizeof so };
    kist_bank_options bo = { .size = sizeof bo };
    kist_store *store;
    kist_bank *bank;
    struct core *c;

    if (argc != 3 || kist_store_open(&store, argv[1], &so) != KIST_OK ||
        kist_bank_open(&bank, store, argv[2], &bo) != KIST_OK || kist_read_begin() != KIST_OK ||
        core_enter(bank, &c) != KIST_OK)
        return fprintf(stderr, "%s\n", kist_last_error()->what), 1;
    last = &c->live->generation;
    kist_read_end();
    shm_seam = die_at_the_last;
    return kist_clear(bank) == KIST_OK; /* it does not get that far */
}
