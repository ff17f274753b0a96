/*
 * supply.c - pages that are fetched outside of a lock: handed in by an event
 * loop that asked what is missing, or read ahead.
 *
 * Between the question and the answer the device may have been written. Each
 * invalidation notes its time with the sets it concerns, and who fetches
 * brings along the time when it began: what is older than its set's last
 * invalidation is not taken (P4).
 */
#include "pages/cache.h"

#include "base/err.h"

#include <string.h>

/* ---- handing in ------------------------------------------------------- */

/* One page, `len` bytes of it. One that is there stays. `wanted`: it counts as
 * used already. */
static int take_page(kist_pages *p, uint64_t number, const void *data, size_t len, uint64_t ticket,
                     bool wanted)
{
    uint64_t set = set_of(p, number);
    struct stripe *stripe = set_lock(p, set);
    struct frame *f = NULL;
    int rc = p->changed[set] > ticket ? KIST_CHANGED : KIST_OK;

    if (rc == KIST_OK && !frame_find(p, number)) {
        f = frame_make_room(p, number, wanted);
        rc = f ? KIST_OK : KIST_EBUSY;
    }
    if (f) {
        memcpy(frame_memory(p, f), data, len);
        frame_settle(p, f, number, frame_memory(p, f), len);
    }
    set_unlock(p, stripe);
    return rc;
}

/* `len` bytes from a page's border on; at least one page, though it be empty. */
static int take_pages(kist_pages *p, uint64_t number, const void *data, size_t len, uint64_t ticket,
                      bool wanted)
{
    const uint8_t *from = data;
    int first = KIST_OK;

    do {
        size_t n = len < page_bytes(p) ? len : page_bytes(p);
        int rc = take_page(p, number, from, n, ticket, wanted);

        if (first == KIST_OK)
            first = rc;
        number++;
        from += n;
        len -= n;
    } while (len > 0);
    return first;
}

int kist_pages_supply(kist_pages *p, uint64_t addr, const void *data, size_t len, uint64_t ticket)
{
    int rc;

    if (page_offset(p, addr) != 0)
        return err_set(KIST_EINVAL, NULL, NULL, addr, "pages are handed in from a border on");
    if (!p->arena.base)
        return err_set(KIST_EINVAL, NULL, NULL, addr, "the device lends its pages itself");
    if (!pages_range_ok(addr, len))
        return pages_out_of_bounds(addr, len);
    rc = take_pages(p, page_of(p, addr), data, len, ticket, true);
    if (rc == KIST_EBUSY)
        return err_set(rc, NULL, NULL, addr, "slices hold every place that a page could have");
    return rc;
}

/* ---- what is missing -------------------------------------------------- */

static bool is_there(kist_pages *p, uint64_t number)
{
    struct stripe *stripe = set_lock(p, set_of(p, number));
    struct frame *f = frame_find(p, number);

    if (f)
        f->used = true;
    set_unlock(p, stripe);
    return f != NULL;
}

int kist_pages_missing(kist_pages *p, uint64_t addr, uint64_t len, kist_pages_gap *gaps, size_t cap,
                       size_t *n)
{
    uint64_t ticket = atomic_load_explicit(&p->changes, memory_order_acquire); /* next_time() */
    uint64_t number = page_of(p, addr), end, behind = PAGES_NONE;
    size_t found = 0;

    if (!pages_range_ok(addr, len))
        return pages_out_of_bounds(addr, len);
    end = len == 0 ? number : page_of(p, addr + (len - 1)) + 1;
    for (; number < end; number++) {
        if (is_there(p, number))
            continue;
        if (number == behind) {
            gaps[found - 1].len += page_bytes(p);
        } else if (found < cap) {
            gaps[found++] = (kist_pages_gap){ page_pos(p, number), page_bytes(p), ticket };
        } else {
            break;
        }
        behind = number + 1;
    }
    *n = found;
    return KIST_OK;
}

/* ---- reading ahead ---------------------------------------------------- */

/* The missed page and those behind it, in one call. What can't be had this
 * way is no error: it will be asked for alone, if it is wanted. */
static void fetch_ahead(kist_pages *p, uint64_t number, uint64_t ticket)
{
    size_t len = ((size_t)p->opt.ahead_pages + 1) << p->head.shift, got;
    const uint8_t *data;

    if (len > PAGES_END - page_pos(p, number))
        return;
    pages_count_call(p);
    if (device_fetch(p, page_pos(p, number), len, page_align_up(p, p->ahead_buf), &data, &got) !=
        KIST_OK)
        return;
    (void)take_pages(p, number, data, got, ticket, false); /* a scan's pages are the first to go */
    number += (got + page_bytes(p) - 1) >> p->head.shift;
    atomic_store_explicit(&p->expected, number, memory_order_relaxed); /* a hint */
}

/* Devices that lend are told what will be wanted, when half of that is used. */
static void hint_ahead(kist_pages *p, uint64_t number)
{
    uint64_t from = number + 1, ahead = p->opt.ahead_pages;

    if (!p->device.ahead ||
        (from < p->hinted && p->hinted - from > ahead / 2 && p->hinted - from <= ahead))
        return;
    p->hinted = from + ahead;
    p->device.ahead(p->device.arg, page_pos(p, from), ahead << p->head.shift);
}

void pages_read_ahead(kist_pages *p, uint64_t number)
{
    uint64_t ticket = atomic_load_explicit(&p->changes, memory_order_acquire); /* next_time() */
    uint64_t expected = atomic_exchange_explicit(&p->expected, number + 1, memory_order_relaxed);

    if (number != expected || number == 0 || (p->threads && !os_mutex_try(&p->ahead_lock)))
        return; /* somebody else reads ahead: this page will do */
    if (p->ahead_buf)
        fetch_ahead(p, number, ticket);
    else
        hint_ahead(p, number);
    if (p->threads)
        os_mutex_unlock(&p->ahead_lock);
}
