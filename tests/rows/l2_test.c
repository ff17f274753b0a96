/*
 * L2: dead holders. A writer is killed after every single store to shared
 * memory of every operation; whoever comes next takes over at once, and finds
 * the operation made in full or not at all. A writer that merely stands still
 * is waited for, never robbed, while readers go on. No pid counts: holders
 * live in pid namespaces of their own, and get the pid of a dead one.
 */
#include "support.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/shm.h"

enum { KEYS = 60, SOON_MS = 5000, STEPS_OF_EACH = 60, GETS = 1000 };

/* Versions of the content: all keys old, or changed by the operation. */
enum { OLD = 1, NEW = 2 };

struct scene {
    char *dir;
    _Atomic uint64_t stores;  /* made by the operation so far */
    _Atomic uint64_t total;   /* made by the whole operation */
    _Atomic uint64_t stop_at; /* the store after which to act; 0: never */
    _Atomic bool hold;        /* act: stand still; else: die */
    _Atomic bool standing, go_on, done;
};

struct operation {
    const char *name;
    int (*run)(kist_bank *bank);
    uint64_t touched; /* the one key that it changes, or KEYS for all */
    bool removes;     /* what it touches has no value afterwards */
};

static struct row row = { .id = "L2" };
static struct scene *scene;

/* ---- operations ------------------------------------------------------- */

static kist_bytes content(uint64_t key, uint64_t version)
{
    static char buf[VALUE_CAP];

    return (kist_bytes){ buf, value_make(buf, key, version) };
}

static int put_new(kist_bank *bank)
{
    return kist_put(bank, number(KEYS), content(KEYS, NEW));
}

static int put_over(kist_bank *bank)
{
    return kist_put(bank, number(3), content(3, NEW));
}

static int put_large(kist_bank *bank)
{
    static char buf[20000];

    value_fill(buf, sizeof buf, 4, NEW);
    return kist_put(bank, number(4), (kist_bytes){ buf, sizeof buf });
}

static int insert_new(kist_bank *bank)
{
    return kist_get_or_insert(bank, number(KEYS), content(KEYS, NEW), NULL);
}

static int put_if(kist_bank *bank)
{
    kist_meta meta;

    must_ok(kist_get_meta(bank, number(5), &meta));
    return kist_put_if_sequence(bank, number(5), content(5, NEW), meta.sequence);
}

static int delete_one(kist_bank *bank)
{
    return kist_delete(bank, number(6));
}

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    uint64_t *next = arg;

    if (*next == KEYS)
        return KIST_END;
    *key = number(*next);
    *value = content(*next, NEW);
    ++*next;
    return 0;
}

static int replace_all(kist_bank *bank)
{
    uint64_t next = 0;

    return kist_replace(bank, feed_next, &next);
}

static int sync_all(kist_bank *bank)
{
    return kist_sync(bank);
}

static int compact_all(kist_bank *bank)
{
    return kist_compact(bank, NULL, NULL);
}

enum { NO_KEY = KEYS + 1 };

static const struct operation operations[] = {
    { "put of a new key", put_new, KEYS, false },
    { "put over an old value", put_over, 3, false },
    { "put of a large value", put_large, 4, false },
    { "get_or_insert", insert_new, KEYS, false },
    { "put_if_sequence", put_if, 5, false },
    { "delete", delete_one, 6, true },
    { "clear", kist_clear, UINT64_MAX, true },
    { "replace", replace_all, UINT64_MAX, false },
    { "sync", sync_all, NO_KEY, false },
    { "compact", compact_all, NO_KEY, false },
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

/* ---- a bank with the old content -------------------------------------- */

static kist_bank *open_l2(kist_store *store, int32_t deadline_ms)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .segment_bytes = 8192,
                              .deadline_ms = deadline_ms };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "l2", &opt));
    return bank;
}

/* Every key at OLD, written twice so that there is something to clean, behind
 * a clear and a batch, which cleaning must keep for a while. */
