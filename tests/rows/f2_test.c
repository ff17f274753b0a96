/*
 * Row F2: a sync fails. Whatever the kernel does with the pages, whoever it
 * tells, and even when the process that was told dies before it can say so:
 * the bank is read-only for every process, no later sync says OK, reads go on,
 * and what was durable is durable. kist_repair brings it back, with all that
 * was acknowledged, and makes that durable.
 */
#include "seam/actor.h"
#include "seam/check.h"
#include "seam/disk.h"
#include "seam/faulty.h"
#include "seam/plan.h"
#include "seam/record.h"
#include "seam/replay.h"
#include "seam/tally.h"

#include <stdio.h>

enum { CASES = 100, CUT_PICKS = 6, FAIL_MAX = 4, DIE_MAX = 3 };
enum trigger { BY_SYNC, BY_PUT, BY_COMPACT, BY_CLOSE, TRIGGERS };
static const char *const trigger_names[] = { "sync", "put", "compact", "close" };

static const struct plan lazy = {
    "failing", { "bank", 4096, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 20, 250, 0, 0, NULL, 0
};
static const struct plan eager = {
    "failing", { "bank", 4096, KIST_DURABILITY_ALWAYS, KIST_VERIFY_ALWAYS }, 20, 250, 0, 0, NULL, 0
};

/* One case: what fails, and who is there. */
static struct {
    struct tally *tally;
    struct log *log;
    struct oracle *o;
    struct faulty *fault;
    enum trigger trigger;
    int32_t fail_at, die_after; /* die_after -1: lives on */
    bool revert;
    int repairer; /* 0: who failed, 1: who was there, 2: a new one */
    uint64_t seed;
    struct work w;
} f2;

/* ---- what the actors do ----------------------------------------------- */

static int64_t act_random(struct work *w, int64_t n)
{
    plan_random_writes(w, (uint32_t)n);
    return 0;
}

static int64_t act_trigger(struct work *w, int64_t which)
{
    switch ((enum trigger)which) {
    case BY_SYNC:
        return work_sync(w);
    case BY_PUT:
        return work_put(w, 3);
    case BY_COMPACT:
        return work_compact(w);
    default:
        return work_close(w);
    }
}

/* Read all; the operation that failed or was cut short either counts or not:
 * now it is known. Nothing else may be different. */
static int64_t act_settle(struct work *w, int64_t arg)
{
    struct content seen, then = w->o->now;
    struct op *op = &w->o->op[w->o->ops - 1];

    (void)arg;
    if (!check_read(w, &seen)) {
        (void)fprintf(stderr, "settle: %s\n", check_why);
        return -1;
    }
    op->changes = true;
    content_apply(w->o, &then, op);
    if (content_is(w->o, &w->o->now, &seen))
        op->changes = false;
    else if (content_is(w->o, &then, &seen))
        w->o->now = then;
    else
        return -2;
    op->durable = false;
    op->end = log_count(w->log);
    return 0;
}

/* After pages went back to older ones: what was acknowledged and not durable
 * may be gone, but nothing else, and nothing is older than what was durable.
 * The oracle starts anew from what there is. */
static int64_t act_settle_each(struct work *w, int64_t durable)
{
    struct content seen;

    if (!check_read(w, &seen)) {
        (void)fprintf(stderr, "what is left: %s\n", check_why);
        return -1;
    }
    if (!oracle_match_each(w->o, (uint32_t)durable, w->o->ops, &seen)) {
        (void)fprintf(stderr, "what is left: %s\n", check_difference(w->o, &w->o->now, &seen));
        return -2;
    }
    oracle_reset(w->o, &seen);
    return 0;
}

/* 0: every write is refused, by the right code, and changes nothing. */
static int64_t act_refused(struct work *w, int64_t sync_first)
{
    int rc = sync_first ? work_sync(w) : KIST_EPOISON;

    if (rc == KIST_EPOISON)
        rc = work_put(w, 1);
    if (rc == KIST_EPOISON)
        rc = work_delete(w, 2);
    if (rc == KIST_EPOISON)
        rc = work_clear(w);
    if (rc == KIST_EPOISON)
        rc = work_sync(w);
    return rc == KIST_EPOISON ? 0 : rc == KIST_OK ? 1 : rc;
}

static int64_t act_goes_on(struct work *w, int64_t key)
{
    int rc = work_put(w, (uint32_t)key);

    if (rc == KIST_OK)
        rc = work_delete(w, (uint32_t)key + 1);
    return rc < 0 ? rc : work_sync(w);
}

/* ---- the power cut behind it ------------------------------------------ */

/* Whatever the unkind disk kept: a prefix, and all that is durable in it. */
static bool survives_a_power_cut(const char *when)
{
    struct span span = oracle_span(f2.o, log_count(f2.log));
    struct disk *d = disk_new(f2.log);
    struct work w = f2.w;
    struct world world;
    struct content seen = { 0 };
    bool well = true;

    world_init(&world, f2.log);
    disk_run(d, log_count(f2.log));
    w.root = tally_folder(1);
    for (int i = 0; well && i < CUT_PICKS; i++) {
        disk_pick(d, i == 0 ? DISK_LOST : i < 4 ? DISK_RANDOM : DISK_TORN, f2.seed + (uint64_t)i);
        disk_world(d, &world);
        replay_clean(tally_folder(1));
        replay_build(&world, tally_folder(1));
        tally_state(f2.tally, world_hash(&world) ^ f2.seed);
        replay_place(2 + (uint64_t)i, 1);
        well = check_readonly(&w, &seen);
        if (well && oracle_match(f2.o, span.durable, span.begun, &seen) < 0)
            well = check_failed("%s, power cut %d: %s", when, i,
                                check_difference(f2.o, &f2.o->now, &seen));
        if (well && check_writing(&w, &seen)) {
            well = oracle_match(f2.o, span.durable, span.begun, &seen) >= 0 ||
                   check_failed("%s, power cut %d, written: %s", when, i,
                                check_difference(f2.o, &f2.o->now, &seen));
            work_close_quietly(&w);
        } else {
            well = false;
        }
    }
    world_free(&world);
    disk_free(d);
    return well;
}

/* In a child: the checker's kist must not be recorded. */
static void power_cut_body(void *arg)
{
    faulty_stop();
    record_stop();
    if (!survives_a_power_cut(arg)) {
        (void)fprintf(stderr, "%s\n", check_why);
        test_fail(__FILE__, __LINE__, "survives a power cut", "is false");
    }
}

static bool power_cut(const char *when)
{
    char text[64];
    pid_t pid;

    (void)snprintf(text, sizeof text, "%s", when);
    pid = child_start(power_cut_body, text);
    return child_wait(pid) == 0 || check_failed("%s: see above", when);
}

/* ---- one case --------------------------------------------------------- */

static bool wants(const char *what, int64_t got, int64_t want)
{
    if (got == want)
        return true;
    if (got == ACTOR_DIED)
        return check_failed("%s: the process died", what);
    return check_failed("%s: %lld, %s", what, (long long)got, kist_errname((int)got));
}

struct cast {
    struct actor failing, there, reader, late;
    bool died, alone;
    uint32_t durable; /* operations, when it failed */
    bool mended;      /* the next one's sync wrote what the dead one may have lost */
};

static bool set_out(struct cast *c)
{
    c->alone = f2.trigger == BY_CLOSE; /* only the last one's close syncs */
    c->failing = actor_start(&f2.w);
    if (!wants("open", actor_do(&c->failing, act_open, 0), 0) ||
        !wants("writes", actor_do(&c->failing, act_random, 20), 0) ||
        (f2.seed % 4 && !wants("sync", actor_do(&c->failing, act_sync, 0), 0)) ||
        !wants("writes", actor_do(&c->failing, act_random, (int64_t)(f2.seed % 30)), 0))
        return false;
    if (c->alone)
        return true;
    c->there = actor_start(&f2.w);
    c->reader = actor_start(&f2.w);
    return wants("join", actor_do(&c->there, act_join, 0), 0) &&
           wants("join", actor_do(&c->reader, act_join, 1), 0) &&
           wants("read", actor_do(&c->there, act_check, 0), 0) &&
           wants("read", actor_do(&c->reader, act_check, 0), 0);
}

/* Whether the operation took effect is not known yet. */
static void leave_open(void)
{
    struct op *op = &f2.o->op[f2.o->ops - 1];

    op->changes = true;
    op->durable = false;
    if (op->end == UINT64_MAX)
        op->end = log_count(f2.log);
}

/* False with nothing said: this sync does not come in this operation. */
static bool fail_it(struct cast *c)
{
    int64_t rc;

    check_why[0] = '\0';
    f2.fault->heap_only = f2.revert;
    f2.fault->revert = f2.revert;
    f2.fault->syncs = 0;
    f2.fault->die_after = f2.die_after;
    f2.fault->fail_at = f2.fail_at;
    c->durable = oracle_span(f2.o, log_count(f2.log)).durable;
    rc = actor_do(&c->failing, act_trigger, f2.trigger);
    f2.fault->fail_at = f2.fault->die_after = -1;
    if (!f2.fault->failed)
        return rc >= 0 ? false : wants("the operation, without a failure", rc, 0);
    c->died = rc == ACTOR_DIED;
    leave_open();
    if (c->died || rc == KIST_EPOISON || (f2.trigger == BY_CLOSE && rc < 0))
        return true;
    return wants("the operation whose sync failed", rc, KIST_EPOISON);
}

static bool all_are_refused(struct cast *c)
{
    int64_t rc;

    c->late = actor_start(&f2.w);
    if (!wants("open after it", actor_do(&c->late, act_join, 0), 0))
        return false;
    if (!f2.revert && !wants("a late one reads", actor_do(&c->late, act_settle, 0), 0))
        return false;
    /* Who died could tell nobody. The next sync finds that out: it fails too,
     * or what it says is true in spite of the kernel; the power cut will show. */
    rc = actor_do(&c->late, act_refused, c->died);
    c->mended = rc == 1 && c->died;
    if (c->mended && f2.revert) {
        if (!wants("what the sync vouched for", actor_do(&c->late, act_settle_each, c->durable), 0))
            return false;
        c->durable = 0; /* the oracle's base, from here on */
    }
    if (!c->mended && !wants("a late one writes", rc, 0))
        return false;
    if (c->alone || c->mended)
        return true;
    if (!c->died && !wants("who failed writes", actor_do(&c->failing, act_refused, 0), 0))
        return false;
    if (!wants("who was there writes", actor_do(&c->there, act_refused, 0), 0))
        return false;
    return f2.revert || (wants("a reader reads", actor_do(&c->reader, act_check, 0), 0) &&
                         wants("a writer reads", actor_do(&c->there, act_check, 0), 0));
}

static struct actor *repairing(struct cast *c)
{
    if (f2.repairer == 0 && !c->died && !c->alone)
        return &c->failing;
    return f2.repairer == 1 && !c->alone ? &c->there : &c->late;
}

static bool repair_it(struct cast *c)
{
    struct actor *a = repairing(c);

    if (!wants("repair", actor_do(a, act_repair, 0), 0))
        return false;
    if (f2.revert && !wants("what is left", actor_do(&c->late, act_settle_each, c->durable), 0))
        return false;
    if (!wants("reads after repair", actor_do(&c->late, act_check, 0), 0) || !power_cut("repaired"))
        return false;
    if (!wants("a late one goes on", actor_do(&c->late, act_goes_on, 4), 0))
        return false;
    if (c->alone)
        return true;
    if (!c->died && !wants("who failed goes on", actor_do(&c->failing, act_goes_on, 6), 0))
        return false;
    return wants("who was there goes on", actor_do(&c->there, act_goes_on, 8), 0) &&
           wants("a reader reads on", actor_do(&c->reader, act_check, 0), 0);
}

static void end_all(struct cast *c)
{
    struct actor *all[] = { &c->failing, &c->there, &c->reader, &c->late };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->pid)
            actor_kill(all[i]);
}

