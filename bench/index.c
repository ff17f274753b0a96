/*
 * index - the two kinds of index alone, without a bank: what a get, a put or a
 * scan costs by the ordered index, by the hash index, and by a hash index beside
 * the tree. Records of 16-byte keys and 100-byte values are in memory; the key is
 * compared, the first byte of the value read. In nanoseconds an operation.
 *
 * usage: kist-bench-index FOLDER [RECORDS]
 *
 * Beside the tree, overwrites go to the hash index alone: a scan meets a record of
 * the key in the tree, and has to ask the hash index for the newest.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "index/hash.h"
#include "index/ordered.h"

enum { KEY = 16, VALUE = 100, RECORD = 160, ROUNDS = 3, SCAN = 100 };

static uint8_t *heap;
static uint64_t used, n;
static const struct record_bank bank = { .seed = 7 };
static const uint8_t bank_id[16] = { 1 };
static struct ordered_index *tree;
static struct hash_index *table;
static volatile uint64_t sink;

static const struct record *record_at(void *arg, uint64_t loc)
{
    (void)arg;
    return (const struct record *)(heap + loc * RECORD_ALIGN);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void no_intent(void *arg, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    (void)arg, (void)a, (void)b, (void)c, (void)d;
}

static const struct index_owner ordered_owner = { .record = record_at, .reuse = nothing };
static const struct index_owner hash_owner = { .bank = &bank, .record = record_at, .reuse = nothing, .intent = no_intent, .intent_done = nothing };

static uint64_t now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "kist-bench-index: %s\n", what);
        exit(1);
    }
}

static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
    x = (x ^ x >> 27) * UINT64_C(0x81dadef4bc2dd44d);
    return x ^ x >> 33;
}

static kist_bytes key_make(uint64_t i, uint64_t out[2])
{
    out[0] = mixed(i + 1);
    out[1] = i;
    return (kist_bytes){ out, KEY };
}

/* An operation's number in random order. */
static uint64_t shuffled(uint64_t i)
{
    return mixed(i * 3 + 5) % n;
}

static uint64_t append(kist_bytes key)
{
    static const uint8_t value[VALUE];
    struct record *r = (struct record *)(heap + used);
    uint64_t loc = used / RECORD_ALIGN;

    *r = (struct record){ .key_len = KEY, .value_len = VALUE, .kind = RECORD_PUT };
    memcpy(r->body, key.data, KEY);
    memcpy(r->body + KEY, value, VALUE);
    used += RECORD;
    return loc;
}

/* ---- the hash index --------------------------------------------------- */

static shm_word *table_find(kist_bytes key, uint64_t hash)
{
    struct hash_block b;

    must(hash_block_of(table, hash, &b), "a block is outside");
    for (uint32_t i = 0; i <= b.mask; i++) {
        struct hash_bucket *k = hash_bucket_at(&b, i);

        for (unsigned m = hash_bucket_match(k, hash); m; m &= m - 1) {
            shm_word *slot = &k->slot[hash_way(m)];
            uint64_t loc = slot_loc(shm_read(slot));

            if (loc && record_key_is(record_at(NULL, loc), key))
                return slot;
        }
        if (!hash_bucket_overflows(k))
            break;
    }
    return NULL;
}

static void table_put(kist_bytes key, uint64_t loc)
{
    uint64_t hash = record_hash_key(&bank, key.data, key.len);
    shm_word *slot = table_find(key, hash);
    struct hash_room room;

    if (slot) {
        hash_update(slot, hash, loc);
        return;
    }
    must(hash_room(table, &hash_owner, hash, &room) == 0, "no room in the hash index");
    hash_insert(&room, hash, loc);
}

static uint64_t table_get(kist_bytes key)
{
    shm_word *slot = table_find(key, record_hash_key(&bank, key.data, key.len));

    must(slot != NULL, "a key is missing");
    return slot_loc(shm_read(slot));
}

/* ---- the tree --------------------------------------------------------- */

