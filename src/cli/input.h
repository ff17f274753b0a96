/* Whole values read from files: mapped when large, else into memory. */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include <kist/kist.h>

#include <stddef.h>

/* Start from {0}. The buffer is used again from one file to the next. */
struct input {
    kist_bytes bytes; /* hold until the next call */
    unsigned char *buffer;
    size_t room;
    void *map;
    size_t map_len;
};

/* All that `fd` yields from here to its end. Returns 0 or an errno, EFBIG for
 * more than a value can hold. */
int input_read(struct input *in, int fd);

/* The same of a regular file, by name; a symlink or anything else is ELOOP or
 * EINVAL, and never waited for. */
int input_read_file(struct input *in, const char *path);

void input_free(struct input *in);

/* A file that is cut short while it is mapped makes its reader die of SIGBUS:
 * from here on with a sentence, and STATUS_SYSTEM. */
void input_guard(void);

#endif
