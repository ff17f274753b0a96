/*
 * os.c - the system calls behind os.h. Each function is one call, made safe:
 * a negated errno comes back, EINTR is retried, signals do not escape.
 */
#include "base/os.h"
#include "base/memdir.h"
#include "base/shm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u /* Linux 6.8 */
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#endif

#ifdef KIST_SEAM
struct os_table os_seam = {
#define X_(ret, name, params, args) .name = os_real_##name,
    OS_CALLS(X_)
#undef X_
};
void (*shm_seam)(const void *addr, size_t len);
#endif

static int result(long rc)
{
    return rc < 0 ? -errno : (int)rc;
}

/* ---- files ------------------------------------------------------------ */

static int open_flags(int flags)
{
    int f = O_CLOEXEC | O_NONBLOCK; /* a FIFO must not block the opener */

    f |= flags & OS_WRITE ? O_RDWR : O_RDONLY;
    if (flags & OS_CREATE)
        f |= O_CREAT | O_EXCL;
    if (flags & OS_DIR)
        f |= O_DIRECTORY;
    if (flags & OS_TMPFILE)
        f |= O_TMPFILE;
    return f;
}

int OS_REAL(open_path)(const char *path, int flags)
{
    int fd;

    do
        fd = open(path, open_flags(flags));
    while (fd < 0 && errno == EINTR);
    return result(fd);
}

/* Without openat2 (old kernels, seccomp): part by part, none may be a link. */
static int open_by_parts(int dir, const char *path, int flags, mode_t mode)
{
    int at = dir;

    for (;;) {
        char part[NAME_MAX + 1];
        size_t n = strcspn(path, "/");
        bool last = path[n] == '\0';
        int fd;

        if (n == 0 || n > NAME_MAX || (n == 2 && memcmp(path, "..", 2) == 0)) {
            fd = -EINVAL;
        } else {
            memcpy(part, path, n);
            part[n] = '\0';
            fd = result(last ? openat(at, part, flags | O_NOFOLLOW, mode)
                             : openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        }
        if (at != dir)
            close(at);
        if (fd < 0 || last)
            return fd;
        at = fd;
        path += n + 1;
    }
}

int OS_REAL(open_under)(int dir, const char *path, int flags, uint32_t mode)
{
    struct open_how how = {
        .flags = (unsigned)(open_flags(flags) | (flags & OS_TMPFILE ? 0 : O_NOFOLLOW)),
        .mode = flags & (OS_CREATE | OS_TMPFILE) ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    if (memdir_has(dir))
        return memdir_open(dir, path, flags, mode);
    do
        fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_by_parts(dir, path, open_flags(flags), mode);
    return result(fd);
}

int OS_REAL(memory_dir)(void)
{
    return memdir_make(geteuid(), getegid());
}

/* Not to be executed, which some systems insist on, and older kernels do not
 * know. */
int OS_REAL(memory_file)(const char *name)
{
    char cut[200]; /* 249 bytes is the most */
    int fd;

    (void)snprintf(cut, sizeof cut, "%s", name);
    fd = memfd_create(cut, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(cut, MFD_CLOEXEC);
    return result(fd);
}

/* By the thread, not by the process: of one whose first thread has ended, /proc
 * has no descriptors. */
int OS_REAL(reopen)(int fd, int flags)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd);
    return OS_REAL(open_path)(path, flags);
}

int OS_REAL(close)(int fd)
{
    if (memdir_has(fd))
        return memdir_close(fd);
    return result(close(fd)); /* never retried: Linux has closed it */
}

static void stat_take(const struct stat *sb, struct os_stat *out)
{
    *out = (struct os_stat){
        .dev = sb->st_dev,
        .ino = sb->st_ino,
        .size = sb->st_size < 0 ? 0 : (uint64_t)sb->st_size,
        .blocks = (uint64_t)sb->st_blocks,
        .uid = sb->st_uid,
        .gid = sb->st_gid,
        .mode = sb->st_mode & 07777,
        .kind = S_ISREG(sb->st_mode)   ? OS_FILE_REGULAR
                : S_ISDIR(sb->st_mode) ? OS_FILE_DIR
                : S_ISLNK(sb->st_mode) ? OS_FILE_LINK
                                       : OS_FILE_OTHER,
    };
}

int OS_REAL(stat)(int fd, struct os_stat *out)
{
    struct stat sb;

    if (memdir_has(fd))
        return memdir_stat(fd, out);
    if (fstat(fd, &sb) < 0)
        return -errno;
    stat_take(&sb, out);
    return 0;
}

int OS_REAL(stat_under)(int dir, const char *path, struct os_stat *out)
{
    struct stat sb;

    if (memdir_has(dir))
        return memdir_stat_under(dir, path, out);
    if (fstatat(dir, path, &sb, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    stat_take(&sb, out);
    return 0;
}

int OS_REAL(own)(int fd, uint32_t uid, uint32_t gid, uint32_t mode)
{
    if (memdir_has(fd))
        return memdir_own(fd, uid, gid, mode);
    if (geteuid() == 0 && fchown(fd, uid, gid) < 0)
        return -errno;
    return result(fchmod(fd, mode));
}

int OS_REAL(is_local)(int fd, bool *out)
{
    static const uint32_t local[] = {
        0xEF53,     0x58465342, 0x9123683E, 0x01021994, 0xF2F52010, 0x2FC12FC1, 0x858458F6,
        0xCA451A4E, 0x794C7630, 0x3153464A, 0x24051905, 0x52654973, 0xE0F5E1E2, 0x4d44,
    }; /* ext, XFS, Btrfs, tmpfs, F2FS, ZFS, ramfs, bcachefs, overlay, JFS, UBIFS, Reiser, EROFS,
          FAT */
    struct statfs fs;

    *out = memdir_has(fd);
    if (*out)
        return 0;
    if (fstatfs(fd, &fs) < 0)
        return -errno;
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        *out |= (uint32_t)fs.f_type == local[i];
    return 0;
}

/* The inode of the superblock's directory in sysfs: made anew by each mount
 * of the file system, and the same from every namespace. */
static uint64_t sysfs_witness(dev_t dev)
{
    static const char *const kinds[] = { "ext4", "xfs", "f2fs", "btrfs" };
    char path[PATH_MAX], link[PATH_MAX];
    const char *name;
    struct stat sb;
    ssize_t n;

    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(dev), minor(dev));
    n = readlink(path, link, sizeof link - 1);
    if (n <= 0)
        return 0;
    link[n] = '\0';
    name = strrchr(link, '/') ? strrchr(link, '/') + 1 : link;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        (void)snprintf(path, sizeof path, "/sys/fs/%s/%.255s", kinds[i], name);
        if (stat(path, &sb) == 0)
            return sb.st_ino;
    }
    return 0;
}

static uint64_t mount_witness(int fd)
{
    union {
        struct statx known;
        uint64_t words[64];
    } sx = { 0 };

    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &sx) < 0)
        return 0;
    return sx.known.stx_mask & STATX_MNT_ID_UNIQUE ? sx.words[0x90 / 8] : 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_boot_id(uint8_t out[16])
{
    char text[40] = "";
    size_t n = 0;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(out, 0, 16);
    if (fd < 0)
        return -errno;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    close(fd);
    for (const char *p = text; *p && n < 32; p++) {
        int d = hex_digit(*p);
        if (d >= 0) {
            out[n / 2] = (uint8_t)(out[n / 2] << 4 | d);
            n++;
        }
    }
    return n == 32 ? 0 : -EIO;
}

