/*
 * engine_limit - the yardstick: as little work as a hash table over records
 * in memory can get away with.
 *
 * A table of buckets, each one cache line, beside an array of the records.
 * A get is a hash, one line of the table, and the line of the record that
 * has the key and the first bytes of the value: two cache misses.
 *
 *    bucket, 64 bytes, aligned
 *    0           16                        48         52        64
 *    +-----------+-------------------------+----------+---------+
 *    | 8 tags    | 8 numbers of records    | overflow | unused  |
 *    | 2 bytes   | 4 bytes each            | 4 bytes  |         |
 *    +-----------+-------------------------+----------+---------+
 *
 *    record, 128 bytes, aligned
 *    0          4            8         24              124    128
 *    +----------+------------+---------+---------------+------+
 *    | key len  | value len  | key     | value         |      |
 *    +----------+------------+---------+---------------+------+
 *
 * All tags of a bucket are compared at once (SSE2; without it one by one). A
 * tag is never 0, so a free slot matches no key. When a bucket is full its
 * keys go to the next one and `overflow` is set, about one key in sixty; a
 * search goes on exactly when it is set. The key is compared whole, its
 * length too.
 *
 * Nothing is synced, checked or shared, and nobody else may look while it
 * changes; an overwrite copies the new value over the old one. The memory is
 * anonymous, huge pages only where the system gives them unasked, or when
 * the driver is told to ask for them.
 */
#include "bench.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { WAYS = 8 };

struct bucket {
    _Alignas(64) uint16_t tag[WAYS];
    uint32_t number[WAYS];
    uint32_t overflow;
};
static_assert(sizeof(struct bucket) == 64, "one bucket, one cache line");

struct record {
    _Alignas(64) uint32_t key_len;
    uint32_t value_len;
    uint8_t key[BENCH_KEY_BYTES];
    uint8_t value[BENCH_VALUE_BYTES];
};
static_assert(sizeof(struct record) == 128, "key and first bytes of the value in one line");

struct limit {
    struct bucket *bucket;
    struct record *record;
    uint64_t buckets;
    uint32_t records, records_max;
};

static uint64_t hash_of(const bench_key *key)
{
    return XXH3_64bits(key, sizeof *key);
}

/* The upper bits choose the bucket, the lower ones are the tag. */
static uint64_t bucket_of(const struct limit *t, uint64_t hash)
{
    __extension__ typedef unsigned __int128 uint128;
    return (uint64_t)((uint128)hash * t->buckets >> 64);
}

static uint16_t tag_of(uint64_t hash)
{
    uint16_t tag = (uint16_t)hash;
    return tag ? tag : 1;
}

/* A bit, or two that lie side by side, for each slot with the tag. */
static unsigned slots_with(const struct bucket *b, uint16_t tag)
{
#ifdef __SSE2__
    __m128i tags = _mm_load_si128((const __m128i *)(const void *)b->tag);
    __m128i same = _mm_cmpeq_epi16(tags, _mm_set1_epi16((short)tag));
    return (unsigned)_mm_movemask_epi8(same);
#else
    unsigned slots = 0;
    for (unsigned i = 0; i < WAYS; i++)
        slots |= (unsigned)(b->tag[i] == tag) << (2 * i);
    return slots;
#endif
}

static unsigned first_slot(unsigned slots)
{
    return (unsigned)__builtin_ctz(slots) / 2;
}

static unsigned without_first(unsigned slots)
{
    return slots & ~(3u << (2 * first_slot(slots)));
}

static bool key_is(const struct record *r, const bench_key *key)
{
    return r->key_len == sizeof *key && memcmp(r->key, key, sizeof *key) == 0;
}

static inline struct record *find(const struct limit *t, const bench_key *key, uint64_t hash)
{
    uint64_t at = bucket_of(t, hash);

    for (;;) {
        const struct bucket *b = &t->bucket[at];
        for (unsigned slots = slots_with(b, tag_of(hash)); slots; slots = without_first(slots)) {
            struct record *r = &t->record[b->number[first_slot(slots)]];
            if (key_is(r, key))
                return r;
        }
        if (!b->overflow)
            return NULL;
        at = at + 1 == t->buckets ? 0 : at + 1;
    }
}

