/*
 * log - an ordered list of everything that changed a tree of files: each store
 * into a shared map with its bytes, each system call that makes, names, sizes,
 * writes or syncs a file. One log serves the kill tests (K1), the power-loss
 * tests (P1, F2) and whatever else asks "what was there at that instant?".
 *
 * It lives in memory that forked children share, so that several processes
 * can write one log, and its reader is not harmed when a writer dies. A writer
 * holds a spin lock for the few instructions of an append; tests kill writers
 * from their own hooks, never in there.
 *
 * Files and directories are numbered: node 0 is the root of the tree, the next
 * ones come in the order of their making. A number is never reused, also when
 * the kernel reuses the inode.
 */
#ifndef KIST_TESTS_SEAM_LOG_H
#define KIST_TESTS_SEAM_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_kind {
    LOG_STORE,       /* bytes stored into a shared map */
    LOG_WRITE,       /* bytes written by a system call */
    LOG_SIZE,        /* off: the file's size from now on */
    LOG_CREATE,      /* a new file `node`, called name[0] in `dir` */
    LOG_MKDIR,       /* the same, a directory */
    LOG_LINK,        /* `node` is called name[0] in `dir` too */
    LOG_RENAME,      /* name[0] in `dir` becomes name[1] in directory `off` */
    LOG_UNLINK,      /* name[0] in `dir` is gone */
    LOG_RMDIR,       /* the same, a directory */
    LOG_SYNC,        /* all of `node` before this is on disk */
    LOG_SYNC_FAILED, /* the kernel gave up on what `node` had unwritten */
};

enum { LOG_NONE = -1 };

struct log_event {
    uint8_t kind;
    uint32_t node;
    uint32_t dir;
    uint32_t len; /* bytes at `data` */
    uint64_t off;
    uint64_t data; /* where in the log's bytes: what was stored, or the names */
};

/* Who a node is: for the kernel, and for the library that is being tested,
 * which may be shown another identity (see replay.h). */
struct log_id {
    uint64_t dev, ino;
};

struct log;

struct log *log_new(void);
void log_free(struct log *log);
void log_reset(struct log *log); /* empty again; nobody may be writing it */

uint64_t log_count(const struct log *log);
const struct log_event *log_event(const struct log *log, uint64_t index);
const void *log_bytes(const struct log *log, const struct log_event *e);
/* `which` 0 or 1, see enum log_kind. */
const char *log_name(const struct log *log, const struct log_event *e, int which);
const char *log_kind_name(enum log_kind kind);

/* The last name that the node got before event `end`; "." for the root. */
const char *log_node_name(const struct log *log, uint32_t node, uint64_t end);

/* Events [from, to) as lines of text on stderr. */
void log_print(const struct log *log, uint64_t from, uint64_t to);

/* Append; returns the event's index. Too many events end the program. */
uint64_t log_add_bytes(struct log *log, enum log_kind kind, uint32_t node, uint64_t off,
                       const void *data, size_t len);
uint64_t log_add_names(struct log *log, enum log_kind kind, uint32_t node, uint32_t dir,
                       const char *name, uint32_t dir2, const char *name2);

uint32_t log_nodes(const struct log *log);
uint32_t log_node_new(struct log *log, struct log_id real, struct log_id seen);
/* The newest node with that identity, or LOG_NONE. */
int64_t log_node_find(const struct log *log, struct log_id real);
struct log_id log_node_seen(const struct log *log, uint32_t node);

#endif
