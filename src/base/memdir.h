/*
 * memdir - directories in memory of this process, so that a store in memory is
 * the same code as one on a disk. For os.c alone: what is above asks os_NAME()
 * as ever.
 *
 * A directory is a list of names here. Its descriptor is a number from
 * MEMDIR_FIRST on, which the kernel gives to nobody, and costs none of the
 * process's. A file is the kernel's, one without a name (memfd): mapped,
 * allocated, locked, measured as any other. Its directory keeps one descriptor
 * of it, and each open makes an own description by /proc: locks, and with them
 * seats, are a description's.
 *
 * A directory goes with its last name and the last descriptor of it, and its
 * names with it; a file's memory with its last name, description and map. So a
 * store is gone with the descriptor of its directory, and views stay.
 *
 * Threads: one lock for all of it, which forks take too: a child has a copy that
 * is whole.
 */
#ifndef KIST_BASE_MEMDIR_H
#define KIST_BASE_MEMDIR_H

#include "base/os.h"

#include <stdbool.h>
#include <stdint.h>

enum { MEMDIR_FIRST = 1 << 30 };

static inline bool memdir_has(int fd)
{
    return __builtin_expect(fd >= MEMDIR_FIRST, 0);
}

/* A new, empty one that has no name. Returns its descriptor or an errno. */
int memdir_make(uint32_t uid, uint32_t gid);

/* As the calls of os.h, for descriptors that memdir_has(). -ENOSYS: files can't
 * be opened, for there is no /proc. */
int memdir_open(int dir, const char *path, int flags, uint32_t mode);
int memdir_close(int fd);
int memdir_stat(int fd, struct os_stat *out);
int memdir_stat_under(int dir, const char *path, struct os_stat *out);
int memdir_own(int fd, uint32_t uid, uint32_t gid, uint32_t mode);
int memdir_mkdir(int dir, const char *path, uint32_t mode);
int memdir_link(int dir, const char *from, const char *to);
int memdir_rename(int dir, const char *from, const char *to, bool replace);
int memdir_unlink(int dir, const char *path);
int memdir_rmdir(int dir, const char *path);
int64_t memdir_list(int fd, void *buf, size_t len);
int memdir_flock(int fd, enum os_lock_kind kind);

/* By thread.c: around a fork in the parent; and in the child. */
void memdir_before_fork(void);
void memdir_behind_fork(void);
void memdir_in_child(void);

#endif
