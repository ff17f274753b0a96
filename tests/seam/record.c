/* record.c - the wrapped calls, and the register of maps and descriptors. */
#include "seam/record.h"

#include "base/os.h"
#include "base/shm.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FDS_MAX = 1 << 16, PATH_CAP = 4096 };

/* Pages [start, end) show `node` from `off` on. */
struct range {
    uintptr_t start, end;
    uint32_t node;
    uint64_t off;
};

static struct log *log_to;
static struct os_table below; /* what was in the table before */
static void (*store_below)(const void *addr, size_t len);
static struct range *ranges;
static size_t range_count, range_cap, range_last;
static uint32_t fd_node[FDS_MAX]; /* node + 1; 0: not ours */

void (*record_after)(uint64_t index);
int (*record_sync)(int fd, uint32_t node);
const char *record_unsynced;

static void logged(uint64_t index)
{
    if (record_after)
        record_after(index);
}

/* ---- who is who ------------------------------------------------------- */

static struct log_id id_of(const struct stat *sb)
{
    return (struct log_id){ sb->st_dev, sb->st_ino };
}

int64_t record_node(int fd)
{
    struct stat sb;

    return log_to && fstat(fd, &sb) == 0 ? log_node_find(log_to, id_of(&sb)) : LOG_NONE;
}

int64_t record_node_at(int dir, const char *path)
{
    struct stat sb;

    if (!log_to || fstatat(dir, path, &sb, AT_SYMLINK_NOFOLLOW) < 0)
        return LOG_NONE;
    return log_node_find(log_to, id_of(&sb));
}

