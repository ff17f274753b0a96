/* cache.c - frames, sets and the hand of the clock, see cache.h. */
#include "pages/cache.h"

#include "base/err.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

/* ---- locks ------------------------------------------------------------ */

struct stripe *set_lock(kist_pages *p, uint64_t set)
{
    if (!p->threads)
        return p->stripes;
    os_mutex_lock(&p->stripes[set % PAGES_STRIPES].lock);
    return &p->stripes[set % PAGES_STRIPES];
}

void set_unlock(kist_pages *p, struct stripe *stripe)
{
    if (p->threads)
        os_mutex_unlock(&stripe->lock);
}

static struct stripe *stripe_of(kist_pages *p, uint64_t set)
{
    return p->threads ? &p->stripes[set % PAGES_STRIPES] : p->stripes;
}

/* ---- the front -------------------------------------------------------- */

static struct kist_pages_front *front_of(const kist_pages *p, uint64_t number)
{
    return &p->head.front[number & p->head.mask];
}

static bool front_names(const kist_pages *p, const struct kist_pages_front *f, uint64_t number)
{
    return f->len > 0 && f->from == page_pos(p, number);
}

/* Hits in the front become hits of the cache, and uses of their page. */
static void front_collect(kist_pages *p, struct kist_pages_front *f)
{
    if (f->len == 0 || f->hits == 0)
        return;
    p->stripes[0].hits += f->hits;
    p->frames[f->frame].used = true;
    f->hits = 0;
}

static void front_forget(kist_pages *p, uint64_t number)
{
    struct kist_pages_front *f = front_of(p, number);

    if (p->threads || !front_names(p, f, number))
        return;
    front_collect(p, f);
    f->len = 0; /* P2 */
}

static void front_note(kist_pages *p, const struct frame *frame, uint64_t number)
{
    struct kist_pages_front *f = front_of(p, number);

    if (p->threads || front_names(p, f, number))
        return;
    front_collect(p, f);
    f->from = page_pos(p, number);
    f->data = frame->data;
    f->len = frame->len;
    f->frame = (uint32_t)(frame - p->frames);
}

/* ---- frames ----------------------------------------------------------- */

struct frame *frame_find(kist_pages *p, uint64_t number)
{
    uint64_t first = set_of(p, number) * p->ways;

    for (uint32_t way = 0; way < p->ways; way++)
        if (p->tags[first + way] == number)
            return &p->frames[first + way];
    return NULL;
}

static uint64_t *tag_of(kist_pages *p, const struct frame *f)
{
    return &p->tags[f - p->frames];
}

static void frame_empty(kist_pages *p, struct frame *f, uint64_t number)
{
    if (p->device.give_back && f->len > 0)
        p->device.give_back(p->device.arg, page_pos(p, number), f->data);
    *f = (struct frame){ 0 };
}

/* Nobody finds the page any more; its frame is empty once no slice holds it. */
static void frame_forget(kist_pages *p, struct frame *f)
{
    uint64_t number = *tag_of(p, f);

    front_forget(p, number);
    *tag_of(p, f) = PAGES_NONE;
    if (f->pins == 0)
        frame_empty(p, f, number);
    else
        f->pos = page_pos(p, number);
}

void frame_unpin(kist_pages *p, struct frame *f)
{
    if (--f->pins == 0 && *tag_of(p, f) == PAGES_NONE)
        frame_empty(p, f, page_of(p, f->pos));
}

static bool frame_was_used(kist_pages *p, struct frame *f)
{
    bool used;

    if (!p->threads && front_names(p, front_of(p, *tag_of(p, f)), *tag_of(p, f)))
        front_collect(p, front_of(p, *tag_of(p, f)));
    used = f->used;
    f->used = false;
    return used;
}

/* No frame of the set is empty. Once around clears what was used; in the second
 * round somebody is found, unless all are pinned. */
static struct frame *clock_choose(kist_pages *p, uint64_t set)
{
    for (uint32_t step = 0; step < 2 * p->ways; step++) {
        struct frame *f = &p->frames[set * p->ways + p->hand[set]];

        if (f->pins == 0 && !frame_was_used(p, f))
            return f;
        p->hand[set] = (uint8_t)((p->hand[set] + 1) % p->ways);
    }
    return NULL;
}

static struct frame *frame_unused(kist_pages *p, uint64_t set)
{
    for (uint32_t way = 0; way < p->ways; way++)
        if (!p->frames[set * p->ways + way].data)
            return &p->frames[set * p->ways + way];
    return NULL;
}

struct frame *frame_make_room(kist_pages *p, uint64_t number, bool wanted)
{
    uint64_t set = set_of(p, number);
    struct stripe *stripe = stripe_of(p, set);
    struct frame *f = frame_unused(p, set);

    if (!f) {
        f = clock_choose(p, set);
        if (!f)
            return NULL;
        stripe->evictions++;
        frame_forget(p, f);
        if (wanted || stripe->evictions % PAGES_STAY == 0)
            p->hand[set] = (uint8_t)((p->hand[set] + 1) % p->ways);
    }
    f->used = wanted;
    return f;
}

