/*
 * Stores in memory: what is their own. That the rest is as on a disk is shown by
 * memdir_test.c, and by the programs that run again with memory.c.
 */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static kist_store *memory_store(void)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_MEMORY };
    kist_store *store;

    must_ok(kist_store_open(&store, NULL, &opt));
    return store;
}

/* Descriptors of this process, and files in memory among what it has mapped. */
static int descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 4096; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int files_mapped(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    int n = 0;

    must(f != NULL);
    while (fgets(line, sizeof line, f))
        n += strstr(line, "/memfd:kist.") != NULL;
    (void)fclose(f);
    return n;
}

static void fill(kist_bank *bank, uint64_t first, uint64_t last)
{
    char value[100] = { 0 };

    for (uint64_t i = first; i < last; i++) {
        memcpy(value, &i, sizeof i);
        must_ok(kist_put(bank, number(i), (kist_bytes){ value, sizeof value }));
    }
}

static void must_have(kist_bank *bank, uint64_t first, uint64_t last)
{
    char value[100];
    size_t len;

    for (uint64_t i = first; i < last; i++) {
        must_ok(kist_get_copy(bank, number(i), value, sizeof value, &len));
        must(len == sizeof value && memcmp(value, &i, sizeof i) == 0);
    }
    must(count_of(bank) >= last - first);
}

static int count_name(const char *name, void *arg)
{
    (void)name;
    ++*(int *)arg;
    return 0;
}

/* ---- a life ----------------------------------------------------------- */

TEST(a_store_in_memory_holds_banks_as_any_other)
{
    kist_bank_options always = { .size = sizeof always,
                                 .flags = KIST_BANK_CREATE,
                                 .durability = KIST_DURABILITY_ALWAYS },
                      often = { .size = sizeof often,
                                .flags = KIST_BANK_CREATE,
                                .durability = KIST_DURABILITY_INTERVAL,
                                .interval_ms = 1 };
    kist_store *store = memory_store();
    kist_bank *one = open_bank(store, "a"), *two, *three;
    kist_stats stats = { .size = sizeof stats };
    uint64_t bytes;
    int names = 0;

    must_ok(kist_bank_open(&two, store, "a/b/c", &always));
    must_ok(kist_bank_open(&three, store, "a/x", &often));
    fill(one, 0, 5000);
    fill(two, 0, 50);
    fill(three, 0, 500);
    must_have(one, 0, 5000);
    must_have(two, 0, 50);
    must_have(three, 0, 500);
    must_ok(kist_size_bytes(one, &bytes));
    must(bytes == 5000 * 108);
    must_ok(kist_bank_list(store, NULL, count_name, &names));
    must(names == 3);
    must_ok(kist_bank_list(store, "a/b", count_name, &names));
    must(names == 4);
    fill(one, 0, 5000); /* so that there is something to clean */
    must_ok(kist_compact(one, NULL, NULL));
    must_ok(kist_save_index(one));
    must_ok(kist_stat(one, &stats));
    must(stats.entries == 5000 && stats.wasted_bytes < stats.live_bytes / 10);
    must(stats.writers == 1 && stats.unsynced_bytes == 0);
    must_ok(kist_repair(store, "a", NULL, NULL, NULL));
    must_verify(one);
    must_have(one, 0, 5000);
    must_ok(kist_clear(three));
    must(count_of(three) == 0);
    must_ok(kist_bank_close(one));
    must_ok(kist_bank_drop(store, "a"));
    must_rc(kist_bank_open(&one, store, "a", NULL), KIST_ENOBANK);
    must_have(two, 0, 50);
    must_ok(kist_bank_close(two));
    must_ok(kist_bank_open(&two, store, "a/b/c", NULL)); /* it stays for as long as the store */
    must_ok(kist_stat(two, &stats));
    must(stats.last_recovery == KIST_RECOVERY_NONE || stats.last_recovery_ns != 0);
    must_have(two, 0, 50);
    must_ok(kist_bank_close(two));
    must_ok(kist_bank_close(three));
    must_ok(kist_store_close(store));
}

