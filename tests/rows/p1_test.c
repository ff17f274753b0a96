/*
 * Row P1: after a power cut everything is there that was acknowledged as
 * durable; what survives beyond it is a prefix of what was done, in order;
 * nothing deleted comes back; and what is done from then on holds too.
 *
 * From the log of a workload an unkind disk is made at many cuts (disk.h): in
 * each, pages, sizes and names since their last sync are kept, lost or torn in
 * many ways, all of them where there are few. Then another boot opens it.
 *
 * Every eighth time the recovery and the life after it are recorded in turn,
 * and the power fails again: records behind the first cut must stay dead.
 */
#include "seam/check.h"
#include "seam/disk.h"
#include "seam/plan.h"
#include "seam/record.h"
#include "seam/replay.h"
#include "seam/secondlife.h"
#include "seam/tally.h"

#include <stdio.h>

enum {
    CASES = 50000,
    EXHAUSTIVE = 16, /* combinations that are all tried */
    SECOND_EACH = 8,
    SECOND_CUTS = 4,
    SECOND_PICKS = 2,
    ROUNDS_MAX = 100,
};

static struct {
    const struct plan *plan;
    struct log *log;
    struct oracle *o;
    struct tally *tally;
    uint64_t first, step;
    struct disk *disk;
    uint64_t at; /* events the disk has seen */
    struct world world;
    uint64_t states; /* looked at in this worker */
} p1;

static struct secondlife second;
static struct disk *second_disk;
static struct world second_world;

/* How one state was picked, for the message of a failure. */
struct pick {
    enum disk_mode mode;
    uint64_t which;
};

static const char *cut_text(uint64_t cut, struct pick pick)
{
    static char text[320];
    struct span span = oracle_span(p1.o, cut);

    (void)snprintf(text, sizeof text,
                   "plan '%s' seed %llu cut %llu, %s, operations %u durable, %u acknowledged, "
                   "under way: %s",
                   p1.plan->name, (unsigned long long)p1.o->seed, (unsigned long long)cut,
                   disk_pick_text(p1.disk, pick.mode, pick.which), span.durable, span.acked,
                   oracle_op_text(p1.o, span.begun ? span.begun - 1 : 0));
    return text;
}

/* ---- one power cut ---------------------------------------------------- */

static bool is_prefix(const struct span *span, const struct content *seen)
{
    struct content gone = *seen;

    if (oracle_match(p1.o, span->durable, span->begun, seen) >= 0)
        return true;
    gone.exists = false; /* a bank that opening has made anew */
    return seen->exists && content_count(p1.o, seen) == 0 &&
           oracle_match(p1.o, span->durable, span->begun, &gone) >= 0;
}

static const char *wanted(const struct span *span, const struct content *seen)
{
    struct content c = p1.o->base;

    for (uint32_t i = 0; i < span->durable; i++)
        content_apply(p1.o, &c, &p1.o->op[i]);
    return check_difference(p1.o, &c, seen);
}

static bool cut_once(struct work *w, const struct span *span)
{
    struct content read, written;

    replay_place(2, 1);
    if (!check_readonly(w, &read))
        return false;
    if (!is_prefix(span, &read))
        return check_failed("a reader sees no prefix; against what was durable: %s",
                            wanted(span, &read));
    if (check_has_moment && !is_prefix(span, &check_moment))
        return check_failed("a cursor shows no prefix; against what was durable: %s",
                            wanted(span, &check_moment));
    if (!check_writing(w, &written))
        return false;
    if (!is_prefix(span, &written) || (read.exists && !content_is(p1.o, &read, &written))) {
        (void)check_failed("recovery brings no prefix; against what was durable: %s; against what "
                           "a reader saw before it: %s",
                           wanted(span, &written), check_difference(p1.o, &read, &written));
        work_close_quietly(w);
        return false;
    }
    return check_goes_on(w, &written);
}

