/*
 * The ordered index between any two stores of its writer, after a kill at each of them, and
 * in the hands of two writers.
 */
#include "tree.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* ---- between two stores ----------------------------------------------- */

static struct tree *watched;
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
        must(tree_holds(watched, (kist_bytes){ &probe, sizeof probe }));
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
    struct tree w = tree_private((size_t)64 << 20);
    uint64_t n = test_scaled(KEYS);

    watched = &w;
    watched_keys = looks = 0;
    shm_seam = look_between;
    for (uint64_t i = 0; i < n; i++) {
        tree_put(&w, ordered_number(watched_key(i)));
        watched_keys++;
    }
    for (uint64_t i = 0; i < n; i++) {
        watched_keys--;
        must_ok(tree_take_out_of(&w, w.ix, ordered_number(watched_key(watched_keys))));
    }
    shm_seam = NULL;
    must(looks > 5 * n);
    must(tree_checked(&w).entries == 0);
    tree_end(&w);
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
    struct tree *w;
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
    struct tree w = *k->w;

    w.ix = tree_open_again(k->w, true);
    stores = 0;
    shm_seam = count_and_die;
    for (uint64_t i = 0; i < (k->removes ? REMOVED : SOME); i++) {
        if (k->removes)
            must_ok(tree_take_out_of(&w, w.ix, ordered_number(removed_key(i))));
        else
            tree_put(&w, ordered_number(some_key(i)));
        ++*k->done;
    }
    shm_seam = NULL;
    ordered_close(w.ix);
}

