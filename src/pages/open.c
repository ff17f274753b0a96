/* open.c - options, making and closing a cache. */
#include "pages/cache.h"

#include "base/err.h"

enum { LG_PAGE_MAX = 30, LG_COUNT_MAX = 24, LG_BYTES_MAX = 40 };

static bool power_of_two(uint32_t n, unsigned lg_max)
{
    return n != 0 && (n & (n - 1)) == 0 && n <= UINT32_C(1) << lg_max;
}

static unsigned lg(uint32_t n)
{
    return (unsigned)__builtin_ctz(n);
}

static int options_check(kist_pages_options *o)
{
    if (o->page_bytes == 0)
        o->page_bytes = 4096;
    if (o->cache_pages == 0)
        o->cache_pages = 1024;
    if (o->flags & ~(uint32_t)KIST_PAGES_THREADS)
        return options_bad("flags");
    if (o->reserved != 0)
        return options_bad("reserved");
    if (!power_of_two(o->page_bytes, LG_PAGE_MAX))
        return options_bad("page_bytes (a power of two)");
    if (!power_of_two(o->cache_pages, LG_COUNT_MAX))
        return options_bad("cache_pages (a power of two)");
    if (lg(o->page_bytes) + lg(o->cache_pages) > LG_BYTES_MAX)
        return options_bad("page_bytes times cache_pages");
    if (o->ahead_pages > o->cache_pages / 2 ||
        (uint64_t)(o->ahead_pages + 1) << lg(o->page_bytes) > UINT64_C(1) << LG_PAGE_MAX)
        return options_bad("ahead_pages");
    return KIST_OK;
}

static int device_take(kist_device *to, const kist_device *from)
{
    int rc = options_take(to, sizeof *to, from, "kist_device");

    if (rc == KIST_OK && (!from || (to->map && to->lend)))
        rc = options_bad("device (both map and lend)");
    if (!to->lend)
        to->give_back = NULL; /* nothing of it is lent */
    return rc;
}

static bool is_prime(uint64_t n)
{
    for (uint64_t d = 2; d * d <= n; d++)
        if (n % d == 0)
            return false;
    return true;
}

/* Up to two sets are what they are; more are a prime number. */
static void layout(kist_pages *p)
{
    uint32_t count = p->opt.cache_pages;

    p->ways = count < PAGES_WAYS ? count : PAGES_WAYS;
    p->sets = count / p->ways;
    while (!is_prime(p->sets))
        p->sets++;
    p->head.shift = lg(p->opt.page_bytes);
    p->threads = (p->opt.flags & KIST_PAGES_THREADS) != 0;
    p->head.mask = p->threads ? 0 : count - 1;
}

static bool allocate(kist_pages *p)
{
    uint64_t frames = frame_count(p);

    p->head.front = os_alloc((p->head.mask + 1) * sizeof *p->head.front);
    p->tags = os_alloc(frames * sizeof *p->tags);
    p->frames = os_alloc(frames * sizeof *p->frames);
    p->hand = os_alloc(p->sets);
    p->changed = os_alloc(p->sets * sizeof *p->changed);
    /* Each stripe on a cache line of its own, which os_alloc() does not know. */
    p->stripes_memory = os_alloc((PAGES_STRIPES + 1) * sizeof *p->stripes);
    if (!p->head.front || !p->tags || !p->frames || !p->hand || !p->changed || !p->stripes_memory)
        return false;
    p->stripes = (struct stripe *)(void *)(((uintptr_t)p->stripes_memory + sizeof *p->stripes - 1) /
                                           sizeof *p->stripes * sizeof *p->stripes);
    if (p->opt.ahead_pages > 0 && p->device.map) {
        p->ahead_buf =
            os_alloc((((size_t)p->opt.ahead_pages + 1) << p->head.shift) + page_align(p));
        if (!p->ahead_buf)
            return false;
    }
    if (p->device.lend)
        return true;
    if (map_memory(&p->arena, frames << p->head.shift, 0) < 0)
        return false;
    /* Random hits otherwise wait for page tables; where it is refused, they do. */
    (void)os_advise(p->arena.base, frames << p->head.shift, OS_ADVISE_HUGEPAGE);
    return true;
}

static void release(kist_pages *p)
{
    map_drop(&p->arena);
    os_free(p->ahead_buf);
    os_free(p->stripes_memory);
    os_free(p->changed);
    os_free(p->hand);
    os_free(p->frames);
    os_free(p->tags);
    os_free(p->head.front);
    os_free(p);
}

int kist_pages_open(kist_pages **out, const kist_device *device, const kist_pages_options *opt)
{
    kist_pages made = { 0 };
    kist_pages *p;
    int rc;

    *out = NULL;
    rc = device_take(&made.device, device);
    if (rc == KIST_OK)
        rc = options_take(&made.opt, sizeof made.opt, opt, "kist_pages_options");
    if (rc == KIST_OK)
        rc = options_check(&made.opt);
    if (rc != KIST_OK)
        return rc;
    layout(&made);
    p = os_alloc(sizeof *p);
    if (p) {
        *p = made;
        if (!allocate(p)) {
            release(p);
            p = NULL;
        }
    }
    if (!p)
        return err_set(KIST_ENOMEM, NULL, NULL, ERR_NOWHERE, "no memory for a cache of %u pages",
                       made.opt.cache_pages);
    for (uint64_t i = 0; i < frame_count(p); i++)
        p->tags[i] = PAGES_NONE;
    for (int i = 0; i < PAGES_STRIPES; i++)
        os_mutex_init(&p->stripes[i].lock);
    os_mutex_init(&p->ahead_lock);
    *out = p;
    return KIST_OK;
}

int kist_pages_copy(kist_pages **out, const kist_pages *p)
{
    return kist_pages_open(out, &p->device, &p->opt);
}

void kist_pages_close(kist_pages *p)
{
    if (!p)
        return;
    kist_pages_invalidate(p, 0, PAGES_END);
    release(p);
}

const kist_device *kist_pages_device(const kist_pages *p)
{
    return &p->device;
}

uint32_t kist_pages_page_bytes(const kist_pages *p)
{
    return p->opt.page_bytes;
}
