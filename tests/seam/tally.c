/* tally.c - see tally.h. */
#include "seam/tally.h"

#include "seam/replay.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SET_SIZE = 1 << 22,
    SHOWN_MAX = 12,
    WORKERS_MAX = 8,
    FOLDERS = 3,
    FILE_MOST = 64 << 20, /* bytes of a file */
};

struct tally {
    const char *row;
    _Atomic uint64_t cases, states, failures, skipped, next;
    _Atomic uint64_t set[SET_SIZE]; /* hashes of states, 0: free */
};

static char *folder[WORKERS_MAX][FOLDERS];
static int worker;

struct tally *tally_new(const char *row)
{
    struct tally *t = shared_memory(sizeof *t);

    t->row = row;
    return t;
}

void tally_case(struct tally *t)
{
    atomic_fetch_add(&t->cases, 1);
}

void tally_state(struct tally *t, uint64_t hash)
{
    hash += hash == 0;
    for (uint64_t at = hash, tries = 0; tries < 64; at++, tries++) {
        uint64_t is = 0;

        if (atomic_compare_exchange_strong(&t->set[at % SET_SIZE], &is, hash)) {
            atomic_fetch_add(&t->states, 1);
            return;
        }
        if (is == hash)
            return;
    }
}

void tally_skip(struct tally *t, uint64_t cases, const char *why)
{
    atomic_fetch_add(&t->skipped, cases);
    (void)printf("%s: %llu cases skipped: %s\n", t->row, (unsigned long long)cases, why);
}

void tally_fail(struct tally *t, const char *format, ...)
{
    char text[1024];
    va_list args;

    if (atomic_fetch_add(&t->failures, 1) >= SHOWN_MAX && !getenv("KIST_TEST_ALL"))
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)fprintf(stderr, "%s: FAILURE: %s (KIST_TEST_SEED=%llu)\n", t->row, text,
                  (unsigned long long)test_seed());
    (void)fflush(stderr);
}

uint64_t tally_failures(const struct tally *t)
{
    return atomic_load(&t->failures);
}

uint64_t tally_cases(const struct tally *t)
{
    return atomic_load(&t->cases);
}

void tally_end(struct tally *t)
{
    struct row row = { t->row, t->cases, t->states, t->failures, t->skipped };

    row_print(&row);
    must(row.failures == 0);
}

/* ---- workers ---------------------------------------------------------- */

static int workers(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (int)n;
}

const char *tally_folder(int number)
{
    return folder[worker][number];
}

static void on_run(uint64_t index, void *arg)
{
    const struct tally_job *job = arg;

    job->run(index, job->arg);
}

static void on_died(uint64_t index, int status, void *arg)
{
    const struct tally_job *job = arg;
    const char *which = job->tell ? job->tell(index, job->arg) : "";

    tally_case(job->tally);
    if (WIFSIGNALED(status))
        tally_fail(job->tally, "case %llu died of signal %d: %s", (unsigned long long)index,
                   WTERMSIG(status), which);
    else
        tally_fail(job->tally, "case %llu gave up: %s", (unsigned long long)index, which);
    for (int i = 0; i < FOLDERS; i++)
        replay_clean(tally_folder(i));
}

static void work(void *arg)
{
    const struct tally_job *job = arg;
    const struct batch batch = { on_run, on_died, arg };
    const struct rlimit most = { FILE_MOST, FILE_MOST };

    /* A length misread from damaged bytes must not fill the memory. */
    must(setrlimit(RLIMIT_FSIZE, &most) == 0);

    for (;;) {
        uint64_t first = atomic_fetch_add(&job->tally->next, job->chunk);
        uint64_t last = first + job->chunk;

        if (first >= job->count)
            return;
        for (int i = 0; i < FOLDERS; i++)
            replay_clean(tally_folder(i));
        batch_run(&batch, first, last < job->count ? last : job->count);
    }
}

void tally_run(const struct tally_job *job)
{
    struct tally_job copy = *job;
    pid_t child[WORKERS_MAX];
    int n = workers();

    atomic_store(&job->tally->next, 0);
    for (worker = 0; worker < n; worker++) {
        for (int i = 0; i < FOLDERS; i++)
            if (!folder[worker][i])
                folder[worker][i] = tmp_dir(TMP_FAST);
        child[worker] = child_start(work, &copy);
    }
    for (int i = 0; i < n; i++)
        must_end_well(child[i]);
}
