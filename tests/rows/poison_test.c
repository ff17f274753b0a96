/*
 * What a failed sync must mean, one story each: words left by the dead, banks
 * that were closed as idle, processes that wait for another one's sync, and
 * handles that outlive a repair.
 */
#include "bank/core.h"
#include "base/os.h"
#include "seam/faulty.h"
#include "seam/record.h"
#include "seam/story.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const struct plan plan = {
    "poison", { "bank", 8192, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 20, 100, 0, 0, NULL, 0
};

static struct story story;
static struct faulty *fault;

static void begin_recording(void)
{
    faulty_stop(); /* where an earlier story has failed */
    record_stop();
    story.log = log_new();
    fault = shared_memory(sizeof *fault);
    story.root = tmp_dir(TMP_FAST);
    record_start(story.log, story.root);
    faulty_start(story.log, fault);
}

static void begin(void)
{
    begin_recording();
    story.o = oracle_new();
    plan_oracle(&plan, test_seed(), story.o);
    story.w = plan_work(&plan, story.root, story.log, story.o);
    story.a = actor_start(&story.w);
    actor_must(&story.a, act_open, 0, KIST_OK);
    for (uint32_t k = 0; k < 10; k++)
        actor_must(&story.a, act_put, k, KIST_OK);
    actor_must(&story.a, act_sync, 0, KIST_OK);
    /* Some pages, most of which nobody will write again. */
    for (uint32_t i = 0; i < 80; i++)
        actor_must(&story.a, act_put, 3 + i % 7, KIST_OK);
    story.b = actor_start(&story.w);
    actor_must(&story.b, act_join, 0, KIST_OK);
}

static void end(void)
{
    if (story.a.pid)
        actor_kill(&story.a);
    if (story.b.pid)
        actor_kill(&story.b);
    faulty_stop();
    record_stop();
    log_free(story.log);
    oracle_free(story.o);
    free(story.root);
}

static void is_poisoned(struct actor *a)
{
    actor_must(a, act_put, 1, KIST_EPOISON);
    actor_must(a, act_delete, 2, KIST_EPOISON);
    actor_must(a, act_sync, 0, KIST_EPOISON);
    actor_must(a, act_check, 0, 0);
}

/* The last operation never came back, and had nothing to change. */
static void forget_last(void)
{
    struct op *op = &story.o->op[story.o->ops - 1];

    op->changes = false;
    op->end = log_count(story.log);
}

/* ---- words left by the dead ------------------------------------------- */

/* The kernel tells it, and nobody else, that the pages never got there. */
static int die_in_sync(int fd, uint32_t node)
{
    (void)fd;
    (void)log_add_bytes(story.log, LOG_SYNC_FAILED, node, 0, NULL, 0);
    (void)kill(getpid(), SIGKILL);
    return 0;
}

static int64_t act_sync_and_die(struct work *w, int64_t arg)
{
    (void)arg;
    record_sync = die_in_sync;
    return work_sync(w);
}

/* In a child, where kist is not recorded. */
static void durable_body(void *arg)
{
    (void)arg;
    faulty_stop();
    story_must_be_durable(&story);
}

/*
 * Nobody will ever know what the kernel told the dead one. So the next sync
 * fails, or it has written everything once more; a mere fdatasync would say OK
 * for pages that the kernel has given up.
 */
static void next_sync_is_no_lie(void)
{
    int64_t rc = actor_do(&story.b, act_sync, 0);

    if (rc == KIST_EPOISON) {
        is_poisoned(&story.b);
        actor_must(&story.b, act_repair, 0, KIST_OK);
    } else {
        actor_rc(__FILE__, __LINE__, "sync", rc, KIST_OK);
    }
    in_child(durable_body, NULL);
    actor_must(&story.b, act_put, 1, KIST_OK);
    actor_must(&story.b, act_sync, 0, KIST_OK);
    actor_must(&story.b, act_check, 0, 0);
    in_child(durable_body, NULL);
}

TEST(a_syncing_word_left_by_a_dead_seat_is_a_failed_fsync)
{
    begin();
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    next_sync_is_no_lie();
    end();
}

