/* store.c - opening and closing stores, see store.h. */
#include "store/store.h"

#include "base/err.h"
#include "store/name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STORE_FILE "kist.store"

enum {
    STORE_FORMAT = 1,
    OPEN_BANKS_LEAST = 8,
    OPEN_BANKS_MOST = 1024,
    FILES_A_BANK = 8,
};

struct store_file {
    char magic[8];
    uint32_t format, unused;
    uint8_t id[16];
    uint64_t checksum;
};
static_assert(sizeof(struct store_file) == 40, "on-disk: kist.store");

static const char magic[8] = { 'K', 'I', 'S', 'T', 'S', 'T', 'O', 'R' };

/* ---- options ------------------------------------------------------------ */

static int store_options_check(const kist_store_options *o)
{
    if (o->flags & ~(uint32_t)(KIST_STORE_CREATE | KIST_STORE_READONLY | KIST_STORE_ANY_FS |
                               KIST_STORE_MEMORY))
        return options_bad("flags");
    if ((o->flags & KIST_STORE_CREATE) && (o->flags & KIST_STORE_READONLY))
        return options_bad("flags (CREATE with READONLY)");
    if ((o->flags & KIST_STORE_MEMORY) && (o->flags & KIST_STORE_READONLY))
        return options_bad("flags (MEMORY with READONLY: it is empty, and would stay so)");
    if (o->reserved != 0)
        return options_bad("reserved");
    if (o->max_open_banks > 65536)
        return options_bad("max_open_banks");
    if ((o->file_mode & ~0777u) || (o->dir_mode & ~0777u))
        return options_bad("file_mode or dir_mode");
    return KIST_OK;
}

/* ---- kist.store ----------------------------------------------------------- */

static int store_check(const struct store_file *f)
{
    if (memcmp(f->magic, magic, sizeof magic) != 0)
        return KIST_EFORMAT;
    if (f->checksum != hash_bytes(f, offsetof(struct store_file, checksum)))
        return KIST_ECORRUPT;
    return f->format > STORE_FORMAT ? KIST_ENEWER : KIST_OK;
}

/* Twice in its file, so that damage to one copy costs nothing. */
static int store_read(int dir)
{
    struct store_file f[2];
    int fd = os_open_under(dir, STORE_FILE, OS_READ, 0), rc;

    if (fd == -ENOENT)
        return KIST_ENOSTORE;
    if (fd < 0)
        return fd == -ELOOP ? KIST_EPATH : fd;
    memset(f, 0, sizeof f);
    rc = (int)os_pread(fd, f, sizeof f, 0);
    (void)os_close(fd);
    if (rc == -EISDIR)
        return KIST_EFORMAT;
    if (rc < 0)
        return rc;
    rc = store_check(&f[0]);
    return rc == KIST_EFORMAT || rc == KIST_ECORRUPT
               ? store_check(&f[1]) == KIST_EFORMAT ? rc : store_check(&f[1])
               : rc;
}

static int store_write(const struct bank_env *env)
{
    struct store_file f = { .format = STORE_FORMAT }, twice[2];
    char name[64];
    uint64_t random;
    int fd, rc = os_random(f.id, sizeof f.id);

    if (rc == 0)
        rc = os_random(&random, sizeof random);
    if (rc < 0)
        return rc;
    memcpy(f.magic, magic, sizeof magic);
    f.checksum = hash_bytes(&f, offsetof(struct store_file, checksum));
    twice[0] = twice[1] = f;
    (void)snprintf(name, sizeof name, STORE_FILE ".%016llx", (unsigned long long)random);
    fd = os_open_under(env->dir, name, OS_WRITE | OS_CREATE, env->file_mode);
    if (fd < 0)
        return fd;
    rc = os_write_all(fd, twice, sizeof twice, 0);
    if (rc == 0)
        rc = os_own(fd, env->uid, env->gid, env->file_mode);
    if (rc == 0)
        rc = os_fsync(fd);
    (void)os_close(fd);
    if (rc == 0)
        rc = os_link(env->dir, name, STORE_FILE);
    (void)os_unlink(env->dir, name);
    if (rc == 0 || rc == -EEXIST)
        rc = os_fsync(env->dir);
    return rc;
}

static const char *store_advice(int rc)
{
    switch (rc) {
    case KIST_ENOSTORE:
        return "there is no kist store; make one with KIST_STORE_CREATE or 'kist create'";
    case KIST_EFORMAT:
        return "its kist.store is no kist file";
    case KIST_ENEWER:
        return "it was made by a newer kist; upgrade";
    case KIST_ECORRUPT:
        return "its kist.store is damaged; restore that file";
    case KIST_ENETFS:
        return "it is not on a local file system; KIST_STORE_ANY_FS accepts it";
    case -EMFILE:
        return "the process has no descriptor left; raise RLIMIT_NOFILE (ulimit -n)";
    case -ENOSYS:
        return "files in memory need memfd_create (Linux 3.17), and /proc to be mounted";
    default:
        return kist_strerror(rc);
    }
}

/* ---- opening a store -------------------------------------------------------- */

