/* The write pipeline: what is pending, what a commit asks of the device, and
 * what is left when the device fails. */
#include "paged.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 64, ROOM = 1 << 20 };

static kist_writer *writer_over(kist_pages *p, uint32_t flags, uint32_t most)
{
    kist_writer_options opt = { .size = sizeof opt, .flags = flags, .pending_pages = most };
    kist_writer *w;

    must_ok(kist_writer_open(&w, p, &opt));
    return w;
}

static kist_writer_stats stats_of(kist_writer *w)
{
    kist_writer_stats s = { .size = sizeof s };

    must_ok(kist_writer_stat(w, &s));
    return s;
}

TEST(options_out_of_their_range_are_refused)
{
    static const kist_writer_options bad[] = { { .flags = 8 },
                                               { .pending_pages = 65537 },
                                               { .reserved = 1 },
                                               { .device_bytes = UINT64_MAX } };
    struct paged d;
    kist_device device;
    kist_pages *p;
    kist_writer *w = (kist_writer *)&d;

    paged_init(&d, 100, 100, 4096, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kist_writer_options opt = bad[i];

        opt.size = sizeof opt;
        must_rc(kist_writer_open(&w, p, &opt), KIST_EINVAL);
        must(w == NULL);
    }
    must_ok(kist_writer_open(&w, p, NULL));
    must_rc(kist_writer_stat(w, &(kist_writer_stats){ 0 }), KIST_EINVAL);
    kist_writer_close(w);
    kist_writer_close(NULL);
    kist_pages_close(p);

    device = paged_device(&d, PAGED_COPY);
    device.sync = NULL;
    must_ok(kist_pages_open(&p, &device, NULL));
    must_rc(kist_writer_open(&w, p,
                             &(kist_writer_options){ .size = sizeof(kist_writer_options),
                                                     .flags = KIST_WRITER_SYNC }),
            KIST_EINVAL);
    kist_pages_close(p);
    device.writev = NULL;
    must_ok(kist_pages_open(&p, &device, NULL));
    must_rc(kist_writer_open(&w, p, NULL), KIST_EINVAL);
    kist_pages_close(p);
    paged_free(&d);
}

