/*
 * ordered_inner.c - inner nodes of the ordered index, made anew from those that
 * they replace. Whatever the old one says is measured first: what is in a file is not
 * trusted (I5).
 */
#include "index/ordered_inner.h"

#include "base/os.h"
#include "kist/kist.h"

enum {
    COPY_FROM = 2, /* separators: from so many on the prefix is all that they agree in */
};

/* ---- parts ------------------------------------------------------------ */

/* ---- inner nodes ------------------------------------------------------ */

int parts_of(const struct ordered_index *ix, uint64_t word, struct parts *ps)
{
    struct inner n;

    ps->arena = NULL;
    if (!inner_of(ix, word, &n))
        return KIST_ECORRUPT;
    ps->n = n.count;
    ps->prefix = n.prefix;
    ps->prefix_len = n.prefix_len;
    for (unsigned i = 0; i <= n.count; i++)
        ps->child[i] = shm_peek(&n.child[i]);
    for (unsigned i = 0; i < n.count; i++) {
        ps->sep[i].p = inner_suffix(&n, i, &ps->sep[i].len);
        if (ps->prefix_len + ps->sep[i].len > KEY_MOST)
            return KIST_ECORRUPT;
    }
    return KIST_OK;
}

/* Let the prefix have `len` bytes: the rest of it moves into each separator. */
static int parts_shorten(struct parts *ps, size_t len)
{
    size_t more = ps->prefix_len - len, bytes = 0;
    uint8_t *p;

    for (unsigned i = 0; i < ps->n; i++)
        bytes += more + ps->sep[i].len;
    ps->arena = p = os_alloc(bytes + 1);
    if (!p)
        return KIST_ENOMEM;
    for (unsigned i = 0; i < ps->n; i++) {
        memcpy(p, ps->prefix + len, more);
        memcpy(p + more, ps->sep[i].p, ps->sep[i].len);
        ps->sep[i].p = p;
        ps->sep[i].len += more;
        p += ps->sep[i].len;
    }
    ps->prefix_len = len;
    return KIST_OK;
}

int parts_split(struct parts *ps, unsigned at, uint64_t left, uint64_t right, const uint8_t *sep,
                size_t len)
{
    size_t agree = bytes_agree(ps->prefix, ps->prefix_len, sep, len);
    int rc = agree < ps->prefix_len ? parts_shorten(ps, agree) : KIST_OK;

    if (rc < 0)
        return rc;
    memmove(&ps->sep[at + 1], &ps->sep[at], (ps->n - at) * sizeof ps->sep[0]);
    memmove(&ps->child[at + 2], &ps->child[at + 1], (ps->n - at) * sizeof ps->child[0]);
    ps->sep[at].p = sep + agree;
    ps->sep[at].len = len - agree;
    ps->child[at] = left;
    ps->child[at + 1] = right;
    ps->n++;
    return KIST_OK;
}

void parts_drop(struct parts *ps, unsigned at)
{
    ps->n--;
    memmove(&ps->sep[at], &ps->sep[at + 1], (ps->n - at) * sizeof ps->sep[0]);
    memmove(&ps->child[at + 1], &ps->child[at + 2], (ps->n - at) * sizeof ps->child[0]);
}

void parts_tidy(struct parts *ps)
{
    for (unsigned i = 0; i < ps->n;)
        if (ps->child[i] == 0 && ps->child[i + 1] == 0)
            parts_drop(ps, i);
        else
            i++;
}

bool parts_fit(const struct parts *ps)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < ps->n; i++)
        bytes += ps->sep[i].len;
    return ps->n < ORDERED_FANOUT && (bytes <= ORDERED_SUFFIXES || ps->n < ORDERED_FEW);
}

/* ---- building --------------------------------------------------------- */

/* An inner node that is being made, in memory of the writer's own. */
struct draft {
    uint64_t bytes, *words; /* the whole */
    uint8_t *prefix, *suffix;
    uint64_t *head, *child;
    uint32_t *end;
};

static int inner_begin(struct ordered_index *ix, struct draft *d, unsigned level, unsigned count,
                       size_t prefix_len, size_t suffix_len)
{
    uint64_t suffixes_at = inner_suffixes_at(count, prefix_len);
    uint8_t *p;

    d->bytes = (suffixes_at + suffix_len + 7) / 8 * 8;
    d->words = space_scratch(ix, d->bytes);
    if (!d->words)
        return KIST_ENOMEM;
    d->words[0] = inner_word(level, count, prefix_len);
    d->words[1] = suffix_len;
    p = (uint8_t *)d->words;
    d->prefix = p + INNER_PREFIX_AT;
    d->head = d->words + inner_heads_at(prefix_len) / 8;
    d->child = d->head + count;
    d->end = (uint32_t *)(d->child + count + 1);
    d->suffix = p + suffixes_at;
    /* Zeros where nothing will be, behind prefix, ends and suffixes. */
    memset(p + inner_heads_at(prefix_len) - 8, 0, prefix_len % 8 ? 8 : 0);
    memset(d->suffix - 8, 0, count % 2 ? 8 : 0);
    memset(p + d->bytes - 8, 0, suffix_len % 8 ? 8 : 0);
    return KIST_OK;
}

