/*
 * A directory in memory answers as one on a disk does: random calls to both, and
 * the answers compared. What it does not do as they do stands in the last case.
 */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { DISK, MEMORY, SIDES, OPEN_MAX_HERE = 6 };

struct pair {
    int dir[SIDES];              /* the root */
    int sub[OPEN_MAX_HERE][SIDES]; /* directories that are open, or -1 */
    int file[OPEN_MAX_HERE][SIDES];
    struct rng rng;
};

/* ---- paths ------------------------------------------------------------ */

static const char *const parts[] = { "a", "b", "kist.heap.1", "kist.live", "x y", "long" };
enum { PARTS = sizeof parts / sizeof *parts };

static const char *some_path(struct pair *p)
{
    static char ring[4][64];
    static unsigned next;
    char *to = ring[next++ % 4];
    int n = 0;

    for (uint64_t i = rng_below(&p->rng, 4) / 3 + rng_below(&p->rng, 2); i > 0; i--)
        n += snprintf(to + n, 40, "%s/", parts[rng_below(&p->rng, PARTS)]);
    (void)snprintf(to + n, 40, "%s", rng_below(&p->rng, 20) ? parts[rng_below(&p->rng, PARTS)] : ".");
    return to;
}

/* The root, or a directory that is open, perhaps removed since. */
static const int *some_dir(struct pair *p)
{
    const int *sub = p->sub[rng_below(&p->rng, OPEN_MAX_HERE)];

    return sub[0] >= 0 && rng_below(&p->rng, 3) == 0 ? sub : p->dir;
}

static void both_said(const char *what, const char *path, const int64_t rc[SIDES])
{
    if (rc[DISK] != rc[MEMORY])
        (void)fprintf(stderr, "%s of '%s': %lld on the disk, %lld in memory\n", what, path,
                      (long long)rc[DISK], (long long)rc[MEMORY]);
    must(rc[DISK] == rc[MEMORY]);
}

/* ---- calls ------------------------------------------------------------ */

static void close_both(int fd[SIDES])
{
    for (int i = 0; i < SIDES; i++) {
        if (fd[i] >= 0)
            must(os_close(fd[i]) == 0);
        fd[i] = -1;
    }
}

static void call_open(struct pair *p)
{
    static const int ways[] = { OS_READ, OS_READ | OS_WRITE, OS_READ | OS_DIR, OS_WRITE | OS_CREATE };
    int flags = ways[rng_below(&p->rng, 4)];
    const int *dir = some_dir(p);
    const char *path = some_path(p);
    int64_t rc[SIDES];
    int *to = (flags & OS_DIR ? p->sub : p->file)[rng_below(&p->rng, OPEN_MAX_HERE)], got[SIDES];
    struct os_stat st;

    for (int i = 0; i < SIDES; i++) {
        got[i] = os_open_under(dir[i], path, flags, 0600);
        rc[i] = got[i] < 0 ? got[i] : 0;
    }
    if (rc[DISK] == 0 && os_stat(got[DISK], &st) == 0 && st.kind == OS_FILE_DIR && !(flags & OS_DIR)) {
        must(rc[MEMORY] == -EISDIR); /* the last case */
        close_both(got);
        return;
    }
    both_said("open", path, rc);
    close_both(to);
    to[DISK] = got[DISK];
    to[MEMORY] = got[MEMORY];
}

static void call_stat(struct pair *p)
{
    const int *dir = some_dir(p);
    const char *path = some_path(p);
    struct os_stat st[SIDES];
    int64_t rc[SIDES];

    for (int i = 0; i < SIDES; i++)
        rc[i] = os_stat_under(dir[i], path, &st[i]);
    both_said("stat", path, rc);
    if (rc[0] < 0)
        return;
    must(st[DISK].kind == st[MEMORY].kind && st[DISK].uid == st[MEMORY].uid);
    if (st[DISK].kind == OS_FILE_REGULAR)
        must(st[DISK].size == st[MEMORY].size);
}

