/* keys - numbered in their order, and laid out in another. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(bench_key));
}

static void make(bench_key *keys, uint64_t n, enum key_shape shape)
{
    for (uint64_t i = 0; i < n; i++) {
        keys[i] = data_key(shape == KEYS_GROUPS ? i / KEYS_GROUP : i);
        if (shape != KEYS_SPREAD)
            keys[i].word[1] = shape == KEYS_GROUPS ? __builtin_bswap64(i % KEYS_GROUP) : 0;
    }
    qsort(keys, n, sizeof *keys, by_bytes);
}

int keys_init(struct key_set *k, uint64_t n, enum key_shape shape)
{
    *k = (struct key_set){ .n = n, .random = 1 };
    k->sorted = malloc(n * sizeof *k->sorted);
    k->order = malloc(n * sizeof *k->order);
    k->rank = malloc(n * sizeof *k->rank);
    if (!k->sorted || !k->order || !k->rank)
        return bench_fail("bench", "keys", "out of memory");
    make(k->sorted, n, shape);
    for (uint64_t i = 0; i < n; i++)
        k->rank[i] = (uint32_t)i;
    keys_shuffle(k);
    return 0;
}

void keys_free(struct key_set *k)
{
    free(k->sorted);
    free(k->order);
    free(k->rank);
}

void keys_shuffle(struct key_set *k)
{
    for (uint64_t i = k->n; i > 1; i--) {
        uint64_t j = data_below(&k->random, i);
        uint32_t rank = k->rank[i - 1];
        k->rank[i - 1] = k->rank[j];
        k->rank[j] = rank;
    }
    for (uint64_t i = 0; i < k->n; i++)
        k->order[i] = k->sorted[k->rank[i]];
}
