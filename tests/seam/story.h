/*
 * story - one bank below a recorded root, its oracle, and actors that were
 * forked behind the record: for tests that tell what happens step by step.
 */
#ifndef KIST_TESTS_SEAM_STORY_H
#define KIST_TESTS_SEAM_STORY_H

#include "seam/actor.h"
#include "seam/plan.h"

struct story {
    struct log *log;
    struct oracle *o;
    char *root;
    struct work w;
    struct actor a, b; /* b is the test's to start */
};

/* Begin a recorded story with the bank of `p`, not made yet. */
void story_record(struct story *s, const struct plan *p);

/* And with `a`, who has opened it; a writer waits `ms`, or 0: kist's default. */
void story_begin(struct story *s, const struct plan *p, int32_t ms);

void story_end(struct story *s);

/* All that is acknowledged is on the unkind disk, which has lost what was not
 * synced. In a child: it ends the record there. */
void story_must_be_durable(struct story *s);

#endif
