/*
 * M2: nothing deleted comes back. Rounds of deletes, puts, clears, replaces
 * and partial cleaning, each ended by a SIGKILL that strikes anywhere; then
 * the bank is opened, repaired, or rebuilt from its heap alone, and must be
 * what the acknowledged operations made of it.
 *
 * One more way to end a round is a cut tail: a record that no sync covered is
 * damaged, and the heap is all that is left. Then the bank is what a prefix of
 * the round's operations made of it, and what lay behind the cut stays away
 * for ever, although its bytes are still whole.
 */
#include "support.h"

#include "heap/record.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 48, STEPS = 60, ROUNDS_OF_A_STORE = 50 };

enum kind { DID_PUT, DID_DELETE, DID_CLEAR, DID_REPLACE };

/* One change, written down before it is made. */
struct change {
    enum kind kind;
    uint64_t key, version;
};

/* The content of a bank: a version by key, 0 for none. */
struct content {
    uint64_t version[KEYS];
};

/* Shared with the child that writes. */
struct round {
    struct content base; /* at its start */
    struct change change[STEPS];
    _Atomic uint32_t begun, done; /* changes */
    _Atomic uint32_t synced;      /* the first so many are durable for sure */
    _Atomic uint32_t touched;     /* ... and so many perhaps */
    uint64_t newest;
    uint64_t seed;
    bool cut; /* no kill inside an operation, and no sync behind the middle */
    char dir[512];
};

static const char *const change_names[] = { "put", "delete", "clear", "replace" };

enum ending { END_OPEN, END_REPAIR, END_HEAP_ALONE, END_COPY, END_CUT, ENDINGS };

static const char *const ending_names[] = { "opened", "repaired", "heap alone", "copied",
                                            "tail cut" };

static struct row row = { .id = "M2" };
static uint64_t ends[ENDINGS], in_flight, poisoned;

/* ---- contents --------------------------------------------------------- */

/* Key by key, so that a replaced bank holds a part of them. */
static bool replace_has(uint64_t key, uint64_t version)
{
    return mix(key, version) % 2 == 0;
}

static void apply(struct content *c, const struct change *change)
{
    if (change->kind == DID_PUT)
        c->version[change->key] = change->version;
    if (change->kind == DID_DELETE)
        c->version[change->key] = 0;
    if (change->kind == DID_CLEAR)
        memset(c, 0, sizeof *c);
    if (change->kind == DID_REPLACE)
        for (uint64_t key = 0; key < KEYS; key++)
            c->version[key] = replace_has(key, change->version) ? change->version : 0;
}

static struct content content_after(const struct round *round, uint32_t changes)
{
    struct content c = round->base;

    for (uint32_t i = 0; i < changes; i++)
        apply(&c, &round->change[i]);
    return c;
}

static struct content content_of(kist_bank *bank)
{
    struct content c = { { 0 } };
    uint64_t entries = 0;

    for (uint64_t key = 0; key < KEYS; key++) {
        kist_view *view;
        int rc = kist_get_view(bank, number(key), &view);
        if (rc == KIST_MISS)
            continue;
        must_ok(rc);
        must(value_check(kist_view_bytes(view), key, &c.version[key]));
        kist_view_release(view);
        entries++;
    }
    must(count_of(bank) == entries);
    return c;
}

/* ---- the child that is killed ----------------------------------------- */

struct feed {
    uint64_t key, version;
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    static char buf[VALUE_CAP];
    struct feed *feed = arg;

    while (feed->key < KEYS && !replace_has(feed->key, feed->version))
        feed->key++;
    if (feed->key == KEYS)
        return KIST_END;
    *key = number(feed->key);
    *value = (kist_bytes){ buf, value_make(buf, feed->key, feed->version) };
    feed->key++;
    return 0;
}

static int make_change(kist_bank *bank, const struct change *change)
{
    char buf[VALUE_CAP];
    struct feed feed = { 0, change->version };

    switch (change->kind) {
    case DID_PUT:
        return kist_put(bank, number(change->key),
                        (kist_bytes){ buf, value_make(buf, change->key, change->version) });
    case DID_DELETE:
        return kist_delete(bank, number(change->key));
    case DID_CLEAR:
        return kist_clear(bank);
    case DID_REPLACE:
        return kist_replace(bank, feed_next, &feed);
    }
    return KIST_EINVAL;
}