static void tree_put(kist_bytes key, uint64_t loc)
{
    struct ordered_spot at;
    int rc = ordered_find(tree, &ordered_owner, key, ORDERED_AT, &at);

    if (rc == KIST_OK) {
        ordered_update(ordered_slot(tree, &at), loc);
        return;
    }
    must(rc == KIST_MISS && ordered_room(tree, &ordered_owner, key, &at) == 0, "no room");
    ordered_insert(tree, key, &at, loc);
}

static uint64_t tree_get(kist_bytes key)
{
    struct ordered_spot at;

    must(ordered_find(tree, &ordered_owner, key, ORDERED_AT, &at) == KIST_OK, "a key is missing");
    return ordered_loc(tree, &at);
}

static uint64_t value_byte(uint64_t loc)
{
    return record_value(record_at(NULL, loc))[0];
}

/* The records of a leaf's rest; `newest`: as the hash index has them. */
static unsigned leaf_locs(const struct ordered_spot *at, uint64_t *loc, bool newest)
{
    unsigned k = ordered_ahead(tree, at, loc);
    uint64_t hash[ORDERED_WAYS];
    struct hash_block b;

    for (unsigned i = 0; i < k; i++)
        __builtin_prefetch(record_at(NULL, loc[i]));
    if (!newest)
        return k;
    for (unsigned i = 0; i < k; i++) {
        const struct record *r = record_at(NULL, loc[i]);

        hash[i] = record_hash_key(&bank, record_key(r), r->key_len);
        if (hash_block_of(table, hash[i], &b))
            __builtin_prefetch(b.home);
    }
    for (unsigned i = 0; i < k; i++) { /* the likely slot; its record proves it */
        const struct record *r = record_at(NULL, loc[i]);
        unsigned m;

        if (!hash_block_of(table, hash[i], &b) || !(m = hash_bucket_match(b.home, hash[i])))
            loc[i] = table_get((kist_bytes){ record_key(r), r->key_len });
        else
            loc[i] = slot_loc(shm_read(&b.home->slot[hash_way(m)]));
        __builtin_prefetch(record_at(NULL, loc[i]));
    }
    return k;
}

/* From a key on; returns how many entries. A leaf ahead is fetched while one is read. */
static uint64_t scan(kist_bytes from, uint64_t most, bool newest)
{
    uint64_t loc[2][ORDERED_WAYS], met = 0, sum = 0;
    struct ordered_spot at;
    unsigned have, next = 0, side = 0;
    int rc = ordered_find(tree, &ordered_owner, from, ORDERED_GE, &at);

    have = rc == KIST_OK ? leaf_locs(&at, loc[0], newest) : 0;
    while (have > 0 && met < most) {
        next = 0;
        if (met + have < most && ordered_next_leaf(tree, &at) == KIST_OK)
            next = leaf_locs(&at, loc[!side], newest);
        for (unsigned i = 0; i < have && met < most; i++, met++) {
            const struct record *r = record_at(NULL, loc[side][i]);

            sum += load8(record_key(r)) + record_value(r)[0];
        }
        side = !side;
        have = next;
    }
    sink += sum;
    return met;
}

/* ---- the rows --------------------------------------------------------- */

enum row {
    TREE_NEW,
    HASH_NEW,
    BOTH_NEW,
    TREE_GET,
    HASH_GET,
    TREE_MISS,
    TREE_OVER,
    HASH_OVER,
    SCAN_ALL,
    SCAN_NEWEST,
    SCAN_100,
    SCAN_100_NEWEST,
    TREE_ASCENDING,
    ROWS,
};

static const char *const name[ROWS] = {
    "new key, tree",
    "new key, hash",
    "new key, both",
    "get, tree",
    "get, hash",
    "get of none, tree",
    "overwrite, tree",
    "overwrite, hash",
    "full scan, an entry",
    "full scan, newest by hash",
    "scan of 100",
    "scan of 100, newest by hash",
    "new key, tree, ascending",
};

static double best[ROWS];

static void took(enum row row, uint64_t since, uint64_t operations)
{
    double ns = (double)(now() - since) / (double)operations;

    if (best[row] == 0 || ns < best[row])
        best[row] = ns;
}

static void begin(int dir)
{
    ordered_close(tree);
    hash_close(table);
    used = RECORD;
    must(ordered_create(&tree, dir, 0600, bank_id, 1) == 0, "can't make the tree");
    must(hash_create(&table, dir, 0600, bank_id, 2, 0) == 0, "can't make the hash index");
}