TEST(a_large_value_is_whole)
{
    enum { LARGE = 100 << 20 };
    kist_store *store = memory_store();
    kist_bank *bank = open_bank(store, "bank");
    char *value = malloc(LARGE);
    kist_view *view;

    value_fill(value, LARGE, 1, 2);
    must_ok(kist_put(bank, text("large"), (kist_bytes){ value, LARGE }));
    must_ok(kist_get_view(bank, text("large"), &view));
    must(kist_view_bytes(view).len == LARGE);
    must(memcmp(kist_view_bytes(view).data, value, LARGE) == 0);
    kist_view_release(view);
    must_close(bank, store);
    free(value);
}

TEST(two_stores_have_nothing_in_common)
{
    kist_store *one = memory_store(), *two = memory_store();
    kist_bank *in_one = open_bank(one, "bank"), *in_two;

    must_rc(kist_bank_open(&in_two, two, "bank", NULL), KIST_ENOBANK);
    in_two = open_bank(two, "bank");
    put_text(in_one, "k", "one");
    put_text(in_two, "k", "two");
    must_hold(in_one, "k", "one");
    must_hold(in_two, "k", "two");
    must_close(in_one, one);
    must_hold(in_two, "k", "two");
    must_close(in_two, two);
}

TEST(idle_banks_are_put_aside_and_come_back)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_MEMORY, .max_open_banks = 2 };
    kist_store *store;
    kist_bank *bank[20];
    char name[16];

    must_ok(kist_store_open(&store, NULL, &opt));
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 20; i++) {
            (void)snprintf(name, sizeof name, "b%d", (int)i);
            if (round == 0)
                bank[i] = open_bank(store, name);
            fill(bank[i], (uint64_t)round * 10 + i, (uint64_t)round * 10 + i + 10);
            must_have(bank[i], i, (uint64_t)round * 10 + i + 10);
        }
    }
    for (int i = 0; i < 20; i++)
        must_ok(kist_bank_close(bank[i]));
    must_ok(kist_store_close(store));
}

static void live_and_end(void)
{
    kist_store *store = memory_store();
    kist_bank *bank = open_bank(store, "bank");

    put_text(bank, "k", "value");
    must_hold(bank, "k", "value");
    must_close(bank, store);
}

/* ---- its end ---------------------------------------------------------- */

TEST(it_is_gone_with_its_last_handle_and_views_stay)
{
    int before, mapped;
    kist_view *view = NULL;

    live_and_end(); /* what a process has from then on */
    before = descriptors();
    mapped = files_mapped();
    for (int round = 0; round < 3; round++) {
        kist_store *store = memory_store();
        kist_bank *bank = open_bank(store, "some/where");

        fill(bank, 0, 20000);
        must_ok(kist_compact(bank, NULL, NULL));
        kist_view_release(view);
        must_ok(kist_get_view(bank, number(7), &view));
        must_ok(kist_store_close(store));
        must(descriptors() > before); /* the bank's handle is one of the store's */
        must_ok(kist_bank_close(bank));
        must(descriptors() == before);
    }
    must(files_mapped() == mapped + 1); /* one file, for the view */
    must(kist_view_bytes(view).len == 100 && *(const char *)kist_view_bytes(view).data == 7);
    kist_view_release(view);
    must(files_mapped() == mapped);
}

static void *end_in_a_section(void *bank)
{
    kist_bytes value;

    must_ok(kist_read_begin());
    must_ok(kist_get(bank, number(3), &value));
    pthread_exit(NULL);
}

TEST(a_thread_that_ends_in_a_section_keeps_nothing)
{
    kist_store *store = memory_store();
    kist_bank *bank = open_bank(store, "bank");
    pthread_t thread;
    int before;

    fill(bank, 0, 20000);
    must(pthread_create(&thread, NULL, end_in_a_section, bank) == 0);
    must(pthread_join(thread, NULL) == 0);
    before = files_mapped();
    must_ok(kist_clear(bank));
    fill(bank, 0, 10); /* the next call lets go of what nobody can see */
    must_ok(kist_clear(bank));
    must(files_mapped() < before / 2);
    must_close(bank, store);
}

/* ---- what it says no to ----------------------------------------------- */

