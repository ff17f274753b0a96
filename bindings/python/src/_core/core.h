/*
 * core - what the files of the extension share.
 *
 *     Store, Bank   Python's handles; a Bank keeps its Store
 *       -> struct handle   kist's handle, and who is inside of a call on it
 *     View          a value kept mapped; what a memoryview exports
 *     Walk          an iterator over entries
 *
 * The GIL. It is let go for every call that may wait: for another writer, the
 * disk, the kernel. A get from a warm bank waits for none of them and takes less
 * time than letting go and taking back; so it is kept there, see `careful`.
 *
 * Closing must be the last call on a handle of kist, and other threads may be
 * inside of one while the GIL is let go. So each of them holds the handle (G1),
 * and the last one closes it.
 *
 * Fork. A call on a handle from before the fork says KIST_EFORK and has done
 * nothing; the handle is then opened again and the call repeated (G2). It costs
 * nothing as long as nobody forks.
 */
#ifndef KIST_PYTHON_CORE_H
#define KIST_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <kist/kist.h>

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if PY_VERSION_HEX < 0x030a0000
static inline PyObject *Py_NewRef(PyObject *o)
{
    Py_INCREF(o);
    return o;
}
#endif

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum {
    LARGE = 64 << 10, /* bytes of a value whose copying is worth letting the GIL go */
};

/* What the module holds. Objects keep it by their type. */
struct state {
    PyTypeObject *store, *bank, *view, *walk, *batch;
    PyTypeObject *meta, *stats, *report, *copied, *event, *moment;
    PyObject *raise; /* kist._errors.make(rc, name, what, bank, file, offset) */
};

/* ---- handles (handle.c) ----------------------------------------------- */

/* A kist_store or kist_bank. Counted under the GIL (G1). */
struct handle {
    Py_ssize_t holders;
    unsigned long born; /* fork_count when it was opened */
    kist_store *store;  /* one of the two */
    kist_bank *bank;
};

/* How often this process, and those it was forked from, were forked. */
extern unsigned long fork_count;
int fork_watch(void);

struct handle *handle_new(kist_store *store, kist_bank *bank);
/* Give up a hold; closes with the last. -1: an exception was set. */
int handle_release(struct state *st, struct handle *h);
/* The same where nobody could catch the exception: it is printed. */
void handle_drop(struct state *st, struct handle *h);

/* ---- objects ---------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    struct state *st;
    struct handle *handle; /* NULL: closed */
    PyObject *path;        /* bytes, absolute: it is opened again after a fork */
    kist_store_options opt;
    struct log *log;
    uint32_t banks; /* Bank objects that are open */
    bool crowded;   /* more than kist keeps mapped: any call may have to open files */
} Store;

/* Why a get lets the GIL go. */
enum careful {
    CLOSED = 1, /* there is no handle */
    COLD = 2,   /* nothing was read yet: files are opened and mapped at the first call */
    BIG = 4,    /* it has large values: checksums and copies take their time */
};

typedef struct {
    PyObject_HEAD
    kist_bank *kist;  /* handle->bank, for the hot path */
    unsigned careful; /* enum careful, or 0 */
    struct state *st;
    struct handle *handle;
    Store *store;
    PyObject *name; /* bytes */
    bool snapshot;  /* of a moment: nothing that can be opened again after a fork */
    kist_bank_options opt;
} Bank;

/* The module's state, from a type or one that is derived of it in Python. `new`:
 * tp_new of the one of C, which has the module. */
static inline struct state *state_of(PyTypeObject *type, newfunc new)
{
    PyTypeObject *mine = NULL;

    for (PyTypeObject *t = type; t; t = t->tp_base)
        if (t->tp_new == new)
            mine = t;
    return mine ? PyType_GetModuleState(mine) : NULL;
}

extern PyType_Spec store_spec, bank_spec, view_spec, walk_spec, batch_spec;
extern PyMethodDef bank_read_methods[], bank_write_methods[], bank_care_methods[],
    bank_snapshot_methods[];

/* ---- errors (error.c) ------------------------------------------------- */

