/*
 * The verbs on single entries: put, get, del, has; and ls.
 *
 * Values go out of the map to standard output as they are, held by a view, so
 * that a value of gigabytes takes no memory and a slow reader holds nobody up.
 */
#include "fail.h"
#include "input.h"
#include "out.h"
#include "session.h"
#include "verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int fail_missing(const struct session *s, kist_bytes key)
{
    if (!s->quiet)
        complain("bank %s has no key %s", quoted(s->bank_name), quoted_bytes(key.data, key.len));
    return STATUS_NO_KEY;
}

/* Open the session and decode the key. */
static int begin(struct session *s, const struct args *args, enum session_how how, kist_bytes *key)
{
    int status = session_key(args, key);

    return status == STATUS_DONE ? session_open(s, args, how) : status;
}

/* ---- put, del --------------------------------------------------------- */

static int read_stdin(struct input *in)
{
    int err = input_read(in, STDIN_FILENO);

    if (err == EFBIG)
        return fail_usage("the value on standard input is longer than %u bytes; a value cannot be",
                          KIST_VALUE_MAX);
    return err == 0 ? STATUS_DONE : fail_errno(err, "cannot read", "standard input");
}

int verb_put(const struct args *args)
{
    const char *text = args->operand[3];
    struct input in = { 0 };
    struct session s;
    kist_bytes key;
    int status = begin(&s, args, args_has(args, OPT_CREATE) ? SESSION_CREATE : SESSION_WRITE, &key);

    if (status != STATUS_DONE)
        return status;
    if (text == NULL || strcmp(text, "-") == 0)
        status = read_stdin(&in);
    else
        in.bytes = (kist_bytes){ text, strlen(text) };
    if (status == STATUS_DONE) {
        int rc = kist_put(s.bank, key, in.bytes);

        if (rc != KIST_OK)
            status = session_fail(&s, rc);
    }
    input_free(&in);
    return session_close(&s, status);
}

int verb_del(const struct args *args)
{
    struct session s;
    kist_bytes key;
    int status = begin(&s, args, SESSION_WRITE, &key), rc;

    if (status != STATUS_DONE)
        return status;
    rc = kist_delete(s.bank, key);
    if (rc == KIST_MISS)
        status = fail_missing(&s, key);
    else if (rc != KIST_OK)
        status = session_fail(&s, rc);
    return session_close(&s, status);
}

/* ---- get, has --------------------------------------------------------- */

static void json_meta(const kist_meta *meta)
{
    json_u64("bytes", meta->value_bytes);
    json_u64("sequence", meta->sequence);
    json_i64("mtime_ns", meta->mtime_ns);
    json_i64("expiry_ns", meta->expiry_ns);
}

/* A value and what is known of it, of one and the same write: what is known
 * is asked for before and after, and again while a writer came between. */
static int get_with_meta(kist_bank *bank, kist_bytes key, kist_view **view, kist_meta *meta)
{
    for (;;) {
        kist_meta before;
        int rc = kist_get_meta(bank, key, &before);

        if (rc == KIST_OK)
            rc = kist_get_view(bank, key, view);
        if (rc != KIST_OK)
            return rc;
        rc = kist_get_meta(bank, key, meta);
        if (rc == KIST_OK && before.sequence == meta->sequence)
            return KIST_OK;
        kist_view_release(*view);
        *view = NULL;
        if (rc != KIST_OK)
            return rc;
    }
}

static void print_value(const struct args *args, kist_bytes key, kist_bytes value,
                        const kist_meta *meta)
{
    if (!args_has(args, OPT_JSON)) {
        out_bytes(value);
        return;
    }
    json_begin();
    json_bytes("key", key);
    json_meta(meta);
    json_bytes("value", value);
    json_end();
}

int verb_get(const struct args *args)
{
    kist_view *view = NULL;
    kist_meta meta = { 0 };
    struct session s;
    kist_bytes key;
    int status = begin(&s, args, SESSION_READ, &key), rc;

    if (status != STATUS_DONE)
        return status;
    rc = args_has(args, OPT_JSON) ? get_with_meta(s.bank, key, &view, &meta)
                                  : kist_get_view(s.bank, key, &view);
    if (rc == KIST_OK)
        print_value(args, key, kist_view_bytes(view), &meta);
    else
        status = rc == KIST_MISS ? fail_missing(&s, key) : session_fail(&s, rc);
    kist_view_release(view);
    return session_close(&s, status);
}

int verb_has(const struct args *args)
{
    struct session s;
    kist_meta meta;
    kist_bytes key;
    int status = begin(&s, args, SESSION_READ, &key), rc;

    if (status != STATUS_DONE)
        return status;
    rc = kist_get_meta(s.bank, key, &meta);
    if (rc != KIST_OK)
        status = rc == KIST_MISS ? STATUS_NO_KEY : session_fail(&s, rc);
    if (args_has(args, OPT_JSON) && (rc == KIST_OK || rc == KIST_MISS)) {
        json_begin();
        json_bytes("key", key);
        json_bool("found", rc == KIST_OK);
        if (rc == KIST_OK)
            json_meta(&meta);
        json_end();
    }
    return session_close(&s, status);
}

/* ---- ls --------------------------------------------------------------- */

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

/* Damaged entries are told of and passed over. */
static int list_keys(const struct session *s, const struct args *args)
{
    int status = STATUS_DONE, rc;
    kist_entry entry;
    kist_iter *iter;

    rc = kist_iter_open(&iter, s->bank);
    if (rc != KIST_OK)
        return session_fail(s, rc);
    while (!out_failed()) {
        rc = kist_iter_next(iter, &entry);
        if (rc == KIST_OK)
            print_entry(args, &entry);
        else if (rc == KIST_ECORRUPT)
            status = session_fail(s, rc);
        else
            break;
    }
    if (!out_failed() && rc != KIST_END)
        status = session_fail(s, rc);
    kist_iter_close(iter);
    return status;
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

int verb_ls(const struct args *args)
{
    struct args copy = *args;
    struct session s;
    int status, rc;

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
