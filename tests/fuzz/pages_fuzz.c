/*
 * The page cache and the write pipeline, as the input says, over a device that
 * may do whatever it likes: fail, return fewer bytes or more, move its end.
 * While it is honest, every byte that is read is compared with an array; always,
 * nothing may crash, hang, leak, or trip a sanitizer.
 *
 * Input:  byte 0   page size, log2, modulo 13; bit 7: KIST_PAGES_THREADS
 *         byte 1   cached pages, log2, modulo 6; bits 4, 5: kind of the device;
 *                  bits 6, 7: flags of the writer
 *         byte 2   length of the device, in eighths of a page
 *         byte 3   pages that may be pending, less 1; read-ahead in bits 6, 7
 *         then     operations of 4 bytes: what, an address (2 bytes, modulo a bit
 *                  more than the device), a length or value
 */
#include "paged.h"
#include "support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = 1 << 18, HELD = 8 };

struct state {
    struct paged d;
    kist_pages *pages;
    kist_writer *writer;
    kist_slice held[HELD];
    unsigned char *logical; /* what the writer must see */
    uint64_t len;
    bool honest; /* nothing has failed, and nobody has lied */
};

static unsigned char buf[ROOM];
static volatile unsigned touched;

static void compare(struct state *s, int rc, uint64_t addr, size_t n, const unsigned char *bytes,
                    uint64_t len)
{
    if (!s->honest || n == 0)
        return;
    if (rc == KIST_OK)
        must(addr + n <= len && memcmp(buf, bytes + addr, n) == 0);
    else
        must(rc == KIST_EBOUNDS && addr + n > len);
}

static void read_some(struct state *s, uint64_t addr, size_t n)
{
    compare(s, kist_pages_read(s->pages, addr, buf, n), addr, n, s->d.bytes, s->d.len);
    compare(s, kist_writer_read(s->writer, addr, buf, n), addr, n, s->logical, s->len);
}

static void write_some(struct state *s, uint64_t addr, size_t n, uint8_t with)
{
    memset(buf, with, n);
    if (n == 0 || addr + n > ROOM / 2 || kist_writer_write(s->writer, addr, buf, n) != KIST_OK)
        return;
    memcpy(s->logical + addr, buf, n);
    s->len = addr + n > s->len ? addr + n : s->len;
}

static void write_out(struct state *s, bool all, uint64_t addr, uint64_t n)
{
    int rc = all ? kist_writer_commit(s->writer) : kist_writer_persist(s->writer, addr, n);

    if (s->honest)
        must_ok(rc);
    if (s->honest && all)
        must(s->d.len == s->len && memcmp(s->d.bytes, s->logical, s->len) == 0);
}

static void discard(struct state *s)
{
    kist_writer_discard(s->writer);
    memset(s->logical, 0, ROOM);
    memcpy(s->logical, s->d.bytes, s->d.len);
    s->len = s->d.len;
}

static void hold(struct state *s, uint64_t addr, size_t n)
{
    kist_slice *slice = &s->held[n % HELD];

    if (slice->hold && n % 3 == 0)
        (void)!kist_pages_next(s->pages, slice);
    else
        kist_slice_release(s->pages, slice);
    if (!slice->hold && n % 2)
        (void)!kist_pages_load(s->pages, addr, 1, slice);
    else if (!slice->hold)
        (void)!kist_pages_view(s->pages, addr, n + 1, slice);
}

/* All that is held can be read, whatever happened. */
static void touch_held(const struct state *s)
{
    for (int i = 0; i < HELD; i++)
        for (size_t k = 0; s->held[i].hold && k < s->held[i].bytes.len; k++)
            touched += ((const unsigned char *)s->held[i].bytes.data)[k];
}