static const char *case_text(uint64_t index, void *arg)
{
    static char text[200];

    (void)arg;
    (void)snprintf(text, sizeof text, "case %llu: %s, sync %d fails, %s, %s, seed %llu",
                   (unsigned long long)index, trigger_names[f2.trigger], f2.fail_at,
                   f2.revert ? "pages reverted" : "pages kept",
                   f2.die_after < 0 ? "process lives" : "process killed",
                   (unsigned long long)f2.seed);
    return text;
}

/* 1: tried, 0: does not apply, -1: failed. */
static int run_case(void)
{
    struct cast c = { 0 };
    bool well, applies = true;

    replay_clean(tally_folder(0));
    log_reset(f2.log);
    plan_oracle(f2.trigger == BY_PUT ? &eager : &lazy, f2.seed, f2.o);
    f2.w = plan_work(f2.trigger == BY_PUT ? &eager : &lazy, tally_folder(0), f2.log, f2.o);
    record_start(f2.log, tally_folder(0));
    faulty_start(f2.log, f2.fault);
    well = set_out(&c);
    if (well) {
        well = fail_it(&c);
        applies = well || check_why[0];
    }
    well = well && all_are_refused(&c) && power_cut("poisoned") && repair_it(&c) &&
           power_cut("repaired and synced");
    end_all(&c);
    faulty_stop();
    record_stop();
    return well ? 1 : applies ? -1 : 0;
}

