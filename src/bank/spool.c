/*
 * spool.c - see spool.h.
 *
 * The file has its blocks before anything is stored into its map (I7): a full disk
 * is an error of the call that adds.
 */
#include "bank/spool.h"

#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    SPOOL_FIRST = 64 << 10,
    SPOOL_MEMORY = 1 << 20, /* more than this goes to a file */
    SPOOL_STEP = 64 << 20,  /* a file grows by no more at once */
    SUMS_ON_STACK = 64,
};
#define SPOOL_RESERVE (UINT64_C(16) << 30)

void spool_open(struct spool *sp, const struct bank *b)
{
    *sp = (struct spool){ .bank = b, .fd = -1 };
}

void spool_close(struct spool *sp)
{
    map_drop(&sp->map);
    if (sp->fd >= 0)
        (void)os_close(sp->fd);
    spool_open(sp, sp->bank);
}

void spool_empty(struct spool *sp)
{
    if (sp->fd >= 0)
        spool_close(sp);
    sp->len = 0;
}

/* ---- room -------------------------------------------------------------- */

/* Whoever dies before it is unlinked leaves a name that a rebuild removes. */
static int make_file(const struct bank *b)
{
    char name[64];
    uint64_t random;
    int dir, fd, rc = os_random(&random, sizeof random);

    dir = rc < 0 ? rc : bank_open_dir(b);
    if (dir < 0)
        return dir;
    (void)snprintf(name, sizeof name, "kist.spool.%016llx", (unsigned long long)random);
    fd = os_open_under(dir, name, OS_READ | OS_WRITE | OS_CREATE, 0600);
    if (fd >= 0) {
        rc = os_unlink(dir, name);
        if (rc < 0)
            (void)os_close(fd);
    }
    (void)os_close(dir);
    return rc < 0 ? rc : fd;
}

static uint64_t round_to_page(uint64_t n)
{
    uint64_t page = os_page_size();

    return (n + page - 1) / page * page;
}

static int map_anew(struct map *m, int fd, uint64_t len)
{
    return fd < 0 ? map_memory(m, len, SPOOL_MEMORY)
                  : map_file(m, fd, len, len + SPOOL_RESERVE, OS_PROT_READ | OS_PROT_WRITE);
}

/* Let the map be `len` bytes; those of the file are allocated. */
static int extend(struct spool *sp, uint64_t len)
{
    struct map m;
    int rc = sp->map.base ? map_grow(&sp->map, sp->fd, len) : -ENOMEM;

    if (rc != -ENOMEM)
        return rc;
    rc = map_anew(&m, sp->fd, len);
    if (rc < 0)
        return rc;
    if (sp->fd < 0 && sp->len > 0)
        memcpy(m.base, sp->map.base, sp->len);
    map_drop(&sp->map);
    sp->map = m;
    return 0;
}

/* From memory into a file of `len` bytes. */
static int spill(struct spool *sp, uint64_t len)
{
    struct map m;
    int fd = make_file(sp->bank), rc;

    if (fd < 0)
        return fd;
    rc = os_allocate(fd, 0, len);
    if (rc == 0)
        rc = map_anew(&m, fd, len);
    if (rc < 0) {
        (void)os_close(fd);
        return rc;
    }
    if (sp->len > 0)
        memcpy(m.base, sp->map.base, sp->len);
    map_drop(&sp->map);
    sp->map = m;
    sp->fd = fd;
    return 0;
}

static int make_room(struct spool *sp, uint64_t size)
{
    uint64_t need = sp->len + size, have = sp->map.len, len = have ? have : SPOOL_FIRST;
    int rc;

    if (need <= have)
        return 0;
    while (len < need)
        len += len < SPOOL_STEP ? len : SPOOL_STEP;
    if (sp->fd < 0)
        return len <= SPOOL_MEMORY ? extend(sp, len) : spill(sp, len);
    rc = os_allocate(sp->fd, have, len - have);
    if (rc < 0) { /* perhaps there is room for this one */
        len = round_to_page(need);
        rc = os_allocate(sp->fd, have, len - have);
    }
    return rc < 0 ? rc : extend(sp, len);
}

/* ---- records ----------------------------------------------------------- */

static int check_lengths(const struct bank *b, kist_bytes key, kist_bytes value)
{
    if (key.len > KIST_KEY_MAX)
        return bank_err(b, KIST_EKEYLEN, NULL, ERR_NOWHERE,
                        "a key of %zu bytes; 65,535 is the most", key.len);
    if (value.len > KIST_VALUE_MAX)
        return bank_err(b, KIST_EVALUELEN, NULL, ERR_NOWHERE,
                        "a value of %zu bytes; 4,294,967,294 is the most", value.len);
    return KIST_OK;
}

