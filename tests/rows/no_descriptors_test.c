/*
 * What keeps a sync from beginning is no failed sync: whoever has no
 * descriptor left for it, or no memory for a map, is told so, and tries again
 * later. Nothing is poisoned, and nothing is acknowledged that is not durable.
 */
#include "base/os.h"
#include "bank/core.h"
#include "seam/check.h"
#include "seam/disk.h"
#include "seam/story.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const struct plan none = {
    "none", { "bank", 4096, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 20, 200, 0, 0, NULL, 0
};
static const struct plan always = {
    "always", { "bank", 4096, KIST_DURABILITY_ALWAYS, KIST_VERIFY_ALWAYS }, 20, 200, 0, 0, NULL, 0
};

static uint64_t cases;

static struct story story;

static void begin(const struct plan *plan)
{
    story_begin(&story, plan, 0);
    for (uint32_t i = 0; i < 100; i++) /* several segments that no sync has seen */
        actor_must(&story.a, act_put, i % 20, KIST_OK);
}

/* ---- opens that fail -------------------------------------------------- */

static int64_t opens_left; /* then they fail, ... */
static bool once;          /* ... one of them, or all from there on */
static int with;           /* so */
static int (*real_open)(int dir, const char *path, int flags, uint32_t mode);

static int open_or_fail(int dir, const char *path, int flags, uint32_t mode)
{
    if (--opens_left == 0 || (opens_left < 0 && !once))
        return with;
    return real_open(dir, path, flags, mode);
}

static void fail_opens(int64_t nth, bool just_one, int code)
{
    opens_left = nth;
    once = just_one;
    with = code;
    real_open = os_seam.open_under;
    os_seam.open_under = open_or_fail;
}

static void opens_go_well(void)
{
    os_seam.open_under = real_open;
}

struct try {
    actor_fn what;
    int64_t nth;
    bool once;
    int code;
};
static struct try *try;

static int64_t act_try(struct work *w, int64_t arg)
{
    int64_t rc;

    fail_opens(try->nth, try->once, try->code);
    rc = try->what(w, arg);
    try->nth = opens_left; /* more than 0: none was asked for */
    opens_go_well();
    return rc;
}

/* A put whose sync failed can be seen; nobody was promised more. */
static int64_t act_settle(struct work *w, int64_t arg)
{
    struct op *op = &w->o->op[w->o->ops - 1];
    struct content seen;

    (void)arg;
    if (!check_read(w, &seen))
        return -1;
    op->changes = op->kind == OP_PUT && (seen.version[op->key] == op->version ||
                                         seen.version[op->key] == VERSION_EMPTY);
    content_apply(w->o, &w->o->now, op);
    return 0;
}

static void disk_body(void *arg)
{
    (void)arg;
    story_must_be_durable(&story);
}

static bool tried(const struct plan *plan, actor_fn what, int64_t nth, bool just_one, int code)
{
    struct try t = { what, nth, just_one, code };
    int64_t rc;
    bool failed;

    begin(plan);
    *try = t;
    actor_kill(&story.b);
    rc = actor_do(&story.a, act_try, 3);
    failed = try->nth <= 0;
    must(rc == KIST_OK || (failed && (rc == code || rc == KIST_ENOMEM)));
    if (rc != KIST_OK)
        actor_must(&story.a, act_settle, 0, 0);
    actor_must(&story.a, act_check, 0, 0);
    actor_must(&story.a, act_put, 5, KIST_OK);
    actor_must(&story.a, act_sync, 0, KIST_OK);
    in_child(disk_body, NULL);
    story.b = actor_start(&story.w);
    actor_must(&story.b, act_join, 0, KIST_OK);
    actor_must(&story.b, act_check, 0, 0);
    actor_must(&story.b, act_put, 6, KIST_OK);
    story_end(&story);
    cases++;
    return failed;
}

static void try_each_open(const struct plan *plan, actor_fn what)
{
    static const int code[] = { -EMFILE, -ENFILE, -ENOMEM };

    try = shared_memory(sizeof *try);
    for (size_t i = 0; i < sizeof code / sizeof *code; i++)
        for (int just_one = 0; just_one < 2; just_one++)
            for (int64_t nth = 1; tried(plan, what, nth, just_one, code[i]); nth++)
                test_case = (uint64_t)nth;
}

TEST(a_sync_that_could_not_begin_poisons_nothing)
{
    try_each_open(&none, act_sync);
}

/* Some of these need the next segment, too. */
static int64_t act_puts(struct work *w, int64_t key)
{
    int64_t rc = KIST_OK;

    for (int i = 0; i < 30 && rc == KIST_OK; i++)
        rc = work_put(w, (uint32_t)(key + i % 5));
    return rc;
}

TEST(durable_puts_that_found_no_descriptor_poison_nothing)
{
    try_each_open(&always, act_puts);
}

TEST(puts_that_could_not_make_the_next_segment_poison_nothing)
{
    try_each_open(&none, act_puts);
}

/* ---- repairing -------------------------------------------------------- */

static int64_t act_repair_and_put(struct work *w, int64_t nth)
{
    int64_t rc;

    fail_opens(nth, false, -EMFILE);
    rc = work_repair(w);
    if (rc == -EMFILE)
        rc = work_put(w, 5) == KIST_OK ? rc : 1;
    opens_go_well();
    return rc;
}

/* A repair that found no descriptor has changed nothing: whoever has the bank
 * open needs none either. */
TEST(a_repair_that_found_no_descriptor_leaves_the_bank_as_it_was)
{
    int64_t rc = -EMFILE;

    for (int64_t nth = 1; rc != KIST_OK; nth++) {
        test_case = (uint64_t)nth;
        begin(&none);
        rc = actor_do(&story.a, act_repair_and_put, nth);
        must(rc == KIST_OK || rc == -EMFILE);
        actor_must(&story.a, act_check, 0, 0);
        story_end(&story);
    }
    must(test_case > 10);
}

/* ---- closing ---------------------------------------------------------- */

static int64_t act_close_bank(struct work *w, int64_t arg)
{
    int rc = kist_bank_close(w->bank);

    (void)arg;
    w->bank = NULL;
    return rc;
}

static bool closed(bool last, int64_t nth, bool just_one)
{
    struct actor *later = &story.b;
    int64_t rc;
    bool failed;

    begin(&none);
    *try = (struct try){ act_close_bank, nth, just_one, -EMFILE };
    story.b = actor_start(&story.w);
    if (!last)
        actor_must(&story.b, act_join, 0, KIST_OK);
    rc = actor_do(&story.a, act_try, 0);
    failed = try->nth <= 0;
    must(rc == KIST_OK || (failed && rc == -EMFILE));
    if (last)
        actor_must(&story.b, act_join, 0, KIST_OK);
    actor_must(later, act_check, 0, 0);
    actor_must(later, act_put, 5, KIST_OK);
    actor_must(later, act_sync, 0, KIST_OK);
    in_child(disk_body, NULL);
    story_end(&story);
    cases++;
    return failed;
}

TEST(a_close_that_found_no_descriptor_poisons_nothing)
{
    for (int last = 0; last < 2; last++)
        for (int just_one = 0; just_one < 2; just_one++)
            for (int64_t nth = 1; closed(last, nth, just_one); nth++)
                test_case = (uint64_t)nth;
    printf("%llu cases\n", (unsigned long long)cases);
}
