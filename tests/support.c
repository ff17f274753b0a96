/* support - see support.h. Nothing here knows more of kist than its header. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KINDS = 2, CASE_SECONDS = 30 };

static char *root[KINDS];  /* of folders, by enum tmp_kind */
static pid_t main_process; /* 0: the cases are not run by main.c */
static pthread_t main_thread;

uint64_t test_case;
const char *test_note;

/* ---- banks of either kind --------------------------------------------- */

int test_bank_open(kist_bank **out, kist_store *store, const char *name,
                   const kist_bank_options *opt)
{
    const char *kind = getenv("KIST_TEST_INDEX");
    kist_bank_options mine;

    if (!opt || !kind || opt->size != sizeof mine || opt->index != KIST_INDEX_DEFAULT)
        return (kist_bank_open)(out, store, name, opt);
    mine = *opt;
    if (strcmp(kind, "ordered") == 0)
        mine.index = KIST_INDEX_ORDERED;
    return (kist_bank_open)(out, store, name, &mine);
}

/* ---- cases and checks ------------------------------------------------- */

static double scale(void)
{
    const char *given = getenv("KIST_TEST_SCALE"), *share = getenv("KIST_TEST_SHARE");

    return (given ? strtod(given, NULL) : 1.0) * (share ? strtod(share, NULL) : 1.0);
}

uint64_t test_scaled(uint64_t count)
{
    double n = (double)count * scale();

    return n < 1.0 ? 1 : (uint64_t)n;
}

uint64_t test_seed(void)
{
    const char *given = getenv("KIST_TEST_SEED");

    return given ? strtoull(given, NULL, 0) : 1;
}

/* cmocka's own failure jumps back to its loop: only where that loop runs. */
static _Noreturn void leave_failed(const char *file, int line)
{
    if (test_case)
        (void)fprintf(stderr, "    at case %" PRIu64 ", seed %" PRIu64 "%s%s\n", test_case,
                      test_seed(), test_note ? ": " : "", test_note ? test_note : "");
    (void)fflush(stdout);
    if (main_process && getpid() != main_process)
        _exit(CHILD_FAILED);
    if (!main_process || !pthread_equal(pthread_self(), main_thread))
        abort();
    _fail(file, line);
    abort();
}

void test_fail(const char *file, int line, const char *what, const char *why)
{
    (void)fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, why);
    leave_failed(file, line);
}

void test_rc(const char *file, int line, const char *call, int got, int want)
{
    char wanted[32];

    if (got == want)
        return;
    (void)snprintf(wanted, sizeof wanted, "%s", kist_errname(want));
    (void)fprintf(stderr, "%s:%d: %s: is %s, not %s", file, line, call, kist_errname(got), wanted);
    if (got < 0)
        (void)fprintf(stderr, " (%s)", kist_last_error()->what);
    (void)fprintf(stderr, "\n");
    leave_failed(file, line);
}

_Noreturn void test_skip(const char *why)
{
    (void)printf("skipped: %s\n", why);
    (void)fflush(stdout);
    if (getpid() != main_process)
        _exit(CHILD_SKIPPED);
    _skip(__FILE__, __LINE__);
    abort();
}

bool test_in_memory;

void test_needs_files(void)
{
    if (test_in_memory)
        test_skip("its stores are in memory");
}

void row_print(const struct row *row)
{
    const char *kind = test_in_memory ? "memory" : getenv("KIST_TEST_INDEX");

    (void)printf("ROW %s%s%s cases=%" PRIu64 " states=%" PRIu64 " failures=%" PRIu64
                 " skipped=%" PRIu64 " seed=%" PRIu64 "\n",
                 row->id, kind ? "-" : "", kind ? kind : "", row->cases, row->states,
                 row->failures, row->skipped, test_seed());
    (void)fflush(stdout);
}

/* ---- folders ---------------------------------------------------------- */

static const char *root_place(enum tmp_kind kind)
{
    const char *given = getenv("KIST_TEST_DIR");

    if (given)
        return given;
    if (kind == TMP_FAST && access("/dev/shm", W_OK) == 0)
        return "/dev/shm";
    given = getenv("TMPDIR");
    return given ? given : "/var/tmp";
}

char *path_join(const char *dir, const char *name)
{
    char *path = NULL;

    must(asprintf(&path, "%s/%s", dir, name) > 0);
    return path;
}

void support_begin(void)
{
    main_process = getpid();
    main_thread = pthread_self();
    for (int i = 0; i < KINDS; i++)
        free(tmp_dir((enum tmp_kind)i));
}

void support_end(void)
{
    for (int i = 0; i < KINDS; i++) {
        if (root[i] && !getenv("KIST_TEST_KEEP"))
            tmp_remove(root[i]);
        free(root[i]);
        root[i] = NULL;
    }
}

char *tmp_dir(enum tmp_kind kind)
{
    char *dir;

    if (!root[kind]) {
        root[kind] = path_join(root_place(kind), "kist-test-XXXXXX");
        must(mkdtemp(root[kind]) != NULL);
    }
    dir = path_join(root[kind], "XXXXXX");
    must(mkdtemp(dir) != NULL);
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    (void)remove(path);
    return 0;
}

