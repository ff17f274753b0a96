/* segment.c - make, map and scan the files of a heap, see segment.h. */
#include "heap/segment.h"

#include "base/err.h"
#include "base/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char magic[8] = { 'K', 'I', 'S', 'T', 'H', 'E', 'A', 'P' };

void segment_name(char out[SEGMENT_NAME_MAX], uint64_t n)
{
    (void)snprintf(out, SEGMENT_NAME_MAX, "kist.heap.%llu", (unsigned long long)n);
}

uint64_t segment_number(const char *name)
{
    static const char prefix[] = "kist.heap.";
    uint64_t n = 0;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return 0;
    name += sizeof prefix - 1;
    if (*name < '1' || *name > '9')
        return 0;
    for (; *name >= '0' && *name <= '9' && n <= SEGMENT_N_MAX; name++)
        n = n * 10 + (uint64_t)(*name - '0');
    return *name == '\0' && n <= SEGMENT_N_MAX ? n : 0;
}

void segment_header_seal(struct segment_header *h)
{
    memcpy(h->magic, magic, sizeof magic);
    h->format = SEGMENT_FORMAT;
    h->checksum = hash_bytes(h, offsetof(struct segment_header, checksum));
}

int segment_create(int dir, const char *name, uint64_t size, uint32_t mode,
                   const struct segment_header *h)
{
    struct segment_header twice[2] = { *h, *h };
    int fd, rc;

    fd = os_open_under(dir, name, OS_WRITE | OS_CREATE, mode);
    if (fd < 0)
        return fd;
    rc = os_allocate(fd, 0, size);
    if (rc == 0)
        rc = os_write_all(fd, twice, sizeof twice, 0);
    if (rc < 0) {
        (void)os_close(fd);
        (void)os_unlink(dir, name);
        return rc;
    }
    return fd;
}

/* ---- mapping ---------------------------------------------------------- */

static int header_check(const struct segment_header *h, const uint8_t bank_id[16], uint64_t n)
{
    if (memcmp(h->magic, magic, sizeof magic) != 0 ||
        h->checksum != hash_bytes(h, offsetof(struct segment_header, checksum)))
        return KIST_ECORRUPT;
    if (h->format > SEGMENT_FORMAT)
        return KIST_ENEWER;
    return memcmp(h->bank_id, bank_id, 16) == 0 && h->n == n ? KIST_OK : KIST_EFORMAT;
}

static int header_read(struct segment_header *out, const struct segment *s,
                       const uint8_t bank_id[16])
{
    int rc = KIST_ECORRUPT;

    for (size_t i = 0; i < 2 && rc == KIST_ECORRUPT; i++) {
        memcpy(out, s->base + i * sizeof *out, sizeof *out);
        rc = header_check(out, bank_id, s->n);
    }
    return rc;
}

static void segment_free(struct segment *s)
{
    map_drop(&s->map);
    os_free(s->seen);
    os_free(s);
}

int segment_map(struct segment **out, int fd, const uint8_t bank_id[16], uint64_t n)
{
    struct segment *s = os_alloc(sizeof *s);
    struct os_stat st;
    int rc = KIST_ENOMEM;

    if (!s)
        goto out;
    rc = os_stat(fd, &st);
    if (rc < 0)
        goto out;
    rc = KIST_ECORRUPT;
    if (st.kind != OS_FILE_REGULAR || st.size < SEGMENT_FIRST_RECORD)
        goto out;
    rc = map_file(&s->map, fd, st.size & ~UINT64_C(15), 0, OS_PROT_READ);
    if (rc < 0)
        goto out;
    s->base = s->map.base;
    s->len = s->map.len;
    s->n = n;
    s->loc_n = n & LOC_N_MASK;
    s->ino = st.ino;
    atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
    rc = header_read(&s->header, s, bank_id);
    if (rc == KIST_ECORRUPT) {
        s->header = (struct segment_header){ .n = n };
        rc = KIST_OK;
    }
    if (rc < 0)
        goto out;
    rc = KIST_ENOMEM;
    s->seen = os_alloc(((s->len >> SEEN_SHIFT) / 64 + 1) * sizeof *s->seen);
    if (!s->seen)
        goto out;
    rc = KIST_OK;
    *out = s;
    s = NULL;
out:
    if (s)
        segment_free(s);
    return rc;
}

