/* data - keys in random orders, and values. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

/* The finalizer of splitmix64; different inputs give different outputs. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

bench_key data_key(uint64_t number)
{
    return (bench_key){ { mix(number), mix(~number) } };
}

uint64_t data_below(uint64_t *random, uint64_t limit)
{
    __extension__ typedef unsigned __int128 uint128;
    return (uint64_t)((uint128)mix((*random)++) * limit >> 64);
}

void data_shuffle(struct data *d)
{
    for (uint64_t i = d->entries; i > 1; i--) {
        uint64_t j = data_below(&d->random, i);
        bench_key key = d->order[i - 1];
        d->order[i - 1] = d->order[j];
        d->order[j] = key;
    }
    for (uint64_t i = 0; i < d->samples; i++)
        d->sample[i] = d->all[data_below(&d->random, d->entries)];
}

int data_init(struct data *d, uint64_t entries)
{
    size_t bytes = entries * sizeof(bench_key);

    *d = (struct data){ .entries = entries, .samples = entries / 4, .random = 1 };
    d->all = malloc(bytes);
    d->order = malloc(bytes);
    d->absent = malloc(bytes);
    d->sample = malloc(bytes / 4 + 1);
    if (!d->all || !d->order || !d->absent || !d->sample)
        return bench_fail("bench", "keys", "out of memory");
    for (uint64_t i = 0; i < entries; i++) {
        d->all[i] = data_key(i);
        d->absent[i] = data_key(i + entries);
    }
    memcpy(d->order, d->all, bytes);
    data_shuffle(d);
    return 0;
}

void data_free(struct data *d)
{
    free(d->all);
    free(d->order);
    free(d->absent);
    free(d->sample);
}

static unsigned char first_byte(unsigned value, unsigned version)
{
    return (unsigned char)(value + version);
}

void values_fill(struct values *v, unsigned version)
{
    for (unsigned i = 0; i < 64; i++) {
        v->bytes[i][0] = first_byte(i, version);
        for (unsigned j = 1; j < BENCH_VALUE_BYTES; j++)
            v->bytes[i][j] = (unsigned char)mix(i * 256 + j);
    }
}

uint64_t values_sum(const struct data *d, unsigned version)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < d->entries; i++)
        sum += first_byte((unsigned)(d->all[i].word[0] % 64), version);
    return sum;
}
