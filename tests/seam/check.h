/*
 * check - hold a bank against an oracle: read it by every way of reading,
 * count it, verify it. A check that fails says why in check_why and goes on
 * to its caller, who knows which case it was.
 */
#ifndef KIST_TESTS_SEAM_CHECK_H
#define KIST_TESTS_SEAM_CHECK_H

#include "seam/work.h"

extern char check_why[512];

/* Always false, with the reason. */
__attribute__((format(printf, 1, 2))) bool check_failed(const char *format, ...);

/* What the open bank holds, by single gets, batched gets, a walk, and a cursor,
 * which must agree with each other and with the count. */
bool check_read(struct work *w, struct content *seen);

/* What the last check_readonly() was told by kist_count(). There it may differ
 * from what was read: a dead writer's last operation can be visible and not
 * counted yet, until somebody repairs that. */
extern uint64_t check_counted;

/* What a cursor showed to the last check_readonly(): the moment before a dead writer's
 * last operation, or behind it. There is none where the bank is not there, and where a
 * writer died within a replacement and another one in the midst of finishing it: KIST_EBUSY. */
extern struct content check_moment;
extern bool check_has_moment;

/* kist_verify finds nothing, and as many entries as `seen` has. */
bool check_verify(struct work *w, const struct content *seen);

/* Open read-only, read, close. A bank or store that is not there counts as
 * content that does not exist. */
bool check_readonly(struct work *w, struct content *seen);

/* Open for writing (recovery runs), read, verify; stays open on success. */
bool check_writing(struct work *w, struct content *seen);

/* Put a few new versions, or one of every key, close, open again: all there,
 * and still verified. `seen` is what the open bank holds. Leaves the bank
 * closed. */
bool check_goes_on(struct work *w, const struct content *seen);
bool check_goes_on_long(struct work *w, const struct content *seen);

/* Behind the last record of every heap file of the closed bank there are
 * zeros only (S2). A segment that a rebuild has cut may hold anything there. */
bool check_tails(struct work *w);

/* "key 3: wants version 7, has 5; ..." for a message. */
const char *check_difference(const struct oracle *o, const struct content *want,
                             const struct content *seen);

#endif
