/*
 * write.c - the write pipeline: what was set and is not written yet.
 *
 * A page with pending bytes has a buffer and a bitmap that says which bytes of
 * it were set. They are kept twice: sorted by number, and in a list by the
 * time of their first set. A commit plans an order, cuts it into runs of pages
 * that lie one behind the other, and hands each run to the device as a whole.
 *
 *     sorted    [ 3 ][ 4 ][ 5 ][ 9 ]          bitmap of page 4
 *                 |----- run ----|  |- run    00111100 00000000 ...
 *
 * Invariants
 *   W1  a byte is pending exactly if its bit is set; what else a buffer holds
 *       means nothing (a commit puts the device's bytes there)
 *   W2  a page leaves when the device has taken it, and with KIST_WRITER_SYNC
 *       when it has synced; a failure leaves everything else as it was
 *   W3  the cache forgets a page after writev returned, whatever it said
 *   W4  the device's length changes only by pending bytes behind its end
 *
 * Its lock (with KIST_PAGES_THREADS) is taken before those of sets.
 */
#include "pages/cache.h"

#include "base/err.h"

#include <string.h>

enum { PENDING_DEFAULT = 1024, PENDING_MAX = 65536 };

struct pending {
    uint64_t number;
    struct pending *older, *newer;
    uint8_t *data;  /* a page */
    uint32_t count; /* bits that are set */
    bool taken;     /* by the device, in the commit under way */
    uint8_t set[];
};

struct kist_writer {
    kist_pages *pages;
    os_mutex lock;
    uint32_t flags;
    uint64_t limit; /* no byte is set from here on */
    size_t most;    /* pages */

    struct pending **sorted; /* `used` of them */
    size_t used;
    struct pending *oldest, *newest;
    uint64_t reach; /* the device has been written up to here ... */
    uint64_t told;  /* ... since the program told of this many changes */

    struct pending **plan; /* of a commit */
    kist_bytes pieces[OS_PIECES_MAX];
    kist_writer_stats stats;
};

static void lock(kist_writer *w)
{
    if (w->pages->threads)
        os_mutex_lock(&w->lock);
}

static void unlock(kist_writer *w)
{
    if (w->pages->threads)
        os_mutex_unlock(&w->lock);
}

/* ---- bitmaps ---------------------------------------------------------- */

/* The bits from `from` on that one byte of a bitmap has, at most `n`. */
static size_t bits_here(size_t from, size_t n, uint8_t *mask)
{
    size_t first = from % 8, k = 8 - first < n ? 8 - first : n;

    *mask = (uint8_t)(((1u << k) - 1) << first);
    return k;
}

static uint32_t ones(unsigned bits)
{
    bits = bits - (bits >> 1 & 0x55);
    bits = (bits & 0x33) + (bits >> 2 & 0x33);
    return (bits + (bits >> 4)) & 15;
}

/* Returns how many of them were not set before. */
static uint32_t bits_set(uint8_t *set, size_t from, size_t n)
{
    uint32_t fresh = 0;
    uint8_t mask;

    for (size_t k; n > 0; from += k, n -= k) {
        k = bits_here(from, n, &mask);
        fresh += ones((unsigned)(mask & ~set[from / 8]));
        set[from / 8] |= mask;
    }
    return fresh;
}

static bool bits_all(const uint8_t *set, size_t from, size_t n)
{
    uint8_t mask;

    for (size_t k; n > 0; from += k, n -= k) {
        k = bits_here(from, n, &mask);
        if ((set[from / 8] & mask) != mask)
            return false;
    }
    return true;
}

static bool bit(const uint8_t *set, size_t i)
{
    return set[i / 8] >> i % 8 & 1;
}

/* Behind the last byte that is set; some is. */
static size_t set_end(const kist_writer *w, const struct pending *page)
{
    size_t end = page_bytes(w->pages);

    while (!bit(page->set, end - 1))
        end--;
    return end;
}

/* ---- pending pages ---------------------------------------------------- */

