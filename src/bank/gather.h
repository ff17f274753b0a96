/*
 * gather - entries of a bank as of one sequence, a group at a time: what walks
 * and cursors are made of.
 *
 * A group is read from the index under the counter of changes, and counts only if that
 * did not move meanwhile (I4). Its records are asked for ahead, checked, and
 * followed back to what counts at the sequence. The segments in which they lie
 * are held, so that its pointers stay good for as long as the group is kept,
 * without a read section.
 */
#ifndef KIST_BANK_GATHER_H
#define KIST_BANK_GATHER_H

#include "bank/core.h"

/* An entry of a group. */
struct met {
    const struct record *record; /* NULL: it is damaged */
    struct segment *segment;     /* NULL: it is missing */
    uint64_t offset;
};

struct group {
    struct met *met;
    size_t n, room;
    bool down;  /* keys descend */
    bool ended; /* there are no entries behind the last one */
    const struct record *reached; /* with no entry, and not ended: all before was deleted */
    struct segment **held;
    size_t held_n, held_room;
    uint64_t *locs; /* while it is gathered */
    size_t locs_room;
};

void group_drop(struct group *g); /* let go of it, and its memory */

/* What is gathered. */
struct source {
    kist_bank *handle;
    struct index_file *fixed; /* of a snapshot; NULL: whatever the bank's is */
    uint64_t at;              /* SEQUENCE_NOW: newest entries */
    const struct snapshot *pin; /* that keeps history from going; NULL: none does */
};

/* Keys from `lower` on, and below `upper` if there is one. */
struct key_range {
    kist_bytes lower, upper;
    bool has_upper;
};

/* From where on: an edge of the range, or a key of it. */
struct key_start {
    bool has_key, inclusive;
    kist_bytes key;
    size_t skip; /* entries next to it that are passed over, since they can't be read */
};

/*
 * Gather some `want` entries of an ordered bank upwards or downwards, or all that the
 * range has left; less where much was deleted, so that a group is read in a short time. 1: history went meanwhile. KIST_ECORRUPT: no way on. Whatever `g` held is
 * let go, but only when it succeeds.
 */
int gather_keys(const struct source *src, const struct key_range *range,
                const struct key_start *from, bool down, size_t want, struct group *g);

/* Add the next block of a hash bank; `cursor` says where, and goes on. The same results. */
int gather_block(const struct source *src, struct hash_cursor *cursor, struct group *g);

/* Entry i, to be handed out. KIST_ECORRUPT: it is damaged. */
int group_entry(const struct source *src, const struct group *g, size_t i, kist_entry *out);

#endif
