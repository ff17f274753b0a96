/* store.c - the type Store: a directory of banks. kist/_store.py makes its
 * arguments and is the face that people see. */
#include "core.h"

#include <stdlib.h>

typedef int store_call(kist_store *store, void *arg);

static PyObject *is_closed(Store *self)
{
    return raise_says(self->st, KIST_ECLOSED, "the store was closed");
}

int store_reborn(Store *self)
{
    struct handle *old = self->handle, *new;
    PyThreadState *thread;
    kist_store *store;
    int rc;

    if (!old) {
        (void)is_closed(self);
        return -1;
    }
    if (old->born == fork_count)
        return 0;
    self->opt.flags &= ~(uint32_t)KIST_STORE_CREATE;
    thread = PyEval_SaveThread();
    rc = kist_store_open(&store, PyBytes_AS_STRING(self->path), &self->opt);
    PyEval_RestoreThread(thread);
    if (rc < 0) {
        raise_code(self->st, rc);
        return -1;
    }
    new = handle_new(store, NULL);
    if (!new)
        return -1;
    if (self->handle != old) { /* another thread was faster, or closed it */
        handle_drop(self->st, new);
        return 0;
    }
    self->handle = new;
    handle_drop(self->st, old);
    return 0;
}

/* As bank_wait(). */
static int store_wait(Store *self, store_call *call, void *arg)
{
    for (;;) {
        struct handle *h = self->handle;
        PyThreadState *thread;
        bool forked;
        int rc;

        if (!h) {
            (void)is_closed(self);
            return NO_CALL;
        }
        h->holders++;
        thread = PyEval_SaveThread();
        rc = call(h->store, arg);
        PyEval_RestoreThread(thread);
        forked = rc == KIST_EFORK && h->born != fork_count;
        if (handle_release(self->st, h) < 0 || (forked && store_reborn(self) < 0))
            return NO_CALL;
        if (!forked)
            return rc;
    }
}

/* ---- opening and closing ---------------------------------------------- */

