/*
 * The verb pages: numbers, strings and hex dumps at addresses of any file or
 * block device, read through the page cache, and what the cache did for it.
 */
#include "fail.h"
#include "out.h"
#include "paged_file.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEX_DEFAULT = 256, HEX_LINE = 16, STRING_MAX = 4096 };

struct request {
    struct paged_file file;
    const struct args *args;
    const char *as;
    uint64_t count; /* 0: not given */
};

static bool json(const struct request *r)
{
    return args_has(r->args, OPT_JSON);
}

/* ---- numbers ---------------------------------------------------------- */

/* Decimal digits of a number of 128 bits, in the last bytes of `buf`. */
static const char *decimal(char buf[48], kist_u128 magnitude, bool negative)
{
    char *p = buf + 47;

    *p = '\0';
    do
        *--p = (char)('0' + (int)(magnitude % 10));
    while ((magnitude /= 10) != 0);
    if (negative)
        *--p = '-';
    return p;
}

static void print_number(const struct request *r, uint64_t addr, kist_u128 value, size_t bytes,
                         bool negative)
{
    char buf[48];
    const char *text = decimal(buf, negative ? -value : value, negative);

    if (!json(r)) {
        out_text("0x%010" PRIx64 "  %s\n", addr, text);
        return;
    }
    json_begin();
    json_u64("address", addr);
    json_text("type", r->as);
    if (bytes > 8)
        json_text("value", text); /* no JSON reader takes such numbers whole */
    else if (negative)
        json_i64("value", (int64_t)(uint64_t)value);
    else
        json_u64("value", (uint64_t)value);
    json_end();
}

