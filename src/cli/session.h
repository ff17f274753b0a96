/* A store and perhaps a bank, opened for one verb and closed after it. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "args.h"

#include <kist/kist.h>

#include <stdbool.h>

enum session_how {
    SESSION_READ, /* read-only: not a byte changes */
    SESSION_WRITE,
    SESSION_CREATE, /* make what is missing */
};

enum { EVENTS_MAX = 8 };

struct session {
    const char *store_name;
    const char *bank_name; /* NULL: none is open */
    kist_store *store;
    kist_bank *bank;
    bool quiet;
    int32_t deadline_ms;
    enum session_how how;
    char event[EVENTS_MAX][512]; /* what the library told of, to be printed at the end */
    _Atomic unsigned events;
};

/* Open the store, and the bank when one is given. Return STATUS_DONE, or
 * another status and have told why; then there is nothing to close. */
int session_open(struct session *s, const struct args *args, enum session_how how);
int session_open_store(struct session *s, const struct args *args, enum session_how how,
                       uint32_t file_mode);

/* The permissions of directories that go with those of files. */
uint32_t session_dir_mode(uint32_t file_mode);

/* Open another bank of the store; `options` may be NULL. */
int session_open_bank(struct session *s, const char *name, const kist_bank_options *options);
int session_close_bank(struct session *s, int status);

/* Open it, or make it, which sets *made; one that is there stays of its kind. */
int session_make_bank(struct session *s, const char *name, uint32_t index, bool *made);

/* enum kist_index_kind of the bank. Returns an exit status. */
int session_index(const struct session *s, uint32_t *index);

/* "hash" or "ordered". */
const char *session_index_name(uint32_t index);

/* STATUS_DONE; or --ordered asks for an ordered bank, this one that was there is
 * none, and that was told. */
int session_expect_ordered(const struct session *s, const struct args *args);

/* Tell of a failed call on the session's bank; returns the exit status. */
int session_fail(const struct session *s, int rc);

/* Close all; returns `status`, or that of closing if it was STATUS_DONE. */
int session_close(struct session *s, int status);

/*
 * Call `each` with every bank of the store open in turn, or with the one that
 * args names. One that cannot be opened is told of and the others still come.
 * Returns the worst status. Does the opening and closing of the store, too.
 */
int session_each_bank(const struct args *args, enum session_how how,
                      int (*each)(struct session *s, const struct args *args, void *arg),
                      void *arg);

/* A key of the command line as bytes; one that comes as base64 is decoded where
 * it stands, and so but once. */
int session_key(const struct args *args, const char *text, kist_bytes *key);

#endif
