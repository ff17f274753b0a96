/*
 * S1: processes hold snapshots and open cursors, read-only ones too, while another
 * one writes and yet another compacts; now and then all of them are killed. What a
 * reader sees must always be one moment, and stay it; and nothing may be kept for
 * the dead.
 */
#include "ledger.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READERS = 3, WORKERS = READERS + 2, HELD = 3, IN_A_ROUND = 60 };

struct scene {
    const char *dir;
    uint32_t index;
    uint64_t round;
    _Atomic uint64_t checks; /* moments that were looked at */
    _Atomic uint64_t writes, compactions, mended;
};

struct worker {
    struct scene *scene;
    int which;
    pid_t pid;
};

static struct row row = { .id = "S1" };

static kist_bank *open_s1(const struct scene *scene, kist_store *store, uint32_t flags)
{
    kist_bank_options opt = {
        .size = sizeof opt, .flags = flags, .index = scene->index, .segment_bytes = 65536
    };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "s1", &opt));
    return bank;
}

/* ---- who writes ------------------------------------------------------- */

static void write_until_killed(struct worker *w)
{
    struct scene *scene = w->scene;
    struct rng rng = { mix(test_seed(), scene->round) };
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_s1(scene, store, 0);
    struct ledger l;
    int rc;

    do /* carries through what the dead one before had begun */
        rc = kist_delete(bank, text("no such key"));
    while (mended(store, "s1", rc));
    must_rc(rc, KIST_MISS);
    ledger_begin(&l, bank);
    for (;;) {
        bool all = rng_below(&rng, 2000) == 0;

        rc = all ? ledger_replace(&l, bank) : ledger_write(&l, bank, &rng);
        if (mended(store, "s1", rc))
            scene->mended++;
        else
            must_ok(rc);
        scene->writes++;
    }
}

static void compact_until_killed(struct worker *w)
{
    kist_store *store = open_store(w->scene->dir);
    kist_bank *bank = open_s1(w->scene, store, 0);

    for (;;) {
        int rc = kist_compact(bank, NULL, NULL);

        if (!mended(store, "s1", rc))
            must_ok(rc);
        w->scene->compactions++;
    }
}

/* ---- who reads -------------------------------------------------------- */

struct held {
    kist_bank *snapshot;
    struct ledger ledger;
};

static void read_once(const struct scene *scene, kist_bank *bank, struct rng *rng, struct held *h,
                      uint64_t *t)
{
    bool is_ordered = scene->index == KIST_INDEX_ORDERED;
    uint64_t pick = rng_below(rng, 10);
    struct ledger now;

    if (pick < 2 && is_ordered) {
        ledger_add_up(bank);
    } else if (pick < 4) {
        ledger_read(&now, bank, is_ordered);
        must(now.t >= *t);
        *t = now.t;
    } else if (!h->snapshot) {
        must_ok(kist_snapshot_open(&h->snapshot, bank));
        ledger_read(&h->ledger, h->snapshot, is_ordered);
        must(h->ledger.t >= *t);
        *t = h->ledger.t;
    } else if (pick < 9) {
        ledger_must_be(&h->ledger, h->snapshot);
    } else {
        ledger_read(&now, h->snapshot, is_ordered);
        must(memcmp(&now, &h->ledger, sizeof now) == 0);
        must_ok(kist_bank_close(h->snapshot));
        h->snapshot = NULL;
    }
}

/* The first one's store is opened read-only. */
static void read_until_killed(struct worker *w)
{
    struct scene *scene = w->scene;
    struct rng rng = { mix(test_seed(), scene->round * READERS + (uint64_t)w->which) };
    kist_store_options opt = { .size = sizeof opt,
                               .flags = w->which == 0 ? KIST_STORE_READONLY : 0 };
    struct held held[HELD] = { 0 };
    uint64_t t = 0;
    kist_store *store;
    kist_bank *bank;

    must_ok(kist_store_open(&store, scene->dir, &opt));
    bank = open_s1(scene, store, 0);
    for (;;) {
        read_once(scene, bank, &rng, &held[rng_below(&rng, HELD)], &t);
        scene->checks++;
    }
}

static void work(void *arg)
{
    struct worker *w = arg;

    if (w->which < READERS)
        read_until_killed(w);
    else if (w->which == READERS)
        write_until_killed(w);
    else
        compact_until_killed(w);
}

/* ---- the rounds ------------------------------------------------------- */

static void must_live(const struct worker *w)
{
    int status;

    if (waitpid(w->pid, &status, WNOHANG) != 0)
        test_fail(__FILE__, __LINE__, "a worker", "has ended");
}

static void run_round(struct scene *scene, struct rng *rng)
{
    struct worker workers[WORKERS];
    uint64_t until = scene->checks + IN_A_ROUND / 2 + rng_below(rng, IN_A_ROUND);
    int first = (int)rng_below(rng, WORKERS);

    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ .scene = scene, .which = i };
        workers[i].pid = child_start(work, &workers[i]);
    }
    while (scene->checks < until) {
        for (int i = 0; i < WORKERS; i++)
            must_live(&workers[i]);
        (void)usleep(500);
    }
    for (int i = 0; i < WORKERS; i++)
        child_kill(workers[(first + i) % WORKERS].pid);
}

/* Nobody lives: nothing is kept for anybody. */
static void check_between(struct scene *scene)
{
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_s1(scene, store, 0);
    kist_stats stats = { .size = sizeof stats };
    struct ledger l;
    int rc;

    do
        rc = kist_compact(bank, NULL, NULL);
    while (mended(store, "s1", rc));
    must_ok(rc);
    must_ok(kist_stat(bank, &stats));
    must(stats.oldest_pin == 0 && stats.pinned_bytes == 0 && stats.snapshots == 0);
    must(stats.wasted_bytes == 0);
    ledger_read(&l, bank, scene->index == KIST_INDEX_ORDERED);
    must_verify(bank);
    must_close(bank, store);
}

static void run(uint32_t index, uint64_t checks)
{
    struct scene *scene = shared_memory(sizeof *scene);
    struct rng rng = { mix(test_seed(), index) };
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    struct ledger l;
    kist_bank *bank;

    scene->dir = dir;
    scene->index = index;
    bank = open_s1(scene, store, KIST_BANK_CREATE);
    ledger_begin(&l, bank);
    must_close(bank, store);
    while (scene->checks < checks) {
        test_case = ++scene->round;
        run_round(scene, &rng);
        check_between(scene);
    }
    test_case = 0;
    printf("%s: rounds %llu, moments %llu, writes %llu, compactions %llu, mended %llu\n",
           index == KIST_INDEX_ORDERED ? "ordered" : "hash", (unsigned long long)scene->round,
           (unsigned long long)scene->checks, (unsigned long long)scene->writes,
           (unsigned long long)scene->compactions, (unsigned long long)scene->mended);
    row.cases += scene->checks;
    row.states += scene->round;
    free(dir);
}

TEST(every_moment_that_a_process_sees_is_one)
{
    run(KIST_INDEX_HASH, test_scaled(10000));
    run(KIST_INDEX_ORDERED, test_scaled(10000));
    row_print(&row);
}