/* The same when nobody was there, and a new process opens the bank. */
TEST(a_syncing_word_left_by_a_dead_seat_is_found_when_opening)
{
    begin();
    actor_must(&story.b, act_leave, 0, KIST_OK);
    actor_must(&story.a, act_put, 5, KIST_OK);
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    actor_must(&story.b, act_join, 0, KIST_OK);
    next_sync_is_no_lie();
    end();
}

static int64_t stops_left;

static int64_t clock_stopping(enum os_clock which)
{
    if (which == OS_CLOCK_REAL_COARSE && stops_left-- > 0)
        actor_stop_self();
    return os_real_clock(which);
}

/* Stops inside, with the bank's lock. */
static int64_t act_put_stopped(struct work *w, int64_t key)
{
    stops_left = 1;
    os_seam.clock = clock_stopping;
    return work_put(w, (uint32_t)key);
}

/* Whoever takes the word over from the dead, and then can't sync because
 * another one writes, must not let it be forgotten. */
TEST(a_syncing_word_taken_over_from_a_dead_seat_is_not_lost_by_a_deadline)
{
    struct actor writer, patient;

    begin();
    writer = actor_start(&story.w);
    actor_must(&writer, act_join, 0, KIST_OK);
    patient = story.b;
    story.w.deadline_ms = 100;
    story.b = actor_start(&story.w);
    actor_must(&story.b, act_join, 0, KIST_OK);
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    actor_tell(&writer, act_put_stopped, 6);
    must(actor_hear(&writer) == ACTOR_STOPPED);
    actor_must(&story.b, act_sync, 0, KIST_EBUSY);
    actor_continue(&writer);
    actor_rc(__FILE__, __LINE__, "put", actor_hear(&writer), KIST_OK);
    actor_kill(&story.b);
    story.b = patient;
    next_sync_is_no_lie();
    actor_kill(&writer);
    end();
}

static int (*open_well)(int dir, const char *path, int flags, uint32_t mode);

static int no_descriptor_left(int dir, const char *path, int flags, uint32_t mode)
{
    return strstr(path, "kist.heap") ? -EMFILE : open_well(dir, path, flags, mode);
}

static int64_t act_sync_without_descriptors(struct work *w, int64_t arg)
{
    int64_t rc;

    (void)arg;
    open_well = os_seam.open_under;
    os_seam.open_under = no_descriptor_left;
    rc = work_sync(w);
    os_seam.open_under = open_well;
    return rc;
}

/* Or has no descriptor for it. */
TEST(a_syncing_word_taken_over_from_a_dead_seat_is_not_lost_for_want_of_descriptors)
{
    begin();
    actor_must(&story.b, act_put, 5, KIST_OK); /* holds the active segment open */
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    actor_must(&story.b, act_sync_without_descriptors, 0, -EMFILE);
    next_sync_is_no_lie();
    end();
}

/* And when that process is the last one, and only closes the bank. */
TEST(a_syncing_word_left_by_a_dead_seat_is_found_when_closing)
{
    begin();
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    must(actor_do(&story.b, act_close, 0) == KIST_OK);
    in_child(durable_body, NULL);
    end();
}

static void die_in_new_segment(uint64_t index)
{
    const struct log_event *e = log_event(story.log, index);

    if (e->kind == LOG_STORE && e->off == offsetof(struct live, newest) &&
        strcmp(log_node_name(story.log, e->node, index), "kist.live") == 0)
        (void)kill(getpid(), SIGKILL);
}

static int64_t act_puts_until_new_segment(struct work *w, int64_t key)
{
    record_after = die_in_new_segment;
    for (int i = 0; i < 1000; i++)
        (void)work_put(w, (uint32_t)key);
    return KIST_OK;
}

/* The next writer died too, when it had begun a segment: then the tail is where
 * no record ends, and all is whole just the same. */
