/*
 * walk.c - through the heap in append order, from one place to the last
 * record. A place behind a segment's last record goes on in the next segment
 * that exists.
 */
#include "bank/core.h"

#include <errno.h>

static int next_segment(struct walk *w, uint64_t n)
{
    for (; n <= w->newest && n <= SEGMENT_N_MAX; n++) {
        int rc = 0;

        w->segment = core_segment(w->core, n);
        if (!w->segment)
            rc = core_map_segment(w->core, n, &w->segment);
        if (rc == 0) {
            w->at = place_make(n, SEGMENT_FIRST_RECORD);
            return KIST_OK;
        }
        if (rc == -ENOENT)
            rc = bank_skip_gap(w->core->bank, &n, w->newest);
        if (rc < 0)
            return rc;
    }
    w->at = place_make(w->newest + 1, 0);
    return KIST_END;
}

int walk_next(struct walk *w, const struct record **r, uint64_t *place)
{
    struct scan_step step;
    uint64_t empty = 0; /* a segment that was passed over */
    int rc = KIST_OK;

    if (!w->segment || w->segment->n != place_n(w->at)) {
        uint64_t at = w->at;

        rc = next_segment(w, place_n(at));
        if (rc == KIST_OK && w->segment->n == place_n(at) &&
            place_offset(at) > SEGMENT_FIRST_RECORD)
            w->at = at;
    }
    for (; rc == KIST_OK; rc = next_segment(w, place_n(w->at) + 1)) {
        struct scan scan = { .segment = w->segment, .bank = &w->core->bank->set.record,
                             .at = place_offset(w->at), .ends_at_damage = true };

        /* ⚑ It was not void: what stood there is lost (a sync failed, and the
         * kernel put the pages of before in place). */
        if (empty != 0 && w->segment->header.predecessor == empty && w->segment->header.cut16 == 0)
            return KIST_END;
        if (place_is_full(place_offset(w->at), w->segment->len))
            continue;
        scan_next(&scan, &step);
        if (step.found == SCAN_END && step.offset == SEGMENT_FIRST_RECORD) {
            empty = w->segment->n; /* made ahead, and void: a larger one was needed (S4) */
            continue;
        }
        /* ⚑ A large value may be torn though its header is not. */
        if (step.found != SCAN_RECORD || !scan_value_is_whole(step.record))
            return KIST_END;
        *place = w->last = w->at;
        *r = step.record;
        w->at = w->end = place_behind(w->segment->n, scan.at);
        if (record_kind(step.record) == RECORD_PADDING)
            continue; /* it ends the segment */
        return KIST_OK;
    }
    return rc;
}