/* Every combination in turn; those that do not apply cost little. */
static void choose_case(uint64_t index)
{
    uint64_t n = index;

    f2.fail_at = (int32_t)(n % FAIL_MAX);
    n /= FAIL_MAX;
    f2.trigger = (enum trigger)(n % TRIGGERS);
    n /= TRIGGERS;
    f2.die_after = (int32_t)(n % (DIE_MAX + 1)) - 1;
    n /= DIE_MAX + 1;
    f2.revert = n % 2;
    f2.repairer = (int)(index % 3);
    f2.seed = mix(test_seed(), index);
}

static void run_index(uint64_t index, void *arg)
{
    int done;

    (void)arg;
    if (tally_cases(f2.tally) >= test_scaled(CASES))
        return;
    if (!f2.log) {
        f2.log = log_new();
        f2.o = oracle_new();
        f2.fault = shared_memory(sizeof *f2.fault);
        replay_identities();
    }
    choose_case(index);
    replay_place(1, 1);
    done = run_case();
    if (done != 0)
        tally_case(f2.tally);
    if (done < 0)
        tally_fail(f2.tally, "%s: %s", case_text(index, NULL), check_why);
}

TEST(failed_fsync_is_final_for_all_processes)
{
    struct tally_job job = { .chunk = 16, .run = run_index, .tell = case_text };

    f2.tally = tally_new("F2");
    job.tally = f2.tally;
    job.count = test_scaled(CASES) * 8;
    tally_run(&job);
    tally_end(f2.tally);
}