static void supply(struct state *s, uint64_t addr, size_t n)
{
    kist_pages_gap gap;
    size_t count = 0;

    if (kist_pages_missing(s->pages, addr, n, &gap, 1, &count) != KIST_OK || count == 0)
        return;
    n = gap.addr + gap.len <= s->d.len ? gap.len : gap.addr < s->d.len ? s->d.len - gap.addr : 0;
    (void)!kist_pages_supply(s->pages, gap.addr, s->d.bytes + (n > 0 ? gap.addr : 0), n,
                             gap.ticket);
}

/* From here on anything may be. */
static void lie(struct state *s, uint64_t addr, uint8_t how)
{
    s->honest = false;
    switch (how % 5) {
    case 0:
        s->d.map_fails_at = s->d.maps + 1 + how / 5 % 4;
        break;
    case 1:
        s->d.write_fails_at = s->d.writes + 1;
        s->d.torn = how;
        break;
    case 2:
        s->d.too_much = how / 5 % 2; /* more than asked for, or not any more */
        break;
    case 3:
        s->d.len = addr < s->d.len ? addr : s->d.len; /* cut short */
        break;
    default:
        s->d.sync_fails_at = s->d.syncs + 1;
        break;
    }
}

static void step(struct state *s, const uint8_t *op)
{
    uint64_t addr = ((uint64_t)op[1] << 8 | op[2]) % (s->len + 2 * s->d.page + 9);
    size_t n = (size_t)op[3] * (op[0] & 16 ? s->d.page / 8 + 1 : 1);

    n = n < ROOM / 4 ? n : ROOM / 4;
    switch (op[0] % 11) {
    case 0:
    case 1:
        read_some(s, addr, n);
        break;
    case 2:
    case 3:
        write_some(s, addr, n, op[3]);
        break;
    case 4:
        write_out(s, op[3] % 2, addr, n);
        break;
    case 5:
        kist_pages_invalidate(s->pages, addr, op[3] == 255 ? UINT64_MAX : n);
        break;
    case 6:
        hold(s, addr, op[3]);
        break;
    case 7:
        supply(s, addr, n);
        break;
    case 8:
        discard(s);
        break;
    case 9:
        (void)!kist_pages_read_string(s->pages, addr, (char *)buf, n + 1, &n);
        break;
    default:
        if (op[3] > 128)
            lie(s, addr, op[3]);
        break;
    }
    touch_held(s);
}

static void open_state(struct state *s, const uint8_t *head)
{
    uint64_t page = UINT64_C(1) << (head[0] & 127) % 13;
    kist_pages_options opt = { .size = sizeof opt,
                               .flags = head[0] >> 7,
                               .page_bytes = (uint32_t)page,
                               .cache_pages = 1u << head[1] % 6 };
    kist_writer_options wopt = { .size = sizeof wopt,
                                 .flags = head[1] >> 6,
                                 .pending_pages = (head[3] & 63u) + 1 };
    enum paged_kind kind = (enum paged_kind)((head[1] >> 4 & 3) % PAGED_KINDS);
    kist_device device;

    paged_init(&s->d, head[2] * page / 8, ROOM, page, 1);
    device = paged_device(&s->d, kind);
    opt.ahead_pages = (head[3] >> 6) < opt.cache_pages / 2 ? head[3] >> 6 : 0;
    must_ok(kist_pages_open(&s->pages, &device, &opt));
    must_ok(kist_writer_open(&s->writer, s->pages, &wopt));
    s->logical = calloc(1, ROOM);
    must(s->logical != NULL);
    discard(s);
    s->honest = kind != PAGED_NEITHER; /* there, pages are absent */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state s = { .honest = true };

    if (size < 4)
        return 0;
    open_state(&s, data);
    for (size_t i = 4; i + 4 <= size; i += 4)
        step(&s, data + i);
    for (int i = 0; i < HELD; i++)
        kist_slice_release(s.pages, &s.held[i]);
    kist_writer_close(s.writer);
    kist_pages_close(s.pages);
    paged_free(&s.d);
    free(s.logical);
    return 0;
}