/* Killed at that store, in a world of its own; the next writer goes on. */
static bool killed_and_followed(uint64_t at, bool removes)
{
    struct tree w = tree_in_a_file((size_t)8 << 20);
    uint64_t *done = shared_memory(sizeof *done);
    struct killing k = { &w, done, removes };
    int status;

    test_case = at;
    for (uint64_t i = 0; i < BEFORE; i++)
        tree_put(&w, ordered_number(5 * (i * 331 % BEFORE)));
    die_at = at;
    status = child_wait(child_start(change_some_and_die, &k));
    must(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
    (void)tree_checked(&w);
    for (uint64_t i = 0; i < BEFORE; i++) {
        uint64_t r = i - FIRST_REMOVED;
        bool there = tree_holds(&w, ordered_number(5 * i));

        if (!removes || i < FIRST_REMOVED || r >= REMOVED)
            must(there);
        else
            must(r == *done || there == (r > *done));
    }
    for (uint64_t i = 0; !removes && i < SOME; i++)
        must(i == *done || tree_holds(&w, ordered_number(some_key(i))) == (i < *done));
    /* it goes on, with its own idea of free nodes */
    for (uint64_t i = 0; i < BEFORE; i++) {
        tree_put(&w, ordered_number(5 * i));
        tree_put(&w, ordered_number(1000000 + i));
    }
    for (uint64_t i = 0; i < SOME; i++)
        tree_put(&w, ordered_number(some_key(i)));
    must(tree_checked(&w).entries == 2 * BEFORE + SOME);
    must(munmap(done, sizeof *done) == 0);
    tree_end(&w);
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
    struct tree w = tree_in_a_file((size_t)64 << 20);
    struct ordered_index *ix[2] = { w.ix, tree_open_again(&w, true) }, *reader = tree_open_again(&w, false);
    struct rng rng = { test_seed() };
    struct sorted o = { calloc(MOST, sizeof *o.loc), 0, MOST };
    struct ordered_spot at;

    for (test_case = 0; test_case < test_scaled(TURNS); test_case++) {
        struct ordered_index *mine = ix[rng_below(&rng, 2)];
        bool fills = test_case / 1500 % 2 == 0 ? rng_below(&rng, 10) < 9 : rng_below(&rng, 10) < 2;

        if (fills && o.n < MOST) {
            kist_bytes k = ordered_number(rng_below(&rng, 100000));

            must_ok(tree_try_put_in(&w, mine, k));
            must_ok(tree_find(&w, mine, k, ORDERED_AT, &at));
            sorted_put(&w, &o, k, ordered_loc(mine, &at));
            must_ok(tree_find(&w, reader, k, ORDERED_AT, &at));
        } else if (o.n > 0) {
            kist_bytes k = tree_key_at(&w, o.loc[rng_below(&rng, o.n)]);

            must_ok(tree_take_out_of(&w, mine, k));
            sorted_take_out(&w, &o, k);
            must_rc(tree_find(&w, reader, k, ORDERED_AT, &at), KIST_MISS);
        }
        if (test_case % 499 == 0) {
            must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
            must_be_as_sorted(&w, &o);
        }
    }
    test_case = 0;
    ordered_close(ix[1]);
    ordered_close(reader);
    free(o.loc);
    tree_end(&w);
}

/* Between the two parts of a search another writer fills and empties the leaf, and
 * changes what leads to it. */
TEST(a_search_that_began_before_others_wrote_ends_where_the_key_is)
{
    enum { ROUNDS = 3000, NEAR = 40, WRITES = 60 };
    struct tree w = tree_in_a_file((size_t)64 << 20);
    struct ordered_index *other = tree_open_again(&w, true);
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
                (void)tree_take_out_of(&w, other, near);
            else
                must_ok(tree_try_put_in(&w, other, near));
        }
        if (w.heap->reuse != reuse)
            continue;
        stayed++;
        must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
        rc = tree_find(&w, w.ix, k, ORDERED_AT, &whole);
        same += begun.leaf == whole.leaf;
        if (!ordered_arrive(w.ix, k, &begun))
            must_rc(ordered_find(w.ix, &w.o, k, ORDERED_AT, &begun), rc);
        else
            must_rc(ordered_decide(w.ix, &w.o, k, &begun), rc);
        must(begun.leaf == whole.leaf && begun.order == whole.order && begun.rank == whole.rank);
        if (rc == KIST_MISS) {
            must_ok(ordered_room(w.ix, &w.o, k, &begun));
            ordered_insert(w.ix, k, &begun, tree_record(w.heap, k.data, k.len));
        }
    }
    must(stayed > test_case / 2 && same > 0 && same < stayed);
    test_case = 0;
    must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
    (void)tree_checked(&w);
    ordered_close(other);
    tree_end(&w);
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
        struct tree w = tree_in_a_file((size_t)64 << 20);
        struct ordered_index *ix[2] = { w.ix, tree_open_again(&w, true) };

        for (uint64_t i = 0; i < KEYS; i++)
            must_ok(tree_try_put_in(&w, ix[i / each[k] % 2], long_number(i)));
        must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
        must(tree_checked(&w).entries == KEYS);
        ordered_close(ix[1]);
        tree_end(&w);
    }
}

/* A look around goes through all there is, and empties the lists of the other. */
TEST(two_writers_that_take_turns_do_not_look_around_for_what_the_other_has)
{
    enum { KEYS = 60000, EACH = 4, LOOKS = 100 };
    struct tree w = tree_in_a_file((size_t)64 << 20);
    struct ordered_index *ix[2] = { w.ix, tree_open_again(&w, true) };
    struct ordered_facts f;

    for (uint64_t i = 0; i < KEYS; i++)
        must_ok(tree_try_put_in(&w, ix[i / EACH % 2], ordered_number(i * 7919 % 1000003)));
    must(shm_peek(&ordered_head(w.ix)->walks) < LOOKS);
    must(index_refresh(&w.ix->file, UINT64_MAX) >= 0);
    f = tree_checked(&w);
    must(f.entries == KEYS && shm_peek(&ordered_head(w.ix)->fresh) * INDEX_PAGE < 3 * f.bytes);
    ordered_close(ix[1]);
    tree_end(&w);
}

