/*
 * gpt - lists the partitions of a disk, or of an image of one, by its GUID
 * partition table (UEFI Specification 2.10, chapter 5), read through the page
 * cache of kist.
 *
 *     cc -o gpt gpt.c $(pkg-config --cflags --libs kist)
 *     ./gpt disk.img
 *
 * Exit status: 0; 1 when there is no valid table; 2 when it can't be read.
 */
#include <kist/pages.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Offsets in the header and in an entry. */
enum {
    HEADER_SIZE = 12,
    HEADER_CRC = 16,
    HEADER_ENTRIES = 72,
    HEADER_COUNT = 80,
    HEADER_ENTRY_SIZE = 84,
    HEADER_ENTRIES_CRC = 88,
    HEADER_LEAST = 92,

    ENTRY_TYPE = 0,
    ENTRY_FIRST = 32,
    ENTRY_LAST = 40,
    ENTRY_NAME = 56,
    ENTRY_LEAST = 128,
    NAME_UNITS = 36,
};

static kist_pages *disk;

static void check(int rc)
{
    if (rc == KIST_OK)
        return;
    fprintf(stderr, "gpt: %s\n", kist_last_error()->what);
    exit(2);
}

static uint32_t u32(uint64_t addr)
{
    uint32_t v = 0;

    check(kist_pages_get_u32_le(disk, addr, &v));
    return v;
}

static uint64_t u64(uint64_t addr)
{
    uint64_t v = 0;

    check(kist_pages_get_u64_le(disk, addr, &v));
    return v;
}

/* ---- checksums -------------------------------------------------------- */

struct crc {
    uint32_t sum;
    uint64_t zero_from; /* four bytes that count as zero: the header's own sum */
};

/* CRC-32 as in ISO 3309, bit by bit: tables are for those in a hurry. Called by
 * kist_pages_iter() for each piece of a page. */
static int add_bytes(uint64_t addr, kist_bytes bytes, void *arg)
{
    struct crc *c = arg;
    const unsigned char *p = bytes.data;

    for (size_t i = 0; i < bytes.len; i++) {
        bool zero = addr + i >= c->zero_from && addr + i < c->zero_from + 4;

        c->sum ^= zero ? 0 : p[i];
        for (int bit = 0; bit < 8; bit++)
            c->sum = c->sum >> 1 ^ (c->sum & 1 ? 0xEDB88320 : 0);
    }
    return 0;
}

static uint32_t crc(uint64_t addr, uint64_t len, uint64_t zero_from)
{
    struct crc c = { 0xFFFFFFFF, zero_from };

    check(kist_pages_iter(disk, addr, len, add_bytes, &c));
    return ~c.sum;
}

/* ---- the table -------------------------------------------------------- */

static bool is_table(uint64_t header, uint64_t block)
{
    char magic[8];
    uint64_t size;

    if (kist_pages_read(disk, header, magic, sizeof magic) != KIST_OK ||
        memcmp(magic, "EFI PART", 8) != 0)
        return false;
    size = u32(header + HEADER_SIZE);
    if (size < HEADER_LEAST || size > block)
        return false;
    return crc(header, size, header + HEADER_CRC) == u32(header + HEADER_CRC);
}

/* Its header is in block 1, a copy in the last one. Blocks are 512 bytes, or
 * 4,096. 0: there is none. */
static uint64_t find_table(uint64_t bytes, uint64_t *block)
{
    static const uint64_t blocks[] = { 512, 4096 };

    for (size_t copy = 0; copy < 2; copy++)
        for (size_t i = 0; i < 2; i++) {
            uint64_t header = copy == 0 ? blocks[i] : bytes / blocks[i] * blocks[i] - blocks[i];

            *block = blocks[i];
            if (bytes >= 3 * blocks[i] && is_table(header, blocks[i])) {
                if (copy == 1)
                    puts("the table at the beginning is damaged; this is the one at the end");
                return header;
            }
        }
    return 0;
}

/* A GUID: three numbers in little-endian, eight bytes as they are. */
static void print_guid(uint64_t addr)
{
    uint64_t tail = 0;
    uint16_t a = 0, b = 0;

    check(kist_pages_get_u16_le(disk, addr + 4, &a));
    check(kist_pages_get_u16_le(disk, addr + 6, &b));
    check(kist_pages_get_u64_be(disk, addr + 8, &tail));
    printf("%08" PRIX32 "-%04X-%04X-%04X-%012" PRIX64, u32(addr), (unsigned)a, (unsigned)b,
           (unsigned)(tail >> 48), tail & UINT64_C(0xFFFFFFFFFFFF));
}

/* UTF-16, printed as UTF-8; what is no character becomes a question mark. */
static void print_name(uint64_t addr)
{
    for (uint64_t i = 0; i < NAME_UNITS; i++) {
        uint16_t c = 0;

        check(kist_pages_get_u16_le(disk, addr + 2 * i, &c));
        if (c == 0)
            break;
        if (c < 0x20 || c == 0x7F || (c >= 0xD800 && c < 0xE000))
            putchar('?');
        else if (c < 0x80)
            putchar(c);
        else if (c < 0x800)
            printf("%c%c", 0xC0 | c >> 6, 0x80 | (c & 63));
        else
            printf("%c%c%c", 0xE0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63));
    }
}

static void print_entry(uint64_t number, uint64_t entry, uint64_t block)
{
    kist_u128 type = 0;
    uint64_t first, last;

    check(kist_pages_get_u128_ne(disk, entry + ENTRY_TYPE, &type));
    if (type == 0)
        return; /* not in use */
    first = u64(entry + ENTRY_FIRST);
    last = u64(entry + ENTRY_LAST);
    printf("%3" PRIu64 "  from block %" PRIu64 " to %" PRIu64 ", %" PRIu64 " KiB  ", number, first,
           last, last >= first ? (last - first + 1) * (block / 512) / 2 : 0);
    print_guid(entry + ENTRY_TYPE);
    printf("  ");
    print_name(entry + ENTRY_NAME);
    putchar('\n');
}

static int list(uint64_t bytes)
{
    uint64_t block, header = find_table(bytes, &block), entries, count, size;

    if (header == 0) {
        fputs("gpt: no valid partition table\n", stderr);
        return 1;
    }
    count = u32(header + HEADER_COUNT);
    size = u32(header + HEADER_ENTRY_SIZE);
    if (u64(header + HEADER_ENTRIES) >= bytes / block || size < ENTRY_LEAST || count > 1024 ||
        size > 4096) {
        fputs("gpt: the table's numbers make no sense\n", stderr);
        return 1;
    }
    entries = u64(header + HEADER_ENTRIES) * block;
    if (crc(entries, count * size, UINT64_MAX) != u32(header + HEADER_ENTRIES_CRC)) {
        fputs("gpt: the list of partitions is damaged\n", stderr);
        return 1;
    }
    for (uint64_t i = 0; i < count; i++)
        print_entry(i + 1, entries + i * size, block);
    return 0;
}

int main(int argc, char **argv)
{
    kist_device device = { 0 };
    uint64_t bytes = 0;
    int fd, status;

    if (argc != 2)
        return fputs("usage: gpt DISK\n", stderr), 2;
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return perror(argv[1]), 2;
    check(kist_device_open(&device, fd, KIST_DEVICE_PREAD));
    check(kist_device_length(&device, &bytes));
    check(kist_pages_open(&disk, &device, NULL));
    status = list(bytes);
    kist_pages_close(disk);
    kist_device_close(&device);
    return status;
}
