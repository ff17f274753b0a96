/* handle.c - kist's handles, held by the object and by the calls under way. */
#include "core.h"

#include <pthread.h>

unsigned long fork_count;

static void forked(void)
{
    fork_count++;
}

int fork_watch(void)
{
    static int watched;

    if (!watched && pthread_atfork(NULL, NULL, forked) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    watched = 1;
    return 0;
}

/* Takes over what it is given, also on failure. */
struct handle *handle_new(kist_store *store, kist_bank *bank)
{
    struct handle *h = PyMem_Malloc(sizeof *h);

    if (!h) {
        (void)kist_bank_close(bank);
        (void)kist_store_close(store);
        PyErr_NoMemory();
        return NULL;
    }
    *h = (struct handle){ .holders = 1, .born = fork_count, .store = store, .bank = bank };
    return h;
}

int handle_release(struct state *st, struct handle *h)
{
    PyThreadState *thread = NULL;
    int rc;

    if (!h || --h->holders > 0)
        return 0;
    /* Handles from before a fork are freed, and nothing is written: the library
     * takes no lock for that, since a child begins with one thread. So one of
     * ours at a time does it: with the GIL. */
    if (h->born == fork_count)
        thread = PyEval_SaveThread();
    rc = h->bank ? kist_bank_close(h->bank) : kist_store_close(h->store);
    if (thread)
        PyEval_RestoreThread(thread);
    PyMem_Free(h);
    /* Of a store that was closed before its bank, closing it said what there
     * was to say. */
    if (rc >= 0 || rc == KIST_EFORK || rc == KIST_ECLOSED || rc == KIST_EGONE)
        return 0;
    raise_code(st, rc);
    return -1;
}

void handle_drop(struct state *st, struct handle *h)
{
    PyObject *type, *value, *trace;

    PyErr_Fetch(&type, &value, &trace);
    if (handle_release(st, h) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(type, value, trace);
}
