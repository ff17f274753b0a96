/* Every regular file below a directory. */
#ifndef CLI_WALK_H
#define CLI_WALK_H

#include <sys/stat.h>

struct walk_item {
    const char *path;      /* to open it by */
    const char *key;       /* the path relative to the directory */
    const struct stat *st; /* NULL when `err` is set */
    int err;               /* 0, or why this file or directory cannot be read */
};

/*
 * Call `each` for every regular file below `dir`, in byte order within a
 * directory, and for whatever cannot be read; stop when it returns other than
 * 0. Symlinks are not followed, but for `dir` itself. `skip`, unless NULL, is
 * a directory to leave out.
 *
 * Returns 0, what `each` returned, or a negated errno.
 */
int walk_files(const char *dir, const struct stat *skip,
               int (*each)(const struct walk_item *item, void *arg), void *arg);

/* Remove a directory and all below it, following no symlink. Returns 0, or
 * the errno of the first thing that would not go. */
int walk_remove(const char *dir);

#endif