static void call_names(struct pair *p)
{
    const int *dir = some_dir(p);
    const char *from = some_path(p), *to = some_path(p), *what;
    uint64_t which = rng_below(&p->rng, 6);
    struct os_stat st;
    int64_t rc[SIDES];

    /* the last case: names of directories stay, and "." is asked for nowhere */
    if (which >= 4 && (strchr(from, '.') == strrchr(from, '.') || os_stat_under(dir[0], from, &st) < 0 ||
                       st.kind != OS_FILE_REGULAR))
        return;
    for (int i = 0; i < SIDES; i++) {
        switch (which) {
        case 0:
            what = "mkdir", rc[i] = os_mkdir(dir[i], from, 0700);
            break;
        case 1:
            what = "rmdir", rc[i] = os_rmdir(dir[i], from);
            break;
        case 2:
            what = "unlink", rc[i] = os_unlink(dir[i], from);
            break;
        case 3:
            what = "link", rc[i] = os_link(dir[i], from, to);
            break;
        case 4:
            what = "rename", rc[i] = os_rename(dir[i], from, to);
            break;
        default:
            what = "rename_new", rc[i] = os_rename_new(dir[i], from, to);
        }
    }
    /* Of directories and of "." any no will do. */
    if (rc[DISK] < 0 && (rc[DISK] == -EPERM || rc[DISK] == -EBUSY || rc[DISK] == -EINVAL ||
                         rc[MEMORY] == -EISDIR))
        rc[DISK] = rc[MEMORY] < 0 ? rc[MEMORY] : rc[DISK];
    both_said(what, from, rc);
}

static void call_file(struct pair *p)
{
    int *fd = p->file[rng_below(&p->rng, OPEN_MAX_HERE)];
    uint64_t off = rng_below(&p->rng, 5000), n = rng_below(&p->rng, 100);
    char buf[SIDES][100];
    int64_t rc[SIDES];

    if (fd[0] < 0)
        return;
    memset(buf, (int)off, sizeof buf);
    for (int i = 0; i < SIDES; i++) {
        rc[i] = os_pwrite(fd[i], buf[i], n, off);
        if (rc[i] == -EBADF) /* opened for reading */
            rc[i] = os_pread(fd[i], buf[i], n, off);
    }
    both_said("write or read", "a file", rc);
    must(memcmp(buf[0], buf[1], sizeof buf[0]) == 0);
}

/* ---- everything compared ---------------------------------------------- */