void frame_settle(kist_pages *p, struct frame *f, uint64_t number, const void *data, size_t len)
{
    f->data = data;
    f->len = (uint32_t)len;
    *tag_of(p, f) = number;
}

/* ---- the device ------------------------------------------------------- */

int pages_out_of_bounds(uint64_t addr, uint64_t len)
{
    return err_set(KIST_EBOUNDS, NULL, NULL, addr,
                   "%" PRIu64 " bytes at address %" PRIu64 " reach past the end of the device", len,
                   addr);
}

static int device_failed(int64_t rc, uint64_t pos)
{
    int code = rc < INT_MIN ? KIST_EDEVICE : (int)rc;

    return err_set(code, NULL, NULL, pos, "cannot read from the device: %s", kist_strerror(code));
}

static int device_check(const kist_pages *p, uint64_t pos, size_t len, int64_t n, const void *data)
{
    size_t align = page_bytes(p) < 16 ? page_bytes(p) : 16;

    if ((uint64_t)n > len)
        return err_set(KIST_EDEVICE, NULL, NULL, pos,
                       "the device returned %" PRId64 " bytes where %zu were asked for", n, len);
    if (p->device.lend && ((uintptr_t)data % align != 0 || !data))
        return err_set(KIST_EDEVICE, NULL, NULL, pos, "the device lent memory that is misaligned");
    return KIST_OK;
}

int device_fetch(const kist_pages *p, uint64_t pos, size_t len, void *buf, const uint8_t **data,
                 size_t *got)
{
    const kist_device *d = &p->device;
    const void *there = buf;
    int64_t n;
    int rc;

    if (!d->map && !d->lend)
        return KIST_ABSENT;
    n = d->lend ? d->lend(d->arg, pos, len, &there) : d->map(d->arg, pos, buf, len);
    if (n <= 0)
        return n == 0 ? KIST_END : device_failed(n, pos);
    rc = device_check(p, pos, len, n, there);
    if (rc != KIST_OK) {
        if (d->give_back)
            d->give_back(d->arg, pos, there);
        return rc;
    }
    *data = there;
    *got = (size_t)n;
    return KIST_OK;
}

void pages_count_call(kist_pages *p)
{
    struct stripe *stripe = set_lock(p, 0);

    stripe->calls++;
    set_unlock(p, stripe);
}

#define LOOSE_END (UINT64_C(1) << 40) /* nobody has so much memory */

int loose_fetch(const kist_pages *p, uint64_t pos, size_t len, struct loose **out)
{
    size_t align = page_align(p), room = p->device.lend ? 0 : len + align;
    struct loose *made;
    int rc;

    if (len >= LOOSE_END || !(made = os_alloc(sizeof *made + room)))
        return err_set(KIST_ENOMEM, NULL, NULL, pos, "no memory for %zu bytes of the device", len);
    made->pos = pos;
    rc = device_fetch(p, pos, len, page_align_up(p, made + 1), &made->data, &made->len);
    if (rc != KIST_OK) {
        os_free(made);
        return rc;
    }
    *out = made;
    return KIST_OK;
}

void loose_drop(const kist_pages *p, struct loose *loose)
{
    if (p->device.give_back)
        p->device.give_back(p->device.arg, loose->pos, loose->data);
    os_free(loose);
}

/* ---- entering a page -------------------------------------------------- */

static int fetch_loose(kist_pages *p, struct page *page)
{
    int rc = loose_fetch(p, page_pos(p, page->number), page_bytes(p), &page->loose);

    if (rc == KIST_OK) {
        page->data = page->loose->data;
        page->len = (uint32_t)page->loose->len;
    }
    return rc;
}

static int fetch(kist_pages *p, struct stripe *stripe, struct page *page)
{
    const uint8_t *data;
    size_t len;
    int rc;

    if (!p->device.map && !p->device.lend)
        return KIST_ABSENT;
    stripe->calls++;
    page->frame = frame_make_room(p, page->number, false);
    if (!page->frame)
        return fetch_loose(p, page);
    rc = device_fetch(p, page_pos(p, page->number), page_bytes(p),
                      p->arena.base ? frame_memory(p, page->frame) : NULL, &data, &len);
    if (rc == KIST_OK)
        frame_settle(p, page->frame, page->number, data, len);
    return rc;
}

static void found(kist_pages *p, struct page *page)
{
    struct frame *f = page->frame;

    page->data = f->data;
    page->len = f->len;
    front_note(p, f, page->number);
}

static bool enter_cached(kist_pages *p, struct stripe *stripe, struct page *page)
{
    page->frame = frame_find(p, page->number);
    if (!page->frame)
        return false;
    page->frame->used = true;
    stripe->hits++;
    found(p, page);
    return true;
}

