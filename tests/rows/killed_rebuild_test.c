/*
 * A rebuild that is killed, or given up, leaves a bank in which nothing is
 * lost and which goes on at once: for who comes next, for who had it open
 * meanwhile, and for a later rebuild of the same heap. The killing is done at
 * each system call that changes a file, and at each store into kist.live.
 */
#include "bank/core.h"
#include "base/os.h"
#include "seam/check.h"
#include "seam/disk.h"
#include "seam/record.h"
#include "seam/replay.h"
#include "seam/story.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const struct plan small = {
    "killed rebuild", { "bank", 4096, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 20, 300, 0, 0, NULL, 0
};

/* Keys enough for blocks of the index to be split, and segments so large that
 * a put seldom needs another one. */
static const struct plan splitting = {
    "splitting", { "bank", 65536, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 1000, 30, 0, 0, NULL, 0
};

/* A nested bank's directory stays when it is dropped. */
static const struct plan nested = {
    "nested", { "in/bank", 4096, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 20, 300, 0, 0, NULL, 0
};

static uint64_t cases;

/* Who has the bank open while a is killed. */
enum company { NOBODY, A_WRITER, A_READER };

/* What the bank is like before: with an active segment that has records, with one that has
 * none, which a rebuild takes for void, or with more segments than the first
 * page of kist.live has accounts for. */
enum before { USED, EMPTY_TAIL, MANY_SEGMENTS, BEFORES };

static struct story story;

/* The store alone stays open. */
static int64_t act_close_bank(struct work *w, int64_t arg)
{
    int rc = kist_bank_close(w->bank);

    (void)arg;
    w->bank = NULL;
    return rc;
}

static void begin(const struct plan *plan, enum before before, enum company company)
{
    story_begin(&story, plan, 2000);
    for (uint32_t i = 0; i < (before == MANY_SEGMENTS ? 1800 : 30); i++)
        actor_must(&story.a, act_put, i % 20, KIST_OK);
    if (before != USED)
        actor_must(&story.a, act_repair, 0, KIST_OK);
    if (company != NOBODY) {
        story.b = actor_start(&story.w);
        actor_must(&story.b, act_join, company == A_READER, KIST_OK);
    }
    if (company != A_WRITER) { /* a itself would be company */
        actor_must(&story.a, act_close_bank, 0, KIST_OK);
        if (before != USED) /* a close leaves a mark: empty again */
            actor_must(&story.a, act_repair, 0, KIST_OK);
    }
}

/* The operation that never came back, or failed, had nothing to change. */
static void forget_last(void)
{
    struct op *op = &story.o->op[story.o->ops - 1];

    op->changes = false;
    op->end = log_count(story.log);
}

/* ---- killed ----------------------------------------------------------- */

static int64_t events_left;
static bool at_each_event;

static void die_at_last(uint64_t index)
{
    const struct log_event *e = log_event(story.log, index);
    const char *name = log_node_name(story.log, e->node, index);

    if (!at_each_event && e->kind == LOG_STORE && strcmp(name, "kist.live") != 0)
        return;
    if (--events_left == 0)
        (void)kill(getpid(), SIGKILL);
}

static int64_t act_repair_killed(struct work *w, int64_t events)
{
    int64_t rc;

    events_left = events;
    record_after = die_at_last;
    rc = work_repair(w);
    record_after = NULL;
    return rc;
}

static void must_hold_all(struct work *w, const char *what)
{
    struct content seen;

    check_why[0] = '\0';
    if (!check_writing(w, &seen) || !content_is(story.o, &story.o->now, &seen))
        test_fail(__FILE__, __LINE__, what,
                  check_why[0] ? check_why : check_difference(story.o, &story.o->now, &seen));
}

/* A copy has other inodes, so that it is rebuilt from its heap alone. */
static void copy_must_hold_all(const char *root)
{
    char *dir = tmp_dir(TMP_FAST);
    struct work w = story.w;

    tree_copy(root, dir);
    w.root = dir;
    must_hold_all(&w, "a copy, rebuilt");
    work_close_quietly(&w);
    tmp_remove(dir);
    free(dir);
}

static void copy_body(void *arg)
{
    (void)arg;
    record_stop();
    copy_must_hold_all(story.root);
}

static void goes_on(struct actor *who)
{
    for (uint32_t k = 0; k < 3; k++)
        actor_must(who, act_put, k, KIST_OK);
    actor_must(who, act_check, 0, 0);
    in_child(copy_body, NULL);
}

/* Whether b, who was there before, is the first to write again. */
static bool killed_at(enum before before, enum company company, bool b_first, int64_t events)
{
    struct actor later;
    int64_t rc;

    begin(&small, before, company);
    rc = actor_do(&story.a, act_repair_killed, events);
    forget_last();
    cases++;
    if (rc == ACTOR_DIED && company == A_READER)
        actor_must(&story.b, act_check, 0, 0);
    if (rc == ACTOR_DIED && b_first)
        goes_on(&story.b);
    later = actor_start(&story.w);
    actor_must(&later, act_join, 0, KIST_OK);
    actor_must(&later, act_check, 0, 0);
    goes_on(&later);
    if (company != NOBODY)
        actor_must(&story.b, act_check, 0, 0);
    if (company == A_WRITER)
        goes_on(&story.b);
    actor_must(&later, act_check, 0, 0);
    actor_kill(&later);
    story_end(&story);
    return rc == ACTOR_DIED;
}

static void killed_everywhere(enum company company, bool b_first)
{
    static char note[80];

    test_note = note;
    for (int before = 0; before < BEFORES; before++) {
        uint64_t step = before == MANY_SEGMENTS ? 5 : 1;

        for (uint64_t at = 1 + (test_seed() + cases) % step;; at += step) {
            test_case = at;
            (void)snprintf(note, sizeof note, "company %d, before %d", (int)company, before);
            if (!killed_at((enum before)before, company, b_first, (int64_t)at))
                break;
        }
    }
    test_note = NULL;
}

TEST(killed_with_nobody_else_there)
{
    killed_everywhere(NOBODY, false);
}

TEST(killed_while_a_writer_has_the_bank_open_who_comes_next_goes_on)
{
    killed_everywhere(A_WRITER, false);
}

TEST(killed_while_a_writer_has_the_bank_open_that_one_goes_on)
{
    killed_everywhere(A_WRITER, true);
}

TEST(killed_while_a_reader_has_the_bank_open_it_reads_what_is_written_later)
{
    killed_everywhere(A_READER, false);
}

/* ---- given up --------------------------------------------------------- */

static int64_t calls_left;

static int stop_at_last(uint64_t done, uint64_t all, void *arg)
{
    (void)done, (void)all;
    return --calls_left == 0 ? *(int *)arg : 0;
}

static int64_t act_repair_stopped(struct work *w, int64_t arg)
{
    int stop = arg < 0 ? -EINTR : 1;

    calls_left = arg < 0 ? -arg : arg;
    return kist_repair(w->store, w->made.name, NULL, stop_at_last, &stop);
}

static void must_be_gone(const char *name)
{
    char *path = path_join(story.root, name);

    must(access(path, F_OK) != 0);
    free(path);
}

/* Nothing of it takes up room on a disk that may be full. */
static void nothing_is_left(void)
{
    must_be_gone("store/bank/kist.heap.new");
    must_be_gone("store/bank/kist.live.new");
    must_be_gone("store/bank/kist.index.2");
}

static bool given_up_at(enum company company, int64_t call)
{
    struct actor later;
    int64_t rc;

    begin(&small, USED, company);
    rc = actor_do(&story.a, act_repair_stopped, call);
    must(rc == 0 || (call < 0 ? rc < 0 : rc == 1));
    if (rc != 0)
        nothing_is_left();
    cases++;
    if (company == A_WRITER)
        goes_on(&story.b);
    later = actor_start(&story.w);
    actor_must(&later, act_join, 0, KIST_OK);
    actor_must(&later, act_check, 0, 0);
    goes_on(&later);
    actor_kill(&later);
    story_end(&story);
    return rc != 0;
}

TEST(given_up_by_its_progress_call_it_changes_nothing)
{
    for (int sign = -1; sign <= 1; sign += 2)
        for (enum company company = NOBODY; company <= A_WRITER; company++)
            for (int64_t call = 1; given_up_at(company, sign * call); call++)
                test_case = (uint64_t)call;
}

/* ---- a power cut ------------------------------------------------------ */

static struct world world;

/* In a child: what the disk holds is opened, goes on, and is rebuilt again. */
static void after_cut_body(void *arg)
{
    struct work w = story.w;

    (void)arg;
    record_stop();
    replay_identities();
    w.root = tmp_dir(TMP_FAST);
    replay_build(&world, w.root);
    replay_place(2, 1);
    must_hold_all(&w, "after the cut");
    for (uint32_t k = 0; k < 5; k++)
        must_ok(work_put(&w, k));
    work_close_quietly(&w);
    copy_must_hold_all(w.root);
    tmp_remove(w.root);
}

/* The bank was closed cleanly: what an old kist.live says would be believed. */
TEST(cut_off_by_a_power_cut_nothing_that_is_written_later_is_lost)
{
    static const enum disk_mode mode[] = { DISK_LOST, DISK_NAMES, DISK_BYTES, DISK_KEPT };
    struct content before;
    struct disk *disk;
    uint64_t start;

    begin(&splitting, USED, NOBODY);
    start = log_count(story.log);
    actor_must(&story.a, act_repair, 0, KIST_OK);
    before = story.o->now;
    disk = disk_new(story.log);
    world_init(&world, story.log);
    for (uint64_t cut = start; cut <= log_count(story.log); cut++) {
        if (cut > start && log_event(story.log, cut - 1)->kind == LOG_STORE)
            continue;
        disk_run(disk, cut);
        for (size_t i = 0; i < sizeof mode / sizeof *mode; i++) {
            test_case = cut;
            disk_pick(disk, mode[i], 0);
            disk_world(disk, &world);
            story.o->now = before;
            in_child(after_cut_body, NULL);
            cases++;
        }
    }
    world_free(&world);
    disk_free(disk);
    story_end(&story);
}

/* ---- nobody writes meanwhile ------------------------------------------ */

static void stop_when_made(uint64_t index)
{
    const struct log_event *e = log_event(story.log, index);

    if (e->kind == LOG_CREATE && strcmp(log_name(story.log, e, 0), "kist.live.new") == 0)
        actor_stop_self();
}

/* Stops when it has read the heap. */
static int64_t act_repair_in_pieces(struct work *w, int64_t arg)
{
    (void)arg;
    record_after = stop_when_made;
    return work_repair(w);
}

static void damage_index(void)
{
    char *path = path_join(story.root, "store/bank/kist.index.1");
    FILE *f = fopen(path, "r+");

    must(f && fwrite("damaged!", 8, 1, f) == 1 && fclose(f) == 0);
    free(path);
}

static void write_while_it_rebuilds(bool damaged)
{
    begin(&small, USED, A_WRITER);
    if (damaged)
        damage_index();
    actor_tell(&story.a, act_repair_in_pieces, 0);
    must(actor_hear(&story.a) == ACTOR_STOPPED);
    actor_must(&story.b, act_put, 1, KIST_EBUSY);
    actor_continue(&story.a);
    actor_rc(__FILE__, __LINE__, "repair", actor_hear(&story.a), KIST_OK);
    goes_on(&story.b);
    story_end(&story);
    cases++;
}

TEST(whoever_writes_meanwhile_waits_also_when_the_index_is_damaged)
{
    write_while_it_rebuilds(false);
    write_while_it_rebuilds(true);
}

/* ---- while another one cleans ----------------------------------------- */

static struct work *cleaner;

/* When the tombstones of a segment are given up, and its file is still there. */
static int stop_when_given_up(int fd, uint32_t node)
{
    const struct live *l = atomic_load(&cleaner->bank->bank->core)->live;

    (void)fd, (void)node;
    if (shm_peek(&l->emptying) != 0) {
        record_sync = NULL;
        actor_stop_self();
    }
    return 0;
}

static int64_t act_compact_in_pieces(struct work *w, int64_t arg)
{
    (void)arg;
    cleaner = w;
    record_sync = stop_when_given_up;
    return work_compact(w);
}

/* A rebuild finds those tombstones again, and leads to them. */
TEST(a_segment_that_was_emptied_before_a_rebuild_is_not_unlinked_behind_it)
{
    begin(&small, USED, A_WRITER);
    for (uint32_t k = 0; k < 10; k++)
        actor_must(&story.b, act_delete, k, KIST_OK);
    for (uint32_t i = 0; i < 20; i++)
        actor_must(&story.b, act_put, 10 + i % 5, KIST_OK);
    actor_tell(&story.b, act_compact_in_pieces, 0);
    must(actor_hear(&story.b) == ACTOR_STOPPED);
    actor_must(&story.a, act_repair, 0, KIST_OK);
    actor_continue(&story.b);
    actor_rc(__FILE__, __LINE__, "compact", actor_hear(&story.b), KIST_OK);
    actor_must(&story.b, act_check, 0, 0);
    actor_must(&story.a, act_check, 0, 0);
    goes_on(&story.b);
    story_end(&story);
    cases++;
}

/* ---- a reader whose kist.live was of no use --------------------------- */

static void damage_live(void)
{
    char *path = path_join(story.root, "store/bank/kist.live");
    FILE *f = fopen(path, "r+");

    must(f && fwrite("damaged!", 8, 1, f) == 1 && fclose(f) == 0);
    free(path);
}

static void remove_live(void)
{
    char *path = path_join(story.root, "store/bank/kist.live");

    must(unlink(path) == 0);
    free(path);
}

static void cut_live(void)
{
    char *path = path_join(story.root, "store/bank/kist.live");

    must(truncate(path, 100) == 0);
    free(path);
}

static void reader_follows(void (*harm)(void), actor_fn what)
{
    begin(&small, USED, NOBODY);
    harm();
    story.b = actor_start(&story.w);
    actor_must(&story.b, act_join, 1, KIST_OK);
    actor_must(&story.b, act_check, 0, 0);
    if (what)
        actor_must(&story.a, what, 0, KIST_OK);
    actor_must(&story.a, act_leave, 0, 0);
    actor_must(&story.a, act_join, 0, KIST_OK);
    actor_must(&story.a, act_put, 3, KIST_OK);
    actor_must(&story.b, act_check, 0, 0);
    story_end(&story);
    cases++;
}

/* It reads by an index of its own until the bank is made anew. */
TEST(a_reader_beside_a_damaged_live_reads_what_is_written_later)
{
    reader_follows(damage_live, NULL);
    reader_follows(damage_live, act_repair);
}

TEST(a_reader_that_found_no_live_reads_what_is_written_later)
{
    reader_follows(remove_live, NULL);
    reader_follows(remove_live, act_repair);
    reader_follows(cut_live, NULL);
    reader_follows(cut_live, act_repair);
}

/* ---- a repair that waits for a drop ----------------------------------- */

static void stop_when_locked(uint64_t index)
{
    const struct log_event *e = log_event(story.log, index);

    if (e->kind == LOG_STORE && e->off == offsetof(struct live, lock) &&
        strcmp(log_node_name(story.log, e->node, index), "kist.live") == 0) {
        record_after = NULL;
        actor_stop_self();
    }
}

/* Stops when it has the bank's lock; the bank that it makes then is another one. */
static int64_t act_drop_and_make(struct work *w, int64_t arg)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE };
    int rc;

    (void)arg;
    record_after = stop_when_locked;
    rc = kist_bank_drop(w->store, w->made.name);
    (void)kist_bank_close(w->bank);
    w->bank = NULL;
    if (rc == KIST_OK)
        rc = kist_bank_open(&w->bank, w->store, w->made.name, &opt);
    if (rc == KIST_OK)
        rc = kist_put(w->bank, text("new"), text("bank"));
    return rc;
}

