/* Reading one line of JSON. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <kist/kist.h>

#include <stdbool.h>

struct json_field {
    const char *name; /* ends with a NUL, and has none in it */
    bool is_string;
    kist_bytes text; /* decoded, if a string; else the number or word as it stands */
};

/*
 * Take an object of strings, numbers and words apart, in place: what `each` is
 * handed lies in `line`, which has `len` bytes and a NUL behind. What `each`
 * returns other than NULL ends it.
 *
 * Returns NULL, or a sentence that says what is wrong.
 */
const char *json_object(char *line, size_t len,
                        const char *(*each)(const struct json_field *field, void *arg), void *arg);

/* Decode a string of such a field, which is base64, in place. False: it is not. */
bool json_decode(kist_bytes *bytes);

#endif
