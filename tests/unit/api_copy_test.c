/* kist_store_copy(): what is in the copy, while the store is in use or not, and
 * what a copy that fails leaves behind: nothing. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static kist_copied must_copy(kist_store *store, const char *to)
{
    kist_copied copied = { .size = sizeof copied };

    must_ok(kist_store_copy(store, to, NULL, &copied, NULL, NULL));
    return copied;
}

static uint64_t names_in(const char *dir)
{
    DIR *d = opendir(dir);
    uint64_t count = 0;

    must(d != NULL);
    while (readdir(d) != NULL)
        count++;
    (void)closedir(d);
    return count - 2; /* . and .. */
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* A sum over all entries, each with its value and what is known of it. */
static uint64_t content(kist_bank *bank)
{
    uint64_t sum = 0;
    kist_entry e;
    kist_iter *it;
    int rc;

    must_ok(kist_iter_open(&it, bank));
    while ((rc = kist_iter_next(it, &e)) == KIST_OK) {
        uint64_t one = mix(e.meta.sequence, (uint64_t)e.meta.mtime_ns);

        for (size_t i = 0; i < e.key.len; i++)
            one = mix(one, ((const uint8_t *)e.key.data)[i]);
        for (size_t i = 0; i < e.value.len; i++)
            one = mix(one, ((const uint8_t *)e.value.data)[i]);
        sum += one;
    }
    must(rc == KIST_END);
    kist_iter_close(it);
    return sum;
}

struct list {
    uint64_t count, sum;
};

static int add_name(const char *name, void *arg)
{
    struct list *list = arg;

    for (; *name != '\0'; name++)
        list->sum = mix(list->sum, (uint8_t)*name);
    list->count++;
    return 0;
}

static void must_be_alike(kist_store *store, const char *copy, const char *const *names)
{
    kist_store_options readonly = { .size = sizeof readonly, .flags = KIST_STORE_READONLY };
    struct list here = { 0 }, there = { 0 };
    kist_store *other;

    must_ok(kist_store_open(&other, copy, &readonly));
    must_ok(kist_bank_list(store, NULL, add_name, &here));
    must_ok(kist_bank_list(other, NULL, add_name, &there));
    must(here.count == there.count && here.sum == there.sum);
    for (; *names != NULL; names++) {
        kist_bank *a, *b;

        must_ok(kist_bank_open(&a, store, *names, NULL));
        must_ok(kist_bank_open(&b, other, *names, NULL));
        must(count_of(a) == count_of(b));
        must(content(a) == content(b));
        must_verify(b);
        must_ok(kist_bank_close(a));
        must_ok(kist_bank_close(b));
    }
    must_ok(kist_store_close(other));
}

static const char *const names[] = { "bank", "deep/er", "deep/er/still", "empty", "large", NULL };

/* Banks with all that a bank can have been through. */
static void fill_store(kist_store *store)
{
    static char large[3 << 20];
    char buf[VALUE_CAP];

    for (size_t i = 0; names[i] != NULL; i++) {
        kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE,
                                  .segment_bytes = 64 << 10 };
        kist_bank *bank;

        must_ok(kist_bank_open(&bank, store, names[i], &opt));
        for (uint64_t k = 0; k < 2000 && strcmp(names[i], "empty") != 0; k++)
            must_ok(kist_put(bank, number(k % 500), (kist_bytes){ buf, value_make(buf, k, i) }));
        if (i == 1)
            must_ok(kist_clear(bank));
        for (uint64_t k = 0; k < 100 && i != 3; k++)
            must_rc(kist_delete(bank, number(3 * k)), i == 1 ? KIST_MISS : KIST_OK);
        if (i == 2)
            must_ok(kist_compact(bank, NULL, NULL));
        if (i == 4) {
            memset(large, 'x', sizeof large);
            must_ok(kist_put(bank, text("large"), (kist_bytes){ large, sizeof large }));
        }
        must_ok(kist_put(bank, text(""), text("")));
        must_ok(kist_bank_close(bank));
    }
}

