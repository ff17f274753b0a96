/*
 * L1: fork, exec and reopen in every state. A handle that was made before
 * fork() answers KIST_EFORK to every call, in whatever state the parent and
 * its threads were; the child opens its own and works beside the parent. A
 * holder's seat dies with it, though a child of its lives on, and with exec.
 */
#include "calls.h"
#include "support.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KEYS = 300,
    SOON_MS = 5000,
    TURNS_MOST = 20000, /* whoever waits for a busy one's end in vain must not fill the disk */
};

/* What the parent holds when it forks. */
struct parent {
    struct fixture f;
    kist_view *view;
    kist_iter *iter;
    bool reading; /* in a read section */
    bool quiet;   /* nobody writes: the child can compare the files */
    bool sweeps;  /* a thread replaces the content: what is put may be gone */
    atomic_bool stop;
    _Atomic uint64_t turns; /* of the busy thread */
    pthread_t thread;
};

static struct row row = { .id = "L1" };

static kist_bank_options small(void)
{
    return (kist_bank_options){ .size = sizeof(kist_bank_options), .segment_bytes = 16384 };
}

static void fill(kist_bank *bank, uint64_t version)
{
    char buf[VALUE_CAP];

    for (uint64_t key = 0; key < KEYS; key++)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) }));
}

/* ---- states ----------------------------------------------------------- */

static void hold_nothing(struct parent *p)
{
    (void)p;
}

static void hold_unsynced(struct parent *p)
{
    fill(p->f.bank, 2);
}

static void hold_synced(struct parent *p)
{
    fill(p->f.bank, 2);
    must_ok(kist_sync(p->f.bank));
}

static void hold_section(struct parent *p)
{
    kist_bytes value;

    p->reading = true;
    must_ok(kist_read_begin());
    must_ok(kist_get(p->f.bank, number(1), &value));
}

static void hold_view(struct parent *p)
{
    must_ok(kist_get_view(p->f.bank, number(1), &p->view));
}

static void hold_iterator(struct parent *p)
{
    kist_entry entry;

    must_ok(kist_iter_open(&p->iter, p->f.bank));
    must_ok(kist_iter_next(p->iter, &entry));
}

static void hold_read_only_handle(struct parent *p)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };

    must_ok(kist_bank_close(p->f.bank));
    must_ok(kist_bank_open(&p->f.bank, p->f.store, "bank", &opt));
}

static void hold_idle_bank(struct parent *p)
{
    kist_store_options opt = { .size = sizeof opt, .max_open_banks = 1 };
    kist_bank *other;

    must_ok(kist_bank_close(p->f.bank));
    must_ok(kist_store_close(p->f.store));
    must_ok(kist_store_open(&p->f.store, p->f.dir, &opt));
    p->f.bank = open_bank(p->f.store, "bank");
    fill(p->f.bank, 2);
    other = open_bank(p->f.store, "another");
    put_text(other, "k", "v");
    must_ok(kist_bank_close(other));
}

/* ---- states with a thread in the middle of an operation ---------------- */

static int stop_after_some(uint64_t done, uint64_t all, void *arg)
{
    (void)done, (void)all, (void)arg;
    return 0;
}

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    static char buf[VALUE_CAP];
    uint64_t *next = arg;

    if (*next == KEYS)
        return KIST_END;
    *key = number(*next);
    *value = (kist_bytes){ buf, value_make(buf, *next, 3) };
    ++*next;
    return 0;
}

static void turn_put(struct parent *p)
{
    fill(p->f.bank, p->turns + 3);
}

static void turn_delete(struct parent *p)
{
    for (uint64_t key = 0; key < KEYS; key++) {
        int rc = kist_delete(p->f.bank, number(key));
        must(rc == KIST_OK || rc == KIST_MISS);
    }
    fill(p->f.bank, 4);
}

