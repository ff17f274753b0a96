/* Standard output: bytes, escaped text, JSON lines. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include <kist/kist.h>

#include <stdbool.h>
#include <stdint.h>

/* Bytes as they are; what a terminal would obey escaped; formatted. */
void out_bytes(kist_bytes bytes);
void out_escaped(kist_bytes bytes);
void out_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line of facts: what is counted, and how much of it there is. */
void out_count(const char *text, uint64_t value, bool bytes);

/* True once a write has failed; a long listing may as well stop then. */
bool out_failed(void);

/* Flush. Returns `status`, or STATUS_SYSTEM when output was lost. */
int out_finish(int status);

/* One JSON object on a line of its own, field by field. Bytes that are not
 * UTF-8 come as base64, and a second field NAME_encoding says "base64". */
void json_begin(void);
void json_bytes(const char *name, kist_bytes bytes);
void json_text(const char *name, const char *text);
void json_u64(const char *name, uint64_t value);
void json_i64(const char *name, int64_t value);
void json_real(const char *name, double value);
void json_bool(const char *name, bool value);
void json_meta(const kist_meta *meta);
void json_end(void);

#endif