TEST(a_copy_has_every_bank_with_all_that_is_in_it)
{
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    kist_store *store = open_store(from);
    kist_copied copied;

    fill_store(store);
    copied = must_copy(store, to);
    must(copied.banks == 5 && copied.bytes > 0);
    must(copied.entries == 401 + 1 + 401 + 1 + 402);
    must_be_alike(store, to, names);
    must(names_in(dir) == 2); /* nothing else is left there */
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
}

TEST(a_copy_can_be_written_and_copied_again)
{
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to"),
         *third = path_join(dir, "third");
    kist_stats before = { .size = sizeof before }, after = before;
    kist_store *store = open_store(from), *other;
    kist_bank *bank;

    fill_store(store);
    (void)must_copy(store, to);
    other = open_store(to);
    bank = open_bank(other, "bank");
    must_ok(kist_stat(bank, &before));
    put_text(bank, "new", "one");
    must_ok(kist_compact(bank, NULL, NULL));
    must_ok(kist_stat(bank, &after));
    must(after.sequence == before.sequence + 1);
    must(after.last_recovery_ns == before.last_recovery_ns); /* it was not recovered again */
    (void)must_copy(other, third);
    must_be_alike(other, third, names);
    must_verify(bank);
    must_close(bank, other);
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
    free(third);
}

TEST(a_store_opened_read_only_is_copied_without_a_change)
{
    kist_store_options readonly = { .size = sizeof readonly, .flags = KIST_STORE_READONLY };
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to"),
         *cp = path_join(dir, "cp"), *third = path_join(dir, "third");
    kist_store *store = open_store(from);
    uint64_t before;

    fill_store(store);
    must_ok(kist_store_close(store));
    before = tree_hash(from);
    must_ok(kist_store_open(&store, from, &readonly));
    (void)must_copy(store, to);
    must(tree_hash(from) == before);
    must_be_alike(store, to, names);
    must_ok(kist_store_close(store));

    must(mkdir(cp, 0700) == 0);
    tree_copy(from, cp); /* other inodes: no kist.live that could be used */
    before = tree_hash(cp);
    must_ok(kist_store_open(&store, cp, &readonly));
    (void)must_copy(store, third);
    must(tree_hash(cp) == before);
    must_be_alike(store, third, names);
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
    free(cp);
    free(third);
}

/* ---- under load ------------------------------------------------------- */

/*
 * One process writes; every operation has a number, and what it does follows
 * from that number alone. So the content after the first n operations, and the
 * sequence of each entry in it, can be computed by anyone.
 */
enum { KEYS = 400, REPLACED = 50, OPS_MAX = 4000000 };
enum what { PUT, DELETE, CLEAR, REPLACE };

struct op {
    enum what what;
    uint64_t key;
};

static struct op op_of(uint64_t seed, uint64_t n)
{
    uint64_t r = mix(seed, n);
    struct op op = { PUT, r % KEYS };

    if (r >> 32 & 3)
        return op;
    op.what = (r >> 40) % 2000 == 0 ? CLEAR : (r >> 40) % 2000 == 1 ? REPLACE : DELETE;
    return op;
}

struct load {
    _Atomic uint64_t begun, done; /* operations */
    _Atomic uint32_t stop;
    uint64_t seed;
    const char *dir;
};

/* The content by the numbers: which sequence each key has, 0: none. */
struct model {
    uint64_t sequence[KEYS], last, sum, seed, ops;
};

static void model_set(struct model *m, uint64_t key, uint64_t sequence)
{
    m->sum -= m->sequence[key] ? mix(key, m->sequence[key]) : 0;
    m->sum += sequence ? mix(key, sequence) : 0;
    m->sequence[key] = sequence;
}

static void model_op(struct model *m)
{
    struct op op = op_of(m->seed, m->ops++);

    if (op.what == PUT)
        model_set(m, op.key, ++m->last);
    if (op.what == DELETE && m->sequence[op.key] != 0) {
        model_set(m, op.key, 0);
        m->last++;
    }
    if (op.what == CLEAR || op.what == REPLACE) {
        for (uint64_t k = 0; k < KEYS; k++)
            model_set(m, k, 0);
        m->last++;
    }
    for (uint64_t k = 0; op.what == REPLACE && k < REPLACED; k++)
        model_set(m, k, ++m->last);
}

