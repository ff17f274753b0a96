/*
 * The verbs on single entries: put, get, del, has.
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
#include <string.h>
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
    int status = session_key(args, args->operand[2], key);

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