static void turn_compact(struct parent *p)
{
    fill(p->f.bank, p->turns + 3);
    must_ok(kist_compact(p->f.bank, stop_after_some, NULL));
}

static void turn_sync(struct parent *p)
{
    put_text(p->f.bank, "k", "v");
    must_ok(kist_sync(p->f.bank));
}

static void turn_replace(struct parent *p)
{
    uint64_t next = 0;

    must_ok(kist_replace(p->f.bank, feed_next, &next));
}

static void turn_open(struct parent *p)
{
    kist_store *store = open_store(p->f.dir);
    kist_bank *bank = open_bank(store, "bank");

    must_ok(kist_put(bank, number(1), text("from a second handle")));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void turn_read(struct parent *p)
{
    kist_view *view;
    kist_bytes value;

    must_ok(kist_get_view(p->f.bank, number(5), &view));
    kist_view_release(view);
    must_ok(kist_read_begin());
    must_ok(kist_get(p->f.bank, number(6), &value));
    kist_read_end();
}

static void turn_walk(struct parent *p)
{
    kist_iter *iter;
    kist_entry entry;

    must_ok(kist_iter_open(&iter, p->f.bank));
    while (kist_iter_next(iter, &entry) == KIST_OK)
        ;
    kist_iter_close(iter);
}

static void turn_fail(struct parent *p)
{
    kist_bank *bank;

    must_rc(kist_bank_open(&bank, p->f.store, "missing", NULL), KIST_ENOBANK);
}

struct state {
    const char *name;
    void (*hold)(struct parent *p);
    void (*turn)(struct parent *p);
};

static const struct state states[] = {
    { "a fresh handle", hold_nothing, NULL },
    { "unsynced puts", hold_unsynced, NULL },
    { "synced puts", hold_synced, NULL },
    { "a read section", hold_section, NULL },
    { "a view", hold_view, NULL },
    { "an iterator", hold_iterator, NULL },
    { "a read-only handle", hold_read_only_handle, NULL },
    { "a bank closed as idle", hold_idle_bank, NULL },
    { "a thread that puts", hold_nothing, turn_put },
    { "a thread that deletes", hold_nothing, turn_delete },
    { "a thread that compacts", hold_nothing, turn_compact },
    { "a thread that syncs", hold_nothing, turn_sync },
    { "a thread that replaces", hold_nothing, turn_replace },
    { "a thread that opens and closes", hold_nothing, turn_open },
    { "a thread that reads", hold_nothing, turn_read },
    { "a thread that walks", hold_nothing, turn_walk },
    { "a thread that fails", hold_nothing, turn_fail },
};
enum { STATES = sizeof states / sizeof *states };

struct busy {
    struct parent *p;
    void (*turn)(struct parent *p);
};

static void *be_busy(void *arg)
{
    struct busy *busy = arg;

    while (!busy->p->stop && busy->p->turns < TURNS_MOST) {
        busy->turn(busy->p);
        busy->p->turns++;
    }
    return NULL;
}

/* ---- the child -------------------------------------------------------- */

static void use_inherited(struct parent *p)
{
    kist_entry entry;

    if (p->reading)
        kist_read_end();
    calls_must_say(p->f.bank, KIST_EFORK);
    store_calls_must_say(p->f.store, KIST_EFORK);
    if (p->iter) {
        must_rc(kist_iter_next(p->iter, &entry), KIST_EFORK);
        kist_iter_close(p->iter);
    }
    (void)kist_bank_close(p->f.bank);
    (void)kist_store_close(p->f.store);
}

static void use_own(struct parent *p, const char *key)
{
    kist_store *store = open_store(p->f.dir);
    kist_bank *bank = open_bank(store, "bank");
    kist_bytes value;
    int rc;

    must_ok(kist_read_begin());
    rc = kist_get(bank, number(7), &value);
    kist_read_end();
    must(rc == KIST_OK || rc == KIST_MISS); /* a thread may be deleting it */
    put_text(bank, key, "by the child");
    if (!p->sweeps)
        must_hold(bank, key, "by the child");
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void grandchild(void *arg)
{
    use_own(arg, "grandchild");
}

/* Odd cases use what they inherited first, even ones open their own first. */
static void child(void *arg)
{
    struct parent *p = arg;
    uint64_t before = p->quiet ? tree_hash(p->f.dir) : 0;

    (void)alarm(60); /* an inherited lock would make it wait for ever */
    if (row.cases % 2) {
        use_inherited(p);
        must(!p->quiet || tree_hash(p->f.dir) == before);
        use_own(p, "child");
    } else {
        use_own(p, "child");
        in_child(grandchild, p);
        use_inherited(p);
    }
}

/* ---- a case ----------------------------------------------------------- */

static void let_go(struct parent *p)
{
    if (p->reading)
        kist_read_end();
    if (p->iter)
        kist_iter_close(p->iter);
    kist_view_release(p->view);
    p->iter = NULL, p->view = NULL;
}

static void check_afterwards(struct parent *p)
{
    kist_bank *bank = open_bank(p->f.store, "bank");

    if (!p->sweeps)
        must_hold(bank, "child", "by the child");
    put_text(bank, "parent", "goes on");
    must_hold(bank, "parent", "goes on");
    must_verify(bank);
    must_ok(kist_bank_close(bank));
}

static void fork_in_state(const struct state *state)
{
    kist_bank_options opt = small();
    struct parent p = { .f = fixture_open_with(&opt),
                        .quiet = state->turn == NULL,
                        .sweeps = state->turn == turn_replace };
    struct busy busy = { &p, state->turn };
    uint64_t turns;

    fill(p.f.bank, 1);
    state->hold(&p);
    if (state->turn) {
        must(pthread_create(&p.thread, NULL, be_busy, &busy) == 0);
        for (turns = 0; turns < 1 + row.cases % 5; turns = p.turns)
            (void)sched_yield();
    }
    in_child(child, &p);
    p.stop = true;
    if (state->turn)
        must(pthread_join(p.thread, NULL) == 0);
    let_go(&p);
    check_afterwards(&p);
    fixture_close(&p.f);
}

TEST(inherited_handles_say_so_in_every_state_and_own_ones_work)
{
    uint64_t rounds = test_scaled(10);

    for (uint64_t n = 0; n < rounds; n++)
        for (size_t i = 0; i < STATES; i++) {
            test_case = ++row.cases;
            fork_in_state(&states[i]);
        }
}

/* ---- seats ------------------------------------------------------------ */

struct holder {
    char *dir;
    _Atomic uint64_t puts;
    _Atomic bool forked;
    int pipe[2], echo[2]; /* to the holder, and back */
};

static struct holder *holder_make(void)
{
    struct holder *h = shared_memory(sizeof *h);

    h->dir = tmp_dir(TMP_FAST);
    must(pipe(h->pipe) == 0 && pipe(h->echo) == 0);
    return h;
}

/* Closing the pipe ends who reads from it. */
static void holder_let_go(struct holder *h)
{
    for (int i = 0; i < 2; i++)
        (void)close(h->pipe[i]), (void)close(h->echo[i]);
}

static void holder_end(struct holder *h)
{
    tmp_remove(h->dir);
    free(h->dir);
    must(munmap(h, sizeof *h) == 0);
}

static void open_and_fill(const struct holder *h, kist_store **store, kist_bank **bank)
{
    *store = open_store(h->dir);
    *bank = open_bank(*store, "bank");
    fill(*bank, 1);
}

/* Waits until the test closes its end of the pipe. */
static void live_on(void *arg)
{
    struct holder *h = arg;
    char byte;

    (void)prctl(PR_SET_PDEATHSIG, 0);
    (void)close(h->pipe[1]);
    h->forked = true;
    (void)!read(h->pipe[0], &byte, 1);
}

static void hold_and_put(void *arg)
{
    struct holder *h = arg;
    kist_store *store;
    kist_bank *bank;

    open_and_fill(h, &store, &bank);
    (void)child_start(live_on, h);
    while (h->puts < TURNS_MOST) {
        fill(bank, h->puts + 2);
        h->puts++;
    }
    (void)pause();
}

static kist_bank *open_soon(kist_store *store)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .deadline_ms = SOON_MS };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    return bank;
}

