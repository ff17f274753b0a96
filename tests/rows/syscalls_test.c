/*
 * What the kernel is asked, as strace sees it: nothing in 1,000 warm gets and
 * in 1,000 unsynced puts; and never anything around the table `os_seam`.
 *
 * The program runs itself under strace. There each call of the table is put
 * between two marks, which are calls of close() on impossible descriptors:
 * what strace shows outside of a pair of marks went around the seam.
 */
#include "base/os.h"
#include "support.h"

#include <kist/pages.h>

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum mark { ENTER = -1001, LEAVE = -1002, BEGIN = -1003, END = -1004 };
enum { CALLS = 1000, KEYS = 100, ROUNDS = 5, WARM_BYTES = 3 << 20, LINE = 4096, SHOWN = 5 };

static const char child_variable[] = "KIST_TEST_STRACED"; /* the child's folder */

/* ---- under strace ----------------------------------------------------- */

static void mark(enum mark which)
{
    (void)syscall(SYS_close, which);
}

static int enter(void)
{
    mark(ENTER);
    return 0;
}

static void leave(const int *unused)
{
    (void)unused;
    mark(LEAVE);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic" /* one of the calls returns void */
#define X_(ret, name, params, args)                                                                \
    static ret marked_##name params                                                                \
    {                                                                                              \
        __attribute__((cleanup(leave))) int in = enter();                                          \
        (void)in;                                                                                  \
        return os_real_##name args;                                                                \
    }
OS_CALLS(X_)
#undef X_
#pragma GCC diagnostic pop

static void mark_the_table(void)
{
#define X_(ret, name, params, args) os_seam.name = marked_##name;
    OS_CALLS(X_)
#undef X_
}

static void unmark_the_table(void)
{
#define X_(ret, name, params, args) os_seam.name = os_real_##name;
    OS_CALLS(X_)
#undef X_
}

static void put_one(kist_bank *bank, uint64_t i)
{
    static char value[100];

    memcpy(value, &i, sizeof i);
    must_ok(kist_put(bank, number(i % KEYS), (kist_bytes){ value, sizeof value }));
}

static int feed(kist_bytes *key, kist_bytes *value, void *arg)
{
    uint64_t *left = arg;

    if ((*left)-- == 0)
        return KIST_END;
    *key = *value = number(*left);
    return 0;
}

static int count_name(const char *name, void *arg)
{
    (void)name;
    ++*(int *)arg;
    return 0;
}

static void read_everything(kist_bank *bank)
{
    kist_report report = { .size = sizeof report };
    kist_stats stats = { .size = sizeof stats };
    kist_iter *iter;
    kist_entry entry;

    must_hold(bank, "key", "value");
    must_ok(kist_iter_open(&iter, bank));
    while (kist_iter_next(iter, &entry) == KIST_OK)
        ;
    kist_iter_close(iter);
    must_ok(kist_stat(bank, &stats));
    must_ok(kist_verify(bank, &report, NULL, NULL));
}

/* The page cache over an open file: each kind of device, read and written, and
 * cut short behind a guard. */
static void page_calls(int fd)
{
    for (uint32_t kind = KIST_DEVICE_PREAD; kind <= KIST_DEVICE_MMAP; kind++) {
        kist_writer_options opt = { .size = sizeof opt, .flags = KIST_WRITER_SYNC };
        kist_device device;
        kist_pages *pages;
        kist_writer *writer;
        uint64_t v = 0;

        must_ok(kist_device_open(&device, fd, kind));
        must_ok(kist_pages_open(&pages, &device, NULL));
        must_ok(kist_writer_open(&writer, pages, &opt));
        must_ok(kist_writer_set_u64_le(writer, 100000, kind));
        must_ok(kist_writer_commit(writer));
        must_ok(kist_pages_get_u64_le(pages, 100000, &v));
        must(v == kind);
        kist_writer_close(writer);
        kist_pages_close(pages);
        kist_device_close(&device);
    }
}

/* Some of everything that kist does, but for its sync thread. */
static void every_call(const char *dir)
{
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "some/bank");
    uint64_t left = 50;
    int names = 0;

    for (uint64_t i = 0; i < 500; i++)
        put_one(bank, i);
    put_text(bank, "key", "value");
    must_ok(kist_delete(bank, number(3)));
    read_everything(bank);
    must_ok(kist_sync(bank));
    must_ok(kist_compact(bank, NULL, NULL));
    read_everything(bank);
    must_ok(kist_replace(bank, feed, &left));
    must_ok(kist_clear(bank));
    put_text(bank, "key", "value");
    must_ok(kist_bank_close(bank));
    bank = open_bank(store, "some/bank");
    must_ok(kist_repair(store, "some/bank", NULL, NULL, NULL));
    read_everything(bank);
    must_ok(kist_bank_list(store, NULL, count_name, &names));
    must_ok(kist_bank_close(bank));
    must_ok(kist_bank_drop(store, "some/bank"));
    must_ok(kist_store_close(store));
}

