/*
 * The verb ls: the banks of a store, or the keys of a bank as it was when the
 * listing began.
 *
 * An ordered bank finds the ends of a range by itself; of a hash bank all keys are
 * read, and what has no meaning without an order is refused.
 */
#include "fail.h"
#include "out.h"
#include "session.h"
#include "verbs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- which keys -------------------------------------------------------- */

#define RANGE                                                                                      \
    (OPT_BIT(OPT_PREFIX) | OPT_BIT(OPT_FROM) | OPT_BIT(OPT_TO) | OPT_BIT(OPT_LIMIT) |              \
     OPT_BIT(OPT_REVERSE))

static int key_option(const struct args *args, enum option option, kist_bytes *key)
{
    return args_has(args, option) ? session_key(args, args->value[option], key) : STATUS_DONE;
}

static bool is_below(kist_bytes a, kist_bytes b)
{
    int c = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);

    return c != 0 ? c < 0 : a.len < b.len;
}

static int take_range(const struct args *args, kist_cursor_options *range)
{
    int64_t limit = 0;
    int status = args_number(args, OPT_LIMIT, 1, INT64_MAX, &limit);

    if (status == STATUS_DONE)
        status = key_option(args, OPT_PREFIX, &range->prefix);
    if (status == STATUS_DONE)
        status = key_option(args, OPT_FROM, &range->from);
    if (status == STATUS_DONE)
        status = key_option(args, OPT_TO, &range->to);
    if (status != STATUS_DONE)
        return status;
    range->limit = (uint64_t)limit;
    range->flags = args_has(args, OPT_REVERSE) ? (uint32_t)KIST_CURSOR_REVERSE : 0;
    if (range->from.len > 0 && range->to.data != NULL && is_below(range->to, range->from))
        return fail_usage("--to is %s, which comes before %s of --from; exchange them",
                          quoted_bytes(range->to.data, range->to.len),
                          quoted_bytes(range->from.data, range->from.len));
    return STATUS_DONE;
}

/* What a hash bank's cursor does not know is left to has_prefix(). */
static int fit_to_hash(const struct session *s, const struct args *args,
                       kist_cursor_options *range)
{
    static const enum option ordered[] = { OPT_FROM, OPT_TO, OPT_REVERSE };

    for (size_t i = 0; i < sizeof ordered / sizeof ordered[0]; i++)
        if (args_has(args, ordered[i]))
            return fail_usage("bank %s is a hash bank, whose keys have no order, so it has no "
                              "--%s; banks made with 'kist create --ordered' have",
                              quoted(s->bank_name), option_specs[ordered[i]].name);
    *range = (kist_cursor_options){ .size = sizeof *range };
    return STATUS_DONE;
}

static bool has_prefix(kist_bytes key, kist_bytes prefix)
{
    return key.len >= prefix.len &&
           (prefix.len == 0 || memcmp(key.data, prefix.data, prefix.len) == 0);
}

/* ---- printing ---------------------------------------------------------- */

/* A name on a line of its own; what a terminal would obey is escaped there,
 * and stands as it is in a file or pipe. */
static void print_name(const struct args *args, kist_bytes name)
{
    static int terminal = -1;

    if (terminal < 0)
        terminal = isatty(STDOUT_FILENO);
    if (terminal != 0 && !args_has(args, OPT_NULL))
        out_escaped(name);
    else
        out_bytes(name);
    out_bytes((kist_bytes){ args_has(args, OPT_NULL) ? "" : "\n", 1 });
}

/* "12 s", "3 min", "5 h", "41 d": since the entry was put. */
static const char *age(int64_t mtime_ns)
{
    static char text[32];
    int64_t s = time(NULL) - mtime_ns / 1000000000;

    if (s < 0)
        s = 0; /* put by a clock that was ahead */
    if (s < 60)
        (void)snprintf(text, sizeof text, "%" PRId64 " s", s);
    else if (s < 3600)
        (void)snprintf(text, sizeof text, "%" PRId64 " min", s / 60);
    else if (s < 86400)
        (void)snprintf(text, sizeof text, "%" PRId64 " h", s / 3600);
    else
        (void)snprintf(text, sizeof text, "%" PRId64 " d", s / 86400);
    return text;
}