/* The directory that `path` names something in, and its last part. */
static int64_t parent_of(int dir, const char *path, const char **last)
{
    char head[PATH_CAP];
    const char *slash = strrchr(path, '/');

    if (!slash) {
        *last = path;
        return dir == AT_FDCWD ? record_node_at(dir, ".") : record_node(dir);
    }
    *last = slash + 1;
    (void)snprintf(head, sizeof head, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return record_node_at(dir, head);
}

static uint32_t node_new(int fd)
{
    struct os_stat seen = { 0 };
    struct stat sb;

    if (fstat(fd, &sb) < 0 || os_stat(fd, &seen) < 0)
        abort();
    return log_node_new(log_to, id_of(&sb), (struct log_id){ seen.dev, seen.ino });
}

uint64_t record_holds(uint32_t node)
{
    uint64_t n = 0;

    for (size_t i = 0; i < range_count; i++)
        n += ranges[i].node == node;
    for (size_t i = 0; i < FDS_MAX; i++)
        n += fd_node[i] == node + 1;
    return n;
}

/* ---- maps ------------------------------------------------------------- */

static void range_add(struct range r)
{
    if (range_count == range_cap) {
        range_cap = range_cap ? 2 * range_cap : 64;
        ranges = realloc(ranges, range_cap * sizeof *ranges);
        if (!ranges)
            abort();
    }
    ranges[range_count++] = r;
}

/* Whatever lies in [start, end) is not mapped any more. */
static void range_cut(uintptr_t start, uintptr_t end)
{
    for (size_t i = range_count; i-- > 0;) {
        struct range r = ranges[i];

        if (r.end <= start || r.start >= end)
            continue;
        ranges[i] = ranges[--range_count];
        if (r.start < start)
            range_add((struct range){ r.start, start, r.node, r.off });
        if (r.end > end)
            range_add((struct range){ end, r.end, r.node, r.off + (end - r.start) });
    }
    range_last = 0;
}

static const struct range *range_of(uintptr_t addr)
{
    if (range_last < range_count && ranges[range_last].start <= addr &&
        addr < ranges[range_last].end)
        return &ranges[range_last];
    for (size_t i = 0; i < range_count; i++) {
        if (ranges[i].start <= addr && addr < ranges[i].end) {
            range_last = i;
            return &ranges[i];
        }
    }
    return NULL;
}

static void on_store(const void *addr, size_t len)
{
    const struct range *r = range_of((uintptr_t)addr);

    if (store_below)
        store_below(addr, len);
    if (r)
        logged(log_add_bytes(log_to, LOG_STORE, r->node, r->off + ((uintptr_t)addr - r->start),
                             addr, len));
}

static int on_map(void **out, void *addr, size_t len, int prot, int flags, int fd, uint64_t off)
{
    void *p = NULL;
    int rc = below.map(&p, addr, len, prot, flags, fd, off);
    int64_t node = rc == 0 && fd >= 0 ? record_node(fd) : LOG_NONE;

    if (rc < 0)
        return rc;
    *out = p;
    len = (len + 4095) & ~(size_t)4095;
    range_cut((uintptr_t)p, (uintptr_t)p + len);
    if (node >= 0)
        range_add((struct range){ (uintptr_t)p, (uintptr_t)p + len, (uint32_t)node, off });
    return 0;
}

static int on_unmap(void *addr, size_t len)
{
    int rc = below.unmap(addr, len);

    if (rc == 0)
        range_cut((uintptr_t)addr, (uintptr_t)addr + ((len + 4095) & ~(size_t)4095));
    return rc;
}

/* ---- descriptors ------------------------------------------------------ */

static int opened(int fd)
{
    int64_t node = fd >= 0 ? record_node(fd) : LOG_NONE;

    if (fd >= 0 && fd < FDS_MAX)
        fd_node[fd] = (uint32_t)(node + 1);
    return fd;
}

static int on_open_path(const char *path, int flags)
{
    return opened(below.open_path(path, flags));
}

static int on_open_under(int dir, const char *path, int flags, uint32_t mode)
{
    int fd = below.open_under(dir, path, flags, mode);
    const char *last;
    int64_t parent;

    if (fd >= 0 && flags & OS_CREATE && !(flags & OS_TMPFILE)) {
        parent = parent_of(dir, path, &last);
        if (parent >= 0)
            logged(log_add_names(log_to, LOG_CREATE, node_new(fd), (uint32_t)parent, last, 0, ""));
    }
    return opened(fd);
}

static int on_close(int fd)
{
    if (fd >= 0 && fd < FDS_MAX)
        fd_node[fd] = 0;
    return below.close(fd);
}

/* ---- names ------------------------------------------------------------ */

static int log_mkdir(int rc, int dir, const char *path)
{
    const char *last;
    int64_t parent = rc == 0 ? parent_of(dir, path, &last) : LOG_NONE;
    int fd;

    if (parent < 0)
        return rc;
    fd = openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        abort();
    logged(log_add_names(log_to, LOG_MKDIR, node_new(fd), (uint32_t)parent, last, 0, ""));
    (void)close(fd);
    return rc;
}

static int on_mkdir(int dir, const char *path, uint32_t mode)
{
    return log_mkdir(below.mkdir(dir, path, mode), dir, path);
}

static int on_mkdir_path(const char *path, uint32_t mode)
{
    return log_mkdir(below.mkdir_path(path, mode), AT_FDCWD, path);
}

static int on_link(int dir, const char *from, const char *to)
{
    int rc = below.link(dir, from, to);
    const char *last;
    int64_t parent = rc == 0 ? parent_of(dir, to, &last) : LOG_NONE;
    int64_t node = rc == 0 ? record_node_at(dir, to) : LOG_NONE;

    if (parent >= 0 && node >= 0)
        logged(log_add_names(log_to, LOG_LINK, (uint32_t)node, (uint32_t)parent, last, 0, ""));
    return rc;
}

static int on_rename(int dir, const char *from, const char *to)
{
    const char *old, *new;
    int64_t node = record_node_at(dir, from);
    int64_t parent = parent_of(dir, from, &old), parent2 = parent_of(dir, to, &new);
    int rc = below.rename(dir, from, to);

    if (rc == 0 && node >= 0 && parent >= 0 && parent2 >= 0)
        logged(log_add_names(log_to, LOG_RENAME, (uint32_t)node, (uint32_t)parent, old,
                             (uint32_t)parent2, new));
    return rc;
}

static void log_gone(enum log_kind kind, int64_t node, int dir, const char *path)
{
    const char *last;
    int64_t parent = parent_of(dir, path, &last);

    if (node >= 0 && parent >= 0)
        logged(log_add_names(log_to, kind, (uint32_t)node, (uint32_t)parent, last, 0, ""));
}

static int on_unlink(int dir, const char *path)
{
    int64_t node = record_node_at(dir, path);
    int rc = below.unlink(dir, path);

    if (rc == 0)
        log_gone(LOG_UNLINK, node, dir, path);
    return rc;
}

static int on_rmdir(int dir, const char *path)
{
    int64_t node = record_node_at(dir, path);
    int rc = below.rmdir(dir, path);

    if (rc == 0)
        log_gone(LOG_RMDIR, node, dir, path);
    return rc;
}

/* ---- content ---------------------------------------------------------- */

static int64_t on_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
    int64_t n = below.pwrite(fd, buf, len, off);
    int64_t node = n > 0 ? record_node(fd) : LOG_NONE;

    if (node >= 0)
        logged(log_add_bytes(log_to, LOG_WRITE, (uint32_t)node, off, buf, (size_t)n));
    return n;
}