TEST(a_syncing_word_left_by_a_dead_seat_before_an_empty_segment_is_no_poison)
{
    struct actor writer;

    begin();
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    writer = actor_start(&story.w);
    actor_must(&writer, act_join, 0, KIST_OK);
    must(actor_do(&writer, act_puts_until_new_segment, 5) == ACTOR_DIED);
    forget_last();
    actor_must(&story.b, act_close, 0, KIST_OK);
    in_child(durable_body, NULL);
    actor_must(&story.b, act_join, 0, KIST_OK);
    actor_must(&story.b, act_check, 0, 0);
    actor_must(&story.b, act_put, 1, KIST_OK);
    end();
}

/* The kernel put older pages back: what is left is read, but not written. */
TEST(records_lost_in_a_sync_that_died_are_not_forgotten_when_opening)
{
    begin();
    actor_must(&story.b, act_leave, 0, KIST_OK);
    actor_must(&story.a, act_sync, 0, KIST_OK);
    actor_must(&story.a, act_put, 5, KIST_OK);
    *fault = (struct faulty){ .heap_only = true, .revert = true };
    must(actor_do(&story.a, act_sync, 0) == ACTOR_DIED);
    actor_must(&story.b, act_join, 0, KIST_OK);
    actor_must(&story.b, act_put, 1, KIST_EPOISON);
    actor_must(&story.b, act_sync, 0, KIST_EPOISON);
    actor_must(&story.b, act_repair, 0, KIST_OK);
    actor_must(&story.b, act_put, 1, KIST_OK);
    actor_must(&story.b, act_sync, 0, KIST_OK);
    end();
}

static void die_when_retired(uint64_t index)
{
    const struct log_event *e = log_event(story.log, index);

    if (e->kind == LOG_STORE && e->off == offsetof(struct live, retired) &&
        strcmp(log_node_name(story.log, e->node, index), "kist.live") == 0)
        (void)kill(getpid(), SIGKILL);
}

static int64_t act_join_killed(struct work *w, int64_t arg)
{
    record_after = die_when_retired;
    return act_join(w, arg);
}

/* And who opens the bank is killed while it makes it anew. */
TEST(records_lost_in_a_sync_that_died_are_not_forgotten_by_a_killed_rebuild)
{
    struct actor third;

    begin();
    actor_must(&story.b, act_leave, 0, KIST_OK);
    actor_must(&story.a, act_sync, 0, KIST_OK);
    actor_must(&story.a, act_put, 5, KIST_OK);
    *fault = (struct faulty){ .heap_only = true, .revert = true };
    must(actor_do(&story.a, act_sync, 0) == ACTOR_DIED);
    third = actor_start(&story.w);
    must(actor_do(&third, act_join_killed, 0) == ACTOR_DIED);
    actor_must(&story.b, act_join, 0, KIST_OK);
    actor_must(&story.b, act_put, 1, KIST_EPOISON);
    actor_must(&story.b, act_sync, 0, KIST_EPOISON);
    actor_must(&story.b, act_repair, 0, KIST_OK);
    actor_must(&story.b, act_put, 1, KIST_OK);
    actor_must(&story.b, act_sync, 0, KIST_OK);
    end();
}

/* And by a repair, which reads all records and makes them durable. */
TEST(a_syncing_word_left_by_a_dead_seat_is_found_by_a_repair)
{
    begin();
    must(actor_do(&story.a, act_sync_and_die, 0) == ACTOR_DIED);
    forget_last();
    actor_must(&story.b, act_repair, 0, KIST_OK);
    in_child(durable_body, NULL);
    actor_must(&story.b, act_check, 0, 0);
    end();
}

/* A repair's own sync fails, and life goes on as before it. */
static bool repair_fails_at(int32_t sync)
{
    int64_t rc;

    begin();
    *fault = (struct faulty){ .fail_at = sync, .die_after = -1, .heap_only = true };
    rc = actor_do(&story.a, act_repair, 0);
    forget_last();
    must(rc == KIST_OK || fault->failed);
    if (rc != KIST_OK)
        next_sync_is_no_lie();
    end();
    return rc != KIST_OK;
}