struct names {
    char name[64][40];
    size_t count;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void list(int dir, const char *path, struct names *out, size_t room)
{
    _Alignas(8) char buf[4096];
    int fd = os_open_under(dir, path, OS_READ | OS_DIR, 0);
    int64_t got;

    must(fd >= 0);
    out->count = 0;
    while ((got = os_list(fd, buf, room)) != 0) {
        must(got > 0);
        for (int64_t at = 0; at < got;) {
            const struct os_dirent *e = (const void *)(buf + at);

            if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
                (void)snprintf(out->name[out->count++], 40, "%.39s", e->name);
            at += e->len;
        }
    }
    must(os_close(fd) == 0);
    qsort(out->name, out->count, sizeof out->name[0], by_name);
}

static void must_be_equal(const struct pair *p, const char *path, int depth)
{
    struct names names[SIDES];
    struct os_stat st[SIDES];
    char below[256];

    for (int i = 0; i < SIDES; i++)
        list(p->dir[i], path, &names[i], i == MEMORY ? 64 : 4096);
    must(names[0].count == names[1].count);
    for (size_t k = 0; k < names[0].count; k++) {
        must(strcmp(names[0].name[k], names[1].name[k]) == 0);
        (void)snprintf(below, sizeof below, "%.200s/%.39s", path, names[0].name[k]);
        for (int i = 0; i < SIDES; i++)
            must_ok(os_stat_under(p->dir[i], below, &st[i]));
        must(st[0].kind == st[1].kind);
        if (st[0].kind == OS_FILE_DIR && depth < 8)
            must_be_equal(p, below, depth + 1);
    }
}

/* Same device and inode: the two names are one file's, on both sides or none. */
static void must_be_linked_alike(const struct pair *p)
{
    struct os_stat a[SIDES], b[SIDES];

    for (int i = 0; i < PARTS * PARTS; i++) {
        int rc = 0;

        for (int side = 0; side < SIDES; side++) {
            rc |= os_stat_under(p->dir[side], parts[i / PARTS], &a[side]);
            rc |= os_stat_under(p->dir[side], parts[i % PARTS], &b[side]);
        }
        if (rc == 0)
            must((a[0].ino == b[0].ino) == (a[1].ino == b[1].ino && a[1].dev == b[1].dev));
    }
}

static int descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

TEST(a_directory_in_memory_answers_as_one_on_a_disk)
{
    char *path = tmp_dir(TMP_FAST);
    int before = descriptors();

    for (uint64_t round = 0; round < test_scaled(200); round++) {
        struct pair p = { .rng.state = mix(test_seed(), round) };
        char *root = path_join(path, "root");

        test_case = round;
        must_ok(os_mkdir_path(root, 0700));
        p.dir[DISK] = os_open_path(root, OS_READ | OS_DIR);
        p.dir[MEMORY] = os_memory_dir();
        must(p.dir[DISK] >= 0 && p.dir[MEMORY] >= 0);
        memset(p.sub, -1, sizeof p.sub);
        memset(p.file, -1, sizeof p.file);
        for (int i = 0; i < 300; i++) {
            uint64_t which = rng_below(&p.rng, 10);

            if (which < 3)
                call_open(&p);
            else if (which < 4)
                call_stat(&p);
            else if (which < 9)
                call_names(&p);
            else
                call_file(&p);
        }
        must_be_equal(&p, ".", 0);
        must_be_linked_alike(&p);
        for (int i = 0; i < OPEN_MAX_HERE; i++) {
            close_both(p.sub[i]);
            close_both(p.file[i]);
        }
        close_both(p.dir);
        tmp_remove(root);
        free(root);
        must(descriptors() == before); /* the directories' own are none of the process's */
    }
    free(path);
}

/* ---- one by one ------------------------------------------------------- */

TEST(each_open_is_a_description_of_its_own)
{
    int dir = os_memory_dir(), fd[2];
    uint64_t found;

    must(dir >= 0);
    fd[0] = os_open_under(dir, "f", OS_WRITE | OS_CREATE, 0600);
    fd[1] = os_open_under(dir, "f", OS_READ | OS_WRITE, 0);
    must(fd[0] >= 0 && fd[1] >= 0);
    must_ok(os_lock(fd[0], OS_LOCK_EXCLUSIVE, 7, 1, false));
    must(os_lock(fd[1], OS_LOCK_EXCLUSIVE, 7, 1, false) == -EAGAIN);
    must_ok(os_lock_ask(fd[1], 0, 100, &found));
    must(found == 7);
    must_ok(os_close(fd[0]));
    must_ok(os_lock(fd[1], OS_LOCK_EXCLUSIVE, 7, 1, false));
    must_ok(os_close(fd[1]));
    must_ok(os_close(dir));
}

TEST(a_file_lives_as_long_as_a_name_or_a_description)
{
    int dir = os_memory_dir(), fd, again;
    char byte = 'x';

    fd = os_open_under(dir, "one", OS_WRITE | OS_CREATE, 0600);
    must(fd >= 0 && os_pwrite(fd, &byte, 1, 0) == 1);
    must_ok(os_link(dir, "one", "two"));
    must_ok(os_unlink(dir, "one"));
    must(os_open_under(dir, "one", OS_READ, 0) == -ENOENT);
    again = os_open_under(dir, "two", OS_READ, 0);
    must_ok(os_unlink(dir, "two"));
    must_ok(os_close(dir));
    byte = 0;
    must(again >= 0 && os_pread(again, &byte, 1, 0) == 1 && byte == 'x');
    must_ok(os_close(again));
    must_ok(os_close(fd));
}

/* A list goes on where it was, whatever came and went meanwhile. */
TEST(a_list_meets_each_name_that_stays_once)
{
    enum { FILES = 200 };
    _Alignas(8) char buf[128];
    int dir = os_memory_dir(), seen[FILES] = { 0 }, calls = 0;
    int64_t got;
    char name[40];

    for (int i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof name, "d%d", i);
        must_ok(os_mkdir(dir, name, 0700));
    }
    while ((got = os_list(dir, buf, sizeof buf)) > 0) {
        for (int64_t at = 0; at < got;) {
            const struct os_dirent *e = (const void *)(buf + at);
            int i;

            if (sscanf(e->name, "d%d", &i) == 1)
                seen[i]++;
            at += e->len;
        }
        (void)snprintf(name, sizeof name, "d%d", FILES - 1 - 2 * calls++);
        if (2 * calls < FILES)
            must_ok(os_rmdir(dir, name)); /* every other one, from behind */
    }
    must(got == 0 && calls > 20);
    for (int i = 0; i < FILES; i += 2)
        must(seen[i] == 1);
    must(os_list(dir, buf, 8) == 0);
    must_ok(os_close(dir));
    dir = os_memory_dir();
    must_ok(os_mkdir(dir, "a name of some length", 0700));
    must(os_list(dir, buf, 16) == -EINVAL); /* no room for one entry */
    must_ok(os_close(dir));
}

