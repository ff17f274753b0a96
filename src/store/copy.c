/*
 * copy.c - a whole store, copied while it is in use; bank/copy.c does one bank.
 *
 * The copy is made under a name of its own beside the one it is to get, synced,
 * and then renamed: what has the final name is complete.
 */
#include "store/store.h"

#include "base/err.h"
#include "store/name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096, NAME_BYTES = 256, DEPTH = 80 };

struct job {
    kist_store *from, *to;
    struct copying cp;
    uint32_t banks;
    char parent[PATH_BYTES]; /* of both names, ends with '/' */
    char name[NAME_BYTES];   /* the final one */
    char under[NAME_BYTES];  /* the one it is made under */
    int dir;                 /* the parent, opened */
};

static int refuse(const char *path, int rc, const char *why)
{
    return err_set(rc, NULL, NULL, ERR_NOWHERE, "cannot copy the store to '%.150s': %s", path, why);
}

/* ---- where ------------------------------------------------------------ */

static int split(struct job *job, const char *path)
{
    size_t end = path ? strlen(path) : 0, begin;
    uint64_t random;
    int rc;

    while (end > 1 && path[end - 1] == '/')
        end--;
    begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (end == begin || end - begin >= sizeof job->name || begin + 2 >= sizeof job->parent)
        return refuse(path ? path : "", KIST_EINVAL, "that is no name for a directory");
    memcpy(job->name, path + begin, end - begin);
    if (strcmp(job->name, ".") == 0 || strcmp(job->name, "..") == 0)
        return refuse(path, KIST_EINVAL, "that is no name for a directory");
    memcpy(job->parent, begin > 0 ? path : "./", begin > 0 ? begin : 2);
    rc = os_random(&random, sizeof random);
    (void)snprintf(job->under, sizeof job->under, "%.200s.copying.%016llx", job->name,
                   (unsigned long long)random);
    return rc < 0 ? refuse(path, err_system(rc), "no random numbers") : KIST_OK;
}

/* A store in a store would be taken for banks of it. From the parent upwards,
 * up to the root, which is its own parent. */
static int refuse_inside(const struct job *job, const char *path)
{
    char up[2 * PATH_BYTES];
    struct os_stat store, at, last = { 0 };
    int rc = os_stat(job->from->env.dir, &store), fd;
    size_t len = (size_t)snprintf(up, sizeof up, "%s.", job->parent);

    while (rc == 0 && len + 4 < sizeof up) {
        fd = os_open_path(up, OS_READ | OS_DIR);
        rc = fd < 0 ? fd : os_stat(fd, &at);
        if (fd >= 0)
            (void)os_close(fd);
        if (rc < 0)
            return KIST_OK; /* not ours to look at: the store was */
        if (at.dev == store.dev && at.ino == store.ino)
            return refuse(path, KIST_EINVAL,
                          "that is inside of the store, where it would be taken for banks");
        if (at.dev == last.dev && at.ino == last.ino)
            return KIST_OK;
        last = at;
        memcpy(up + len, "/..", 4);
        len += 3;
    }
    return rc < 0 ? refuse(path, err_system(rc), kist_strerror(rc)) : KIST_OK;
}

static int find_place(struct job *job, const char *path)
{
    struct os_stat st;
    int rc = split(job, path);

    if (rc < 0)
        return rc;
    job->dir = os_open_path(job->parent, OS_READ | OS_DIR);
    if (job->dir < 0)
        return refuse(path, err_system(job->dir), kist_strerror(job->dir));
    rc = os_stat_under(job->dir, job->name, &st);
    if (rc != -ENOENT)
        return refuse(path, rc == 0 || rc == -ELOOP ? -EEXIST : err_system(rc),
                      rc == 0 || rc == -ELOOP ? "there is something by that name already"
                                              : kist_strerror(rc));
    return refuse_inside(job, path);
}

/* ---- how much there is ------------------------------------------------ */

/* The sizes of a bank's heap files; what can't be looked at counts nothing. */
static uint64_t heap_bytes(const kist_store *s, const char *bank)
{
    _Alignas(8) char buf[8192];
    int fd = os_open_under(s->env.dir, bank, OS_READ | OS_DIR, 0);
    uint64_t sum = 0;
    int64_t got;

    while (fd >= 0 && (got = os_list(fd, buf, sizeof buf)) > 0)
        for (int64_t at = 0; at < got;) {
            const struct os_dirent *e = (const void *)(buf + at);
            struct os_stat st;

            if (segment_number(e->name) != 0 && os_stat_under(fd, e->name, &st) == 0)
                sum += st.size;
            at += e->len;
        }
    if (fd >= 0)
        (void)os_close(fd);
    return sum;
}

static int add_bytes(const char *bank, void *arg)
{
    struct job *job = arg;

    job->cp.all += 2 * heap_bytes(job->from, bank); /* written, and read again */
    return KIST_OK;
}

/* ---- bank by bank ----------------------------------------------------- */

