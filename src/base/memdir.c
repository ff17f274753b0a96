/* memdir.c - directories in memory, see memdir.h. */
#include "base/memdir.h"

#include "base/hash.h"

#include <errno.h>
#include <string.h>

enum {
    NAME_BYTES_MAX = 255,
    TYPE_DIR = 4, /* as the kernel has them in its lists */
    TYPE_FILE = 8,
};

#define MEMDIR_DEV UINT64_MAX /* no file system has it */

struct node;

struct name {
    uint64_t id; /* grows: a list goes on behind the last one it gave out */
    uint64_t hash;
    struct node *node;
    char *text;
};

struct node {
    uint64_t refs; /* names, and descriptors of a directory */
    uint64_t ino;
    bool is_dir;
    int fd;                /* a file's; its device and inode tell whether it is still that */
    uint64_t fd_dev, fd_ino;
    uint32_t uid, gid, mode; /* a directory's, as all that follows */
    uint32_t locked;         /* waited on */
    bool removed;            /* nothing is made in it any more */
    struct name *names;      /* in the order of their ids */
    size_t count, cap;
};

struct opened {
    struct node *dir; /* NULL: free */
    uint64_t listed;  /* the id that was listed last */
    bool locks;
};

static struct {
    os_mutex lock;
    struct opened *opened; /* of descriptor MEMDIR_FIRST + i */
    size_t cap;
    uint64_t ids;
} all = { .lock = OS_MUTEX_INIT };

/* ---- nodes: with the lock held ----------------------------------------- */

static struct node *node_new(bool is_dir)
{
    struct node *n = os_alloc(sizeof *n);

    if (n) {
        n->is_dir = is_dir;
        n->fd = -1;
        n->ino = ++all.ids;
    }
    return n;
}

/* ⚑ A program may have closed descriptors that it does not know of: what is by
 * that number now is not ours. */
static bool still_ours(const struct node *file)
{
    struct os_stat st;

    return os_stat(file->fd, &st) == 0 && st.dev == file->fd_dev && st.ino == file->fd_ino;
}

/* As deep as bank names have parts. */
static void node_let_go(struct node *n)
{
    if (--n->refs > 0)
        return;
    for (size_t i = 0; i < n->count; i++) {
        node_let_go(n->names[i].node);
        os_free(n->names[i].text);
    }
    if (!n->is_dir && still_ours(n))
        (void)os_close(n->fd);
    os_free(n->names);
    os_free(n);
}

static struct name *name_find(const struct node *dir, const char *text, size_t len)
{
    uint64_t hash = hash_bytes(text, len);

    for (size_t i = 0; i < dir->count; i++) {
        struct name *n = &dir->names[i];

        if (n->hash == hash && strlen(n->text) == len && memcmp(n->text, text, len) == 0)
            return n;
    }
    return NULL;
}

