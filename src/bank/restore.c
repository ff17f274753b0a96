/*
 * restore.c - a saved snapshot read and checked, see saved.h, and made a bank's
 * content.
 *
 *     gather     header, blocks, trailer, and that nothing is behind; each block is
 *                checked before anything of it is believed. Entries go into a
 *                spool; no lock held
 *     replace    as kist_replace() does, with the times of the entries
 *
 * Nothing that the header claims takes room: that comes with the bytes.
 */
#include "bank/saved.h"
#include "bank/spool.h"

#include "base/err.h"

#include <string.h>

struct reading {
    kist_read read;
    void *arg;
    const char *bank; /* its name, or NULL */
    struct saved_header head;
    struct saved_block *block;
    size_t at, len; /* in its content: what was taken, what is there */
    uint64_t left;  /* content behind this block */
    uint64_t number;
    uint64_t sum;    /* V2 */
    uint64_t offset; /* bytes that were read */
    uint64_t entries, payload;
};

/* ---- bytes ------------------------------------------------------------ */

static int refuse(const struct reading *r, int rc, const char *why)
{
    return err_set(rc, r->bank, NULL, r->offset, "a saved snapshot, near byte %llu: %s",
                   (unsigned long long)r->offset, why);
}

/* Up to `len` bytes, fewer at the end alone. */
static int read_some(struct reading *r, void *buf, size_t len, size_t *got)
{
    int64_t n = 1;

    for (*got = 0; *got < len && n > 0; *got += (size_t)n) {
        n = r->read((uint8_t *)buf + *got, len - *got, r->arg);
        if (n < 0)
            return n < INT32_MIN ? KIST_EINVAL : (int)n;
        if ((uint64_t)n > len - *got)
            return refuse(r, KIST_EINVAL, "its read function returned more than it was asked for");
        r->offset += (uint64_t)n;
    }
    return KIST_OK;
}

static int read_all(struct reading *r, void *buf, size_t len)
{
    size_t got;
    int rc = read_some(r, buf, len, &got);

    return rc == KIST_OK && got < len ? refuse(r, KIST_ECORRUPT, "it is cut short") : rc;
}

/* ---- header and trailer ----------------------------------------------- */

static int read_header(struct reading *r)
{
    struct saved_header *h = &r->head;
    size_t got;
    int rc = read_some(r, h, sizeof *h, &got);

    if (rc != KIST_OK)
        return rc;
    if (got == 0 ||
        memcmp(h->magic, saved_magic, got < sizeof saved_magic ? got : sizeof saved_magic) != 0)
        return refuse(r, KIST_EFORMAT, "it does not begin as kist_snapshot_save() begins one");
    if (got < sizeof *h)
        return refuse(r, KIST_ECORRUPT, "it is cut short");
    if (h->checksum != saved_header_sum(h))
        return refuse(r, KIST_ECORRUPT, "its header is damaged");
    if (h->format > SAVED_FORMAT)
        return refuse(r, KIST_ENEWER, "it was made by a newer kist; upgrade");
    if (h->entries > SAVED_ENTRIES_MAX || h->payload > SAVED_PAYLOAD_MAX ||
        h->length != saved_length(h->entries, h->payload))
        return refuse(r, KIST_ECORRUPT, "its header contradicts itself");
    r->left = saved_content(h->entries, h->payload);
    r->sum = h->checksum;
    return KIST_OK;
}

static int read_end(struct reading *r)
{
    struct saved_trailer t;
    uint8_t more;
    size_t got;
    int rc = read_all(r, &t, sizeof t);

    if (rc != KIST_OK)
        return rc;
    if (memcmp(t.magic, saved_end_magic, sizeof saved_end_magic) != 0 ||
        t.checksum != saved_trailer_sum(r->sum, &t) || t.entries != r->entries ||
        t.payload != r->payload)
        return refuse(r, KIST_ECORRUPT, "its end is damaged");
    rc = read_some(r, &more, 1, &got);
    return rc == KIST_OK && got > 0 ? refuse(r, KIST_ECORRUPT, "there is more behind its end") : rc;
}

/* ---- content ---------------------------------------------------------- */

static int next_block(struct reading *r)
{
    size_t len = r->left < SAVED_CONTENT ? (size_t)r->left : SAVED_CONTENT;
    int rc = read_all(r, r->block, offsetof(struct saved_block, content) + len);

    if (rc != KIST_OK)
        return rc;
    if (r->block->checksum != saved_block_sum(&r->head, r->number, r->block->content, len))
        return refuse(r, KIST_ECORRUPT, "a block is damaged, or belongs to another one");
    r->sum = saved_chain(r->sum, r->block->checksum);
    r->number++;
    r->left -= len;
    r->at = 0;
    r->len = len;
    return KIST_OK;
}

static uint64_t content_left(const struct reading *r)
{
    return r->left + (r->len - r->at);
}

/* Up to `len` bytes of the content that lie in one block; there are that many. */
static int take(struct reading *r, size_t len, const uint8_t **out, size_t *n)
{
    int rc = r->at == r->len ? next_block(r) : KIST_OK;

    if (rc != KIST_OK)
        return rc;
    *out = r->block->content + r->at;
    *n = r->len - r->at < len ? r->len - r->at : len;
    r->at += *n;
    return KIST_OK;
}