static int copy_content(struct job *job, kist_bank *from, const char *name)
{
    static const kist_bank_options defaults = { .size = sizeof defaults };
    kist_bank *made = NULL, *opened = NULL;
    int dir = make_directories(&job->to->env, name), rc, err;

    if (dir < 0)
        return make_directories_failed(name, dir);
    rc = bank_copy_settings(from->bank, &job->to->env, dir);
    (void)os_close(dir);
    if (rc == KIST_OK)
        rc = handle_make(&made, job->to, name, &defaults);
    if (rc == KIST_OK && memcmp(made->bank->set.record.id, from->bank->set.record.id,
                                sizeof made->bank->set.record.id) != 0)
        rc = KIST_EGONE; /* dropped, and another one made */
    if (rc == KIST_OK)
        rc = bank_copy(from, made->bank, &job->cp);
    if (rc == KIST_OK) /* closing it marks it clean: it is opened at once then */
        rc = kist_bank_open(&opened, job->to, name, NULL);
    err = kist_bank_close(opened);
    rc = rc == KIST_OK ? err : rc;
    (void)kist_bank_close(made);
    return rc;
}

/* A bank that is dropped meanwhile is left out. */
static int copy_bank(const char *name, void *arg)
{
    const kist_bank_options readonly = { .size = sizeof readonly, .flags = KIST_BANK_READONLY };
    struct job *job = arg;
    kist_bank *from = NULL;
    int rc = kist_bank_open(&from, job->from, name, &readonly);

    if (rc == KIST_ENOBANK)
        return KIST_OK;
    if (rc == KIST_OK)
        rc = copy_content(job, from, name);
    (void)kist_bank_close(from);
    if (rc == KIST_OK)
        job->banks++;
    if (rc != KIST_EGONE)
        return rc;
    (void)!kist_bank_drop(job->to, name);
    return KIST_OK;
}

/* ---- the whole -------------------------------------------------------- */

/* Remove what is below an open directory; depth is bounded by that of names. */
static void remove_below(int dir, int depth)
{
    _Alignas(8) char buf[8192];
    bool any = true;

    while (any && depth < DEPTH) { /* again from the start, until nothing goes */
        int fd = os_open_under(dir, ".", OS_READ | OS_DIR, 0), sub;
        int64_t got;

        any = false;
        while (fd >= 0 && (got = os_list(fd, buf, sizeof buf)) > 0)
            for (int64_t at = 0; at < got;) {
                const struct os_dirent *e = (const void *)(buf + at);

                at += e->len;
                if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
                    continue;
                if (os_unlink(dir, e->name) == 0) {
                    any = true;
                    continue;
                }
                sub = os_open_under(dir, e->name, OS_READ | OS_DIR, 0);
                if (sub < 0)
                    continue;
                remove_below(sub, depth + 1);
                (void)os_close(sub);
                any |= os_rmdir(dir, e->name) == 0;
            }
        if (fd >= 0)
            (void)os_close(fd);
    }
}

static void remove_copy(const struct job *job)
{
    int dir = os_open_under(job->dir, job->under, OS_READ | OS_DIR, 0);

    if (dir < 0)
        return;
    remove_below(dir, 0);
    (void)os_close(dir);
    (void)os_rmdir(job->dir, job->under);
}

static int open_target(struct job *job, const kist_store_options *opt)
{
    kist_store_options o;
    char path[PATH_BYTES + NAME_BYTES];
    int rc = options_take(&o, sizeof o, opt, "kist_store_options");

    if (rc < 0)
        return rc;
    o.size = sizeof o;
    o.flags |= KIST_STORE_CREATE;
    (void)snprintf(path, sizeof path, "%s%s", job->parent, job->under);
    return kist_store_open(&job->to, path, &o);
}

/* The name, once all is synced. */
static int give_name(const struct job *job, const char *path)
{
    int rc = os_rename_new(job->dir, job->under, job->name);

    if (rc == -EEXIST)
        return refuse(path, rc, "there is something by that name by now");
    if (rc == 0)
        rc = os_fsync(job->dir); /* if not: it is there, until a power loss perhaps */
    return rc < 0 ? refuse(path, err_system(rc), kist_strerror(rc)) : KIST_OK;
}

static int run(struct job *job, const char *path, const kist_store_options *opt)
{
    int rc = find_place(job, path), err;

    if (rc == KIST_OK && job->cp.progress)
        rc = kist_bank_list(job->from, NULL, add_bytes, job);
    if (rc == KIST_OK)
        rc = open_target(job, opt);
    if (rc != KIST_OK)
        return rc;
    rc = kist_bank_list(job->from, NULL, copy_bank, job);
    err = kist_store_close(job->to);
    if (rc == KIST_OK)
        rc = err;
    if (rc == KIST_OK)
        rc = give_name(job, path);
    return rc;
}

int kist_store_copy(kist_store *s, const char *path, const kist_store_options *opt,
                    kist_copied *copied, kist_progress progress, void *arg)
{
    struct job job = { .from = s, .cp = { .progress = progress, .arg = arg }, .dir = -1 };
    int rc;

    if (copied && copied->size < sizeof *copied)
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                       "kist_copied.size is not set to sizeof(kist_copied)");
    rc = run(&job, path, opt);
    if (rc != KIST_OK && job.dir >= 0)
        remove_copy(&job);
    if (job.dir >= 0)
        (void)os_close(job.dir);
    if (rc == KIST_OK && copied)
        *copied = (kist_copied){ copied->size, job.banks, job.cp.entries, job.cp.bytes };
    return rc;
}
