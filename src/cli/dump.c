/*
 * The verb dump: every entry of a bank, as it was at one moment, as text to be
 * loaded elsewhere.
 *
 * For LMDB and Berkeley DB always in hexadecimal: the print form of the former
 * does not tell a backslash from an escape. What each of them refuses is left
 * out of the header: db_load does not know mapsize, mdb_load no type but btree,
 * and that one stops at 1 MiB unless a mapsize tells of more. What LMDB cannot
 * hold is looked for before anything is printed.
 */
#include "fail.h"
#include "out.h"
#include "progress.h"
#include "session.h"
#include "verbs.h"

#include <inttypes.h>
#include <string.h>

enum target { FOR_JSON = 1, FOR_LMDB, FOR_BDB }; /* as args_word() counts them */

enum {
    LMDB_KEY_MAX = 511, /* what its library is compiled with, unless somebody chose otherwise */
    LMDB_PAGE = 4096,
    LMDB_INLINE = 2048, /* a larger entry has pages of its own */
};

struct dump {
    struct session *s;
    kist_bank *snapshot; /* all of the dump is of one moment */
    kist_snapshot_info info;
    enum target target;
    struct progress bar;
    uint64_t done;
    uint64_t map_bytes; /* that LMDB needs */
    uint64_t unfit;     /* keys that it cannot hold */
};

/* ---- walking ---------------------------------------------------------- */

/* Damaged entries are told of and passed over. `each` returns an exit status;
 * the walk ends at one that is not STATUS_DONE. */
static int walk(struct dump *d, bool tell, int (*each)(struct dump *d, const kist_entry *entry))
{
    int status = STATUS_DONE, rc, one = STATUS_DONE;
    kist_cursor *cursor;
    kist_entry entry;

    rc = kist_cursor_open(&cursor, d->snapshot, NULL);
    if (rc != KIST_OK)
        return session_fail(d->s, rc);
    while (!out_failed() && one == STATUS_DONE) {
        rc = kist_cursor_next(cursor, &entry);
        if (rc == KIST_OK)
            one = each(d, &entry);
        else if (rc == KIST_ECORRUPT)
            status = tell ? session_fail(d->s, rc) : status;
        else
            break;
    }
    if (!out_failed() && one == STATUS_DONE && rc != KIST_END)
        status = session_fail(d->s, rc);
    kist_cursor_close(cursor);
    return one != STATUS_DONE ? one : status;
}

/* ---- what LMDB can hold ----------------------------------------------- */

static bool fits_lmdb(kist_bytes key)
{
    return key.len > 0 && key.len <= LMDB_KEY_MAX;
}

static void tell_unfit(kist_bytes key)
{
    if (key.len == 0)
        complain("LMDB cannot hold the empty key");
    else
        complain("LMDB cannot hold a key of %zu bytes, %d is the most: %s", key.len, LMDB_KEY_MAX,
                 quoted_bytes(key.data, key.len));
}

/* Pages that were split in the middle are half full, and each transaction
 * writes those that it changes anew; a map may well be larger than it must. */
static int look_at(struct dump *d, const kist_entry *entry)
{
    enum { SHOWN = 5 };
    uint64_t bytes = entry->key.len + entry->value.len + 16;

    if (!fits_lmdb(entry->key) && ++d->unfit <= SHOWN)
        tell_unfit(entry->key);
    d->map_bytes += bytes > LMDB_INLINE
                        ? 2 * (entry->key.len + 32) + (bytes / LMDB_PAGE + 2) * LMDB_PAGE
                        : 3 * bytes;
    return STATUS_DONE;
}

static int check_for_lmdb(struct dump *d)
{
    const uint64_t unit = 1 << 20;
    int status = walk(d, false, look_at);

    if (status != STATUS_DONE)
        return status;
    if (d->unfit > 0)
        return fail_usage("nothing was dumped: LMDB cannot hold %" PRIu64 " of the keys; "
                          "--for=json or --for=bdb takes them",
                          d->unfit);
    d->map_bytes = (d->map_bytes / unit + 16) * unit;
    return STATUS_DONE;
}

