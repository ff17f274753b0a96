/* banks.c - bank handles, and which banks are kept open; see store.h. */
#include "store/store.h"

#include "base/err.h"
#include "store/name.h"

#include <errno.h>
#include <string.h>

static int bank_options_check(const kist_bank_options *o)
{
    uint32_t s = o->segment_bytes;

    if (o->flags & ~(uint32_t)(KIST_BANK_CREATE | KIST_BANK_EXCLUSIVE | KIST_BANK_READONLY))
        return options_bad("flags");
    if ((o->flags & KIST_BANK_CREATE) && (o->flags & KIST_BANK_READONLY))
        return options_bad("flags (CREATE with READONLY)");
    if ((o->flags & KIST_BANK_EXCLUSIVE) && !(o->flags & KIST_BANK_CREATE))
        return options_bad("flags (EXCLUSIVE without CREATE)");
    if (o->index > KIST_INDEX_ORDERED)
        return options_bad("index");
    if (s != 0 && (s < 4096 || s > 1u << 30 || (s & (s - 1)) != 0))
        return options_bad("segment_bytes (a power of two, 4 KiB to 1 GiB)");
    if (o->expect_entries > UINT64_C(1) << 40)
        return options_bad("expect_entries");
    if (o->durability > KIST_DURABILITY_ALWAYS)
        return options_bad("durability");
    if (o->interval_ms > 3600000)
        return options_bad("interval_ms (at most 3,600,000)");
    if (o->verify > KIST_VERIFY_NEVER)
        return options_bad("verify");
    return o->deadline_ms < -1 ? options_bad("deadline_ms") : KIST_OK;
}

/* ---- keeping few banks open --------------------------------------------------- */

static bool is_open(const struct bank *b)
{
    return atomic_load_explicit(&b->core, memory_order_acquire) != NULL;
}

/* Close a bank's files; it opens again at its next call. Both locks held. */
int bank_shut(struct bank *b)
{
    struct core *c = atomic_load_explicit(&b->core, memory_order_acquire);
    int rc;

    if (!c)
        return KIST_OK;
    rc = core_close(c);
    core_install(b, NULL);
    return rc;
}

/* Not while somebody writes, syncs or opens it: then another one. */
static bool try_shut(struct bank *b)
{
    bool done = false;

    if (!os_mutex_try(&b->writing))
        return false;
    if (os_mutex_try(&b->opening)) {
        if (atomic_load_explicit(&b->syncing, memory_order_acquire) == 0) {
            int rc = bank_shut(b);

            if (rc < 0)
                bank_log(b, KIST_LOG_DAMAGE, NULL, ERR_NOWHERE, "closing idle bank '%s': %s",
                         b->name, kist_strerror(rc));
            done = true;
        }
        os_mutex_unlock(&b->opening);
    }
    os_mutex_unlock(&b->writing);
    return done;
}

/* A bank about to be opened calls this with its own `opening` held: so the
 * lock here is only tried, and its own is not met. Second chance, as CLOCK. */
void store_make_room(void *arg)
{
    kist_store *s = arg;
    uint32_t open = 0, looks = 0;

    if (!os_mutex_try(&s->lock))
        return;
    for (struct bank *b = s->banks; b; b = b->next) {
        open += is_open(b);
        looks += 2;
    }
    while (open >= s->max_open && looks-- > 0) {
        struct bank *b = s->hand ? s->hand : s->banks;

        s->hand = b->next;
        if (!is_open(b))
            continue;
        if (!bank_was_used(b) && try_shut(b))
            open--;
    }
    store_unlock(s);
}

/* ---- bank directories ------------------------------------------------------------- */

int make_directories_failed(const char *name, int rc)
{
    if (rc == -ELOOP || rc == -ENOTDIR || rc == -ENXIO || rc == -EXDEV || rc == -EEXIST)
        return err_set(KIST_EPATH, name, NULL, ERR_NOWHERE,
                       "a symlink or something that is no directory is in the way of bank '%s'",
                       name);
    return err_os(rc, name, NULL, "make the bank's directory");
}

