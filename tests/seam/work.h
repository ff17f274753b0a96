/*
 * work - kist's calls, made as an oracle's operations: each is entered into
 * its list before it is made, and acknowledged there when it returns.
 */
#ifndef KIST_TESTS_SEAM_WORK_H
#define KIST_TESTS_SEAM_WORK_H

#include "seam/oracle.h"

/* How the bank is made. */
struct work_bank {
    const char *name;
    uint32_t segment_bytes;
    uint32_t durability;
    uint32_t verify;
};

struct work {
    struct oracle *o;
    struct log *log;  /* the clock; NULL: operations are numbered */
    const char *root; /* the store is root/store */
    struct work_bank made;
    int32_t deadline_ms; /* for another writer; 0: kist's default */
    kist_store *store;
    kist_bank *bank;
    kist_bank *snapshot; /* NULL: none is open */
    uint8_t *saved;      /* a saved snapshot */
    size_t saved_len;
    uint32_t of_snapshot, of_saved; /* what they hold, as the oracle has kept it */
    struct rng rng;
};

/* All return what kist returned. */
int work_open(struct work *w);
int work_close(struct work *w); /* bank and store */
int work_put(struct work *w, uint32_t key);
int work_insert(struct work *w, uint32_t key);
int work_put_if(struct work *w, uint32_t key, bool wrong_sequence);
int work_delete(struct work *w, uint32_t key);
int work_clear(struct work *w);
int work_replace(struct work *w);
int work_batch(struct work *w, bool refused); /* refused: an expectation of it fails */
int work_restore(struct work *w);              /* from what work_save() has saved */
int work_revert(struct work *w);               /* to what work_snapshot() has taken */
int work_sync(struct work *w);
int work_compact(struct work *w);
int work_drop(struct work *w); /* closes the bank first */
int work_repair(struct work *w);

/* The bank as it is now: saved to memory, or held in place of the snapshot before. */
int work_save(struct work *w);
int work_snapshot(struct work *w);
void work_snapshot_close(struct work *w); /* as closing the bank does */

/* Without the oracle hearing of it: open, with these bank flags. */
int work_open_bank(struct work *w, uint32_t store_flags, uint32_t bank_flags);
void work_close_quietly(struct work *w);

/* Outcomes that are no failure. */
static inline bool work_went_well(int rc)
{
    return rc >= 0;
}

#endif