TEST(a_store_in_memory_has_no_path_and_is_not_read_only)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_MEMORY };
    kist_store *store;

    must_rc(kist_store_open(&store, "path", &opt), KIST_EINVAL);
    must(strstr(kist_last_error()->what, "NULL") != NULL && store == NULL);
    opt.flags |= KIST_STORE_CREATE | KIST_STORE_ANY_FS; /* said already */
    must_ok(kist_store_open(&store, NULL, &opt));
    must_ok(kist_store_close(store));
    opt.flags = KIST_STORE_MEMORY | KIST_STORE_READONLY;
    must_rc(kist_store_open(&store, NULL, &opt), KIST_EINVAL);
    opt.flags = KIST_STORE_CREATE;
    must_rc(kist_store_open(&store, NULL, &opt), KIST_EINVAL);
    must(strstr(kist_last_error()->what, "path") != NULL);
}

TEST(it_is_copied_to_a_disk_but_nothing_into_memory)
{
    kist_store_options memory = { .size = sizeof memory, .flags = KIST_STORE_MEMORY };
    kist_copied copied = { .size = sizeof copied };
    char *dir = tmp_dir(TMP_FAST), *to = path_join(dir, "copy"), *no = path_join(dir, "no");
    kist_store *store = memory_store(), *copy;
    kist_bank *bank = open_bank(store, "a/b"), *other = open_bank(store, "c");

    fill(bank, 0, 3000);
    fill(other, 0, 10);
    must_ok(kist_store_copy(store, to, NULL, &copied, NULL, NULL));
    must(copied.banks == 2 && copied.entries == 3010);
    must_rc(kist_store_copy(store, no, &memory, NULL, NULL, NULL), KIST_EINVAL);
    must(access(no, F_OK) < 0);
    must_close(other, NULL);
    must_close(bank, store);
    copy = open_store(to);
    must_ok(kist_bank_open(&bank, copy, "a/b", NULL));
    must_have(bank, 0, 3000);
    must_verify(bank);
    must_close(bank, copy);
    tmp_remove(to);
    free(to);
    free(no);
    free(dir);
}

static int reopen_without_proc(int fd, int flags)
{
    (void)fd, (void)flags;
    return -ENOENT;
}

TEST(without_proc_it_says_so)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_MEMORY };
    kist_store *store;
    int before = descriptors();

    os_seam.reopen = reopen_without_proc;
    must_rc(kist_store_open(&store, NULL, &opt), -ENOSYS);
    os_seam.reopen = os_real_reopen;
    must(strstr(kist_last_error()->what, "/proc") != NULL);
    must(descriptors() == before);
}

static void limit_descriptors(int n)
{
    struct rlimit rl;

    must(getrlimit(RLIMIT_NOFILE, &rl) == 0);
    rl.rlim_cur = (rlim_t)n;
    must(setrlimit(RLIMIT_NOFILE, &rl) == 0);
}

static void must_tell_of_the_limit(int rc)
{
    must_rc(rc, -EMFILE);
    must(strstr(kist_last_error()->what, "RLIMIT_NOFILE") != NULL);
}

/* Banks until none is left, then segments until none is left; each no changes
 * nothing, and all goes on when there is room. */
static void use_all_descriptors(void *arg)
{
    enum { ROOM = 60 };
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE, .segment_bytes = 4096 };
    kist_store *store;
    kist_bank *bank[ROOM];
    uint64_t made = 0, put = 0;
    char name[16];
    int rc = KIST_OK;

    (void)arg;
    limit_descriptors(descriptors() + ROOM);
    store = memory_store();
    while (rc == KIST_OK) {
        must(made < ROOM);
        (void)snprintf(name, sizeof name, "b%d", (int)made);
        rc = kist_bank_open(&bank[made], store, name, &opt);
        made += rc == KIST_OK;
        if (rc == KIST_OK)
            fill(bank[made - 1], 0, 10);
    }
    must_tell_of_the_limit(rc);
    must(made >= 5); /* eight descriptors each, or a few more */
    for (uint64_t i = 0; i < made; i++)
        must_have(bank[i], 0, 10);
    limit_descriptors(descriptors() + 12);
    while ((rc = kist_put(bank[0], number(put), text("a value that takes some room"))) == KIST_OK)
        must(++put < 10000);
    must_tell_of_the_limit(rc);
    must(put > 100 && count_of(bank[0]) == put);
    limit_descriptors(400);
    must_ok(kist_bank_open(&bank[made], store, name, &opt));
    fill(bank[made], 0, 10);
    must_ok(kist_put(bank[0], number(put), text("v")));
    must(count_of(bank[0]) == put + 1);
    for (uint64_t i = 0; i <= made; i++) {
        must_verify(bank[i]);
        must_ok(kist_bank_close(bank[i]));
    }
    must_ok(kist_store_close(store));
}