void tmp_remove(const char *dir)
{
    (void)nftw(dir, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* nftw() hands its callback no argument. Sums are kept free of the order in
 * which a folder is read. */
static uint64_t walk_sum;
static size_t walk_prefix;

static uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;

        memcpy(&word, p, sizeof word);
        h = mix(h, word);
    }
    for (; len > 0; p++, len--)
        h = mix(h, *p);
    return h;
}

static uint64_t hash_content(uint64_t h, const char *path)
{
    static char buf[1 << 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return mix(h, (uint64_t)errno);
    while ((n = read(fd, buf, sizeof buf)) > 0)
        h = hash_bytes(h, buf, (size_t)n);
    (void)close(fd);
    return h;
}

static int hash_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    const char *name = path + walk_prefix;
    uint64_t h = hash_bytes(mix((uint64_t)kind, st->st_mode), name, strlen(name));

    (void)at;
    if (S_ISREG(st->st_mode))
        h = hash_content(mix(h, (uint64_t)st->st_size), path);
    walk_sum += h;
    return 0;
}

uint64_t tree_hash(const char *dir)
{
    walk_sum = 0;
    walk_prefix = strlen(dir);
    must(nftw(dir, hash_one, 32, FTW_PHYS) == 0);
    return walk_sum;
}

static int add_blocks(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path, (void)kind, (void)at;
    walk_sum += (uint64_t)st->st_blocks * 512;
    return 0;
}

uint64_t tree_blocks(const char *dir)
{
    walk_sum = 0;
    must(nftw(dir, add_blocks, 32, FTW_PHYS) == 0);
    return walk_sum;
}

static const char *copy_target;

static void copy_file(const char *from, const char *to, mode_t mode)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode & 0777);
    ssize_t n;

    must(in >= 0 && out >= 0);
    do {
        n = copy_file_range(in, NULL, out, NULL, 1 << 30, 0);
        must(n >= 0);
    } while (n > 0);
    (void)close(in);
    (void)close(out);
}

static int copy_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    char *to = path_join(copy_target, path + walk_prefix);

    (void)kind;
    if (S_ISDIR(st->st_mode) && at->level > 0)
        must(mkdir(to, st->st_mode & 0777) == 0);
    if (S_ISREG(st->st_mode))
        copy_file(path, to, st->st_mode);
    free(to);
    return 0;
}

/* `to` exists and is empty. */
void tree_copy(const char *from, const char *to)
{
    walk_prefix = strlen(from);
    copy_target = to;
    must(nftw(from, copy_one, 32, FTW_PHYS) == 0);
}

/* ---- random numbers and values ---------------------------------------- */

uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * UINT64_C(0x9e3779b97f4a7c15) + b + UINT64_C(0x632be59bd9b4e019);

    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t rng_next(struct rng *rng)
{
    rng->state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(rng->state, 0);
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    return rng_next(rng) % bound;
}

/* Mostly short, now and then a few pages. */
static size_t value_len(uint64_t key, uint64_t version)
{
    uint64_t h = mix(key ^ 0x5eed, version);
    uint64_t span = h % 64 == 0 ? VALUE_CAP - VALUE_MIN : 200;

    return VALUE_MIN + (size_t)((h >> 8) % span);
}

void value_fill(void *buf, size_t len, uint64_t key, uint64_t version)
{
    uint64_t head[3] = { key, version, mix(mix(key, version), len) };
    unsigned char *p = buf;
    struct rng rng = { head[2] };

    must(len >= VALUE_MIN);
    memcpy(p, head, sizeof head);
    for (size_t at = sizeof head; at < len; at += 8) {
        uint64_t word = rng_next(&rng);

        memcpy(p + at, &word, len - at < 8 ? len - at : 8);
    }
}

size_t value_make(void *buf, uint64_t key, uint64_t version)
{
    size_t len = value_len(key, version);

    value_fill(buf, len, key, version);
    return len;
}

static bool tail_is(const unsigned char *p, size_t len, uint64_t state)
{
    struct rng rng = { state };

    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = rng_next(&rng);

        if (memcmp(p + at, &word, len - at < 8 ? len - at : 8) != 0)
            return false;
    }
    return true;
}

bool value_check(kist_bytes value, uint64_t key, uint64_t *version)
{
    uint64_t head[3];

    if (value.len < sizeof head)
        return false;
    memcpy(head, value.data, sizeof head);
    if (head[0] != key || head[2] != mix(mix(key, head[1]), value.len))
        return false;
    *version = head[1];
    return tail_is((const unsigned char *)value.data + sizeof head, value.len - sizeof head,
                   head[2]);
}

/* ---- processes -------------------------------------------------------- */

