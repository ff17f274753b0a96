/* live.c - the words in kist.live, see live.h. */
#include "bank/live.h"

#include <string.h>

static const char magic[8] = { 'K', 'I', 'S', 'T', 'L', 'I', 'V', 'E' };

enum { TRIES = 1000 };

void live_format(struct live *l, const uint8_t bank_id[16])
{
    struct live head = { .format = LIVE_FORMAT };

    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.bank_id, bank_id, sizeof head.bank_id);
    shm_copy(l, &head, offsetof(struct live, incarnation));
    shm_store(&l->ring_lg, LIVE_RING_LG);
}

/* Loops over the segments go from the oldest to the newest: bounded (I5). */
static bool window_is_sane(const struct live *l)
{
    uint64_t oldest = shm_peek(&l->oldest), newest = shm_peek(&l->newest);
    uint64_t numbered = shm_peek(&l->numbered), most = UINT64_C(1) << (LOC_N_BITS - 1);

    return oldest >= 1 && newest >= oldest && newest - oldest <= most && newest <= SEGMENT_N_MAX &&
           numbered >= newest && numbered - newest <= most;
}

int live_check(const struct live *l, const uint8_t bank_id[16])
{
    if (memcmp(l->magic, magic, sizeof magic) != 0)
        return KIST_ECORRUPT;
    if (l->format > LIVE_FORMAT)
        return KIST_ENEWER;
    if (memcmp(l->bank_id, bank_id, 16) != 0)
        return KIST_EFORMAT;
    return window_is_sane(l) ? KIST_OK : KIST_ECORRUPT;
}

static uint64_t state_check(const uint64_t *words)
{
    return hash_bytes(words, (LIVE_STATE_WORDS - 1) * sizeof *words);
}

static_assert(sizeof(struct state) == LIVE_STATE_WORDS * 8, "state is words alone");

bool live_state(const struct live *l, struct state *out)
{
    uint64_t w[LIVE_STATE_WORDS], before, after = shm_read(&l->step); /* (model: V1) */

    for (int i = 0; i < TRIES; i++) {
        before = after;
        for (unsigned k = 0; k < LIVE_STATE_WORDS; k++)
            w[k] = shm_read(&l->copy[before & 1].word[k]); /* (model: V2) */
        after = shm_read(&l->step);                        /* (model: V3) */
        /* A writer may be one step ahead: it writes the other copy. */
        if (w[LIVE_STATE_WORDS - 1] == state_check(w) && after == before) {
            memcpy(out, w, sizeof *out);
            return true;
        }
        if (after == before)
            return false;
    }
    return false;
}

bool live_next_state(const struct live *l, const struct state *now, struct state *out)
{
    uint64_t w[LIVE_STATE_WORDS], next = shm_read(&l->step) + 1;
    struct state still;

    for (unsigned k = 0; k < LIVE_STATE_WORDS; k++)
        w[k] = shm_read(&l->copy[next & 1].word[k]);
    /* ⚑ Behind the words: they may be of the one that comes after it. */
    if (w[LIVE_STATE_WORDS - 1] != state_check(w) || !live_state(l, &still) ||
        still.visible != now->visible)
        return false;
    memcpy(out, w, sizeof *out);
    return true;
}

void live_prepare(struct live *l, struct state *s)
{
    uint64_t next = shm_peek(&l->step) + 1, w[LIVE_STATE_WORDS];

    memcpy(w, s, sizeof w);
    s->check = w[LIVE_STATE_WORDS - 1] = state_check(w);
    /* release: whoever meets one of these in the copy that counted before the last
     * step sees that `step` moved; else it would take the copy for damaged (model: S1) */
    for (unsigned k = 0; k < LIVE_STATE_WORDS; k++)
        shm_publish(&l->copy[next & 1].word[k], w[k]);
}

void live_step(struct live *l, struct state *s)
{
    live_prepare(l, s);
    shm_publish(&l->step, shm_peek(&l->step) + 1); /* pairs with live_state() (model: S2) */
}

void live_retire(struct live *l)
{
    shm_publish(&l->retired, shm_peek(&l->retired) + 1);
    (void)shm_add(&l->change, 1); /* pairs with core_ready() */
}

uint64_t live_checksum(const struct live *l)
{
    const uint8_t *p = (const uint8_t *)l;
    size_t from = offsetof(struct live, step); /* behind the lock word */
    uint64_t sum = hash_bytes(p, offsetof(struct live, lock));

    sum ^= hash_seeded(p + from, offsetof(struct live, seats) - from, 2);

    sum ^= hash_seeded(p + offsetof(struct live, ring), sizeof l->ring, 1);
    return sum == 0 ? 1 : sum;
}

bool live_is_clean(const struct live *l)
{
    uint64_t clean = shm_read(&l->clean);

    return clean != 0 && clean == live_checksum(l);
}