void segment_release(struct segment *s)
{
    /* acquire-release: the last one sees what the others did before theirs */
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        segment_free(s);
}

static void on_unseen(struct retired *r)
{
    segment_release((struct segment *)((char *)r - offsetof(struct segment, retired)));
}

void segment_retire(struct segment *s)
{
    thread_retire(&s->retired, on_unseen);
}

/* ---- scanning --------------------------------------------------------- */

enum { HASH_ALWAYS = CHUNKED_ABOVE + 1024, HASH_TIMES = 256 }; /* see affordable() */

static bool is_zero(const uint8_t *p, uint64_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, (size_t)len - 1) == 0);
}

static bool whole_at(const struct scan *s, uint64_t offset)
{
    const struct record *r = (const void *)(s->segment->base + offset);
    uint64_t room = s->until - offset;

    if (s->trusted)
        return offset + RECORD_MIN <= s->until && r->kind != 0 && record_fits(r, room);
    return offset < s->until && record_is_whole(r, room, s->bank, place_make(s->segment->n, offset));
}

bool scan_value_is_whole(const struct record *r)
{
    if (r->kind & RECORD_CHUNKED && record_kind(r) != RECORD_PADDING)
        for (uint64_t i = 0; i < chunk_count(r->value_len); i++)
            if (!record_chunk_is_whole(r, i))
                return false;
    return true;
}

/* The damaged record at `offset`, if its own lengths lead to `next`, where the
 * next whole record begins, or to the zeros at the end. */
static const struct record *believable(const struct scan *s, uint64_t offset, uint64_t next)
{
    const struct record *r = (const void *)(s->segment->base + offset);
    uint64_t room = s->until - offset, end;

    if (room < RECORD_MIN || !record_fits(r, room) || record_kind(r) < RECORD_PUT ||
        record_kind(r) > RECORD_DELETE)
        return NULL;
    end = offset + record_size(r);
    if (end == next || (next >= s->until && is_zero(s->segment->base + end, s->until - end)))
        return r;
    return NULL;
}

/*
 * Behind damage each 16 bytes may begin a record, and bytes chosen for it make
 * each of them look like one with a key of 64 KiB. Ordinary ones are always
 * hashed; those that cost more, as long as the segment's size allows (I5).
 */
static bool affordable(struct scan *s, uint64_t offset)
{
    const struct record *r = (const void *)(s->segment->base + offset);
    uint64_t room = s->until - offset, cost;

    if (s->trusted || room < RECORD_MIN || !record_fits(r, room))
        return true; /* seen to be none without a hash */
    cost = r->key_len;
    if (record_kind(r) != RECORD_PADDING)
        cost += r->value_len <= CHUNKED_ABOVE ? r->value_len : 8 * chunk_count(r->value_len);
    if (cost <= HASH_ALWAYS)
        return true;
    if (s->hashed + cost > HASH_TIMES * s->segment->len)
        return false;
    s->hashed += cost;
    return true;
}

void scan_next(struct scan *s, struct scan_step *out)
{
    const uint8_t *base = s->segment->base;

    if (s->until == 0 || s->until > s->segment->len)
        s->until = s->segment->len;
    if (s->at < SEGMENT_FIRST_RECORD)
        s->at = SEGMENT_FIRST_RECORD;
    *out = (struct scan_step){ .found = SCAN_END, .offset = s->at };
    if (s->at >= s->until)
        return;
    if (whole_at(s, s->at)) {
        out->found = SCAN_RECORD;
        out->record = (const void *)(base + s->at);
        out->len = record_size(out->record);
        s->at += out->len;
        return;
    }
    if (base[s->at] == 0 && is_zero(base + s->at, s->until - s->at))
        return;
    out->found = SCAN_DAMAGED;
    /* R2: what verifies further on is a record of this very place */
    s->at += RECORD_ALIGN;
    while (s->at < s->until && !s->ends_at_damage && !(affordable(s, s->at) && whole_at(s, s->at)))
        s->at += RECORD_ALIGN;
    out->record = believable(s, out->offset, s->at);
    out->len = s->at - out->offset;
    if (s->at == s->until) /* zeros at the end are no damage */
        while (out->len > RECORD_ALIGN &&
               is_zero(base + out->offset + out->len - RECORD_ALIGN, RECORD_ALIGN))
            out->len -= RECORD_ALIGN;
}