static int name_add(struct node *dir, const char *text, size_t len, struct node *node)
{
    struct name *n;
    char *copy;

    if (dir->removed)
        return -ENOENT;
    if (len > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    if (dir->count == dir->cap) {
        size_t cap = dir->cap ? 2 * dir->cap : 8;
        struct name *more = os_resize(dir->names, cap * sizeof *more);

        if (!more)
            return -ENOMEM;
        dir->names = more;
        dir->cap = cap;
    }
    copy = os_alloc(len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, text, len);
    n = &dir->names[dir->count++];
    *n = (struct name){ ++all.ids, hash_bytes(text, len), node, copy };
    node->refs++;
    return 0;
}

static void name_remove(struct node *dir, struct name *n)
{
    struct name gone = *n;

    dir->count--;
    memmove(n, n + 1, (size_t)(dir->names + dir->count - n) * sizeof *n);
    os_free(gone.text);
    node_let_go(gone.node);
}

/* ---- descriptors and paths: with the lock held --------------------------- */

static struct opened *opened_at(int fd)
{
    size_t i = (size_t)(fd - MEMDIR_FIRST);

    return i < all.cap && all.opened[i].dir ? &all.opened[i] : NULL;
}

static int opened_new(struct node *dir)
{
    size_t i = 0;

    while (i < all.cap && all.opened[i].dir)
        i++;
    if (i == all.cap) {
        size_t cap = all.cap ? 2 * all.cap : 16;
        struct opened *more = os_resize(all.opened, cap * sizeof *more);

        if (!more)
            return -ENOMEM;
        memset(more + all.cap, 0, (cap - all.cap) * sizeof *more);
        all.opened = more;
        all.cap = cap;
    }
    all.opened[i] = (struct opened){ .dir = dir };
    dir->refs++;
    return MEMDIR_FIRST + (int)i;
}

/* Where a path leads: the directory, what its last part is, and what is by
 * that name; "." is the directory itself. */
struct place {
    struct node *dir;
    const char *text;
    size_t len;
    struct name *name; /* NULL: nothing */
};

static int find(int fd, const char *path, struct place *out)
{
    struct opened *o = opened_at(fd);

    if (!o)
        return -EBADF;
    *out = (struct place){ .dir = o->dir };
    for (;;) {
        out->text = path;
        out->len = strcspn(path, "/");
        if (out->len == 0)
            return -ENOENT;
        if (out->len == 2 && memcmp(path, "..", 2) == 0)
            return -EXDEV; /* never out of it */
        out->name = name_find(out->dir, path, out->len);
        path += out->len;
        if (*path == '\0')
            return 0;
        if (out->len == 1 && path[-1] == '.') {
            path++;
            continue;
        }
        if (!out->name)
            return -ENOENT;
        if (!out->name->node->is_dir)
            return -ENOTDIR;
        out->dir = out->name->node;
        path++;
    }
}

static bool is_dot(const struct place *p)
{
    return p->len == 1 && *p->text == '.';
}

static int find_file(int fd, const char *path, struct place *out)
{
    int rc = find(fd, path, out);

    if (rc < 0)
        return rc;
    if (is_dot(out) || (out->name && out->name->node->is_dir))
        return -EISDIR;
    return out->name ? 0 : -ENOENT;
}

/* ---- files ------------------------------------------------------------ */

/* A description of its own. */
static int file_open(const struct node *file, int flags)
{
    struct os_stat st;
    int fd = os_reopen(file->fd, flags), rc;

    if (fd < 0)
        return fd == -ENOENT ? -ENOSYS : fd;
    rc = os_stat(fd, &st);
    if (rc == 0 && st.dev == file->fd_dev && st.ino == file->fd_ino)
        return fd;
    (void)os_close(fd);
    return rc < 0 ? rc : -EBADF; /* somebody closed ours */
}

static int file_new(const char *name, struct node **out)
{
    struct node *n = node_new(false);
    struct os_stat st;
    int rc;

    if (!n)
        return -ENOMEM;
    rc = n->fd = os_memory_file(name);
    if (rc >= 0)
        rc = os_stat(n->fd, &st);
    if (rc < 0) {
        if (n->fd >= 0)
            (void)os_close(n->fd);
        os_free(n);
        return rc;
    }
    n->fd_dev = st.dev;
    n->fd_ino = st.ino;
    *out = n;
    return 0;
}

static int file_create(const struct place *p)
{
    struct node *file;
    int rc = file_new(p->text, &file), fd;

    if (rc < 0)
        return rc;
    file->refs++;
    fd = file_open(file, OS_READ | OS_WRITE);
    rc = fd < 0 ? fd : name_add(p->dir, p->text, p->len, file);
    if (rc < 0 && fd >= 0)
        (void)os_close(fd);
    node_let_go(file);
    return rc < 0 ? rc : fd;
}

static int open_at(int dir, const char *path, int flags)
{
    struct place p;
    int rc = find(dir, path, &p);
    struct node *n;

    if (rc < 0)
        return rc;
    n = is_dot(&p) ? p.dir : p.name ? p.name->node : NULL;
    if (flags & OS_TMPFILE)
        return !n ? -ENOENT : !n->is_dir ? -ENOTDIR : os_memory_file("kist");
    if (!n)
        return flags & OS_CREATE ? file_create(&p) : -ENOENT;
    if (flags & OS_CREATE)
        return -EEXIST;
    if (n->is_dir)
        return flags & OS_DIR ? opened_new(n) : -EISDIR;
    return flags & OS_DIR ? -ENOTDIR : file_open(n, flags & (OS_READ | OS_WRITE));
}

/* ---- the calls -------------------------------------------------------- */

int memdir_make(uint32_t uid, uint32_t gid)
{
    struct node *n;
    int rc = -ENOMEM;

    os_mutex_lock(&all.lock);
    n = node_new(true);
    if (n) {
        n->uid = uid;
        n->gid = gid;
        n->mode = 0700;
        rc = opened_new(n);
        if (rc < 0)
            os_free(n);
    }
    os_mutex_unlock(&all.lock);
    return rc;
}

/* A directory's mode stops nobody: there is nobody else. */
int memdir_open(int dir, const char *path, int flags, uint32_t mode)
{
    int fd;

    (void)mode;
    os_mutex_lock(&all.lock);
    fd = open_at(dir, path, flags);
    os_mutex_unlock(&all.lock);
    return fd;
}

static void unlock(struct node *dir)
{
    dir->locked = 0;
    (void)os_wake(&dir->locked);
}

int memdir_close(int fd)
{
    struct opened *o;

    os_mutex_lock(&all.lock);
    o = opened_at(fd);
    if (o) {
        if (o->locks)
            unlock(o->dir);
        node_let_go(o->dir);
        o->dir = NULL;
    }
    os_mutex_unlock(&all.lock);
    return o ? 0 : -EBADF;
}

static void dir_stat(const struct node *dir, struct os_stat *out)
{
    *out = (struct os_stat){
        .dev = MEMDIR_DEV,
        .ino = dir->ino,
        .uid = dir->uid,
        .gid = dir->gid,
        .mode = dir->mode,
        .kind = OS_FILE_DIR,
    };
}

int memdir_stat(int fd, struct os_stat *out)
{
    struct opened *o;

    os_mutex_lock(&all.lock);
    o = opened_at(fd);
    if (o)
        dir_stat(o->dir, out);
    os_mutex_unlock(&all.lock);
    return o ? 0 : -EBADF;
}

int memdir_stat_under(int dir, const char *path, struct os_stat *out)
{
    struct place p;
    int rc;

    os_mutex_lock(&all.lock);
    rc = find(dir, path, &p);
    if (rc == 0 && is_dot(&p))
        dir_stat(p.dir, out);
    else if (rc == 0 && !p.name)
        rc = -ENOENT;
    else if (rc == 0 && p.name->node->is_dir)
        dir_stat(p.name->node, out);
    else if (rc == 0)
        rc = still_ours(p.name->node) ? os_stat(p.name->node->fd, out) : -EBADF;
    os_mutex_unlock(&all.lock);
    return rc;
}

int memdir_own(int fd, uint32_t uid, uint32_t gid, uint32_t mode)
{
    struct opened *o;

    os_mutex_lock(&all.lock);
    o = opened_at(fd);
    if (o) {
        o->dir->uid = uid;
        o->dir->gid = gid;
        o->dir->mode = mode;
    }
    os_mutex_unlock(&all.lock);
    return o ? 0 : -EBADF;
}

static int mkdir_at(const struct place *p, uint32_t mode)
{
    struct node *n;
    int rc;

    if (is_dot(p) || p->name)
        return -EEXIST;
    n = node_new(true);
    if (!n)
        return -ENOMEM;
    n->uid = p->dir->uid;
    n->gid = p->dir->gid;
    n->mode = mode;
    rc = name_add(p->dir, p->text, p->len, n);
    if (rc < 0)
        os_free(n);
    return rc;
}

int memdir_mkdir(int dir, const char *path, uint32_t mode)
{
    struct place p;
    int rc;

    os_mutex_lock(&all.lock);
    rc = find(dir, path, &p);
    if (rc == 0)
        rc = mkdir_at(&p, mode);
    os_mutex_unlock(&all.lock);
    return rc;
}

int memdir_link(int dir, const char *from, const char *to)
{
    struct place f, t;
    int rc;

    os_mutex_lock(&all.lock);
    rc = find_file(dir, from, &f);
    if (rc == 0)
        rc = find(dir, to, &t);
    if (rc == 0)
        rc = is_dot(&t) || t.name ? -EEXIST : name_add(t.dir, t.text, t.len, f.name->node);
    os_mutex_unlock(&all.lock);
    return rc;
}

/* Of files alone; nobody gives a directory in a store another name. */
static int rename_at(int dir, const char *from, const char *to, bool replace)
{
    struct node *node;
    struct place f, t;
    int rc = find_file(dir, from, &f);

    if (rc == 0)
        rc = find(dir, to, &t);
    if (rc < 0)
        return rc;
    if (is_dot(&t) || (t.name && !replace))
        return -EEXIST;
    if (t.name && t.name->node->is_dir)
        return -EISDIR;
    node = f.name->node;
    if (t.name && t.name->node == node)
        return 0; /* both names are this file's: they stay, as the kernel has it */
    if (t.name) {
        struct node *was = t.name->node;

        node->refs++;
        t.name->node = node;
        node_let_go(was);
    } else {
        rc = name_add(t.dir, t.text, t.len, node);
        if (rc < 0)
            return rc;
        (void)find_file(dir, from, &f); /* the list may have moved */
    }
    name_remove(f.dir, f.name);
    return 0;
}

int memdir_rename(int dir, const char *from, const char *to, bool replace)
{
    int rc;

    os_mutex_lock(&all.lock);
    rc = rename_at(dir, from, to, replace);
    os_mutex_unlock(&all.lock);
    return rc;
}

int memdir_unlink(int dir, const char *path)
{
    struct place p;
    int rc;

    os_mutex_lock(&all.lock);
    rc = find_file(dir, path, &p);
    if (rc == 0)
        name_remove(p.dir, p.name);
    os_mutex_unlock(&all.lock);
    return rc;
}

static int rmdir_at(const struct place *p)
{
    if (is_dot(p))
        return -EINVAL;
    if (!p->name)
        return -ENOENT;
    if (!p->name->node->is_dir)
        return -ENOTDIR;
    if (p->name->node->count > 0)
        return -ENOTEMPTY;
    p->name->node->removed = true;
    name_remove(p->dir, p->name);
    return 0;
}

int memdir_rmdir(int dir, const char *path)
{
    struct place p;
    int rc;

    os_mutex_lock(&all.lock);
    rc = find(dir, path, &p);
    if (rc == 0)
        rc = rmdir_at(&p);
    os_mutex_unlock(&all.lock);
    return rc;
}

static uint16_t dirent_bytes(size_t name_len)
{
    return (uint16_t)((offsetof(struct os_dirent, name) + name_len + 1 + 7) / 8 * 8);
}

static int64_t list(struct opened *o, uint8_t *buf, size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < o->dir->count; i++) {
        const struct name *n = &o->dir->names[i];
        struct os_dirent e = {
            .ino = n->node->ino,
            .off = (int64_t)n->id,
            .len = dirent_bytes(strlen(n->text)),
            .type = n->node->is_dir ? TYPE_DIR : TYPE_FILE,
        };

        if (n->id <= o->listed)
            continue;
        if (e.len > room - used)
            return used > 0 ? (int64_t)used : -EINVAL;
        memcpy(buf + used, &e, offsetof(struct os_dirent, name));
        memcpy(buf + used + offsetof(struct os_dirent, name), n->text, strlen(n->text) + 1);
        used += e.len;
        o->listed = n->id;
    }
    return (int64_t)used;
}