TEST(a_sync_that_fails_in_a_repair_is_a_failed_fsync)
{
    int32_t sync = 0;

    while (repair_fails_at(sync))
        sync++;
    must(sync > 1);
}

/* ---- waiting for another one's sync ----------------------------------- */

static int stop_then_fail(int fd, uint32_t node)
{
    (void)fd;
    (void)log_add_bytes(story.log, LOG_SYNC_FAILED, node, 0, NULL, 0);
    actor_stop_self();
    return -5;
}

static int64_t act_sync_stopped(struct work *w, int64_t arg)
{
    (void)arg;
    record_sync = stop_then_fail;
    return work_sync(w);
}

static uint64_t wait_calls;

/* The waiter says, once, that it is waiting. */
static int wait_told(uint32_t *word, uint32_t while_is, int timeout_ms)
{
    if (wait_calls++ == 0)
        actor_stop_self();
    return os_real_wait(word, while_is, timeout_ms);
}

static int64_t act_sync_waiting(struct work *w, int64_t arg)
{
    (void)arg;
    os_seam.wait = wait_told;
    return work_sync(w);
}

/* Both stand in sync: a in its fsync, b waiting for a. The oracle has one
 * writer at a time, so b's operation is its own. */
static void both_in_sync(void)
{
    begin();
    actor_must(&story.b, act_put, 4, KIST_OK);
    actor_tell(&story.a, act_sync_stopped, 0);
    must(actor_hear(&story.a) == ACTOR_STOPPED);
    actor_tell(&story.b, act_sync_waiting, 0);
    must(actor_hear(&story.b) == ACTOR_STOPPED);
    actor_continue(&story.b);
}

TEST(whoever_waits_for_a_sync_that_fails_is_told_so)
{
    both_in_sync();
    actor_continue(&story.a);
    actor_rc(__FILE__, __LINE__, "sync", actor_hear(&story.a), KIST_EPOISON);
    actor_rc(__FILE__, __LINE__, "sync", actor_hear(&story.b), KIST_EPOISON);
    is_poisoned(&story.b);
    end();
}

TEST(whoever_waits_for_a_sync_whose_process_dies_takes_it_over_as_failed)
{
    int64_t rc;

    both_in_sync();
    actor_kill(&story.a);
    rc = actor_hear(&story.b);
    if (rc == KIST_EPOISON)
        is_poisoned(&story.b);
    else
        actor_rc(__FILE__, __LINE__, "sync", rc, KIST_OK);
    if (rc == KIST_OK)
        in_child(durable_body, NULL);
    end();
}

/* ---- banks closed as idle --------------------------------------------- */

static kist_bank *open_one(kist_store *store, const char *name)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, name, &opt));
    return bank;
}

static void touch_others(kist_store *store, int round)
{
    for (int i = 0; i < 4; i++) {
        char name[32];
        kist_bank *bank;

        (void)snprintf(name, sizeof name, "other/%d-%d", round, i);
        bank = open_one(store, name);
        must_ok(kist_put(bank, text("key"), text("value")));
        must_ok(kist_bank_close(bank));
    }
}

/* A bank with unsynced changes is put aside for others, while the kernel fails
 * to write them back: before that, or after it. */
static void idle_story(bool fails_first)
{
    kist_store_options so = { .size = sizeof so, .flags = KIST_STORE_CREATE, .max_open_banks = 1 };
    kist_store *store;
    kist_bank *bank;
    char *path;
    int failed;

    begin_recording();
    path = path_join(story.root, "store");
    must_ok(kist_store_open(&store, path, &so));
    bank = open_one(store, "idle");
    must_ok(kist_put(bank, text("synced"), text("1")));
    must_ok(kist_sync(bank));
    must_ok(kist_put(bank, text("unsynced"), text("2")));
    if (!fails_first)
        touch_others(store, 0);
    failed = faulty_background("kist.heap.1");
    must(failed > 0 || !fails_first); /* none: it was synced when it was put aside */
    touch_others(store, 1);
    must_hold(bank, "synced", "1"); /* mapped anew, if need be */
    must_hold(bank, "unsynced", "2");
    must_rc(kist_sync(bank), failed ? KIST_EPOISON : KIST_OK);
    must_rc(kist_put(bank, text("more"), text("3")), failed ? KIST_EPOISON : KIST_OK);
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
    faulty_stop();
    record_stop();
    log_free(story.log);
    free(path);
    free(story.root);
}

