/* The ordered index in forged files: no crash, no endless loop. */
#include "tree.h"

#include <errno.h>

/* ---- forged ----------------------------------------------------------- */

/* Every call, whatever it says; none may crash, or go on for ever. */
static void use_all_calls(struct tree *w, struct rng *rng)
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
        (void)tree_try_put_in(w, w->ix, ordered_number(rng_below(rng, 1000000)));
        (void)tree_take_out_of(w, w->ix, ordered_number(rng_below(rng, 8000)));
    }
}

TEST(a_forged_file_makes_no_crash_and_no_endless_loop)
{
    enum { CASES = 1500, KEYS = 4000 };
    struct rng rng = { test_seed() };
    struct tree w = tree_private((size_t)64 << 20);
    uint64_t len, used, cases = test_scaled(CASES);
    uint8_t *good;

    for (uint64_t i = 0; i < KEYS; i++)
        tree_put(&w, ordered_number(i * 2377 % 8000));
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
    tree_end(&w);
}

/* An inner node that is a leaf too, for another path: who fills it changes what the node says. */
TEST(a_node_that_says_something_else_when_a_search_goes_on_is_looked_at_no_further_than_it_goes)
{
    struct tree w = tree_in_a_file((size_t)4 << 20);
    kist_bytes k = ordered_number(3);
    struct ordered_spot at;

    for (uint64_t i = 0; i < 40; i++)
        tree_put(&w, ordered_number(i));
    ordered_approach(w.ix, k, &at);
    must(at.depth == 1);
    shm_store((shm_word *)(w.ix->base + node_offset(at.path[0].node)),
              inner_word(1, UINT16_MAX, KEY_MOST));
    must(!ordered_arrive(w.ix, k, &at));
    must_rc(tree_find(&w, w.ix, k, ORDERED_AT, &at), KIST_ECORRUPT);
    tree_end(&w);
}

/* All children of each level are the same node: more paths than anybody can go. */
TEST(a_tree_that_leads_to_one_node_from_many_places_ends_a_walk)
{
    struct tree w = tree_private((size_t)4 << 20);
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
    tree_end(&w);
}

TEST(a_node_that_leads_to_itself_is_damage)
{
    struct tree w = tree_private((size_t)4 << 20);
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
    tree_end(&w);
}
