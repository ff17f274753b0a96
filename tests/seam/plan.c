/* plan.c - see plan.h. */
#include "seam/plan.h"

#include "seam/record.h"
#include "seam/replay.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN = 100 };

static void well(int rc)
{
    if (!work_went_well(rc))
        test_rc(__FILE__, __LINE__, "an operation of a plan", rc, KIST_OK);
}

static uint32_t some_key(struct work *w)
{
    return (uint32_t)rng_below(&w->rng, w->o->keys);
}

static void random_write(struct work *w)
{
    uint32_t key = some_key(w);

    switch (rng_below(&w->rng, 10)) {
    case 0:
        well(work_insert(w, key));
        break;
    case 1:
        well(work_put_if(w, key, rng_below(&w->rng, 3) == 0));
        break;
    case 2:
    case 3:
        well(work_delete(w, key));
        break;
    default:
        well(work_put(w, key));
        break;
    }
}

void plan_random_writes(struct work *w, uint32_t n)
{
    while (n-- > 0)
        random_write(w);
}

static void reopen(struct work *w)
{
    well(work_close(w));
    well(work_open(w));
}

/* ---- the scripts ------------------------------------------------------ */

static void script_create(struct work *w)
{
    well(work_open(w));
    for (uint32_t k = 0; k < 4; k++)
        well(work_put(w, k));
    well(work_close(w));
}

static void script_writes(struct work *w)
{
    well(work_open(w));
    for (int i = 0; i < 6; i++) {
        plan_random_writes(w, 25);
        well(work_sync(w));
    }
    plan_random_writes(w, 25);
    well(work_close(w));
}

/* Many keys, one after the other: blocks split, the directory doubles. */
static void script_grow(struct work *w)
{
    well(work_open(w));
    for (uint32_t k = 0; k < w->o->keys; k++) {
        well(work_put(w, k));
        if (k % 200 == 150)
            well(work_sync(w));
    }
    plan_random_writes(w, 50);
}

static void script_unsynced(struct work *w)
{
    well(work_open(w));
    plan_random_writes(w, 40);
    well(work_sync(w));
    plan_random_writes(w, 100);
}

static void script_clear(struct work *w)
{
    well(work_open(w));
    for (int i = 0; i < 5; i++) {
        plan_random_writes(w, 20);
        well(i % 2 ? work_clear(w) : work_replace(w));
        if (i == 2)
            well(work_sync(w));
    }
    plan_random_writes(w, 10);
    well(work_replace(w));
    plan_random_writes(w, 5);
}

static void script_compact(struct work *w)
{
    well(work_open(w));
    for (int i = 0; i < 4; i++) {
        plan_random_writes(w, 60);
        if (i % 2)
            well(work_sync(w));
        well(work_compact(w));
    }
    plan_random_writes(w, 10);
    well(work_close(w));
}

static void script_batch(struct work *w)
{
    well(work_open(w));
    for (int i = 0; i < 8; i++) {
        plan_random_writes(w, 6);
        well(work_batch(w, false));
        if (i % 3 == 1)
            well(work_batch(w, true));
        if (i % 3 == 2)
            well(work_sync(w));
        if (i % 4 == 3)
            well(work_compact(w));
    }
    well(work_batch(w, false)); /* one right behind the other */
    well(work_batch(w, false));
    plan_random_writes(w, 4);
}

static void script_restore(struct work *w)
{
    well(work_open(w));
    plan_random_writes(w, 30);
    well(work_save(w));
    for (int i = 0; i < 4; i++) {
        plan_random_writes(w, 12);
        well(work_restore(w));
        if (i == 1)
            well(work_sync(w));
    }
    plan_random_writes(w, 8);
    well(work_save(w));
    well(work_clear(w));
    well(work_restore(w));
    well(work_restore(w)); /* one right behind the other */
    plan_random_writes(w, 8);
    well(work_compact(w));
    well(work_restore(w));
    plan_random_writes(w, 4);
}

/* Key by key as long as the content is the one that the snapshot was taken of; behind a
 * clear or a replacement all of it is copied. */
static void script_revert(struct work *w)
{
    well(work_open(w));
    plan_random_writes(w, 30);
    well(work_snapshot(w));
    for (int i = 0; i < 4; i++) {
        plan_random_writes(w, 12);
        if (i % 2)
            well(work_batch(w, false));
        if (i == 2)
            well(work_compact(w));
        well(work_revert(w));
        if (i == 1)
            well(work_sync(w));
    }
    well(work_revert(w)); /* with nothing to change */
    plan_random_writes(w, 5);
    well(work_clear(w));
    well(work_revert(w));
    plan_random_writes(w, 5);
    well(work_snapshot(w));
    well(work_replace(w));
    well(work_revert(w));
    plan_random_writes(w, 5);
    well(work_snapshot(w));
    well(work_compact(w));
    plan_random_writes(w, 8);
    well(work_revert(w));
    work_snapshot_close(w);
    plan_random_writes(w, 4);
    well(work_compact(w));
}

/* A few writes a life. */
static void script_reopen(struct work *w)
{
    well(work_open(w));
    for (uint32_t i = 0; i < 8; i++) {
        plan_random_writes(w, i % 3 * 4);
        reopen(w);
    }
    plan_random_writes(w, 5);
}

static void script_drop(struct work *w)
{
    for (int i = 0; i < 4; i++) {
        well(work_open(w));
        plan_random_writes(w, 12);
        if (i % 2)
            well(work_sync(w));
        well(work_drop(w));
    }
    well(work_open(w));
    plan_random_writes(w, 5);
}

/* Over a megabyte, so that segments are made ahead; then values that do not
 * fit into the prepared one. */
