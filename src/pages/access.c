/*
 * access.c - numbers, bytes and strings at any address.
 *
 * The getters are inline in the public header; here they become symbols of the
 * library, for other languages. What the front does not have comes this way.
 */
#include "pages/cache.h"

#include "base/err.h"

#include <string.h>

#define X_(name, type, convert)                                                                    \
    extern inline int kist_pages_get_##name(kist_pages *pages, uint64_t addr, type *out);
KIST_PAGES_TYPES(X_)
#undef X_
extern inline const void *kist_pages_peek(kist_pages *pages, uint64_t addr, size_t n);

/* As much of [addr, addr + len) as one page can hold. */
static size_t piece(const kist_pages *p, uint64_t addr, size_t len)
{
    size_t room = page_bytes(p) - page_offset(p, addr);

    return len < room ? len : room;
}

int kist_pages_read(kist_pages *p, uint64_t addr, void *buf, size_t len)
{
    if (!pages_range_ok(addr, len))
        return len == 0 ? KIST_OK : pages_out_of_bounds(addr, len);
    for (size_t done = 0, n; done < len; done += n) {
        uint64_t at = addr + done;
        struct page page;
        bool there;
        int rc = page_enter(p, page_of(p, at), &page);

        if (rc == KIST_END)
            return pages_out_of_bounds(addr, len);
        if (rc != KIST_OK)
            return rc;
        n = piece(p, at, len - done);
        there = page_offset(p, at) + n <= page.len;
        if (there)
            memcpy((char *)buf + done, page.data + page_offset(p, at), n);
        page_leave(p, &page);
        if (!there)
            return pages_out_of_bounds(addr, len);
    }
    return KIST_OK;
}

/* What of a string one page has; *ended: by a NUL, or with the device. */
static int string_piece(kist_pages *p, uint64_t at, char *buf, size_t room, size_t *n, bool *ended)
{
    size_t skip = page_offset(p, at);
    const uint8_t *from, *nul;
    struct page page;
    int rc = at < PAGES_END ? page_enter(p, page_of(p, at), &page) : KIST_END;

    if (rc != KIST_OK)
        return rc;
    if (page.len <= skip) {
        page_leave(p, &page);
        return KIST_END;
    }
    from = page.data + skip;
    *n = page.len - skip < room ? page.len - skip : room;
    nul = memchr(from, '\0', *n);
    *n = nul ? (size_t)(nul - from) : *n;
    *ended = nul || page.len < page_bytes(p);
    memcpy(buf, from, *n);
    page_leave(p, &page);
    return KIST_OK;
}

int kist_pages_read_string(kist_pages *p, uint64_t addr, char *buf, size_t cap, size_t *len)
{
    size_t used = 0, n = 0;
    bool ended = false;
    int rc;

    if (cap == 0)
        return err_set(KIST_EINVAL, NULL, NULL, addr, "no room for the end of a string");
    do { /* once in any case: is a byte there? */
        rc = string_piece(p, addr + used, buf + used, cap - 1 - used, &n, &ended);
        used += rc == KIST_OK ? n : 0;
    } while (rc == KIST_OK && !ended && used + 1 < cap);
    if (rc == KIST_END && used == 0)
        return pages_out_of_bounds(addr, 1);
    if (rc != KIST_OK && rc != KIST_END)
        return rc;
    buf[used] = '\0';
    *len = used;
    return KIST_OK;
}

uint64_t kist_pages_calls(const kist_pages *p, uint64_t addr, uint64_t len)
{
    if (len == 0 || addr >= PAGES_END)
        return 0;
    if (len > PAGES_END - addr)
        len = PAGES_END - addr;
    return page_of(p, addr + (len - 1)) - page_of(p, addr) + 1;
}