/* The directory's name is to outlive a power loss too. */
static int sync_parent(const char *path)
{
    char parent[4096];
    size_t n = strlen(path);
    int dir, rc;

    while (n > 0 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    if (n >= sizeof parent)
        return -ENAMETOOLONG;
    (void)snprintf(parent, sizeof parent, "%.*s", n ? (int)n : 1, n ? path : ".");
    dir = os_open_path(parent, OS_READ | OS_DIR);
    if (dir < 0)
        return dir;
    rc = os_fsync(dir);
    (void)os_close(dir);
    return rc;
}

static int open_directory(const char *path, const kist_store_options *o, int *dir)
{
    int rc = path ? os_open_path(path, OS_READ | OS_DIR) : os_memory_dir();

    if (path && rc == -ENOENT && (o->flags & KIST_STORE_CREATE)) {
        rc = os_mkdir_path(path, o->dir_mode ? o->dir_mode : 0700);
        if (rc == 0)
            rc = sync_parent(path);
        if (rc == 0 || rc == -EEXIST)
            rc = os_open_path(path, OS_READ | OS_DIR);
    }
    if (rc < 0)
        return rc;
    *dir = rc;
    return KIST_OK;
}

static int env_init(struct bank_env *env, const kist_store_options *o)
{
    struct os_stat st;
    bool local;
    int rc = os_stat(env->dir, &st);

    if (rc == 0)
        rc = os_is_local(env->dir, &local);
    if (rc < 0)
        return rc;
    if (!local && !(o->flags & KIST_STORE_ANY_FS))
        return KIST_ENETFS;
    env->uid = st.uid;
    env->gid = st.gid;
    env->readonly = o->flags & KIST_STORE_READONLY;
    env->file_mode = o->file_mode ? o->file_mode : 0600;
    env->dir_mode = o->dir_mode ? o->dir_mode : 0700;
    env->log = o->log;
    env->log_arg = o->log_arg;
    if (o->flags & KIST_STORE_MEMORY)
        env->file_mode &= ~0111u; /* such files are sealed against being executed */
    rc = store_read(env->dir);
    if (rc == KIST_ENOSTORE && (o->flags & (KIST_STORE_CREATE | KIST_STORE_MEMORY))) {
        rc = store_write(env);
        if (rc == 0 || rc == -EEXIST)
            rc = store_read(env->dir);
    }
    return rc;
}

static int watch_forks(kist_store *s)
{
    size_t page = os_page_size();
    void *p;
    int rc = os_map(&p, NULL, page, OS_PROT_READ | OS_PROT_WRITE, OS_MAP_ANON, -1, 0);

    if (rc < 0)
        return rc;
    s->alive = p;
    *s->alive = 1;
    return os_advise(p, page, OS_ADVISE_WIPEONFORK);
}

static void store_free(kist_store *s)
{
    if (s->alive)
        (void)os_unmap(s->alive, os_page_size());
    if (s->env.dir >= 0)
        (void)os_close(s->env.dir);
    os_free(s);
}

static int check_path(const char *path, uint32_t flags)
{
    bool memory = flags & KIST_STORE_MEMORY;

    if (memory == !path && (memory || *path != '\0'))
        return KIST_OK;
    return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                   memory ? "a store in memory (KIST_STORE_MEMORY) has no path: it must be NULL"
                          : "the store's path is empty");
}

int kist_store_open(kist_store **out, const char *path, const kist_store_options *opt)
{
    kist_store_options o;
    kist_store *s;
    uint64_t files = os_max_files() / FILES_A_BANK;
    int rc = options_take(&o, sizeof o, opt, "kist_store_options");

    *out = NULL;
    if (rc == KIST_OK)
        rc = store_options_check(&o);
    if (rc < 0)
        return rc;
    rc = check_path(path, o.flags);
    if (rc < 0)
        return rc;
    s = thread_self() ? os_alloc(sizeof *s) : NULL;
    if (!s)
        return KIST_ENOMEM;
    s->env.dir = -1;
    rc = open_directory(path, &o, &s->env.dir);
    if (rc == KIST_OK)
        rc = env_init(&s->env, &o);
    if (rc == KIST_OK)
        rc = watch_forks(s);
    if (rc < 0) {
        store_free(s);
        rc = err_system(rc);
        return err_set(rc, NULL, STORE_FILE, ERR_NOWHERE, "store '%.150s': %s",
                       path ? path : "in memory", store_advice(rc));
    }
    os_mutex_init(&s->lock);
    s->references = 1;
    s->env.forked = s->alive;
    s->env.make_room = store_make_room;
    s->env.arg = s;
    s->max_open = o.max_open_banks            ? o.max_open_banks
                  : files < OPEN_BANKS_LEAST ? OPEN_BANKS_LEAST
                  : files < OPEN_BANKS_MOST  ? (uint32_t)files
                                             : OPEN_BANKS_MOST;
    *out = s;
    return KIST_OK;
}

void store_unref(kist_store *s)
{
    bool last = --s->references == 0;

    store_unlock(s);
    if (last)
        store_free(s);
}

int kist_store_close(kist_store *s)
{
    int rc = KIST_OK, err;

    if (!s)
        return KIST_OK;
    if (*s->alive)
        ticker_stop(s);
    store_lock(s);
    for (struct bank *b = s->banks; b; b = b->next) {
        atomic_store_explicit(&b->closed, 1, memory_order_release);
        if (!*s->alive) {
            core_install(b, NULL);
            continue;
        }
        os_mutex_lock(&b->writing);
        os_mutex_lock(&b->opening);
        err = bank_shut(b);
        rc = rc < 0 ? rc : err;
        os_mutex_unlock(&b->opening);
        os_mutex_unlock(&b->writing);
    }
    store_unref(s);
    return rc;
}