/* ---- the second one --------------------------------------------------- */

/* As many bytes as were cut, so that the hole is filled again. */
static void second_script(struct work *w)
{
    for (uint32_t i = 0; i < 6; i++)
        (void)work_put(w, i * 5 % w->o->keys);
    (void)work_delete(w, 1);
    (void)work_sync(w);
    if (w->rng.state % 3 == 0)
        (void)work_compact(w);
    for (uint32_t i = 0; i < 4; i++)
        (void)work_put(w, i * 3 % w->o->keys);
    (void)work_delete(w, 0);
}

static bool cut_twice_at(uint64_t cut, struct pick pick, const char *dir)
{
    struct work w = plan_work(p1.plan, dir, NULL, second.o);
    struct content read, written;
    bool moment;

    disk_pick(second_disk, pick.mode, pick.which);
    disk_world(second_disk, &second_world);
    tally_state(p1.tally, world_hash(&second_world));
    replay_build(&second_world, dir);
    replay_place(3, 1);
    if (!check_readonly(&w, &read))
        return false;
    moment = secondlife_allows_moment(&second, cut, true);
    if (!check_writing(&w, &written))
        return false;
    if (!moment || !secondlife_allows(&second, cut, true, &read) ||
        !secondlife_allows(&second, cut, true, &written)) {
        (void)check_failed("after the first recovery: %s",
                           check_difference(p1.o, &second.o->base, &written));
        work_close_quietly(&w);
        return false;
    }
    return check_goes_on(&w, &written);
}

static void cut_twice(uint64_t first_cut, struct pick first_pick)
{
    struct rng rng = { mix(first_cut, first_pick.which) };
    uint64_t all;

    replay_clean(tally_folder(1));
    replay_build(&p1.world, tally_folder(1));
    replay_place(2, 1);
    if (!secondlife_live(&second, p1.plan, p1.o, tally_folder(1), first_cut, second_script)) {
        tally_fail(p1.tally, "%s: %s", cut_text(first_cut, first_pick), check_why);
        return;
    }
    disk_free(second_disk);
    second_disk = disk_new(second.log);
    world_free(&second_world);
    world_init(&second_world, second.log);
    all = log_count(second.log) - second.start;
    for (uint64_t i = 1; i <= SECOND_CUTS; i++) {
        uint64_t cut = second.start + all * i / SECOND_CUTS -
                       (i < SECOND_CUTS ? rng_below(&rng, all / SECOND_CUTS + 1) : 0);

        if (cut < second.start)
            cut = second.start;
        disk_free(second_disk);
        second_disk = disk_new(second.log);
        disk_run(second_disk, cut);
        for (int n = 0; n < SECOND_PICKS; n++) {
            struct pick pick = { n ? DISK_TORN : DISK_RANDOM, rng_next(&rng) };

            replay_clean(tally_folder(2));
            tally_case(p1.tally);
            if (!cut_twice_at(cut, pick, tally_folder(2))) {
                char again[200];

                (void)snprintf(again, sizeof again, "%s",
                               disk_pick_text(second_disk, pick.mode, pick.which));
                tally_fail(p1.tally, "%s; again at %llu of %llu, %s: %s",
                           cut_text(first_cut, first_pick),
                           (unsigned long long)(cut - second.start), (unsigned long long)all, again,
                           check_why);
            }
        }
    }
}

/* ---- the states of one cut -------------------------------------------- */

static void look_at(uint64_t cut, struct pick pick)
{
    struct span span = oracle_span(p1.o, cut);
    struct work w = plan_work(p1.plan, tally_folder(0), NULL, p1.o);

    disk_pick(p1.disk, pick.mode, pick.which);
    disk_world(p1.disk, &p1.world);
    tally_case(p1.tally);
    tally_state(p1.tally, world_hash(&p1.world) ^ mix(p1.o->seed, (uint64_t)(p1.plan - plans)));
    replay_clean(tally_folder(0));
    replay_build(&p1.world, tally_folder(0));
    if (!cut_once(&w, &span))
        tally_fail(p1.tally, "%s: %s", cut_text(cut, pick), check_why);
    else if (p1.states++ % SECOND_EACH == 0)
        cut_twice(cut, pick);
}

