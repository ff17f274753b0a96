/*
 * Errors: from a result code to a sentence and an exit status.
 *
 * Every message is one line on standard error that names the bank or file
 * and says what to do. What the library knows of its last error comes from
 * kist_last_error(); what to type about it is added here, from one table.
 */
#include "fail.h"

#include "escape.h"
#include "progress.h"

#include <kist/kist.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *fail_program = "kist";

static void complain_v(const char *format, va_list list)
{
    progress_hide();
    (void)fprintf(stderr, "%s: ", fail_program);
    (void)vfprintf(stderr, format, list);
    (void)fputc('\n', stderr);
}

void complain(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    complain_v(format, list);
    va_end(list);
}

int fail_usage(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    complain_v(format, list);
    va_end(list);
    return STATUS_USAGE;
}

int fail_errno(int err, const char *doing, const char *file)
{
    complain("%s %s: %s", doing, quoted(file), strerror(err));
    return STATUS_SYSTEM;
}

/* The codes whose status is not STATUS_SYSTEM, or for which there is
 * something to type. */
static const struct {
    int rc;
    enum status status;
    const char *advice; /* NULL: the library's sentence says all */
} meanings[] = {
    { KIST_MISS, STATUS_NO_KEY, NULL },
    { KIST_EINVAL, STATUS_USAGE, NULL },
    { KIST_EKEYLEN, STATUS_USAGE, NULL },
    { KIST_EVALUELEN, STATUS_USAGE, NULL },
    { KIST_EBANKNAME, STATUS_USAGE, NULL },
    { KIST_EBOUNDS, STATUS_USAGE, NULL },
    { KIST_ECORRUPT, STATUS_DAMAGE, "look with 'kist verify', mend with 'kist repair'" },
    { KIST_EFORMAT, STATUS_DAMAGE, NULL },
    { KIST_EFOREIGN, STATUS_DAMAGE, NULL },
    { KIST_EPOISON, STATUS_DAMAGE, "mend it with 'kist repair'" },
    { KIST_ENOSTORE, STATUS_SYSTEM, "'kist create' makes one" },
    { KIST_ENOBANK, STATUS_SYSTEM, "'kist create' makes it, 'kist ls' shows those there are" },
    { KIST_EBANKEXISTS, STATUS_SYSTEM, "--exist-ok accepts it as it is" },
    { KIST_EBUSY, STATUS_SYSTEM, "try again, or wait longer with --deadline" },
    { KIST_ENETFS, STATUS_SYSTEM, "--any-fs accepts it, at your risk" },
    { KIST_EWINDOW, STATUS_SYSTEM, "compact it with 'kist compact'" },
};

int fail_status(int rc)
{
    if (rc == KIST_OK)
        return STATUS_DONE;
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (meanings[i].rc == rc)
            return (int)meanings[i].status;
    return STATUS_SYSTEM;
}

static const char *advice(int rc)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (meanings[i].rc == rc)
            return meanings[i].advice;
    return NULL;
}

/* One part of the place, unless the sentence names it by itself. */
static size_t place(char *buf, size_t used, size_t cap, const char *kind, const char *name,
                    const char *sentence)
{
    int n;

    if (name == NULL || name[0] == '\0' || strstr(sentence, quoted(name)) != NULL)
        return used;
    n = snprintf(buf + used, cap - used, "%s %s: ", kind, quoted(name));
    return n < 0 || (size_t)n >= cap - used ? used : used + (size_t)n;
}

/* " (file 'f', byte 4096)", for what the sentence does not say of it. */
static void place_within(char *buf, size_t cap, const kist_error *error)
{
    bool file = error->file[0] != '\0' && strstr(error->what, error->file) == NULL;
    bool offset = error->offset != UINT64_MAX && strstr(error->what, "byte") == NULL;
    char at[32] = "";

    if (offset)
        (void)snprintf(at, sizeof at, "%sbyte %llu", file ? ", " : "",
                       (unsigned long long)error->offset);
    if (file || offset)
        (void)snprintf(buf, cap, " (%s%s%s)", file ? "file " : "", file ? quoted(error->file) : "",
                       at);
}

int fail_kist(int rc, const char *store, const char *bank)
{
    const kist_error *error = kist_last_error();
    const char *what = kist_strerror(rc), *todo = advice(rc);
    char where[3072] = "", within[1024] = "";
    size_t used = 0, len;

    if (error->rc == rc && error->what[0] != '\0') { /* else of another call */
        what = error->what;
        bank = bank != NULL ? bank : error->bank;
        place_within(within, sizeof within, error);
    }
    used = place(where, used, sizeof where, "store", store, what);
    (void)place(where, used, sizeof where, "bank", bank, what);
    if (strchr(what, ';') != NULL)
        todo = NULL; /* the sentence says what to do by itself */
    len = strlen(what);
    while (len > 0 && (what[len - 1] == '.' || what[len - 1] == '\n'))
        len--;
    complain("%s%.*s%s%s%s", where, (int)len, what, within, todo != NULL ? "; " : "",
             todo != NULL ? todo : "");
    return fail_status(rc);
}

const char *quoted_bytes(const void *data, size_t len)
{
    enum { SHOWN = 200 };
    static char ring[4][4 * SHOWN + 8];
    static unsigned next;
    char *buf = ring[next++ % 4];
    size_t used = 0;

    buf[used++] = '\'';
    used += escape_text(buf + used, 4 * SHOWN + 1, data, len < SHOWN ? len : SHOWN);
    buf[used++] = '\'';
    if (len > SHOWN) {
        memcpy(buf + used, "...", 3);
        used += 3;
    }
    buf[used] = '\0';
    return buf;
}

const char *quoted(const char *text)
{
    return quoted_bytes(text, strlen(text));
}
