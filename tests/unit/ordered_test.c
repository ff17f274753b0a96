/*
 * The ordered index against a sorted array; between any two stores of its writer;
 * after a kill at each of them; in the hands of two writers; and forged.
 *
 * Records are no more than a key here, in memory that all processes share.
 */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "index/ordered_node.h"

/* ---- a heap and an index ---------------------------------------------- */

enum { KEY_BYTES = 65535 };

struct heap {
    size_t cap;
    _Atomic uint64_t used, reuse;
    uint8_t bytes[];
};

struct world {
    struct heap *heap;
    struct ordered_index *ix;
    struct index_owner o;
    char *dir;
    int dir_fd;
};

static const uint8_t bank_id[16] = { 1, 2, 3 };

static const struct record *heap_record(void *arg, uint64_t loc)
{
    const struct heap *h = arg;

    /* whatever the index says: header and key are in memory */
    return loc > 0 && loc * RECORD_ALIGN + 66000 < h->cap
               ? (const struct record *)(h->bytes + loc * RECORD_ALIGN)
               : NULL;
}

static void heap_reuse(void *arg)
{
    struct heap *h = arg;

    (void)atomic_fetch_add(&h->reuse, 1);
}

static uint64_t heap_add(struct heap *h, const void *key, size_t len)
{
    uint64_t at = h->used;
    struct record *r = (struct record *)(h->bytes + at);

    h->used += round16(RECORD_HEADER + len);
    must(h->used + 70000 < h->cap);
    *r = (struct record){ .key_len = (uint16_t)len, .kind = RECORD_PUT };
    memcpy(r->body, key, len);
    return at / RECORD_ALIGN;
}

static struct heap *heap_make(size_t bytes)
{
    struct heap *h = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    must(h != MAP_FAILED);
    h->cap = bytes - sizeof *h;
    h->used = RECORD_ALIGN;
    return h;
}

static struct world world_private(size_t bytes)
{
    struct world w = { .heap = heap_make(bytes), .dir_fd = -1 };

    w.o = (struct index_owner){ .record = heap_record, .reuse = heap_reuse, .arg = w.heap };
    must_ok(ordered_create_private(&w.ix, bank_id));
    return w;
}

static struct world world_in_a_file(size_t bytes)
{
    struct world w = { .heap = heap_make(bytes), .dir = tmp_dir(TMP_FAST) };

    w.o = (struct index_owner){ .record = heap_record, .reuse = heap_reuse, .arg = w.heap };
    w.dir_fd = os_open_path(w.dir, OS_READ | OS_DIR);
    must(w.dir_fd >= 0);
    must_ok(ordered_create(&w.ix, w.dir_fd, 0600, bank_id, 1));
    return w;
}

static struct ordered_index *open_again(const struct world *w, bool writable)
{
    struct ordered_index *ix;
    int fd = os_open_under(w->dir_fd, "kist.index.1", writable ? OS_READ | OS_WRITE : OS_READ, 0);

    must(fd >= 0);
    must_ok(ordered_open(&ix, fd, bank_id, 1, writable));
    return ix;
}

static void world_end(struct world *w)
{
    ordered_close(w->ix);
    must(munmap(w->heap, w->heap->cap + sizeof *w->heap) == 0);
    if (w->dir_fd >= 0)
        (void)os_close(w->dir_fd);
    if (w->dir)
        tmp_remove(w->dir);
    free(w->dir);
}

static kist_bytes key_at(const struct world *w, uint64_t loc)
{
    const struct record *r = heap_record(w->heap, loc);

    must(r != NULL);
    return (kist_bytes){ record_key(r), r->key_len };
}

static int order_of(kist_bytes a, kist_bytes b)
{
    return bytes_order(a.data, a.len, b.data, b.len);
}

/* As a bank would: with as much of the file as there is. */
static int find(struct world *w, struct ordered_index *ix, kist_bytes key, enum ordered_where where,
                struct ordered_spot *at)
{
    int rc;

    do {
        uint64_t seen = index_len(&ix->file);

        rc = ordered_find(ix, &w->o, key, where, at);
        if (rc == ORDERED_OUTSIDE && index_refresh(&ix->file, seen) != 1)
            return KIST_ECORRUPT;
    } while (rc == ORDERED_OUTSIDE);
    return rc;
}

static int try_put_in(struct world *w, struct ordered_index *ix, kist_bytes key)
{
    struct ordered_spot at;
    int rc = find(w, ix, key, ORDERED_AT, &at);

    if (rc == KIST_OK) {
        ordered_update(ordered_slot(ix, &at), heap_add(w->heap, key.data, key.len));
    } else if (rc == KIST_MISS) {
        rc = ordered_room(ix, &w->o, key, &at);
        if (rc == KIST_OK)
            ordered_insert(ix, key, &at, heap_add(w->heap, key.data, key.len));
    }
    return rc;
}

static void put(struct world *w, kist_bytes key)
{
    must_ok(try_put_in(w, w->ix, key));
}

static int take_out_of(struct world *w, struct ordered_index *ix, kist_bytes key)
{
    struct ordered_spot at;
    int rc = find(w, ix, key, ORDERED_AT, &at);

    if (rc == KIST_OK)
        ordered_empty(ix, &w->o, &at);
    return rc;
}

static bool holds(struct world *w, kist_bytes key)
{
    struct ordered_spot at;
    int rc = find(w, w->ix, key, ORDERED_AT, &at);

    must(rc == KIST_OK || rc == KIST_MISS);
    must(rc == KIST_MISS || order_of(key_at(w, ordered_loc(w->ix, &at)), key) == 0);
    return rc == KIST_OK;
}

static struct ordered_facts checked(struct world *w)
{
    struct ordered_facts f;

    must_ok(ordered_check(w->ix, &w->o, &f));
    return f;
}