struct waiting {
    int dir;
    _Atomic int got;
};

static void *lock_it(void *arg)
{
    struct waiting *w = arg;
    int fd = os_open_under(w->dir, ".", OS_READ | OS_DIR, 0);

    must_ok(os_flock(fd, OS_LOCK_EXCLUSIVE));
    w->got++;
    must_ok(os_close(fd)); /* lets go of it */
    return NULL;
}

TEST(one_description_at_a_time_has_a_directorys_lock)
{
    struct waiting w = { .dir = os_memory_dir() };
    pthread_t t[3];
    int fd = os_open_under(w.dir, ".", OS_READ | OS_DIR, 0);

    must_ok(os_flock(fd, OS_LOCK_EXCLUSIVE));
    must_ok(os_flock(fd, OS_LOCK_EXCLUSIVE)); /* it has it */
    for (int i = 0; i < 3; i++)
        must(pthread_create(&t[i], NULL, lock_it, &w) == 0);
    for (int i = 0; i < 20; i++)
        (void)sched_yield();
    must(w.got == 0);
    must_ok(os_flock(fd, OS_LOCK_FREE));
    for (int i = 0; i < 3; i++)
        must(pthread_join(t[i], NULL) == 0);
    must(w.got == 3);
    must_ok(os_close(fd));
    must_ok(os_close(w.dir));
}

/* Where it says no, and a disk would say yes; and numbers that are no descriptors. */
TEST(what_nobody_needs_of_it_is_refused)
{
    struct os_stat st;
    char name[300];
    int dir = os_memory_dir(), gone;

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    must_ok(os_mkdir(dir, "d", 0700));
    must(os_rename(dir, "d", "e") == -EISDIR);
    must(os_open_under(dir, "d", OS_READ, 0) == -EISDIR);
    must(os_open_under(dir, "../d", OS_READ | OS_DIR, 0) == -EXDEV);
    must(os_mkdir(dir, name, 0700) == -ENAMETOOLONG);
    must(os_open_under(dir, name, OS_WRITE | OS_CREATE, 0600) == -ENAMETOOLONG);
    gone = os_open_under(dir, "d", OS_READ | OS_DIR, 0);
    must_ok(os_rmdir(dir, "d"));
    must(os_mkdir(gone, "below", 0700) == -ENOENT);
    must(os_open_under(gone, "below", OS_WRITE | OS_CREATE, 0600) == -ENOENT);
    must_ok(os_close(gone));
    must(os_close(gone) == -EBADF && os_stat(gone, &st) == -EBADF);
    must(os_stat_under(gone, ".", &st) == -EBADF && os_flock(gone, OS_LOCK_EXCLUSIVE) == -EBADF);
    must(os_stat(1 << 30 | 12345, &st) == -EBADF);
    must_ok(os_close(dir));
}