int make_directories(const struct bank_env *env, const char *name)
{
    char part[256];
    int at = env->dir, rc = 0;

    while (*name && rc >= 0) {
        size_t n = strcspn(name, "/");
        int next;

        memcpy(part, name, n);
        part[n] = '\0';
        next = os_open_under(at, part, OS_READ | OS_DIR, 0);
        if (next == -ENOENT) {
            rc = os_mkdir(at, part, env->dir_mode);
            if (rc == -EEXIST)
                rc = 0;
            next = rc < 0 ? rc : os_open_under(at, part, OS_READ | OS_DIR, 0);
            if (next >= 0) {
                rc = os_own(next, env->uid, env->gid, env->dir_mode);
                if (rc == 0)
                    rc = os_fsync(at);
            }
        }
        if (at != env->dir)
            (void)os_close(at);
        if (next < 0)
            return next;
        at = next;
        name += n + (name[n] == '/');
    }
    if (rc < 0) {
        (void)os_close(at);
        return rc;
    }
    return at;
}

/* The directories of a bank that could not be made: empty ones only. */
static void remove_empty(const struct bank *b)
{
    char name[BANK_NAME_MAX + 1];
    char *slash;

    memcpy(name, b->name, sizeof name);
    while (os_rmdir(b->env->dir, name) == 0 && (slash = strrchr(name, '/')) != NULL)
        *slash = '\0';
}

static int exists_already(const struct bank *b)
{
    return bank_err(b, KIST_EBANKEXISTS, NULL, ERR_NOWHERE, "bank '%s' exists already", b->name);
}

/* Create the bank if it is missing. */
static int create(struct bank *b, const kist_bank_options *o)
{
    struct guarded lock = { .fd = -1 };
    int dir, rc;

    if (b->env->readonly)
        return bank_err(b, KIST_EREADONLY, NULL, ERR_NOWHERE, "the store was opened read-only");
    dir = make_directories(b->env, b->name);
    if (dir < 0) {
        remove_empty(b);
        return make_directories_failed(b->name, dir);
    }
    (void)os_close(dir);
    dir = bank_open_guarded(b, &lock, NULL, 0); /* by its name: where the files go is what is locked */
    rc = dir < 0 ? dir : os_flock(dir, OS_LOCK_EXCLUSIVE);
    if (rc == 0) {
        b->set = (struct bank_settings){
            .index = o->index ? o->index : KIST_INDEX_HASH,
            .segment_bytes = o->segment_bytes ? o->segment_bytes : 64u << 20,
            .durability = o->durability ? o->durability : KIST_DURABILITY_NONE,
            .interval_ms = o->interval_ms ? o->interval_ms : 1000,
            .verify = o->verify ? o->verify : KIST_VERIFY_FIRST,
            .expect_entries = o->expect_entries,
        };
        rc = bank_create_files(b, dir);
        b->set = (struct bank_settings){ 0 };
    }
    thread_guard_close(&lock); /* lets go of the flock */
    if (rc < 0 && rc != -EEXIST)
        remove_empty(b);
    if (rc == -EEXIST)
        return o->flags & KIST_BANK_EXCLUSIVE ? exists_already(b) : KIST_OK;
    return rc < 0 ? err_os(rc, b->name, BANK_FILE, "create the bank") : KIST_OK;
}

/* ---- bank handles ------------------------------------------------------------------ */

static struct bank *find_bank(const kist_store *s, const char *name)
{
    struct bank *b = s->banks;

    while (b && (strcmp(b->name, name) != 0 || b->gone))
        b = b->next;
    return b;
}

static struct bank *bank_new(kist_store *s, const char *name)
{
    struct bank *b = os_alloc(sizeof *b);

    if (!b)
        return NULL;
    os_mutex_init(&b->writing);
    os_mutex_init(&b->opening);
    os_mutex_init(&b->pins.lock);
    b->env = &s->env;
    memcpy(b->name, name, strlen(name) + 1);
    return b;
}

static void bank_free(struct bank *b)
{
    core_install(b, NULL);
    os_free(b);
}

