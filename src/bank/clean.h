/*
 * clean - emptying a segment (clean.c), and what compaction makes of that
 * (compact.c).
 */
#ifndef KIST_BANK_CLEAN_H
#define KIST_BANK_CLEAN_H

#include "bank/core.h"

struct cleaning {
    kist_bank *handle;
    uint64_t n;       /* the segment being emptied */
    uint64_t at;      /* how far it is */
    bool is_oldest;
    bool giving_up;   /* the second time through: tombstones */
    bool keeps_all;   /* the second time through, damaged: all is moved */
    uint64_t kept;    /* tombstones met the first time */
    bool arranges;    /* for the sake of order: the last room is left to what gives some back */
    bool damaged;     /* not all of it can be read */
    bool gone;        /* its file was unlinked */
    bool waits;       /* it will be */
    uint64_t horizon; /* tombstones above it are not given up */
    uint64_t hashed;  /* see struct scan */
    uint64_t moved;   /* bytes, in all */
    uint64_t looked; /* batches below this place need no more looking for */
    uint64_t incarnation; /* whose index leads nowhere into it; 0: none yet */
    bool was_rebuilt;     /* that index is gone: nothing is known of it */
};

/* Move what counts out of cl->n, and unlink it, or have it wait for snapshots. */
int clean_segment(struct cleaning *cl);

/* Move one record to the tail, if it counts. Holding the lock; `s` is stepped by
 * the caller, also after an error. */
int clean_move(struct writer *w, struct cleaning *cl, struct state *s, const struct record *r,
               uint64_t place);

/* Account for files that were unlinked by one who died before he could. Holding the lock. */
int clean_died(struct core *c, struct state *s);

/* Unlink what waited for snapshots that are gone. Holding the lock. */
int clean_waiting(struct core *c, struct state *s, uint64_t horizon);

/* Does segment N say where one that is still there was cut off? */
bool clean_is_needed(struct core *c, uint64_t n);

/* Where a recovery cut segment N off, or 0. The next one that exists says so. */
uint64_t clean_cut_of(struct core *c, uint64_t n);

#endif
