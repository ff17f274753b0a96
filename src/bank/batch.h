/*
 * batch - what the library itself asks of a batch, see batch.c. Of one that no
 * other thread knows.
 */
#ifndef KIST_BANK_BATCH_H
#define KIST_BANK_BATCH_H

#include "bank/core.h"

/* Does it change this key? If not, what was noted of it, or 0. */
bool batch_has(const kist_batch *b, kist_bytes key, uint64_t *note);

/* Note a word about a key, which changes nothing. */
int batch_note(kist_batch *b, kist_bytes key, uint64_t note);

/* A put that keeps the time of an earlier write; all puts of the batch have to. */
int batch_put_again(kist_batch *b, kist_bytes key, kist_bytes value, int64_t mtime_ns);
int batch_delete(kist_batch *b, kist_bytes key);

/* Commit, after `more` added what is known by then, with the lock word held: what it
 * returns other than KIST_OK ends the call, and nothing was changed. */
int batch_commit_with(kist_batch *b, int (*more)(struct writer *w, void *arg), void *arg);

#endif