/* Eight bytes in their order. */
static kist_bytes ordered_number(uint64_t n)
{
    static uint64_t some[16];
    static unsigned i;
    uint64_t *p = &some[i++ % 16];

    *p = __builtin_bswap64(n);
    return (kist_bytes){ p, 8 };
}

/* ---- the oracle ------------------------------------------------------- */

struct oracle {
    uint64_t *loc; /* of records, in the order of their keys */
    size_t n, cap;
};

/* The first that is not below the key. */
static size_t oracle_from(const struct world *w, const struct oracle *o, kist_bytes key)
{
    size_t lo = 0, hi = o->n;

    while (lo < hi) {
        size_t middle = (lo + hi) / 2;

        if (order_of(key_at(w, o->loc[middle]), key) < 0)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

static bool oracle_has(const struct world *w, const struct oracle *o, size_t i, kist_bytes key)
{
    return i < o->n && order_of(key_at(w, o->loc[i]), key) == 0;
}

static void oracle_put(const struct world *w, struct oracle *o, kist_bytes key, uint64_t loc)
{
    size_t i = oracle_from(w, o, key);

    if (!oracle_has(w, o, i, key)) {
        must(o->n < o->cap);
        memmove(&o->loc[i + 1], &o->loc[i], (o->n - i) * sizeof *o->loc);
        o->n++;
    }
    o->loc[i] = loc;
}

static void oracle_take_out(const struct world *w, struct oracle *o, kist_bytes key)
{
    size_t i = oracle_from(w, o, key);

    must(oracle_has(w, o, i, key));
    memmove(&o->loc[i], &o->loc[i + 1], (o->n - i - 1) * sizeof *o->loc);
    o->n--;
}

/* Walk both, to the right and to the left. */
static void must_be_the_same(struct world *w, const struct oracle *o)
{
    struct ordered_spot at;
    uint64_t ahead[ORDERED_WAYS];
    size_t i = 0;
    int rc;

    for (rc = ordered_first(w->ix, &at); rc == KIST_OK; rc = ordered_next(w->ix, &at))
        must(i < o->n && ordered_loc(w->ix, &at) == o->loc[i++]);
    must_rc(rc, KIST_END);
    must(i == o->n);
    for (rc = ordered_last(w->ix, &at); rc == KIST_OK; rc = ordered_prev(w->ix, &at))
        must(i > 0 && ordered_loc(w->ix, &at) == o->loc[--i]);
    must_rc(rc, KIST_END);
    must(i == 0);
    for (rc = ordered_first(w->ix, &at); rc == KIST_OK; rc = ordered_next_leaf(w->ix, &at)) {
        unsigned n = ordered_ahead(w->ix, &at, ahead);

        for (unsigned k = 0; k < n; k++)
            must(i < o->n && ahead[k] == o->loc[i++]);
    }
    must_rc(rc, KIST_END);
    must(i == o->n);
    must(checked(w).entries == o->n);
}

static void must_find_the_same(struct world *w, const struct oracle *o, kist_bytes key)
{
    size_t i = oracle_from(w, o, key);
    bool has = oracle_has(w, o, i, key);
    const struct {
        enum ordered_where where;
        size_t want; /* o->n and above: none */
    } c[] = {
        { ORDERED_AT, has ? i : SIZE_MAX }, { ORDERED_GE, i },     { ORDERED_GT, has ? i + 1 : i },
        { ORDERED_LE, has ? i : i - 1 },    { ORDERED_LT, i - 1 },
    };
    struct ordered_spot at;

    for (size_t k = 0; k < sizeof c / sizeof c[0]; k++) {
        must_rc(ordered_find(w->ix, &w->o, key, c[k].where, &at),
                c[k].want < o->n ? KIST_OK : KIST_MISS);
        must(c[k].want >= o->n || ordered_loc(w->ix, &at) == o->loc[c[k].want]);
    }
}

/* ---- keys of hostile shapes ------------------------------------------- */

static size_t make_key(struct rng *rng, const struct world *w, const struct oracle *o, uint8_t *out)
{
    static const uint8_t few[] = { 0, 1, 0x7f, 0x80, 0xff };
    uint64_t shape = rng_below(rng, 100);
    size_t len = rng_below(rng, 20);

    for (size_t i = 0; i < len; i++)
        out[i] = few[rng_below(rng, sizeof few)];
    if (shape < 20) /* short, of few bytes: prefixes of each other, and the empty one */
        return rng_below(rng, 6) < len ? rng_below(rng, 6) : len;
    if (shape < 30)
        return len;
    if (shape < 45 && o->n > 0) { /* an old one, longer or shorter */
        kist_bytes old = key_at(w, o->loc[rng_below(rng, o->n)]);
        size_t more = rng_below(rng, 12), n = old.len;

        memcpy(out, old.data, n);
        if (rng_below(rng, 2) && n > 0)
            return n - 1 - rng_below(rng, n < 9 ? n : 9);
        for (; more > 0 && n < KEY_BYTES; more--)
            out[n++] = few[rng_below(rng, sizeof few)];
        return n;
    }
    if (shape < 60) { /* a long common prefix */
        memset(out, 'p', 300);
        for (size_t i = 300; i < 304; i++)
            out[i] = (uint8_t)rng_next(rng);
        return 304;
    }
    if (shape < 61 && w->heap->used < w->heap->cap / 2) { /* as long as can be */
        memset(out, shape < 61 && rng_below(rng, 2) ? 'q' : 0, KEY_BYTES);
        for (size_t i = 0; i < 3; i++)
            out[KEY_BYTES - 1 - rng_below(rng, 20)] = (uint8_t)rng_next(rng);
        return KEY_BYTES - rng_below(rng, 3);
    }
    if (shape < 80)
        return (size_t)snprintf((char *)out, 100, "user:%010u", (unsigned)rng_below(rng, 100000));
    for (size_t i = 0; i < 16; i++)
        out[i] = (uint8_t)rng_next(rng);
    return 16;
}

TEST(agrees_with_a_sorted_array_of_keys_of_hostile_shapes)
{
    enum { OPERATIONS = 30000, MOST = 12000 };
    struct world w = world_private((size_t)512 << 20);
    struct oracle o = { calloc(MOST, sizeof *o.loc), 0, MOST };
    struct rng rng = { test_seed() };
    uint8_t *key = malloc(2 * KEY_BYTES);
    uint64_t n = test_scaled(OPERATIONS);

    for (test_case = 1; test_case <= n; test_case++) {
        /* it fills, it empties */
        bool fills = test_case / 4000 % 2 == 0 ? rng_below(&rng, 10) < 8 : rng_below(&rng, 10) < 2;
        kist_bytes k = { key, make_key(&rng, &w, &o, key) };
        struct ordered_spot at;

        must_find_the_same(&w, &o, k);
        if (fills && o.n < MOST) {
            put(&w, k);
            must_ok(ordered_find(w.ix, &w.o, k, ORDERED_AT, &at));
            oracle_put(&w, &o, k, ordered_loc(w.ix, &at));
        } else if (o.n > 0) {
            k = key_at(&w, o.loc[rng_below(&rng, o.n)]);
            must_ok(take_out_of(&w, w.ix, k));
            oracle_take_out(&w, &o, k);
        }
        must_find_the_same(&w, &o, k);
        if (test_case % 997 == 0 || test_case == n)
            must_be_the_same(&w, &o);
    }
    must(w.heap->reuse > 0);
    test_case = 0;
    free(key);
    free(o.loc);
    world_end(&w);
}

/* Each way that a tree may come to be; and go: nothing is left of it. */
TEST(fills_and_empties_in_any_order)
{
    enum { KEYS = 4000 };

    for (unsigned how = 0; how < 6; how++) {
        struct world w = world_private((size_t)64 << 20);
        struct ordered_facts f;

        test_case = how;
        for (uint64_t i = 0; i < KEYS; i++)
            put(&w, ordered_number(how % 3 == 0   ? i
                                   : how % 3 == 1 ? KEYS - 1 - i
                                                  : i * 2377 % KEYS));
        f = checked(&w);
        must(f.entries == KEYS && f.depth <= 4);
        if (how % 3 == 0) /* in order: leaves are full */
            must(f.leaves <= KEYS / (ORDERED_WAYS - 1) + 1);
        for (uint64_t i = 0; i < KEYS; i++) {
            must_ok(take_out_of(&w, w.ix, ordered_number(how < 3 ? i : i * 2377 % KEYS)));
            if (i % 512 == 0)
                must(checked(&w).entries == KEYS - 1 - i);
        }
        f = checked(&w);
        must(f.depth == 0 && f.bytes == 0);
        world_end(&w);
    }
    test_case = 0;
}

/* Leaves beside it skip bytes that keys of the empty range do not agree in. */
TEST(a_range_that_was_emptied_takes_keys_again)
{
    enum { SIDE = 1000, GONE = 50, LEFT = 100 };
    const uint64_t middle = UINT64_C(1) << 48;
    struct world w = world_private((size_t)4 << 20);

    for (uint64_t i = middle - SIDE; i < middle + SIDE; i++)
        put(&w, ordered_number(4 * i));
    for (uint64_t i = middle - GONE; i < middle + GONE; i++)
        must_ok(take_out_of(&w, w.ix, ordered_number(4 * i)));
    for (uint64_t i = middle - SIDE; i < middle - LEFT; i++) /* parents are made anew */
        put(&w, ordered_number(4 * i + 1));
    must(checked(&w).entries == 2 * SIDE - 2 * GONE + SIDE - LEFT);
    for (uint64_t i = middle - GONE; i < middle + GONE; i++)
        put(&w, ordered_number(4 * i));
    must(checked(&w).entries == 2 * SIDE + SIDE - LEFT);
    for (uint64_t i = middle - SIDE; i < middle + SIDE; i++)
        must(holds(&w, ordered_number(4 * i)));
    world_end(&w);
}

/* A queue goes through many times as many keys as it ever has at once. */
TEST(nodes_that_go_are_used_again)
{
    enum { AT_ONCE = 2000, TIMES = 40 };
    struct world w = world_private((size_t)256 << 20);

    for (uint64_t i = 0; i < AT_ONCE * TIMES; i++) {
        put(&w, ordered_number(i));
        if (i >= AT_ONCE)
            must_ok(take_out_of(&w, w.ix, ordered_number(i - AT_ONCE)));
    }
    must(checked(&w).entries == AT_ONCE);
    must(checked(&w).depth <= 4);
    must(index_len(&w.ix->file) < AT_ONCE * 80);
    world_end(&w);
}

TEST(a_million_keys_are_in_order)
{
    uint64_t n = test_scaled(1000000), met = 0, key[2] = { 0, 0 };
    struct world w = world_private(n * 64 + ((size_t)1 << 20));
    struct ordered_facts f;
    struct ordered_spot at;

    for (uint64_t i = 0; i < n; i++) {
        key[0] = mix(test_seed(), i);
        put(&w, (kist_bytes){ key, sizeof key });
    }
    f = checked(&w);
    must(f.entries == n && f.depth <= 6);
    must(n < 100000 || f.bytes < n * 32);
    for (int rc = ordered_first(w.ix, &at); rc == KIST_OK; rc = ordered_next(w.ix, &at))
        met++;
    must(met == n);
    for (uint64_t i = 0; i < n; i += 17) {
        key[0] = mix(test_seed(), i);
        must(holds(&w, (kist_bytes){ key, sizeof key }));
    }
    world_end(&w);
}

/* A search has to look behind the bytes that all keys have, and a node must not keep
 * them for each of its keys. */
TEST(keys_with_a_long_common_prefix_are_in_order)
{
    enum { PREFIX = 200 };
    uint64_t n = test_scaled(200000), met = 0;
    struct world w = world_private(n * (PREFIX + 64) + ((size_t)1 << 20));
    kist_bytes before = { 0 }, key;
    struct ordered_facts f;
    struct ordered_spot at;
    uint8_t bytes[PREFIX + 8];
    int rc;

    memset(bytes, 'p', PREFIX);
    key = (kist_bytes){ bytes, sizeof bytes };
    for (uint64_t i = 0; i < n; i++) {
        memcpy(bytes + PREFIX, &(uint64_t){ mix(test_seed(), i) }, 8);
        put(&w, key);
    }
    f = checked(&w);
    must(f.entries == n && f.depth <= 6);
    must(n < 100000 || f.bytes < n * 32);
    for (rc = ordered_first(w.ix, &at); rc == KIST_OK; rc = ordered_next(w.ix, &at)) {
        kist_bytes it = key_at(&w, ordered_loc(w.ix, &at));

        must(met++ == 0 || order_of(before, it) < 0);
        before = it;
    }
    must(rc == KIST_END && met == n);
    for (uint64_t i = 0; i < n; i += 17) {
        memcpy(bytes + PREFIX, &(uint64_t){ mix(test_seed(), i) }, 8);
        must(holds(&w, key));
    }
    world_end(&w);
}

/* ---- between two stores ----------------------------------------------- */

static struct world *watched;
static uint64_t watched_keys, looks;

static uint64_t watched_key(uint64_t i)
{
    return i * 40503 % 65536;
}

/* What was there is found, alone and by steps, and the tree is whole. */
static void look_between(const void *addr, size_t len)
{
    struct ordered_spot at;
    uint64_t n = 0, probe;
    struct ordered_facts f;
    int rc;

    (void)addr, (void)len;
    shm_seam = NULL;
    looks++;
    probe = __builtin_bswap64(watched_key(looks % (watched_keys ? watched_keys : 1)));
    if (watched_keys > 0)
        must(holds(watched, (kist_bytes){ &probe, sizeof probe }));
    if (looks % 7 == 0) {
        for (rc = ordered_first(watched->ix, &at); rc == KIST_OK;
             rc = ordered_next(watched->ix, &at))
            n++;
        must_rc(rc, KIST_END);
        must(n == watched_keys || n == watched_keys + 1); /* with the one under way */
        must_ok(ordered_check(watched->ix, &watched->o, &f));
    }
    shm_seam = look_between;
}

TEST(a_reader_between_any_two_stores_finds_every_key_that_was_there)
{
    enum { KEYS = 1200 };
    struct world w = world_private((size_t)64 << 20);
    uint64_t n = test_scaled(KEYS);

    watched = &w;
    watched_keys = looks = 0;
    shm_seam = look_between;
    for (uint64_t i = 0; i < n; i++) {
        put(&w, ordered_number(watched_key(i)));
        watched_keys++;
    }
    for (uint64_t i = 0; i < n; i++) {
        watched_keys--;
        must_ok(take_out_of(&w, w.ix, ordered_number(watched_key(watched_keys))));
    }
    shm_seam = NULL;
    must(looks > 5 * n);
    must(checked(&w).entries == 0);
    world_end(&w);
}

/* ---- killed ----------------------------------------------------------- */

static uint64_t stores, die_at;

static void count_and_die(const void *addr, size_t len)
{
    (void)addr, (void)len;
    if (++stores == die_at)
        (void)raise(SIGKILL);
}

enum { BEFORE = 700, SOME = 150, REMOVED = 150, FIRST_REMOVED = 200 };

struct killing {
    struct world *w;
    uint64_t *done; /* operations that were ended; shared */
    bool removes;
};

/* Keys in the middle of what is there, so that full leaves and parents split. */
static uint64_t some_key(uint64_t i)
{
    return 5 * (FIRST_REMOVED + i * 37 % 75) + 1 + i / 75;
}

/* Neighbours, so that leaves are joined and go, and parents with them. */
static uint64_t removed_key(uint64_t i)
{
    return 5 * (FIRST_REMOVED + i);
}

static void change_some_and_die(void *arg)
{
    const struct killing *k = arg;
    struct world w = *k->w;

    w.ix = open_again(k->w, true);
    stores = 0;
    shm_seam = count_and_die;
    for (uint64_t i = 0; i < (k->removes ? REMOVED : SOME); i++) {
        if (k->removes)
            must_ok(take_out_of(&w, w.ix, ordered_number(removed_key(i))));
        else
            put(&w, ordered_number(some_key(i)));
        ++*k->done;
    }
    shm_seam = NULL;
    ordered_close(w.ix);
}

/* Killed at that store, in a world of its own; the next writer goes on. */
static bool killed_and_followed(uint64_t at, bool removes)
{
    struct world w = world_in_a_file((size_t)8 << 20);
    uint64_t *done = shared_memory(sizeof *done);
    struct killing k = { &w, done, removes };
    int status;

    test_case = at;
    for (uint64_t i = 0; i < BEFORE; i++)
        put(&w, ordered_number(5 * (i * 331 % BEFORE)));
    die_at = at;
    status = child_wait(child_start(change_some_and_die, &k));
    must(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
    (void)checked(&w);
    for (uint64_t i = 0; i < BEFORE; i++) {
        uint64_t r = i - FIRST_REMOVED;
        bool there = holds(&w, ordered_number(5 * i));

        if (!removes || i < FIRST_REMOVED || r >= REMOVED)
            must(there);
        else
            must(r == *done || there == (r > *done));
    }
    for (uint64_t i = 0; !removes && i < SOME; i++)
        must(i == *done || holds(&w, ordered_number(some_key(i))) == (i < *done));
    /* it goes on, with its own idea of free nodes */
    for (uint64_t i = 0; i < BEFORE; i++) {
        put(&w, ordered_number(5 * i));
        put(&w, ordered_number(1000000 + i));
    }
    for (uint64_t i = 0; i < SOME; i++)
        put(&w, ordered_number(some_key(i)));
    must(checked(&w).entries == 2 * BEFORE + SOME);
    must(munmap(done, sizeof *done) == 0);
    world_end(&w);
    return WIFSIGNALED(status);
}

static void kill_at_each(bool removes)
{
    uint64_t step = test_scaled(1) > 1 ? 1 : 3, at = 1 + test_seed() % step;

    while (killed_and_followed(at, removes))
        at += step;
    must(at > 250);
    test_case = 0;
}

TEST(a_writer_killed_at_any_store_of_an_insert_is_followed_by_the_next)
{
    kill_at_each(false);
}

TEST(a_writer_killed_at_any_store_of_a_removal_is_followed_by_the_next)
{
    kill_at_each(true);
}

/* ---- two writers, and readers that are overtaken ---------------------- */

/* Each has its own map and its own idea of free nodes. */
TEST(two_writers_that_take_turns_do_not_give_out_a_node_twice)
{
    enum { TURNS = 6000, MOST = 3000 };
    struct world w = world_in_a_file((size_t)64 << 20);
    struct ordered_index *ix[2] = { w.ix, open_again(&w, true) }, *reader = open_again(&w, false);
    struct rng rng = { test_seed() };
    struct oracle o = { calloc(MOST, sizeof *o.loc), 0, MOST };
    struct ordered_spot at;

    for (test_case = 0; test_case < test_scaled(TURNS); test_case++) {
        struct ordered_index *mine = ix[rng_below(&rng, 2)];
        bool fills = test_case / 1500 % 2 == 0 ? rng_below(&rng, 10) < 9 : rng_below(&rng, 10) < 2;

        if (fills && o.n < MOST) {
            kist_bytes k = ordered_number(rng_below(&rng, 100000));

            must_ok(try_put_in(&w, mine, k));
            must_ok(find(&w, mine, k, ORDERED_AT, &at));
            oracle_put(&w, &o, k, ordered_loc(mine, &at));
            must_ok(find(&w, reader, k, ORDERED_AT, &at));
        } else if (o.n > 0) {
            kist_bytes k = key_at(&w, o.loc[rng_below(&rng, o.n)]);

            must_ok(take_out_of(&w, mine, k));
            oracle_take_out(&w, &o, k);
            must_rc(find(&w, reader, k, ORDERED_AT, &at), KIST_MISS);
        }
        if (test_case % 499 == 0) {
            must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
            must_be_the_same(&w, &o);
        }
    }
    test_case = 0;
    ordered_close(ix[1]);
    ordered_close(reader);
    free(o.loc);
    world_end(&w);
}

/* Between the two parts of a search another writer fills and empties the leaf, and
 * changes what leads to it. */
TEST(a_search_that_began_before_others_wrote_ends_where_the_key_is)
{
    enum { ROUNDS = 3000, NEAR = 40, WRITES = 60 };
    struct world w = world_in_a_file((size_t)64 << 20);
    struct ordered_index *other = open_again(&w, true);
    struct rng rng = { test_seed() };
    uint64_t stayed = 0, same = 0;

    for (test_case = 0; test_case < test_scaled(ROUNDS); test_case++) {
        uint64_t about = rng_below(&rng, 100000), reuse, n = rng_below(&rng, WRITES);
        uint64_t number = __builtin_bswap64(about);
        kist_bytes k = { &number, sizeof number };
        struct ordered_spot begun, whole;
        int rc;

        must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
        reuse = w.heap->reuse;
        ordered_approach(w.ix, k, &begun);
        for (uint64_t i = 0; i < n; i++) {
            kist_bytes near = ordered_number(about + rng_below(&rng, NEAR));

            if (test_case % 3 == 2)
                (void)take_out_of(&w, other, near);
            else
                must_ok(try_put_in(&w, other, near));
        }
        if (w.heap->reuse != reuse)
            continue;
        stayed++;
        must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
        rc = find(&w, w.ix, k, ORDERED_AT, &whole);
        same += begun.leaf == whole.leaf;
        if (!ordered_arrive(w.ix, k, &begun))
            must_rc(ordered_find(w.ix, &w.o, k, ORDERED_AT, &begun), rc);
        else
            must_rc(ordered_decide(w.ix, &w.o, k, &begun), rc);
        must(begun.leaf == whole.leaf && begun.order == whole.order && begun.rank == whole.rank);
        if (rc == KIST_MISS) {
            must_ok(ordered_room(w.ix, &w.o, k, &begun));
            ordered_insert(w.ix, k, &begun, heap_add(w.heap, k.data, k.len));
        }
    }
    must(stayed > test_case / 2 && same > 0 && same < stayed);
    test_case = 0;
    must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
    (void)checked(&w);
    ordered_close(other);
    world_end(&w);
}

/* Separators of more than two hundred bytes: inner nodes have pages of their own. */
static kist_bytes long_number(uint64_t n)
{
    static uint8_t key[220];

    memset(key, 'p', sizeof key);
    key[0] = (uint8_t)(n % 50);
    memcpy(key + sizeof key - 8, ordered_number(n).data, 8);
    return (kist_bytes){ key, sizeof key };
}

TEST(a_writer_uses_large_nodes_again_that_lie_where_another_has_let_the_file_grow)
{
    static const uint64_t each[] = { 3, 20, 150 };
    enum { KEYS = 6000 };

    for (size_t k = 0; k < sizeof each / sizeof each[0]; k++) {
        struct world w = world_in_a_file((size_t)64 << 20);
        struct ordered_index *ix[2] = { w.ix, open_again(&w, true) };

        for (uint64_t i = 0; i < KEYS; i++)
            must_ok(try_put_in(&w, ix[i / each[k] % 2], long_number(i)));
        must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
        must(checked(&w).entries == KEYS);
        ordered_close(ix[1]);
        world_end(&w);
    }
}

/* A look around goes through all there is, and empties the lists of the other. */
TEST(two_writers_that_take_turns_do_not_look_around_for_what_the_other_has)
{
    enum { KEYS = 60000, EACH = 4, LOOKS = 100 };
    struct world w = world_in_a_file((size_t)64 << 20);
    struct ordered_index *ix[2] = { w.ix, open_again(&w, true) };
    struct ordered_facts f;

    for (uint64_t i = 0; i < KEYS; i++)
        must_ok(try_put_in(&w, ix[i / EACH % 2], ordered_number(i * 7919 % 1000003)));
    must(shm_peek(&ordered_head(w.ix)->walks) < LOOKS);
    must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
    f = checked(&w);
    must(f.entries == KEYS && shm_peek(&ordered_head(w.ix)->fresh) * INDEX_PAGE < 3 * f.bytes);
    ordered_close(ix[1]);
    world_end(&w);
}

/* It stands before an empty range; then all the others go, and with them what led there. */
TEST(a_search_that_began_before_the_way_to_an_empty_range_went_does_not_go_on_from_there)
{
    enum { KEYS = 40, EMPTY_FROM = 14, EMPTY_TO = 28 };
    struct world w = world_in_a_file((size_t)4 << 20);
    kist_bytes k = ordered_number(EMPTY_FROM + 3);
    struct ordered_spot begun;

    for (uint64_t i = 0; i < KEYS; i++)
        put(&w, ordered_number(i));
    for (uint64_t i = EMPTY_FROM; i < EMPTY_TO; i++)
        must_ok(take_out_of(&w, w.ix, ordered_number(i)));
    ordered_approach(w.ix, k, &begun);
    must(begun.leaf == 0 && begun.depth == 1);
    must(ordered_arrive(w.ix, k, &begun));
    for (uint64_t i = 0; i < KEYS; i++)
        must(take_out_of(&w, w.ix, ordered_number(i)) ==
             (i < EMPTY_FROM || i >= EMPTY_TO ? KIST_OK : KIST_MISS));
    must(w.heap->reuse == 0 && shm_peek(&ordered_head(w.ix)->root) == 0);

    must(!ordered_arrive(w.ix, k, &begun));
    world_end(&w);
}

static struct world *overtaken;
static uint64_t overtaken_from, overtaken_by;

/* Called in the middle of a reader's search: what it stands in is replaced, and
 * used for other keys, as often as need be. */
static const struct record *record_while_others_write(void *arg, uint64_t loc)
{
    for (uint64_t i = 0; i < overtaken_by; i++)
        put(overtaken, ordered_number(overtaken_from++ * 7919 % 1000003));
    return heap_record(arg, loc);
}

TEST(an_answer_counts_if_the_reuse_counter_did_not_move_and_others_do_not)
{
    enum { KEYS = 300, ROUNDS = 600 };
    struct world w = world_private((size_t)64 << 20);
    struct rng rng = { test_seed() };
    uint64_t moved = 0, stayed = 0, wrong = 0;

    overtaken = &w;
    overtaken_from = 1;
    for (uint64_t i = 0; i < KEYS; i++)
        put(&w, ordered_number(i << 32));
    for (test_case = 0; test_case < test_scaled(ROUNDS); test_case++) {
        uint64_t number = __builtin_bswap64(rng_below(&rng, KEYS) << 32);
        kist_bytes k = { &number, sizeof number };
        struct index_owner o = { .record = record_while_others_write, .arg = w.heap };
        uint64_t reuse = w.heap->reuse;
        struct ordered_spot at;
        bool right;
        int rc;

        overtaken_by = rng_below(&rng, 60);
        rc = ordered_find(w.ix, &o, k, ORDERED_AT, &at);
        overtaken_by = 0;
        right = rc == KIST_OK && order_of(key_at(&w, ordered_loc(w.ix, &at)), k) == 0;
        /* a cursor's next step, in what may be an old node */
        for (int i = 0; right && i < 40; i++) {
            kist_bytes last = key_at(&w, ordered_loc(w.ix, &at));

            for (int p = 0; p < 5; p++)
                put(&w, ordered_number(overtaken_from++ * 7919 % 1000003));
            rc = ordered_next(w.ix, &at);
            right = rc == KIST_END ||
                    (rc == KIST_OK && order_of(last, key_at(&w, ordered_loc(w.ix, &at))) < 0);
            if (rc == KIST_END)
                break;
        }
        if (w.heap->reuse == reuse) {
            must(right);
            stayed++;
        } else {
            moved++;
            wrong += !right;
        }
    }
    test_case = 0;
    must(moved > 0 && stayed > 0);
    printf(
        "overtaken: the counter moved %llu times, %llu answers were wrong then; it stayed %llu\n",
        (unsigned long long)moved, (unsigned long long)wrong, (unsigned long long)stayed);
    world_end(&w);
}

/* Neither what was taken out nor what came since changes what a reader holds. */
TEST(an_entry_that_was_taken_out_stays_for_readers_that_are_under_way)
{
    struct world w = world_private((size_t)4 << 20);
    struct ordered_spot at[8];
    uint64_t loc[8], reuse;

    for (uint64_t i = 0; i < 8; i++)
        put(&w, ordered_number(10 * i));
    for (uint64_t i = 0; i < 8; i++) {
        must_ok(ordered_find(w.ix, &w.o, ordered_number(10 * i), ORDERED_AT, &at[i]));
        loc[i] = ordered_loc(w.ix, &at[i]);
    }
    reuse = w.heap->reuse;
    for (uint64_t i = 0; i < 8; i += 2)
        must_ok(take_out_of(&w, w.ix, ordered_number(10 * i)));
    for (uint64_t i = 0; i < 40; i++)
        put(&w, ordered_number(1000 + i));
    must(w.heap->reuse == reuse);
    for (uint64_t i = 0; i < 8; i++)
        must(ordered_loc(w.ix, &at[i]) == loc[i]);
    must(checked(&w).entries == 44);
    world_end(&w);
}

/* ---- no room ---------------------------------------------------------- */

static int refuse(int fd, uint64_t off, uint64_t len)
{
    (void)fd, (void)off, (void)len;
    return -ENOSPC;
}

TEST(a_full_disk_is_an_error_that_changes_nothing)
{
    struct world w = world_in_a_file((size_t)64 << 20);
    uint64_t n = 0, more;
    int rc = KIST_OK;

    for (; n < 3000; n++)
        put(&w, ordered_number(n * 7919 % 100003));
    os_seam.allocate = refuse;
    for (more = n; rc == KIST_OK; more++)
        rc = try_put_in(&w, w.ix, ordered_number(more * 7919 % 100003));
    must_rc(rc, -ENOSPC);
    must(checked(&w).entries == --more);
    for (uint64_t i = 0; i < more; i++)
        must(holds(&w, ordered_number(i * 7919 % 100003)));
    for (uint64_t i = 0; i < more; i += 2) /* removing needs no room, and makes some */
        must_ok(take_out_of(&w, w.ix, ordered_number(i * 7919 % 100003)));
    for (uint64_t i = 0; i < more / 2; i++)
        put(&w, ordered_number((more + i) * 7919 % 100003));
    os_seam.allocate = os_real_allocate;
    (void)checked(&w);
    world_end(&w);
}

/* ---- forged ----------------------------------------------------------- */

/* Every call, whatever it says; none may crash, or go on for ever. */
static void use_all_calls(struct world *w, struct rng *rng)
{
    struct ordered_facts f;
    struct ordered_spot at;
    uint64_t ahead[ORDERED_WAYS], steps = 0;

    (void)ordered_check(w->ix, &w->o, &f);
    (void)ordered_check(w->ix, NULL, &f);
    for (int rc = ordered_first(w->ix, &at); rc == KIST_OK; rc = ordered_next_leaf(w->ix, &at))
        (void)ordered_ahead(w->ix, &at, ahead);
    for (int rc = ordered_last(w->ix, &at); rc == KIST_OK && ++steps < 3000;
         rc = ordered_prev(w->ix, &at))
        (void)ordered_loc(w->ix, &at);
    for (unsigned i = 0; i < 30; i++) {
        kist_bytes k = ordered_number(rng_below(rng, 8000));

        for (enum ordered_where where = ORDERED_AT; where <= ORDERED_LT; where++)
            if (ordered_find(w->ix, &w->o, k, where, &at) == KIST_OK)
                for (int s = 0; s < 20 && ordered_next(w->ix, &at) == KIST_OK; s++)
                    (void)ordered_loc(w->ix, &at);
    }
    for (unsigned i = 0; i < 60; i++) {
        (void)try_put_in(w, w->ix, ordered_number(rng_below(rng, 1000000)));
        (void)take_out_of(w, w->ix, ordered_number(rng_below(rng, 8000)));
    }
}

TEST(a_forged_file_makes_no_crash_and_no_endless_loop)
{
    enum { CASES = 1500, KEYS = 4000 };
    struct rng rng = { test_seed() };
    struct world w = world_private((size_t)64 << 20);
    uint64_t len, used, cases = test_scaled(CASES);
    uint8_t *good;

    for (uint64_t i = 0; i < KEYS; i++)
        put(&w, ordered_number(i * 2377 % 8000));
    len = index_len(&w.ix->file);
    used = w.heap->used;
    good = malloc(len);
    memcpy(good, w.ix->base, len);
    for (test_case = 1; test_case <= cases; test_case++) {
        shm_word *words = (shm_word *)w.ix->base;
        uint64_t flips = 1 + rng_below(&rng, 30), grown = index_len(&w.ix->file);

        memset(w.ix->base, 0, grown);
        memcpy(w.ix->base, good, len);
        w.heap->used = used;
        ordered_space_drop(w.ix->space);
        w.ix->space = NULL;
        for (; flips > 0; flips--) {
            uint64_t at = 8 + rng_below(&rng, len / 8 - 8);

            switch (rng_below(&rng, 4)) {
            case 0: /* a bit */
                words[at] ^= UINT64_C(1) << rng_below(&rng, 64);
                break;
            case 1: /* anything */
                words[at] = rng_next(&rng);
                break;
            case 2: /* another node's word, or what may pass for one */
                words[at] = words[rng_below(&rng, len / 8)];
                break;
            default:
                words[at] =
                    node_make(rng_below(&rng, len / 256) * 256, UINT64_C(256) << rng_below(&rng, 5),
                              (unsigned)rng_below(&rng, 4));
            }
        }
        if (rng_below(&rng, 10) == 0)
            words[8] = node_make(rng_below(&rng, len / 256) * 256, 2048, 31);
        use_all_calls(&w, &rng);
    }
    test_case = 0;
    free(good);
    world_end(&w);
}

/* An inner node that is a leaf too, for another path: who fills it changes what the node says. */
TEST(a_node_that_says_something_else_when_a_search_goes_on_is_looked_at_no_further_than_it_goes)
{
    struct world w = world_in_a_file((size_t)4 << 20);
    kist_bytes k = ordered_number(3);
    struct ordered_spot at;

    for (uint64_t i = 0; i < 40; i++)
        put(&w, ordered_number(i));
    ordered_approach(w.ix, k, &at);
    must(at.depth == 1);
    shm_store((shm_word *)(w.ix->base + node_offset(at.path[0].node)),
              inner_word(1, UINT16_MAX, KEY_MOST));
    must(!ordered_arrive(w.ix, k, &at));
    must_rc(find(&w, w.ix, k, ORDERED_AT, &at), KIST_ECORRUPT);
    world_end(&w);
}

/* All children of each level are the same node: more paths than anybody can go. */
TEST(a_tree_that_leads_to_one_node_from_many_places_ends_a_walk)
{
    struct world w = world_private((size_t)4 << 20);
    uint64_t below = 0, steps = 0;
    struct ordered_facts f;
    struct ordered_spot at;
    int rc;

    must_ok(index_grow(&w.ix->file, 64));
    for (unsigned level = 1; level < 12; level++) {
        uint64_t word = node_make((uint64_t)level * 4096, 4096, level);
        shm_word *p = (shm_word *)(w.ix->base + level * 4096);

        p[0] = inner_word(level, 60, 0);
        for (unsigned i = 0; i < 61; i++)
            p[2 + 60 + i] = below;
        below = word;
    }
    shm_store(&ordered_head(w.ix)->root, below);
    must_rc(ordered_check(w.ix, NULL, &f), KIST_ECORRUPT);
    for (rc = ordered_first(w.ix, &at); rc == KIST_OK; rc = ordered_next_leaf(w.ix, &at))
        must(++steps < 10000);
    must_rc(rc, KIST_ECORRUPT);
    must_rc(ordered_find(w.ix, &w.o, ordered_number(5), ORDERED_LT, &at), KIST_ECORRUPT);
    world_end(&w);
}

TEST(a_node_that_leads_to_itself_is_damage)
{
    struct world w = world_private((size_t)4 << 20);
    uint64_t word = node_make(4096, 4096, 1);
    struct ordered_facts f;
    struct ordered_spot at;
    shm_word *p;

    must_ok(index_grow(&w.ix->file, 4));
    p = (shm_word *)(w.ix->base + 4096);
    p[0] = inner_word(1, 1, 0);
    p[3] = p[4] = word;
    shm_store(&ordered_head(w.ix)->root, word);
    must_rc(ordered_check(w.ix, NULL, &f), KIST_ECORRUPT);
    must_rc(ordered_find(w.ix, &w.o, text("key"), ORDERED_AT, &at), KIST_ECORRUPT);
    must_rc(ordered_first(w.ix, &at), KIST_ECORRUPT);
    must_rc(ordered_last(w.ix, &at), KIST_ECORRUPT);
    world_end(&w);
}

/* ---- files ------------------------------------------------------------ */

TEST(a_file_is_opened_by_its_own_bank_generation_and_kind_alone)
{
    static const uint8_t other[16] = { 9 };
    struct world w = world_in_a_file((size_t)4 << 20);
    struct ordered_index *ix = NULL;
    int fd;

    put(&w, text("key"));
    must_ok(index_file_sync(&w.ix->file));
    ordered_close(w.ix);
    w.ix = open_again(&w, false);
    must(holds(&w, text("key")));
    fd = os_open_under(w.dir_fd, "kist.index.1", OS_READ, 0);
    must_rc(ordered_open(&ix, fd, other, 1, false), KIST_EFORMAT);
    fd = os_open_under(w.dir_fd, "kist.index.1", OS_READ, 0);
    must_rc(ordered_open(&ix, fd, bank_id, 2, false), KIST_EFORMAT);
    fd = os_open_under(w.dir_fd, "kist.index.1", OS_READ | OS_WRITE, 0);
    must_ok(os_write_all(fd, "X", 1, 20));
    must_rc(ordered_open(&ix, fd, bank_id, 1, false), KIST_ECORRUPT);
    world_end(&w);
}

TEST(a_record_that_can_not_be_read_is_said_so_and_hides_no_other)
{
    struct world w = world_private((size_t)16 << 20);
    struct ordered_spot at;
    char key[64];

    /* heads are equal: each comparison needs the record */
    for (unsigned i = 0; i < 15; i++)
        put(&w,
            (kist_bytes){ key, (size_t)snprintf(key, sizeof key, "the same beginning %02u", i) });
    must_ok(ordered_find(w.ix, &w.o, text("the same beginning 07"), ORDERED_AT, &at));
    ordered_update(ordered_slot(w.ix, &at), LOC_MASK);
    must_rc(ordered_find(w.ix, &w.o, text("the same beginning 07"), ORDERED_AT, &at), ORDERED_LOST);
    must(at.lost == LOC_MASK);
    must(holds(&w, text("a key elsewhere")) == false);
    for (unsigned i = 0; i < 15; i++) /* those beside it are what they were */
        must(i == 7 || holds(&w, (kist_bytes){ key, (size_t)snprintf(key, sizeof key,
                                                                     "the same beginning %02u",
                                                                     i) }));
    must_rc(ordered_find(w.ix, &w.o, text("the same beginning 071"), ORDERED_AT, &at),
            ORDERED_LOST); /* it may be the one */
    must_rc(ordered_first(w.ix, &at), KIST_OK);
    for (unsigned i = 1; i < 15; i++) /* a walk needs no record */
        must_ok(ordered_next(w.ix, &at));
    must_rc(ordered_next(w.ix, &at), KIST_END);
    world_end(&w);
}
