/*
 * err - error codes' texts, and the context of the last error of a thread.
 *
 * Whoever finds a fault calls err_set() once, where bank, file and offset are
 * known, and returns the code; callers pass it on as it is.
 */
#ifndef KIST_BASE_ERR_H
#define KIST_BASE_ERR_H

#include "kist/kist.h"

#define ERR_NOWHERE UINT64_MAX

/* Record the context; returns `rc`. `bank` and `file` may be NULL. */
int err_set(int rc, const char *bank, const char *file, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The code by which the API tells a system error: ENOSPC and its kin have
 * names of their own. `rc` is a negated errno, or a KIST_E code that passes. */
int err_system(int rc);

/* err_set() for a failed system call: "cannot WHAT: reason". */
int err_os(int rc, const char *bank, const char *file, const char *what);

/* Options structs, which begin with their size: take the fields the caller was
 * compiled with, zero for the others; refuse ones we lack. `from` may be NULL. */
int options_take(void *to, size_t known, const void *from, const char *what);
/* KIST_EINVAL: option `what` is out of its range. */
int options_bad(const char *what);

#endif