static int64_t act_holds_new(struct work *w, int64_t arg)
{
    (void)arg;
    must_hold(w->bank, "new", "bank");
    put_text(w->bank, "more", "of it");
    must_hold(w->bank, "more", "of it");
    must(count_of(w->bank) == 2);
    must_verify(w->bank);
    return 0;
}

static int wait_told(uint32_t *word, uint32_t while_is, int timeout_ms)
{
    os_seam.wait = os_real_wait;
    actor_stop_self();
    return os_real_wait(word, while_is, timeout_ms);
}

static int64_t act_repair_waiting(struct work *w, int64_t arg)
{
    (void)arg;
    os_seam.wait = wait_told;
    return work_repair(w);
}

TEST(a_repair_that_waited_for_a_drop_leaves_the_next_bank_of_that_name_alone)
{
    begin(&nested, USED, A_WRITER);
    actor_tell(&story.b, act_drop_and_make, 0);
    must(actor_hear(&story.b) == ACTOR_STOPPED);
    actor_tell(&story.a, act_repair_waiting, 0);
    must(actor_hear(&story.a) == ACTOR_STOPPED);
    actor_continue(&story.b);
    actor_rc(__FILE__, __LINE__, "drop", actor_hear(&story.b), KIST_OK);
    actor_continue(&story.a);
    actor_rc(__FILE__, __LINE__, "repair", actor_hear(&story.a), KIST_EGONE);
    actor_must(&story.b, act_holds_new, 0, 0);
    story_end(&story);
    cases++;
}

