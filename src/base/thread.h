/*
 * thread - what the library keeps per thread: its read section and the
 * context of its last error; and the epochs by which memory that readers may
 * still use is released.
 *
 * A section stores the global epoch into its thread's cell and goes on
 * without a fence: the one who releases something makes every thread of the
 * process pass a fence instead (membarrier), which is rare. Where the kernel
 * refuses that, sections pay for a fence of their own.
 *
 * Invariants
 *   E1  what is retired was made unreachable before thread_retire()
 *   E2  it is released only when every section that was open then has ended
 *   E3  the sections of threads that a fork left behind count for nothing
 */
#ifndef KIST_BASE_THREAD_H
#define KIST_BASE_THREAD_H

#include "kist/kist.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct thread {
    _Atomic uint64_t epoch; /* of the open section; 0: none */
    _Atomic uint32_t used;  /* 0: the cell is free for another thread */
    struct thread *next;    /* all cells, never removed */
    kist_error error;
    char errname[32];
};

/* NULL until the thread's first call of thread_self(). */
extern _Thread_local struct thread *thread_cell __attribute__((tls_model("initial-exec")));
/* How many sections of this thread are open, one inside the other. */
extern _Thread_local uint32_t thread_depth __attribute__((tls_model("initial-exec")));

/* The calling thread's cell; NULL when out of memory. A store is opened by one
 * that has a cell, so that the fork handlers are there for all that follows. */
struct thread *thread_self(void);

static inline bool thread_in_section(void)
{
    return thread_depth > 0;
}

/* Something to release once no section can see it (E2). Embedded in what is
 * retired, so that retiring needs no memory. */
struct retired {
    struct retired *next;
    uint64_t epoch;
    void (*release)(struct retired *);
};

void thread_retire(struct retired *r, void (*release)(struct retired *));

/* A descriptor by which this process holds a lock for a moment. A forked child
 * closes it at once, or it would hold the lock too. */
struct guarded {
    struct guarded *next;
    int fd; /* -1: none, or closed by a fork */
};

/* In between no other thread of the process forks. Keep it short. */
void thread_hold_forks(void);
void thread_allow_forks(void);

/* ⚑ Forks are held since before the descriptor was opened: a child that had it
 * from between the two would keep the lock that is taken later. */
void thread_guard(struct guarded *g, int fd);
/* Close it, if there is one. */
void thread_guard_close(struct guarded *g);

/* A map that a forked child does not have: there *map becomes NULL, for what
 * lies at its address later is somebody else's. Both with forks held. */
struct unforked {
    struct unforked *next;
    void **map;
};

void thread_unforked(struct unforked *u, void **map);
void thread_unforked_end(struct unforked *u);

/* Release what can be released; cheap when nothing is waiting. */
void thread_reclaim(void);

#endif
