/*
 * Row K1: a process killed at any store into shared memory and at any system
 * call loses nothing that was acknowledged, and shows nothing odd.
 *
 * The log of a workload is replayed up to every event, or every n-th where
 * there are many: what a kill leaves is all effects so far. Readers come
 * first: they must see each acknowledged operation, and the one under way as
 * before it or as after it. Then a writer comes, repairs, and goes on.
 *
 * Every 40th time the repairing process is recorded in turn, and killed in
 * the middle of its repair and behind it.
 */
#include "seam/check.h"
#include "seam/plan.h"
#include "seam/record.h"
#include "seam/replay.h"
#include "seam/secondlife.h"
#include "seam/tally.h"

#include <stdio.h>

enum { CASES = 50000, SECOND_EACH = 40, LONG_EACH = 6, SECOND_CUTS = 16, ROUNDS_MAX = 100 };

/* One recorded workload, and the worker's replay of it. */
static struct {
    const struct plan *plan;
    struct log *log;
    struct oracle *o;
    struct tally *tally;
    uint64_t first, step;
    struct world world;
    uint64_t at; /* events in `world` */
} k1;

static struct secondlife second;
static struct world second_world;

static const char *cut_text(uint64_t cut)
{
    static char text[256];
    const struct log_event *e = log_event(k1.log, cut ? cut - 1 : 0);
    struct span span = oracle_span(k1.o, cut);

    (void)snprintf(text, sizeof text, "plan '%s' seed %llu cut %llu after %s, %s", k1.plan->name,
                   (unsigned long long)k1.o->seed, (unsigned long long)cut,
                   log_kind_name((enum log_kind)e->kind),
                   oracle_op_text(k1.o, span.begun ? span.begun - 1 : 0));
    return text;
}

/* ---- one kill --------------------------------------------------------- */

/* A bank that is made by opening it stands where none was. */
static bool match(const struct span *span, struct content *seen, bool opened, int64_t *n)
{
    *n = oracle_match(k1.o, span->acked, span->begun, seen);
    if (*n < 0 && opened && content_count(k1.o, seen) == 0) {
        seen->exists = false;
        *n = oracle_match(k1.o, span->acked, span->begun, seen);
        seen->exists = true;
    }
    return *n >= 0;
}

/* The operation under way counts, or it does not. */
static bool count_fits(const struct span *span)
{
    struct content c = k1.o->base;
    bool fits = false;

    for (uint32_t i = 0; i <= span->begun; i++) {
        fits |= i >= span->acked && check_counted == content_count(k1.o, &c);
        if (i < span->begun)
            content_apply(k1.o, &c, &k1.o->op[i]);
    }
    return fits ||
           check_failed("a reader is told of %llu entries", (unsigned long long)check_counted);
}

static bool killed_once(struct work *w, const struct span *span, bool goes_on_long)
{
    struct content read, written;
    int64_t before, after, moment;

    if (!check_readonly(w, &read))
        return false;
    if (!match(span, &read, false, &before))
        return check_failed("a reader sees what no operation left: %s",
                            check_difference(k1.o, &k1.o->now, &read));
    if (read.exists && !check_has_moment)
        return check_failed("a reader gets no cursor: %s", kist_last_error()->what);
    if (check_has_moment && !match(span, &check_moment, false, &moment))
        return check_failed("a cursor shows what no operation left: %s",
                            check_difference(k1.o, &k1.o->now, &check_moment));
    if (!count_fits(span) || !check_writing(w, &written))
        return false;
    if (!match(span, &written, true, &after) || after < before) {
        (void)check_failed("the repaired bank differs from what a reader saw: %s",
                           check_difference(k1.o, &read, &written));
        work_close_quietly(w);
        return false;
    }
    if (goes_on_long)
        return check_goes_on_long(w, &written) && check_tails(w);
    return check_goes_on(w, &written);
}

/* ---- killed again, during or after the repair ------------------------- */

static void second_script(struct work *w)
{
    (void)work_put(w, 1);
    (void)work_delete(w, 2);
    (void)work_put(w, 3 % w->o->keys);
    (void)work_batch(w, false);
    (void)work_compact(w);
}

