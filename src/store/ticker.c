/*
 * ticker.c - the thread that syncs, now and then, the banks that asked for it
 * (KIST_DURABILITY_INTERVAL). One for a store, started by the first such bank.
 */
#include "store/store.h"

#include "base/err.h"

enum { TICK_MS = 20 };

/* By a handle made for the purpose. */
static void tick_bank(kist_store *s, struct bank *b, int64_t now, uint32_t interval_ms)
{
    kist_bank h = { .bank = b, .forked = s->alive, .at = SEQUENCE_NOW, .verify = KIST_VERIFY_FIRST,
                    .durability = KIST_DURABILITY_NONE, .deadline_ms = 0, .store = s };

    if (now < b->sync_due || !atomic_load_explicit(&b->core, memory_order_acquire))
        return;
    b->sync_due = now + (int64_t)interval_ms * 1000000;
    if (kist_sync(&h) < 0)
        return; /* poisoned: told to the next writer; else tried again the next time */
}

static void *tick(void *arg)
{
    kist_store *s = arg;
    for (;;) {
        struct bank *b = NULL;
        int64_t now = os_clock(OS_CLOCK_MONOTONIC);
        uint64_t at = 0, i;
        uint32_t interval_ms = 0; /* of the banks that want one */

        for (;; at++) { /* the list may change while no lock is held */
            os_mutex_lock(&s->lock);
            if (s->stop) {
                os_mutex_unlock(&s->lock);
                return NULL;
            }
            for (b = s->banks, i = 0; b && i < at; b = b->next)
                i++;
            if (b) {
                b->handles++; /* it stays while we sync it */
                interval_ms = b->interval_ms;
            }
            os_mutex_unlock(&s->lock);
            if (!b)
                break;
            if (interval_ms != 0)
                tick_bank(s, b, now, interval_ms);
            (void)bank_let_go(s, b); /* perhaps the last */
        }
        (void)os_wait(&s->tick, 0, TICK_MS);
    }
}

int ticker_start(kist_store *s)
{
    int rc = s->ticking ? 0 : os_thread_start(&s->ticker, tick, s);

    if (rc < 0)
        return err_os(rc, NULL, NULL, "start the thread that syncs regularly");
    s->ticking = true;
    return KIST_OK;
}

void ticker_stop(kist_store *s)
{
    os_mutex_lock(&s->lock);
    s->stop = true;
    os_mutex_unlock(&s->lock);
    if (s->ticking) {
        __atomic_store_n(&s->tick, 1, __ATOMIC_RELEASE);
        (void)os_wake(&s->tick);
        os_thread_join(s->ticker);
        s->ticking = false;
    }
}

