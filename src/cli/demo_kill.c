/*
 * The killing: readers that go on, and one writer after another, each ended
 * by SIGKILL at some moment; most moments are within a put (demo_roles.c has
 * the fuse).
 *
 * Processes are ended by the id that fork() gave, before they are waited for:
 * it cannot be somebody else's.
 */
#include "demo.h"
#include "fail.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint64_t ms = 1000000;

static pid_t spawn(struct demo *d, int (*run)(struct demo *d, uint64_t n), uint64_t n)
{
    pid_t parent = getpid(), child;

    (void)fflush(NULL);
    child = fork();
    if (child != 0)
        return child;
    (void)signal(SIGINT, SIG_IGN); /* the parent stops everybody */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(getppid() == parent ? run(d, n) : 1);
}

static int run_reader(struct demo *d, uint64_t n)
{
    return reader_run(d, (unsigned)n);
}

/* Wait for a child and say how it went: its exit status, or -SIGNAL. */
static int await(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static bool ended(pid_t pid)
{
    siginfo_t info = { 0 };

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static int writer_place(const struct demo *d)
{
    return atomic_load_explicit(&d->shared->writer_place, memory_order_acquire);
}

/* The bank's lock word, byte 128 of kist.live (docs/format.md): the seat of
 * the writer that holds the bank, 0 when nobody does. */
static uint64_t lock_word(const struct demo *d)
{
    char name[4200];
    uint64_t word = 0;
    int fd;

    (void)snprintf(name, sizeof name, "%s/files/kist.live", d->store);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, &word, sizeof word, 128) != sizeof word)
        word = 0;
    if (fd >= 0)
        (void)close(fd);
    return word;
}

/* Whether the writer that has just died did so within a put: between the
 * marks that it sets around kist_put(), and holding the bank. */
static bool writer_was_inside(const struct demo *d)
{
    return writer_place(d) == WRITER_IN_PUT && lock_word(d) != 0;
}

static bool over(const struct demo *d)
{
    return demo_interrupted || atomic_load_explicit(&d->shared->failed, memory_order_acquire) != 0;
}

static void nap(uint64_t ns)
{
    const struct timespec t = { .tv_nsec = (long)ns };

    (void)nanosleep(&t, NULL);
}

/* Wait for the writer's first put: opening, and repair after the one before
 * it, come first. False when it will not come. */
static bool writing(const struct demo *d, pid_t writer, uint64_t puts_before)
{
    while (atomic_load_explicit(&d->shared->puts, memory_order_relaxed) == puts_before) {
        if (over(d) || ended(writer))
            return false;
        nap(ms / 2);
    }
    return true;
}

/* Wait until the writer is in a compaction, but not for long; or for a
 * short time, wherever it is then. */
static void lie_in_wait(const struct demo *d, bool for_compaction, uint64_t *seed)
{
    uint64_t most = for_compaction ? 300 * ms : (1 + random_next(seed) % 60) * ms;
    uint64_t start = now_ns();

    while (now_ns() - start < most && !over(d)) {
        if (for_compaction && writer_place(d) == WRITER_IN_COMPACT)
            break;
        nap(ms / 4);
    }
}

/* A writer that ends itself within a put should have done so by now. */
static void await_fuse(const struct demo *d, pid_t writer)
{
    uint64_t start = now_ns();

    while (now_ns() - start < 1000 * ms && !over(d) && !ended(writer))
        nap(ms / 2);
}

/* Returns false when the writer had ended by itself. */
static bool kill_writer(struct demo *d, pid_t writer)
{
    int how;

    (void)kill(writer, SIGKILL);
    how = await(writer);
    if (how != -SIGKILL) {
        demo_fail(d, "the writer ended by itself (%s %d)", how < 0 ? "signal" : "status",
                  how < 0 ? -how : how);
        return false;
    }
    d->kills++;
    d->kills_in_put += writer_was_inside(d);
    d->kills_in_compact += writer_place(d) == WRITER_IN_COMPACT;
    return true;
}

static bool enough(const struct demo *d, uint64_t start)
{
    uint64_t seconds = (now_ns() - start) / (1000 * ms);

    if (seconds >= d->most_seconds)
        return true;
    return seconds >= d->least_seconds && d->kills_in_put >= d->want_kills;
}

static void show(const struct demo *d)
{
    uint64_t reads = 0;

    if (!isatty(STDERR_FILENO))
        return;
    for (unsigned i = 0; i < READERS; i++)
        reads += atomic_load_explicit(&d->shared->readers[i].reads, memory_order_relaxed);
    (void)fprintf(stderr,
                  "\r\033[Kwriters killed inside a put: %u of %u, values read and checked: "
                  "%llu",
                  d->kills_in_put, d->want_kills, (unsigned long long)reads);
    (void)fflush(stderr);
}

/* One writer, from its first put to its death: most have a fuse that ends them
 * within a put, every fourth is killed from here, half of those in a
 * compaction if one comes. Returns false when it is time to stop. */
static bool one_writer(struct demo *d, uint64_t *seed)
{
    uint64_t puts = atomic_load_explicit(&d->shared->puts, memory_order_relaxed);
    uint64_t draw = random_next(seed);
    uint64_t fuse = draw % 4 != 0 ? 1 + draw / 4 % 60 : 0;
    pid_t writer;

    atomic_store_explicit(&d->shared->writer_place, WRITER_OUTSIDE, memory_order_release);
    atomic_store_explicit(&d->shared->fuse, fuse, memory_order_release);
    writer = spawn(d, writer_run, random_next(seed));
    if (writer < 0) {
        demo_fail(d, "fork: %s", strerror(errno));
        return false;
    }
    if (writing(d, writer, puts) && fuse != 0)
        await_fuse(d, writer);
    else
        lie_in_wait(d, draw % 8 == 0, seed);
    return kill_writer(d, writer);
}

/* The last one may end in peace. */
static void last_writer(struct demo *d, uint64_t *seed)
{
    uint64_t puts = atomic_load_explicit(&d->shared->puts, memory_order_relaxed);
    pid_t writer;

    atomic_store_explicit(&d->shared->fuse, 0, memory_order_release);
    writer = spawn(d, writer_run, random_next(seed));
    if (writer < 0)
        return;
    (void)writing(d, writer, puts);
    atomic_store_explicit(&d->shared->stop, true, memory_order_release);
    if (await(writer) != 0)
        demo_fail(d, "the last writer did not end well");
}

static void kill_on(struct demo *d)
{
    uint64_t start = now_ns(), seed = start;

    while (!over(d) && !enough(d, start) && one_writer(d, &seed))
        show(d);
    if (!over(d))
        last_writer(d, &seed);
    d->churn_ns = now_ns() - start;
}

void churn_run(struct demo *d)
{
    pid_t readers[READERS];

    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = spawn(d, run_reader, i);
        if (readers[i] < 0)
            demo_fail(d, "fork: %s", strerror(errno));
    }
    kill_on(d);
    atomic_store_explicit(&d->shared->stop, true, memory_order_release);
    for (unsigned i = 0; i < READERS; i++) {
        int how = readers[i] < 0 ? 0 : await(readers[i]);

        if (how != 0)
            demo_fail(d, "a reader ended by %s %d", how < 0 ? "signal" : "status",
                      how < 0 ? -how : how);
    }
    if (isatty(STDERR_FILENO))
        (void)fputs("\r\033[K", stderr);
}