/* Where the first page with this number or a higher one is. */
static size_t lower_bound(const kist_writer *w, uint64_t number)
{
    size_t from = 0, to = w->used;

    if (to > 0 && w->sorted[to - 1]->number < number)
        return to;
    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (w->sorted[middle]->number < number)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static struct pending *find(const kist_writer *w, uint64_t number)
{
    size_t i = lower_bound(w, number);

    return i < w->used && w->sorted[i]->number == number ? w->sorted[i] : NULL;
}

static struct pending *pending_new(kist_writer *w, uint64_t number)
{
    size_t align = page_align(w->pages), bytes = page_bytes(w->pages);
    struct pending *page = os_alloc(sizeof *page + (bytes + 7) / 8 + align + bytes);
    size_t at = lower_bound(w, number);

    if (!page)
        return NULL;
    page->number = number;
    page->data = page_align_up(w->pages, page->set + (bytes + 7) / 8);
    memmove(&w->sorted[at + 1], &w->sorted[at], (w->used - at) * sizeof(struct pending *));
    w->sorted[at] = page;
    w->used++;
    page->older = w->newest;
    *(w->newest ? &w->newest->newer : &w->oldest) = page;
    w->newest = page;
    return page;
}

/* The caller takes it out of `sorted`. */
static void pending_free(kist_writer *w, struct pending *page)
{
    *(page->older ? &page->older->newer : &w->oldest) = page->newer;
    *(page->newer ? &page->newer->older : &w->newest) = page->older;
    w->stats.pending_bytes -= page->count;
    os_free(page);
}

static bool was_taken(const struct pending *page)
{
    return page->taken;
}

static bool is_empty(const struct pending *page)
{
    return page->count == 0;
}

static bool is_any(const struct pending *page)
{
    return page != NULL;
}

static void drop(kist_writer *w, bool (*which)(const struct pending *page))
{
    size_t kept = 0;

    for (size_t i = 0; i < w->used; i++) {
        if (which(w->sorted[i]))
            pending_free(w, w->sorted[i]);
        else
            w->sorted[kept++] = w->sorted[i];
    }
    w->used = kept;
}

/* ---- writing to the device -------------------------------------------- */

/* The device's bytes where none are pending; it has `have` of them. */
static void fill_in(kist_writer *w, struct pending *page, const uint8_t *from, size_t have)
{
    for (size_t i = 0; i < page_bytes(w->pages); i++)
        if (!bit(page->set, i))
            page->data[i] = i < have ? from[i] : 0;
}

/* Not from the cache, which may be older than the device; where the device
 * can't be asked, there is nothing else. */
static int complete(kist_writer *w, struct pending *page, size_t *len)
{
    kist_pages *p = w->pages;
    bool can_ask = p->device.map || p->device.lend;
    struct loose *loose = NULL;
    struct page cached;
    size_t have = 0;
    int rc;

    *len = page_bytes(p);
    if (page->count == page_bytes(p))
        return KIST_OK;
    if (can_ask)
        pages_count_call(p);
    rc = can_ask ? loose_fetch(p, page_pos(p, page->number), page_bytes(p), &loose)
                 : page_enter(p, page->number, &cached);
    if (rc != KIST_OK && rc != KIST_END)
        return rc;
    if (rc == KIST_OK)
        have = can_ask ? loose->len : cached.len;
    fill_in(w, page, have == 0 ? NULL : can_ask ? loose->data : cached.data, have);
    if (rc == KIST_OK && can_ask)
        loose_drop(p, loose);
    else if (rc == KIST_OK)
        page_leave(p, &cached);
    *len = have > set_end(w, page) ? have : set_end(w, page); /* W4 */
    return KIST_OK;
}

static int write_failed(int rc, uint64_t pos)
{
    if (rc > 0)
        rc = KIST_EDEVICE;
    return err_set(rc, NULL, NULL, pos, "cannot write to the device: %s", kist_strerror(rc));
}

/* The device may have been cut short by whoever invalidates. Asked after
 * writev: what is cached by then, and short, may be older than that. */
static void update_reach(kist_writer *w)
{
    uint64_t told =
        atomic_load_explicit(&w->pages->told, memory_order_acquire); /* kist_pages_invalidate() */

    if (told != w->told)
        w->reach = 0;
    w->told = told;
}

static int write_run(kist_writer *w, struct pending **run, size_t n)
{
    kist_pages *p = w->pages;
    uint64_t pos = page_pos(p, run[0]->number), end;
    size_t len = 0;
    int rc;

    for (size_t i = 0; i < n; i++) {
        rc = complete(w, run[i], &len);
        if (rc != KIST_OK)
            return rc;
        if (i < n - 1)
            len = page_bytes(p); /* with zeros where the device had ended */
        w->pieces[i] = (kist_bytes){ run[i]->data, len };
    }
    end = pos + ((uint64_t)(n - 1) << p->head.shift) + len;
    w->stats.calls++;
    rc = p->device.writev(p->device.arg, pos, w->pieces, n);
    pages_forget(p, pos, end - pos); /* W3 */
    update_reach(w);
    if (end > w->reach)
        pages_forget_short(p); /* where it ended before it may have grown */
    if (rc != 0)
        return write_failed(rc, pos);
    w->reach = end > w->reach ? end : w->reach;
    w->stats.written_pages += n;
    for (size_t i = 0; i < n; i++)
        run[i]->taken = true;
    return KIST_OK;
}

/* The pages from `first` to `last`, in the order in which they are to go. */
static size_t make_plan(kist_writer *w, uint64_t first, uint64_t last)
{
    size_t n = 0;

    if (w->flags & KIST_WRITER_IN_ORDER) {
        for (struct pending *page = w->oldest; page; page = page->newer)
            if (page->number >= first && page->number <= last)
                w->plan[n++] = page;
        return n;
    }
    for (size_t i = lower_bound(w, first); i < w->used && w->sorted[i]->number <= last; i++)
        w->plan[n++] = w->sorted[i];
    return n;
}

static size_t run_length(struct pending *const *run, size_t most)
{
    size_t n = 1;

    most = most < OS_PIECES_MAX ? most : OS_PIECES_MAX;
    while (n < most && run[n]->number == run[0]->number + n)
        n++;
    return n;
}

static int sync_device(kist_writer *w)
{
    const kist_device *d = &w->pages->device;
    int rc = d->sync(d->arg);

    if (rc == 0)
        return KIST_OK;
    rc = rc > 0 ? KIST_EDEVICE : rc;
    return err_set(rc, NULL, NULL, ERR_NOWHERE, "cannot sync the device: %s", kist_strerror(rc));
}

static int write_pages(kist_writer *w, uint64_t first, uint64_t last)
{
    size_t count = make_plan(w, first, last);
    int rc = KIST_OK;

    for (size_t at = 0, n; at < count && rc == KIST_OK; at += n) {
        n = run_length(&w->plan[at], count - at);
        rc = write_run(w, &w->plan[at], n);
    }
    if ((w->flags & KIST_WRITER_SYNC) && rc == KIST_OK && count > 0)
        rc = sync_device(w);
    if (rc == KIST_OK || !(w->flags & KIST_WRITER_SYNC)) /* W2 */
        drop(w, was_taken);
    for (size_t i = 0; i < w->used; i++)
        w->sorted[i]->taken = false;
    return rc;
}

int kist_writer_commit(kist_writer *w)
{
    int rc;

    lock(w);
    rc = write_pages(w, 0, PAGES_NONE - 1);
    unlock(w);
    return rc;
}

int kist_writer_persist(kist_writer *w, uint64_t addr, uint64_t len)
{
    uint64_t last;
    int rc;

    if (len == 0 || addr >= PAGES_END)
        return KIST_OK;
    last = len <= PAGES_END - addr ? addr + (len - 1) : PAGES_END - 1;
    lock(w);
    rc = write_pages(w, page_of(w->pages, addr), page_of(w->pages, last));
    unlock(w);
    return rc;
}

void kist_writer_discard(kist_writer *w)
{
    lock(w);
    drop(w, is_any);
    unlock(w);
}

/* ---- setting ---------------------------------------------------------- */

static bool has_room(const kist_writer *w, uint64_t first, uint64_t last)
{
    size_t i = lower_bound(w, first), there = 0;

    while (i + there < w->used && w->sorted[i + there]->number <= last)
        there++;
    return last - first + 1 - there <= w->most - w->used;
}

/* Have all pages there before a byte is set in any. */
static int make_pages(kist_writer *w, uint64_t addr, uint64_t first, uint64_t last)
{
    int rc = KIST_OK;

    if (last - first >= w->most || (!has_room(w, first, last) && !(w->flags & KIST_WRITER_SPILL)))
        return err_set(KIST_EPENDING, NULL, NULL, addr, "%zu pages are pending, of at most %zu",
                       w->used, w->most);
    if (!has_room(w, first, last))
        rc = write_pages(w, 0, PAGES_NONE - 1);
    for (uint64_t number = first; number <= last && rc == KIST_OK; number++)
        if (!find(w, number) && !pending_new(w, number))
            rc = err_set(KIST_ENOMEM, NULL, NULL, addr, "no memory for a pending page");
    if (rc != KIST_OK)
        drop(w, is_empty);
    return rc;
}

static void set_bytes(kist_writer *w, uint64_t addr, const uint8_t *from, size_t len)
{
    kist_pages *p = w->pages;

    for (size_t done = 0, n; done < len; done += n) {
        size_t skip = page_offset(p, addr + done);
        struct pending *page = find(w, page_of(p, addr + done));
        uint32_t fresh;

        n = len - done < page_bytes(p) - skip ? len - done : page_bytes(p) - skip;
        memcpy(page->data + skip, from + done, n);
        fresh = bits_set(page->set, skip, n);
        page->count += fresh;
        w->stats.pending_bytes += fresh;
    }
}

int kist_writer_write(kist_writer *w, uint64_t addr, const void *data, size_t len)
{
    int rc;

    if (len == 0)
        return KIST_OK;
    if (addr >= w->limit || len > w->limit - addr)
        return err_set(KIST_EBOUNDS, NULL, NULL, addr,
                       "%zu bytes at address %llu reach past what may be written", len,
                       (unsigned long long)addr);
    lock(w);
    rc = make_pages(w, addr, page_of(w->pages, addr), page_of(w->pages, addr + (len - 1)));
    if (rc == KIST_OK)
        set_bytes(w, addr, data, len);
    unlock(w);
    return rc;
}

/* ---- reading ---------------------------------------------------------- */

/* Behind the last byte that is pending anywhere; 0: none is. */
static uint64_t pending_end(const kist_writer *w)
{
    const struct pending *last = w->used > 0 ? w->sorted[w->used - 1] : NULL;

    return last ? page_pos(w->pages, last->number) + set_end(w, last) : 0;
}

/* What the cache has of a piece of one page; zeros where the device ends before
 * something that is pending; KIST_END where it simply ends. */
static int read_below(kist_writer *w, uint64_t at, uint8_t *to, size_t n)
{
    kist_pages *p = w->pages;
    size_t skip = page_offset(p, at), have = 0;
    struct page page;
    int rc = page_enter(p, page_of(p, at), &page);

    if (rc != KIST_OK && rc != KIST_END)
        return rc;
    if (rc == KIST_OK) {
        have = page.len > skip ? page.len - skip : 0;
        have = have < n ? have : n;
        memcpy(to, page.data + skip, have);
        page_leave(p, &page);
    }
    if (have < n && at + n > pending_end(w))
        return KIST_END;
    memset(to + have, 0, n - have);
    return KIST_OK;
}

static int read_piece(kist_writer *w, uint64_t at, uint8_t *to, size_t n)
{
    const struct pending *page = find(w, page_of(w->pages, at));
    size_t skip = page_offset(w->pages, at);
    int rc = KIST_OK;

    if (page && bits_all(page->set, skip, n)) {
        memcpy(to, page->data + skip, n);
        return KIST_OK;
    }
    rc = read_below(w, at, to, n);
    for (size_t i = 0; page && rc == KIST_OK && i < n; i++)
        if (bit(page->set, skip + i))
            to[i] = page->data[skip + i];
    return rc;
}

int kist_writer_read(kist_writer *w, uint64_t addr, void *buf, size_t len)
{
    size_t most = page_bytes(w->pages);
    int rc = KIST_OK;

    if (!pages_range_ok(addr, len))
        return len == 0 ? KIST_OK : pages_out_of_bounds(addr, len);
    lock(w);
    for (size_t done = 0, n; done < len && rc == KIST_OK; done += n) {
        n = most - page_offset(w->pages, addr + done);
        n = len - done < n ? len - done : n;
        rc = read_piece(w, addr + done, (uint8_t *)buf + done, n);
    }
    unlock(w);
    return rc == KIST_END ? pages_out_of_bounds(addr, len) : rc;
}

/* ---- numbers ---------------------------------------------------------- */

#define X_(name, type, convert)                                                                    \
    int kist_writer_get_##name(kist_writer *w, uint64_t addr, type *out)                           \
    {                                                                                              \
        type v;                                                                                    \
        int rc = kist_writer_read(w, addr, &v, sizeof v);                                          \
                                                                                                   \
        if (rc == KIST_OK)                                                                         \
            *out = (type)convert(v);                                                               \
        return rc;                                                                                 \
    }                                                                                              \
    int kist_writer_set_##name(kist_writer *w, uint64_t addr, type value)                          \
    {                                                                                              \
        type v = (type)convert(value);                                                             \
                                                                                                   \
        return kist_writer_write(w, addr, &v, sizeof v);                                           \
    }
KIST_PAGES_TYPES(X_)
#undef X_

/* ---- opening and closing ---------------------------------------------- */

static int options_check(const kist_writer_options *o, const kist_device *d)
{
    const uint32_t known = KIST_WRITER_SYNC | KIST_WRITER_IN_ORDER | KIST_WRITER_SPILL;

    if ((o->flags & ~known) != 0)
        return options_bad("flags");
    if (o->reserved != 0)
        return options_bad("reserved");
    if (o->pending_pages > PENDING_MAX)
        return options_bad("pending_pages");
    if (o->device_bytes > PAGES_END)
        return options_bad("device_bytes");
    if (!d->writev || ((o->flags & KIST_WRITER_SYNC) && !d->sync))
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE, "the device has no way to be %s",
                       d->writev ? "synced" : "written");
    return KIST_OK;
}