struct feed {
    uint64_t key, sequence;
    char value[VALUE_CAP];
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *f = arg;

    if (f->key == REPLACED)
        return KIST_END;
    *key = number(f->key);
    *value = (kist_bytes){ f->value, value_make(f->value, f->key, f->sequence) };
    f->key++;
    f->sequence++;
    return 0;
}

static void write_op(kist_bank *bank, struct model *m)
{
    struct op op = op_of(m->seed, m->ops);
    static struct feed feed;
    char buf[VALUE_CAP];

    switch (op.what) {
    case PUT:
        must_ok(kist_put(bank, number(op.key),
                         (kist_bytes){ buf, value_make(buf, op.key, m->last + 1) }));
        break;
    case DELETE:
        must_rc(kist_delete(bank, number(op.key)), m->sequence[op.key] ? KIST_OK : KIST_MISS);
        break;
    case CLEAR:
        must_ok(kist_clear(bank));
        break;
    case REPLACE:
        feed.key = 0;
        feed.sequence = m->last + 2;
        must_ok(kist_replace(bank, feed_next, &feed));
        break;
    }
    model_op(m);
}

static void writer(void *arg)
{
    static struct model m;
    struct load *load = arg;
    kist_store *store = open_store(load->dir);
    kist_bank *bank = open_bank(store, "bank");

    m.seed = load->seed;
    while (!atomic_load(&load->stop) && m.ops < OPS_MAX) {
        atomic_store(&load->begun, m.ops + 1);
        write_op(bank, &m);
        atomic_store(&load->done, m.ops);
    }
    must_close(bank, store);
}

static void cleaner(void *arg)
{
    struct load *load = arg;
    kist_store *store = open_store(load->dir);
    kist_bank *bank = open_bank(store, "bank");

    while (!atomic_load(&load->stop))
        must_ok(kist_compact(bank, NULL, NULL));
    must_close(bank, store);
}

/* Each entry is whole, and of the version that its sequence says. */
static uint64_t sum_of_copy(kist_bank *bank)
{
    uint64_t sum = 0, version, key;
    kist_entry e;
    kist_iter *it;
    int rc;

    must_ok(kist_iter_open(&it, bank));
    while ((rc = kist_iter_next(it, &e)) == KIST_OK) {
        must(e.key.len == sizeof key);
        memcpy(&key, e.key.data, sizeof key);
        must(value_check(e.value, key, &version) && version == e.meta.sequence);
        sum += mix(key, version);
    }
    must(rc == KIST_END);
    kist_iter_close(it);
    return sum;
}

/* It is what the first n operations made, n between what was done when the copy
 * was begun and what was begun when it was there. */
static void must_be_a_prefix(const char *copy, struct model *base, uint64_t least, uint64_t most)
{
    static struct model m;
    kist_store *store = open_store(copy);
    kist_bank *bank = open_bank(store, "bank");
    uint64_t sum = sum_of_copy(bank);
    bool found = false;

    while (base->ops < least)
        model_op(base);
    m = *base;
    for (found = m.sum == sum; !found && m.ops < most; found = m.sum == sum)
        model_op(&m);
    must(found);
    must_verify(bank);
    must_close(bank, store);
}

TEST(a_copy_under_load_is_a_prefix_by_sequence)
{
    static struct model base;
    kist_store_options how = { .size = sizeof how, .flags = KIST_STORE_READONLY };
    char *dir = tmp_dir(TMP_FAST), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    struct load *load = shared_memory(sizeof *load);
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE,
                              .segment_bytes = 64 << 10 };
    kist_store *store = open_store(from);
    kist_bank *bank;
    pid_t pids[2];
    uint64_t copies = test_scaled(60);

    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    must_close(bank, store);
    base.seed = load->seed = test_seed();
    load->dir = from;
    pids[0] = child_start(writer, load);
    pids[1] = child_start(cleaner, load);
    while (atomic_load(&load->done) < 1000)
        (void)usleep(1000);
    must_ok(kist_store_open(&store, from, &how));
    for (test_case = 0; test_case < copies; test_case++) {
        uint64_t least = atomic_load(&load->done);

        (void)must_copy(store, to);
        must_be_a_prefix(to, &base, least, atomic_load(&load->begun));
        tmp_remove(to);
    }
    must_ok(kist_store_close(store));
    atomic_store(&load->stop, 1);
    must_end_well(pids[0]);
    must_end_well(pids[1]);
    print_message("%llu copies beside %llu operations\n", (unsigned long long)copies,
                  (unsigned long long)atomic_load(&load->done));
    free(dir);
    free(from);
    free(to);
}

