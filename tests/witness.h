/*
 * witness - knows, outside of the store, what was begun and acknowledged, and
 * tells whether a read can be true.
 *
 * Each key has versions that only grow; whether a version is a put or a
 * delete follows from its number, so that a reader who finds nothing knows
 * too which versions that may be. It lies in memory that processes share and
 * that no SIGKILL takes back.
 */
#ifndef KIST_TESTS_WITNESS_H
#define KIST_TESTS_WITNESS_H

#include <stdatomic.h>

#include "support.h"

enum { WITNESS_KEYS = 128 };

struct witness_key {
    _Atomic uint64_t begun; /* the newest version that an operation began to write */
    _Atomic uint64_t acked; /* the newest whose operation returned */
    _Atomic uint64_t next;  /* no operation has begun this one */
};

struct witness {
    struct witness_key key[WITNESS_KEYS];
    _Atomic uint64_t reads, writes;
};

struct witness *witness_make(void);

/* Every eighth version is a delete; 0 is none at all. */
static inline bool witness_is_delete(uint64_t version)
{
    return version == 0 || version % 8 == 7;
}

/* The next unused version of a key that is, or is no, delete. */
uint64_t witness_next(struct witness *w, uint64_t key, bool is_delete);

void witness_begin(struct witness *w, uint64_t key, uint64_t version);
void witness_ack(struct witness *w, uint64_t key, uint64_t version);

/*
 * Read a key in one of several ways (borrowed, view, copy, many at once), and
 * check it: whole, of this key, not older than what was acknowledged before,
 * nor than `seen`, the newest that this reader saw; not newer than what was
 * begun. Answers that only mean "try again" are passed over: `rc` decides.
 */
void witness_read(struct witness *w, kist_bank *bank, uint64_t key, uint64_t *seen,
                  struct rng *rng);

/* Walk over the bank and check each entry so; no key may come twice. */
void witness_walk(struct witness *w, kist_bank *bank);

/*
 * After the death of the one writer, and a takeover: each key must be at what was acknowledged
 * or at what was begun, and the keys of one operation all or none of them.
 * Then that is what counts as acknowledged. Returns the keys whose operation
 * was cut short.
 */
uint64_t witness_settle(struct witness *w, kist_bank *bank);

#endif