/* cmocka's handlers would jump back into the parent's loop. */
static void forget_handlers(void)
{
    static const int kinds[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        (void)signal(kinds[i], SIG_DFL);
}

pid_t child_start(void (*body)(void *arg), void *arg)
{
    pid_t pid;

    (void)fflush(stdout);
    (void)fflush(stderr);
    pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        forget_handlers();
        body(arg);
        (void)fflush(stdout);
        _exit(0);
    }
    return pid;
}

int child_wait(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        must(errno == EINTR);
    return status;
}

void child_kill(pid_t pid)
{
    must(kill(pid, SIGKILL) == 0);
    (void)child_wait(pid);
}

void must_end_well(pid_t pid)
{
    int status = child_wait(pid);

    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_SKIPPED)
        test_skip("as the child says");
    if (WIFSIGNALED(status))
        (void)fprintf(stderr, "child ended by signal %d\n", WTERMSIG(status));
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void in_child(void (*body)(void *arg), void *arg)
{
    must_end_well(child_start(body, arg));
}

void *shared_memory(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    must(p != MAP_FAILED);
    return p;
}

struct batch_state {
    const struct batch *batch;
    uint64_t last;
    _Atomic uint64_t *next;
};

static void batch_body(void *arg)
{
    const struct batch_state *state = arg;

    while (*state->next < state->last) {
        (void)alarm(CASE_SECONDS);
        state->batch->run(*state->next, state->batch->arg);
        (*state->next)++;
    }
    (void)alarm(0);
}

void batch_run(const struct batch *batch, uint64_t first, uint64_t last)
{
    const char *only = getenv("KIST_TEST_CASE");
    struct batch_state state = { batch, last, shared_memory(sizeof *state.next) };

    if (only) { /* in this process, for a debugger */
        batch->run(strtoull(only, NULL, 0), batch->arg);
        return;
    }
    *state.next = first;
    while (*state.next < last) {
        int status = child_wait(child_start(batch_body, &state));

        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            break;
        batch->died(*state.next, status, batch->arg);
        (*state.next)++;
    }
    (void)munmap(state.next, sizeof *state.next);
}

/* ---- kist, shortened -------------------------------------------------- */

kist_bytes text(const char *s)
{
    return (kist_bytes){ s, strlen(s) };
}

kist_bytes number(uint64_t n)
{
    static _Thread_local uint64_t ring[16];
    static _Thread_local unsigned next;
    uint64_t *slot = &ring[next++ % 16];

    *slot = n;
    return (kist_bytes){ slot, sizeof *slot };
}

kist_store *open_store(const char *dir)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_CREATE };
    kist_store *store;

    must_ok(kist_store_open(&store, dir, &opt));
    return store;
}

kist_bank *open_bank(kist_store *store, const char *name)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, name, &opt));
    return bank;
}

void put_text(kist_bank *bank, const char *key, const char *value)
{
    must_ok(kist_put(bank, text(key), text(value)));
}

void must_hold(kist_bank *bank, const char *key, const char *value)
{
    kist_view *view;

    if (!value) {
        must_rc(kist_get_view(bank, text(key), &view), KIST_MISS);
        return;
    }
    must_ok(kist_get_view(bank, text(key), &view));
    kist_bytes got = kist_view_bytes(view);
    must(got.len == strlen(value) && memcmp(got.data, value, got.len) == 0);
    kist_view_release(view);
}

uint64_t count_of(kist_bank *bank)
{
    uint64_t entries;

    must_ok(kist_count(bank, &entries));
    return entries;
}

void must_verify(kist_bank *bank)
{
    kist_report report = { .size = sizeof report };

    must_ok(kist_verify(bank, &report, NULL, NULL));
    must(report.damaged == 0 && report.unreachable == 0);
    if (report.entries != count_of(bank))
        fprintf(stderr, "verify met %llu entries, the count is %llu\n",
                (unsigned long long)report.entries, (unsigned long long)count_of(bank));
    must(report.entries == count_of(bank));
}

bool mended(kist_store *store, const char *name, int rc)
{
    if (rc != KIST_EPOISON)
        return false;
    rc = kist_repair(store, name, NULL, NULL, NULL);
    must(rc == KIST_OK || rc == KIST_EBUSY); /* somebody else is at it */
    return true;
}

void must_close(kist_bank *bank, kist_store *store)
{
    int rc = kist_bank_close(bank);

    must(rc == KIST_OK || rc == KIST_EPOISON);
    rc = kist_store_close(store);
    must(rc == KIST_OK || rc == KIST_EPOISON);
}

struct fixture fixture_open_with(const kist_bank_options *opt)
{
    struct fixture f = { .dir = tmp_dir(TMP_FAST) };
    kist_bank_options made = opt ? *opt : (kist_bank_options){ .size = sizeof made };

    made.flags |= KIST_BANK_CREATE;
    f.store = open_store(f.dir);
    must_ok(kist_bank_open(&f.bank, f.store, "bank", &made));
    return f;
}

struct fixture fixture_open(void)
{
    return fixture_open_with(NULL);
}

void fixture_close(struct fixture *f)
{
    must_ok(kist_bank_close(f->bank));
    must_ok(kist_store_close(f->store));
    tmp_remove(f->dir);
    free(f->dir);
}