/* It stands before an empty range; then all the others go, and with them what led there. */
TEST(a_search_that_began_before_the_way_to_an_empty_range_went_does_not_go_on_from_there)
{
    enum { KEYS = 40, EMPTY_FROM = 14, EMPTY_TO = 28 };
    struct tree w = tree_in_a_file((size_t)4 << 20);
    kist_bytes k = ordered_number(EMPTY_FROM + 3);
    struct ordered_spot begun;

    for (uint64_t i = 0; i < KEYS; i++)
        tree_put(&w, ordered_number(i));
    for (uint64_t i = EMPTY_FROM; i < EMPTY_TO; i++)
        must_ok(tree_take_out_of(&w, w.ix, ordered_number(i)));
    ordered_approach(w.ix, k, &begun);
    must(begun.leaf == 0 && begun.depth == 1);
    must(ordered_arrive(w.ix, k, &begun));
    for (uint64_t i = 0; i < KEYS; i++)
        must(tree_take_out_of(&w, w.ix, ordered_number(i)) ==
             (i < EMPTY_FROM || i >= EMPTY_TO ? KIST_OK : KIST_MISS));
    must(w.heap->reuse == 0 && shm_peek(&ordered_head(w.ix)->root) == 0);

    must(!ordered_arrive(w.ix, k, &begun));
    tree_end(&w);
}

static struct tree *overtaken;
static uint64_t overtaken_from, overtaken_by;

/* Called in the middle of a reader's search: what it stands in is replaced, and
 * used for other keys, as often as need be. */
static const struct record *record_while_others_write(void *arg, uint64_t loc)
{
    for (uint64_t i = 0; i < overtaken_by; i++)
        tree_put(overtaken, ordered_number(overtaken_from++ * 7919 % 1000003));
    return tree_read(arg, loc);
}

TEST(an_answer_counts_if_the_reuse_counter_did_not_move_and_others_do_not)
{
    enum { KEYS = 300, ROUNDS = 600 };
    struct tree w = tree_private((size_t)64 << 20);
    struct rng rng = { test_seed() };
    uint64_t moved = 0, stayed = 0, wrong = 0;

    overtaken = &w;
    overtaken_from = 1;
    for (uint64_t i = 0; i < KEYS; i++)
        tree_put(&w, ordered_number(i << 32));
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
        right = rc == KIST_OK && tree_order_of(tree_key_at(&w, ordered_loc(w.ix, &at)), k) == 0;
        /* a cursor's next step, in what may be an old node */
        for (int i = 0; right && i < 40; i++) {
            kist_bytes last = tree_key_at(&w, ordered_loc(w.ix, &at));

            for (int p = 0; p < 5; p++)
                tree_put(&w, ordered_number(overtaken_from++ * 7919 % 1000003));
            rc = ordered_next(w.ix, &at);
            right = rc == KIST_END ||
                    (rc == KIST_OK && tree_order_of(last, tree_key_at(&w, ordered_loc(w.ix, &at))) < 0);
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
    tree_end(&w);
}

/* Neither what was taken out nor what came since changes what a reader holds. */
TEST(an_entry_that_was_taken_out_stays_for_readers_that_are_under_way)
{
    struct tree w = tree_private((size_t)4 << 20);
    struct ordered_spot at[8];
    uint64_t loc[8], reuse;

    for (uint64_t i = 0; i < 8; i++)
        tree_put(&w, ordered_number(10 * i));
    for (uint64_t i = 0; i < 8; i++) {
        must_ok(ordered_find(w.ix, &w.o, ordered_number(10 * i), ORDERED_AT, &at[i]));
        loc[i] = ordered_loc(w.ix, &at[i]);
    }
    reuse = w.heap->reuse;
    for (uint64_t i = 0; i < 8; i += 2)
        must_ok(tree_take_out_of(&w, w.ix, ordered_number(10 * i)));
    for (uint64_t i = 0; i < 40; i++)
        tree_put(&w, ordered_number(1000 + i));
    must(w.heap->reuse == reuse);
    for (uint64_t i = 0; i < 8; i++)
        must(ordered_loc(w.ix, &at[i]) == loc[i]);
    must(tree_checked(&w).entries == 44);
    tree_end(&w);
}