static void warm_calls(const char *dir)
{
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "warm");
    kist_bytes value;
    uint64_t i = 0;

    for (; i < WARM_BYTES / 150; i++)
        put_one(bank, i);
    must_ok(kist_read_begin());
    for (uint64_t k = 0; k < KEYS; k++)
        must_ok(kist_get(bank, number(k), &value));
    mark(BEGIN);
    for (uint64_t k = 0; k < CALLS; k++)
        must_ok(kist_get(bank, number(k % KEYS), &value));
    mark(END);
    kist_read_end();
    for (int round = 0; round < ROUNDS; round++) {
        mark(BEGIN);
        for (uint64_t n = 0; n < CALLS; n++)
            put_one(bank, i++);
        mark(END);
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static bool in_the_child(void)
{
    const char *dir = getenv(child_variable);
    FILE *file;

    if (!dir)
        return false;
    file = tmpfile();
    must(file != NULL);
    mark_the_table();
    mark(BEGIN);
    every_call(dir);
    page_calls(fileno(file));
    mark(END);
    unmark_the_table();
    warm_calls(dir);
    return true;
}

/* ---- what strace wrote ------------------------------------------------ */

struct trace {
    FILE *file;
    char line[LINE];
};

/* The name of the call in the line, skipping the process number. */
static const char *call_of(char *line)
{
    return line + strspn(line, "0123456789 ");
}

static bool is_mark(const char *call, enum mark which)
{
    char text[32];

    (void)snprintf(text, sizeof text, "close(%d)", which);
    return strncmp(call, text, strlen(text)) == 0;
}

static bool next_call(struct trace *t, const char **call)
{
    if (!fgets(t->line, sizeof t->line, t->file))
        return false;
    *call = call_of(t->line);
    return true;
}

static void skip_to(struct trace *t, enum mark which)
{
    const char *call;

    while (next_call(t, &call))
        if (is_mark(call, which))
            return;
    test_fail(__FILE__, __LINE__, "strace's output has the mark", "is false");
}

/* The C library's own, for its mutexes and pthread_once(), which are no part
 * of the table. */
static bool is_a_threads(const char *call)
{
    return strncmp(call, "futex(", 6) == 0 && strstr(call, "_PRIVATE") != NULL;
}

/* Calls up to the next END that do not stand between ENTER and LEAVE. */
static uint64_t outside(struct trace *t, uint64_t *inside)
{
    uint64_t n = 0;
    bool in = false;
    const char *call;

    skip_to(t, BEGIN);
    while (next_call(t, &call) && !is_mark(call, END)) {
        if (is_mark(call, ENTER) || is_mark(call, LEAVE)) {
            in = is_mark(call, ENTER);
        } else if (in) {
            ++*inside;
        } else if (!is_a_threads(call) && n++ < SHOWN) {
            (void)fprintf(stderr, "outside: %s", call);
        }
    }
    return n;
}

static char *own_path(void)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);

    must(n > 0);
    return path;
}

static void exec_self(void *arg)
{
    char *const *names = arg;

    (void)setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* which needs ptrace too */
    (void)setenv(child_variable, names[0], 1);
    (void)!freopen("/dev/null", "w", stdout);
    (void)execlp("strace", "strace", "-f", "-o", names[1], names[2], (char *)NULL);
    _exit(errno == ENOENT ? 127 : 126);
}

TEST(no_system_call_in_warm_gets_and_puts_and_none_around_the_seam)
{
    char *names[3], *dir;
    struct trace t;
    uint64_t inside = 0;
    int status, quiet = 0;

    if (in_the_child())
        return;
    dir = tmp_dir(TMP_FAST);
    names[0] = path_join(dir, "store");
    names[1] = path_join(dir, "strace");
    names[2] = own_path();
    status = child_wait(child_start(exec_self, names));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        test_skip("strace is not installed");
    t.file = fopen(names[1], "r");
    if (!t.file || (fseek(t.file, 0, SEEK_END) == 0 && ftell(t.file) == 0))
        test_skip("strace may not trace here");
    rewind(t.file);
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    must(outside(&t, &inside) == 0); /* nothing around the seam ... */
    must(inside > 200);              /* and the marks do show what goes through it */
    must(outside(&t, &inside) == 0); /* the gets */
    for (int round = 0; round < ROUNDS; round++)
        quiet += outside(&t, &inside) == 0;
    must(quiet >= ROUNDS - 1); /* one may have met the making of a segment */
    (void)fclose(t.file);
    for (int i = 0; i < 2; i++)
        free(names[i]);
    free(dir);
}
