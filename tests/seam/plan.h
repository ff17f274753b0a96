/*
 * plan - the workloads whose logs are cut: each a kind of bank and a script of
 * operations, the same at each run for a seed.
 */
#ifndef KIST_TESTS_SEAM_PLAN_H
#define KIST_TESTS_SEAM_PLAN_H

#include "seam/work.h"

struct plan {
    const char *name;
    struct work_bank bank;
    uint32_t keys, small_len, large_len, large_each;
    void (*script)(struct work *w);
    uint32_t skip_ops; /* cuts before this operation are not worth a case */
};

extern const struct plan plans[];
extern const size_t plan_count;
const struct plan *plan_find(const char *name);

/*
 * Run the plan's script in a child, recorded into `log` and `o`, both emptied
 * first. The child is gone afterwards, and so is what it wrote. Ends the test
 * when an operation fails.
 */
void plan_record(const struct plan *p, uint64_t seed, struct log *log, struct oracle *o);

/* The same for any script, with the bank of `p`. */
void plan_record_script(const struct plan *p, void (*script)(struct work *w), uint64_t seed,
                        struct log *log, struct oracle *o);

/*
 * One case alone, for a look at it: KIST_TEST_PLAN names the plan, and
 * KIST_TEST_CUT the cut of its first round; the events before it are printed.
 */
bool plan_wanted(const struct plan *p);
bool plan_one_cut(const struct log *log, uint64_t *cut);
/* And KIST_TEST_SECOND the cut in the second life's log, from `start` on. */
bool plan_one_second(const struct log *log, uint64_t start, uint64_t *cut);

/* A work on the plan's bank below `root`. */
struct work plan_work(const struct plan *p, const char *root, struct log *log, struct oracle *o);
void plan_oracle(const struct plan *p, uint64_t seed, struct oracle *o);

/* `n` operations at random: puts, inserts, conditional puts, deletes. */
void plan_random_writes(struct work *w, uint32_t n);

#endif
