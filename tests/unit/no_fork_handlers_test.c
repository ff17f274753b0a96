/*
 * Where the C library can't be asked to tell of forks, for want of memory, a
 * forked child would hold its parent's locks: so nothing is opened there. A
 * program of its own, since it asks but once.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>

/* In place of the C library's. */
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child;
    return ENOMEM;
}

TEST(a_process_that_can_not_be_told_of_forks_opens_nothing)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_CREATE };
    char *dir = tmp_dir(TMP_FAST);
    uint64_t before = tree_hash(dir);
    kist_store *store;

    must_rc(kist_store_open(&store, dir, &opt), KIST_ENOMEM);
    must(store == NULL);
    must_rc(kist_read_begin(), KIST_ENOMEM);
    must(tree_hash(dir) == before);
    free(dir);
}