static int lock_told(int fd, enum os_lock_kind kind, uint64_t from, uint64_t len, bool wait)
{
    if (kind == OS_LOCK_EXCLUSIVE && from == SEAT_RECOVERY) {
        os_seam.lock = os_real_lock;
        actor_stop_self();
    }
    return os_real_lock(fd, kind, from, len, wait);
}

static int64_t act_join_waiting(struct work *w, int64_t arg)
{
    os_seam.lock = lock_told;
    return act_join(w, arg);
}

/* It knows the bank by what it read before it had the recovery lock. */
TEST(an_open_that_waited_for_a_drop_leaves_the_next_bank_of_that_name_alone)
{
    int64_t rc;

    begin(&nested, USED, A_WRITER);
    actor_must(&story.a, act_close_bank, 0, KIST_OK);
    actor_tell(&story.a, act_join_waiting, 0);
    must(actor_hear(&story.a) == ACTOR_STOPPED);
    actor_tell(&story.b, act_drop_and_make, 0);
    must(actor_hear(&story.b) == ACTOR_STOPPED);
    actor_continue(&story.b);
    actor_rc(__FILE__, __LINE__, "drop", actor_hear(&story.b), KIST_OK);
    actor_must(&story.b, act_close_bank, 0, KIST_OK);
    actor_continue(&story.a);
    rc = actor_hear(&story.a);
    actor_rc(__FILE__, __LINE__, "join", rc, KIST_ENOBANK);
    actor_must(&story.b, act_join, 0, KIST_OK);
    actor_must(&story.b, act_holds_new, 0, 0);
    story_end(&story);
    cases++;
}

