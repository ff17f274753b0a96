/*
 * log.c - what kist tells of its own accord: events, and how far a long call
 * has come.
 *
 * An event is put into a list and handed to Python by the main thread, between
 * two of its instructions (Py_AddPendingCall). The list outlives its store as
 * long as something is in it.
 */
#include "core.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct event {
    struct event *next;
    uint32_t level;
    uint64_t offset;
    char *bank, *file, *message;
};

struct log {
    pthread_mutex_t lock;
    struct event *first, **last;
    unsigned holders; /* the store, and each call that is pending */
    PyObject *callable;
    struct state *st;
    PyObject *keep; /* the type of events, and by it the module */
};

struct log *log_new(struct state *st, PyObject *callable)
{
    struct log *log = calloc(1, sizeof *log);

    if (!log) {
        PyErr_NoMemory();
        return NULL;
    }
    (void)pthread_mutex_init(&log->lock, NULL);
    log->last = &log->first;
    log->holders = 1;
    log->st = st;
    Py_INCREF(callable);
    log->callable = callable;
    Py_INCREF(st->event);
    log->keep = (PyObject *)st->event;
    return log;
}

static void event_free(struct event *e)
{
    free(e->bank);
    free(e->file);
    free(e->message);
    free(e);
}

/* With the GIL. */
static void log_release(struct log *log)
{
    unsigned left;

    (void)pthread_mutex_lock(&log->lock);
    left = --log->holders;
    (void)pthread_mutex_unlock(&log->lock);
    if (left > 0)
        return;
    for (struct event *e = log->first, *next; e; e = next) {
        next = e->next;
        event_free(e);
    }
    Py_XDECREF(log->callable);
    Py_DECREF(log->keep);
    (void)pthread_mutex_destroy(&log->lock);
    free(log);
}

void log_close(struct log *log)
{
    if (log)
        log_release(log);
}

int log_visit(struct log *log, visitproc visit, void *arg)
{
    if (log)
        Py_VISIT(log->callable);
    return 0;
}

static void event_hand_over(struct log *log, const struct event *e)
{
    PyObject *event = PyStructSequence_New(log->st->event), *said;

    if (event) {
        PyStructSequence_SetItem(event, 0, PyLong_FromUnsignedLong(e->level));
        PyStructSequence_SetItem(event, 1, PyUnicode_DecodeFSDefault(e->bank));
        PyStructSequence_SetItem(event, 2, PyUnicode_DecodeFSDefault(e->file));
        PyStructSequence_SetItem(event, 3, PyUnicode_DecodeFSDefault(e->message));
        PyStructSequence_SetItem(event, 4, e->offset == UINT64_MAX
                                               ? Py_NewRef(Py_None)
                                               : PyLong_FromUnsignedLongLong(e->offset));
        if (PyErr_Occurred())
            Py_CLEAR(event);
    }
    said = event ? PyObject_CallOneArg(log->callable, event) : NULL;
    if (!said)
        PyErr_WriteUnraisable(log->callable);
    Py_XDECREF(said);
    Py_XDECREF(event);
}

static int hand_over(void *arg)
{
    struct log *log = arg;
    struct event *list;

    (void)pthread_mutex_lock(&log->lock);
    list = log->first;
    log->first = NULL;
    log->last = &log->first;
    (void)pthread_mutex_unlock(&log->lock);
    while (list) {
        struct event *e = list;

        list = e->next;
        event_hand_over(log, e);
        event_free(e);
    }
    log_release(log);
    return 0;
}

/* Any thread, with or without the GIL. What finds no room in the queue of
 * pending calls is handed over with the next event. */
void log_event(const kist_log_event *event, void *arg)
{
    struct log *log = arg;
    struct event *e = calloc(1, sizeof *e);

    if (!e)
        return;
    e->level = event->level;
    e->offset = event->offset;
    e->bank = strdup(event->bank);
    e->file = strdup(event->file);
    e->message = strdup(event->message);
    if (!e->bank || !e->file || !e->message) {
        event_free(e);
        return;
    }
    (void)pthread_mutex_lock(&log->lock);
    *log->last = e;
    log->last = &e->next;
    if (Py_AddPendingCall(hand_over, log) == 0)
        log->holders++;
    (void)pthread_mutex_unlock(&log->lock);
}

/* ---- progress --------------------------------------------------------- */

enum { SIGNALS_EVERY = 16 }; /* calls between two looks for signals */

int progress_step(uint64_t done, uint64_t all, void *arg)
{
    struct progress *p = arg;
    PyGILState_STATE gil;

    if (!p->callable && p->calls++ % SIGNALS_EVERY != 0)
        return 0;
    gil = PyGILState_Ensure();
    if (PyErr_CheckSignals() < 0)
        p->raised = true;
    if (!p->raised && p->callable) {
        PyObject *said = PyObject_CallFunction(p->callable, "KK", (unsigned long long)done,
                                               (unsigned long long)all);

        p->raised = !said;
        Py_XDECREF(said);
    }
    PyGILState_Release(gil);
    return p->raised ? STOPPED : 0;
}
