/* faulty.c - see faulty.h. */
#include "seam/faulty.h"

#include "base/os.h"
#include "seam/disk.h"
#include "seam/record.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { PENDING_MAX = 64, PAGE = 4096 };

static struct log *log_of;
static struct faulty *plan;
static int64_t pending[PENDING_MAX]; /* files with an error to tell */
static int pending_count;
static struct os_table below;

static const char *made_as(uint32_t node)
{
    return log_node_name(log_of, node, log_count(log_of));
}

static bool is_heap(uint32_t node)
{
    return strncmp(made_as(node), "kist.heap", 9) == 0;
}

/* ---- what happens to the pages ---------------------------------------- */

static void revert_pages(int fd, uint32_t node)
{
    char path[64];
    struct disk *d = disk_new(log_of);
    const struct world_file *f;
    int own;

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    own = open(path, O_RDWR | O_CLOEXEC);
    must(own >= 0);
    disk_run(d, log_count(log_of));
    f = disk_synced(d, node);
    for (uint64_t at = 0; at < (uint64_t)lseek(own, 0, SEEK_END); at += PAGE) {
        uint8_t page[PAGE] = { 0 }, now[PAGE];

        if (at < f->filled)
            memcpy(page, f->bytes + at, f->filled - at < PAGE ? f->filled - at : PAGE);
        if (pread(own, now, PAGE, (off_t)at) == PAGE && memcmp(page, now, PAGE) != 0)
            must(os_pwrite(own, page, PAGE, at) == PAGE); /* through the recorder */
    }
    (void)close(own);
    disk_free(d);
}

/* ---- a sync that fails ------------------------------------------------ */

static bool take_pending(uint32_t node)
{
    for (int i = 0; i < pending_count; i++) {
        if (pending[i] == node) {
            pending[i] = pending[--pending_count];
            return true;
        }
    }
    return false;
}

static int on_sync(int fd, uint32_t node)
{
    if (take_pending(node))
        return -EIO;
    if (plan->failed || plan->fail_at < 0 || (plan->heap_only && !is_heap(node)))
        return 0;
    if (plan->syncs++ != plan->fail_at)
        return 0;
    if (plan->revert)
        revert_pages(fd, node);
    plan->failed = true;
    plan->events = 0;
    return -EIO;
}

/* The failed sync is itself the first event behind the failure. */
static void on_event(uint64_t index)
{
    (void)index;
    if (plan->failed && plan->die_after >= 0 && plan->events++ == plan->die_after)
        (void)kill(getpid(), SIGKILL);
}

/* ---- errors that wait for somebody to ask ----------------------------- */

/* The last holder gone, the kernel forgets the inode and its error. */
static void forget_unheld(void)
{
    for (int i = 0; i < pending_count; i++)
        if (record_holds((uint32_t)pending[i]) == 0)
            pending[i--] = pending[--pending_count];
}

static int on_close(int fd)
{
    int rc = below.close(fd);

    forget_unheld();
    return rc;
}

static int on_unmap(void *addr, size_t len)
{
    int rc = below.unmap(addr, len);

    forget_unheld();
    return rc;
}

static bool is_dirty(uint32_t node)
{
    bool dirty = false;

    for (uint64_t i = 0; i < log_count(log_of); i++) {
        const struct log_event *e = log_event(log_of, i);

        if (e->node != node)
            continue;
        if (e->kind == LOG_SYNC || e->kind == LOG_SYNC_FAILED)
            dirty = false;
        else if (e->kind == LOG_STORE || e->kind == LOG_WRITE)
            dirty = true;
    }
    return dirty;
}

int faulty_background(const char *name_part)
{
    int n = 0;

    for (uint32_t node = 0; node < log_nodes(log_of); node++) {
        if (!strstr(made_as(node), name_part) || !is_dirty(node))
            continue;
        must(pending_count < PENDING_MAX);
        pending[pending_count++] = node;
        (void)log_add_bytes(log_of, LOG_SYNC_FAILED, node, 0, NULL, 0);
        n++;
    }
    forget_unheld();
    return n;
}

void faulty_start(struct log *log, struct faulty *shared_plan)
{
    log_of = log;
    plan = shared_plan;
    *plan = (struct faulty){ .fail_at = -1, .die_after = -1 };
    pending_count = 0;
    record_sync = on_sync;
    record_after = on_event;
    below = os_seam;
    os_seam.close = on_close;
    os_seam.unmap = on_unmap;
}

void faulty_stop(void)
{
    if (!plan)
        return;
    plan = NULL;
    os_seam.close = below.close;
    os_seam.unmap = below.unmap;
    record_sync = NULL;
    record_after = NULL;
}