static int take_all(struct reading *r, void *to, size_t len)
{
    const uint8_t *from;
    size_t n;
    int rc = KIST_OK;

    for (size_t at = 0; at < len && rc == KIST_OK; at += n) {
        rc = take(r, len - at, &from, &n);
        if (rc == KIST_OK)
            memcpy((uint8_t *)to + at, from, n);
        else
            n = 0;
    }
    return rc;
}

static int take_entry_head(struct reading *r, struct saved_entry *e)
{
    uint64_t left = content_left(r);
    int rc;

    if (left < sizeof *e)
        return refuse(r, KIST_ECORRUPT, "its entries do not fit what its header says");
    rc = take_all(r, e, sizeof *e);
    left -= sizeof *e;
    if (rc == KIST_OK && (e->value_len > KIST_VALUE_MAX || e->key_len > left ||
                          e->value_len > left - e->key_len))
        return refuse(r, KIST_ECORRUPT, "an entry is longer than what is left");
    return rc;
}

/* ---- gathering -------------------------------------------------------- */

static int take_value(struct reading *r, struct spool *sp, uint64_t len)
{
    const uint8_t *from;
    size_t n;
    int rc = KIST_OK;

    for (; len > 0 && rc == KIST_OK; len -= n) {
        rc = take(r, len < SAVED_CONTENT ? (size_t)len : SAVED_CONTENT, &from, &n);
        if (rc == KIST_OK)
            rc = spool_put_more(sp, from, n);
        else
            n = 0;
    }
    return rc;
}

/* V3: `before` is where the entry before this one is. */
static bool ascends(const struct spool *sp, uint64_t before, kist_bytes key)
{
    const struct record *r = spool_at(sp, before);
    size_t len = r->key_len < key.len ? r->key_len : key.len;
    int c = len > 0 ? memcmp(record_key(r), key.data, len) : 0;

    return c < 0 || (c == 0 && r->key_len < key.len);
}

static int take_entry(struct reading *r, struct spool *sp, uint64_t *at)
{
    uint8_t key[KIST_KEY_MAX];
    struct saved_entry e = { 0 };
    uint64_t before = *at;
    int rc = take_entry_head(r, &e);

    if (rc == KIST_OK)
        rc = take_all(r, key, e.key_len);
    if (rc == KIST_OK && r->entries > 0 && r->head.index == KIST_INDEX_ORDERED &&
        !ascends(sp, before, (kist_bytes){ key, e.key_len }))
        rc = refuse(r, KIST_ECORRUPT, "its keys are not in order");
    *at = sp->len;
    if (rc == KIST_OK)
        rc = spool_put_begin(sp, (kist_bytes){ key, e.key_len }, e.value_len, e.mtime_ns);
    if (rc == KIST_OK)
        rc = take_value(r, sp, e.value_len);
    if (rc == KIST_OK)
        rc = spool_put_end(sp, *at);
    r->entries++;
    r->payload += e.key_len + (uint64_t)e.value_len;
    return rc;
}

static int gather(struct reading *r, struct spool *sp)
{
    uint64_t at = 0;
    int rc = read_header(r);

    if (rc == KIST_OK && !(r->block = os_alloc(sizeof *r->block)))
        rc = KIST_ENOMEM;
    while (rc == KIST_OK && r->entries < r->head.entries)
        rc = take_entry(r, sp, &at);
    if (rc == KIST_OK && content_left(r) > 0)
        rc = refuse(r, KIST_ECORRUPT, "its entries do not fit what its header says");
    if (rc == KIST_OK)
        rc = read_end(r);
    os_free(r->block);
    return rc;
}

/* ---- calls ------------------------------------------------------------ */

int kist_snapshot_info_read(kist_read read, void *arg, kist_snapshot_info *info)
{
    struct reading r = { .read = read, .arg = arg };
    int rc;

    if (info->size < sizeof *info)
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                       "kist_snapshot_info.size is not set to sizeof(kist_snapshot_info)");
    rc = read_header(&r);
    if (rc != KIST_OK)
        return rc;
    *info = (kist_snapshot_info){
        .size = info->size,
        .index = r.head.index,
        .sequence = r.head.sequence,
        .taken_ns = r.head.taken_ns,
        .entries = r.head.entries,
        .payload_bytes = r.head.payload,
        .saved_bytes = r.head.length,
    };
    memcpy(info->bank_id, r.head.bank_id, sizeof info->bank_id);
    return KIST_OK;
}

int kist_snapshot_restore(kist_bank *h, kist_read read, void *arg)
{
    struct reading r = { .read = read, .arg = arg, .bank = h->bank->name };
    struct spool sp;
    int rc = replace_may(h);

    if (rc != KIST_OK)
        return rc;
    spool_open(&sp, h->bank);
    sp.has_times = true;
    rc = gather(&r, &sp);
    if (rc == KIST_OK)
        rc = replace_by(h, &sp);
    spool_close(&sp);
    return rc;
}