static int stop_after(uint64_t done, uint64_t all, void *arg)
{
    uint64_t *left = arg;

    (void)done, (void)all;
    return (*left)-- == 0 ? 1 : 0;
}

static void sync_now(struct round *round, kist_bank *bank)
{
    uint32_t done = round->done;

    must_ok(kist_sync(bank));
    round->synced = round->touched = done;
}

static void clean(struct round *round, kist_bank *bank, struct rng *rng)
{
    uint64_t left = rng_below(rng, 12);
    uint32_t done = round->done;
    int rc = kist_compact(bank, stop_after, &left);

    must(rc == KIST_OK || rc == 1);
    round->touched = done;
    if (rc == KIST_OK)
        round->synced = done;
}

static void change_once(struct round *round, kist_bank *bank, struct rng *rng)
{
    struct change *change = &round->change[round->begun];
    uint64_t pick = rng_below(rng, 100);

    change->kind = pick < 40   ? DID_PUT
                   : pick < 92 ? DID_DELETE
                   : pick < 96 ? DID_CLEAR
                               : DID_REPLACE;
    change->key = rng_below(rng, KEYS);
    change->version = ++round->newest;
    round->begun++;
    int rc = make_change(bank, change);
    must(rc == KIST_OK || (rc == KIST_MISS && change->kind == DID_DELETE));
    round->done++;
    if (change->kind == DID_CLEAR || change->kind == DID_REPLACE) /* they sync */
        round->synced = round->touched = round->done;
}

/* A SIGKILL after some microseconds: it strikes between any two instructions. */
static void kill_self_in(uint64_t us)
{
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
    struct itimerspec when = { .it_value.tv_nsec = (long)(us * 1000 + 1) };
    timer_t timer;

    must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    must(timer_settime(timer, 0, &when, NULL) == 0);
}

static kist_bank *open_kind(kist_store *store, uint32_t index)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .index = index,
                              .segment_bytes = 4096 };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "m2", &opt));
    return bank;
}

static kist_bank *open_small(kist_store *store)
{
    return open_kind(store, KIST_INDEX_DEFAULT);
}

static void write_until_killed(void *arg)
{
    struct round *round = arg;
    struct rng rng = { round->seed };
    uint64_t us = rng_below(&rng, 4) == 0 ? rng_below(&rng, 3000) : rng_below(&rng, 300);
    kist_store *store = open_store(round->dir);
    kist_bank *bank = open_small(store);

    if (!round->cut)
        kill_self_in(us);
    while (round->begun < STEPS) {
        uint64_t pick = rng_below(&rng, 20);
        if (pick == 0 && !(round->cut && round->begun > STEPS / 2))
            clean(round, bank, &rng);
        else if (pick == 1 && !(round->cut && round->begun > STEPS / 2))
            sync_now(round, bank);
        else
            change_once(round, bank, &rng);
    }
    (void)raise(SIGKILL);
}

/* ---- what may happen to the files meanwhile --------------------------- */

static void each_file(const char *dir, const char *prefix,
                      bool (*visit)(int dir, const char *name, void *arg), void *arg)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    must(d != NULL);
    while ((entry = readdir(d)) != NULL)
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            visit(dirfd(d), entry->d_name, arg))
            break;
    (void)closedir(d);
}

static bool remove_it(int dir, const char *name, void *arg)
{
    (void)arg;
    must(unlinkat(dir, name, 0) == 0);
    return false;
}

/* What a machine crash may leave: the heap, and nothing else to trust. */
static void leave_heap_alone(const char *dir)
{
    char *bank = path_join(dir, "m2");

    each_file(bank, "kist.live", remove_it, NULL);
    each_file(bank, "kist.index.", remove_it, NULL);
    free(bank);
}

/* Flip a bit of a file of the heap, `before` bytes ahead of where that put's value begins. */
static bool damage_before(int dir, const char *name, const struct change *change, size_t before)
{
    static char image[1 << 20];
    char value[VALUE_CAP], *at;
    size_t len = value_make(value, change->key, change->version);
    int fd = openat(dir, name, O_RDWR | O_CLOEXEC);
    ssize_t n = pread(fd, image, sizeof image, 0);

    must(fd >= 0 && n >= 0);
    at = memmem(image, (size_t)n, value, len);
    if (at) {
        at[-(ssize_t)before] ^= 1;
        must(pwrite(fd, at - before, 1, at - image - (off_t)before) == 1);
    }
    (void)close(fd);
    return at != NULL;
}

