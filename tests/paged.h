/*
 * paged - a device over a byte array, for tests of the page cache: it counts
 * its calls, checks what it is asked, fails when told to, and lends memory that
 * is gone once it was given back.
 */
#ifndef KIST_TESTS_PAGED_H
#define KIST_TESTS_PAGED_H

#include <kist/pages.h>

enum paged_kind { PAGED_COPY, PAGED_LEND, PAGED_NEITHER, PAGED_KINDS };
enum { PAGED_FAILS = -777 }; /* what a call that fails returns */

struct paged {
    unsigned char *bytes;
    uint64_t len;  /* the device's length */
    uint64_t room; /* of `bytes`: it may grow so far */
    uint64_t page; /* the page size it is to be asked by */

    uint64_t maps;   /* calls of map and lend */
    uint64_t writes; /* of writev */
    uint64_t pieces; /* in the last of these */
    uint64_t syncs;  /* of sync */
    uint64_t lent;   /* pages not given back yet */
    uint64_t hinted; /* the end of what `ahead` was told last */
    uint64_t torn;   /* bytes that a writev that fails writes nevertheless */
    uint64_t map_fails_at, write_fails_at, sync_fails_at; /* the n-th call; 0: none does */
    uint64_t too_much;   /* so many bytes more than asked for are returned */
    uint64_t misaligned; /* by so many bytes is what is lent */

    uint64_t written_at[64]; /* where the first writes went, in their order */
};

/* `len` random bytes in a buffer of `room`. */
void paged_init(struct paged *d, uint64_t len, uint64_t room, uint64_t page, uint64_t seed);
void paged_free(struct paged *d);
kist_device paged_device(struct paged *d, enum paged_kind kind);

/* A cache over it: of `cache` pages, 0: the default. */
kist_pages *paged_open(struct paged *d, enum paged_kind kind, uint32_t cache, uint32_t flags);

kist_pages_stats paged_stats(kist_pages *pages);

#endif