/* ---- printing --------------------------------------------------------- */

/* So that the bank that is made of the dump is of the same kind: LMDB knows one
 * kind alone, and JSON tells only of what is not the default. */
static void print_header(const struct dump *d)
{
    bool ordered = d->info.index == KIST_INDEX_ORDERED;

    if (d->target != FOR_JSON) {
        out_text("VERSION=3\nformat=bytevalue\ntype=%s\n",
                 ordered || d->target == FOR_LMDB ? "btree" : "hash");
        if (d->target == FOR_LMDB)
            out_text("mapsize=%" PRIu64 "\n", d->map_bytes);
        out_text("HEADER=END\n");
    } else if (ordered) {
        json_begin();
        json_text("index", "ordered");
        json_end();
    }
}

static void print_hex(kist_bytes bytes)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *p = bytes.data;
    char piece[4096];
    size_t used = 0;

    piece[used++] = ' ';
    for (size_t i = 0; i < bytes.len && !out_failed(); i++) {
        piece[used++] = digits[p[i] >> 4];
        piece[used++] = digits[p[i] & 15];
        if (used + 2 < sizeof piece)
            continue;
        out_bytes((kist_bytes){ piece, used });
        used = 0;
    }
    piece[used++] = '\n';
    out_bytes((kist_bytes){ piece, used });
}

static void print_json(const kist_entry *entry)
{
    json_begin();
    json_bytes("key", entry->key);
    json_bytes("value", entry->value);
    json_i64("mtime_ns", entry->meta.mtime_ns);
    json_i64("expiry_ns", entry->meta.expiry_ns);
    json_end();
}

static int print_entry(struct dump *d, const kist_entry *entry)
{
    if (d->target == FOR_JSON) {
        print_json(entry);
    } else {
        print_hex(entry->key);
        print_hex(entry->value);
    }
    d->done += entry->key.len + entry->value.len;
    progress_update(&d->bar, d->done, d->info.payload_bytes);
    return STATUS_DONE;
}

static int dump_snapshot(struct dump *d)
{
    int status = STATUS_DONE, rc = kist_snapshot_stat(d->snapshot, &d->info);

    if (rc != KIST_OK)
        return session_fail(d->s, rc);
    if (d->target == FOR_LMDB)
        status = check_for_lmdb(d);
    if (status != STATUS_DONE)
        return status;
    print_header(d);
    progress_start(&d->bar, "dumping", d->s->quiet);
    status = walk(d, true, print_entry);
    progress_end(&d->bar);
    if (d->target != FOR_JSON && (status == STATUS_DONE || status == STATUS_DAMAGE)) {
        out_text("DATA=END\n");
        if (!d->s->quiet && d->info.entries > 0 && !out_failed())
            complain("the times of entries are not part of this format, and so not of the dump");
    }
    return status;
}

static int dump_bank(struct dump *d)
{
    int status, rc = kist_snapshot_open(&d->snapshot, d->s->bank);

    if (rc != KIST_OK)
        return session_fail(d->s, rc);
    status = dump_snapshot(d);
    rc = kist_bank_close(d->snapshot);
    return rc != KIST_OK && status == STATUS_DONE ? session_fail(d->s, rc) : status;
}

int verb_dump(const struct args *args)
{
    static const char *const words[] = { "json", "lmdb", "bdb", NULL };
    uint32_t target = FOR_JSON;
    struct session s;
    struct dump d;
    int status = args_word(args, OPT_FOR, words, &target);

    if (status == STATUS_DONE && target != FOR_JSON && args_has(args, OPT_JSON))
        status = fail_usage("--json and --for=%s are two formats; give one", words[target - 1]);
    if (status == STATUS_DONE)
        status = session_open(&s, args, SESSION_READ);
    if (status != STATUS_DONE)
        return status;
    d = (struct dump){ .s = &s, .target = (enum target)target, .info.size = sizeof d.info };
    status = dump_bank(&d);
    return session_close(&s, status);
}
