/* Text that is safe to print, and the encodings that JSON needs. */
#ifndef CLI_ESCAPE_H
#define CLI_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

/* The length of the well-formed UTF-8 sequence at p, 0 if there is none. */
size_t utf8_sequence(const unsigned char *p, size_t left);
bool utf8_valid(const void *data, size_t len);

/* The character at p, as it is when it is printable and else escaped: \n, \\,
 * \x1b. Sets *taken to the bytes it consumed. `out` has room for 16; returns
 * how many were used, without a terminator. */
size_t escape_one(char out[16], const unsigned char *p, size_t left, size_t *taken);

/* All of `data`, escaped into `buf`, terminated, cut to fit; returns the
 * length without the terminator. Four times `len` and one is always enough. */
size_t escape_text(char *buf, size_t cap, const void *data, size_t len);

/* Up to three bytes as four characters of base64. */
void base64_group(char out[4], const unsigned char *p, size_t n);

/* Decode `text` into `out` (three quarters of its length is enough). False if
 * it is not base64 with its padding. */
bool base64_decode(unsigned char *out, size_t *len, const char *text);

#endif