static void script_ahead(struct work *w)
{
    well(work_open(w));
    for (uint32_t i = 0; i < 14; i++)
        well(work_put(w, i % w->o->keys));
    for (int i = 0; i < 12; i++) {
        plan_random_writes(w, 6);
        if (i % 4 == 3)
            well(work_sync(w));
    }
    well(work_compact(w));
    plan_random_writes(w, 6);
}

#define HASH(name, segment, durability)                                                            \
    {                                                                                              \
        name, segment, KIST_DURABILITY_##durability, KIST_VERIFY_ALWAYS                            \
    }

const struct plan plans[] = {
    { "create", HASH("a/b", 4096, NONE), 8, 60, 0, 0, script_create, 0 },
    { "writes", HASH("bank", 4096, NONE), 24, 200, 0, 0, script_writes, 0 },
    { "always", HASH("bank", 8192, ALWAYS), 24, 150, 3000, 20, script_writes, 0 },
    { "grow", HASH("bank", 16384, NONE), 400, 24, 0, 0, script_grow, 0 },
    { "large", HASH("bank", 8192, NONE), 12, 400, 90000, 6, script_writes, 0 },
    { "unsynced", HASH("bank", 4096, NONE), 40, 300, 6000, 15, script_unsynced, 0 },
    { "clear", HASH("bank", 8192, NONE), 30, 150, 5000, 20, script_clear, 0 },
    { "clear always", HASH("bank", 4096, ALWAYS), 20, 100, 0, 0, script_clear, 0 },
    { "batch", HASH("bank", 4096, NONE), 40, 250, 5000, 20, script_batch, 0 },
    { "batch always", HASH("bank", 8192, ALWAYS), 24, 150, 0, 0, script_batch, 0 },
    { "restore", HASH("bank", 8192, NONE), 30, 150, 5000, 20, script_restore, 0 },
    { "restore always", HASH("bank", 4096, ALWAYS), 20, 100, 0, 0, script_restore, 0 },
    { "revert", HASH("bank", 4096, NONE), 30, 200, 5000, 20, script_revert, 0 },
    { "revert always", HASH("bank", 8192, ALWAYS), 20, 120, 0, 0, script_revert, 0 },
    { "compact", HASH("bank", 4096, NONE), 30, 250, 5000, 20, script_compact, 0 },
    { "compact always", HASH("bank", 4096, ALWAYS), 20, 250, 0, 0, script_compact, 0 },
    { "reopen", HASH("bank", 4096, NONE), 16, 120, 0, 0, script_reopen, 0 },
    { "drop", HASH("x/y", 4096, NONE), 16, 120, 0, 0, script_drop, 0 },
    { "ahead", HASH("bank", 1 << 20, NONE), 16, 60000, 130000, 3, script_ahead, 10 },
};
const size_t plan_count = sizeof plans / sizeof *plans;

const struct plan *plan_find(const char *name)
{
    for (size_t i = 0; i < plan_count; i++)
        if (strcmp(plans[i].name, name) == 0)
            return &plans[i];
    abort();
}

bool plan_wanted(const struct plan *p)
{
    const char *name = getenv("KIST_TEST_PLAN");

    return !name || strcmp(name, p->name) == 0;
}

static bool one_cut(const struct log *log, const char *variable, uint64_t start, uint64_t *cut)
{
    const char *given = getenv(variable);

    if (!given)
        return false;
    *cut = start + strtoull(given, NULL, 0);
    log_print(log, *cut < start + SHOWN ? start : *cut - SHOWN, *cut);
    return true;
}

bool plan_one_cut(const struct log *log, uint64_t *cut)
{
    return one_cut(log, "KIST_TEST_CUT", 0, cut);
}

bool plan_one_second(const struct log *log, uint64_t start, uint64_t *cut)
{
    return one_cut(log, "KIST_TEST_SECOND", start, cut);
}

/* ---- recording one ---------------------------------------------------- */

void plan_oracle(const struct plan *p, uint64_t seed, struct oracle *o)
{
    o->seed = seed;
    o->keys = p->keys;
    o->small_len = p->small_len;
    o->large_len = p->large_len;
    o->large_each = p->large_each;
    o->always = p->bank.durability == KIST_DURABILITY_ALWAYS;
    o->version = 0;
    oracle_reset(o, NULL);
}

struct work plan_work(const struct plan *p, const char *root, struct log *log, struct oracle *o)
{
    return (struct work){
        .o = o, .log = log, .root = root, .made = p->bank, .rng = { mix(o->seed, 0x3021c) }
    };
}

struct recording {
    const struct plan *p;
    void (*script)(struct work *w);
    struct log *log;
    struct oracle *o;
    const char *root;
};

/* Seeds of the hash and ids of the bank: the same at each run. */
static uint64_t random_state;
static int same_random(void *buf, size_t len)
{
    struct rng rng = { random_state };

    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)rng_next(&rng);
    random_state = rng.state;
    return 0;
}

static void record_body(void *arg)
{
    const struct recording *r = arg;
    struct work w = plan_work(r->p, r->root, r->log, r->o);

    random_state = r->o->seed;
    os_seam.random = same_random;
    replay_identities();
    record_start(r->log, r->root);
    r->script(&w);
    record_stop();
}

void plan_record_script(const struct plan *p, void (*script)(struct work *w), uint64_t seed,
                        struct log *log, struct oracle *o)
{
    char *root = tmp_dir(TMP_FAST);
    struct recording r = { p, script, log, o, root };

    log_reset(log);
    plan_oracle(p, seed, o);
    in_child(record_body, &r);
    tmp_remove(root);
    free(root);
}

void plan_record(const struct plan *p, uint64_t seed, struct log *log, struct oracle *o)
{
    plan_record_script(p, p->script, seed, log, o);
}
