/*
 * Standard output, and the error that it may meet.
 *
 * Everything goes through stdio's buffer. The first error is kept, and
 * out_finish() turns it into a message and an exit status, so that a full
 * disk or a closed pipe is never taken for success.
 */
#include "out.h"

#include "escape.h"
#include "fail.h"
#include "progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int first_error; /* errno of the first write that failed */
static bool used;       /* something was to be printed */
static bool json_later; /* a field stands before the next one */

static void note(bool good)
{
    used = true;
    if (!good && first_error == 0)
        first_error = errno != 0 ? errno : EIO;
}

void out_bytes(kist_bytes bytes)
{
    note(fwrite(bytes.data, 1, bytes.len, stdout) == bytes.len);
}

void out_escaped(kist_bytes bytes)
{
    const unsigned char *p = bytes.data;
    size_t taken;
    char one[16];

    for (size_t i = 0; i < bytes.len; i += taken) {
        size_t n = escape_one(one, p + i, bytes.len - i, &taken);

        note(fwrite(one, 1, n, stdout) == n);
    }
}

void out_text(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    note(vfprintf(stdout, format, list) >= 0);
    va_end(list);
}

void out_count(const char *text, uint64_t value, bool bytes)
{
    out_text("%-26s%" PRIu64, text, value);
    if (bytes)
        out_text(value < 1024 ? " bytes" : " bytes, %s", human_bytes(value));
    out_text("\n");
}

bool out_failed(void)
{
    return first_error != 0;
}

int out_finish(int status)
{
    if (!used)
        return status;
    note(fflush(stdout) == 0);
    if (first_error == 0)
        note(close(STDOUT_FILENO) == 0); /* where some file systems report */
    if (first_error == 0)
        return status;
    if (first_error != EPIPE) /* whoever closed the pipe had enough */
        complain("cannot write to standard output: %s", strerror(first_error));
    return STATUS_SYSTEM;
}

/* ---- JSON ------------------------------------------------------------- */

static void json_name(const char *name)
{
    out_text("%s\"%s\":", json_later ? "," : "", name);
    json_later = true;
}

static void json_string(kist_bytes bytes)
{
    const unsigned char *p = bytes.data;

    (void)putc('"', stdout);
    for (size_t i = 0; i < bytes.len && !out_failed(); i++) {
        if (p[i] == '"' || p[i] == '\\')
            note(fprintf(stdout, "\\%c", p[i]) >= 0);
        else if (p[i] < 0x20 || p[i] == 0x7F)
            note(fprintf(stdout, "\\u%04x", p[i]) >= 0);
        else
            note(putc(p[i], stdout) != EOF);
    }
    (void)putc('"', stdout);
}

static void json_base64(kist_bytes bytes)
{
    const unsigned char *p = bytes.data;
    char four[4];

    (void)putc('"', stdout);
    for (size_t i = 0; i < bytes.len && !out_failed(); i += 3) {
        base64_group(four, p + i, bytes.len - i < 3 ? bytes.len - i : 3);
        note(fwrite(four, 1, sizeof four, stdout) == sizeof four);
    }
    (void)putc('"', stdout);
}

void json_begin(void)
{
    out_text("{");
    json_later = false;
}

void json_bytes(const char *name, kist_bytes bytes)
{
    json_name(name);
    if (utf8_valid(bytes.data, bytes.len)) {
        json_string(bytes);
        return;
    }
    json_base64(bytes);
    out_text(",\"%s_encoding\":\"base64\"", name);
}

void json_text(const char *name, const char *text)
{
    json_bytes(name, (kist_bytes){ text, strlen(text) });
}

void json_u64(const char *name, uint64_t value)
{
    json_name(name);
    out_text("%" PRIu64, value);
}

void json_i64(const char *name, int64_t value)
{
    json_name(name);
    out_text("%" PRId64, value);
}

void json_real(const char *name, double value)
{
    json_name(name);
    out_text("%.6f", value);
}

void json_bool(const char *name, bool value)
{
    json_name(name);
    out_text("%s", value ? "true" : "false");
}

void json_meta(const kist_meta *meta)
{
    json_u64("bytes", meta->value_bytes);
    json_u64("sequence", meta->sequence);
    json_i64("mtime_ns", meta->mtime_ns);
    json_i64("expiry_ns", meta->expiry_ns);
}

void json_end(void)
{
    out_text("}\n");
}
