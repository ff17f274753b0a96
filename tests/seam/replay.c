/* replay.c - see replay.h. */
#include "seam/replay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 4096, PAGE = 4096 };

static struct {
    struct log_id real, seen;
} known[FILES_MAX];
static size_t known_count;
static struct os_place place_now;
static int (*stat_below)(int fd, struct os_stat *out);
static int (*stat_under_below)(int dir, const char *path, struct os_stat *out);

static void check(int rc)
{
    if (rc < 0)
        abort();
}

/* ---- identities ------------------------------------------------------- */

static void show(struct os_stat *st)
{
    for (size_t i = 0; i < known_count; i++) {
        if (known[i].real.ino == st->ino && known[i].real.dev == st->dev) {
            st->dev = known[i].seen.dev;
            st->ino = known[i].seen.ino;
            return;
        }
    }
    /* Made after the replay: on the same device as the rest, with a number
     * that none of the others has. */
    if (known_count > 0 && st->dev == known[0].real.dev) {
        st->dev = known[0].seen.dev;
        st->ino += UINT64_C(1) << 40;
    }
}

static int on_stat(int fd, struct os_stat *out)
{
    int rc = stat_below(fd, out);

    if (rc == 0)
        show(out);
    return rc;
}

static int on_stat_under(int dir, const char *path, struct os_stat *out)
{
    int rc = stat_under_below(dir, path, out);

    if (rc == 0)
        show(out);
    return rc;
}

static int on_place(int fd, struct os_place *out)
{
    (void)fd;
    *out = place_now;
    return 0;
}

void replay_identities(void)
{
    replay_place(1, 1);
    if (os_seam.place == on_place)
        return;
    stat_below = os_seam.stat;
    stat_under_below = os_seam.stat_under;
    os_seam.stat = on_stat;
    os_seam.stat_under = on_stat_under;
    os_seam.place = on_place;
}

void replay_place(uint64_t boot, uint64_t mount)
{
    memset(&place_now, 0x5a, sizeof place_now);
    memcpy(place_now.boot_id, &boot, sizeof boot);
    place_now.witness = mount ? 1000 + mount : 0;
}

static void remember(const struct world *w, uint32_t node, int fd)
{
    struct stat sb;

    check(fstat(fd, &sb));
    if (known_count == FILES_MAX)
        abort();
    known[known_count].real = (struct log_id){ sb.st_dev, sb.st_ino };
    known[known_count++].seen = log_node_seen(w->log, node);
}

/* ---- building --------------------------------------------------------- */

static bool is_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Pages of zeros stay holes. */
static void fill(int fd, const struct world_file *f)
{
    uint64_t at = 0, end;

    check(ftruncate(fd, (off_t)f->size));
    while (at < f->filled) {
        uint64_t page = f->filled - at < PAGE ? f->filled - at : PAGE;

        if (is_zero(f->bytes + at, page)) {
            at += page;
            continue;
        }
        for (end = at + page; end < f->filled; end += page) {
            page = f->filled - end < PAGE ? f->filled - end : PAGE;
            if (is_zero(f->bytes + end, page))
                break;
        }
        if (pwrite(fd, f->bytes + at, end - at, (off_t)at) != (ssize_t)(end - at))
            abort();
        at = end;
    }
}

static void build_dir(const struct world *w, uint32_t node, int fd);

/* A second name of a file that stands already. */
static bool link_known(const struct world *w, size_t index, int dir)
{
    const struct world_name *n = &w->name[index];

    for (size_t i = 0; i < index; i++) {
        if (w->name[i].node == n->node && w->name[i].dir == n->dir && !n->is_dir) {
            check(linkat(dir, w->name[i].text, dir, n->text, 0));
            return true;
        }
    }
    return false;
}

static void build_name(const struct world *w, size_t index, int dir)
{
    const struct world_name *n = &w->name[index];
    int fd;

    if (link_known(w, index, dir))
        return;
    if (n->is_dir)
        check(mkdirat(dir, n->text, 0700));
    fd = openat(dir, n->text, n->is_dir ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT | O_EXCL, 0600);
    check(fd);
    remember(w, n->node, fd);
    if (n->is_dir)
        build_dir(w, n->node, fd);
    else
        fill(fd, &w->file[n->node]);
    (void)close(fd);
}

static void build_dir(const struct world *w, uint32_t node, int fd)
{
    for (size_t i = 0; i < w->names; i++)
        if (w->name[i].dir == node)
            build_name(w, i, fd);
}

void replay_build(const struct world *w, const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    check(fd);
    known_count = 0;
    remember(w, 0, fd);
    build_dir(w, 0, fd);
    (void)close(fd);
}

/* ---- cleaning --------------------------------------------------------- */

static void clean_at(int fd)
{
    DIR *d = fdopendir(fd);
    struct dirent *e;

    if (!d)
        abort();
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) == 0)
            continue;
        if (errno == EISDIR || errno == EPERM) {
            int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

            check(sub);
            clean_at(sub);
            check(unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR));
        }
    }
    (void)closedir(d);
}

void replay_clean(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    check(fd);
    clean_at(fd);
}