static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    unsigned flags, max_open, file_mode, dir_mode;
    PyObject *path, *log;
    Store *self;
    kist_store *store;
    PyThreadState *thread;
    int rc;

    if (kwargs && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "use kist.open()");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "SIIIIO", &path, &flags, &max_open, &file_mode, &dir_mode, &log))
        return NULL;
    self = (Store *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = state_of(type, store_new);
    Py_INCREF(path);
    self->path = path;
    self->opt = (kist_store_options){
        .size = sizeof self->opt,
        .flags = flags,
        .max_open_banks = max_open,
        .file_mode = file_mode,
        .dir_mode = dir_mode,
    };
    if (log != Py_None) {
        self->log = log_new(self->st, log);
        if (!self->log)
            goto failed;
        self->opt.log = log_event;
        self->opt.log_arg = self->log;
    }
    thread = PyEval_SaveThread();
    rc = kist_store_open(&store, PyBytes_AS_STRING(path), &self->opt);
    PyEval_RestoreThread(thread);
    if (rc < 0) {
        raise_code(self->st, rc);
        goto failed;
    }
    self->handle = handle_new(store, NULL);
    if (self->handle)
        return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static PyObject *store_close(Store *self, PyObject *Py_UNUSED(none))
{
    struct handle *h = self->handle;

    self->handle = NULL;
    if (handle_release(self->st, h) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int store_traverse(Store *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return log_visit(self->log, visit, arg);
}

static int store_clear(Store *self)
{
    (void)self; /* a log's callable goes with the last event */
    return 0;
}

static void store_dealloc(Store *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    handle_drop(self->st, self->handle);
    log_close(self->log);
    Py_XDECREF(self->path);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- banks ------------------------------------------------------------ */

struct names {
    const char *prefix;
    char **name;
    size_t n, room;
};

static int name_add(const char *name, void *arg)
{
    struct names *all = arg;

    if (all->n == all->room) {
        size_t room = all->room ? 2 * all->room : 64;
        char **more = realloc(all->name, room * sizeof *more);

        if (!more)
            return KIST_ENOMEM;
        all->name = more;
        all->room = room;
    }
    all->name[all->n] = strdup(name);
    return all->name[all->n++] ? 0 : KIST_ENOMEM;
}

static void names_free(struct names *all)
{
    while (all->n > 0)
        free(all->name[--all->n]);
    free(all->name);
    all->name = NULL;
    all->room = 0;
}

static int call_list(kist_store *store, void *arg)
{
    struct names *all = arg;

    names_free(all); /* of a call before a fork was noticed */
    return kist_bank_list(store, all->prefix, name_add, all);
}

static PyObject *store_names(Store *self, PyObject *prefix)
{
    struct names all = { 0 };
    PyObject *encoded, *list = NULL;
    int rc;

    if (!PyUnicode_FSConverter(prefix, &encoded))
        return NULL;
    all.prefix = PyBytes_AS_STRING(encoded);
    rc = store_wait(self, call_list, &all);
    if (rc == KIST_ENOMEM)
        PyErr_NoMemory();
    else if (rc < 0 && rc != NO_CALL)
        raise_code(self->st, rc);
    else if (rc >= 0)
        list = PyList_New((Py_ssize_t)all.n);
    for (size_t i = 0; list && i < all.n; i++) {
        PyObject *name = PyUnicode_DecodeFSDefault(all.name[i]);

        if (!name)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, name);
    }
    names_free(&all);
    Py_DECREF(encoded);
    return list;
}

static int call_drop(kist_store *store, void *arg)
{
    return kist_bank_drop(store, arg);
}

static PyObject *store_drop(Store *self, PyObject *name)
{
    PyObject *encoded;
    int rc;

    if (!PyUnicode_FSConverter(name, &encoded))
        return NULL;
    rc = store_wait(self, call_drop, PyBytes_AS_STRING(encoded));
    Py_DECREF(encoded);
    if (rc == NO_CALL)
        return NULL;
    if (rc < 0)
        return raise_code(self->st, rc);
    Py_RETURN_NONE;
}

/* ---- care ------------------------------------------------------------- */

struct repair {
    const char *name;
    kist_report report;
    struct progress progress;
};

static int call_repair(kist_store *store, void *arg)
{
    struct repair *r = arg;

    return kist_repair(store, r->name, &r->report, progress_step, &r->progress);
}

static PyObject *store_repair(Store *self, PyObject *args)
{
    struct repair r = { .report = { .size = sizeof r.report } };
    PyObject *encoded, *progress = Py_None;
    int rc;

    if (!PyArg_ParseTuple(args, "O&|O", PyUnicode_FSConverter, &encoded, &progress))
        return NULL;
    r.name = PyBytes_AS_STRING(encoded);
    r.progress.callable = progress == Py_None ? NULL : progress;
    rc = store_wait(self, call_repair, &r);
    Py_DECREF(encoded);
    if (rc == NO_CALL || r.progress.raised)
        return NULL;
    return rc < 0 ? raise_code(self->st, rc) : report_make(self->st, &r.report);
}

struct copy {
    const char *path;
    kist_store_options opt;
    kist_copied copied;
    struct progress progress;
};

static int call_copy(kist_store *store, void *arg)
{
    struct copy *c = arg;

    return kist_store_copy(store, c->path, &c->opt, &c->copied, progress_step, &c->progress);
}

static PyObject *store_copy(Store *self, PyObject *args)
{
    struct copy c = { .copied = { .size = sizeof c.copied } };
    PyObject *encoded, *progress = Py_None;
    int rc;

    if (!PyArg_ParseTuple(args, "O&|O", PyUnicode_FSConverter, &encoded, &progress))
        return NULL;
    c.path = PyBytes_AS_STRING(encoded);
    c.opt = self->opt;
    c.opt.flags &= (uint32_t)KIST_STORE_ANY_FS;
    c.progress.callable = progress == Py_None ? NULL : progress;
    rc = store_wait(self, call_copy, &c);
    Py_DECREF(encoded);
    if (rc == NO_CALL || c.progress.raised)
        return NULL;
    return rc < 0 ? raise_code(self->st, rc) : copied_make(self->st, &c.copied);
}

/* ---- the type --------------------------------------------------------- */

static PyObject *store_path(Store *self, void *Py_UNUSED(closure))
{
    return PyUnicode_DecodeFSDefaultAndSize(PyBytes_AS_STRING(self->path),
                                            PyBytes_GET_SIZE(self->path));
}

static PyObject *store_closed(Store *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!self->handle);
}

static PyObject *store_readonly(Store *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong((self->opt.flags & KIST_STORE_READONLY) != 0);
}

static PyGetSetDef store_getset[] = {
    { "path", (getter)store_path, NULL, "The store's directory, absolute.", NULL },
    { "closed", (getter)store_closed, NULL, "Whether close() was called.", NULL },
    { "readonly", (getter)store_readonly, NULL, "Whether it was opened so.", NULL },
    { 0 },
};

static PyMethodDef store_methods[] = {
    { "close", (PyCFunction)store_close, METH_NOARGS,
      "close($self, /)\n--\n\n"
      "Close the store and its banks' files, cleanly: what was written is synced.\n\n"
      "Banks that are still open raise ClosedError from then on; views stay\n"
      "readable. Closing twice does nothing." },
    { "_names", (PyCFunction)store_names, METH_O, NULL },
    { "_drop", (PyCFunction)store_drop, METH_O, NULL },
    { "_repair", (PyCFunction)store_repair, METH_VARARGS, NULL },
    { "_copy", (PyCFunction)store_copy, METH_VARARGS, NULL },
    { 0 },
};

static PyType_Slot store_slots[] = {
    { Py_tp_new, store_new },
    { Py_tp_dealloc, store_dealloc },
    { Py_tp_traverse, store_traverse },
    { Py_tp_clear, store_clear },
    { Py_tp_methods, store_methods },
    { Py_tp_getset, store_getset },
    { Py_tp_doc, "What kist.Store is made of." },
    { 0, NULL },
};
PyType_Spec store_spec = {
    .name = "kist._core.Store",
    .basicsize = sizeof(Store),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = store_slots,
};