int OS_REAL(place)(int fd, struct os_place *out)
{
    struct stat sb;

    if (memdir_has(fd)) { /* there is no other, as long as there is the store */
        *out = (struct os_place){ .witness = 1 };
        return 0;
    }
    if (fstat(fd, &sb) < 0)
        return -errno;
    out->witness = sysfs_witness(sb.st_dev);
    if (out->witness == 0)
        out->witness = mount_witness(fd);
    if (read_boot_id(out->boot_id) < 0)
        out->witness = 0; /* unknown: never taken for the same place */
    return 0;
}

int OS_REAL(mkdir_path)(const char *path, uint32_t mode)
{
    return result(mkdir(path, mode));
}

int OS_REAL(mkdir)(int dir, const char *path, uint32_t mode)
{
    if (memdir_has(dir))
        return memdir_mkdir(dir, path, mode);
    return result(mkdirat(dir, path, mode));
}

int OS_REAL(link)(int dir, const char *from, const char *to)
{
    if (memdir_has(dir))
        return memdir_link(dir, from, to);
    return result(linkat(dir, from, dir, to, 0));
}

int OS_REAL(rename)(int dir, const char *from, const char *to)
{
    if (memdir_has(dir))
        return memdir_rename(dir, from, to, true);
    return result(renameat(dir, from, dir, to));
}

/* -EEXIST where there is something by that name. Not every file system can do
 * that in one step. */
