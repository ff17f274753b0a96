/*
 * device.c - ready-made devices: files and block devices by pread or by a
 * memory map, and plain memory.
 *
 * A map is made with room to grow in (base/map.h), and laid over what was
 * appended to the file when somebody asks for it. Where the room does not
 * suffice a new map is made, of twice as much, and the old one is kept: pages
 * of it may be lent. So there are few.
 */
#include "pages/cache.h"

#include "base/err.h"
#include "base/map.h"

#include <errno.h>
#include <string.h>

enum { MAPS_MAX = 40 };
#define MAP_ROOM (UINT64_C(1) << 30) /* address space for files to grow in, at least */

/* What arg leads to. The newest map is the one that counts; `len` says how
 * much of it. They are read without the lock, the map after the number. */
struct backing {
    int fd; /* -1: memory */
    uint8_t *memory;
    uint64_t memory_len;

    os_mutex lock; /* who lets the map grow; memory that can be written */
    struct map maps[MAPS_MAX];
    _Atomic uint32_t newest;
    _Atomic uint64_t len;
};

/* ---- pread, pwritev --------------------------------------------------- */

static int64_t file_read(void *arg, uint64_t pos, void *buf, size_t len)
{
    const struct backing *b = arg;
    size_t done = 0;

    while (done < len) {
        int64_t n = os_pread(b->fd, (char *)buf + done, len - done, pos + done);

        if (n == 0 || (n == -EINVAL && done > 0)) /* O_DIRECT, behind an odd end */
            break;
        if (n < 0)
            return n;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int file_writev(void *arg, uint64_t pos, const kist_bytes *pieces, size_t n)
{
    const struct backing *b = arg;

    return err_system(os_writev_all(b->fd, pieces, n, pos));
}

static int file_sync(void *arg)
{
    const struct backing *b = arg;

    return os_fdatasync(b->fd);
}

static int file_length(void *arg, uint64_t *bytes)
{
    const struct backing *b = arg;

    return os_length(b->fd, bytes);
}

/* ---- maps ------------------------------------------------------------- */

static int new_map(struct backing *b, uint64_t len)
{
    uint32_t next = atomic_load_explicit(&b->newest, memory_order_relaxed) + (b->maps[0].base != 0);
    uint64_t room = 2 * len > len + MAP_ROOM ? 2 * len : len + MAP_ROOM;
    int rc;

    if (next == MAPS_MAX)
        return -ENOMEM;
    rc = map_file(&b->maps[next], b->fd, len, room, OS_PROT_READ);
    if (rc == 0)
        atomic_store_explicit(&b->newest, next, memory_order_release); /* with mapped() */
    return rc;
}

/* Cover what the file has now. */
static int follow(struct backing *b)
{
    struct map *m = &b->maps[atomic_load_explicit(&b->newest, memory_order_relaxed)];
    uint64_t len;
    int rc = os_length(b->fd, &len);

    if (rc < 0 || len <= m->len || len > PAGES_END)
        return rc;
    rc = m->base ? map_grow(m, b->fd, len) : -ENOMEM;
    if (rc == -ENOMEM)
        rc = new_map(b, len);
    if (rc == 0)
        atomic_store_explicit(&b->len, len, memory_order_release); /* with mapped() */
    return rc;
}

/* The bytes at `pos`, how many there are, at most `len`. */
static int64_t mapped(struct backing *b, uint64_t pos, size_t len, const uint8_t **data)
{
    uint64_t have = atomic_load_explicit(&b->len, memory_order_acquire); /* follow() */

    if (pos >= have || have - pos < len) {
        int rc;

        os_mutex_lock(&b->lock);
        rc = follow(b);
        os_mutex_unlock(&b->lock);
        if (rc < 0)
            return rc;
        have = atomic_load_explicit(&b->len, memory_order_acquire);
    }
    if (pos >= have)
        return 0;
    *data = b->maps[atomic_load_explicit(&b->newest, memory_order_acquire)].base + pos;
    return (int64_t)(have - pos < len ? have - pos : len);
}

static int64_t map_lend(void *arg, uint64_t pos, size_t len, const void **data)
{
    const uint8_t *at = NULL;
    int64_t n = mapped(arg, pos, len, &at);

    if (n > 0)
        *data = at;
    return n;
}

/* Aligned outwards: madvise() wants whole pages of the system. */
static void map_ahead(void *arg, uint64_t pos, uint64_t len)
{
    uint64_t page = os_page_size(), from = pos / page * page;
    const uint8_t *at = NULL;
    int64_t n = mapped(arg, from, (size_t)(len + (pos - from)), &at);

    if (n > 0)
        (void)os_advise((void *)(uintptr_t)at, (size_t)n, OS_ADVISE_WILLNEED);
}

/*
 * How many of the `n` bytes copied from `pos` on the file has. Cut short within
 * a page of the system, it has zeros there up to the page's end, and raises no
 * signal: so where the page's last byte is zero, its length is asked for.
 */
static int64_t still_there(struct backing *b, uint64_t pos, const uint8_t *from, int64_t n)
{
    uint64_t page = os_page_size(), end = pos + (uint64_t)n, len;
    uint8_t last = 0;
    int rc;

    if (os_fault_copy(&last, from + n + (page - end % page) % page - 1, 1) == 0 && last != 0)
        return n;
    rc = os_length(b->fd, &len);
    if (rc < 0 || len >= end)
        return rc < 0 ? rc : n;
    return len > pos ? (int64_t)(len - pos) : 0;
}

/* What the guard caught is asked for again, by a call that tells why: the file
 * has become shorter, or its medium fails. */
static int64_t guarded_read(void *arg, uint64_t pos, void *buf, size_t len)
{
    const uint8_t *at = NULL;
    int64_t n = mapped(arg, pos, len, &at);

    if (n <= 0)
        return n;
    if (os_fault_copy(buf, at, (size_t)n) == 0)
        return still_there(arg, pos, at, n);
    return file_read(arg, pos, buf, len);
}

/* ---- memory ----------------------------------------------------------- */

static int64_t memory_lend(void *arg, uint64_t pos, size_t len, const void **data)
{
    const struct backing *b = arg;

    if (pos >= b->memory_len)
        return 0;
    *data = b->memory + pos;
    return (int64_t)(b->memory_len - pos < len ? b->memory_len - pos : len);
}

/* Under the lock, since another thread may be writing. */
static int64_t memory_read(void *arg, uint64_t pos, void *buf, size_t len)
{
    struct backing *b = arg;
    const void *data;
    int64_t n = memory_lend(arg, pos, len, &data);

    if (n > 0) {
        os_mutex_lock(&b->lock);
        memcpy(buf, data, (size_t)n);
        os_mutex_unlock(&b->lock);
    }
    return n;
}

static int memory_writev(void *arg, uint64_t pos, const kist_bytes *pieces, size_t n)
{
    struct backing *b = arg;
    uint64_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += pieces[i].len;
    if (pos > b->memory_len || total > b->memory_len - pos)
        return -ENOSPC;
    os_mutex_lock(&b->lock);
    for (size_t i = 0; i < n; i++) {
        memcpy(b->memory + pos, pieces[i].data, pieces[i].len);
        pos += pieces[i].len;
    }
    os_mutex_unlock(&b->lock);
    return 0;
}

static int memory_sync(void *arg)
{
    (void)arg;
    return 0;
}

static int memory_length(void *arg, uint64_t *bytes)
{
    const struct backing *b = arg;

    *bytes = b->memory_len;
    return 0;
}

/* ---- making them ------------------------------------------------------ */

static int backing_new(kist_device *out, struct backing **b)
{
    *out = (kist_device){ .size = sizeof *out };
    *b = os_alloc(sizeof **b);
    if (!*b)
        return err_set(KIST_ENOMEM, NULL, NULL, ERR_NOWHERE, "no memory for a device");
    os_mutex_init(&(*b)->lock);
    return KIST_OK;
}

int kist_device_memory(kist_device *out, void *data, uint64_t len, bool writable)
{
    bool lends = (uintptr_t)data % 16 == 0 && !writable;
    struct backing *b;
    int rc = backing_new(out, &b);

    if (rc != KIST_OK)
        return rc;
    b->fd = -1;
    b->memory = data;
    b->memory_len = len;
    *out = (kist_device){
        .size = sizeof *out,
        .arg = b,
        .map = lends ? NULL : memory_read,
        .lend = lends ? memory_lend : NULL,
        .writev = writable ? memory_writev : NULL,
        .sync = writable ? memory_sync : NULL,
        .length = memory_length,
    };
    return KIST_OK;
}

static int file_open(struct backing *b, uint32_t kind)
{
    uint64_t len;
    int rc = os_length(b->fd, &len);

    if (rc < 0)
        return rc == -EINVAL ? err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                                       "neither a regular file nor a block device")
                             : err_os(rc, NULL, NULL, "learn the length of the device");
    if (kind == KIST_DEVICE_PREAD)
        return KIST_OK;
    rc = kind == KIST_DEVICE_GUARDED ? os_fault_guard() : 0;
    if (rc < 0)
        return err_os(rc, NULL, NULL, "install the guard against SIGBUS");
    rc = follow(b);
    return rc < 0 ? err_os(rc, NULL, NULL, "map the device") : KIST_OK;
}

int kist_device_open(kist_device *out, int fd, uint32_t kind)
{
    struct backing *b;
    int rc = backing_new(out, &b);

    if (rc != KIST_OK)
        return rc;
    b->fd = fd;
    if (kind < KIST_DEVICE_PREAD || kind > KIST_DEVICE_MMAP)
        rc = err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE, "no kind of device has number %u", kind);
    else
        rc = file_open(b, kind);
    if (rc != KIST_OK) {
        os_free(b);
        return rc;
    }
    *out = (kist_device){
        .size = sizeof *out,
        .arg = b,
        .map = kind == KIST_DEVICE_PREAD     ? file_read
               : kind == KIST_DEVICE_GUARDED ? guarded_read
                                             : NULL,
        .lend = kind == KIST_DEVICE_MMAP ? map_lend : NULL,
        .ahead = kind == KIST_DEVICE_MMAP ? map_ahead : NULL,
        .writev = file_writev,
        .sync = file_sync,
        .length = file_length,
    };
    return KIST_OK;
}

void kist_device_close(kist_device *device)
{
    struct backing *b = device ? device->arg : NULL;

    if (!b)
        return;
    for (uint32_t i = 0; i < MAPS_MAX; i++)
        map_drop(&b->maps[i]);
    os_free(b);
    *device = (kist_device){ 0 };
}

int kist_device_length(const kist_device *device, uint64_t *bytes)
{
    int rc;

    if (!device->length)
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE, "the device can't tell its length");
    rc = device->length(device->arg, bytes);
    return rc < 0 ? err_os(rc, NULL, NULL, "learn the length of the device") : KIST_OK;
}