/* A bank that has no handle yet. Missing: KIST_ENOBANK, or created. */
static int make_sure(struct bank *b, const kist_bank_options *o)
{
    int rc = bank_read_settings(b);

    if (rc == KIST_OK && (o->flags & KIST_BANK_EXCLUSIVE))
        return exists_already(b);
    if (rc != KIST_ENOBANK || !(o->flags & KIST_BANK_CREATE))
        return rc;
    rc = create(b, o);
    return rc < 0 ? rc : bank_read_settings(b);
}

static void handle_init(kist_bank *h, kist_store *s, struct bank *b, const kist_bank_options *o)
{
    *h = (kist_bank){
        .bank = b,
        .forked = s->alive,
        .readonly = s->env.readonly || (o->flags & KIST_BANK_READONLY),
        .verify = o->verify ? o->verify : b->set.verify,
        .durability = o->durability ? o->durability : b->set.durability,
        .deadline_ms = o->deadline_ms ? o->deadline_ms : 10000,
        .at = SEQUENCE_NOW,
        .store = s,
    };
}

/* With `lock` held: the bank of this name, with one more handle. */
static int attach(kist_store *s, const char *name, const kist_bank_options *o, kist_bank *h)
{
    struct bank *b = find_bank(s, name), *made = NULL;
    int rc = b ? bank_read_settings(b) : KIST_ENOBANK;

    if (rc == KIST_OK && (o->flags & KIST_BANK_EXCLUSIVE))
        return exists_already(b);
    if (b && (rc == KIST_EGONE || rc == KIST_ENOBANK)) { /* dropped: its handles say so */
        b->gone = true;
        b = NULL;
    }
    if (!b) {
        b = made = bank_new(s, name);
        rc = made ? make_sure(made, o) : KIST_ENOMEM;
    }
    if (rc < 0) {
        os_free(made);
        return rc;
    }
    handle_init(h, s, b, o);
    if (made) {
        made->next = s->banks;
        s->banks = made;
    }
    b->handles++;
    atomic_fetch_add_explicit(&b->writers, !h->readonly, memory_order_relaxed);
    s->references++;
    if (!h->readonly && h->durability == KIST_DURABILITY_INTERVAL) {
        b->interval_ms = o->interval_ms ? o->interval_ms : b->set.interval_ms;
        rc = ticker_start(s);
    }
    return rc;
}

static void unlist(kist_store *s, const struct bank *b)
{
    struct bank **at = &s->banks;

    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    if (s->hand == b)
        s->hand = b->next;
}

int bank_let_go(kist_store *s, struct bank *b)
{
    int rc = KIST_OK;
    bool last;

    store_lock(s);
    last = --b->handles == 0;
    if (last)
        unlist(s, b);
    store_unlock(s);
    if (last) {
        if (*s->alive)
            rc = bank_shut(b);
        bank_free(b);
    }
    return rc;
}

static int detach(kist_bank *h)
{
    kist_store *s = h->store;
    int rc;

    store_lock(s);
    atomic_fetch_sub_explicit(&h->bank->writers, !h->readonly, memory_order_relaxed);
    store_unlock(s);
    rc = bank_let_go(s, h->bank);
    store_lock(s);
    store_unref(s);
    return rc;
}

static int check_alive(const kist_store *s, const char *name)
{
    if (*s->alive)
        return KIST_OK;
    return err_set(KIST_EFORK, name, NULL, ERR_NOWHERE,
                   "the store was opened before fork; open it again in the child");
}

int handle_make(kist_bank **out, kist_store *s, const char *name, const kist_bank_options *o)
{
    kist_bank *h;
    int rc = name_check(name);

    if (rc == KIST_OK)
        rc = check_alive(s, name);
    if (rc < 0)
        return rc;
    h = os_alloc(sizeof *h);
    if (!h)
        return KIST_ENOMEM;
    store_lock(s);
    rc = attach(s, name, o, h);
    store_unlock(s);
    if (rc < 0) {
        if (h->bank)
            (void)detach(h);
        os_free(h);
        return rc;
    }
    *out = h;
    return KIST_OK;
}

