/* err.c - one table of codes and texts (kist.h), and each thread's context. */
#include "base/err.h"

#include "base/thread.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *kist_version(void)
{
    return KIST_VERSION_STRING;
}

const char *kist_strerror(int rc)
{
    switch (rc) {
#define X_(name, code, text)                                                                       \
    case name:                                                                                     \
        return text;
        KIST_OUTCOMES(X_)
        KIST_ERRORS(X_)
#undef X_
    }
    return rc < 0 && rc > -4096 ? strerrordesc_np(-rc) ? strerrordesc_np(-rc) : "unknown errno"
                                : "unknown result code";
}

const char *kist_errname(int rc)
{
    struct thread *t;

    switch (rc) {
#define X_(name, code, text)                                                                       \
    case name:                                                                                     \
        return #name;
        KIST_OUTCOMES(X_)
        KIST_ERRORS(X_)
#undef X_
    }
    t = thread_self();
    if (!t)
        return "?";
    (void)snprintf(t->errname, sizeof t->errname, "%d", rc);
    return t->errname;
}

const kist_error *kist_last_error(void)
{
    static const kist_error none = { .offset = ERR_NOWHERE };
    struct thread *t = thread_self();

    return t && t->error.rc != 0 ? &t->error : &none;
}

static void take(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from ? from : "");
}

int err_set(int rc, const char *bank, const char *file, uint64_t offset, const char *format, ...)
{
    struct thread *t = thread_self();
    va_list ap;

    if (!t)
        return rc;
    t->error.rc = rc;
    t->error.offset = offset;
    take(t->error.bank, sizeof t->error.bank, bank);
    take(t->error.file, sizeof t->error.file, file);
    va_start(ap, format);
    (void)vsnprintf(t->error.what, sizeof t->error.what, format, ap);
    va_end(ap);
    return rc;
}

int err_system(int rc)
{
    switch (rc) {
    case -ENOSPC:
        return KIST_EFULL;
    case -EDQUOT:
        return KIST_EQUOTA;
    case -EFBIG:
        return KIST_EFILESIZE;
    case -ENOMEM:
        return KIST_ENOMEM;
    default:
        return rc;
    }
}

int err_os(int rc, const char *bank, const char *file, const char *what)
{
    rc = err_system(rc);
    return err_set(rc, bank, file, ERR_NOWHERE, "cannot %s: %s%s", what, kist_strerror(rc),
                   rc == -EMFILE ? " in this process; raise RLIMIT_NOFILE (ulimit -n)" : "");
}

int options_take(void *to, size_t known, const void *from, const char *what)
{
    uint32_t size;

    memset(to, 0, known);
    if (!from)
        return KIST_OK;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size || size > 4096)
        return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE, "%s.size is not set to its sizeof",
                       what);
    for (size_t i = known; i < size; i++)
        if (((const uint8_t *)from)[i] != 0)
            return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE,
                           "%s has a field set that this version does not know", what);
    memcpy(to, from, size < known ? size : known);
    return KIST_OK;
}

int options_bad(const char *what)
{
    return err_set(KIST_EINVAL, NULL, NULL, ERR_NOWHERE, "option %s is out of its range", what);
}
