/*
 * The ways in which crash recovery loses or invents data when it is done the
 * obvious way, one test each, on disks that are made to be as unkind as just
 * that case needs. (K1 and P1 try everything at random; these say which rule
 * it is that was broken.)
 */
#include "bank/core.h"
#include "seam/check.h"
#include "seam/disk.h"
#include "seam/plan.h"
#include "seam/record.h"
#include "seam/replay.h"
#include "seam/secondlife.h"

#include <stdio.h>
#include <unistd.h>

/* Records of one size: what is written after a cut fits into the hole. */
static const struct plan even = {
    "even", { "bank", 16384, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 20, 100, 0, 0, NULL, 0
};
static const struct plan rolling = {
    "rolling", { "bank", 4096, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 24, 200, 0, 0, NULL, 0
};

/* ---- one state on disk, opened ---------------------------------------- */

static struct {
    struct log *log;
    struct oracle *o;
    struct disk *disk;
    struct world world;
    const struct plan *plan;
    char *dir;
    struct work w;
} cut;

static void record(const struct plan *plan, void (*script)(struct work *w), uint64_t seed)
{
    record_stop(); /* where an earlier test has failed */
    if (!cut.log) {
        cut.log = log_new();
        cut.o = oracle_new();
        cut.dir = tmp_dir(TMP_FAST);
        replay_identities();
    }
    plan_record_script(plan, script, seed, cut.log, cut.o);
    disk_free(cut.disk);
    cut.disk = disk_new(cut.log);
    world_free(&cut.world);
    world_init(&cut.world, cut.log);
    cut.plan = plan;
    cut.w = plan_work(plan, cut.dir, NULL, cut.o);
}

static void cut_at(uint64_t end)
{
    disk_reset(cut.disk);
    disk_run(cut.disk, end);
}

static void build(void)
{
    replay_clean(cut.dir);
    replay_build(&cut.world, cut.dir);
}

static void pick(enum disk_mode mode, uint64_t which)
{
    disk_pick(cut.disk, mode, which);
    disk_world(cut.disk, &cut.world);
    build();
}

static void must_why(bool well, const char *what)
{
    if (!well)
        test_fail(__FILE__, __LINE__, what, check_why);
}

/* The bank in `cut.dir`, opened after a power cut at `end` of the log, holds
 * what was durable, and a prefix of the rest; and it goes on. */
static void must_be_a_prefix(uint64_t end, uint64_t boot, uint64_t mount)
{
    struct span span = oracle_span(cut.o, end);
    struct content seen;

    replay_place(boot, mount);
    must_why(check_writing(&cut.w, &seen), "opens after the cut");
    if (oracle_match(cut.o, span.durable, span.begun, &seen) < 0) {
        (void)check_failed("cut %llu of %llu, %u operations durable: %s", (unsigned long long)end,
                           (unsigned long long)log_count(cut.log), span.durable,
                           check_difference(cut.o, &cut.o->now, &seen));
        work_close_quietly(&cut.w);
        must_why(false, "a prefix");
    }
    must_why(check_goes_on(&cut.w, &seen), "goes on after the cut");
}

static uint32_t last_recovery(void)
{
    kist_stats stats = { .size = sizeof stats };

    must_ok(kist_stat(cut.w.bank, &stats));
    return stats.last_recovery;
}

/* Where operation number `n` of that kind began, counting from 0. */
static const struct op *op_number(enum op_kind kind, uint32_t n)
{
    for (uint32_t i = 0; i < cut.o->ops; i++)
        if (cut.o->op[i].kind == kind && n-- == 0)
            return &cut.o->op[i];
    abort();
}

static bool is_heap(const struct log *log, uint32_t node)
{
    for (uint64_t i = 0; i < log_count(log); i++) {
        const struct log_event *e = log_event(log, i);

        if (log_is_name(e) && e->node == node)
            return strncmp(log_name(log, e, e->kind == LOG_RENAME), "kist.heap", 9) == 0;
    }
    return false;
}

/* ---- cleaning --------------------------------------------------------- */

static void script_clean(struct work *w)
{
    must_ok(work_open(w));
    plan_random_writes(w, 80);
    must_ok(work_sync(w));
    plan_random_writes(w, 20);
    must_ok(work_compact(w));
    plan_random_writes(w, 30);
    must_ok(work_compact(w));
}

/* All names as the cleaner left them, and no byte that was not synced. */
TEST(cleaner_unlinks_only_after_a_sync_that_covers_the_copies)
{
    int unlinked = 0;

    record(&rolling, script_clean, test_seed());
    for (uint64_t i = op_number(OP_COMPACT, 0)->begin; i < log_count(cut.log); i++) {
        const struct log_event *e = log_event(cut.log, i);

        if (e->kind != LOG_UNLINK || !is_heap(cut.log, e->node))
            continue;
        unlinked++;
        cut_at(i + 1);
        pick(DISK_NAMES, 0);
        must_be_a_prefix(i + 1, 2, 1);
        pick(DISK_LOST, 0);
        must_be_a_prefix(i + 1, 2, 1);
    }
    must(unlinked > 2);
}

static void script_deletes(struct work *w)
{
    must_ok(work_open(w));
    for (int round = 0; round < 3; round++) {
        for (uint32_t k = 0; k < w->o->keys; k++)
            must_ok(work_put(w, k));
        for (uint32_t k = 0; k < w->o->keys; k += 2)
            must_ok(work_delete(w, k));
        must_ok(work_sync(w));
        must_ok(work_compact(w));
    }
}

/* Segments whose unlink is lost are there again, with what was deleted. */
TEST(nothing_deleted_comes_back_when_the_unlink_of_its_segment_is_lost)
{
    record(&rolling, script_deletes, test_seed());
    for (uint32_t round = 0; round < 3; round++) {
        uint64_t from = op_number(OP_COMPACT, round)->begin;
        uint64_t to = op_number(OP_COMPACT, round)->end;

        for (uint64_t end = from; end <= to; end += (to - from) / 16 + 1) {
            cut_at(end);
            pick(DISK_BYTES, 0);
            must_be_a_prefix(end, 2, 1);
            for (uint64_t n = 0; n < 4; n++) {
                pick(DISK_RANDOM, mix(end, n));
                must_be_a_prefix(end, 2, 1);
            }
        }
    }
}

/* ---- tails ------------------------------------------------------------ */

static void script_long_tail(struct work *w)
{
    must_ok(work_open(w));
    for (uint32_t i = 0; i < 20; i++)
        must_ok(work_put(w, i % w->o->keys));
    must_ok(work_sync(w));
    for (uint32_t i = 0; i < 160; i++)
        must_ok(work_put(w, i * 7 % w->o->keys));
}

static struct secondlife second;

/* As many records as were cut, of half the keys: the others stay as the first
 * recovery left them. */
static void script_fill_the_hole(struct work *w)
{
    for (uint32_t i = 0; i < 60; i++)
        must_ok(work_put(w, i * 3 % (w->o->keys / 2)));
    must_ok(work_sync(w));
}

/*
 * A page in the middle of the tail is lost: the records behind it are cut. New
 * ones are written and synced, and the power fails again, with everything kept
 * this time. What was behind the first cut still verifies; it must not count.
 */
static void cut_tail_twice(uint64_t page, void (*script)(struct work *w))
{
    struct content seen;
    struct disk *d;
    struct world w;

    cut_at(log_count(cut.log));
    pick(DISK_DROP_ONE, page);
    replay_place(2, 1);
    must_why(secondlife_live(&second, cut.plan, cut.o, cut.dir, page, script),
             "opens after the first cut");
    d = disk_new(second.log);
    world_init(&w, second.log);
    disk_run(d, log_count(second.log));
    for (int i = 0; i < 2; i++) {
        disk_pick(d, i ? DISK_KEPT : DISK_LOST, 0);
        disk_world(d, &w);
        replay_clean(cut.dir);
        replay_build(&w, cut.dir);
        replay_place(3, 1);
        must_why(check_writing(&cut.w, &seen), "opens after the second cut, verified");
        work_close_quietly(&cut.w);
        must_why(content_is(cut.o, &second.o->now, &seen) ||
                     check_failed("page %llu: %s", (unsigned long long)page,
                                  check_difference(cut.o, &second.o->now, &seen)),
                 "all that was synced, and nothing else");
    }
    world_free(&w);
    disk_free(d);
}

TEST(records_behind_a_cut_tail_never_come_back)
{
    size_t dims;

    record(&even, script_long_tail, test_seed());
    cut_at(log_count(cut.log));
    dims = disk_dims(cut.disk);
    must(dims > 4);
    for (size_t i = 0; i < dims; i++)
        cut_tail_twice(i, script_fill_the_hole);
}

/* Nothing dead in what is recovered, so that cleaning leaves it alone. */
static void script_new_keys(struct work *w)
{
    must_ok(work_open(w));
    for (uint32_t k = 0; k < 40; k++)
        must_ok(work_put(w, k));
    must_ok(work_sync(w));
    for (uint32_t k = 40; k < 120; k++)
        must_ok(work_put(w, k));
}

/* The segment in which life goes on after the cut, and whose header names the
 * cut, is the one to be cleaned. */
static void script_clean_what_names_the_cut(struct work *w)
{
    for (uint32_t i = 0; i < 120; i++)
        must_ok(work_put(w, 130 + i % 10));
    must_ok(work_compact(w));
    must_ok(work_sync(w));
}

TEST(a_cut_is_remembered_when_the_segment_that_names_it_is_cleaned)
{
    const struct plan plan = {
        "many", { "bank", 16384, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 140, 100, 0, 0, NULL, 0
    };
    size_t dims;

    record(&plan, script_new_keys, test_seed());
    cut_at(log_count(cut.log));
    dims = disk_dims(cut.disk);
    for (size_t i = 0; i < dims; i++)
        cut_tail_twice(i, script_clean_what_names_the_cut);
}

/* No byte is written any more to heap files that a recovery found. */
TEST(rebuild_never_appends_to_a_recovered_segment)
{
    uint32_t found;

    record(&even, script_long_tail, test_seed());
    for (uint64_t n = 0; n < 6; n++) {
        cut_at(log_count(cut.log));
        pick(n ? DISK_RANDOM : DISK_KEPT, n);
        replay_place(2, 1);
        must_why(secondlife_live(&second, cut.plan, cut.o, cut.dir, n, script_fill_the_hole),
                 "opens after the cut");
        found = 0;
        for (uint64_t i = 0; i < second.start; i++)
            if (log_event(second.log, i)->kind == LOG_CREATE)
                found = log_event(second.log, i)->node;
        for (uint64_t i = second.start; i < log_count(second.log); i++) {
            const struct log_event *e = log_event(second.log, i);

            if (e->kind == LOG_STORE || e->kind == LOG_WRITE)
                must(e->node > found || !is_heap(second.log, e->node));
        }
    }
}

/* A copy of a bank, just made: its bytes are in the page cache alone. What the
 * rebuild accepts must be on disk before anything is built on it. */
TEST(what_a_rebuild_has_accepted_is_durable)
{
    struct content seen;
    struct disk *d;
    struct world w;

    record(&even, script_long_tail, test_seed());
    cut_at(log_count(cut.log));
    pick(DISK_KEPT, 0);
    replay_place(2, 1);
    record_unsynced = "kist.heap";
    must_why(secondlife_live(&second, cut.plan, cut.o, cut.dir, 1, script_fill_the_hole),
             "opens the copy");
    record_unsynced = NULL;
    d = disk_new(second.log);
    world_init(&w, second.log);
    disk_run(d, second.opened);
    disk_pick(d, DISK_LOST, 0);
    disk_world(d, &w);
    replay_clean(cut.dir);
    replay_build(&w, cut.dir);
    replay_place(3, 1);
    must_why(check_writing(&cut.w, &seen), "opens after the cut");
    work_close_quietly(&cut.w);
    must_why(content_is(cut.o, &second.o->base, &seen) ||
                 check_failed("%s", check_difference(cut.o, &second.o->base, &seen)),
             "what was there when it had been opened");
    world_free(&w);
    disk_free(d);
}

/* ---- damage and torn tails -------------------------------------------- */

enum { BATCH = 6 };

static void script_marks(struct work *w)
{
    must_ok(work_open(w));
    for (uint32_t batch = 0; batch < 3; batch++) {
        for (uint32_t k = batch * BATCH; k < (batch + 1) * BATCH; k++)
            must_ok(work_put(w, k));
        if (batch < 2)
            must_ok(work_sync(w));
    }
}

/* Flip a bit in the middle of the key's value, wherever the heap has it. */
static void damage_value(uint32_t key)
{
    static uint8_t value[VALUE_MOST];
    size_t len = oracle_value(cut.o, key, cut.o->now.version[key], value);
    bool found = false;

    must(len >= 8);
    for (uint32_t node = 0; node < cut.world.files; node++) {
        struct world_file *f = world_file(&cut.world, node);
        uint8_t *at = f->filled ? memmem(f->bytes, f->filled, value, len) : NULL;

        if (at) {
            at[len / 2] ^= 4;
            found = true;
        }
    }
    must(found);
}

static int get_rc(uint32_t key)
{
    static char key_buf[KEY_MOST];
    kist_view *view = NULL;
    int rc =
        kist_get_view(cut.w.bank, (kist_bytes){ key_buf, oracle_key(cut.o, key, key_buf) }, &view);

    kist_view_release(view);
    return rc;
}

static void open_damaged(uint32_t key, enum disk_mode mode)
{
    cut_at(log_count(cut.log));
    disk_pick(cut.disk, mode, 0);
    disk_world(cut.disk, &cut.world);
    damage_value(key);
    build();
    replay_place(2, 1);
    must_ok(work_open_bank(&cut.w, 0, 0));
}

TEST(bad_record_below_a_mark_is_corruption_above_it_a_torn_tail)
{
    kist_stats stats = { .size = sizeof stats };
    struct content seen;

    record(&even, script_marks, test_seed());

    /* In the first batch, of which the second sync's mark says it is durable:
     * that record is damaged, and all the others are as good as before. */
    open_damaged(2, DISK_KEPT);
    must_ok(kist_stat(cut.w.bank, &stats));
    must(stats.damaged_bytes > 0);
    for (uint32_t k = 0; k < 3 * BATCH; k++)
        must(k == 2 || get_rc(k) == KIST_OK);
    must(get_rc(2) != KIST_OK);
    work_close_quietly(&cut.w);

    /* In the last one, behind every mark: the tail is cut there, without a
     * word about damage. */
    open_damaged(2 * BATCH + 2, DISK_KEPT);
    must_ok(kist_stat(cut.w.bank, &stats));
    must(stats.damaged_bytes == 0);
    for (uint32_t k = 0; k < 3 * BATCH; k++)
        must_rc(get_rc(k), k < 2 * BATCH + 2 ? KIST_OK : KIST_MISS);
    must(check_read(&cut.w, &seen) && check_verify(&cut.w, &seen));
    work_close_quietly(&cut.w);
}

static void script_moved(struct work *w)
{
    must_ok(work_open(w));
    for (uint32_t i = 0; i < 2 * w->o->keys; i++)
        must_ok(work_put(w, i * 5 % w->o->keys));
    must_ok(work_compact(w));
}

/* What cleaning has copied is the only copy: a mark vouches for it before the
 * other one goes, or damage to it would take along what lies behind. */
TEST(damage_to_what_cleaning_has_moved_is_no_torn_tail)
{
    uint8_t value[1024];
    uint32_t tried = 0;

    record(&rolling, script_moved, test_seed());
    for (uint32_t bad = 0; bad < rolling.keys; bad++) {
        if (oracle_value(cut.o, bad, cut.o->now.version[bad], value) < 16)
            continue;
        tried++;
        open_damaged(bad, DISK_LOST); /* a mark that was not synced is no help */
        for (uint32_t k = 0; k < rolling.keys; k++)
            must_rc(get_rc(k), k == bad ? KIST_ECORRUPT : KIST_OK);
        work_close_quietly(&cut.w);
    }
    must(tried > 10);
}

/* ---- sequences -------------------------------------------------------- */

/* Somebody may remember a number that belongs to a record which was cut: it
 * must not come to mean another value (kist_put_if_sequence). */
TEST(sequences_go_on_above_all_that_were_given)
{
    char key[KEY_MOST];
    kist_meta meta;

    record(&even, script_long_tail, test_seed());
    cut_at(log_count(cut.log));
    pick(DISK_LOST, 0);
    replay_place(2, 1);
    must_ok(work_open_bank(&cut.w, 0, 0));
    must_ok(work_put(&cut.w, 1));
    must_ok(kist_get_meta(cut.w.bank, (kist_bytes){ key, oracle_key(cut.o, 1, key) }, &meta));
    must(meta.sequence > cut.o->ops); /* each operation took one at most */
    work_close_quietly(&cut.w);
}

/* ---- clean marks and identities --------------------------------------- */

static void script_clean_close(struct work *w)
{
    must_ok(work_open(w));
    plan_random_writes(w, 60);
    must_ok(work_close(w));
    must_ok(work_open(w));
    plan_random_writes(w, 25);
}

/* The index half written, beside a live file from when it was clean. */
TEST(clean_mark_is_removed_and_synced_before_the_first_store)
{
    record(&even, script_clean_close, test_seed());
    for (uint64_t end = op_number(OP_OPEN, 1)->begin; end <= log_count(cut.log); end += 3) {
        cut_at(end);
        for (size_t i = 0; i < disk_dims(cut.disk); i++) {
            pick(DISK_KEEP_ONE, i);
            must_be_a_prefix(end, 2, 1);
            pick(DISK_DROP_ONE, i);
            must_be_a_prefix(end, 2, 1);
        }
    }
}

/* Cleanly closed, and nothing since: any boot may use the index as it is. */
TEST(a_clean_bank_is_opened_as_it_is)
{
    uint64_t end;

    record(&even, script_clean_close, test_seed());
    end = op_number(OP_CLOSE, 0)->end;
    cut_at(end);
    pick(DISK_LOST, 0);
    replay_place(1, 1);
    must_ok(work_open_bank(&cut.w, 0, 0));
    must(last_recovery() == KIST_RECOVERY_NONE);
    work_close_quietly(&cut.w);
}

/* A container keeps its boot id while its file system is shut down and mounted
 * again: the cache is lost all the same. */
TEST(same_boot_id_but_remounted_is_rebuilt)
{
    uint64_t end;

    record(&rolling, script_clean_close, test_seed());
    end = log_count(cut.log);
    cut_at(end);
    for (uint64_t i = 0; i < 40; i++) {
        pick(DISK_RANDOM, i);
        must_be_a_prefix(end, 1, 2);
    }
    pick(DISK_KEPT, 0);
    replay_place(1, 2);
    must_ok(work_open_bank(&cut.w, 0, 0));
    must(last_recovery() == KIST_RECOVERY_REBUILD);
    work_close_quietly(&cut.w);

    pick(DISK_KEPT, 0);
    replay_place(1, 1); /* a process died, and nothing else happened */
    must_ok(work_open_bank(&cut.w, 0, 0));
    must(last_recovery() == KIST_RECOVERY_REPAIR);
    work_close_quietly(&cut.w);
}

/* Dies with the bank open. */
static void put_and_die(void *arg)
{
    (void)arg;
    must_ok(work_open_bank(&cut.w, 0, 0));
    must_ok(work_put(&cut.w, 1));
    _exit(0);
}

/* Where no mount can be told from the next, nothing but the heap counts: also
 * when it could not be told at the last opening either. */
TEST(without_a_witness_of_the_mount_it_is_rebuilt)
{
    kist_stats stats = { .size = sizeof stats };
    uint64_t first;

    record(&even, script_long_tail, test_seed());
    cut_at(log_count(cut.log));
    pick(DISK_KEPT, 0);
    replay_place(1, 0);
    must_ok(work_open_bank(&cut.w, 0, 0));
    must(last_recovery() == KIST_RECOVERY_REBUILD);
    must_ok(kist_stat(cut.w.bank, &stats));
    first = stats.segments;
    work_close_quietly(&cut.w);
    in_child(put_and_die, NULL);
    must_ok(work_open_bank(&cut.w, 0, 0));
    must(last_recovery() == KIST_RECOVERY_REBUILD);
    must_ok(kist_stat(cut.w.bank, &stats));
    must(stats.segments > first); /* by another rebuild */
    work_close_quietly(&cut.w);
}

/* ---- segments made ahead ---------------------------------------------- */

/* A key whose next value has a length between these. */
static uint32_t key_of_length(const struct work *w, size_t least, size_t most)
{
    for (uint32_t k = 0; k < w->o->keys; k++) {
        size_t len = oracle_value_len(w->o, k, w->o->version + 1);

        if (len >= least && len <= most)
            return k;
    }
    abort();
}

static bool has_prepared(const struct work *w)
{
    const struct live *l = atomic_load(&w->bank->bank->core)->live;

    return shm_peek(&l->prepared) > shm_peek(&l->newest);
}

/* One handle makes segments ahead, the other one does not: so nothing syncs
 * the directory behind it when it passes one over. */
static void script_pass_over(struct work *w)
{
    kist_bank_options opt = { .size = sizeof opt, .durability = KIST_DURABILITY_ALWAYS };
    kist_bank *lazy, *eager;

    must_ok(work_open(w));
    lazy = w->bank;
    must_ok(kist_bank_open(&eager, w->store, w->made.name, &opt));
    for (int round = 0; round < 3; round++) {
        w->bank = lazy;
        do
            must_ok(work_put(w, key_of_length(w, 20000, 100000)));
        while (!has_prepared(w));
        w->bank = eager;
        must_ok(work_put(w, key_of_length(w, 1 << 20, VALUE_MOST)));
        must_ok(work_sync(w));
        must_ok(work_put(w, key_of_length(w, 8, 100000)));
        must_ok(work_sync(w));
    }
}

static bool is_named(uint32_t node)
{
    for (size_t i = 0; i < cut.world.names; i++)
        if (cut.world.name[i].node == node)
            return true;
    return false;
}

/* A large value does not fit into the segment that was made ahead, and gets a
 * later one: the one between is void, with whatever it holds. */
TEST(a_prepared_segment_that_was_passed_over_is_void)
{
    const struct plan plan = { "passed over",
                               { "bank", 1 << 20, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS },
                               200,
                               100000,
                               VALUE_MOST,
                               8,
                               NULL,
                               0 };
    int unlinked = 0, there_again = 0;

    record(&plan, script_pass_over, test_seed());
    for (uint64_t i = 0; i < log_count(cut.log); i++) {
        uint32_t op = 0;

        if (log_event(cut.log, i)->kind != LOG_UNLINK ||
            !is_heap(cut.log, log_event(cut.log, i)->node))
            continue;
        unlinked++;
        while (cut.o->op[op].end <= i)
            op++;
        for (uint32_t last = op + 6; op < last && op < cut.o->ops; op++) {
            uint64_t end = cut.o->op[op].end + 1; /* behind its end: a sync counts then */

            if (end > log_count(cut.log))
                break;
            cut_at(end);
            pick(DISK_KEPT, 0);
            must_be_a_prefix(end, 2, 1);
            pick(DISK_BYTES, 0); /* its unlink is lost, unless that was synced */
            there_again += is_named(log_event(cut.log, i)->node);
            must_be_a_prefix(end, 2, 1);
            pick(DISK_RANDOM, end);
            must_be_a_prefix(end, 2, 1);
        }
    }
    must(unlinked > 0 && there_again > 0);
}
