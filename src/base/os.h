/*
 * os - everything kist asks of the operating system, in one table.
 *
 * Each call returns a result or a negated errno, retries EINTR where nothing
 * was done, and never raises a signal (SIGXFSZ is blocked around writes, I7).
 *
 * In a normal build os_NAME() is the function in os.c. With KIST_SEAM defined
 * it goes through the table `os_seam`, so that a test can log, fail, delay or
 * replace each of them; os_real_NAME() is then the function itself. Nothing
 * else in the library may call the system: a script and an strace test prove
 * it.
 */
#ifndef KIST_BASE_OS_H
#define KIST_BASE_OS_H

#include "kist/kist.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum os_open_flag {
    OS_READ = 1,
    OS_WRITE = 2,
    OS_CREATE = 4, /* with os_open_under only; always exclusive */
    OS_DIR = 8,
    OS_TMPFILE = 16, /* `path` is a directory; the file has no name */
};

enum os_prot { OS_PROT_NONE = 0, OS_PROT_READ = 1, OS_PROT_WRITE = 2 };

enum os_map_flag {
    OS_MAP_ANON = 1,    /* private anonymous memory instead of a file */
    OS_MAP_FIXED = 2,   /* replace what is mapped at `addr` */
    OS_MAP_RESERVE = 4, /* address space only */
};

enum os_advice {
    OS_ADVISE_DONTFORK = 1, /* a forked child does not inherit the range */
    OS_ADVISE_WIPEONFORK,   /* a forked child finds it zeroed */
    OS_ADVISE_RANDOM,
    OS_ADVISE_WILLNEED,
    OS_ADVISE_HUGEPAGE,
};

enum os_clock { OS_CLOCK_REAL_COARSE, OS_CLOCK_MONOTONIC };
enum os_lock_kind { OS_LOCK_FREE, OS_LOCK_SHARED, OS_LOCK_EXCLUSIVE };
enum os_file_kind { OS_FILE_REGULAR, OS_FILE_DIR, OS_FILE_LINK, OS_FILE_OTHER };
enum { OS_WAIT_FOREVER = -1 };

struct os_stat {
    uint64_t dev, ino, size, blocks; /* blocks of 512 bytes */
    uint32_t uid, gid, mode;         /* mode: permission bits */
    enum os_file_kind kind;
};

/* What os_list() fills a buffer with: entries of `len` bytes each. */
struct os_dirent {
    uint64_t ino;
    int64_t off;
    uint16_t len;
    uint8_t type;
    char name[];
};

/* The machine and mount that a file's cached pages belong to; witness 0:
 * this system can't tell one mount from the next. */
struct os_place {
    uint8_t boot_id[16];
    uint64_t witness;
};

/* clang-format off */
#define OS_CALLS(X)                                                                                \
    /* files: paths below `dir` follow no symlink and never leave it; `dir` may be in              \
     * memory, see memdir.h, which what is behind this table alone can tell */                     \
    X(int, open_path, (const char *path, int flags), (path, flags))                                \
    X(int, open_under, (int dir, const char *path, int flags, uint32_t mode),                      \
      (dir, path, flags, mode))                                                                    \
    X(int, memory_dir, (void), ()) /* a new one in memory, with no name */                         \
    X(int, memory_file, (const char *name), (name)) /* in memory; the name is for people alone */  \
    X(int, reopen, (int fd, int flags), (fd, flags)) /* a description of its own; by /proc */      \
    X(int, close, (int fd), (fd))                                                                  \
    X(int, stat, (int fd, struct os_stat *out), (fd, out))                                         \
    X(int, stat_under, (int dir, const char *path, struct os_stat *out), (dir, path, out))         \
    X(int, own, (int fd, uint32_t uid, uint32_t gid, uint32_t mode), (fd, uid, gid, mode))         \
    X(int, is_local, (int fd, bool *out), (fd, out))                                               \
    X(int, place, (int fd, struct os_place *out), (fd, out))                                       \
    X(int, mkdir_path, (const char *path, uint32_t mode), (path, mode))                            \
    X(int, mkdir, (int dir, const char *path, uint32_t mode), (dir, path, mode))                   \
    X(int, link, (int dir, const char *from, const char *to), (dir, from, to))                     \
    X(int, rename, (int dir, const char *from, const char *to), (dir, from, to))                   \
    X(int, rename_new, (int dir, const char *from, const char *to), (dir, from, to))               \
    X(int, unlink, (int dir, const char *path), (dir, path))                                       \
    X(int, rmdir, (int dir, const char *path), (dir, path))                                        \
    X(int64_t, list, (int fd, void *buf, size_t len), (fd, buf, len))              \
    X(int64_t, pread, (int fd, void *buf, size_t len, uint64_t off), (fd, buf, len, off))          \
    X(int64_t, pwrite, (int fd, const void *buf, size_t len, uint64_t off), (fd, buf, len, off))   \
    X(int64_t, pwritev, (int fd, const kist_bytes *pieces, size_t n, uint64_t off),                \
      (fd, pieces, n, off)) /* up to OS_PIECES_MAX */                                              \
    X(int64_t, read, (int fd, void *buf, size_t len), (fd, buf, len)) /* pipes too */              \
    X(int64_t, write, (int fd, const void *buf, size_t len), (fd, buf, len))                       \
    X(int, length, (int fd, uint64_t *out), (fd, out)) /* of a file or block device */             \
    X(int, allocate, (int fd, uint64_t off, uint64_t len), (fd, off, len))                         \
    X(int, truncate, (int fd, uint64_t size), (fd, size))                                          \
    X(int, fsync, (int fd), (fd))                                                                  \
    X(int, fdatasync, (int fd), (fd))                                                              \
    /* memory */                                                                                   \
    X(int, map, (void **out, void *addr, size_t len, int prot, int flags, int fd, uint64_t off),   \
      (out, addr, len, prot, flags, fd, off))                                                      \
    X(int, unmap, (void *addr, size_t len), (addr, len))                                           \
    X(int, advise, (void *addr, size_t len, int advice), (addr, len, advice))                      \
    /* fault.c: a copy that a SIGBUS ends with -EFAULT, once fault_guard was called; or            \
     * where the thread blocks SIGBUS */                                                           \
    X(int, fault_guard, (void), ())                                                                \
    X(int, fault_copy, (void *to, const void *from, size_t len), (to, from, len))                  \
    X(void *, alloc, (size_t len), (len)) /* zeroed; NULL: none */                                 \
    X(void *, resize, (void *p, size_t len), (p, len))                                             \
    X(void, free, (void *p), (p))                                                                  \
    /* locks: byte ranges of open file descriptions; directories by flock */                       \
    X(int, lock, (int fd, enum os_lock_kind kind, uint64_t start, uint64_t len, bool wait),        \
      (fd, kind, start, len, wait))                                                                \
    X(int, lock_ask, (int fd, uint64_t start, uint64_t len, uint64_t *found), (fd, start, len, found)) \
    X(int, flock, (int fd, enum os_lock_kind kind), (fd, kind))                                    \
    X(int, wait, (uint32_t *word, uint32_t while_is, int timeout_ms), (word, while_is, timeout_ms))\
    X(int, wake, (uint32_t *word), (word))                                                         \
    X(int, barrier, (void), ()) /* a full fence in every thread of the process */                  \
    /* the outside world */                                                                        \
    X(int64_t, clock, (enum os_clock which), (which))                                              \
    X(int, random, (void *buf, size_t len), (buf, len))                                            \
    X(uint64_t, max_files, (void), ())                                                             \
    X(size_t, page_size, (void), ())                                                               \
    X(bool, is_root, (void), ())                                                                   \
    X(int, sleep, (int ms), (ms))