/* ---- a repair that fails ---------------------------------------------- */

static int no_descriptor_left(int dir, const char *path, int flags, uint32_t mode)
{
    (void)dir, (void)path, (void)flags, (void)mode;
    return -EMFILE;
}

static int64_t act_put_without_descriptors(struct work *w, int64_t key)
{
    int (*open_under)(int dir, const char *path, int flags, uint32_t mode) = os_seam.open_under;
    int64_t rc;

    os_seam.open_under = no_descriptor_left;
    rc = work_put(w, (uint32_t)key);
    os_seam.open_under = open_under;
    return rc;
}

/* New keys, so that blocks of the index are split and segments begun. */
static int64_t act_puts_killed(struct work *w, int64_t events)
{
    int64_t rc = KIST_OK;

    events_left = events;
    at_each_event = true;
    record_after = die_at_last;
    for (uint32_t k = 0; k < w->o->keys && rc == KIST_OK; k++)
        rc = work_put(w, k);
    return rc;
}

/* What became of the put that was killed: all of it or nothing. */
static int64_t act_settle(struct work *w, int64_t index)
{
    struct op *op = &w->o->op[index];
    struct content seen;

    if (!check_read(w, &seen))
        return -1;
    op->end = op->begin;
    op->changes = seen.version[op->key] == op->version || seen.version[op->key] == VERSION_EMPTY;
    content_apply(w->o, &w->o->now, op);
    return 0;
}

/* Whoever can't repair what a dead writer left must not let the next one go on
 * as if nothing had been left. */
static bool repair_fails_at(int64_t events, uint64_t *failed)
{
    uint32_t killed;
    int64_t rc;

    begin(&splitting, USED, A_WRITER);
    rc = actor_do(&story.a, act_puts_killed, events);
    cases++;
    if (rc == ACTOR_DIED) {
        killed = story.o->ops - 1;
        *failed += actor_do(&story.b, act_put_without_descriptors, 0) < 0;
        actor_must(&story.b, act_put, 0, KIST_OK);
        actor_must(&story.b, act_settle, killed, 0);
        actor_must(&story.b, act_check, 0, 0);
        goes_on(&story.b);
    }
    story_end(&story);
    return rc == ACTOR_DIED;
}

TEST(a_repair_that_fails_is_made_again_by_the_next_writer)
{
    int64_t at = 1, step = test_scaled(100) < 100 ? 401 : 97; /* slow under the sanitizers */
    uint64_t failed = 0;

    for (; repair_fails_at(at, &failed); at += step)
        test_case = (uint64_t)at;
    must(failed > 10);
    printf("%llu cases\n", (unsigned long long)cases);
}