/* ---- failures --------------------------------------------------------- */

static int stop_at(uint64_t done, uint64_t all, void *arg)
{
    uint64_t *left = arg;

    must(done <= all);
    return --*left == 0 ? 7 : 0;
}

TEST(a_copy_that_is_stopped_leaves_nothing)
{
    char *dir = tmp_dir(TMP_FAST), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    kist_store *store = open_store(from);
    uint64_t left, calls = 0;
    int rc = 7;

    fill_store(store);
    while (rc == 7) { /* at each place where it can be */
        left = ++calls;
        rc = kist_store_copy(store, to, NULL, NULL, stop_at, &left);
        must(exists(to) == (rc == KIST_OK));
        must(names_in(dir) == (rc == KIST_OK ? 2 : 1));
    }
    must_ok(rc);
    must(calls > 10);
    must_be_alike(store, to, names);
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
}

TEST(a_target_that_will_not_do_is_refused_and_nothing_is_made)
{
    struct fixture f = fixture_open();
    char *dir = tmp_dir(TMP_DISK), *taken = path_join(dir, "taken"),
         *link = path_join(dir, "link"), *inside = path_join(f.dir, "copy"),
         *deeper = path_join(f.dir, "bank/copy"), *nowhere = path_join(dir, "no/copy");
    kist_copied old = { .size = 4 };

    put_text(f.bank, "k", "v");
    must(mkdir(taken, 0700) == 0 && symlink("/nonexistent", link) == 0);
    must_rc(kist_store_copy(f.store, taken, NULL, NULL, NULL, NULL), -EEXIST);
    must_rc(kist_store_copy(f.store, link, NULL, NULL, NULL, NULL), -EEXIST);
    must_rc(kist_store_copy(f.store, f.dir, NULL, NULL, NULL, NULL), -EEXIST);
    must_rc(kist_store_copy(f.store, nowhere, NULL, NULL, NULL, NULL), -ENOENT);
    must_rc(kist_store_copy(f.store, inside, NULL, NULL, NULL, NULL), KIST_EINVAL);
    must_rc(kist_store_copy(f.store, deeper, NULL, NULL, NULL, NULL), KIST_EINVAL);
    for (size_t i = 0; i < 5; i++) {
        static const char *const bad[] = { "", "/", ".", "..", "///" };

        must_rc(kist_store_copy(f.store, bad[i], NULL, NULL, NULL, NULL), KIST_EINVAL);
    }
    must_rc(kist_store_copy(f.store, NULL, NULL, NULL, NULL, NULL), KIST_EINVAL);
    must_rc(kist_store_copy(f.store, inside, NULL, &old, NULL, NULL), KIST_EINVAL);
    must(names_in(dir) == 2 && names_in(taken) == 0 && !exists(inside) && !exists(deeper));
    must_hold(f.bank, "k", "v");
    fixture_close(&f);
    free(dir);
    free(taken);
    free(link);
    free(inside);
    free(deeper);
    free(nowhere);
}

TEST(a_damaged_bank_is_not_copied)
{
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to"),
         *heap = path_join(from, "bank/kist.heap.1");
    kist_store *store = open_store(from);
    kist_bank *bank = open_bank(store, "bank");
    FILE *file;

    put_text(bank, "one", "a value to be damaged");
    put_text(bank, "two", "and one behind it");
    file = fopen(heap, "r+");
    must(file != NULL && fseek(file, 128 + 40 + 5, SEEK_SET) == 0 && fputc('!', file) == '!');
    must(fclose(file) == 0);
    must_rc(kist_store_copy(store, to, NULL, NULL, NULL, NULL), KIST_ECORRUPT);
    must(strcmp(kist_last_error()->bank, "bank") == 0);
    must(strcmp(kist_last_error()->file, "kist.heap.1") == 0);
    must(names_in(dir) == 1);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
    free(heap);
}

