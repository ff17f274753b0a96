/* actor.c - a command and a result at a time, over two pipes. */
#include "seam/actor.h"

#include "seam/check.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct command {
    actor_fn fn; /* the same address there: it was forked from here */
    int64_t arg;
};

static int out_of_self = -1;

static void actor_body(struct work w, int in)
{
    struct command c;

    while (read(in, &c, sizeof c) == (ssize_t)sizeof c && c.fn) {
        int64_t result = c.fn(&w, c.arg);

        if (write(out_of_self, &result, sizeof result) != (ssize_t)sizeof result)
            break;
    }
}

struct actor actor_start(const struct work *w)
{
    int to[2], from[2];
    struct actor a;

    must(pipe(to) == 0 && pipe(from) == 0);
    a = (struct actor){ .to = to[1], .from = from[0] };
    a.pid = fork();
    must(a.pid >= 0);
    if (a.pid == 0) {
        (void)close(to[1]);
        (void)close(from[0]);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)signal(SIGSEGV, SIG_DFL);
        (void)signal(SIGBUS, SIG_DFL);
        (void)signal(SIGABRT, SIG_DFL);
        out_of_self = from[1];
        actor_body(*w, to[0]);
        _exit(0);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    return a;
}

void actor_tell(struct actor *a, actor_fn fn, int64_t arg)
{
    struct command c = { fn, arg };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)!write(a->to, &c, sizeof c); /* a dead one is noticed by its silence */
}

static void forget(struct actor *a)
{
    (void)close(a->to);
    (void)close(a->from);
    *a = (struct actor){ 0 };
}

int64_t actor_hear(struct actor *a)
{
    int64_t result = ACTOR_DIED;
    int status;
    ssize_t n;

    do
        n = read(a->from, &result, sizeof result);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof result) {
        (void)child_wait(a->pid); /* its locks are gone then */
        forget(a);
        return ACTOR_DIED;
    }
    if (result == ACTOR_STOPPED)
        must(waitpid(a->pid, &status, WUNTRACED) == a->pid && WIFSTOPPED(status));
    return result;
}

int64_t actor_do(struct actor *a, actor_fn fn, int64_t arg)
{
    actor_tell(a, fn, arg);
    return actor_hear(a);
}

void actor_rc(const char *file, int line, const char *what, int64_t got, int64_t want)
{
    if (got == ACTOR_DIED || got == ACTOR_STOPPED)
        test_fail(file, line, what, got == ACTOR_DIED ? "its process died" : "it has stopped");
    test_rc(file, line, what, (int)got, (int)want);
}

void actor_stop_self(void)
{
    int64_t result = ACTOR_STOPPED;

    must(write(out_of_self, &result, sizeof result) == (ssize_t)sizeof result);
    (void)raise(SIGSTOP);
}

void actor_continue(struct actor *a)
{
    must(kill(a->pid, SIGCONT) == 0);
}

void actor_kill(struct actor *a)
{
    if (a->pid == 0)
        return;
    (void)kill(a->pid, SIGKILL);
    (void)child_wait(a->pid);
    forget(a);
}

void actor_end(struct actor *a)
{
    if (a->pid == 0)
        return;
    actor_tell(a, NULL, 0);
    (void)child_wait(a->pid);
    forget(a);
}

/* ---- what they do ----------------------------------------------------- */

int64_t act_open(struct work *w, int64_t arg)
{
    (void)arg;
    return work_open(w);
}

int64_t act_close(struct work *w, int64_t arg)
{
    (void)arg;
    return work_close(w);
}

int64_t act_put(struct work *w, int64_t key)
{
    return work_put(w, (uint32_t)key);
}

int64_t act_delete(struct work *w, int64_t key)
{
    return work_delete(w, (uint32_t)key);
}

int64_t act_sync(struct work *w, int64_t arg)
{
    (void)arg;
    return work_sync(w);
}

int64_t act_repair(struct work *w, int64_t arg)
{
    (void)arg;
    return work_repair(w);
}

int64_t act_join(struct work *w, int64_t read_only)
{
    return work_open_bank(w, read_only ? KIST_STORE_READONLY : 0,
                          read_only ? KIST_BANK_READONLY : 0);
}

int64_t act_leave(struct work *w, int64_t arg)
{
    (void)arg;
    work_close_quietly(w);
    return 0;
}

int64_t act_check(struct work *w, int64_t arg)
{
    struct content seen;

    (void)arg;
    if (check_read(w, &seen) && content_is(w->o, &w->o->now, &seen))
        return 0;
    if (!check_why[0])
        (void)check_failed("%s", check_difference(w->o, &w->o->now, &seen));
    (void)fprintf(stderr, "actor: %s\n", check_why);
    return -1;
}