static bool damage_it(int dir, const char *name, void *arg)
{
    return damage_before(dir, name, arg, 0);
}

/* Damage an unsynced put; returns its index, or STEPS if there is none. */
static uint32_t cut_tail(const struct round *round, struct rng *rng)
{
    char *bank = path_join(round->dir, "m2");
    uint32_t at = STEPS;

    for (uint32_t i = round->touched; i < STEPS; i++)
        if (round->change[i].kind == DID_PUT && (at == STEPS || rng_below(rng, 3) == 0))
            at = i;
    if (at < STEPS)
        each_file(bank, "kist.heap.", damage_it, (void *)&round->change[at]);
    leave_heap_alone(round->dir);
    free(bank);
    return at;
}

/* ---- a round ---------------------------------------------------------- */

/* Same files, other inodes: nothing but the heap may be trusted then. */
static void move_to_copy(struct round *round)
{
    char *to = tmp_dir(TMP_FAST);

    tree_copy(round->dir, to);
    tmp_remove(round->dir);
    (void)snprintf(round->dir, sizeof round->dir, "%s", to);
    free(to);
}

static bool equal(const struct content *a, const struct content *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void tell_difference(const struct round *round, const struct content *got, uint32_t low)
{
    struct content want = content_after(round, low);

    for (uint32_t i = 0; i < round->begun; i++)
        (void)fprintf(stderr, "%u: %s key %llu version %llu\n", i,
                      change_names[round->change[i].kind], (unsigned long long)round->change[i].key,
                      (unsigned long long)round->change[i].version);
    for (uint64_t key = 0; key < KEYS; key++)
        if (got->version[key] != want.version[key])
            (void)fprintf(stderr, "key %llu: version %llu, expected %llu\n",
                          (unsigned long long)key, (unsigned long long)got->version[key],
                          (unsigned long long)want.version[key]);
    (void)fprintf(stderr, "(expected after %u changes; %u done, %u begun, %u synced)\n", low,
                  round->done, round->begun, round->synced);
}

/* The content after one of `low` to `high` changes. */
static void must_be_between(const struct round *round, const struct content *got, uint32_t low,
                            uint32_t high)
{
    for (uint32_t n = low; n <= high; n++) {
        struct content want = content_after(round, n);
        if (equal(got, &want))
            return;
    }
    tell_difference(round, got, low);
    test_fail(__FILE__, __LINE__, "the content", "is not what a prefix of the changes makes");
}

static uint32_t prepare(struct round *round, enum ending ending, struct rng *rng)
{
    uint32_t at = STEPS;

    if (ending == END_CUT)
        at = cut_tail(round, rng);
    if (ending == END_HEAP_ALONE)
        leave_heap_alone(round->dir);
    if (ending == END_COPY)
        move_to_copy(round);
    return at;
}

/* A kill inside a sync leaves poison, which the sync of this close may be the
 * first to find: repaired, the bank is what it was. */
static void leave(struct round *round, kist_store *store, kist_bank *bank, bool bank_first)
{
    int rc = bank_first ? kist_bank_close(bank) : KIST_OK;
    int then = kist_store_close(store);

    if (!bank_first)
        (void)kist_bank_close(bank);
    must(rc == KIST_OK || rc == KIST_EPOISON);
    must(then == KIST_OK || then == KIST_EPOISON);
    if (rc == KIST_OK && then == KIST_OK)
        return;
    poisoned++;
    store = open_store(round->dir);
    must_ok(kist_repair(store, "m2", NULL, NULL, NULL));
    bank = open_small(store);
    struct content got = content_of(bank);
    must(equal(&got, &round->base));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void end_round(struct round *round, enum ending ending, struct rng *rng)
{
    uint32_t cut_at = prepare(round, ending, rng);
    kist_store *store = open_store(round->dir);
    kist_bank *bank;

    if (ending == END_REPAIR)
        must_ok(kist_repair(store, "m2", NULL, NULL, NULL));
    bank = open_small(store);
    struct content got = content_of(bank);
    if (ending == END_CUT && cut_at < STEPS)
        must_be_between(round, &got, round->synced, cut_at);
    else
        must_be_between(round, &got, round->done, round->begun);
    in_flight += round->begun != round->done;
    round->base = got;
    leave(round, store, bank, rng_below(rng, 2) == 0);
}

static void play_round(struct round *round, uint64_t n)
{
    struct rng rng = { mix(test_seed(), n) };
    enum ending ending = (enum ending)rng_below(&rng, ENDINGS);
    int status;

    round->begun = round->done = round->synced = round->touched = 0;
    round->seed = rng_next(&rng);
    round->cut = ending == END_CUT;
    test_note = ending_names[ending];
    status = child_wait(child_start(write_until_killed, round));
    must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    end_round(round, ending, &rng);
    ends[ending]++;
    row.cases++;
}

TEST(nothing_deleted_comes_back)
{
    struct round *round = shared_memory(sizeof *round);
    uint64_t rounds = test_scaled(10000);

    for (uint64_t n = 0; n < rounds; n++) {
        if (n % ROUNDS_OF_A_STORE == 0) {
            char *dir = tmp_dir(TMP_FAST);
            if (n)
                tmp_remove(round->dir);
            (void)snprintf(round->dir, sizeof round->dir, "%s", dir);
            memset(&round->base, 0, sizeof round->base);
            free(dir);
        }
        test_case = n + 1;
        play_round(round, n);
    }
    printf("killed inside an operation %llu, inside a sync %llu", (unsigned long long)in_flight,
           (unsigned long long)poisoned);
    for (int i = 0; i < ENDINGS; i++)
        printf(", %s %llu", ending_names[i], (unsigned long long)ends[i]);
    printf("\n");
    row_print(&row);
}

/* ---- an older segment that stays ---------------------------------------- */

enum { DELETED = 1, DAMAGED = 2, FILLER = 3, FILLERS = 40 };

static bool has_segment(const char *dir, unsigned n)
{
    char name[64], *path;
    struct stat sb;
    bool has;

    (void)snprintf(name, sizeof name, "m2/kist.heap.%u", n);
    path = path_join(dir, name);
    has = stat(path, &sb) == 0;
    free(path);
    return has;
}

/* The length of its value, in the upper half: it reaches beyond its segment. */
static bool damage_length(int dir, const char *name, void *arg)
{
    return damage_before(dir, name, arg,
                         number(DAMAGED).len + RECORD_HEADER -
                             (offsetof(struct record, value_len) + 3));
}

static void put_at(kist_bank *bank, uint64_t key, uint64_t version)
{
    must_ok(make_change(bank, &(struct change){ DID_PUT, key, version }));
}

/* Into another segment, leaving dead records behind. */
static void fill_a_segment(kist_bank *bank)
{
    for (uint64_t version = 1; version <= FILLERS; version++)
        put_at(bank, FILLER, version);
}

/* The put of the deleted key lies in the first segment, beside a record that is damaged; its
 * tombstone behind, where all else is overwritten. */
static void write_story(const char *dir, uint32_t index)
{
    struct change damaged = { DID_PUT, DAMAGED, 1 };
    kist_store *store = open_store(dir);
    kist_bank *bank = open_kind(store, index);
    char *path = path_join(dir, "m2");

    put_at(bank, DELETED, 1);
    put_at(bank, DAMAGED, 1);
    fill_a_segment(bank);
    must_ok(kist_delete(bank, number(DELETED)));
    fill_a_segment(bank);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    each_file(path, "kist.heap.1", damage_length, &damaged);
    free(path);
}

/* The segment with what was deleted can't be given back, since nobody can say what else it
 * has: the tombstone has to stay as well, though its own segment goes. */
TEST(nothing_deleted_comes_back_out_of_a_damaged_segment)
{
    for (uint32_t index = KIST_INDEX_HASH; index <= KIST_INDEX_ORDERED; index++) {
        char *dir = tmp_dir(TMP_FAST);
        kist_store *store;
        kist_bank *bank;
        kist_view *view;

        write_story(dir, index);
        must(has_segment(dir, 1) && has_segment(dir, 2) && has_segment(dir, 3));
        store = open_store(dir);
        bank = open_kind(store, index);
        must_ok(kist_compact(bank, NULL, NULL));
        must(has_segment(dir, 1) && !has_segment(dir, 2) && !has_segment(dir, 3));
        must_rc(kist_get_view(bank, number(DELETED), &view), KIST_MISS);
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
        leave_heap_alone(dir);
        store = open_store(dir);
        bank = open_kind(store, index);
        must_rc(kist_get_view(bank, number(DELETED), &view), KIST_MISS);
        must_ok(kist_get_view(bank, number(FILLER), &view));
        kist_view_release(view);
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
        tmp_remove(dir);
        free(dir);
    }
}
