/*
 * Every regular file below a directory, by fts(3), which stays on paths and
 * follows no symlink but the starting one.
 */
#include "walk.h"

#include <errno.h>
#include <fts.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return b != NULL && a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* The part of the path below the directory the walk began with. */
static const char *relative(const FTSENT *entry, size_t root_len)
{
    const char *key = entry->fts_path + root_len;

    while (*key == '/')
        key++;
    return key;
}

/* What of an entry is told; false: nothing. */
static bool to_item(struct walk_item *item, FTSENT *entry, size_t root_len)
{
    *item = (struct walk_item){ entry->fts_path, relative(entry, root_len), NULL, 0 };
    switch (entry->fts_info) {
    case FTS_F:
        item->st = entry->fts_statp;
        return true;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        item->err = entry->fts_errno;
        return true;
    default: /* directories, symlinks, devices, sockets, FIFOs */
        return false;
    }
}

static int walk_open(FTS **out, const char *dir, int options)
{
    char *const roots[] = { (char *)(uintptr_t)dir, NULL };
    struct stat sb;

    if (stat(dir, &sb) < 0)
        return -errno;
    if (!S_ISDIR(sb.st_mode))
        return -ENOTDIR;
    *out = fts_open(roots, options | FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    return *out == NULL ? -errno : 0;
}

int walk_files(const char *dir, const struct stat *skip,
               int (*each)(const struct walk_item *item, void *arg), void *arg)
{
    size_t root_len = strlen(dir);
    struct walk_item item;
    FTSENT *entry;
    FTS *fts;
    int rc = walk_open(&fts, dir, FTS_COMFOLLOW);

    if (rc != 0)
        return rc;
    while (rc == 0) {
        errno = 0;
        entry = fts_read(fts);
        if (entry == NULL) {
            rc = -errno; /* 0 at the end */
            break;
        }
        if (entry->fts_info == FTS_D && same_file(entry->fts_statp, skip))
            (void)fts_set(fts, entry, FTS_SKIP);
        else if (to_item(&item, entry, root_len))
            rc = each(&item, arg);
    }
    (void)fts_close(fts);
    return rc;
}

int walk_remove(const char *dir)
{
    FTSENT *entry;
    FTS *fts;
    int err = -walk_open(&fts, dir, 0);
    int rc = 0;

    if (err != 0)
        return err;
    while ((entry = fts_read(fts)) != NULL) {
        if (entry->fts_info == FTS_DP)
            rc = rmdir(entry->fts_accpath);
        else if (entry->fts_info != FTS_D)
            rc = unlink(entry->fts_accpath);
        if (rc != 0 && err == 0)
            err = errno;
        rc = 0;
    }
    (void)fts_close(fts);
    return err;
}
