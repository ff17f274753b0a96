/* Exit statuses, and telling the user what went wrong. */
#ifndef CLI_FAIL_H
#define CLI_FAIL_H

#include <stddef.h>

/* What the program's exit status says; documented in `kist help`. */
enum status {
    STATUS_DONE = 0,
    STATUS_NO_KEY = 1,
    STATUS_USAGE = 2,
    STATUS_SYSTEM = 3,
    STATUS_DAMAGE = 4,
};

/* What messages begin with; "kist" unless set. */
extern const char *fail_program;

/* One line on standard error: the program's name, the message. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same; returns STATUS_USAGE. */
int fail_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Tell of an errno met while doing something to a file; returns
 * STATUS_SYSTEM. `doing` as in "cannot read". */
int fail_errno(int err, const char *doing, const char *file);

/* Tell of a result code of kist, with what kist_last_error() knows of it.
 * `bank` may be NULL. Returns the exit status for the code. */
int fail_kist(int rc, const char *store, const char *bank);

/* The exit status that stands for a result code of kist. */
int fail_status(int rc);

/* `text` in quotes, unprintable bytes escaped, cut when very long. The
 * result holds for the next three calls. */
const char *quoted(const char *text);
const char *quoted_bytes(const void *data, size_t len);

#endif