static void await_puts(const struct holder *h, uint64_t puts)
{
    while (!h->forked || h->puts < puts)
        (void)usleep(100);
}

/* `joined`: this process has the bank open already when the holder dies. */
static void kill_holder(bool joined, uint64_t n)
{
    struct holder *h = holder_make();
    pid_t pid = child_start(hold_and_put, h);
    kist_store *store = open_store(h->dir);
    kist_bank *bank = NULL;

    await_puts(h, n % 20);
    if (joined)
        bank = open_soon(store);
    child_kill(pid);
    if (!joined)
        bank = open_soon(store);
    put_text(bank, "k", "after the death");
    must_hold(bank, "k", "after the death");
    must(count_of(bank) == KEYS + 1);
    must_verify(bank);
    holder_let_go(h); /* the child that lived on ends */
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    holder_end(h);
}

TEST(a_killed_holder_is_followed_though_its_child_lives_on)
{
    uint64_t rounds = test_scaled(20);

    for (uint64_t n = 0; n < rounds; n++) {
        test_case = ++row.cases;
        kill_holder(n % 2 == 0, n);
    }
}

static void must_have_no_descriptor_of(pid_t pid, const char *dir)
{
    char name[64], path[512], to[4096];
    struct dirent *entry;
    DIR *d;

    (void)snprintf(name, sizeof name, "/proc/%d/fd", (int)pid);
    d = opendir(name);
    must(d != NULL);
    while ((entry = readdir(d)) != NULL) {
        (void)snprintf(path, sizeof path, "%s/%s", name, entry->d_name);
        ssize_t n = readlink(path, to, sizeof to - 1);
        if (n <= 0)
            continue;
        to[n] = '\0';
        must(strncmp(to, dir, strlen(dir)) != 0);
    }
    (void)closedir(d);
}

