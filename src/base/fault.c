/*
 * fault.c - a copy out of a mapped file that a SIGBUS ends as an error.
 *
 * The kernel raises SIGBUS in the thread that touches a page which the file
 * does not have any more, or which its medium does not yield. While a thread
 * copies, a jump buffer of its own is set, and the handler jumps there. In a
 * thread that blocks the signal nothing is copied: the caller reads instead.
 * What comes at any other time is not ours: it is handed to the handler that
 * was there before, in the way the kernel would have called that one.
 *
 * A program may set another handler later; the guard is then put in front of
 * that one, too, when it is next asked for:
 *
 *     first time      ours -> the one before
 *     second time     ours -> the program's -> (if it hands on) ours -> the one before
 *
 * So that this comes to an end, how often a signal was handed on is noted in
 * its si_errno, which Linux leaves 0: each time an older handler gets it.
 */
#include "base/os.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What this thread copies, and where it goes on if it can't. */
struct copy {
    sigjmp_buf on;
    uintptr_t from, to;
};

/* NULL: no copy is under way. Initial-exec: a handler must not allocate, and
 * the first use of another kind may. */
static _Thread_local __attribute__((tls_model("initial-exec"))) struct copy *copying;

/* A handler that ours was put in front of; kept for ever. */
struct before {
    struct sigaction action;
    _Atomic bool spent; /* it was to be called once, and was */
    struct before *older;
};
static struct before *_Atomic newest;

enum { HANDED_ON = 0x6b700000 }; /* in si_errno, plus how often */

/* As if nobody had a handler: the instruction is run again, and that's it. A
 * signal that was sent must be sent again. */
static void die_of(int sig, bool sent)
{
    (void)signal(sig, SIG_DFL);
    if (sent)
        (void)raise(sig);
}

static void call_handler(const struct sigaction *a, int sig, siginfo_t *info, void *context)
{
    sigset_t was, blocked = a->sa_mask;

    if (!(a->sa_flags & SA_NODEFER))
        (void)sigaddset(&blocked, sig);
    (void)pthread_sigmask(SIG_BLOCK, &blocked, &was);
    if (a->sa_flags & SA_SIGINFO)
        a->sa_sigaction(sig, info, context);
    else
        a->sa_handler(sig);
    (void)pthread_sigmask(SIG_SETMASK, &was, NULL);
}

/* The newest handler that has not had this signal yet. */
static struct before *next_in_turn(siginfo_t *info)
{
    struct before *b = atomic_load_explicit(&newest, memory_order_acquire); /* with install() */
    int turns = info->si_errno - HANDED_ON;

    if (turns < 0)
        turns = 0; /* fresh from the kernel */
    info->si_errno = HANDED_ON + turns + 1;
    for (; b && turns > 0; turns--)
        b = b->older;
    return b;
}

static void hand_on(int sig, siginfo_t *info, void *context)
{
    bool sent = info->si_code <= 0; /* by kill(), not by the kernel */
    struct before *b = next_in_turn(info);
    const struct sigaction *a = b ? &b->action : NULL;
    bool info_handler = a && (a->sa_flags & SA_SIGINFO);

    if (a && !info_handler && a->sa_handler == SIG_IGN && sent)
        return;
    if (!a || (!info_handler && (a->sa_handler == SIG_IGN || a->sa_handler == SIG_DFL)))
        die_of(sig, sent); /* an access that failed cannot be ignored */
    else if (((unsigned)a->sa_flags & SA_RESETHAND) && atomic_exchange(&b->spent, true))
        die_of(sig, sent);
    else
        call_handler(a, sig, info, context);
}

/* Did the copy touch it? Another signal's handler may run in its middle, and
 * touch what else it likes. The address may be that of the page only. */
static bool is_of_copy(const siginfo_t *info)
{
    enum { UNIT = 1 << 16 };
    uintptr_t unit = UNIT, at = (uintptr_t)info->si_addr;

    if (!copying || info->si_code <= 0)
        return false;
    if (info->si_code == BUS_MCEERR_AR && info->si_addr_lsb > 0 && info->si_addr_lsb < 48)
        unit = (uintptr_t)1 << info->si_addr_lsb;
    return at >= (copying->from & ~(unit - 1)) && at < copying->to;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    int err = errno;

    if (is_of_copy(info))
        siglongjmp(copying->on, 1);
    hand_on(sig, info, context);
    errno = err;
}

static bool same_handler(const struct sigaction *a, const struct sigaction *b)
{
    return a->sa_flags == b->sa_flags && a->sa_sigaction == b->sa_sigaction;
}

/* Remember `now`, unless it is what we handed on to all the time. */
static int note_before(const struct sigaction *now)
{
    struct before *top = atomic_load_explicit(&newest, memory_order_relaxed), *b;

    if (top && same_handler(&top->action, now)) {
        atomic_store_explicit(&top->spent, false, memory_order_relaxed);
        return 0;
    }
    b = calloc(1, sizeof *b); /* we are behind the table already */
    if (!b)
        return -ENOMEM;
    b->action = *now;
    b->older = top;
    atomic_store_explicit(&newest, b, memory_order_release); /* with next_in_turn() */
    return 0;
}

static int install(void)
{
    struct sigaction ours = { .sa_sigaction = on_sigbus,
                              .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    struct sigaction now;
    int rc;

    if (sigaction(SIGBUS, NULL, &now) < 0)
        return -errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus)
        return 0;
    rc = note_before(&now);
    if (rc < 0)
        return rc;
    (void)sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, NULL) < 0 ? -errno : 0;
}

int OS_REAL(fault_guard)(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int rc;

    (void)pthread_mutex_lock(&lock);
    rc = install();
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

/* Where the signal is blocked the kernel ends the process instead of calling
 * the handler. */
static bool can_be_caught(void)
{
    sigset_t blocked;

    return pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, SIGBUS) == 0;
}

/* The handler runs with SA_NODEFER and an empty mask: nothing is to be undone
 * by the jump, and saving the mask can be spared. */
int OS_REAL(fault_copy)(void *to, const void *from, size_t len)
{
    struct copy here, *outer = copying;

    if (!can_be_caught())
        return -EFAULT;
    here.from = (uintptr_t)from;
    here.to = (uintptr_t)from + len;
    if (sigsetjmp(here.on, 0)) {
        copying = outer;
        return -EFAULT;
    }
    copying = &here;
    atomic_signal_fence(memory_order_seq_cst); /* set before the first byte is touched ... */
    memcpy(to, from, len);
    atomic_signal_fence(memory_order_seq_cst); /* ... and until the last one was */
    copying = outer;
    return 0;
}
