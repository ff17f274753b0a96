/*
 * secondlife - what is done after a recovery, recorded too: so that the second
 * crash, in the middle of the recovery or after it, can be tried as well.
 */
#ifndef KIST_TESTS_SEAM_SECONDLIFE_H
#define KIST_TESTS_SEAM_SECONDLIFE_H

#include "seam/plan.h"

struct secondlife {
    struct log *log;
    struct oracle *o;      /* base: what the recovery brought back */
    struct content before; /* what a read-only open saw before it, */
    struct content moment; /* and a cursor there, which may be one operation behind */
    uint64_t start;        /* length of the log when the recovery began ... */
    uint64_t opened;       /* ... and when it was over */
};

void secondlife_init(struct secondlife *s);

/*
 * In the replayed state in `root`: look at it read-only, then open it for
 * writing, run `script` on it, and abandon it (its process would be killed):
 * all recorded. `o` is the first life's oracle, which gives keys and values.
 *
 * Returns false if the opening fails, with check_why.
 */
bool secondlife_live(struct secondlife *s, const struct plan *p, const struct oracle *o,
                     const char *root, uint64_t seed, void (*script)(struct work *w));

/* Does `seen`, read after a crash at `cut` of the second life, lie between
 * what was durable (or, without power cut, acknowledged) and what was begun? */
bool secondlife_allows(const struct secondlife *s, uint64_t cut, bool power_cut,
                       const struct content *seen);

/* The same of what a cursor showed there, check_moment, if it showed anything. */
bool secondlife_allows_moment(const struct secondlife *s, uint64_t cut, bool power_cut);

#endif