int64_t memdir_list(int fd, void *buf, size_t len)
{
    struct opened *o;
    int64_t n = -EBADF;

    os_mutex_lock(&all.lock);
    o = opened_at(fd);
    if (o)
        n = list(o, buf, len);
    os_mutex_unlock(&all.lock);
    return n;
}

/* Shared locks count as exclusive ones. KIST_MISS: somebody else has it. */
static int try_lock(int fd, uint32_t **word)
{
    struct opened *o = opened_at(fd);

    if (!o)
        return -EBADF;
    *word = &o->dir->locked; /* stays as long as this descriptor is open */
    if (o->locks)
        return 0;
    if (o->dir->locked)
        return KIST_MISS;
    o->dir->locked = 1;
    o->locks = true;
    return 0;
}

int memdir_flock(int fd, enum os_lock_kind kind)
{
    uint32_t *word = NULL;
    struct opened *o;
    int rc;

    do {
        os_mutex_lock(&all.lock);
        if (kind == OS_LOCK_FREE) {
            o = opened_at(fd);
            rc = o ? 0 : -EBADF;
            if (o && o->locks) {
                unlock(o->dir);
                o->locks = false;
            }
        } else {
            rc = try_lock(fd, &word);
        }
        os_mutex_unlock(&all.lock);
        if (rc == KIST_MISS)
            (void)os_wait(word, 1, OS_WAIT_FOREVER);
    } while (rc == KIST_MISS);
    return rc;
}

/* ---- forks ------------------------------------------------------------ */

void memdir_before_fork(void)
{
    os_mutex_lock(&all.lock);
}

void memdir_behind_fork(void)
{
    os_mutex_unlock(&all.lock);
}

void memdir_in_child(void)
{
    os_mutex_init(&all.lock);
}
