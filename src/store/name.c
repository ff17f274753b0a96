/* name.c - bank names are relative paths; see kist_bank_open(). */
#include "store/name.h"

#include "bank/core.h"
#include "base/err.h"
#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PART_MAX = 255, DEPTH_MAX = 64 };

static int refuse(const char *name, const char *why)
{
    return err_set(KIST_EBANKNAME, name, NULL, ERR_NOWHERE, "'%.200s' is no bank name: %s", name,
                   why);
}

int name_check(const char *name)
{
    size_t parts = 0;

    if (!name || *name == '\0')
        return refuse(name ? name : "", "it is empty");
    if (strlen(name) > BANK_NAME_MAX)
        return refuse(name, "it has more than 1,023 bytes");
    for (const char *p = name;; p++) {
        size_t n = strcspn(p, "/");

        if (n == 0)
            return refuse(name, "it has an empty part, or begins or ends with '/'");
        if (n > PART_MAX)
            return refuse(name, "a part has more than 255 bytes");
        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return refuse(name, "a part is '.' or '..'");
        if (n >= 5 && memcmp(p, "kist.", 5) == 0)
            return refuse(name, "a part begins with 'kist.', which is kept for files");
        if (++parts > DEPTH_MAX)
            return refuse(name, "it has more than 64 parts");
        p += n;
        if (*p == '\0')
            return KIST_OK;
    }
}

/* ---- listing ------------------------------------------------------------ */

struct names {
    char **name;
    size_t count, cap;
};

static void names_free(struct names *l)
{
    for (size_t i = 0; i < l->count; i++)
        os_free(l->name[i]);
    os_free(l->name);
}

static int names_add(struct names *l, const char *name)
{
    char *copy = os_alloc(strlen(name) + 1);

    if (l->count == l->cap && copy) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        char **more = os_resize(l->name, cap * sizeof *more);

        if (!more) {
            os_free(copy);
            return KIST_ENOMEM;
        }
        l->name = more;
        l->cap = cap;
    }
    if (!copy)
        return KIST_ENOMEM;
    memcpy(copy, name, strlen(name) + 1);
    l->name[l->count++] = copy;
    return KIST_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a directory that may be parts of bank names. */
static int read_dir(int fd, struct names *out)
{
    _Alignas(8) char buf[8192];
    int64_t got;
    int rc = KIST_OK;

    while (rc == KIST_OK && (got = os_list(fd, buf, sizeof buf)) != 0) {
        if (got < 0)
            return (int)got;
        for (int64_t at = 0; at < got && rc == KIST_OK;) {
            const struct os_dirent *e = (const void *)(buf + at);

            if (strchr(e->name, '/') == NULL && strncmp(e->name, "kist.", 5) != 0 &&
                strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
                rc = names_add(out, e->name);
            at += e->len;
        }
    }
    return rc;
}

struct listing {
    int dir;
    char path[BANK_PATH_MAX];
    int (*each)(const char *name, void *arg);
    void *arg;
};

static bool is_bank(const struct listing *l, size_t len)
{
    char path[BANK_PATH_MAX];
    struct os_stat st;

    memcpy(path, l->path, len);
    memcpy(path + len, "/" BANK_FILE, sizeof "/" BANK_FILE);
    return os_stat_under(l->dir, path, &st) == 0 && st.kind == OS_FILE_REGULAR;
}

static int list_at(struct listing *l, size_t len, int depth);

static int list_children(struct listing *l, int fd, size_t len, int depth)
{
    struct names names = { 0 };
    int rc = read_dir(fd, &names);

    for (size_t i = 0; i < names.count && rc == KIST_OK; i++) {
        size_t n = strlen(names.name[i]), at = len;

        if (len + 1 + n > BANK_NAME_MAX)
            continue;
        if (at > 0)
            l->path[at++] = '/';
        memcpy(l->path + at, names.name[i], n + 1);
        rc = list_at(l, at + n, depth + 1);
        l->path[len] = '\0';
    }
    names_free(&names);
    return rc;
}

/* The bank at l->path, and those below it. */
static int list_at(struct listing *l, size_t len, int depth)
{
    int fd = os_open_under(l->dir, len ? l->path : ".", OS_READ | OS_DIR, 0), rc = KIST_OK;

    if (fd == -ENOTDIR || fd == -ELOOP || fd == -ENOENT || fd == -EXDEV)
        return KIST_OK; /* a file, a link, or gone since */
    if (fd < 0)
        return err_os(fd, l->path, NULL, "list the banks");
    if (len > 0 && is_bank(l, len))
        rc = l->each(l->path, l->arg);
    if (rc == KIST_OK && depth <= DEPTH_MAX)
        rc = list_children(l, fd, len, depth);
    (void)os_close(fd);
    return rc;
}

static int collect(const char *name, void *arg)
{
    return names_add(arg, name);
}

/* All of them first, so that they come in the order of their bytes. */
int name_list(int dir, const char *prefix, int (*each)(const char *name, void *arg), void *arg)
{
    struct names names = { 0 };
    struct listing l = { .dir = dir, .each = collect, .arg = &names };
    size_t len = prefix ? strlen(prefix) : 0;
    int rc = len > 0 ? name_check(prefix) : KIST_OK;

    if (rc < 0)
        return rc;
    if (len > 0)
        memcpy(l.path, prefix, len + 1);
    rc = list_at(&l, len, 0);
    if (names.count > 0)
        qsort(names.name, names.count, sizeof *names.name, by_bytes);
    for (size_t i = 0; i < names.count && rc == KIST_OK; i++)
        rc = each(names.name[i], arg);
    names_free(&names);
    return rc;
}
