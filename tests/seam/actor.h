/*
 * actor - a process of its own that makes kist's calls when it is told to: for
 * tests in which it matters which process does what, in which order.
 *
 * An actor runs one function at a time and gives back a number. It has a work
 * (see work.h) whose oracle and log it shares with the test.
 */
#ifndef KIST_TESTS_SEAM_ACTOR_H
#define KIST_TESTS_SEAM_ACTOR_H

#include "seam/work.h"

struct actor {
    pid_t pid;
    int to, from;
};

typedef int64_t (*actor_fn)(struct work *w, int64_t arg);

/* Forked here: what this process has open by kist is of no use there. */
struct actor actor_start(const struct work *w);

/* Run `fn` there and wait for its result; ACTOR_DIED if it has ended
 * meanwhile, by a kill for example: then its pid is 0. */
#define ACTOR_DIED INT64_MIN
int64_t actor_do(struct actor *a, actor_fn fn, int64_t arg);

/* It must return `want`. */
#define actor_must(a, fn, arg, want)                                                               \
    actor_rc(__FILE__, __LINE__, #fn, actor_do((a), (fn), (arg)), (want))
void actor_rc(const char *file, int line, const char *what, int64_t got, int64_t want);

/* The same in two parts. */
void actor_tell(struct actor *a, actor_fn fn, int64_t arg);
int64_t actor_hear(struct actor *a);

/* Called in an actor: it stops itself by SIGSTOP, and actor_hear() gives
 * ACTOR_STOPPED, once it has. actor_continue() lets it go on. */
#define ACTOR_STOPPED (INT64_MIN + 1)
void actor_stop_self(void);
void actor_continue(struct actor *a);

void actor_kill(struct actor *a); /* SIGKILL, and wait */
void actor_end(struct actor *a);  /* it exits, without closing anything */

/* Functions for actors: each returns what kist returned. */
int64_t act_open(struct work *w, int64_t arg);
int64_t act_close(struct work *w, int64_t arg);
int64_t act_put(struct work *w, int64_t key);
int64_t act_delete(struct work *w, int64_t key);
int64_t act_sync(struct work *w, int64_t arg);
int64_t act_repair(struct work *w, int64_t arg);
int64_t act_join(struct work *w, int64_t read_only); /* open, unknown to the oracle */
int64_t act_leave(struct work *w, int64_t arg);
/* Read everything: 0 if it is what the oracle says. Explains itself. */
int64_t act_check(struct work *w, int64_t arg);

#endif
