/* paged - see paged.h. */
#include "paged.h"

#include "support.h"

#include <errno.h>

void paged_init(struct paged *d, uint64_t len, uint64_t room, uint64_t page, uint64_t seed)
{
    *d = (struct paged){ .len = len, .room = room, .page = page };
    d->bytes = calloc(1, room + 1);
    must(d->bytes != NULL);
    for (uint64_t i = 0; i < len; i++)
        d->bytes[i] = (unsigned char)mix(seed, i);
}

void paged_free(struct paged *d)
{
    must(d->lent == 0);
    free(d->bytes);
    d->bytes = NULL;
}

static int64_t there(struct paged *d, uint64_t pos, size_t len)
{
    must(pos % d->page == 0 && len % d->page == 0 && len > 0);
    d->maps++;
    if (d->maps == d->map_fails_at)
        return PAGED_FAILS;
    if (pos >= d->len)
        return 0;
    return (int64_t)(d->len - pos < len ? d->len - pos : len);
}

static int64_t copy(void *arg, uint64_t pos, void *buf, size_t len)
{
    struct paged *d = arg;
    int64_t n = there(d, pos, len);
    uint64_t align = d->page < 4096 ? d->page : 4096;

    must((uintptr_t)buf % align == 0);
    if (n > 0)
        memcpy(buf, d->bytes + pos, (size_t)n);
    return n > 0 && d->too_much ? (int64_t)(len + d->too_much) : n;
}

/* In a piece of memory of its own, as long as it is: what reads beyond it, or
 * after it was given back, is found by the address sanitizer. */
static int64_t lend(void *arg, uint64_t pos, size_t len, const void **data)
{
    struct paged *d = arg;
    int64_t n = there(d, pos, len);
    unsigned char *memory;

    if (n <= 0)
        return n;
    memory = malloc((size_t)n + d->misaligned);
    must(memory != NULL);
    memcpy(memory + d->misaligned, d->bytes + pos, (size_t)n);
    d->lent++;
    *data = memory + d->misaligned;
    return d->too_much ? (int64_t)(len + d->too_much) : n;
}

static void give_back(void *arg, uint64_t pos, const void *data)
{
    struct paged *d = arg;

    must(d->lent > 0 && pos % d->page == 0 && pos < d->room);
    d->lent--;
    free((unsigned char *)(uintptr_t)data - d->misaligned);
}

static void ahead(void *arg, uint64_t pos, uint64_t len)
{
    struct paged *d = arg;

    must(pos % d->page == 0 && len % d->page == 0 && len > 0);
    d->hinted = pos + len;
}

static int writev_bytes(void *arg, uint64_t pos, const kist_bytes *pieces, size_t n)
{
    struct paged *d = arg;
    uint64_t total = 0, at = pos, most;

    must(n > 0 && pos % d->page == 0);
    for (size_t i = 0; i < n; i++) {
        must(pieces[i].len == d->page || (i == n - 1 && pieces[i].len < d->page));
        must(pieces[i].len > 0);
        total += pieces[i].len;
    }
    if (d->writes < sizeof d->written_at / sizeof *d->written_at)
        d->written_at[d->writes] = pos;
    d->writes++;
    d->pieces = n;
    if (pos + total > d->room)
        return -ENOSPC;
    most = d->writes == d->write_fails_at ? d->torn : total;
    for (size_t i = 0; i < n && most > 0; i++) {
        size_t part = pieces[i].len < most ? pieces[i].len : (size_t)most;

        memcpy(d->bytes + at, pieces[i].data, part);
        at += part;
        most -= part;
    }
    d->len = at > d->len ? at : d->len;
    return d->writes == d->write_fails_at ? PAGED_FAILS : 0;
}

static int sync_bytes(void *arg)
{
    struct paged *d = arg;

    return ++d->syncs == d->sync_fails_at ? PAGED_FAILS : 0;
}

static int length(void *arg, uint64_t *bytes)
{
    *bytes = ((struct paged *)arg)->len;
    return 0;
}

kist_device paged_device(struct paged *d, enum paged_kind kind)
{
    return (kist_device){
        .size = sizeof(kist_device),
        .arg = d,
        .map = kind == PAGED_COPY ? copy : NULL,
        .lend = kind == PAGED_LEND ? lend : NULL,
        .give_back = kind == PAGED_LEND ? give_back : NULL,
        .ahead = kind == PAGED_LEND ? ahead : NULL,
        .writev = writev_bytes,
        .sync = sync_bytes,
        .length = length,
    };
}

kist_pages *paged_open(struct paged *d, enum paged_kind kind, uint32_t cache, uint32_t flags)
{
    kist_pages_options opt = {
        .size = sizeof opt, .flags = flags, .page_bytes = (uint32_t)d->page, .cache_pages = cache
    };
    kist_device device = paged_device(d, kind);
    kist_pages *pages;

    must_ok(kist_pages_open(&pages, &device, &opt));
    return pages;
}

kist_pages_stats paged_stats(kist_pages *pages)
{
    kist_pages_stats stats = { .size = sizeof stats };

    must_ok(kist_pages_stat(pages, &stats));
    return stats;
}
