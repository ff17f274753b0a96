/* The ordered index against a sorted array, on a full disk, and in files of its own. */
#include "tree.h"

#include <errno.h>
#include <stdio.h>

/* ---- keys of hostile shapes ------------------------------------------- */

static size_t make_key(struct rng *rng, const struct tree *w, const struct sorted *o, uint8_t *out)
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
        kist_bytes old = tree_key_at(w, o->loc[rng_below(rng, o->n)]);
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
    struct tree w = tree_private((size_t)512 << 20);
    struct sorted o = { calloc(MOST, sizeof *o.loc), 0, MOST };
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
            tree_put(&w, k);
            must_ok(ordered_find(w.ix, &w.o, k, ORDERED_AT, &at));
            sorted_put(&w, &o, k, ordered_loc(w.ix, &at));
        } else if (o.n > 0) {
            k = tree_key_at(&w, o.loc[rng_below(&rng, o.n)]);
            must_ok(tree_take_out_of(&w, w.ix, k));
            sorted_take_out(&w, &o, k);
        }
        must_find_the_same(&w, &o, k);
        if (test_case % 997 == 0 || test_case == n)
            must_be_as_sorted(&w, &o);
    }
    must(w.heap->reuse > 0);
    test_case = 0;
    free(key);
    free(o.loc);
    tree_end(&w);
}

/* Each way that a tree may come to be; and go: nothing is left of it. */
TEST(fills_and_empties_in_any_order)
{
    enum { KEYS = 4000 };

    for (unsigned how = 0; how < 6; how++) {
        struct tree w = tree_private((size_t)64 << 20);
        struct ordered_facts f;

        test_case = how;
        for (uint64_t i = 0; i < KEYS; i++)
            tree_put(&w, ordered_number(how % 3 == 0   ? i
                                   : how % 3 == 1 ? KEYS - 1 - i
                                                  : i * 2377 % KEYS));
        f = tree_checked(&w);
        must(f.entries == KEYS && f.depth <= 4);
        if (how % 3 == 0) /* in order: leaves are full */
            must(f.leaves <= KEYS / (ORDERED_WAYS - 1) + 1);
        for (uint64_t i = 0; i < KEYS; i++) {
            must_ok(tree_take_out_of(&w, w.ix, ordered_number(how < 3 ? i : i * 2377 % KEYS)));
            if (i % 512 == 0)
                must(tree_checked(&w).entries == KEYS - 1 - i);
        }
        f = tree_checked(&w);
        must(f.depth == 0 && f.bytes == 0);
        tree_end(&w);
    }
    test_case = 0;
}

/* Leaves beside it skip bytes that keys of the empty range do not agree in. */
TEST(a_range_that_was_emptied_takes_keys_again)
{
    enum { SIDE = 1000, GONE = 50, LEFT = 100 };
    const uint64_t middle = UINT64_C(1) << 48;
    struct tree w = tree_private((size_t)4 << 20);

    for (uint64_t i = middle - SIDE; i < middle + SIDE; i++)
        tree_put(&w, ordered_number(4 * i));
    for (uint64_t i = middle - GONE; i < middle + GONE; i++)
        must_ok(tree_take_out_of(&w, w.ix, ordered_number(4 * i)));
    for (uint64_t i = middle - SIDE; i < middle - LEFT; i++) /* parents are made anew */
        tree_put(&w, ordered_number(4 * i + 1));
    must(tree_checked(&w).entries == 2 * SIDE - 2 * GONE + SIDE - LEFT);
    for (uint64_t i = middle - GONE; i < middle + GONE; i++)
        tree_put(&w, ordered_number(4 * i));
    must(tree_checked(&w).entries == 2 * SIDE + SIDE - LEFT);
    for (uint64_t i = middle - SIDE; i < middle + SIDE; i++)
        must(tree_holds(&w, ordered_number(4 * i)));
    tree_end(&w);
}

/* A queue goes through many times as many keys as it ever has at once. */
TEST(nodes_that_go_are_used_again)
{
    enum { AT_ONCE = 2000, TIMES = 40 };
    struct tree w = tree_private((size_t)256 << 20);

    for (uint64_t i = 0; i < AT_ONCE * TIMES; i++) {
        tree_put(&w, ordered_number(i));
        if (i >= AT_ONCE)
            must_ok(tree_take_out_of(&w, w.ix, ordered_number(i - AT_ONCE)));
    }
    must(tree_checked(&w).entries == AT_ONCE);
    must(tree_checked(&w).depth <= 4);
    must(index_len(&w.ix->file) < AT_ONCE * 80);
    tree_end(&w);
}

TEST(a_million_keys_are_in_order)
{
    uint64_t n = test_scaled(1000000), met = 0, key[2] = { 0, 0 };
    struct tree w = tree_private(n * 64 + ((size_t)1 << 20));
    struct ordered_facts f;
    struct ordered_spot at;

    for (uint64_t i = 0; i < n; i++) {
        key[0] = mix(test_seed(), i);
        tree_put(&w, (kist_bytes){ key, sizeof key });
    }
    f = tree_checked(&w);
    must(f.entries == n && f.depth <= 6);
    must(n < 100000 || f.bytes < n * 32);
    for (int rc = ordered_first(w.ix, &at); rc == KIST_OK; rc = ordered_next(w.ix, &at))
        met++;
    must(met == n);
    for (uint64_t i = 0; i < n; i += 17) {
        key[0] = mix(test_seed(), i);
        must(tree_holds(&w, (kist_bytes){ key, sizeof key }));
    }
    tree_end(&w);
}

/* A search has to look behind the bytes that all keys have, and a node must not keep
 * them for each of its keys. */