static void fill_old(kist_bank *bank)
{
    uint64_t next = 0;
    int rc;

    must_ok(kist_replace(bank, feed_next, &next));
    must_ok(kist_clear(bank));
    for (int i = 0; i < 2; i++)
        for (uint64_t key = 0; key < KEYS; key++)
            must_ok(kist_put(bank, number(key), content(key, OLD)));
    rc = kist_delete(bank, number(KEYS));
    must(rc == KIST_OK || rc == KIST_MISS);
    rc = kist_delete(bank, text("another"));
    must(rc == KIST_OK || rc == KIST_MISS);
}

/* 0 where the key has no value. */
static uint64_t version_of(kist_bank *bank, uint64_t key)
{
    kist_view *view;
    uint64_t version = 0;
    int rc = kist_get_view(bank, number(key), &view);

    if (rc == KIST_MISS)
        return 0;
    must_ok(rc);
    must(value_check(kist_view_bytes(view), key, &version));
    kist_view_release(view);
    return version;
}

static uint64_t version_after(const struct operation *op, uint64_t key, bool made)
{
    uint64_t old = key < KEYS ? OLD : 0;

    if (!made || (op->touched != key && op->touched != UINT64_MAX))
        return old;
    if (op->removes || (op->touched == UINT64_MAX && key == KEYS))
        return 0;
    return NEW;
}

/* All keys as before the operation, or all as after it. Returns whether it
 * can be seen to be made. */
static bool must_be_made_or_not(kist_bank *bank, const struct operation *op)
{
    bool may[2] = { true, true };

    for (uint64_t key = 0; key <= KEYS; key++) {
        uint64_t version = version_of(bank, key);
        for (int made = 0; made < 2; made++)
            may[made] &= version == version_after(op, key, made);
    }
    if (!may[0] && !may[1])
        test_fail(__FILE__, __LINE__, op->name, "was made by halves");
    return !may[0];
}

/* What a reader sees before anybody takes over must stay. */
static bool look_before_takeover(kist_store *store, const struct operation *op)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };
    kist_bank *reader;
    bool made;

    must_ok(kist_bank_open(&reader, store, "l2", &opt));
    made = must_be_made_or_not(reader, op);
    must_ok(kist_bank_close(reader));
    return made;
}

/* ---- the holder ------------------------------------------------------- */

static void act_at_store(const void *addr, size_t len)
{
    (void)addr, (void)len;
    if (++scene->stores != scene->stop_at)
        return;
    if (!scene->hold)
        (void)raise(SIGKILL);
    scene->standing = true;
    while (!scene->go_on)
        (void)usleep(100);
}

/* Opened, it waits for no one; then one operation under the hook. */
static void hold(void *arg)
{
    const struct operation *op = arg;
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, SOON_MS);

    scene->stores = 0;
    shm_seam = act_at_store;
    must_ok(op->run(bank));
    shm_seam = NULL;
    scene->total = scene->stores;
    scene->done = true;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void tell_where(const char *name, uint64_t at)
{
    static char note[80];

    (void)snprintf(note, sizeof note, "%s, store %llu", name, (unsigned long long)at);
    test_case = row.cases + 1;
    test_note = note;
}

static void reset(uint64_t stop_at, bool stand_still)
{
    scene->stores = 0;
    scene->stop_at = stop_at;
    scene->hold = stand_still;
    scene->standing = scene->go_on = scene->done = false;
}

/* Stores of the whole operation, by letting it run through once. */
static uint64_t count_stores(kist_bank *bank, const struct operation *op)
{
    fill_old(bank);
    reset(0, false);
    in_child(hold, (void *)op);
    must(scene->total > 0 || op->touched == NO_KEY);
    return scene->total;
}

/* ---- killed at every store -------------------------------------------- */

static void kill_at(kist_store *store, kist_bank **bank, const struct operation *op, uint64_t at)
{
    bool alone = at % 3 == 0; /* nobody lives when the next one comes */
    bool seen;
    int status;

    tell_where(op->name, at);
    row.cases++;
    fill_old(*bank);
    if (alone)
        must_ok(kist_bank_close(*bank));
    reset(at, false);
    status = child_wait(child_start(hold, (void *)op));
    must(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : status == 0);
    seen = look_before_takeover(store, op);
    if (alone)
        *bank = open_l2(store, SOON_MS);
    must_ok(kist_put(*bank, text("another"), text("key"))); /* takes over */
    must(!seen || must_be_made_or_not(*bank, op));
    (void)must_be_made_or_not(*bank, op);
    must_verify(*bank);
}