static void put_new(void (*put)(kist_bytes key, uint64_t loc), uint64_t i)
{
    uint64_t key[2];
    kist_bytes k = key_make(i, key);

    put(k, append(k));
}

static void rows_of_new_keys(int dir)
{
    uint64_t key[2], t;

    begin(dir);
    t = now();
    for (uint64_t i = 0; i < n; i++) {
        kist_bytes k = { key, KEY };

        key[0] = __builtin_bswap64(i);
        key[1] = 0;
        tree_put(k, append(k));
    }
    took(TREE_ASCENDING, t, n);
    begin(dir);
    t = now();
    for (uint64_t i = 0; i < n; i++) {
        kist_bytes k = key_make(i, key);
        uint64_t loc = append(k);

        tree_put(k, loc);
        table_put(k, loc);
    }
    took(BOTH_NEW, t, n);
    begin(dir);
    t = now();
    for (uint64_t i = 0; i < n; i++)
        put_new(table_put, i);
    took(HASH_NEW, t, n);
    used = RECORD;
    t = now();
    for (uint64_t i = 0; i < n; i++)
        put_new(tree_put, i);
    took(TREE_NEW, t, n);
}

static void rows_of_reading(bool overwritten)
{
    uint64_t key[2], t = now(), sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += value_byte(tree_get(key_make(shuffled(i), key)));
    took(TREE_GET, t, n);
    t = now();
    for (uint64_t i = 0; i < n; i++)
        sum += value_byte(table_get(key_make(shuffled(i), key)));
    took(HASH_GET, t, n);
    t = now();
    for (uint64_t i = 0; i < n; i++) {
        struct ordered_spot at;

        sum += (uint64_t)ordered_find(tree, &ordered_owner, key_make(n + shuffled(i), key),
                                      ORDERED_AT, &at);
    }
    took(TREE_MISS, t, n);
    t = now();
    must(scan((kist_bytes){ "", 0 }, UINT64_MAX, overwritten) == n, "a scan missed entries");
    took(overwritten ? SCAN_NEWEST : SCAN_ALL, t, n);
    t = now();
    for (uint64_t i = 0; i < n / SCAN; i++)
        (void)scan(key_make(shuffled(i), key), SCAN, overwritten);
    took(overwritten ? SCAN_100_NEWEST : SCAN_100, t, n / SCAN);
    sink += sum;
}

static void row_of_overwrites(enum row row, void (*put)(kist_bytes key, uint64_t loc))
{
    uint64_t key[2], t = now();

    for (uint64_t i = 0; i < n; i++) {
        kist_bytes k = key_make(shuffled(i), key);

        put(k, append(k));
    }
    took(row, t, n);
}

int main(int argc, char **argv)
{
    int dir = argc > 1 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
    struct ordered_facts f;

    n = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    must(dir >= 0 && n > 0, "usage: kist-bench-index FOLDER [RECORDS]");
    heap = mmap(NULL, 4 * n * RECORD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(heap != MAP_FAILED, "no memory");
    (void)madvise(heap, 4 * n * RECORD, MADV_HUGEPAGE);
    memset(heap, 0, 4 * n * RECORD);
    for (int round = 0; round < ROUNDS; round++) {
        rows_of_new_keys(dir);
        rows_of_reading(false);
        row_of_overwrites(HASH_OVER, table_put);
        rows_of_reading(true);
        row_of_overwrites(TREE_OVER, tree_put);
    }
    must(ordered_check(tree, &ordered_owner, &f) == KIST_OK, "the tree is damaged");
    printf("%" PRIu64 " records; the best of %d\n", n, ROUNDS);
    for (int i = 0; i < ROWS; i++)
        printf("%-28s %9.1f ns\n", name[i], best[i]);
    printf("tree: depth %u, %.1f bytes a key in nodes, %.1f in the file; hash: %.1f in the file\n",
           f.depth, (double)f.bytes / (double)n, (double)tree->len / (double)n,
           (double)table->len / (double)n);
    (void)close(dir);
    return 0;
}
