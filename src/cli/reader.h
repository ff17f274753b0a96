/* Reading a dump: JSON lines, or the text of mdb_dump and db_dump; or any lines. */
#ifndef CLI_READER_H
#define CLI_READER_H

#include <kist/kist.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct reader {
    FILE *in;
    const char *name; /* as it was given */
    char shown[512];  /* for messages: nothing in it that a terminal obeys */
    bool whole;       /* it was read to its end, and all of it was good */
    off_t start, size;
    uint64_t line_number;
    char *line, *key_line;
    size_t room, key_room;
    uint64_t expiring; /* entries that had an expiry */
    uint32_t index;    /* enum kist_index_kind that the dump tells of, or 0 */
};

/* Open a file, or standard input for NULL and "-". With `twice`, for
 * reader_each(), what cannot be read twice is first gathered in a temporary
 * file. Returns an exit status; on failure there is nothing to close. */
int reader_open(struct reader *r, const char *path, bool twice);

/* The next line that is not blank, in r->line, without its end; *len is -1 behind
 * the last. Returns an exit status. */
int reader_line(struct reader *r, ssize_t *len);

/* Tell what is wrong with the line that was read last; returns an exit status. */
int reader_bad(const struct reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * Call `each` for every entry, from the start on; it returns STATUS_DONE to go
 * on. Returns the exit status, having told what is wrong and in which line.
 * May be called again; what is bad only then has changed meanwhile.
 */
int reader_each(struct reader *r, int (*each)(kist_bytes key, kist_bytes value, void *arg),
                void *arg);

/* How many bytes of it are read. */
uint64_t reader_at(const struct reader *r);

void reader_close(struct reader *r);

#endif
