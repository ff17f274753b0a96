/* map.c - reserve address space, then lay files over it. */
#include "base/map.h"

#include "base/os.h"

#include <errno.h>

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Address space of `len` bytes, on a large page's border when it is as large. */
static int reserve(uint8_t **out, size_t len)
{
    size_t slack = len >= OS_LARGE_PAGE ? OS_LARGE_PAGE : 0;
    uint8_t *base, *at;
    void *p;
    int rc = os_map(&p, NULL, len + slack, OS_PROT_NONE, OS_MAP_RESERVE, -1, 0);

    if (rc < 0)
        return rc;
    base = p;
    at = slack ? (uint8_t *)round_up((uintptr_t)base, OS_LARGE_PAGE) : base;
    if (at > base)
        (void)os_unmap(base, (size_t)(at - base));
    if (at + len < base + len + slack)
        (void)os_unmap(at + len, (size_t)(base + slack - at));
    *out = at;
    return 0;
}

static int lay(struct map *m, int fd, size_t from, size_t to)
{
    void *p;
    int flags = OS_MAP_FIXED | (fd < 0 ? OS_MAP_ANON : 0);

    return os_map(&p, m->base + from, to - from, m->prot, flags, fd, from);
}

static int map_any(struct map *m, int fd, size_t len, size_t want, int prot)
{
    size_t page = os_page_size();
    struct map made = { .prot = prot, .len = len };
    int rc;

    if (len == 0)
        return -EINVAL;
    made.reserved = round_up(want > len ? want : len, page);
    while ((rc = reserve(&made.base, made.reserved)) < 0 && made.reserved > round_up(len, page)) {
        made.reserved = round_up(made.reserved / 2, page); /* ulimit -v: less to grow in */
        if (made.reserved < len)
            made.reserved = round_up(len, page);
    }
    if (rc < 0)
        return rc;
    rc = lay(&made, fd, 0, round_up(len, page));
    if (rc < 0) {
        (void)os_unmap(made.base, made.reserved);
        return rc;
    }
    *m = made;
    return 0;
}

int map_file(struct map *m, int fd, size_t len, size_t want, int prot)
{
    return map_any(m, fd, len, want, prot);
}

int map_memory(struct map *m, size_t len, size_t want)
{
    return map_any(m, -1, len, want, OS_PROT_READ | OS_PROT_WRITE);
}

int map_grow(struct map *m, int fd, size_t len)
{
    size_t page = os_page_size();
    size_t have = round_up(m->len, page), need = round_up(len, page);
    int rc;

    if (len <= m->len)
        return 0;
    if (need > m->reserved)
        return -ENOMEM;
    if (need > have) {
        rc = lay(m, fd, have, need);
        if (rc < 0)
            return rc;
    }
    m->len = len;
    return 0;
}

void map_drop(struct map *m)
{
    if (m->base)
        (void)os_unmap(m->base, m->reserved);
    *m = (struct map){ 0 };
}
