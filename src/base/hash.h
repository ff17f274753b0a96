/* hash - XXH3-64, from the xxHash library; nothing else is hashed with. */
#ifndef KIST_BASE_HASH_H
#define KIST_BASE_HASH_H

/* Inlined: a get hashes one short key, and a call would cost half of it. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stddef.h>
#include <stdint.h>

static inline uint64_t hash_bytes(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

static inline uint64_t hash_seeded(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}

#endif