/* clang-format on */

#ifdef KIST_SEAM
struct os_table {
#define X_(ret, name, params, args) ret(*name) params;
    OS_CALLS(X_)
#undef X_
};
extern struct os_table os_seam;
#define X_(ret, name, params, args)                                                                \
    ret os_real_##name params;                                                                     \
    static inline ret os_##name params                                                             \
    {                                                                                              \
        return os_seam.name args;                                                                  \
    }
OS_CALLS(X_)
#undef X_
#define OS_REAL(name) os_real_##name
#else
#define X_(ret, name, params, args) ret os_##name params;
OS_CALLS(X_)
#undef X_
#define OS_REAL(name) os_##name
#endif

/* os_lock_ask: 0 and *found set: some other description holds a lock that
 * covers *found (the first byte in the range it holds); 1: the range is free. */
enum { OS_LOCK_NONE = 1 };

/* The whole buffer or an error; a short file is -EIO. */
int os_read_all(int fd, void *buf, size_t len, uint64_t off);
int os_write_all(int fd, const void *buf, size_t len, uint64_t off);

/* All pieces, one behind the other, however many calls that takes. */
enum { OS_PIECES_MAX = 1024 };
int os_writev_all(int fd, const kist_bytes *pieces, size_t n, uint64_t off);

/* A large page: what the kernel maps at once, where a file's page cache has it
 * in one piece and the map begins on such a border. */
#define OS_LARGE_PAGE (UINT64_C(2) << 20)

/* Write zeros, up to each border of large pages at once: the page cache then
 * holds these in one piece each (ext4 since Linux 6.16, XFS), and the faults
 * that stores would take are spared. */
int os_write_zeros(int fd, uint64_t len, uint64_t off);

/* Threads. They are the C library's, not the kernel's, and stay out of the
 * table: no test needs to fail an uncontended mutex. */
#include <pthread.h>
typedef pthread_mutex_t os_mutex;
#define OS_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
static inline void os_mutex_init(os_mutex *m)
{
    (void)pthread_mutex_init(m, NULL);
}
static inline void os_mutex_lock(os_mutex *m)
{
    (void)pthread_mutex_lock(m);
}
static inline void os_mutex_unlock(os_mutex *m)
{
    (void)pthread_mutex_unlock(m);
}
static inline bool os_mutex_try(os_mutex *m)
{
    return pthread_mutex_trylock(m) == 0;
}
/* Returns 0, or -ETIMEDOUT after `ms` (negative: waits for ever). */
int os_mutex_lock_for(os_mutex *m, int64_t ms);

typedef pthread_t os_thread;
/* Start a thread that takes no signals. */
int os_thread_start(os_thread *t, void *(*run)(void *), void *arg);
static inline void os_thread_join(os_thread t)
{
    (void)pthread_join(t, NULL);
}

#endif
