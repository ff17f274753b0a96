/* log.c - one large reservation of shared memory, filled from the front. */
#include "seam/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { EVENTS_MAX = 4 << 20, NODES_MAX = 1 << 17 };
#define BYTES_MAX (UINT64_C(512) << 20)

struct node {
    struct log_id real, seen;
};

/* Reserved whole; pages come as they are touched. */
struct log {
    atomic_flag lock;
    _Atomic uint64_t count;
    uint64_t used; /* of bytes */
    _Atomic uint32_t nodes;
    struct node node[NODES_MAX];
    struct log_event event[EVENTS_MAX];
    uint8_t bytes[BYTES_MAX];
};

static _Noreturn void give_up(const char *why)
{
    (void)fprintf(stderr, "seam/log: %s\n", why);
    abort();
}

struct log *log_new(void)
{
    struct log *log = mmap(NULL, sizeof *log, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (log == MAP_FAILED)
        give_up("no address space");
    return log;
}

void log_free(struct log *log)
{
    if (log)
        (void)munmap(log, sizeof *log);
}

void log_reset(struct log *log)
{
    atomic_store(&log->count, 0);
    atomic_store(&log->nodes, 0);
    log->used = 0;
}

uint64_t log_count(const struct log *log)
{
    return atomic_load(&log->count);
}

const struct log_event *log_event(const struct log *log, uint64_t index)
{
    return &log->event[index];
}

const void *log_bytes(const struct log *log, const struct log_event *e)
{
    return log->bytes + e->data;
}

const char *log_name(const struct log *log, const struct log_event *e, int which)
{
    const char *name = (const char *)log->bytes + e->data;

    return which ? name + strlen(name) + 1 : name;
}

const char *log_kind_name(enum log_kind kind)
{
    static const char *const names[] = {
        "store",  "write",  "size",  "create", "mkdir",       "link",
        "rename", "unlink", "rmdir", "sync",   "sync failed",
    };

    return names[kind];
}

const char *log_node_name(const struct log *log, uint32_t node, uint64_t end)
{
    for (uint64_t i = end; i-- > 0;) {
        const struct log_event *e = &log->event[i];

        if (e->node == node && (e->kind == LOG_CREATE || e->kind == LOG_MKDIR ||
                                e->kind == LOG_LINK || e->kind == LOG_RENAME))
            return log_name(log, e, e->kind == LOG_RENAME);
    }
    return ".";
}

void log_print(const struct log *log, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to && i < log_count(log); i++) {
        const struct log_event *e = &log->event[i];
        bool bytes = e->kind == LOG_STORE || e->kind == LOG_WRITE;
        uint64_t first = 0;

        if (bytes)
            memcpy(&first, log_bytes(log, e), e->len < 8 ? e->len : 8);
        (void)fprintf(stderr, "%6llu %-11s %-24s", (unsigned long long)i, log_kind_name(e->kind),
                      log_node_name(log, e->node, i + 1));
        if (bytes)
            (void)fprintf(stderr, " %llu + %u: %llx", (unsigned long long)e->off, e->len,
                          (unsigned long long)first);
        else if (e->kind == LOG_SIZE)
            (void)fprintf(stderr, " %llu", (unsigned long long)e->off);
        (void)fprintf(stderr, "\n");
    }
}

static void lock(struct log *log)
{
    while (atomic_flag_test_and_set_explicit(&log->lock, memory_order_acquire))
        ;
}

static void unlock(struct log *log)
{
    atomic_flag_clear_explicit(&log->lock, memory_order_release);
}

/* Room for `len` bytes, in pieces that end on 8. */
static uint64_t take(struct log *log, size_t len)
{
    uint64_t at = log->used;

    if (at + len + 8 > BYTES_MAX || log_count(log) == EVENTS_MAX)
        give_up("the log is full");
    log->used = (at + len + 7) & ~UINT64_C(7);
    return at;
}

static uint64_t append(struct log *log, struct log_event e)
{
    uint64_t index = log_count(log);

    log->event[index] = e;
    atomic_store(&log->count, index + 1);
    return index;
}

uint64_t log_add_bytes(struct log *log, enum log_kind kind, uint32_t node, uint64_t off,
                       const void *data, size_t len)
{
    struct log_event e = { .kind = (uint8_t)kind, .node = node, .off = off, .len = (uint32_t)len };
    uint64_t index;

    lock(log);
    e.data = take(log, len);
    if (len > 0)
        memcpy(log->bytes + e.data, data, len);
    index = append(log, e);
    unlock(log);
    return index;
}

uint64_t log_add_names(struct log *log, enum log_kind kind, uint32_t node, uint32_t dir,
                       const char *name, uint32_t dir2, const char *name2)
{
    size_t n = strlen(name) + 1, n2 = strlen(name2) + 1;
    struct log_event e = {
        .kind = (uint8_t)kind, .node = node, .dir = dir, .off = dir2, .len = (uint32_t)(n + n2)
    };
    uint64_t index;

    lock(log);
    e.data = take(log, n + n2);
    memcpy(log->bytes + e.data, name, n);
    memcpy(log->bytes + e.data + n, name2, n2);
    index = append(log, e);
    unlock(log);
    return index;
}

/* ---- nodes ------------------------------------------------------------ */

uint32_t log_nodes(const struct log *log)
{
    return atomic_load(&log->nodes);
}

uint32_t log_node_new(struct log *log, struct log_id real, struct log_id seen)
{
    uint32_t n;

    lock(log);
    n = log_nodes(log);
    if (n == NODES_MAX)
        give_up("too many files");
    log->node[n] = (struct node){ real, seen };
    atomic_store(&log->nodes, n + 1);
    unlock(log);
    return n;
}

int64_t log_node_find(const struct log *log, struct log_id real)
{
    for (int64_t n = (int64_t)log_nodes(log) - 1; n >= 0; n--)
        if (log->node[n].real.ino == real.ino && log->node[n].real.dev == real.dev)
            return n;
    return LOG_NONE;
}

struct log_id log_node_seen(const struct log *log, uint32_t node)
{
    return log->node[node].seen;
}