TEST(where_no_descriptor_is_left_it_says_so_and_goes_on_later)
{
    in_child(use_all_descriptors, NULL);
}

static int64_t calls_left; /* then one fails */

static void *alloc_or_fail(size_t len)
{
    return --calls_left == 0 ? NULL : os_real_alloc(len);
}

static void *resize_or_fail(void *p, size_t len)
{
    return --calls_left == 0 ? NULL : os_real_resize(p, len);
}

static int file_or_fail(const char *name)
{
    return --calls_left == 0 ? -ENFILE : os_real_memory_file(name);
}

static int reopen_or_fail(int fd, int flags)
{
    return --calls_left == 0 ? -ENFILE : os_real_reopen(fd, flags);
}

static void fail_calls(bool on)
{
    os_seam.alloc = on ? alloc_or_fail : os_real_alloc;
    os_seam.resize = on ? resize_or_fail : os_real_resize;
    os_seam.memory_file = on ? file_or_fail : os_real_memory_file;
    os_seam.reopen = on ? reopen_or_fail : os_real_reopen;
}

/* Until there are no more calls that could fail. */
static bool try_a_life(int64_t nth)
{
    kist_store_options memory = { .size = sizeof memory, .flags = KIST_STORE_MEMORY };
    kist_bank_options create = { .size = sizeof create, .flags = KIST_BANK_CREATE };
    kist_store *store;
    kist_bank *bank = NULL;
    int rc;

    calls_left = nth;
    fail_calls(true);
    rc = kist_store_open(&store, NULL, &memory);
    if (rc == KIST_OK)
        rc = kist_bank_open(&bank, store, "a/b", &create);
    for (uint64_t i = 0; i < 200 && rc == KIST_OK; i++)
        rc = kist_put(bank, number(i), text("a value of some length"));
    must(rc == KIST_OK || rc == KIST_ENOMEM || rc == -ENFILE);
    fail_calls(false);
    if (bank)
        fill(bank, 1000, 3000); /* it goes on, and splits */
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    return calls_left > 0;
}

TEST(each_call_that_fails_is_told_and_leaves_nothing_behind)
{
    int before;

    live_and_end();
    before = descriptors();
    for (int64_t nth = 1; !try_a_life(nth); nth++) {
        test_case = (uint64_t)nth;
        must(descriptors() == before);
        must(nth < 10000);
    }
    must(test_case > 30);
}

/* A program that closes what it does not know, and opens files of its own: ours
 * say that something is wrong, and leave these alone. */