/* Raise the exception of a code, with the sentence of the thread's last
 * error. Returns NULL. Straight after the call that failed. */
PyObject *raise_code(struct state *st, int rc);
/* The same with a sentence of our own. */
PyObject *raise_says(struct state *st, int rc, const char *what);
int errors_add(PyObject *module);

/* ---- calls on banks (bank.c) ------------------------------------------ */

/* One call on kist's handle; made again after a fork. */
typedef int bank_call(kist_bank *bank, void *arg);

/* Make a call that may wait, without the GIL. Returns what it returned, or
 * NO_CALL: an exception was set. Codes of failure are for the caller to raise. */
enum { NO_CALL = INT_MIN };
int bank_wait(Bank *self, bank_call *call, void *arg);
/* Open handles again that are from before a fork. -1: an exception was set. */
int bank_reborn(Bank *self);
int store_reborn(Store *self);

/* The bytes of a key. They hold as long as the object. -1: exception. */
int key_wrong(struct state *st, PyObject *key);
static inline int key_take(struct state *st, PyObject *key, kist_bytes *out)
{
    if (LIKELY(PyBytes_CheckExact(key))) {
        *out = (kist_bytes){ PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key) };
        return 0;
    }
    if (LIKELY(PyUnicode_Check(key))) {
        const char *text;
        Py_ssize_t len;

        if (LIKELY(PyUnicode_IS_COMPACT_ASCII(key))) {
            *out = (kist_bytes){ PyUnicode_DATA(key), (size_t)PyUnicode_GET_LENGTH(key) };
            return 0;
        }
        text = PyUnicode_AsUTF8AndSize(key, &len);
        *out = (kist_bytes){ text, (size_t)len };
        return text ? 0 : -1;
    }
    if (PyBytes_Check(key)) {
        *out = (kist_bytes){ PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key) };
        return 0;
    }
    return key_wrong(st, key);
}

/* The bytes of a value: of anything with a buffer. value_release() after it. */
struct value {
    kist_bytes bytes;
    PyObject *copy; /* of bytes that somebody could change meanwhile */
    Py_buffer buffer;
};
int value_take(struct state *st, PyObject *object, struct value *out);
void value_release(struct value *v);

/* ---- views and walks -------------------------------------------------- */

/* A memoryview of a view, which it takes over also on failure. */
PyObject *view_export(struct state *st, kist_view *view);
bool view_is(struct state *st, PyObject *object);

enum walk_kind { WALK_KEYS, WALK_VALUES, WALK_ITEMS, WALK_ENTRIES };
PyObject *walk_open(Bank *bank, enum walk_kind kind);
/* The same over a range, as the bank is now. */
PyObject *walk_scan(Bank *bank, enum walk_kind kind, const kist_cursor_options *range);

/* A handle that was opened by way of another bank: it becomes `to`'s, which was
 * allocated and is empty. -1: exception. */
int bank_adopt(Bank *to, Bank *from, kist_bank *bank);

/* ---- records of numbers (records.c) ----------------------------------- */

int records_add(PyObject *module, struct state *st);
PyObject *meta_make(struct state *st, const kist_meta *m);
PyObject *stats_make(struct state *st, const kist_stats *s);
PyObject *report_make(struct state *st, const kist_report *r);
PyObject *copied_make(struct state *st, const kist_copied *c);
PyObject *moment_make(struct state *st, const kist_snapshot_info *i);

/* ---- logs and progress (log.c) ---------------------------------------- */

/* Events of any thread, handed to `callable` by the main one: whoever sees an
 * event may hold locks that a thread with the GIL waits for. */
struct log *log_new(struct state *st, PyObject *callable);
void log_close(struct log *log);
int log_visit(struct log *log, visitproc visit, void *arg);
void log_event(const kist_log_event *event, void *arg);

/* For kist_progress: asks for signals now and then, calls `callable`. */
struct progress {
    PyObject *callable; /* or NULL */
    bool raised;        /* by the callable, or a signal's handler */
    unsigned calls;
};
enum { STOPPED = 77 }; /* what a stopped call returns */
int progress_step(uint64_t done, uint64_t all, void *arg);

#endif
