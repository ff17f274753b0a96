/*
 * Row P3: a real kernel loses its power. A process writes to a bank on ext4 on
 * a loop device, the file system is shut down under it without flushing its
 * journal, and mounted again: all that was durable is there, and what else
 * survives is a prefix. The same store goes through ten such lives.
 *
 * Needs root and loop devices; skipped and said so without.
 */
#include "seam/actor.h"
#include "seam/check.h"
#include "seam/mounts.h"
#include "seam/plan.h"
#include "seam/tally.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CYCLES = 100, LIVES = 10, IMAGE_MIB = 48, OPS_MOST = 400, PIECES = 8 };

static const struct plan plans_here[] = {
    { "lazy",
      { "bank", 65536, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS },
      60,
      300,
      9000,
      30,
      NULL,
      0 },
    { "eager",
      { "a/b", 16384, KIST_DURABILITY_ALWAYS, KIST_VERIFY_ALWAYS },
      30,
      200,
      0,
      0,
      NULL,
      0 },
};

static struct {
    struct tally *tally;
    struct oracle *o;
    const struct plan *plan;
    char *image, *at;
    struct work w;
    struct rng rng;
} p3;

/* ---- the writing process ---------------------------------------------- */

static int one_write(struct work *w)
{
    uint32_t key = (uint32_t)rng_below(&w->rng, w->o->keys);
    uint64_t dice = rng_below(&w->rng, 100);

    if (dice < 5)
        return work_sync(w);
    if (dice == 5)
        return work_compact(w);
    if (dice == 6)
        return work_replace(w);
    if (dice < 25)
        return work_delete(w, key);
    return work_put(w, key);
}

/* Until it is stopped, and killed. */
static int64_t act_write_on(struct work *w, int64_t seed)
{
    int rc;

    w->rng.state = (uint64_t)seed;
    rc = work_open(w);
    while (rc >= 0 && w->o->ops < OPS_MAX - 1)
        rc = one_write(w);
    (void)raise(SIGSTOP); /* no room for operations, or an error: see the test */
    return rc;
}

/* 0, and the oracle starts anew from what is there. */
static int64_t act_look(struct work *w, int64_t durable)
{
    uint32_t from = (uint32_t)durable;
    struct content read, seen;

    if (!check_readonly(w, &read) || !check_writing(w, &seen)) {
        (void)fprintf(stderr, "%s\n", check_why);
        return -1;
    }
    work_close_quietly(w);
    if (oracle_match(w->o, from, w->o->ops, &read) < 0 ||
        oracle_match(w->o, from, w->o->ops, &seen) < 0) {
        (void)fprintf(stderr, "%u operations, %u of them durable; %s\n", w->o->ops, from,
                      check_difference(w->o, &w->o->now, &seen));
        return -2;
    }
    oracle_reset(w->o, &seen);
    return 0;
}

/* ---- one life --------------------------------------------------------- */

/* Operations that are durable, by what the stopped writer has entered. */
static uint32_t durable_now(const struct oracle *o)
{
    uint32_t durable = 0;

    for (uint32_t i = 0; i < o->ops && o->op[i].end != UINT64_MAX; i++)
        if (o->op[i].durable)
            durable = i + 1;
    return durable;
}

/* The kernel has written some pages back by itself, in no order. */
static void write_some_pages(void)
{
    char *dir = path_join(p3.at, strchr(p3.plan->bank.name, '/') ? "store/a/b" : "store/bank");
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char *file = path_join(dir, e->d_name);
        int fd = open(file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

        for (int i = 0; fd >= 0 && i < PIECES; i++)
            (void)sync_file_range(fd, (off_t)rng_below(&p3.rng, 16) * 4096,
                                  (off_t)rng_below(&p3.rng, 4) * 4096 + 1,
                                  SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
        if (fd >= 0)
            (void)close(fd);
        free(file);
    }
    if (d)
        (void)closedir(d);
    free(dir);
}

/*
 * The writer is stopped before the cut: an fdatasync that runs beside the
 * shutdown can say OK for bytes that never get anywhere, and the writer would
 * go on; when the power really fails nobody does.
 */
static bool life(void)
{
    uint32_t target = 1 + (uint32_t)rng_below(&p3.rng, OPS_MOST);
    uint64_t linger = rng_below(&p3.rng, 2000);
    struct actor a = actor_start(&p3.w);
    uint32_t durable;
    int64_t result;
    int status;

    actor_tell(&a, act_write_on, (int64_t)rng_next(&p3.rng));
    while (*(volatile uint32_t *)&p3.o->ops < target)
        (void)sched_yield();
    for (volatile uint64_t i = 0; i < linger; i++)
        ; /* into the middle of an operation */
    must(kill(a.pid, SIGSTOP) == 0);
    must(waitpid(a.pid, &status, WUNTRACED) == a.pid);
    must(WIFSTOPPED(status));
    durable = durable_now(p3.o);
    if (rng_below(&p3.rng, 2))
        write_some_pages();
    if (!mounts_power_cut(p3.at))
        return check_failed("FS_IOC_SHUTDOWN");
    actor_kill(&a);
    if (!mounts_off(p3.at) || !mounts_loop(p3.image, p3.at))
        return check_failed("unmount and mount");
    a = actor_start(&p3.w);
    result = actor_do(&a, act_look, durable);
    actor_kill(&a);
    return result == 0 || check_failed("life of plan '%s', %u operations: %lld, see above",
                                       p3.plan->name, target, (long long)result);
}

static const char *prepare(char *dir)
{
    const char *why = mounts_private();

    p3.image = path_join(dir, "image");
    p3.at = path_join(dir, "mounted");
    must(mkdir(p3.at, 0700) == 0);
    if (!why)
        why = mounts_make(p3.image, IMAGE_MIB);
    if (!why && !mounts_loop(p3.image, p3.at))
        why = "no loop device to be had";
    if (!why && !mounts_power_cut(p3.at))
        why = "this kernel's ext4 can't be shut down";
    if (!why)
        must(mounts_off(p3.at) && mounts_loop(p3.image, p3.at));
    return why;
}

static void all_cycles(void *dir)
{
    uint64_t cycles = test_scaled(CYCLES);
    const char *why = prepare(dir);

    if (why) {
        tally_skip(p3.tally, cycles, why);
        return;
    }
    for (uint64_t i = 0; i < cycles; i++) {
        if (i % LIVES == 0) { /* a new store */
            char *store = path_join(p3.at, "store");

            tmp_remove(store);
            free(store);
            p3.plan = &plans_here[i / LIVES % 2];
            plan_oracle(p3.plan, mix(test_seed(), i), p3.o);
            p3.w = plan_work(p3.plan, p3.at, NULL, p3.o);
        }
        tally_case(p3.tally);
        tally_state(p3.tally, mix(test_seed(), i));
        if (!life()) {
            tally_fail(p3.tally, "cycle %llu: %s", (unsigned long long)i, check_why);
            break; /* what is there now, nobody knows */
        }
    }
    (void)mounts_off(p3.at);
}

TEST(what_was_durable_survives_power_cuts_of_a_real_kernel)
{
    char *dir = tmp_dir(TMP_DISK);

    p3.tally = tally_new("P3");
    p3.o = oracle_new();
    p3.rng.state = test_seed();
    in_child(all_cycles, dir);
    free(dir);
    tally_end(p3.tally);
}