int OS_REAL(rename_new)(int dir, const char *from, const char *to)
{
    struct stat sb;

    if (memdir_has(dir))
        return memdir_rename(dir, from, to, false);
    if (renameat2(dir, from, dir, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (fstatat(dir, to, &sb, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return errno == ENOENT ? result(renameat(dir, from, dir, to)) : -errno;
}

int OS_REAL(unlink)(int dir, const char *path)
{
    if (memdir_has(dir))
        return memdir_unlink(dir, path);
    return result(unlinkat(dir, path, 0));
}

int OS_REAL(rmdir)(int dir, const char *path)
{
    if (memdir_has(dir))
        return memdir_rmdir(dir, path);
    return result(unlinkat(dir, path, AT_REMOVEDIR));
}

int64_t OS_REAL(list)(int fd, void *buf, size_t len)
{
    long n;

    if (memdir_has(fd))
        return memdir_list(fd, buf, len);
    n = syscall(SYS_getdents64, fd, buf, len);
    return n < 0 ? -errno : n;
}

int64_t OS_REAL(pread)(int fd, void *buf, size_t len, uint64_t off)
{
    ssize_t n;

    do
        n = pread(fd, buf, len, (off_t)off);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* A write past RLIMIT_FSIZE raises SIGXFSZ; blocked, it is EFBIG. So is SIGPIPE of a
 * pipe that nobody reads any more EPIPE. A signal that was made pending so is
 * taken back before the mask is restored. */
static void signal_block(int number, sigset_t *was)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, number);
    (void)pthread_sigmask(SIG_BLOCK, &set, was);
}

static void signal_restore(int number, const sigset_t *was, bool raised)
{
    static const struct timespec now;
    sigset_t set;

    if (raised && !sigismember(was, number)) {
        sigemptyset(&set);
        sigaddset(&set, number);
        while (sigtimedwait(&set, NULL, &now) < 0 && errno == EINTR)
            ;
    }
    (void)pthread_sigmask(SIG_SETMASK, was, NULL);
}

int64_t OS_REAL(pwrite)(int fd, const void *buf, size_t len, uint64_t off)
{
    sigset_t was;
    ssize_t n;
    int err;

    signal_block(SIGXFSZ, &was);
    do
        n = pwrite(fd, buf, len, (off_t)off);
    while (n < 0 && errno == EINTR);
    err = n < 0 ? errno : 0;
    signal_restore(SIGXFSZ, &was, err == EFBIG);
    return err ? -err : n;
}

static_assert(sizeof(kist_bytes) == sizeof(struct iovec) &&
                  offsetof(kist_bytes, len) == offsetof(struct iovec, iov_len),
              "pieces are handed to the kernel as they are");

int64_t OS_REAL(pwritev)(int fd, const kist_bytes *pieces, size_t n, uint64_t off)
{
    sigset_t was;
    ssize_t done;
    int err;

    signal_block(SIGXFSZ, &was);
    do
        done = pwritev(fd, (const struct iovec *)(const void *)pieces, (int)n, (off_t)off);
    while (done < 0 && errno == EINTR);
    err = done < 0 ? errno : 0;
    signal_restore(SIGXFSZ, &was, err == EFBIG);
    return err ? -err : done;
}

int64_t OS_REAL(read)(int fd, void *buf, size_t len)
{
    ssize_t n;

    do
        n = read(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t OS_REAL(write)(int fd, const void *buf, size_t len)
{
    sigset_t was, before;
    ssize_t n;
    int err;

    signal_block(SIGXFSZ, &was);
    signal_block(SIGPIPE, &before);
    do
        n = write(fd, buf, len);
    while (n < 0 && errno == EINTR);
    err = n < 0 ? errno : 0;
    signal_restore(SIGPIPE, &before, err == EPIPE);
    signal_restore(SIGXFSZ, &was, err == EFBIG);
    return err ? -err : n;
}

int OS_REAL(length)(int fd, uint64_t *out)
{
    struct stat sb;

    if (fstat(fd, &sb) < 0)
        return -errno;
    if (S_ISBLK(sb.st_mode))
        return result(ioctl(fd, BLKGETSIZE64, out));
    if (!S_ISREG(sb.st_mode))
        return -EINVAL;
    *out = sb.st_size < 0 ? 0 : (uint64_t)sb.st_size;
    return 0;
}

int OS_REAL(allocate)(int fd, uint64_t off, uint64_t len)
{
    sigset_t was;
    int err;

    signal_block(SIGXFSZ, &was);
    do
        err = posix_fallocate(fd, (off_t)off, (off_t)len);
    while (err == EINTR);
    signal_restore(SIGXFSZ, &was, err == EFBIG);
    return -err;
}

int OS_REAL(truncate)(int fd, uint64_t size)
{
    sigset_t was;
    int err;

    signal_block(SIGXFSZ, &was);
    do
        err = ftruncate(fd, (off_t)size) < 0 ? errno : 0;
    while (err == EINTR);
    signal_restore(SIGXFSZ, &was, err == EFBIG);
    return -err;
}

/* A failed sync is final (I6): no retry, not even for EINTR. */
int OS_REAL(fsync)(int fd)
{
    return memdir_has(fd) ? 0 : result(fsync(fd));
}

int OS_REAL(fdatasync)(int fd)
{
    return result(fdatasync(fd));
}

/* ---- memory ----------------------------------------------------------- */

int OS_REAL(map)(void **out, void *addr, size_t len, int prot, int flags, int fd, uint64_t off)
{
    int p = (prot & OS_PROT_READ ? PROT_READ : 0) | (prot & OS_PROT_WRITE ? PROT_WRITE : 0);
    int f = flags & (OS_MAP_ANON | OS_MAP_RESERVE) ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *m;

    if (flags & OS_MAP_FIXED)
        f |= MAP_FIXED;
    if (flags & OS_MAP_RESERVE)
        f |= MAP_NORESERVE;
    m = mmap(addr, len, p, f, fd, (off_t)off);
    if (m == MAP_FAILED)
        return -errno;
    *out = m;
    return 0;
}

int OS_REAL(unmap)(void *addr, size_t len)
{
    return result(munmap(addr, len));
}

int OS_REAL(advise)(void *addr, size_t len, int advice)
{
    switch (advice) {
    case OS_ADVISE_DONTFORK:
        return result(madvise(addr, len, MADV_DONTFORK));
    case OS_ADVISE_WIPEONFORK:
        return result(madvise(addr, len, MADV_WIPEONFORK));
    case OS_ADVISE_RANDOM:
        return result(madvise(addr, len, MADV_RANDOM));
    case OS_ADVISE_WILLNEED:
        return result(madvise(addr, len, MADV_WILLNEED));
    case OS_ADVISE_HUGEPAGE:
        return result(madvise(addr, len, MADV_HUGEPAGE));
    }
    return -EINVAL;
}

void *OS_REAL(alloc)(size_t len)
{
    return calloc(1, len);
}

void *OS_REAL(resize)(void *p, size_t len)
{
    return realloc(p, len);
}

void OS_REAL(free)(void *p)
{
    free(p);
}

/* ---- locks ------------------------------------------------------------ */

static struct flock range(enum os_lock_kind kind, uint64_t start, uint64_t len)
{
    return (struct flock){
        .l_type = (short)(kind == OS_LOCK_FREE     ? F_UNLCK
                          : kind == OS_LOCK_SHARED ? F_RDLCK
                                                   : F_WRLCK),
        .l_whence = SEEK_SET,
        .l_start = (off_t)start,
        .l_len = (off_t)len,
    };
}

int OS_REAL(lock)(int fd, enum os_lock_kind kind, uint64_t start, uint64_t len, bool wait)
{
    struct flock l = range(kind, start, len);
    int rc;

    do
        rc = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &l);
    while (rc < 0 && errno == EINTR);
    return rc < 0 && errno == EACCES ? -EAGAIN : result(rc);
}

int OS_REAL(lock_ask)(int fd, uint64_t start, uint64_t len, uint64_t *found)
{
    struct flock l = range(OS_LOCK_EXCLUSIVE, start, len);

    if (fcntl(fd, F_OFD_GETLK, &l) < 0)
        return -errno;
    if (l.l_type == F_UNLCK)
        return OS_LOCK_NONE;
    *found = (uint64_t)l.l_start < start ? start : (uint64_t)l.l_start;
    return 0;
}

int OS_REAL(flock)(int fd, enum os_lock_kind kind)
{
    int op = kind == OS_LOCK_FREE ? LOCK_UN : kind == OS_LOCK_SHARED ? LOCK_SH : LOCK_EX;
    int rc;

    if (memdir_has(fd))
        return memdir_flock(fd, kind);
    do
        rc = flock(fd, op);
    while (rc < 0 && errno == EINTR);
    return result(rc);
}

int OS_REAL(wait)(uint32_t *word, uint32_t while_is, int timeout_ms)
{
    struct timespec ts = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };

    return result(syscall(SYS_futex, word, FUTEX_WAIT, while_is,
                          timeout_ms < 0 ? NULL : &ts, NULL, 0));
}

int OS_REAL(wake)(uint32_t *word)
{
    return result(syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0));
}

int OS_REAL(barrier)(void)
{
    static _Atomic int registered;
    long rc;

    if (!atomic_load_explicit(&registered, memory_order_acquire)) {
        rc = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
        if (rc < 0)
            return -errno;
        atomic_store_explicit(&registered, 1, memory_order_release);
    }
    return result(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
}

/* Older thread sanitizers do not know pthread_mutex_clocklock(), and
 * take a mutex locked by it for one that nobody holds. For them alone the
 * deadline is one of the clock that may be set. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#elif defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER
#endif
#ifdef THREAD_SANITIZER
#define LOCK_CLOCK CLOCK_REALTIME
#define lock_until(m, until) pthread_mutex_timedlock(m, until)
#else
#define LOCK_CLOCK CLOCK_MONOTONIC
#define lock_until(m, until) pthread_mutex_clocklock(m, CLOCK_MONOTONIC, until)
#endif

int os_mutex_lock_for(os_mutex *m, int64_t ms)
{
    struct timespec until;

    if (pthread_mutex_trylock(m) == 0)
        return 0;
    if (ms < 0)
        return -pthread_mutex_lock(m);
    (void)clock_gettime(LOCK_CLOCK, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    return -lock_until(m, &until);
}

int os_thread_start(os_thread *t, void *(*run)(void *), void *arg)
{
    sigset_t all, was;
    int err;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &was);
    err = pthread_create(t, NULL, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &was, NULL);
    return -err;
}

/* ---- the outside world ------------------------------------------------ */

int64_t OS_REAL(clock)(enum os_clock which)
{
    struct timespec ts;

    (void)clock_gettime(which == OS_CLOCK_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int OS_REAL(random)(void *buf, size_t len)
{
    ssize_t n;

    do
        n = getrandom(buf, len, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

uint64_t OS_REAL(max_files)(void)
{
    struct rlimit rl;

    return getrlimit(RLIMIT_NOFILE, &rl) == 0 ? rl.rlim_cur : 1024;
}

size_t OS_REAL(page_size)(void)
{
    static _Atomic size_t size;
    size_t n = atomic_load_explicit(&size, memory_order_relaxed);

    if (n == 0) {
        n = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&size, n, memory_order_relaxed);
    }
    return n;
}

bool OS_REAL(is_root)(void)
{
    return geteuid() == 0;
}

int OS_REAL(sleep)(int ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

    return result(nanosleep(&ts, NULL));
}

/* ---- on top of the table ---------------------------------------------- */

int os_read_all(int fd, void *buf, size_t len, uint64_t off)
{
    while (len > 0) {
        int64_t n = os_pread(fd, buf, len, off);

        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EIO;
        buf = (char *)buf + n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

int os_write_zeros(int fd, uint64_t len, uint64_t off)
{
    static uint8_t zeros[OS_LARGE_PAGE]; /* not const: that would make the library larger by it */
    int rc = 0;

    for (uint64_t end = off + len, n; off < end && rc == 0; off += n) {
        n = OS_LARGE_PAGE - off % OS_LARGE_PAGE;
        n = end - off < n ? end - off : n;
        rc = os_write_all(fd, zeros, n, off);
    }
    return rc;
}

int os_write_all(int fd, const void *buf, size_t len, uint64_t off)
{
    while (len > 0) {
        int64_t n = os_pwrite(fd, buf, len, off);

        if (n < 0)
            return (int)n;
        if (n == 0)
            return -ENOSPC;
        buf = (const char *)buf + n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

/* What a short write took: whole pieces, and perhaps a part of one more. */
int os_writev_all(int fd, const kist_bytes *pieces, size_t n, uint64_t off)
{
    while (n > 0) {
        size_t most = n < OS_PIECES_MAX ? n : OS_PIECES_MAX;
        int64_t done = os_pwritev(fd, pieces, most, off);
        uint64_t left;

        if (done < 0)
            return (int)done;
        off += (uint64_t)done;
        for (left = (uint64_t)done; n > 0 && left >= pieces->len; pieces++, n--)
            left -= pieces->len;
        if (n > 0 && (left > 0 || done == 0)) { /* the rest of this one, or a reason */
            int rc = os_write_all(fd, (const char *)pieces->data + left, pieces->len - left, off);
            if (rc < 0)
                return rc;
            off += pieces->len - left;
            pieces++, n--;
        }
    }
    return 0;
}