static int insert(struct limit *t, const bench_key *key, uint64_t hash, const void *value)
{
    uint64_t at = bucket_of(t, hash);
    struct bucket *b = &t->bucket[at];
    unsigned slots;

    if (t->records == t->records_max)
        return bench_fail("limit", "put", "more entries than it was made for");
    while (!(slots = slots_with(b, 0))) {
        b->overflow = 1;
        at = at + 1 == t->buckets ? 0 : at + 1;
        b = &t->bucket[at];
    }
    struct record *r = &t->record[t->records];
    r->key_len = BENCH_KEY_BYTES;
    r->value_len = BENCH_VALUE_BYTES;
    memcpy(r->key, key, sizeof *key);
    memcpy(r->value, value, BENCH_VALUE_BYTES);
    b->tag[first_slot(slots)] = tag_of(hash);
    b->number[first_slot(slots)] = t->records++;
    return 0;
}

static int limit_put(void *self, const bench_key *key, const void *value)
{
    struct limit *t = self;
    uint64_t hash = hash_of(key);
    struct record *r = find(t, key, hash);

    if (!r)
        return insert(t, key, hash, value);
    memcpy(r->value, value, BENCH_VALUE_BYTES);
    return 0;
}

static int limit_get(void *self, const bench_key *key)
{
    const struct record *r = find(self, key, hash_of(key));

    return r ? r->value[0] : BENCH_MISS;
}

/* Each step for all keys before the next step, so that misses overlap. */
static int limit_get_many(void *self, const bench_key *keys, uint64_t *sum)
{
    const struct limit *t = self;
    uint64_t hash[BENCH_BATCH], at[BENCH_BATCH];
    const struct record *maybe[BENCH_BATCH];
    int found = 0;

    for (int i = 0; i < BENCH_BATCH; i++) {
        hash[i] = hash_of(&keys[i]);
        at[i] = bucket_of(t, hash[i]);
        __builtin_prefetch(&t->bucket[at[i]]);
    }
    for (int i = 0; i < BENCH_BATCH; i++) {
        const struct bucket *b = &t->bucket[at[i]];
        unsigned slots = slots_with(b, tag_of(hash[i]));
        maybe[i] = slots ? &t->record[b->number[first_slot(slots)]] : NULL;
        __builtin_prefetch(maybe[i]);
    }
    for (int i = 0; i < BENCH_BATCH; i++) {
        const struct record *r = maybe[i];
        if (!r || !key_is(r, &keys[i]))
            r = find(t, &keys[i], hash[i]);
        if (r) {
            *sum += r->value[0];
            found++;
        }
    }
    return found;
}

static void *memory(size_t bytes, bool huge_pages)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    if (huge_pages)
        (void)madvise(p, bytes, MADV_HUGEPAGE); /* else it works without */
    return p;
}

static int limit_close(void *self)
{
    struct limit *t = self;

    if (t->bucket)
        (void)munmap(t->bucket, t->buckets * sizeof *t->bucket);
    if (t->record)
        (void)munmap(t->record, t->records_max * sizeof *t->record);
    free(t);
    return 0;
}

static int limit_open(void **self, const struct bench_conf *conf)
{
    struct limit *t = calloc(1, sizeof *t);

    if (!t)
        return bench_fail("limit", "open", strerror(ENOMEM));
    t->buckets = conf->entries * 10 / (6 * WAYS) + 1; /* load factor 0.6 */
    t->records_max = (uint32_t)conf->entries;
    t->bucket = memory(t->buckets * sizeof *t->bucket, conf->huge_pages);
    t->record = memory(t->records_max * sizeof *t->record, conf->huge_pages);
    if (!t->bucket || !t->record) {
        (void)limit_close(t);
        return bench_fail("limit", "open", strerror(ENOMEM));
    }
    *self = t;
    return 0;
}

static int limit_sync(void *self)
{
    (void)self;
    return 0;
}

const struct bench_engine bench_limit = {
    .name = "limit",
    .in_memory = true,
    .open = limit_open,
    .put = limit_put,
    .get = limit_get,
    .get_many = limit_get_many,
    .sync = limit_sync,
    .close = limit_close,
    .setup = "hash table of cache lines over an array of records, in anonymous memory, "
             "load factor 0.6",
};