TEST(a_bank_closed_as_idle_keeps_the_pending_error_of_its_unsynced_changes)
{
    idle_story(true);
}

TEST(a_bank_closed_as_idle_hears_of_an_error_that_comes_later)
{
    idle_story(false);
}

static void put_padded(kist_bank *bank, uint64_t key)
{
    char buf[400];

    value_fill(buf, sizeof buf, key, 1);
    must_ok(kist_put(bank, number(key), (kist_bytes){ buf, sizeof buf }));
}

/* The same for a segment that is full: what maps it keeps the inode, and with
 * it the error, until it was synced. */
TEST(a_full_segment_keeps_its_pending_error_until_it_is_synced)
{
    kist_bank_options bo = { .size = sizeof bo, .flags = KIST_BANK_CREATE, .segment_bytes = 4096 };
    kist_store *store;
    kist_bank *bank;

    begin_recording();
    store = open_store(story.root);
    must_ok(kist_bank_open(&bank, store, "full", &bo));
    for (uint64_t key = 0; key < 40; key++) /* new keys, so that none is read */
        put_padded(bank, key);
    must(faulty_background("kist.heap.2") == 1);
    must_rc(kist_sync(bank), KIST_EPOISON);
    must_rc(kist_put(bank, text("more"), text("3")), KIST_EPOISON);
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
    faulty_stop();
    record_stop();
    log_free(story.log);
    free(story.root);
}

static int64_t act_background_fails(struct work *w, int64_t arg)
{
    (void)w, (void)arg;
    return faulty_background("kist.heap");
}

/* A process stores much and closes the bank, which another one has open: with
 * it goes what held the files. */
TEST(a_process_that_leaves_others_behind_takes_no_pending_error_along)
{
    begin();
    actor_must(&story.a, act_leave, 0, 0);
    (void)actor_do(&story.b, act_background_fails, 0);
    next_sync_is_no_lie();
    end();
}

static int64_t act_leave_without_descriptors(struct work *w, int64_t arg)
{
    open_well = os_seam.open_under;
    os_seam.open_under = no_descriptor_left;
    return act_leave(w, arg);
}

/* The same when it can't sync: then the next sync must take it for one that
 * died in it. */
TEST(a_process_that_leaves_and_can_not_sync_takes_no_pending_error_along)
{
    begin();
    actor_must(&story.a, act_leave_without_descriptors, 0, 0);
    (void)actor_do(&story.b, act_background_fails, 0);
    next_sync_is_no_lie();
    end();
}

/* ---- repair by another process ---------------------------------------- */

/* A handle that was open before maps files that are no bank any more: what is
 * put through it must go to the new ones (the word `retired`). */
TEST(puts_after_a_repair_by_another_process_never_go_to_orphans)
{
    struct actor *who[3] = { &story.a, &story.b }, later;

    begin();
    actor_must(&story.b, act_repair, 0, KIST_OK);
    later = actor_start(&story.w); /* has the new files only */
    who[2] = &later;
    actor_must(&later, act_join, 0, KIST_OK);
    for (uint32_t k = 0; k < 9; k++) {
        actor_must(who[k % 3], act_put, k, KIST_OK);
        for (int i = 0; i < 3; i++)
            actor_must(who[i], act_check, 0, 0);
    }
    actor_must(&story.a, act_sync, 0, KIST_OK);
    for (int i = 0; i < 3; i++) {
        actor_must(who[i], act_check, 0, 0);
        actor_kill(who[i]);
    }
    story.a = actor_start(&story.w);
    actor_must(&story.a, act_join, 0, KIST_OK);
    actor_must(&story.a, act_check, 0, 0);
    end();
}