int kist_bank_open(kist_bank **out, kist_store *s, const char *name, const kist_bank_options *opt)
{
    kist_bank_options o;
    struct core *c;
    kist_bank *h = NULL;
    int rc = options_take(&o, sizeof o, opt, "kist_bank_options");

    *out = NULL;
    if (rc == KIST_OK)
        rc = bank_options_check(&o);
    if (rc == KIST_OK)
        rc = handle_make(&h, s, name, &o);
    if (rc == KIST_OK)
        rc = kist_read_begin();
    if (rc == KIST_OK) {
        /* The slow way: a core opened read-only may have to be opened anew. */
        rc = core_enter_slow(h, &c);
        kist_read_end();
    }
    if (rc < 0) {
        (void)kist_bank_close(h);
        return rc == KIST_EGONE ? KIST_ENOBANK : rc;
    }
    *out = h;
    return KIST_OK;
}

int kist_bank_close(kist_bank *h)
{
    int rc;

    if (!h)
        return KIST_OK;
    snapshot_release(h->snapshot);
    rc = detach(h);
    os_free(h);
    return rc;
}

/* A handle beside `of`, which sees the moment that `snap` holds. */
static kist_bank *snapshot_handle(const kist_bank *of, struct snapshot *snap)
{
    static const uint32_t no_short_way = 0;
    kist_bank *h = os_alloc(sizeof *h);

    if (!h)
        return NULL;
    *h = *of;
    h->forked = &no_short_way;
    h->readonly = true;
    h->at = snap->at;
    h->snapshot = snap;
    store_lock(h->store);
    h->bank->handles++;
    h->store->references++;
    store_unlock(h->store);
    return h;
}

/* The same moment once more, if it can still be seen. */
static int share(kist_bank *h, struct snapshot **snap)
{
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = core_enter_to_read(h, &c);
    kist_read_end();
    return rc == KIST_OK ? snapshot_share(h->snapshot, snap) : rc;
}

int kist_snapshot_open(kist_bank **out, kist_bank *h)
{
    struct snapshot *snap = NULL;
    int rc = h->snapshot ? share(h, &snap) : snapshot_take(h, &snap);

    *out = NULL;
    if (rc != KIST_OK)
        return rc;
    *out = snapshot_handle(h, snap);
    if (*out)
        return KIST_OK;
    snapshot_release(snap);
    return KIST_ENOMEM;
}

int kist_bank_drop(kist_store *s, const char *name)
{
    static const kist_bank_options defaults = { .size = sizeof defaults };
    kist_bank *h = NULL;
    int rc = handle_make(&h, s, name, &defaults);

    if (rc == KIST_OK)
        rc = bank_drop(h);
    if (h)
        (void)kist_bank_close(h);
    return rc;
}

int kist_repair(kist_store *s, const char *name, kist_report *report, kist_progress progress,
                void *arg)
{
    static const kist_bank_options defaults = { .size = sizeof defaults };
    kist_report found = { .size = sizeof found };
    struct rebuild how = { .report = &found, .progress = progress, .progress_arg = arg };
    kist_bank *h = NULL;
    int rc;

    if (report && report->size < sizeof *report)
        return err_set(KIST_EINVAL, name, NULL, ERR_NOWHERE,
                       "kist_report.size is not set to sizeof(kist_report)");
    rc = handle_make(&h, s, name, &defaults);
    if (rc == KIST_OK && h->readonly)
        rc = err_set(KIST_EREADONLY, name, NULL, ERR_NOWHERE, "the store was opened read-only");
    if (rc == KIST_OK)
        rc = bank_repair(h->bank, h->deadline_ms, &how);
    if (h)
        (void)kist_bank_close(h);
    if (rc == KIST_OK && report)
        *report = found;
    return rc;
}

int kist_bank_list(kist_store *s, const char *prefix, int (*each)(const char *name, void *arg),
                   void *arg)
{
    int rc = check_alive(s, NULL);

    return rc < 0 ? rc : name_list(s->env.dir, prefix, each, arg);
}
