/* seat.c - a lock that lives as long as a process, see seat.h. */
#include "base/seat.h"

#include "base/os.h"

#include <stddef.h>

static int take(struct seat *s, int fd, enum os_lock_kind kind, uint64_t byte, uint64_t number)
{
    size_t page = os_page_size();
    void *map = NULL;
    int rc;

    rc = os_lock(fd, kind, byte, 1, false);
    if (rc < 0)
        goto out;
    rc = os_map(&map, NULL, page, OS_PROT_NONE, 0, fd, 0);
    if (rc < 0)
        goto out;
    rc = os_advise(map, page, OS_ADVISE_DONTFORK);
    if (rc < 0)
        goto out;
    *s = (struct seat){ .number = number, .map = map };
    thread_unforked(&s->unforked, &s->map);
    map = NULL;
out:
    if (map)
        (void)os_unmap(map, page);
    (void)os_close(fd);
    return rc;
}

int seat_take(struct seat *s, int fd, uint64_t number)
{
    return take(s, fd, OS_LOCK_EXCLUSIVE, SEAT_FIRST + number, number);
}

int seat_pin(struct seat *s, int fd, uint64_t sequence)
{
    return take(s, fd, OS_LOCK_SHARED, SEAT_PINS + sequence, sequence + 1);
}

void seat_leave(struct seat *s)
{
    thread_hold_forks();
    thread_unforked_end(&s->unforked);
    if (s->map)
        (void)os_unmap(s->map, os_page_size());
    *s = (struct seat){ 0 };
    thread_allow_forks();
}

int seat_lives(int fd, uint64_t number)
{
    uint64_t found;
    int rc = os_lock_ask(fd, SEAT_FIRST + number, 1, &found);

    return rc < 0 ? rc : rc != OS_LOCK_NONE;
}

static int any_in(int fd, uint64_t from, uint64_t to)
{
    uint64_t found;
    int rc = from < to ? os_lock_ask(fd, SEAT_FIRST + from, to - from, &found) : OS_LOCK_NONE;

    return rc < 0 ? rc : rc != OS_LOCK_NONE;
}

int seat_any(int fd)
{
    return any_in(fd, 0, SEAT_MAX);
}

int seat_others(int fd, uint64_t mine)
{
    int before = any_in(fd, 0, mine);

    return before != 0 ? before : any_in(fd, mine + 1, SEAT_MAX);
}

/* The kernel answers with any lock in the range, not the lowest: so each
 * answer splits the range into what lies before and behind it. */
static int64_t count_range(int fd, uint64_t from, uint64_t to, int depth)
{
    uint64_t found;
    int64_t before, behind;
    int rc;

    if (from >= to || depth == 0)
        return 0;
    rc = os_lock_ask(fd, from, to - from, &found);
    if (rc < 0)
        return rc;
    if (rc == OS_LOCK_NONE)
        return 0;
    before = count_range(fd, from, found, depth - 1);
    behind = count_range(fd, found + 1, to, depth - 1);
    return before < 0 ? before : behind < 0 ? behind : before + behind + 1;
}

int64_t seat_count(int fd)
{
    return count_range(fd, SEAT_FIRST, SEAT_FIRST + SEAT_MAX, 4096);
}

/* The kernel does not answer lowest first: each answer narrows the question. */
int seat_lowest_pin(int fd, uint64_t below, uint64_t *lowest)
{
    uint64_t found;
    int rc = 0;

    while (below > 0 && (rc = os_lock_ask(fd, SEAT_PINS, below, &found)) == 0)
        below = found - SEAT_PINS;
    if (rc < 0)
        return rc;
    *lowest = below;
    return 0;
}
