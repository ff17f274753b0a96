/* files - the folder that a run works in. */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

int files_make(char *path, size_t size, const char *above)
{
    if ((size_t)snprintf(path, size, "%s/kist-bench-XXXXXX", above) >= size)
        return bench_fail("bench", above, strerror(ENAMETOOLONG));
    return mkdtemp(path) ? 0 : bench_fail("bench", path, strerror(errno));
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

int files_remove(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT)
        return 0;
    return bench_fail("bench", path, strerror(errno));
}

static uint64_t sum; /* nftw hands its callback no argument */

static int add_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)path;
    (void)where;
    if (kind == FTW_F)
        sum += (uint64_t)st->st_blocks * 512;
    return 0;
}

int files_bytes(const char *path, uint64_t *bytes)
{
    sum = 0;
    if (nftw(path, add_one, 16, FTW_PHYS) < 0)
        return bench_fail("bench", path, strerror(errno));
    *bytes = sum;
    return 0;
}

int files_touch_memory(const char *path, uint64_t bytes)
{
    static const char piece[2 << 20];
    char name[4096];
    int fd, rc = 0;

    if ((size_t)snprintf(name, sizeof name, "%s.touch", path) >= sizeof name)
        return bench_fail("bench", path, strerror(ENAMETOOLONG));
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return bench_fail("bench", name, strerror(errno));
    for (uint64_t at = 0; at < bytes && rc == 0; at += sizeof piece) {
        if (write(fd, piece, sizeof piece) < 0)
            rc = bench_fail("bench", name, strerror(errno));
    }
    (void)close(fd);
    (void)unlink(name);
    return rc;
}

const char *files_system(const char *path)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } known[] = {
        { 0xef53, "ext4" },      { 0x58465342, "xfs" },   { 0x9123683e, "btrfs" },
        { 0xf2f52010, "f2fs" },  { 0x2fc12fc1, "zfs" },   { 0xca451a4e, "bcachefs" },
        { 0x01021994, "tmpfs" }, { 0x858458f6, "ramfs" }, { 0x794c7630, "overlay" },
        { 0x6969, "nfs" },
    };
    struct statfs s;

    if (statfs(path, &s) == 0) {
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if ((uint32_t)s.f_type == known[i].magic)
                return known[i].name;
        }
    }
    return "unknown file system";
}

uint64_t files_free(const char *path)
{
    struct statvfs s;

    return statvfs(path, &s) < 0 ? 0 : (uint64_t)s.f_bavail * s.f_frsize;
}