/* The byte order that a predecessor got wrong when it was pending. */
TEST(a_pending_number_reads_back_in_its_order_of_bytes)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;
    uint64_t v = 0;
    kist_u128 big = (kist_u128)UINT64_C(0x0102030405060708) << 64 | 0x090a0b0c0d0e0f10, got = 0;

    paged_init(&d, 4 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    w = writer_over(p, 0, 0);
    for (uint64_t addr = 0; addr < 3 * PAGE; addr++) {
        uint64_t x = mix(addr, 1);

        must_ok(kist_writer_set_u64_be(w, addr, x));
        must_ok(kist_writer_get_u64_be(w, addr, &v));
        must(v == x);
        must_ok(kist_writer_get_u64_le(w, addr, &v));
        must(v == __builtin_bswap64(x));
        must_ok(kist_writer_set_u128_be(w, addr, big));
        must_ok(kist_writer_get_u128_be(w, addr, &got));
        must(got == big);
        must_ok(kist_writer_get_u64_be(w, addr + 8, &v));
        must(v == 0x090a0b0c0d0e0f10);
    }
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(pages_one_behind_the_other_go_in_one_call_and_the_last_value_wins)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;

    paged_init(&d, 20 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    w = writer_over(p, 0, 0);
    for (uint64_t addr = 12 * PAGE; addr < 15 * PAGE; addr += 8) {
        must_ok(kist_writer_set_u64_le(w, addr, 1));
        must_ok(kist_writer_set_u64_le(w, addr, addr));
    }
    must_ok(kist_writer_set_u16_le(w, 3 * PAGE + 5, 0x1234));
    must_ok(kist_writer_set_u16_le(w, 2 * PAGE - 1, 0x5678)); /* over a border */
    must(stats_of(w).pending_pages == 6 && stats_of(w).pending_bytes == 3 * PAGE + 4);
    d.maps = 0;
    must_ok(kist_writer_commit(w));
    must(d.writes == 2 && d.written_at[0] == PAGE && d.written_at[1] == 12 * PAGE);
    must(d.maps == 3); /* the pages that were set in part, and no other */
    must(stats_of(w).pending_pages == 0 && stats_of(w).pending_bytes == 0);
    must(stats_of(w).calls == 2 && stats_of(w).written_pages == 6);
    for (uint64_t addr = 12 * PAGE; addr < 15 * PAGE; addr += 8)
        must(memcmp(d.bytes + addr, &addr, 8) == 0);
    must(d.bytes[2 * PAGE - 1] == 0x78 && d.bytes[2 * PAGE] == 0x56);
    must(d.bytes[2 * PAGE + 1] == (unsigned char)mix(1, 2 * PAGE + 1));
    must_ok(kist_writer_commit(w));
    must(d.writes == 2);
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}

/* Of pages 1 to 4, pages 2 and 3 touch the range; and no page too many is
 * forgotten by the cache. */
TEST(persist_writes_and_forgets_the_pages_of_its_range_and_no_other)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;
    uint8_t v = 0;

    paged_init(&d, 8 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 16, 0);
    w = writer_over(p, 0, 0);
    for (uint64_t page = 0; page < 8; page++)
        must_ok(kist_pages_get_u8(p, page * PAGE, &v));
    for (uint64_t page = 1; page <= 4; page++)
        must_ok(kist_writer_set_u8(w, page * PAGE + 9, 0xEE));
    must_ok(kist_writer_persist(w, 3 * PAGE - 1, 2));
    must(d.writes == 1 && d.written_at[0] == 2 * PAGE && d.pieces == 2);
    for (uint64_t page = 0; page < 8; page++)
        must(kist_pages_is_cached(p, page * PAGE) == (page != 2 && page != 3));
    must(stats_of(w).pending_pages == 2);
    must_ok(kist_writer_persist(w, 5 * PAGE, 100));
    must_ok(kist_writer_persist(w, 0, PAGE));
    must_ok(kist_writer_persist(w, PAGE, 0));
    must_ok(kist_writer_persist(w, UINT64_MAX, 5));
    must(d.writes == 1);
    must_ok(kist_writer_persist(w, PAGE, UINT64_MAX));
    must(d.writes == 3 && stats_of(w).pending_pages == 0);
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(a_device_grows_by_what_is_set_and_not_to_the_end_of_its_page)
{
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++)
        for (uint64_t len = 0; len < 2 * PAGE + 3; len++)
            for (uint64_t at = 0; at < 5 * PAGE; at += 11) {
                struct paged d;
                kist_pages *p;
                kist_writer *w;
                uint64_t end = at + 4 > len ? at + 4 : len, v = 1;
                uint32_t got = 0;

                paged_init(&d, len, ROOM, PAGE, 1);
                p = paged_open(&d, (enum paged_kind)kind, 4, 0);
                if (len > 0)
                    must_ok(kist_pages_get_u8(p, len - 1, (uint8_t *)&v));
                w = writer_over(p, 0, 0);
                must_ok(kist_writer_set_u32_be(w, at, 0xA1B2C3D4));
                must_rc(kist_writer_get_u8(w, end, (uint8_t *)&v), KIST_EBOUNDS);
                if (at > len + 8) {
                    must_ok(kist_writer_get_u64_le(w, len, &v));
                    must(v == 0);
                }
                must_ok(kist_writer_commit(w));
                must(d.len == end);
                if (at > len + 8) {
                    must_ok(kist_pages_get_u64_le(p, len, &v));
                    must(v == 0);
                }
                must_ok(kist_pages_get_u32_be(p, at, &got));
                must(got == 0xA1B2C3D4);
                kist_writer_close(w);
                kist_pages_close(p);
                paged_free(&d);
            }
}

