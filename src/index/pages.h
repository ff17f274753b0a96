/*
 * pages - the writer's idea of which pages of an index file are free: a byte
 * for each, in its own memory. What is free is not stored; it is found by
 * walking over what is in use, and by what the writer itself gives back.
 */
#ifndef KIST_INDEX_PAGES_H
#define KIST_INDEX_PAGES_H

#include <stdint.h>

struct pages {
    uint64_t count; /* that `used` speaks of */
    uint64_t from;  /* no free page is below */
    uint8_t *used;  /* 1: something leads there, or may still do */
};

/* Speak of `count` pages; new ones are free. KIST_ENOMEM changes nothing. */
int pages_resize(struct pages *p, uint64_t count);
void pages_drop(struct pages *p);

/* All are free but the first, which is the header's; or none is. */
void pages_all_free(struct pages *p);
void pages_none_free(struct pages *p);

/* The pages of `len` bytes at `offset` are in use; or free again. */
void pages_take(struct pages *p, uint64_t offset, uint64_t len);
void pages_give(struct pages *p, uint64_t offset, uint64_t len);

/* `run` free ones in a row, taken: the first; or 0. */
uint64_t pages_find(struct pages *p, uint64_t run);

uint64_t pages_free(const struct pages *p); /* how many; looks at each */

#endif