static void look_at_some(uint64_t cut, uint64_t dims)
{
    struct rng rng = { mix(p1.o->seed, cut) };

    look_at(cut, (struct pick){ DISK_LOST, 0 });
    look_at(cut, (struct pick){ DISK_KEPT, 0 });
    look_at(cut, (struct pick){ DISK_NAMES, 0 });
    look_at(cut, (struct pick){ DISK_BYTES, 0 });
    for (int i = 0; i < 2; i++) {
        look_at(cut, (struct pick){ DISK_DROP_ONE, rng_below(&rng, dims) });
        look_at(cut, (struct pick){ DISK_KEEP_ONE, rng_below(&rng, dims) });
        look_at(cut, (struct pick){ DISK_RANDOM, rng_next(&rng) });
        look_at(cut, (struct pick){ DISK_TORN, rng_next(&rng) });
    }
}

static uint64_t cut_of(uint64_t index)
{
    return p1.first + index * p1.step;
}

static void run_cut(uint64_t index, void *arg)
{
    uint64_t cut = cut_of(index), all;

    (void)arg;
    if (!p1.world.log || p1.at > cut) {
        disk_free(p1.disk);
        world_free(&p1.world);
        p1.disk = disk_new(p1.log);
        world_init(&p1.world, p1.log);
        replay_identities();
    }
    disk_run(p1.disk, cut);
    p1.at = cut;
    all = disk_combinations(p1.disk);
    if (all <= EXHAUSTIVE)
        for (uint64_t i = 0; i < all; i++)
            look_at(cut, (struct pick){ DISK_NTH, i });
    else
        look_at_some(cut, disk_dims(p1.disk));
}

static const char *tell_cut(uint64_t index, void *arg)
{
    (void)arg;
    if (!p1.disk) /* not in this process */
        p1.disk = disk_new(p1.log);
    return cut_text(cut_of(index), (struct pick){ DISK_LOST, 0 });
}

/* About `quota` cases, evenly spread over the log of one run of the plan. */
static void cut_plan(uint64_t seed, uint64_t quota)
{
    struct tally_job job = { p1.tally, 0, 64, run_cut, tell_cut, NULL };
    uint64_t events, cuts = quota / 24 + 1;

    plan_record(p1.plan, seed, p1.log, p1.o);
    p1.first = p1.plan->skip_ops ? p1.o->op[p1.plan->skip_ops].begin : 1;
    events = log_count(p1.log) + 1 - p1.first;
    p1.step = events > cuts ? (events + cuts - 1) / cuts : 1;
    job.count = (events + p1.step - 1) / p1.step;
    if (plan_one_cut(p1.log, &p1.first))
        job.count = 1;
    tally_run(&job);
}

TEST(a_power_cut_leaves_a_prefix_with_all_that_was_durable)
{
    uint64_t wanted = test_scaled(CASES);

    p1.tally = tally_new("P1");
    p1.log = log_new();
    p1.o = oracle_new();
    /* Round by round, until there are as many as wanted: short plans come
     * more often, with other seeds. */
    for (uint64_t round = 0; round < ROUNDS_MAX && tally_cases(p1.tally) < wanted; round++) {
        uint64_t quota = (wanted - tally_cases(p1.tally)) / plan_count + 1;

        for (size_t i = 0; i < plan_count; i++) {
            p1.plan = &plans[i];
            if (plan_wanted(p1.plan))
                cut_plan(mix(test_seed(), round + 100), quota);
        }
        if (getenv("KIST_TEST_CUT"))
            break;
    }
    tally_end(p1.tally);
}