static void kill_at_stores_of(const struct operation *op)
{
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, SOON_MS);
    uint64_t total = count_stores(bank, op), wanted = test_scaled(STEPS_OF_EACH);
    uint64_t step = total > wanted ? total / wanted : 1;

    for (uint64_t at = 1; at <= total; at += step)
        kill_at(store, &bank, op, at);
    row.states += total;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void scene_make(void)
{
    scene = shared_memory(sizeof *scene);
    scene->dir = tmp_dir(TMP_FAST);
}

static void scene_end(void)
{
    tmp_remove(scene->dir);
    free(scene->dir);
    must(munmap(scene, sizeof *scene) == 0);
}

TEST(a_holder_killed_at_any_store_is_followed_at_once)
{
    scene_make();
    for (size_t i = 0; i < OPERATIONS; i++)
        kill_at_stores_of(&operations[i]);
    scene_end();
}

/* Or the word that a dead one left would seem to be held by whoever sits on
 * its number now. */
TEST(a_seats_number_is_never_given_twice)
{
    const struct operation *op = &operations[1];

    scene_make();
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, SOON_MS);
    uint64_t at = count_stores(bank, op) / 2 + 1;
    for (int i = 0; i < 6; i++) {
        int status;

        fill_old(bank);
        must_ok(kist_bank_close(bank)); /* each is alone, and the first to come */
        reset(at, false);
        tell_where(op->name, at);
        row.cases++;
        status = child_wait(child_start(hold, (void *)op));
        must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        bank = open_l2(store, SOON_MS);
        must_ok(kist_put(bank, text("another"), text("key")));
        (void)must_be_made_or_not(bank, op);
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    scene_end();
}

/* Both leave the content as it is. */
static void close_at_store(void *arg)
{
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, SOON_MS);

    (void)arg;
    must_ok(kist_put(bank, number(3), content(3, OLD)));
    shm_seam = act_at_store;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    shm_seam = NULL;
    scene->total = scene->stores;
}

static void open_at_store(void *arg)
{
    kist_store *store = open_store(scene->dir);

    (void)arg;
    shm_seam = act_at_store;
    kist_bank *bank = open_l2(store, SOON_MS);
    must_ok(kist_put(bank, number(3), content(3, OLD)));
    shm_seam = NULL;
    scene->total = scene->stores;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void die_while(void (*body)(void *))
{
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, SOON_MS);
    uint64_t total;

    fill_old(bank);
    must_ok(kist_bank_close(bank));
    reset(0, false);
    in_child(body, NULL);
    total = scene->total;
    for (uint64_t at = 1; at <= total; at++) {
        reset(at, false);
        tell_where("opening or closing", at);
        row.cases++;
        int status = child_wait(child_start(body, NULL));
        must(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : status == 0);
        bank = open_l2(store, SOON_MS);
        (void)must_be_made_or_not(bank, &operations[OPERATIONS - 1]);
        must_verify(bank);
        must_ok(kist_bank_close(bank));
    }
    must_ok(kist_store_close(store));
}

TEST(a_holder_killed_at_any_store_of_opening_or_closing_is_followed_at_once)
{
    scene_make();
    die_while(open_at_store);
    die_while(close_at_store);
    scene_end();
}

/* ---- standing still --------------------------------------------------- */

static void await(const _Atomic bool *flag, const _Atomic bool *or_flag)
{
    while (!*flag && !*or_flag)
        (void)usleep(100);
}

/* Readers go on, another writer waits until its deadline, and when the holder
 * goes on its operation ends well. Returns whether the lock was held. */
static bool stand_at(kist_bank *bank, const struct operation *op, uint64_t at)
{
    bool held = false;
    pid_t pid;

    fill_old(bank);
    reset(at, true);
    tell_where(op->name, at);
    row.cases++;
    pid = child_start(hold, (void *)op);
    await(&scene->standing, &scene->done);
    for (uint64_t i = 0; i < GETS; i++) {
        uint64_t version = version_of(bank, i % KEYS);
        must(version == version_after(op, i % KEYS, false) ||
             version == version_after(op, i % KEYS, true));
    }
    if (scene->standing) {
        int rc = kist_put(bank, number(KEYS - 1), content(KEYS - 1, OLD));
        must(rc == KIST_OK || rc == KIST_EBUSY);
        held = rc == KIST_EBUSY;
    }
    scene->go_on = true;
    must_end_well(pid);
    must(scene->done);
    must_verify(bank);
    return held;
}