/* Zeros at the end of the heap look like an end that came earlier. */
TEST(a_bank_with_zeros_at_its_end_is_not_copied)
{
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to"),
         *heap = path_join(from, "bank/kist.heap.1");
    static const char zeros[2048];
    kist_store *store = open_store(from);
    kist_bank *bank = open_bank(store, "bank");
    FILE *file;

    for (int i = 0; i < 10; i++)
        must_ok(kist_put(bank, number((uint64_t)i), text("value")));
    file = fopen(heap, "r+");
    must(file != NULL && fseek(file, 128 + 5 * 64, SEEK_SET) == 0);
    must(fwrite(zeros, 1, sizeof zeros, file) == sizeof zeros && fclose(file) == 0);
    must_rc(kist_store_copy(store, to, NULL, NULL, NULL, NULL), KIST_ECORRUPT);
    must(names_in(dir) == 1);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
    free(heap);
}

static int drop_the_next(uint64_t done, uint64_t all, void *arg)
{
    bool *dropped = arg;
    kist_store *store;

    (void)done, (void)all;
    if (!*dropped) {
        store = open_store(test_note);
        must_ok(kist_bank_drop(store, "large"));
        must_ok(kist_store_close(store));
        *dropped = true;
    }
    return 0;
}

TEST(a_bank_dropped_meanwhile_is_left_out)
{
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    static const char *const left[] = { "bank", "deep/er", "deep/er/still", "empty", NULL };
    kist_store *store = open_store(from);
    kist_copied copied = { .size = sizeof copied };
    bool dropped = false;

    fill_store(store);
    test_note = from;
    must_ok(kist_store_copy(store, to, NULL, &copied, drop_the_next, &dropped));
    test_note = NULL;
    must(dropped && copied.banks == 4);
    must_be_alike(store, to, left);
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
}

static int die_there(uint64_t done, uint64_t all, void *arg)
{
    (void)all, (void)arg;
    if (done > 0)
        (void)raise(SIGKILL);
    return 0;
}

static void copy_and_die(void *arg)
{
    char *const *paths = arg;
    kist_store *store = open_store(paths[0]);

    (void)!kist_store_copy(store, paths[1], NULL, NULL, die_there, NULL);
}

TEST(a_copy_that_was_killed_has_not_the_final_name)
{
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to");
    char *paths[] = { from, to };
    kist_store *store = open_store(from);
    int status;

    fill_store(store);
    status = child_wait(child_start(copy_and_die, paths));
    must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    must(!exists(to));
    must(names_in(dir) == 2); /* the store, and "to.copying.N" */
    (void)must_copy(store, to);
    must_be_alike(store, to, names);
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
}

TEST(a_copys_files_have_the_modes_that_were_asked_for)
{
    kist_store_options opt = { .size = sizeof opt, .file_mode = 0640, .dir_mode = 0750 };
    char *dir = tmp_dir(TMP_DISK), *from = path_join(dir, "from"), *to = path_join(dir, "to"),
         *heap = path_join(to, "bank/kist.heap.1"), *bank = path_join(to, "bank");
    kist_store *store = open_store(from);
    struct stat st;

    fill_store(store);
    must_ok(kist_store_copy(store, to, &opt, NULL, NULL, NULL));
    must(stat(heap, &st) == 0 && (st.st_mode & 0777) == 0640);
    must(stat(bank, &st) == 0 && (st.st_mode & 0777) == 0750);
    must(stat(to, &st) == 0 && (st.st_mode & 0777) == 0750);
    opt.flags = KIST_STORE_READONLY;
    must_rc(kist_store_copy(store, "other", &opt, NULL, NULL, NULL), KIST_EINVAL);
    must_ok(kist_store_close(store));
    free(dir);
    free(from);
    free(to);
    free(heap);
    free(bank);
}
