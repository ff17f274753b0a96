/* The ordered index with readers in threads beside its writer: nodes are used
 * again under them, and they notice. */
#include "support.h"

#include <pthread.h>
#include <sched.h>

#include "index/ordered_node.h"

enum { STAY = 2000, COME = 60000, READERS = 2, MEETINGS = 8, RECORD = 64, NAME = 16 };

static struct {
    struct ordered_index *ix;
    _Atomic uint64_t reuse;
    _Atomic uint64_t found[READERS]; /* looks that counted */
    _Atomic bool done;
    _Alignas(16) uint8_t heap[(2 + STAY + COME) * RECORD];
} shared;

static const struct record *record_at(void *arg, uint64_t loc)
{
    uint64_t at = loc * RECORD_ALIGN;

    (void)arg;
    return at > 0 && at % RECORD == 0 && at < sizeof shared.heap
               ? (const struct record *)(shared.heap + at)
               : NULL;
}

static void reused(void *arg)
{
    (void)arg;
    (void)atomic_fetch_add(&shared.reuse, 1);
}

static const struct index_owner owner = { .record = record_at, .reuse = reused };

/* Those that stay stand between those that come and go. */
static kist_bytes name_of(uint64_t i, uint8_t out[NAME])
{
    uint64_t n = __builtin_bswap64(i < STAY ? i << 40 : mix(i, 1) % ((uint64_t)STAY << 40) | 1);

    memcpy(out, "a prefix", 8);
    memcpy(out + 8, &n, 8);
    return (kist_bytes){ out, NAME };
}

static void change(uint64_t i, bool add)
{
    uint8_t name[NAME];
    kist_bytes key = name_of(i, name);
    struct record *r = (struct record *)(shared.heap + (i + 1) * RECORD);
    struct ordered_spot at;
    int rc = ordered_find(shared.ix, &owner, key, ORDERED_AT, &at);

    if (!add) {
        must_ok(rc);
        ordered_empty(shared.ix, &owner, &at);
        return;
    }
    must_rc(rc, KIST_MISS);
    *r = (struct record){ .key_len = NAME, .kind = RECORD_PUT };
    memcpy(r->body, name, NAME);
    must_ok(ordered_room(shared.ix, &owner, key, &at));
    ordered_insert(shared.ix, key, &at, (i + 1) * RECORD / RECORD_ALIGN);
}

static bool is_at(const struct ordered_spot *at, kist_bytes key)
{
    const struct record *r = record_at(NULL, ordered_loc(shared.ix, at));

    return r && record_key_is(r, key);
}

/* True: the answer counts. */
static bool look_once(uint64_t i)
{
    uint64_t reuse = atomic_load_explicit(&shared.reuse, memory_order_acquire);
    uint64_t seen = index_len(&shared.ix->file);
    uint8_t name[NAME], next[NAME];
    struct ordered_spot at;
    kist_bytes key = name_of(i, name);
    int rc = ordered_find(shared.ix, &owner, key, ORDERED_AT, &at);
    bool right = rc == KIST_OK && is_at(&at, key);

    key = name_of(i + 1 < STAY ? i + 1 : i, next);
    for (int steps = 0; right && steps < 1000 && !is_at(&at, key); steps++)
        right = ordered_next(shared.ix, &at) == KIST_OK;
    right = right && is_at(&at, key);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&shared.reuse, memory_order_relaxed) != reuse)
        return false;
    if (rc == ORDERED_OUTSIDE) {
        must(index_refresh(&shared.ix->file, seen) == 1);
        return false;
    }
    must(right);
    return true;
}

static void *look(void *arg)
{
    _Atomic uint64_t *found = arg;
    struct rng rng = { test_seed() + (uint64_t)(found - shared.found) };

    while (!atomic_load(&shared.done))
        if (look_once(rng_below(&rng, STAY)))
            (void)atomic_fetch_add(found, 1);
    while (!look_once(rng_below(&rng, STAY)))
        ;
    return NULL;
}

/* Until each reader has found something more: on a busy machine a writer may be through
 * before one of them has begun. */
static void meet_readers(void)
{
    for (int i = 0; i < READERS; i++) {
        uint64_t before = atomic_load(&shared.found[i]);

        while (atomic_load(&shared.found[i]) == before)
            (void)sched_yield();
    }
}

TEST(readers_beside_a_writer_find_all_that_stays)
{
    static const uint8_t bank_id[16] = { 1 };
    uint64_t come = test_scaled(COME) < COME ? test_scaled(COME) : COME;
    uint64_t steps = come + 3000; /* 3,000 of them are there at once */
    pthread_t threads[READERS];
    struct ordered_facts f;

    must_ok(ordered_create_private(&shared.ix, bank_id));
    for (uint64_t i = 0; i < STAY; i++)
        change(i, true);
    for (int i = 0; i < READERS; i++)
        must(pthread_create(&threads[i], NULL, look, &shared.found[i]) == 0);
    for (uint64_t i = 0; i < steps; i++) {
        if (i % (steps / MEETINGS) == 0)
            meet_readers();
        if (i < come)
            change(STAY + i, true);
        if (i >= 3000 && i - 3000 < come)
            change(STAY + i - 3000, false);
    }
    atomic_store(&shared.done, true);
    for (int i = 0; i < READERS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    must(atomic_load(&shared.reuse) > 0);
    must_ok(ordered_check(shared.ix, &owner, &f));
    must(f.entries == STAY);
    ordered_close(shared.ix);
}
