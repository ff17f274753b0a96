/* The index while it grows, as seen between any two stores of its writer. */
#include "support.h"

#include "bank/core.h"

/* Of hash banks, whatever all others are to be made of. */
__attribute__((constructor)) static void make_hash_banks(void)
{
    (void)unsetenv("KIST_TEST_INDEX");
}

static kist_bank *watched;
static uint64_t looks, broken;

/* A split exchanges the directory's entries one by one: in between they do not
 * agree, and a writer may be killed there. No key is lost by that. */
static void verify_in_a_split(const void *addr, size_t len)
{
    const struct core *c = atomic_load(&watched->bank->core);
    struct hash_facts facts;

    (void)addr, (void)len;
    if (shm_peek(&c->live->intent) == 0)
        return;
    looks++;
    broken += !hash_check(index_hash(core_index(c)), &facts);
    shm_seam = NULL;
    must_ok(kist_verify(watched, NULL, NULL, NULL));
    shm_seam = verify_in_a_split;
}

TEST(verify_finds_nothing_wrong_at_any_store_of_a_split)
{
    struct fixture f = fixture_open();
    kist_stats stats = { .size = sizeof stats };

    watched = f.bank;
    looks = broken = 0;
    shm_seam = verify_in_a_split;
    for (uint64_t key = 0; key < 4000; key++)
        must_ok(kist_put(f.bank, number(key), number(key)));
    shm_seam = NULL;
    must(looks > 0 && broken > 0); /* there was something to see */
    must_ok(kist_stat(f.bank, &stats));
    must(stats.index_depth > 0);
    must_verify(f.bank);
    fixture_close(&f);
}