static void fill(struct record *r, const struct record *head, kist_bytes key, kist_bytes value,
                 const uint64_t *sums)
{
    uint8_t *to = (uint8_t *)r + RECORD_HEADER;

    memcpy(r, head, RECORD_HEADER);
    if (key.len > 0)
        memcpy(to, key.data, key.len);
    to += key.len;
    if (head->kind & RECORD_CHUNKED) {
        memcpy(to, sums, 8 * chunk_count(head->value_len));
        to += 8 * chunk_count(head->value_len);
    }
    if (value.len > 0)
        memcpy(to, value.data, value.len);
}

int spool_add(struct spool *sp, uint8_t kind, kist_bytes key, kist_bytes value, uint64_t *at)
{
    uint64_t few[SUMS_ON_STACK], *sums = few, size, n;
    struct record head;
    int rc = check_lengths(sp->bank, key, value);

    if (rc < 0)
        return rc;
    head = (struct record){
        .kind = (uint8_t)(kind | (value.len > CHUNKED_ABOVE ? RECORD_CHUNKED : 0)),
        .key_len = (uint16_t)key.len,
        .value_len = (uint32_t)value.len,
        .mtime_ns = (int64_t)record_hash_key(&sp->bank->set.record, key.data, key.len),
    };
    n = chunk_count(head.value_len);
    if (head.kind & RECORD_CHUNKED && n > SUMS_ON_STACK)
        sums = os_alloc(n * sizeof *sums);
    if (!sums)
        return KIST_ENOMEM;
    size = record_size(&head);
    rc = make_room(sp, size);
    if (rc == 0) {
        head.checksum = record_hash_value(value.data, value.len, sums);
        fill(spool_at(sp, sp->len), &head, key, value, sums);
        *at = sp->len;
        sp->len += size;
    }
    if (sums != few)
        os_free(sums);
    return rc < 0 ? err_os(rc, sp->bank->name, "kist.spool", "gather changes") : KIST_OK;
}

static int failed(const struct spool *sp, int rc)
{
    return rc < 0 ? err_os(rc, sp->bank->name, "kist.spool", "gather changes") : KIST_OK;
}

int spool_put_begin(struct spool *sp, kist_bytes key, uint32_t value_len, int64_t mtime_ns)
{
    struct record *r, head = {
        .kind = RECORD_PUT | (value_len > CHUNKED_ABOVE ? RECORD_CHUNKED : 0),
        .key_len = (uint16_t)key.len,
        .value_len = value_len,
        .sequence = (uint64_t)mtime_ns,
        .mtime_ns = (int64_t)record_hash_key(&sp->bank->set.record, key.data, key.len),
    };
    int rc = make_room(sp, record_value_at(&head));

    if (rc < 0)
        return failed(sp, rc);
    r = spool_at(sp, sp->len);
    memcpy(r, &head, RECORD_HEADER);
    if (key.len > 0)
        memcpy((uint8_t *)r + RECORD_HEADER, key.data, key.len);
    sp->len += record_value_at(&head);
    return KIST_OK;
}

int spool_put_more(struct spool *sp, const void *data, size_t len)
{
    int rc = make_room(sp, len);

    if (rc < 0)
        return failed(sp, rc);
    memcpy(sp->map.base + sp->len, data, len);
    sp->len += len;
    return KIST_OK;
}

int spool_put_end(struct spool *sp, uint64_t at)
{
    uint64_t few[SUMS_ON_STACK], *sums = few, n = chunk_count(spool_at(sp, at)->value_len);
    uint64_t size = record_size(spool_at(sp, at));
    struct record *r;
    int rc = make_room(sp, at + size - sp->len);

    if (rc < 0)
        return failed(sp, rc);
    r = spool_at(sp, at);
    if (r->kind & RECORD_CHUNKED && n > SUMS_ON_STACK)
        sums = os_alloc(n * sizeof *sums);
    if (!sums)
        return KIST_ENOMEM;
    r->checksum = record_hash_value(record_value(r), r->value_len, sums);
    if (r->kind & RECORD_CHUNKED)
        memcpy((uint8_t *)r + record_sums_at(r), sums, 8 * n);
    if (sums != few)
        os_free(sums);
    sp->len = at + size;
    return KIST_OK;
}

struct entry spool_entry(const struct record *r)
{
    return (struct entry){
        .kind = (uint8_t)record_kind(r),
        .key = { record_key(r), r->key_len },
        .value = { record_value(r), r->value_len },
        .key_hash = spool_hash(r),
        .value_hash = r->checksum,
        .sums = (const void *)((const uint8_t *)r + record_sums_at(r)), /* copied as bytes only */
    };
}
