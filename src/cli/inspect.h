/* What the two parts of the verb inspect share: the heap and hash indexes, and
 * ordered indexes. */
#ifndef CLI_INSPECT_H
#define CLI_INSPECT_H

#include "args.h"
#include "out.h"
#include "paged_file.h"

#include <stdbool.h>
#include <stdint.h>

struct inspect {
    const struct args *args;
    const char *bank;
    struct paged_file file;
    bool found;      /* the bank that was asked for */
    bool broken;     /* the system said no: going on makes no sense */
    int status;      /* the worst so far */
    uint64_t walked; /* bytes of blocks or nodes that the root led to */
};

static inline bool inspect_is_json(const struct inspect *in)
{
    return args_has(in->args, OPT_JSON);
}

/* The little-endian number of `len` bytes that begins at byte `at`. */
static inline uint64_t number(const unsigned char *bytes, size_t at, size_t len)
{
    uint64_t n = 0;

    while (len-- > 0)
        n = n << 8 | bytes[at + len];
    return n;
}

/* The file tells something impossible at `at`. */
void inspect_damaged(struct inspect *in, uint64_t at, const char *what);

/* False: it could not be read, and that was told. */
bool inspect_read(struct inspect *in, uint64_t at, void *buf, size_t len);

/* Up to 32 bytes of the file, quoted and escaped, with dots if there are more. */
void inspect_preview(struct inspect *in, uint64_t at, uint64_t len);

/* The first fields of any line of JSON; bytes as hexadecimal digits. */
void inspect_json(const struct inspect *in, const char *what, uint64_t at);
void inspect_json_hex(const char *name, const unsigned char *bytes, size_t len);

/* inspect_ordered.c: the file is the index of an ordered bank, and this its
 * header, of ORD_HEADER bytes. */
void inspect_ordered(struct inspect *in, const unsigned char *header);

#endif
