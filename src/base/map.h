/*
 * map - files mapped into memory, growing in place inside address space that
 * was reserved beforehand. Reserving less than asked, or nothing, costs only
 * that a later growth needs a new map.
 */
#ifndef KIST_BASE_MAP_H
#define KIST_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map {
    uint8_t *base;   /* NULL: nothing mapped */
    size_t len;      /* bytes that may be touched */
    size_t reserved; /* bytes of address space from base on, >= len */
    int prot;        /* enum os_prot */
};

/* Map the first `len` bytes of `fd`, with room to grow up to `reserve`. Large
 * maps start on 2 MiB, so that large folios can be mapped whole. */
int map_file(struct map *m, int fd, size_t len, size_t reserve, int prot);

/* The same over private memory, filled with zeros. */
int map_memory(struct map *m, size_t len, size_t reserve);

/* Let the map of `fd` (-1: memory) cover `len` bytes. 0, or -ENOMEM when that
 * can't be done in place: then nothing changed. */
int map_grow(struct map *m, int fd, size_t len);

void map_drop(struct map *m);

#endif