/* Memory for it, and there it is. */
static int inner_done(struct ordered_index *ix, const struct index_owner *o, const struct draft *d,
                      unsigned level, uint64_t *word)
{
    int rc = space_take(ix, o, d->bytes, level, word);

    if (rc == KIST_OK)
        node_write(ix, *word, d->words, d->bytes);
    return rc;
}

int parts_build(struct ordered_index *ix, const struct index_owner *o, const struct parts *ps,
                unsigned from, unsigned to, unsigned level, uint64_t *word)
{
    unsigned n = to - from, i;
    size_t more = 0, suffixes = 0;
    struct draft d;
    int rc;

    if (n > 1) /* they ascend: what the first and the last agree in, all do */
        more =
            bytes_agree(ps->sep[from].p, ps->sep[from].len, ps->sep[to - 1].p, ps->sep[to - 1].len);
    for (i = from; i < to; i++) {
        if (ps->sep[i].len < more)
            return KIST_ECORRUPT; /* they do not (I5) */
        suffixes += ps->sep[i].len - more;
    }
    rc = inner_begin(ix, &d, level, n, ps->prefix_len + more, suffixes);
    if (rc < 0)
        return rc;
    if (ps->prefix_len)
        memcpy(d.prefix, ps->prefix, ps->prefix_len);
    if (more)
        memcpy(d.prefix + ps->prefix_len, ps->sep[from].p, more);
    for (i = 0; i <= n; i++)
        d.child[i] = ps->child[from + i];
    for (i = 0, suffixes = 0; i < n; i++) {
        const uint8_t *p = ps->sep[from + i].p;
        size_t len = ps->sep[from + i].len;

        d.head[i] = bytes_head(p, len, more);
        if (len > more)
            memcpy(d.suffix + suffixes, p + more, len - more);
        suffixes += len - more;
        d.end[i] = (uint32_t)suffixes;
    }
    return inner_done(ix, o, &d, level, word);
}

int inner_copy(struct ordered_index *ix, const struct index_owner *o,
               const struct ordered_spot *spot, unsigned depth, uint64_t left, uint64_t right,
               const uint8_t *sep, size_t len, uint64_t *word)
{
    uint64_t node = spot->path[depth].node;
    uint32_t at = spot->path[depth].at, from, to;
    struct inner n;
    struct draft d;
    size_t more;
    int rc;

    if (!inner_of(ix, node, &n) || at > n.count)
        return KIST_ECORRUPT;
    if (n.count < COPY_FROM || n.count + 1 == ORDERED_FANOUT || len < n.prefix_len ||
        bytes_agree(n.prefix, n.prefix_len, sep, len) < n.prefix_len)
        return KIST_MISS;
    more = len - n.prefix_len;
    if (n.suffix_len + more > ORDERED_SUFFIXES && n.count >= ORDERED_FEW)
        return KIST_MISS;
    from = at > 0 ? n.end[at - 1] : 0;
    to = n.end[n.count - 1];
    if (from > to || to != n.suffix_len)
        return KIST_ECORRUPT; /* (I5) */
    rc = inner_begin(ix, &d, node_level(node), n.count + 1, n.prefix_len, to + more);
    if (rc < 0)
        return rc;
    memcpy(d.prefix, n.prefix, n.prefix_len);
    memcpy(d.head, n.head, at * sizeof *d.head);
    d.head[at] = bytes_head(sep, len, n.prefix_len);
    memcpy(d.head + at + 1, n.head + at, (n.count - at) * sizeof *d.head);
    memcpy(d.child, n.child, at * sizeof *d.child);
    d.child[at] = left;
    d.child[at + 1] = right;
    memcpy(d.child + at + 2, n.child + at + 1, (n.count - at) * sizeof *d.child);
    memcpy(d.end, n.end, at * sizeof *d.end);
    for (uint32_t i = at; i <= n.count; i++)
        d.end[i] = (uint32_t)more + (i > 0 ? n.end[i - 1] : 0);
    memcpy(d.suffix, n.suffix, from);
    memcpy(d.suffix + from, sep + n.prefix_len, more);
    memcpy(d.suffix + from + more, n.suffix + from, to - from);
    return inner_done(ix, o, &d, node_level(node), word);
}