static int log_size(int fd, int rc)
{
    int64_t node = rc == 0 ? record_node(fd) : LOG_NONE;
    struct stat sb;

    if (node >= 0 && fstat(fd, &sb) == 0)
        logged(log_add_bytes(log_to, LOG_SIZE, (uint32_t)node, (uint64_t)sb.st_size, NULL, 0));
    return rc;
}

static int on_allocate(int fd, uint64_t off, uint64_t len)
{
    return log_size(fd, below.allocate(fd, off, len));
}

static int on_truncate(int fd, uint64_t size)
{
    return log_size(fd, below.truncate(fd, size));
}

static int sync_any(int fd, int (*sync_it)(int fd))
{
    int64_t node = record_node(fd);
    int rc = node >= 0 && record_sync ? record_sync(fd, (uint32_t)node) : 0;

    if (rc == 0)
        rc = sync_it(fd);
    if (node >= 0)
        logged(
            log_add_bytes(log_to, rc < 0 ? LOG_SYNC_FAILED : LOG_SYNC, (uint32_t)node, 0, NULL, 0));
    return rc;
}

static int on_fsync(int fd)
{
    return sync_any(fd, below.fsync);
}

static int on_fdatasync(int fd)
{
    return sync_any(fd, below.fdatasync);
}

/* ---- beginning and end ------------------------------------------------ */

static void take_file(int fd, uint32_t node)
{
    static const uint8_t zeros[16 << 10];
    static uint8_t buf[sizeof zeros];
    struct stat sb;
    uint64_t off = 0;
    ssize_t n;

    while ((n = pread(fd, buf, sizeof buf, (off_t)off)) > 0) {
        if (memcmp(buf, zeros, (size_t)n) != 0)
            (void)log_add_bytes(log_to, LOG_WRITE, node, off, buf, (size_t)n);
        off += (uint64_t)n;
    }
    if (fstat(fd, &sb) == 0)
        (void)log_add_bytes(log_to, LOG_SIZE, node, (uint64_t)sb.st_size, NULL, 0);
}

static void take_dir(int fd, uint32_t node);

static void take_name(int dir, uint32_t parent, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int64_t known = fd < 0 ? LOG_NONE : record_node(fd);
    struct stat sb;

    if (fd < 0)
        return; /* a link or the like; kist makes none */
    if (fstat(fd, &sb) < 0)
        abort();
    if (known >= 0) {
        (void)log_add_names(log_to, LOG_LINK, (uint32_t)known, parent, name, 0, "");
    } else {
        uint32_t node = node_new(fd);
        bool is_dir = S_ISDIR(sb.st_mode);

        (void)log_add_names(log_to, is_dir ? LOG_MKDIR : LOG_CREATE, node, parent, name, 0, "");
        (is_dir ? take_dir : take_file)(fd, node);
        if (!record_unsynced || strncmp(name, record_unsynced, strlen(record_unsynced)) != 0)
            (void)log_add_bytes(log_to, LOG_SYNC, node, 0, NULL, 0);
    }
    (void)close(fd);
}

static void take_dir(int fd, uint32_t node)
{
    DIR *d = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct dirent *e;

    if (!d)
        abort();
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            take_name(fd, node, e->d_name);
    (void)closedir(d);
}

static void wrap_table(void)
{
    below = os_seam;
    os_seam.open_path = on_open_path;
    os_seam.open_under = on_open_under;
    os_seam.close = on_close;
    os_seam.mkdir = on_mkdir;
    os_seam.mkdir_path = on_mkdir_path;
    os_seam.link = on_link;
    os_seam.rename = on_rename;
    os_seam.unlink = on_unlink;
    os_seam.rmdir = on_rmdir;
    os_seam.pwrite = on_pwrite;
    os_seam.allocate = on_allocate;
    os_seam.truncate = on_truncate;
    os_seam.fsync = on_fsync;
    os_seam.fdatasync = on_fdatasync;
    os_seam.map = on_map;
    os_seam.unmap = on_unmap;
    store_below = shm_seam;
    shm_seam = on_store;
}

void record_start(struct log *log, const char *root)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint32_t node;

    if (log_to || fd < 0)
        abort();
    log_to = log;
    memset(fd_node, 0, sizeof fd_node);
    range_count = 0;
    node = node_new(fd);
    take_dir(fd, node);
    (void)log_add_bytes(log, LOG_SYNC, node, 0, NULL, 0);
    (void)close(fd);
    wrap_table();
}

void record_stop(void)
{
    if (!log_to)
        return;
    os_seam = below;
    shm_seam = store_below;
    log_to = NULL;
    record_after = NULL;
    record_sync = NULL;
}
