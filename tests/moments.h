/*
 * moments - what a bank held at some moment, remembered: for tests that look at
 * it later, through snapshots and cursors.
 *
 * Keys are given once, in byte order; a moment says which version each of them
 * had, 0 for none. A value follows from its key and version.
 */
#ifndef KIST_TESTS_MOMENTS_H
#define KIST_TESTS_MOMENTS_H

#include "support.h"

enum { MOMENT_VALUE_CAP = 20000 };

struct keys {
    kist_bytes *key; /* sorted, each once */
    size_t n;
};

/* `n` keys or a few less, of hostile shapes: the empty one, prefixes of each other,
 * runs of 0xff, long common prefixes; and `longest` of 65,535 bytes or a few less. */
struct keys keys_make(struct rng *rng, size_t n, unsigned longest);
void keys_free(struct keys *keys);

int bytes_order(kist_bytes a, kist_bytes b); /* as memcmp(); the shorter first */

/* The first key that is not below `key`; n: none. */
size_t keys_from(const struct keys *keys, kist_bytes key);

struct moment {
    const struct keys *keys;
    uint64_t *version;
    kist_meta *meta; /* as it was then, once it was noted */
    uint64_t newest; /* version of the newest write */
    uint64_t entries, payload;
};

struct moment *moment_make(const struct keys *keys); /* nothing in it */
struct moment *moment_copy(const struct moment *m);
void moment_free(struct moment *m);
void moment_set(struct moment *m, size_t key, uint64_t version);

/* Good until the thread's next call. */
kist_bytes moment_value(size_t key, uint64_t version);
bool moment_value_is(kist_bytes value, size_t key, uint64_t version);

/* A random put or delete, in the bank and in the model. */
void moment_change(struct moment *m, kist_bank *bank, struct rng *rng);
/* So many of them. */
void moment_change_many(struct moment *m, kist_bank *bank, struct rng *rng, uint64_t n);
void moment_clear(struct moment *m, kist_bank *bank);
void moment_replace(struct moment *m, kist_bank *bank);

/* Keep what the bank says of each key now. */
void moment_note_meta(struct moment *m, kist_bank *bank);

/* An entry of a cursor or walk: of the key, as of the moment. */
void moment_must_be_entry(const struct moment *m, size_t key, const kist_entry *entry);

/* Every way of reading shows this moment, and nothing else. */
void moment_must_be_seen(const struct moment *m, kist_bank *bank);

#endif
