/*
 * save.c - a snapshot written out, see saved.h. The entries come from a cursor;
 * what is kept in memory is one block.
 */
#include "bank/core.h"
#include "bank/saved.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

struct saving {
    kist_write write;
    void *arg;
    struct saved_header head;
    struct saved_block *block;
    size_t len;      /* of its content, so far */
    uint64_t number; /* of the block */
    uint64_t sum;    /* V2 */
    uint64_t entries, payload;
};

static int hand_over(const struct saving *s, const void *data, size_t len)
{
    int rc = s->write(data, len, s->arg);

    return rc > 0 ? err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                            "the write function of a snapshot returned %d; it has to take all "
                            "bytes and return 0, or a negative code",
                            rc)
                  : rc;
}

static int end_block(struct saving *s)
{
    int rc;

    s->block->checksum = saved_block_sum(&s->head, s->number, s->block->content, s->len);
    s->sum = saved_chain(s->sum, s->block->checksum);
    rc = hand_over(s, s->block, offsetof(struct saved_block, content) + s->len);
    s->number++;
    s->len = 0;
    return rc;
}

static int add(struct saving *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    int rc = KIST_OK;

    while (len > 0 && rc == KIST_OK) {
        size_t n = SAVED_CONTENT - s->len < len ? SAVED_CONTENT - s->len : len;

        memcpy(s->block->content + s->len, p, n);
        s->len += n;
        p += n;
        len -= n;
        if (s->len == SAVED_CONTENT)
            rc = end_block(s);
    }
    return rc;
}

static int add_entry(struct saving *s, const kist_entry *e)
{
    struct saved_entry head = {
        .value_len = (uint32_t)e->value.len,
        .key_len = (uint16_t)e->key.len,
        .mtime_ns = e->meta.mtime_ns,
    };
    int rc = add(s, &head, sizeof head);

    if (rc == KIST_OK)
        rc = add(s, e->key.data, e->key.len);
    if (rc == KIST_OK)
        rc = add(s, e->value.data, e->value.len);
    s->entries++;
    s->payload += e->key.len + e->value.len;
    return rc;
}

static int begin(struct saving *s, const kist_bank *h)
{
    const struct snapshot *snap = h->snapshot;

    s->block = os_alloc(sizeof *s->block);
    if (!s->block)
        return KIST_ENOMEM;
    s->head = (struct saved_header){
        .format = SAVED_FORMAT,
        .index = h->bank->set.index,
        .sequence = snap->at,
        .taken_ns = snap->taken_ns,
        .entries = snap->state.entries,
        .payload = snap->state.payload,
        .length = saved_length(snap->state.entries, snap->state.payload),
    };
    memcpy(s->head.magic, saved_magic, sizeof saved_magic);
    memcpy(s->head.bank_id, h->bank->set.record.id, sizeof s->head.bank_id);
    s->head.checksum = saved_header_sum(&s->head);
    s->sum = s->head.checksum;
    return hand_over(s, &s->head, sizeof s->head);
}

static int end(struct saving *s)
{
    struct saved_trailer t = { .entries = s->entries, .payload = s->payload };
    int rc = s->len > 0 ? end_block(s) : KIST_OK;

    memcpy(t.magic, saved_end_magic, sizeof saved_end_magic);
    t.checksum = saved_trailer_sum(s->sum, &t);
    return rc == KIST_OK ? hand_over(s, &t, sizeof t) : rc;
}

/* ⚑ The header, which has gone by, said how many there are. */
static int miscounted(const struct saving *s, const kist_bank *h)
{
    return bank_err(h->bank, KIST_ECORRUPT, NULL, ERR_NOWHERE,
                    "bank '%s' counts %llu entries and has %llu; run 'kist repair'", h->bank->name,
                    (unsigned long long)s->head.entries, (unsigned long long)s->entries);
}

static int save_all(struct saving *s, kist_bank *h)
{
    kist_cursor *cur;
    kist_entry e;
    int rc = kist_cursor_open(&cur, h, NULL);

    if (rc == KIST_OK)
        rc = begin(s, h);
    while (rc == KIST_OK) {
        rc = kist_cursor_next(cur, &e);
        if (rc == KIST_OK)
            rc = add_entry(s, &e);
        if (rc == KIST_OK && (s->entries > s->head.entries || s->payload > s->head.payload))
            rc = miscounted(s, h);
    }
    if (rc == KIST_END)
        rc = s->entries == s->head.entries && s->payload == s->head.payload ? end(s)
                                                                            : miscounted(s, h);
    kist_cursor_close(cur);
    os_free(s->block);
    return rc;
}

/* What is written out is checked, whatever the handle says: its own checksums
 * would vouch for damage. */
int kist_snapshot_save(kist_bank *h, kist_write write, void *arg)
{
    static const uint32_t no_short_way = 0;
    struct saving s = { .write = write, .arg = arg };
    struct snapshot *taken = NULL;
    kist_bank moment = *h;
    int rc = KIST_OK;

    if (!h->snapshot) {
        rc = snapshot_take(h, &taken);
        if (rc != KIST_OK)
            return rc;
        moment.forked = &no_short_way;
        moment.readonly = true;
        moment.at = taken->at;
        moment.snapshot = taken;
    }
    if (moment.verify == KIST_VERIFY_NEVER)
        moment.verify = KIST_VERIFY_FIRST;
    rc = save_all(&s, &moment);
    snapshot_release(taken);
    return rc;
}

/* ---- files and pipes -------------------------------------------------- */

int kist_write_fd(const void *data, size_t len, void *fd)
{
    const uint8_t *p = data;

    while (len > 0) {
        int64_t n = os_write(*(const int *)fd, p, len);

        if (n <= 0)
            return n < 0 ? err_set((int)n, NULL, NULL, ERR_NOWHERE, "cannot write: %s",
                                   kist_strerror((int)n))
                         : -EIO;
        p += n;
        len -= (size_t)n;
    }
    return KIST_OK;
}

int64_t kist_read_fd(void *buf, size_t len, void *fd)
{
    int64_t n = os_read(*(const int *)fd, buf, len);

    if (n < 0)
        (void)err_set((int)n, NULL, NULL, ERR_NOWHERE, "cannot read: %s", kist_strerror((int)n));
    return n;
}
