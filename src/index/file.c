/* file.c - making, opening and growing the file of an index. */
#include "index/file.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/os.h"
#include "kist/kist.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char magic[8] = { 'K', 'I', 'S', 'T', 'I', 'N', 'D', 'X' };

enum { RESERVE_TIMES = 64 };
#define RESERVE_LEAST ((size_t)1 << 30)

void index_name(char out[INDEX_NAME_MAX], uint64_t generation)
{
    (void)snprintf(out, INDEX_NAME_MAX, "kist.index.%llu", (unsigned long long)generation);
}

void index_file_init(struct index_file *f, const struct index_kind *k, uint64_t generation)
{
    f->generation = generation;
    f->kind = k->kind;
    atomic_store_explicit(&f->root_ok, UINT64_MAX, memory_order_relaxed); /* no root's word */
    atomic_store_explicit(&f->refs, 1, memory_order_relaxed);
    f->fd = -1;
    os_mutex_init(&f->growing);
}

static size_t room_to_grow(size_t len)
{
    return len * RESERVE_TIMES > RESERVE_LEAST ? len * RESERVE_TIMES : RESERVE_LEAST;
}

/* A large index ends on a border of large pages, and is written there, so that
 * a search misses the TLB once less. */
size_t index_round(size_t len)
{
    return len < INDEX_LARGE ? len : (len + OS_LARGE_PAGE - 1) / OS_LARGE_PAGE * OS_LARGE_PAGE;
}

static int allocate(int fd, size_t from, size_t to)
{
    int rc = os_allocate(fd, from, to - from);

    if (rc == 0 && to >= INDEX_LARGE && to - from <= INDEX_WRITTEN_MOST)
        (void)os_write_zeros(fd, to - from, from); /* only saves time */
    return rc;
}

/* ---- making ----------------------------------------------------------- */

static void file_mapped(struct index_file *f)
{
    f->base = f->map.base;
    atomic_store_explicit(&f->len, f->map.len, memory_order_release);
}

static uint64_t head_sum(const struct index_head *h)
{
    return hash_bytes(h, offsetof(struct index_head, checksum));
}

static void write_head(struct index_file *f, const struct index_kind *k, const uint8_t bank_id[16])
{
    struct index_head h = { .format = k->format, .kind = k->kind, .generation = f->generation };

    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.bank_id, bank_id, sizeof h.bank_id);
    h.checksum = head_sum(&h);
    shm_copy(f->base, &h, sizeof h);
}

int index_file_create(struct index_file *f, int dir, uint32_t mode, const struct index_kind *k,
                      const uint8_t bank_id[16], size_t len)
{
    char name[INDEX_NAME_MAX];
    int rc;

    index_name(name, f->generation);
    (void)os_unlink(dir, name);
    rc = f->fd = os_open_under(dir, name, OS_WRITE | OS_CREATE, mode);
    if (rc < 0)
        return rc;
    rc = allocate(f->fd, 0, len);
    if (rc == 0)
        rc = map_file(&f->map, f->fd, len, room_to_grow(len), OS_PROT_READ | OS_PROT_WRITE);
    if (rc < 0) {
        (void)os_unlink(dir, name);
        return rc;
    }
    file_mapped(f);
    write_head(f, k, bank_id);
    return KIST_OK;
}

int index_file_create_private(struct index_file *f, const struct index_kind *k,
                              const uint8_t bank_id[16], size_t len)
{
    int rc = map_memory(&f->map, len, room_to_grow(len));

    if (rc < 0)
        return rc;
    file_mapped(f);
    write_head(f, k, bank_id);
    return KIST_OK;
}

/* ---- opening ---------------------------------------------------------- */

static int head_check(const struct index_file *f, const struct index_kind *k,
                      const uint8_t bank_id[16])
{
    struct index_head h;

    memcpy(&h, f->base, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.checksum != head_sum(&h))
        return KIST_ECORRUPT;
    if (h.format > k->format)
        return KIST_ENEWER;
    return h.kind == k->kind && h.generation == f->generation &&
                   memcmp(h.bank_id, bank_id, sizeof h.bank_id) == 0
               ? KIST_OK
               : KIST_EFORMAT;
}

int index_file_open(struct index_file *f, int fd, const struct index_kind *k,
                    const uint8_t bank_id[16], bool writable)
{
    struct os_stat st;
    size_t len;
    int rc;

    f->fd = fd;
    rc = os_stat(fd, &st);
    if (rc < 0)
        return rc;
    if (st.kind != OS_FILE_REGULAR || st.size < INDEX_PAGE)
        return KIST_ECORRUPT;
    len = (size_t)(st.size / INDEX_PAGE * INDEX_PAGE);
    rc = map_file(&f->map, fd, len, room_to_grow(len),
                  OS_PROT_READ | (writable ? OS_PROT_WRITE : 0));
    if (rc < 0)
        return rc;
    file_mapped(f);
    return head_check(f, k, bank_id);
}

void index_file_close(struct index_file *f)
{
    map_drop(&f->map);
    if (f->fd >= 0)
        (void)os_close(f->fd);
    f->fd = -1;
}

int index_file_sync(struct index_file *f)
{
    return f->fd < 0 ? 0 : os_fdatasync(f->fd);
}

/* ---- growing ---------------------------------------------------------- */

/* Map `len` bytes of the file, or more if another thread was faster. */
static int map_more(struct index_file *f, size_t len)
{
    int rc;

    os_mutex_lock(&f->growing);
    rc = map_grow(&f->map, f->fd, len);
    if (rc == 0)
        atomic_store_explicit(&f->len, f->map.len, memory_order_release); /* with index_len() */
    os_mutex_unlock(&f->growing);
    return rc;
}

int index_refresh(struct index_file *f, uint64_t seen)
{
    uint64_t had = index_len(f);
    struct os_stat st;
    size_t len;
    int rc;

    if (had > seen) /* a thread of ours was faster */
        return 1;
    if (f->fd < 0)
        return 0;
    rc = os_stat(f->fd, &st);
    if (rc < 0)
        return rc;
    len = (size_t)(st.size / INDEX_PAGE * INDEX_PAGE);
    if (len <= had)
        return 0;
    rc = map_more(f, len);
    return rc < 0 ? rc : 1;
}

bool index_no_space(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;
}

/* What the first try may have allocated is the file's already, and is not cut
 * off again: others may have mapped it. */
int index_grow(struct index_file *f, uint64_t pages)
{
    size_t have = index_len(f);
    uint64_t more = have / INDEX_PAGE / INDEX_GROWS_BY;
    size_t least = have + (size_t)pages * INDEX_PAGE;
    size_t len = index_round(have + (size_t)(more > pages ? more : pages) * INDEX_PAGE);
    int rc = 0;

    if (f->fd >= 0)
        rc = allocate(f->fd, have, len);
    if (index_no_space(rc) && len > least) {
        len = least;
        rc = allocate(f->fd, have, len);
    }
    return rc == 0 ? map_more(f, len) : rc;
}