int page_enter(kist_pages *p, uint64_t number, struct page *out)
{
    struct page page = { .number = number };
    uint64_t set = set_of(p, number);
    struct stripe *stripe = set_lock(p, set);
    int rc = KIST_OK;

    if (!enter_cached(p, stripe, &page)) {
        stripe->misses++;
        if (p->opt.ahead_pages > 0) {
            set_unlock(p, stripe);
            pages_read_ahead(p, number);
            set_lock(p, set);
            page.frame = frame_find(p, number);
        }
        if (!page.frame)
            rc = fetch(p, stripe, &page);
        if (rc == KIST_OK && page.frame)
            found(p, &page);
    }
    if (rc == KIST_OK && page.len == 0)
        rc = KIST_END; /* supplied, to say so */
    if (rc != KIST_OK)
        set_unlock(p, stripe);
    else
        *out = page;
    return rc;
}

void page_leave(kist_pages *p, struct page *page)
{
    set_unlock(p, stripe_of(p, set_of(p, page->number)));
    if (page->loose)
        loose_drop(p, page->loose);
}

/* ---- what is cached --------------------------------------------------- */

bool kist_pages_is_cached(kist_pages *p, uint64_t addr)
{
    uint64_t number = page_of(p, addr);
    struct stripe *stripe;
    const struct frame *f;
    bool there;

    if (addr >= PAGES_END)
        return false;
    stripe = set_lock(p, set_of(p, number));
    f = frame_find(p, number);
    there = f && page_offset(p, addr) < f->len;
    set_unlock(p, stripe);
    return there;
}

/* Of two invalidations at once the one that began first may come last. */
static void note_change(kist_pages *p, uint64_t set, uint64_t now)
{
    if (p->changed[set] < now)
        p->changed[set] = now; /* P4 */
}

static void forget_page(kist_pages *p, uint64_t number, uint64_t now)
{
    uint64_t set = set_of(p, number);
    struct stripe *stripe = set_lock(p, set);
    struct frame *f = frame_find(p, number);

    note_change(p, set, now);
    if (f)
        frame_forget(p, f);
    set_unlock(p, stripe);
}

/* All pages from `first` to `last` whose frames are at most `len` long. */
static void forget_among_all(kist_pages *p, uint64_t first, uint64_t last, uint32_t len,
                             uint64_t now)
{
    for (uint64_t set = 0; set < p->sets; set++) {
        struct stripe *stripe = set_lock(p, set);

        note_change(p, set, now);
        for (uint64_t i = set * p->ways; i < (set + 1) * p->ways; i++)
            if (p->tags[i] != PAGES_NONE && p->tags[i] >= first && p->tags[i] <= last &&
                p->frames[i].len <= len)
                frame_forget(p, &p->frames[i]);
        set_unlock(p, stripe);
    }
}

static uint64_t next_time(kist_pages *p)
{
    return atomic_fetch_add_explicit(&p->changes, 1, memory_order_acq_rel) + 1;
}

void pages_forget(kist_pages *p, uint64_t addr, uint64_t len)
{
    uint64_t first = page_of(p, addr), last, now;

    if (len == 0 || addr >= PAGES_END)
        return;
    last = page_of(p, len <= PAGES_END - addr ? addr + (len - 1) : PAGES_END - 1);
    now = next_time(p);
    if (last - first >= p->sets)
        forget_among_all(p, first, last, UINT32_MAX, now);
    else
        for (uint64_t number = first; number <= last; number++)
            forget_page(p, number, now);
}

void kist_pages_invalidate(kist_pages *p, uint64_t addr, uint64_t len)
{
    atomic_fetch_add_explicit(&p->told, 1, memory_order_release); /* with update_reach() */
    pages_forget(p, addr, len);
}

void pages_forget_short(kist_pages *p)
{
    forget_among_all(p, 0, PAGES_NONE - 1, (uint32_t)page_bytes(p) - 1, next_time(p));
}

int kist_pages_stat(kist_pages *p, kist_pages_stats *out)
{
    kist_pages_stats s = { .size = out->size };

    if (out->size < sizeof *out)
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                       "kist_pages_stats.size is not set to sizeof(kist_pages_stats)");
    for (uint64_t set = 0; set < p->sets; set++) {
        struct stripe *stripe = set_lock(p, set);

        for (uint64_t i = set * p->ways; i < (set + 1) * p->ways; i++) {
            if (p->tags[i] == PAGES_NONE)
                continue;
            s.resident++;
            s.pinned += p->frames[i].pins > 0;
            if (!p->threads && front_names(p, front_of(p, p->tags[i]), p->tags[i]))
                front_collect(p, front_of(p, p->tags[i]));
        }
        set_unlock(p, stripe);
    }
    for (uint64_t i = 0; i < (p->threads ? PAGES_STRIPES : 1); i++) {
        struct stripe *stripe = set_lock(p, i);

        s.hits += stripe->hits;
        s.misses += stripe->misses;
        s.calls += stripe->calls;
        s.evictions += stripe->evictions;
        set_unlock(p, stripe);
    }
    *out = s;
    return KIST_OK;
}
