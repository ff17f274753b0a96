/*
 * store - what the files of store/ share.
 *
 *     kist_store     the directory, the list of banks, the ticker  (store.c)
 *     struct bank    one for each name that has handles            (banks.c)
 *     kist_bank      what a caller holds
 *
 * Locks: `lock` guards the list of banks and their counts of handles. It is
 * taken before any lock of a bank; where one of those is held already, it is
 * only tried.
 */
#ifndef KIST_STORE_STORE_H
#define KIST_STORE_STORE_H

#include "bank/core.h"

struct kist_store {
    os_mutex lock;
    struct bank *banks;
    struct bank *hand; /* of the clock that looks for idle banks */
    struct bank_env env;
    uint32_t max_open;
    uint32_t references; /* the store's own, and one for each handle */
    uint32_t *alive;     /* 1, in a page that a forked child finds zeroed */

    bool ticking; /* the ticker runs */
    bool stop;
    uint32_t tick; /* waited on, to wake the ticker */
    os_thread ticker;
};

/* In a forked child a lock may be held by a thread that is not there: nothing
 * is locked then, and nobody else is there either. */
static inline void store_lock(kist_store *s)
{
    if (*s->alive)
        os_mutex_lock(&s->lock);
}
static inline void store_unlock(kist_store *s)
{
    if (*s->alive)
        os_mutex_unlock(&s->lock);
}

/* Close a bank's files; it opens again at its next call. Its locks held. */
int bank_shut(struct bank *b);

/* A handle, whose bank's files are not opened yet. */
int handle_make(kist_bank **out, kist_store *s, const char *name, const kist_bank_options *o);

/* Make the directories of a bank's name, each synced into its parent. Returns a
 * descriptor of the last one, or an errno for make_directories_failed(). */
int make_directories(const struct bank_env *env, const char *name);
int make_directories_failed(const char *name, int rc);

/* Called by a bank that is about to be opened, with its `opening` held: closes
 * another one if there are many. `arg`: the store. */
void store_make_room(void *arg);

/* One handle less; the bank goes with the last. (banks.c) */
int bank_let_go(kist_store *s, struct bank *b);

/* The thread that syncs banks of KIST_DURABILITY_INTERVAL. (ticker.c) With
 * `lock` held; without it. */
int ticker_start(kist_store *s);
void ticker_stop(kist_store *s);

/* The last reference frees it. With `lock` held, which it lets go. */
void store_unref(kist_store *s);

#endif