#define X_(name, type, convert)                                                                    \
    static int read_##name(struct request *r, uint64_t addr)                                       \
    {                                                                                              \
        type v = 0;                                                                                \
        int rc = kist_pages_get_##name(r->file.pages, addr, &v);                                   \
                                                                                                   \
        if (rc == KIST_OK)                                                                         \
            print_number(r, addr, (kist_u128)v, sizeof v,                                          \
                         #name[0] == 'i' && (v >> (8 * sizeof v - 1) & 1));                        \
        return rc;                                                                                 \
    }
KIST_PAGES_TYPES(X_)
#undef X_

static const struct number_type {
    const char *name;
    size_t bytes;
    int (*read)(struct request *r, uint64_t addr);
} number_types[] = {
#define X_(name, type, convert) { #name, sizeof(type), read_##name },
    KIST_PAGES_TYPES(X_)
#undef X_
};

static const struct number_type *number_type(const char *name)
{
    for (size_t i = 0; i < sizeof number_types / sizeof number_types[0]; i++)
        if (strcmp(number_types[i].name, name) == 0)
            return &number_types[i];
    return NULL;
}

static int read_numbers(struct request *r, uint64_t addr)
{
    const struct number_type *type = number_type(r->as);
    int rc = KIST_OK;

    for (uint64_t i = 0; i < (r->count ? r->count : 1) && rc == KIST_OK && !out_failed(); i++)
        rc = type->read(r, addr + i * type->bytes);
    return rc;
}

/* ---- strings ---------------------------------------------------------- */

static int read_string(struct request *r, uint64_t addr)
{
    static char buf[STRING_MAX + 1];
    size_t cap = r->count && r->count < STRING_MAX ? (size_t)r->count + 1 : sizeof buf, len;
    int rc = kist_pages_read_string(r->file.pages, addr, buf, cap, &len);

    if (rc != KIST_OK)
        return rc;
    if (json(r)) {
        json_begin();
        json_u64("address", addr);
        json_bytes("string", (kist_bytes){ buf, len });
        json_end();
    } else {
        out_text("0x%010" PRIx64 "  ", addr);
        out_escaped((kist_bytes){ buf, len });
        out_text("\n");
    }
    return KIST_OK;
}

/* ---- hex dumps -------------------------------------------------------- */

static void hex_of(char out[2 * HEX_LINE + 1], const unsigned char *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

static void print_line(const struct request *r, uint64_t addr, const unsigned char *bytes, size_t n)
{
    char hex[2 * HEX_LINE + 1];

    hex_of(hex, bytes, n);
    if (json(r)) {
        json_begin();
        json_u64("address", addr);
        json_text("hex", hex);
        json_end();
        return;
    }
    out_text("0x%010" PRIx64 " ", addr);
    for (size_t i = 0; i < HEX_LINE; i++)
        out_text("%s%.2s", i % 8 == 0 ? "  " : " ", i < n ? hex + 2 * i : "  ");
    out_text("  |");
    for (size_t i = 0; i < n; i++)
        out_text("%c", bytes[i] >= 0x20 && bytes[i] < 0x7F ? bytes[i] : '.');
    out_text("|\n");
}

/* Cut to the end of the device, unless nothing would be left. */
static int read_hex(struct request *r, uint64_t addr)
{
    uint64_t len = r->count ? r->count : HEX_DEFAULT, end = r->file.len;
    unsigned char line[HEX_LINE];
    int rc = KIST_OK;

    if (addr < end && len > end - addr)
        len = end - addr;
    for (uint64_t done = 0; done < len && rc == KIST_OK && !out_failed(); done += HEX_LINE) {
        size_t n = len - done < HEX_LINE ? (size_t)(len - done) : HEX_LINE;

        rc = kist_pages_read(r->file.pages, addr + done, line, n);
        if (rc == KIST_OK)
            print_line(r, addr + done, line, n);
    }
    return rc;
}

/* ---- the verb --------------------------------------------------------- */

static int print_counters(const struct request *r)
{
    kist_pages_stats stats = { .size = sizeof stats };
    int rc = kist_pages_stat(r->file.pages, &stats);

    if (rc != KIST_OK)
        return rc;
    if (json(r)) {
        json_begin();
        json_u64("device_bytes", r->file.len);
        json_u64("page_bytes", kist_pages_page_bytes(r->file.pages));
        json_u64("hits", stats.hits);
        json_u64("misses", stats.misses);
        json_u64("calls", stats.calls);
        json_u64("evictions", stats.evictions);
        json_u64("resident", stats.resident);
        json_end();
    } else if (!args_has(r->args, OPT_QUIET)) {
        out_text("%" PRIu64 " bytes in pages of %" PRIu32 ": hits %" PRIu64 ", misses %" PRIu64
                 ", calls of the device %" PRIu64 ", evictions %" PRIu64 "\n",
                 r->file.len, kist_pages_page_bytes(r->file.pages), stats.hits, stats.misses,
                 stats.calls, stats.evictions);
    }
    return KIST_OK;
}

/* A number of bytes, decimal or 0x..., up to `end`; *rest is behind it. */
static bool read_address(const char *text, uint64_t *out, char **rest)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(text, rest, hex ? 16 : 10);
    return errno == 0;
}

static int read_at(struct request *r, const char *addresses)
{
    int rc = KIST_OK;

    for (const char *p = addresses; rc == KIST_OK; p++) {
        uint64_t addr = 0;
        char *rest = NULL;

        if (!read_address(p, &addr, &rest) || (*rest != '\0' && *rest != ','))
            return fail_usage("%s is no address; give numbers, 1024 or 0x400, with commas between",
                              quoted(addresses));
        rc = strcmp(r->as, "hex") == 0      ? read_hex(r, addr)
             : strcmp(r->as, "string") == 0 ? read_string(r, addr)
                                            : read_numbers(r, addr);
        p = rest;
        if (*p == '\0')
            break;
    }
    return rc == KIST_OK ? STATUS_DONE : paged_file_fail(&r->file, rc);
}

static int take_count(struct request *r, const char *text)
{
    char *rest;

    if (text == NULL)
        return STATUS_DONE;
    if (!read_address(text, &r->count, &rest) || *rest != '\0' || r->count == 0)
        return fail_usage("%s is no count; give a number from 1 on", quoted(text));
    return STATUS_DONE;
}

static int take_as(struct request *r)
{
    r->as = args_has(r->args, OPT_AS) ? r->args->value[OPT_AS] : "hex";
    if (strcmp(r->as, "hex") == 0 || strcmp(r->as, "string") == 0 || number_type(r->as) != NULL)
        return STATUS_DONE;
    return fail_usage("--as is %s; give hex, string, or a type of number such as u8, i32_le or "
                      "u64_be",
                      quoted(r->as));
}

static int take_size(const struct args *args, enum option option, uint32_t *out)
{
    uint64_t size = 0;
    int status = args_size(args, option, &size);

    if (status == STATUS_DONE && (size > UINT32_MAX || (args_has(args, option) && size == 0)))
        return fail_usage("--%s is %s; give a power of two", option_specs[option].name,
                          quoted(args->value[option]));
    *out = (uint32_t)size;
    return status;
}

int verb_pages(const struct args *args)
{
    static const char *const kinds[] = { "pread", "guarded", "mmap", NULL };
    struct request r = { .args = args };
    kist_pages_options opt = { .size = sizeof opt };
    uint32_t kind = KIST_DEVICE_PREAD;
    int status = take_as(&r), rc;

    if (status == STATUS_DONE)
        status = take_count(&r, args->operand[2]);
    if (status == STATUS_DONE)
        status = take_size(args, OPT_PAGE, &opt.page_bytes);
    if (status == STATUS_DONE)
        status = take_size(args, OPT_PAGES, &opt.cache_pages);
    if (status == STATUS_DONE)
        status = args_word(args, OPT_BY, kinds, &kind);
    if (status == STATUS_DONE)
        status = paged_file_open(&r.file, AT_FDCWD, args->operand[0], args->operand[0], kind, &opt,
                                 false);
    if (status != STATUS_DONE)
        return status;
    if (args->operand[1] != NULL)
        status = read_at(&r, args->operand[1]);
    rc = status == STATUS_DONE ? print_counters(&r) : KIST_OK;
    if (rc != KIST_OK)
        status = paged_file_fail(&r.file, rc);
    paged_file_close(&r.file);
    return status;
}