/* The process lives on as another program, which knows nothing of a bank. */
static void hold_and_exec(void *arg)
{
    struct holder *h = arg;
    kist_store *store;
    kist_bank *bank;

    open_and_fill(h, &store, &bank);
    (void)close(h->pipe[1]);
    (void)dup2(h->pipe[0], 0);
    (void)dup2(h->echo[1], 1);
    (void)execl("/bin/cat", "cat", (char *)NULL);
    _exit(1);
}

/* It runs when it answers: the kernel lets go of the old program's maps, and
 * so of the seat, last of all. */
static void await_exec(const struct holder *h)
{
    char byte = 'x';

    must(write(h->pipe[1], &byte, 1) == 1 && read(h->echo[0], &byte, 1) == 1);
}

TEST(exec_gives_up_the_seat_and_all_descriptors)
{
    uint64_t rounds = test_scaled(10);

    for (uint64_t n = 0; n < rounds; n++) {
        struct holder *h = holder_make();
        pid_t pid = child_start(hold_and_exec, h);

        test_case = ++row.cases;
        await_exec(h);
        must_have_no_descriptor_of(pid, h->dir);
        kist_store *store = open_store(h->dir);
        kist_bank *bank = open_soon(store);
        kist_stats stats = { .size = sizeof stats };
        put_text(bank, "k", "v");
        must(count_of(bank) == KEYS + 1);
        must_ok(kist_stat(bank, &stats));
        must(stats.writers == 1);
        holder_let_go(h);
        must_end_well(pid);
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
        holder_end(h);
    }
}

TEST(the_row_is_told)
{
    row_print(&row);
}
