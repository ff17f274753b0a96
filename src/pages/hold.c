/*
 * hold.c - slices: bytes that stay as they are until they are released.
 *
 * A slice pins the frame of its page (P3), or owns bytes outside of the
 * frames: those of a page that found no frame, or a view over borders.
 */
#include "pages/cache.h"

#include "base/err.h"

static bool holds_frame(const kist_pages *p, const kist_slice *slice)
{
    const struct frame *f = slice->hold;

    return f >= p->frames && f < p->frames + frame_count(p);
}

/* `skip` bytes into the page, at most `most`; the page is left. */
static void hold_page(kist_pages *p, struct page *page, size_t skip, size_t most, kist_slice *out)
{
    size_t len = page->len - skip < most ? page->len - skip : most;

    if (page->frame)
        page->frame->pins++;
    *out = (kist_slice){
        .addr = page_pos(p, page->number) + skip,
        .bytes = { page->data + skip, len },
        .hold = page->frame ? (void *)page->frame : (void *)page->loose,
    };
    page->loose = NULL;
    page_leave(p, page);
}

int kist_pages_load(kist_pages *p, uint64_t addr, size_t len, kist_slice *out)
{
    struct page page;
    int rc;

    if (len < 1 || len > page_bytes(p))
        return err_set(KIST_EINVAL, NULL, NULL, addr, "%zu bytes are no part of a page", len);
    if (addr >= PAGES_END)
        return KIST_END;
    rc = page_enter(p, page_of(p, addr), &page);
    if (rc != KIST_OK)
        return rc;
    if (page.len < page_offset(p, addr) + len) {
        page_leave(p, &page);
        return KIST_END;
    }
    hold_page(p, &page, 0, page_bytes(p), out);
    return KIST_OK;
}

/* Does the device end with what the slice holds? */
static bool ends_here(kist_pages *p, const kist_slice *slice)
{
    size_t len = holds_frame(p, slice) ? ((const struct frame *)slice->hold)->len
                                       : ((const struct loose *)slice->hold)->len;

    return page_offset(p, len) != 0;
}

int kist_pages_next(kist_pages *p, kist_slice *slice)
{
    uint64_t last, next;

    if (!slice->hold)
        return KIST_END;
    last = slice->addr + (slice->bytes.len - 1);
    next = ends_here(p, slice) ? PAGES_END : page_pos(p, page_of(p, last) + 1);
    kist_slice_release(p, slice);
    return next >= PAGES_END ? KIST_END : kist_pages_load(p, next, 1, slice);
}

void kist_slice_release(kist_pages *p, kist_slice *slice)
{
    if (!slice || !slice->hold)
        return;
    if (holds_frame(p, slice)) {
        struct stripe *stripe = set_lock(p, set_of(p, page_of(p, slice->addr)));

        frame_unpin(p, slice->hold);
        set_unlock(p, stripe);
    } else {
        loose_drop(p, slice->hold);
    }
    *slice = (kist_slice){ 0 };
}

/* ---- views ------------------------------------------------------------ */

static int view_in_page(kist_pages *p, uint64_t addr, size_t len, kist_slice *out)
{
    size_t skip = page_offset(p, addr);
    struct page page;
    int rc = page_enter(p, page_of(p, addr), &page);

    if (rc != KIST_OK)
        return rc;
    if (page.len <= skip) {
        page_leave(p, &page);
        return KIST_END;
    }
    hold_page(p, &page, skip, len, out);
    return KIST_OK;
}

static int view_over_borders(kist_pages *p, uint64_t addr, size_t len, kist_slice *out)
{
    size_t skip = page_offset(p, addr);
    uint64_t pages = page_of(p, addr + (len - 1)) - page_of(p, addr) + 1;
    struct loose *loose;
    int rc;

    if (!p->device.map && !p->device.lend)
        return err_set(KIST_EINVAL, NULL, NULL, addr,
                       "a view over borders of pages needs a device that can be asked");
    pages_count_call(p);
    rc = loose_fetch(p, addr - skip, (size_t)(pages << p->head.shift), &loose);
    if (rc != KIST_OK)
        return rc;
    if (loose->len <= skip) {
        loose_drop(p, loose);
        return KIST_END;
    }
    *out = (kist_slice){
        .addr = addr,
        .bytes = { loose->data + skip, loose->len - skip < len ? loose->len - skip : len },
        .hold = loose,
    };
    return KIST_OK;
}

/* A long view is not asked for beyond the end, if that is known: it would take
 * memory for nothing. */
static size_t cut_view(const kist_pages *p, uint64_t addr, size_t len)
{
    enum { LONG_VIEW = 1 << 20 };
    uint64_t end = PAGES_END, known;

    if (len >= LONG_VIEW && p->device.length && p->device.length(p->device.arg, &known) == 0 &&
        known > addr)
        end = known < PAGES_END ? known : PAGES_END;
    return len < end - addr ? len : (size_t)(end - addr);
}

int kist_pages_view(kist_pages *p, uint64_t addr, size_t len, kist_slice *out)
{
    if (len == 0)
        return err_set(KIST_EINVAL, NULL, NULL, addr, "a view of no bytes");
    if (addr >= PAGES_END)
        return KIST_END;
    len = cut_view(p, addr, len);
    if (page_of(p, addr) == page_of(p, addr + (len - 1)))
        return view_in_page(p, addr, len, out);
    return view_over_borders(p, addr, len, out);
}

/* ---- one page after the other ----------------------------------------- */

int kist_pages_iter(kist_pages *p, uint64_t addr, uint64_t len,
                    int (*each)(uint64_t addr, kist_bytes bytes, void *arg), void *arg)
{
    kist_slice slice = { 0 };
    int rc = len == 0 ? KIST_END : kist_pages_load(p, addr, 1, &slice);

    while (rc == KIST_OK) {
        size_t skip = addr > slice.addr ? (size_t)(addr - slice.addr) : 0;
        size_t n = slice.bytes.len - skip;
        int stop;

        n = n < len ? n : (size_t)len;
        stop =
            each(slice.addr + skip, (kist_bytes){ (const char *)slice.bytes.data + skip, n }, arg);
        len -= n;
        if (stop != 0 || len == 0) {
            kist_slice_release(p, &slice);
            return stop;
        }
        rc = kist_pages_next(p, &slice);
    }
    return rc == KIST_END ? KIST_OK : rc;
}