int kist_writer_open(kist_writer **out, kist_pages *pages, const kist_writer_options *opt)
{
    kist_writer_options o;
    kist_writer *w;
    int rc;

    *out = NULL;
    rc = options_take(&o, sizeof o, opt, "kist_writer_options");
    if (rc == KIST_OK)
        rc = options_check(&o, &pages->device);
    if (rc != KIST_OK)
        return rc;
    w = os_alloc(sizeof *w);
    if (!w)
        return err_set(KIST_ENOMEM, NULL, NULL, ERR_NOWHERE, "no memory for a writer");
    w->pages = pages;
    w->flags = o.flags;
    w->limit = o.device_bytes ? o.device_bytes : PAGES_END;
    w->most = o.pending_pages ? o.pending_pages : PENDING_DEFAULT;
    os_mutex_init(&w->lock);
    w->sorted = os_alloc(w->most * sizeof(struct pending *));
    w->plan = os_alloc(w->most * sizeof(struct pending *));
    if (!w->sorted || !w->plan) {
        kist_writer_close(w);
        return err_set(KIST_ENOMEM, NULL, NULL, ERR_NOWHERE, "no memory for a writer");
    }
    *out = w;
    return KIST_OK;
}

void kist_writer_close(kist_writer *w)
{
    if (!w)
        return;
    drop(w, is_any);
    os_free(w->plan);
    os_free(w->sorted);
    os_free(w);
}

int kist_writer_stat(kist_writer *w, kist_writer_stats *out)
{
    uint32_t size = out->size;

    if (size < sizeof *out)
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                       "kist_writer_stats.size is not set to sizeof(kist_writer_stats)");
    lock(w);
    *out = w->stats;
    out->size = size;
    out->pending_pages = w->used;
    unlock(w);
    return KIST_OK;
}
