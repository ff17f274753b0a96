/*
 * waiting.c - segments that were emptied, and whose files snapshots still need.
 *
 * Each is noted with the sequence E that was visible when it was emptied: its
 * file may go once every pin is at or above E (I3). The notes are in kist.live; where one
 * is missing, since there was no room or the live is a new one, the next
 * compaction looks through the segment again, and finds it empty.
 */
#include "bank/core.h"

#include "base/hash.h"

static uint64_t check_of(const struct core *c, uint64_t n, uint64_t emptied)
{
    uint64_t words[] = { n, emptied };

    return hash_seeded(words, sizeof words, c->bank->set.record.seed);
}

/* ⚑ A note that is damaged must not cost a file. */
static bool note_at(const struct core *c, unsigned i, uint64_t *n, uint64_t *emptied)
{
    const struct live_waiting *w = &c->live->waiting[i];

    *n = shm_peek(&w->n);
    *emptied = shm_peek(&w->emptied);
    return *n != 0 && shm_peek(&w->check) == check_of(c, *n, *emptied);
}

void waiting_add(struct core *c, uint64_t n, uint64_t emptied)
{
    uint64_t other, since;

    if (waiting_has(c, n))
        return;
    for (unsigned i = 0; i < LIVE_WAITING; i++) {
        struct live_waiting *w = &c->live->waiting[i];

        if (note_at(c, i, &other, &since))
            continue;
        shm_store(&w->n, 0);
        shm_store(&w->emptied, emptied);
        shm_store(&w->check, check_of(c, n, emptied));
        shm_publish(&w->n, n); /* killed before: it is not noted */
        return;
    }
}

bool waiting_has(const struct core *c, uint64_t n)
{
    uint64_t noted, emptied;

    for (unsigned i = 0; i < LIVE_WAITING; i++)
        if (note_at(c, i, &noted, &emptied) && noted == n)
            return true;
    return false;
}

bool waiting_is_full(const struct core *c)
{
    uint64_t noted, emptied;

    for (unsigned i = 0; i < LIVE_WAITING; i++)
        if (!note_at(c, i, &noted, &emptied))
            return false;
    return true;
}

uint64_t waiting_next(const struct core *c, uint64_t above, uint64_t horizon)
{
    uint64_t best = 0, n, emptied;

    for (unsigned i = 0; i < LIVE_WAITING; i++)
        if (note_at(c, i, &n, &emptied) && emptied <= horizon && n > above &&
            (best == 0 || n < best))
            best = n;
    return best;
}

void waiting_forget(struct core *c, uint64_t n)
{
    for (unsigned i = 0; i < LIVE_WAITING; i++)
        if (shm_peek(&c->live->waiting[i].n) == n)
            shm_store(&c->live->waiting[i].n, 0);
}