static void close_everything(void *arg)
{
    kist_store *store = memory_store();
    kist_bank *bank = open_bank(store, "bank"), *again;
    int first = dup(0), others[100];

    (void)arg;
    put_text(bank, "k", "value");
    for (int fd = first - 30 > 3 ? first - 30 : 3; fd < first; fd++)
        (void)close(fd);
    for (int i = 0; i < 100; i++)
        others[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    must_hold(bank, "k", "value"); /* the maps are there */
    must(kist_bank_open(&again, store, "other", NULL) < 0);
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
    must(fcntl(others[99], F_GETFD) >= 0);
}

TEST(descriptors_that_somebody_closed_are_not_taken_for_files)
{
    in_child(close_everything, NULL);
}

/* ---- forks and threads ------------------------------------------------ */

struct family {
    kist_store *store;
    kist_bank *bank;
    int before;
};

static void be_a_child(void *arg)
{
    struct family *f = arg;
    kist_store *own;
    kist_bank *bank;
    kist_view *view;

    must_rc(kist_put(f->bank, text("k"), text("child")), KIST_EFORK);
    must_rc(kist_get_view(f->bank, text("k"), &view), KIST_EFORK);
    must_rc(kist_bank_open(&bank, f->store, "other", NULL), KIST_EFORK);
    own = memory_store();
    bank = open_bank(own, "bank");
    must_hold(bank, "k", NULL);
    put_text(bank, "k", "child");
    (void)kist_bank_close(f->bank);
    (void)kist_store_close(f->store);
    must_hold(bank, "k", "child");
    must_close(bank, own);
    must(descriptors() <= f->before);
}

TEST(a_forked_child_says_so_and_its_closing_frees_what_it_has)
{
    struct family f = { .before = descriptors() };

    f.store = memory_store();
    f.bank = open_bank(f.store, "bank");
    put_text(f.bank, "k", "parent");
    in_child(be_a_child, &f);
    must_hold(f.bank, "k", "parent");
    put_text(f.bank, "k", "later");
    must_verify(f.bank);
    must_close(f.bank, f.store);
    must(descriptors() == f.before);
}

struct shared {
    kist_store *store;
    _Atomic int over;
};

static void *make_and_drop(void *arg)
{
    struct shared *s = arg;
    char name[32];

    for (uint64_t i = 0; !s->over; i++) {
        (void)snprintf(name, sizeof name, "%p/%d", (void *)&name, (int)(i % 3));
        kist_bank *bank = open_bank(s->store, name);

        fill(bank, 0, 20);
        must_have(bank, 0, 20);
        must_ok(kist_bank_close(bank));
        must_ok(kist_bank_drop(s->store, name));
    }
    return NULL;
}

static void live_shortly(void *arg)
{
    (void)arg;
    (void)alarm(20);
    live_and_end();
}

TEST(threads_make_and_drop_banks_while_others_fork)
{
    struct shared s = { .store = memory_store() };
    pthread_t thread[3];

    for (int i = 0; i < 3; i++)
        must(pthread_create(&thread[i], NULL, make_and_drop, &s) == 0);
    for (uint64_t i = 0; i < test_scaled(30); i++)
        in_child(live_shortly, NULL);
    s.over = 1;
    for (int i = 0; i < 3; i++)
        must(pthread_join(thread[i], NULL) == 0);
    must_ok(kist_store_close(s.store));
}

struct team {
    kist_bank *bank;
    _Atomic int over;
};

static void *read_all_the_time(void *arg)
{
    struct team *team = arg;
    unsigned char buf[VALUE_CAP];
    uint64_t newest[50] = { 0 }, version;
    size_t len;

    for (uint64_t key = 0; !team->over; key = (key + 1) % 50) {
        int rc = kist_get_copy(team->bank, number(key), buf, sizeof buf, &len);

        if (rc == KIST_MISS)
            continue;
        must_ok(rc);
        must(value_check((kist_bytes){ buf, len }, key, &version));
        must(version >= newest[key]);
        newest[key] = version;
    }
    return NULL;
}

TEST(readers_in_threads_see_each_value_whole)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE, .segment_bytes = 65536 };
    kist_store *store = memory_store();
    struct team team = { 0 };
    unsigned char buf[VALUE_CAP];
    pthread_t thread[2];

    must_ok(kist_bank_open(&team.bank, store, "bank", &opt));
    for (int i = 0; i < 2; i++)
        must(pthread_create(&thread[i], NULL, read_all_the_time, &team) == 0);
    for (uint64_t i = 1; i < test_scaled(20000); i++) {
        uint64_t key = mix(i, 1) % 50;

        must_ok(kist_put(team.bank, number(key), (kist_bytes){ buf, value_make(buf, key, i) }));
        if (i % 2000 == 0)
            must_ok(kist_compact(team.bank, NULL, NULL));
    }
    team.over = 1;
    for (int i = 0; i < 2; i++)
        must(pthread_join(thread[i], NULL) == 0);
    must_verify(team.bank);
    must_close(team.bank, store);
}