TEST(a_holder_that_stands_still_is_waited_for_and_never_robbed)
{
    uint64_t held = 0;

    scene_make();
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, 50);
    for (size_t i = 0; i < 6; i++) {
        uint64_t total = count_stores(bank, &operations[i]), wanted = test_scaled(8);
        uint64_t step = total > wanted ? total / wanted : 1;
        for (uint64_t at = 1; at <= total; at += step)
            held += stand_at(bank, &operations[i], at);
    }
    must(held > 0);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    scene_end();
}

/* ---- pid namespaces --------------------------------------------------- */

static void need_own_pids(void)
{
    if (geteuid() != 0)
        test_skip("only root can make a pid namespace");
    if (unshare(CLONE_NEWPID) != 0)
        test_skip("no pid namespace of one's own is allowed here");
}

static void take_pid(pid_t wanted)
{
    char text_of[16];
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    int n = snprintf(text_of, sizeof text_of, "%d", (int)wanted - 1);

    if (fd < 0 || write(fd, text_of, (size_t)n) != n)
        test_skip("pids can't be chosen here");
    (void)close(fd);
}

static void stand_by(void *arg)
{
    (void)arg;
    scene->standing = true;
    while (!scene->go_on)
        (void)usleep(100);
}

/* The first process of a namespace: its child holds the lock and is killed;
 * another gets the same pid and lives on. */
static void reuse_pid(void *arg)
{
    pid_t holder = child_start(hold, arg), later;

    (void)child_wait(holder);
    take_pid(holder);
    later = child_start(stand_by, NULL);
    must(later == holder);
    must_end_well(later);
}

static void hold_in_namespace(void *arg)
{
    must_end_well(child_start(hold, arg));
}

struct elsewhere {
    void (*body)(void *);
    void *arg;
};

static void enter_namespace(void *arg)
{
    const struct elsewhere *e = arg;

    need_own_pids();
    must_end_well(child_start(e->body, e->arg));
}

static uint64_t middle_of(kist_bank *bank, const struct operation *op)
{
    return count_stores(bank, op) / 2 + 1;
}

TEST(a_living_process_with_the_pid_of_a_dead_holder_is_not_taken_for_it)
{
    const struct operation *op = &operations[1];
    struct elsewhere e = { reuse_pid, (void *)op };
    pid_t pid;
    int status;

    scene_make();
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, SOON_MS);
    uint64_t at = middle_of(bank, op);
    fill_old(bank);
    reset(at, false);
    pid = child_start(enter_namespace, &e);
    while (!scene->standing && waitpid(pid, &status, WNOHANG) == 0)
        (void)usleep(100);
    if (scene->standing) {
        (void)must_be_made_or_not(bank, op);
        must_ok(kist_put(bank, number(1), content(1, OLD)));
        scene->go_on = true;
        must_end_well(pid);
        row.cases++;
    } else {
        row.skipped++;
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    scene_end();
}

TEST(a_holder_in_another_pid_namespace_is_neither_robbed_nor_waited_for_in_vain)
{
    const struct operation *op = &operations[1];
    struct elsewhere e = { hold_in_namespace, (void *)op };
    pid_t pid;
    int status;

    scene_make();
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_l2(store, 200);
    uint64_t at = middle_of(bank, op);
    fill_old(bank);
    reset(at, true);
    pid = child_start(enter_namespace, &e);
    while (!scene->standing && waitpid(pid, &status, WNOHANG) == 0)
        (void)usleep(100);
    if (scene->standing) {
        must_rc(kist_put(bank, number(1), content(1, OLD)), KIST_EBUSY);
        scene->go_on = true;
        must_end_well(pid);
        must_ok(kist_put(bank, number(1), content(1, OLD)));
        must(version_of(bank, 3) == NEW);
        row.cases++;
    } else {
        row.skipped++;
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    scene_end();
}

TEST(the_row_is_told)
{
    row_print(&row);
}