TEST(keys_with_a_long_common_prefix_are_in_order)
{
    enum { PREFIX = 200 };
    uint64_t n = test_scaled(200000), met = 0;
    struct tree w = tree_private(n * (PREFIX + 64) + ((size_t)1 << 20));
    kist_bytes before = { 0 }, key;
    struct ordered_facts f;
    struct ordered_spot at;
    uint8_t bytes[PREFIX + 8];
    int rc;

    memset(bytes, 'p', PREFIX);
    key = (kist_bytes){ bytes, sizeof bytes };
    for (uint64_t i = 0; i < n; i++) {
        memcpy(bytes + PREFIX, &(uint64_t){ mix(test_seed(), i) }, 8);
        tree_put(&w, key);
    }
    f = tree_checked(&w);
    must(f.entries == n && f.depth <= 6);
    must(n < 100000 || f.bytes < n * 32);
    for (rc = ordered_first(w.ix, &at); rc == KIST_OK; rc = ordered_next(w.ix, &at)) {
        kist_bytes it = tree_key_at(&w, ordered_loc(w.ix, &at));

        must(met++ == 0 || tree_order_of(before, it) < 0);
        before = it;
    }
    must(rc == KIST_END && met == n);
    for (uint64_t i = 0; i < n; i += 17) {
        memcpy(bytes + PREFIX, &(uint64_t){ mix(test_seed(), i) }, 8);
        must(tree_holds(&w, key));
    }
    tree_end(&w);
}

/* ---- no room ---------------------------------------------------------- */

static int refuse(int fd, uint64_t off, uint64_t len)
{
    (void)fd, (void)off, (void)len;
    return -ENOSPC;
}

TEST(a_full_disk_is_an_error_that_changes_nothing)
{
    struct tree w = tree_in_a_file((size_t)64 << 20);
    uint64_t n = 0, more;
    int rc = KIST_OK;

    for (; n < 3000; n++)
        tree_put(&w, ordered_number(n * 7919 % 100003));
    os_seam.allocate = refuse;
    for (more = n; rc == KIST_OK; more++)
        rc = tree_try_put_in(&w, w.ix, ordered_number(more * 7919 % 100003));
    must_rc(rc, -ENOSPC);
    must(tree_checked(&w).entries == --more);
    for (uint64_t i = 0; i < more; i++)
        must(tree_holds(&w, ordered_number(i * 7919 % 100003)));
    for (uint64_t i = 0; i < more; i += 2) /* removing needs no room, and makes some */
        must_ok(tree_take_out_of(&w, w.ix, ordered_number(i * 7919 % 100003)));
    for (uint64_t i = 0; i < more / 2; i++)
        tree_put(&w, ordered_number((more + i) * 7919 % 100003));
    os_seam.allocate = os_real_allocate;
    (void)tree_checked(&w);
    tree_end(&w);
}

/* ---- files ------------------------------------------------------------ */

TEST(a_file_is_opened_by_its_own_bank_generation_and_kind_alone)
{
    static const uint8_t other[16] = { 9 };
    struct tree w = tree_in_a_file((size_t)4 << 20);
    struct ordered_index *ix = NULL;
    int fd;

    tree_put(&w, text("key"));
    must_ok(index_file_sync(&w.ix->file));
    ordered_close(w.ix);
    w.ix = tree_open_again(&w, false);
    must(tree_holds(&w, text("key")));
    fd = os_open_under(w.dir_fd, "kist.index.1", OS_READ, 0);
    must_rc(ordered_open(&ix, fd, other, 1, false), KIST_EFORMAT);
    fd = os_open_under(w.dir_fd, "kist.index.1", OS_READ, 0);
    must_rc(ordered_open(&ix, fd, tree_bank_id, 2, false), KIST_EFORMAT);
    fd = os_open_under(w.dir_fd, "kist.index.1", OS_READ | OS_WRITE, 0);
    must_ok(os_write_all(fd, "X", 1, 20));
    must_rc(ordered_open(&ix, fd, tree_bank_id, 1, false), KIST_ECORRUPT);
    tree_end(&w);
}

TEST(a_record_that_can_not_be_read_is_said_so_and_hides_no_other)
{
    struct tree w = tree_private((size_t)16 << 20);
    struct ordered_spot at;
    char key[64];

    /* heads are equal: each comparison needs the record */
    for (unsigned i = 0; i < 15; i++)
        tree_put(&w,
            (kist_bytes){ key, (size_t)snprintf(key, sizeof key, "the same beginning %02u", i) });
    must_ok(ordered_find(w.ix, &w.o, text("the same beginning 07"), ORDERED_AT, &at));
    ordered_update(ordered_slot(w.ix, &at), LOC_MASK);
    must_rc(ordered_find(w.ix, &w.o, text("the same beginning 07"), ORDERED_AT, &at), ORDERED_LOST);
    must(at.lost == LOC_MASK);
    must(tree_holds(&w, text("a key elsewhere")) == false);
    for (unsigned i = 0; i < 15; i++) /* those beside it are what they were */
        must(i == 7 || tree_holds(&w, (kist_bytes){ key, (size_t)snprintf(key, sizeof key,
                                                                     "the same beginning %02u",
                                                                     i) }));
    must_rc(ordered_find(w.ix, &w.o, text("the same beginning 071"), ORDERED_AT, &at),
            ORDERED_LOST); /* it may be the one */
    must_rc(ordered_first(w.ix, &at), KIST_OK);
    for (unsigned i = 1; i < 15; i++) /* a walk needs no record */
        must_ok(ordered_next(w.ix, &at));
    must_rc(ordered_next(w.ix, &at), KIST_END);
    tree_end(&w);
}
