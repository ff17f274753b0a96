/*
 * snapshot - a moment of a bank that is held, and the pin that keeps its
 * history.
 *
 * A snapshot is a sequence S, and the index that was the bank's at that moment.
 * A record above S leads by its previous links to the one that counted at S. So all
 * it needs is that no heap file goes in which such a record lies:
 *
 *     taker     T1  read S: what is visible now
 *               T2  lock byte S of kist.lock, for reading
 *               T3  fence
 *               T4  read the horizon; if it passed S: let go, and start over
 *
 *     cleaner   C1  publish the horizon: all that may go has a sequence below it
 *               C2  fence
 *               C3  ask for the lowest lock below it
 *               C4  set the horizon back to that, but not below where it was
 *               C5  what was emptied at or below it goes
 *
 * Who only looks (a short scan) reads S, gathers, fences, and reads the horizon: U1 to
 * U4. tests/model/pin.pml has all of it.
 *
 * Either the cleaner's question meets the lock, or the taker's look the horizon.
 *
 * A process has one pin a bank, that of its oldest snapshot: the others are
 * above it. The lock is held by nothing but a mapping, as a seat is: it ends with its
 * process, and a forked child does not have it.
 *
 * The index is held, and not asked for again: once another generation takes its
 * place (a clear, a replace) nobody changes it any more, and it leads to all that it
 * led to, since none of that goes.
 */
#ifndef KIST_BANK_SNAPSHOT_H
#define KIST_BANK_SNAPSHOT_H

#include "bank/live.h"
#include "base/os.h"
#include "base/seat.h"
#include "index/index.h"
#include "kist/kist.h"

struct bank;
struct core;

struct snapshot {
    struct bank *bank;
    uint64_t at;              /* S */
    struct index_file *index; /* as of then */
    struct state state;       /* as of S */
    int64_t taken_ns;
    bool unkept; /* there is no lock file: it holds while nobody writes */
    struct snapshot *older, *newer;
};

/* The snapshots of a bank that this process has open, in the order of S. */
struct pins {
    os_mutex lock;
    struct snapshot *oldest, *newest;
    uint64_t count;
    struct seat pin[2]; /* one of them of the oldest; the other while it moves */
    unsigned which;
    uint64_t at; /* what is locked, at or below the oldest's sequence */
};

/* What a reader sees: the state that counts, and the index it speaks of, to be
 * used in this read section. KIST_EBUSY: a writer died within a replacement, and another one
 * in the midst of finishing it. */
int snapshot_moment(kist_bank *h, struct core *c, struct state *s, struct index_file **ix);

/* Hold such a moment. 1: history went meanwhile, it has to be another one. In the
 * read section in which the moment was read. */
int snapshot_hold(struct core *c, const struct state *s, struct index_file *ix,
                  struct snapshot **out);

/* Hold the bank as it is now. */
int snapshot_take(kist_bank *h, struct snapshot **out);

/* Hold the same moment once more. */
int snapshot_share(const struct snapshot *of, struct snapshot **out);

void snapshot_release(struct snapshot *snap);

/* KIST_OK, or KIST_ELOST. */
int snapshot_check(const struct snapshot *snap, const struct core *c);

static inline struct index_file *snapshot_index(const struct snapshot *snap)
{
    return snap->index;
}

/* The lowest sequence below `below` that a snapshot of any process holds, or
 * `below`: none does. Or an error. */
int pins_lowest(const struct core *c, uint64_t below, uint64_t *lowest);

/* Raise the horizon as far as snapshots allow: what was emptied, or became of no
 * use, at or below *horizon may go. The writer, holding the lock word. */
int pins_horizon(struct core *c, const struct state *s, uint64_t *horizon);

#endif