/* Cut short by somebody else, who says so, it grows a second time. */
TEST(a_device_that_was_cut_grows_anew_for_pages_cached_in_between)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;
    uint8_t v = 1;

    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
        paged_init(&d, 0, ROOM, PAGE, 1);
        p = paged_open(&d, (enum paged_kind)kind, 4, 0);
        w = writer_over(p, 0, 0);
        must_ok(kist_writer_set_u8(w, UINT64_C(10) * PAGE, 1));
        must_ok(kist_writer_commit(w));
        d.len = 10;
        memset(d.bytes + d.len, 0, ROOM - d.len);
        kist_pages_invalidate(p, 0, UINT64_MAX);
        must_rc(kist_pages_get_u8(p, 20, &v), KIST_EBOUNDS);
        must_ok(kist_writer_set_u8(w, UINT64_C(5) * PAGE, 1));
        must_ok(kist_writer_commit(w));
        must_ok(kist_pages_get_u8(p, 20, &v));
        must(v == 0);
        kist_writer_close(w);
        kist_pages_close(p);
        paged_free(&d);
    }
}

TEST(no_byte_is_set_behind_the_limit_or_the_end_of_all_addresses)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;
    kist_writer_options opt = { .size = sizeof opt, .device_bytes = 100 };

    paged_init(&d, 100, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    must_ok(kist_writer_open(&w, p, &opt));
    must_ok(kist_writer_set_u32_le(w, 96, 1));
    must_rc(kist_writer_set_u32_le(w, 97, 1), KIST_EBOUNDS);
    must(kist_last_error()->offset == 97);
    must_rc(kist_writer_set_u32_le(w, UINT64_MAX - 1, 1), KIST_EBOUNDS);
    must(stats_of(w).pending_bytes == 4);
    kist_writer_close(w);
    w = writer_over(p, 0, 0);
    must_rc(kist_writer_set_u32_le(w, (UINT64_C(1) << 63) - 2, 1), KIST_EBOUNDS);
    must_rc(kist_writer_set_u64_le(w, UINT64_MAX, 1), KIST_EBOUNDS);
    must_rc(kist_writer_write(w, 10, "", SIZE_MAX), KIST_EBOUNDS);
    must_ok(kist_writer_set_u32_le(w, (UINT64_C(1) << 63) - 4, 1));
    must_ok(kist_writer_write(w, UINT64_MAX, "", 0));
    must_rc(kist_writer_commit(w), -ENOSPC);
    must(stats_of(w).pending_bytes == 4);
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(memory_is_bounded_and_a_set_that_finds_no_room_changes_nothing)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;
    char buf[4 * PAGE] = "";
    uint32_t v = 0, old = 0;

    paged_init(&d, 20 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    w = writer_over(p, 0, 3);
    for (uint64_t page = 0; page < 6; page += 2)
        must_ok(kist_writer_set_u8(w, page * PAGE, 1));
    must_ok(kist_writer_get_u32_le(w, 5 * PAGE - 2, &old));
    must_rc(kist_writer_set_u32_le(w, 5 * PAGE - 2, 77), KIST_EPENDING); /* half of it would fit */
    must_ok(kist_writer_get_u32_le(w, 5 * PAGE - 2, &v));
    must(v == old && stats_of(w).pending_pages == 3 && stats_of(w).pending_bytes == 3);
    must_rc(kist_writer_write(w, 0, buf, sizeof buf), KIST_EPENDING);
    must_ok(kist_writer_set_u32_le(w, 2 * PAGE, 5)); /* in a page that is pending */
    must(d.writes == 0);
    kist_writer_close(w);

    w = writer_over(p, KIST_WRITER_SPILL, 3);
    for (uint64_t page = 0; page < 20; page++)
        must_ok(kist_writer_set_u8(w, page * PAGE, (uint8_t)(page + 100)));
    must(d.writes == 6 && stats_of(w).pending_pages == 2);
    must_rc(kist_writer_write(w, 0, buf, sizeof buf), KIST_EPENDING); /* never fits */
    d.write_fails_at = d.writes + 1;
    must_ok(kist_writer_set_u8(w, 0, 9));
    must_rc(kist_writer_set_u8(w, PAGE, 9), PAGED_FAILS);
    must(stats_of(w).pending_pages == 3);
    must_ok(kist_writer_set_u8(w, PAGE, 9));
    kist_writer_discard(w);
    must(stats_of(w).pending_pages == 0 && stats_of(w).pending_bytes == 0);
    for (uint64_t page = 1; page < 18; page++)
        must(d.bytes[page * PAGE] == page + 100);
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(in_order_pages_go_out_as_they_were_first_set)
{
    static const uint64_t order[] = { 9, 3, 4, 5, 1, 12, 11 };
    struct paged d;
    kist_pages *p;
    kist_writer *w;

    paged_init(&d, 20 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    w = writer_over(p, KIST_WRITER_IN_ORDER, 0);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        must_ok(kist_writer_set_u8(w, order[i] * PAGE, 1));
    must_ok(kist_writer_set_u8(w, 9 * PAGE + 1, 1)); /* not the first set */
    must_ok(kist_writer_commit(w));
    must(d.writes == 5);
    must(d.written_at[0] == 9 * PAGE && d.written_at[1] == 3 * PAGE && d.written_at[2] == PAGE &&
         d.written_at[3] == 12 * PAGE && d.written_at[4] == 11 * PAGE);
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}

/* ---- failures --------------------------------------------------------- */

enum { SETS = 30 };

static void set_some(kist_writer *w, unsigned char *model)
{
    struct rng rng = { 77 };

    for (int i = 0; i < SETS; i++) {
        uint64_t addr = rng_below(&rng, 40 * PAGE), v = rng_next(&rng);

        must_ok(kist_writer_set_u64_le(w, addr, v));
        memcpy(model + addr, &v, 8);
    }
}

static void must_equal(kist_writer *w, const unsigned char *model, uint64_t len)
{
    static unsigned char got[50 * PAGE];

    must_ok(kist_writer_read(w, 0, got, len));
    must(memcmp(got, model, len) == 0);
}

/* Each call of each kind, once; a writev torn after no, some, nearly all of its
 * bytes. What is seen never changes; the next commit brings it all. */
static bool fail_at(uint32_t flags, int what, uint64_t n, uint64_t torn)
{
    static unsigned char model[50 * PAGE];
    struct paged d;
    kist_pages *p;
    kist_writer *w;
    int rc;

    paged_init(&d, 41 * PAGE + 10, ROOM, PAGE, 1);
    memcpy(model, d.bytes, d.len);
    p = paged_open(&d, n % 2 ? PAGED_COPY : PAGED_LEND, 8, 0);
    w = writer_over(p, flags, 0);
    set_some(w, model);
    d.torn = torn;
    d.maps = 0;
    *(what == 0 ? &d.map_fails_at : what == 1 ? &d.write_fails_at : &d.sync_fails_at) = n;
    rc = kist_writer_commit(w);
    must(rc == KIST_OK || rc == PAGED_FAILS);
    if (rc != KIST_OK) {
        must(stats_of(w).pending_pages > 0);
        if (flags & KIST_WRITER_SYNC)
            must(stats_of(w).pending_bytes > 200); /* all of it */
        d.map_fails_at = 0;
        must_equal(w, model, d.len);
        must_ok(kist_writer_set_u8(w, 5, 0xAB));
        model[5] = 0xAB;
        must_equal(w, model, d.len);
        must_ok(kist_writer_commit(w));
    }
    must(memcmp(d.bytes, model, d.len) == 0 && d.len == 41 * PAGE + 10);
    must(stats_of(w).pending_bytes == 0);
    must(!(flags & KIST_WRITER_SYNC) || d.syncs == (what == 2 && rc != KIST_OK ? 2 : 1));
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
    return rc != KIST_OK;
}

TEST(a_call_that_fails_leaves_the_pipeline_as_it_was)
{
    static const uint64_t torn[] = { 0, 1, PAGE - 1, PAGE, PAGE + 1, 100 * PAGE };
    uint64_t tried = 0;

    for (uint32_t flags = 0; flags <= (KIST_WRITER_SYNC | KIST_WRITER_IN_ORDER); flags++)
        for (int what = 0; what < 3; what++)
            for (size_t t = 0; t < (what == 1 ? sizeof torn / sizeof *torn : 1); t++)
                for (uint64_t n = 1; fail_at(flags, what, n, torn[t]); n++)
                    tried++;
    must(tried > 400);
}

/* ---- files and memory ------------------------------------------------- */

TEST(files_and_memory_are_written_too)
{
    static _Alignas(16) unsigned char memory[3 * 4096 + 100];
    char *dir = tmp_dir(TMP_DISK), *path = path_join(dir, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    must(fd >= 0);
    for (uint32_t kind = 0; kind <= KIST_DEVICE_MMAP; kind++) {
        kist_device device;
        kist_pages *p;
        kist_writer *w;
        uint64_t v = 0, len = 0;

        must(ftruncate(fd, sizeof memory) == 0);
        if (kind == 0)
            must_ok(kist_device_memory(&device, memory, sizeof memory, true));
        else
            must_ok(kist_device_open(&device, fd, kind));
        must_ok(kist_pages_open(&p, &device, NULL));
        w = writer_over(p, KIST_WRITER_SYNC, 0);
        must_ok(kist_pages_get_u64_le(p, sizeof memory - 8, &v));
        for (uint64_t addr = 0; addr + 8 <= sizeof memory; addr += 24)
            must_ok(kist_writer_set_u64_be(w, addr, mix(addr, kind)));
        must_ok(kist_writer_commit(w));
        must(stats_of(w).calls == 1);
        for (uint64_t addr = 0; addr + 8 <= sizeof memory; addr += 24) {
            must_ok(kist_pages_get_u64_be(p, addr, &v));
            must(v == mix(addr, kind));
        }
        must_ok(kist_device_length(&device, &len));
        must(len == sizeof memory);
        must_ok(kist_writer_set_u8(w, sizeof memory + 5000, 7)); /* files grow */
        must_rc(kist_writer_commit(w), kind == 0 ? -ENOSPC : KIST_OK);
        must_ok(kist_device_length(&device, &len));
        must(len == sizeof memory + (kind == 0 ? 0 : 5001));
        kist_writer_close(w);
        kist_pages_close(p);
        kist_device_close(&device);
    }
    (void)close(fd);
    free(path);
    free(dir);
}

TEST(a_file_opened_for_reading_says_so_at_the_commit)
{
    char *dir = tmp_dir(TMP_DISK), *path = path_join(dir, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), reading;
    kist_device device;
    kist_pages *p;
    kist_writer *w;

    reading = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && reading >= 0);
    must_ok(kist_device_open(&device, reading, KIST_DEVICE_PREAD));
    must_ok(kist_pages_open(&p, &device, NULL));
    w = writer_over(p, 0, 0);
    must_ok(kist_writer_set_u8(w, 0, 1));
    must_rc(kist_writer_commit(w), -EBADF);
    kist_writer_close(w);
    kist_pages_close(p);
    kist_device_close(&device);
    (void)close(fd);
    (void)close(reading);
    free(path);
    free(dir);
}

/* More pages in a row than one call takes. */
TEST(long_runs_are_cut_into_pieces_that_the_system_takes)
{
    struct paged d;
    kist_pages *p;
    kist_writer *w;

    paged_init(&d, 2500, ROOM, 1, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    w = writer_over(p, 0, 4096);
    for (uint64_t addr = 0; addr < 2500; addr += 4)
        must_ok(kist_writer_set_u32_le(w, addr, (uint32_t)addr));
    must_ok(kist_writer_commit(w));
    must(d.writes == 3 && d.written_at[2] == 2048 && d.len == 2500);
    for (uint32_t addr = 0; addr < 2500; addr += 4)
        must(memcmp(d.bytes + addr, &addr, 4) == 0);
    kist_writer_close(w);
    kist_pages_close(p);
    paged_free(&d);
}
