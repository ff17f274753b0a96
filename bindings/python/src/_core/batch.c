/* batch.c - the type Batch: changes that come all at once. kist/_bank.py has
 * the face of it. Of two threads that use one at the same time the second is told so. */
#include "core.h"

typedef struct {
    PyObject_HEAD
    Bank *bank;
    struct handle *handle; /* held: the batch is closed before its bank */
    kist_batch *batch;
    bool busy; /* a thread is inside */
} Batch;

typedef int batch_call(kist_batch *batch, void *arg);

static int call_open(kist_bank *bank, void *arg)
{
    return kist_batch_open(arg, bank);
}

static PyObject *batch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct state *st = state_of(type, batch_new);
    kist_batch *batch;
    PyObject *bank;
    Batch *self;
    int rc;

    if (kwargs && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "use Bank.batch()");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!", st->bank, &bank))
        return NULL;
    rc = bank_wait((Bank *)bank, call_open, &batch);
    if (rc < 0)
        return rc == NO_CALL ? NULL : raise_code(st, rc);
    self = ((Bank *)bank)->handle ? (Batch *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        kist_batch_close(batch);
        return PyErr_Occurred() ? NULL : raise_says(st, KIST_ECLOSED, "the bank was closed");
    }
    self->bank = (Bank *)Py_NewRef(bank);
    self->handle = self->bank->handle;
    self->handle->holders++;
    self->batch = batch;
    return (PyObject *)self;
}

/* A call without the GIL. NO_CALL: an exception was set. */
static int batch_wait(Batch *self, batch_call *call, void *arg)
{
    PyThreadState *thread;
    int rc;

    if (self->busy) {
        raise_says(self->bank->st, KIST_EINUSE, kist_strerror(KIST_EINUSE));
        return NO_CALL;
    }
    self->busy = true;
    thread = PyEval_SaveThread();
    rc = call(self->batch, arg);
    PyEval_RestoreThread(thread);
    self->busy = false;
    if (rc >= 0)
        return rc;
    raise_code(self->bank->st, rc);
    return NO_CALL;
}

struct change {
    kist_bytes key, value;
    uint64_t sequence;
    kist_view *view;
};

static int call_put(kist_batch *batch, void *arg)
{
    struct change *c = arg;

    return kist_batch_put(batch, c->key, c->value);
}

static int call_delete(kist_batch *batch, void *arg)
{
    struct change *c = arg;

    return kist_batch_delete(batch, c->key);
}

static int call_expect(kist_batch *batch, void *arg)
{
    struct change *c = arg;

    return kist_batch_expect(batch, c->key, c->sequence);
}

static int call_view(kist_batch *batch, void *arg)
{
    struct change *c = arg;

    return kist_batch_get_view(batch, c->key, &c->view);
}

static int call_commit(kist_batch *batch, void *arg)
{
    (void)arg;
    return kist_batch_commit(batch);
}

static int call_reset(kist_batch *batch, void *arg)
{
    (void)arg;
    return kist_batch_reset(batch);
}

static int batch_assign(Batch *self, PyObject *key, PyObject *object)
{
    struct change c;
    struct value v;
    int rc;

    if (key_take(self->bank->st, key, &c.key) < 0)
        return -1;
    if (!object)
        return batch_wait(self, call_delete, &c) == NO_CALL ? -1 : 0;
    if (value_take(self->bank->st, object, &v) < 0)
        return -1;
    c.value = v.bytes;
    rc = batch_wait(self, call_put, &c);
    value_release(&v);
    return rc == NO_CALL ? -1 : 0;
}

static PyObject *batch_get(Batch *self, PyObject *const *args, Py_ssize_t n)
{
    struct change c;
    PyObject *value;
    kist_bytes there;
    int rc;

    if (n < 1 || n > 2) {
        PyErr_Format(PyExc_TypeError, "get() takes a key and a default, %zd arguments were given",
                     n);
        return NULL;
    }
    if (key_take(self->bank->st, args[0], &c.key) < 0)
        return NULL;
    rc = batch_wait(self, call_view, &c);
    if (rc == NO_CALL)
        return NULL;
    if (rc != KIST_OK)
        return Py_NewRef(n > 1 ? args[1] : Py_None);
    there = kist_view_bytes(c.view);
    value = PyBytes_FromStringAndSize(there.data, (Py_ssize_t)there.len);
    kist_view_release(c.view);
    return value;
}

static PyObject *batch_subscript(Batch *self, PyObject *key)
{
    PyObject *args[2] = { key, NULL }, *value;

    value = batch_get(self, args, 1);
    if (value != Py_None)
        return value;
    Py_DECREF(value);
    PyErr_SetObject(PyExc_KeyError, key);
    return NULL;
}

static PyObject *batch_expect(Batch *self, PyObject *args)
{
    struct change c;
    PyObject *key;
    unsigned long long sequence;

    if (!PyArg_ParseTuple(args, "OO:expect", &key, &args))
        return NULL;
    sequence = PyLong_AsUnsignedLongLong(args);
    if (PyErr_Occurred() || key_take(self->bank->st, key, &c.key) < 0)
        return NULL;
    c.sequence = sequence;
    if (batch_wait(self, call_expect, &c) == NO_CALL)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *batch_commit(Batch *self, PyObject *Py_UNUSED(none))
{
    int rc = batch_wait(self, call_commit, NULL);

    return rc == NO_CALL ? NULL : PyLong_FromLong(rc);
}

static PyObject *batch_reset(Batch *self, PyObject *Py_UNUSED(none))
{
    if (batch_wait(self, call_reset, NULL) == NO_CALL)
        return NULL;
    Py_RETURN_NONE;
}

static Py_ssize_t batch_len(Batch *self)
{
    return (Py_ssize_t)kist_batch_count(self->batch);
}

static int batch_traverse(Batch *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->bank);
    return 0;
}

static int batch_clear(Batch *self)
{
    (void)self; /* a bank leads to no batch */
    return 0;
}

static void batch_dealloc(Batch *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    kist_batch_close(self->batch);
    if (self->bank) {
        handle_drop(self->bank->st, self->handle);
        Py_DECREF(self->bank);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef batch_methods[] = {
    { "get", (PyCFunction)(void (*)(void))batch_get, METH_FASTCALL,
      "get($self, key, default=None, /)\n--\n\n"
      "The value of a key as it will be: what the batch says of it, else the bank's." },
    { "expect", (PyCFunction)batch_expect, METH_VARARGS,
      "expect($self, key, sequence, /)\n--\n\n"
      "Demand that the key of the bank has this sequence at the commit, as meta() told\n"
      "it; 0: that it has no value." },
    { "reset", (PyCFunction)batch_reset, METH_NOARGS,
      "reset($self, /)\n--\n\n"
      "Empty the batch, without a change to the bank." },
    { "_commit", (PyCFunction)batch_commit, METH_NOARGS, NULL },
    { 0 },
};

static PyType_Slot batch_slots[] = {
    { Py_tp_new, batch_new },
    { Py_tp_dealloc, batch_dealloc },
    { Py_tp_traverse, batch_traverse },
    { Py_tp_clear, batch_clear },
    { Py_tp_methods, batch_methods },
    { Py_tp_doc, "What kist.Batch is made of." },
    { Py_mp_length, batch_len },
    { Py_mp_subscript, batch_subscript },
    { Py_mp_ass_subscript, batch_assign },
    { 0, NULL },
};
PyType_Spec batch_spec = {
    .name = "kist._core.Batch",
    .basicsize = sizeof(Batch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = batch_slots,
};