static bool killed_twice_at(uint64_t cut, const char *dir)
{
    struct work w = plan_work(k1.plan, dir, NULL, second.o);
    struct content read, written;
    bool well, moment;

    world_clear(&second_world);
    world_run(&second_world, 0, cut);
    replay_build(&second_world, dir);
    tally_state(k1.tally, world_hash(&second_world));
    if (!check_readonly(&w, &read))
        return false;
    moment = secondlife_allows_moment(&second, cut, false);
    well = check_writing(&w, &written);
    if (!well)
        return false;
    if (!moment || !secondlife_allows(&second, cut, false, &read) ||
        !secondlife_allows(&second, cut, false, &written)) {
        (void)check_failed("killed again: %s", check_difference(k1.o, &second.o->base, &written));
        work_close_quietly(&w);
        return false;
    }
    return check_goes_on(&w, &written);
}

static void killed_twice(uint64_t first_cut)
{
    uint64_t from, all;

    replay_clean(tally_folder(1));
    replay_build(&k1.world, tally_folder(1));
    if (!secondlife_live(&second, k1.plan, k1.o, tally_folder(1), first_cut, second_script)) {
        tally_fail(k1.tally, "%s: %s", cut_text(first_cut), check_why);
        return;
    }
    world_free(&second_world);
    world_init(&second_world, second.log);
    from = second.start;
    all = log_count(second.log) - from;
    for (uint64_t i = 1; i <= SECOND_CUTS; i++) {
        uint64_t cut = from + all * i / SECOND_CUTS;

        if (plan_one_second(second.log, from, &cut))
            i = SECOND_CUTS;
        replay_clean(tally_folder(2));
        tally_case(k1.tally);
        if (!killed_twice_at(cut, tally_folder(2)))
            tally_fail(k1.tally, "%s, again at %llu of %llu: %s", cut_text(first_cut),
                       (unsigned long long)(cut - from), (unsigned long long)all, check_why);
    }
}

/* ---- all of them ------------------------------------------------------ */

static uint64_t cut_of(uint64_t index)
{
    return k1.first + index * k1.step;
}

static void run_cut(uint64_t index, void *arg)
{
    uint64_t cut = cut_of(index);
    struct span span = oracle_span(k1.o, cut);
    struct work w = plan_work(k1.plan, tally_folder(0), NULL, k1.o);

    (void)arg;
    if (!k1.world.log || k1.at > cut) {
        world_free(&k1.world);
        world_init(&k1.world, k1.log);
        replay_identities();
        k1.at = 0;
    }
    world_run(&k1.world, k1.at, cut);
    k1.at = cut;
    replay_clean(tally_folder(0));
    replay_build(&k1.world, tally_folder(0));
    tally_case(k1.tally);
    tally_state(k1.tally, world_hash(&k1.world) ^ mix(k1.o->seed, (uint64_t)(k1.plan - plans)));
    if (!killed_once(&w, &span, index % LONG_EACH == 0))
        tally_fail(k1.tally, "%s: %s", cut_text(cut), check_why);
    else if (index % SECOND_EACH == SECOND_EACH - 1 || getenv("KIST_TEST_SECOND"))
        killed_twice(cut);
}

static const char *tell_cut(uint64_t index, void *arg)
{
    (void)arg;
    return cut_text(cut_of(index));
}

/* About `quota` cases, evenly spread over the log of one run of the plan. */
static void cut_plan(uint64_t seed, uint64_t quota)
{
    struct tally_job job = { k1.tally, 0, 256, run_cut, tell_cut, NULL };
    uint64_t cuts = quota * SECOND_EACH / (SECOND_EACH + SECOND_CUTS) + 1, events;

    plan_record(k1.plan, seed, k1.log, k1.o);
    k1.first = k1.plan->skip_ops ? k1.o->op[k1.plan->skip_ops].begin : 1;
    events = log_count(k1.log) + 1 - k1.first;
    k1.step = events > cuts ? (events + cuts - 1) / cuts : 1;
    job.count = (events + k1.step - 1) / k1.step;
    if (plan_one_cut(k1.log, &k1.first))
        job.count = 1;
    tally_run(&job);
}

TEST(a_kill_at_any_store_or_system_call_loses_nothing)
{
    uint64_t wanted = test_scaled(CASES);

    k1.tally = tally_new("K1");
    k1.log = log_new();
    k1.o = oracle_new();
    /* Round by round, until there are as many as wanted: short plans come
     * more often, with other seeds. */
    for (uint64_t round = 0; round < ROUNDS_MAX && tally_cases(k1.tally) < wanted; round++) {
        uint64_t quota = (wanted - tally_cases(k1.tally)) / plan_count + 1;

        for (size_t i = 0; i < plan_count; i++) {
            k1.plan = &plans[i];
            if (plan_wanted(k1.plan))
                cut_plan(mix(test_seed(), round + 0), quota);
        }
        if (getenv("KIST_TEST_CUT"))
            break;
    }
    tally_end(k1.tally);
}