static void print_entry(const struct args *args, const kist_entry *entry)
{
    if (!args_has(args, OPT_JSON)) {
        if (args_has(args, OPT_LONG))
            out_text("%12" PRIu64 "  %8s  ", entry->meta.value_bytes, age(entry->meta.mtime_ns));
        print_name(args, entry->key);
        return;
    }
    json_begin();
    json_bytes("key", entry->key);
    json_meta(&entry->meta);
    json_end();
}

/* ---- the keys of a bank ------------------------------------------------ */

/* Damaged entries are told of and passed over. */
static int list_cursor(const struct session *s, const struct args *args, kist_cursor *cursor,
                       kist_bytes prefix, uint64_t limit)
{
    int status = STATUS_DONE, rc = KIST_OK;
    uint64_t printed = 0;
    kist_entry entry;

    while (!out_failed() && (limit == 0 || printed < limit)) {
        rc = kist_cursor_next(cursor, &entry);
        if (rc == KIST_ECORRUPT)
            status = session_fail(s, rc);
        else if (rc != KIST_OK)
            break;
        else if (has_prefix(entry.key, prefix)) {
            print_entry(args, &entry);
            printed++;
        }
    }
    return rc == KIST_OK || rc == KIST_END || rc == KIST_ECORRUPT ? status : session_fail(s, rc);
}

static int list_keys(const struct session *s, const struct args *args)
{
    kist_cursor_options range = { .size = sizeof range }, open;
    uint32_t index = KIST_INDEX_DEFAULT;
    kist_cursor *cursor;
    int status = take_range(args, &range), rc;

    open = range;
    if (status == STATUS_DONE)
        status = session_index(s, &index);
    if (status == STATUS_DONE && index == KIST_INDEX_HASH)
        status = fit_to_hash(s, args, &open);
    if (status != STATUS_DONE)
        return status;
    rc = kist_cursor_open(&cursor, s->bank, &open);
    if (rc != KIST_OK)
        return session_fail(s, rc);
    status = list_cursor(s, args, cursor, range.prefix, range.limit);
    kist_cursor_close(cursor);
    return status;
}

/* ---- the banks of a store ---------------------------------------------- */

static int print_bank(const char *name, void *arg)
{
    const struct args *args = arg;

    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", name);
        json_end();
    } else {
        print_name(args, (kist_bytes){ name, strlen(name) });
    }
    return out_failed() ? KIST_END : KIST_OK;
}

/* Entries and bytes before the name, for which the bank is opened. */
static int print_bank_long(struct session *s, const struct args *args, void *arg)
{
    kist_stats stats = { .size = sizeof stats };
    int rc = kist_stat(s->bank, &stats);

    (void)arg;
    if (rc != KIST_OK)
        return session_fail(s, rc);
    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", s->bank_name);
        json_u64("entries", stats.entries);
        json_u64("payload_bytes", stats.payload_bytes);
        json_end();
    } else {
        out_text("%12" PRIu64 "  %12" PRIu64 "  ", stats.entries, stats.payload_bytes);
        (void)print_bank(s->bank_name, (void *)(uintptr_t)args);
    }
    return STATUS_DONE;
}

/* ---- ls ----------------------------------------------------------------- */

int verb_ls(const struct args *args)
{
    struct args copy = *args;
    struct session s;
    int status, rc;

    if (args->operand[1] == NULL && (args->given & RANGE) != 0)
        return fail_usage("which keys are listed can be said for those of a bank alone; name it: "
                          "kist ls STORE BANK");
    if (args_has(args, OPT_LONG) && args->operand[1] == NULL)
        return session_each_bank(args, SESSION_READ, print_bank_long, NULL);
    status = session_open(&s, args, SESSION_READ);
    if (status != STATUS_DONE)
        return status;
    if (s.bank != NULL) {
        status = list_keys(&s, args);
    } else {
        rc = kist_bank_list(s.store, NULL, print_bank, &copy);
        if (rc != KIST_OK && rc != KIST_END)
            status = session_fail(&s, rc);
    }
    return session_close(&s, status);
}
