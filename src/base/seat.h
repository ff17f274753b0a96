/*
 * seat - proof that a process lives: an OFD lock on one byte of kist.lock,
 * held by nothing but a mapping of the file.
 *
 * The descriptor is closed at once; the mapping, which a forked child does
 * not inherit, keeps the lock's description open. So the seat lives exactly
 * as long as its process: no fork, dup, exec or closefrom changes that.
 *
 * Byte numbers of kist.lock, whose content is empty:
 *
 *     0            pins: read locks on sequences
 *     2^61 + N     read locks on segments that a process has mapped
 *     2^62 - 1     the recovery lock
 *     2^62 + n     seat n; numbers are never given twice
 */
#ifndef KIST_BASE_SEAT_H
#define KIST_BASE_SEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"

#define SEAT_PINS UINT64_C(0)
#define SEAT_HELD (UINT64_C(1) << 61)
#define SEAT_RECOVERY ((UINT64_C(1) << 62) - 1)
#define SEAT_FIRST (UINT64_C(1) << 62)
#define SEAT_MAX ((UINT64_C(1) << 61) - 1)
#define SEAT_NOBODY SEAT_MAX /* never taken: as one whose process has died */

struct seat {
    uint64_t number; /* 0: none */
    void *map;       /* NULL in a forked child */
    struct unforked unforked;
};

/* Take seat `number` through `fd`, a description of kist.lock opened for
 * this and not used for anything else; it is closed in any case. Forks are
 * held from before it was opened: a child would keep it, and the seat. */
int seat_take(struct seat *s, int fd, uint64_t number);
/* The same for a pin: byte `sequence`, for reading, which others may lock too.
 * Its number is sequence + 1. */
int seat_pin(struct seat *s, int fd, uint64_t sequence);
/* The seat stays where it was taken: it must not be copied. */
void seat_leave(struct seat *s);

/* 1: the seat's process lives, 0: it is dead, or an error. `fd` must not be
 * the description by which the seat was taken. */
int seat_lives(int fd, uint64_t number);

/* 1: some seat lives, 0: none, or an error. */
int seat_any(int fd);

/* The same, but for seat `mine`. */
int seat_others(int fd, uint64_t mine);

/* How many live, or an error. */
int64_t seat_count(int fd);

/* The lowest pin below `below`, or `below`: there is none. */
int seat_lowest_pin(int fd, uint64_t below, uint64_t *lowest);

#endif
