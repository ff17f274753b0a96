/* bank.c - the type Bank: opening, closing, and how a call is made. What the
 * calls do is in bank_read.c, bank_write.c and bank_care.c. */
#include "core.h"

/* ---- making a call ---------------------------------------------------- */

static int bank_is_closed(Bank *self)
{
    raise_says(self->st, KIST_ECLOSED, "the bank was closed");
    return NO_CALL;
}

static void handle_set(Bank *self, struct handle *h)
{
    self->handle = h;
    self->kist = h ? h->bank : NULL;
    self->careful = h ? (self->careful | COLD) & ~(unsigned)CLOSED : CLOSED;
}


static int open_kist(Bank *self, kist_bank **out)
{
    for (;;) {
        struct handle *h = self->store->handle;
        PyThreadState *thread;
        bool forked;
        int rc;

        if (!h) {
            raise_says(self->st, KIST_ECLOSED, "the store was closed");
            return -1;
        }
        h->holders++;
        thread = PyEval_SaveThread();
        rc = kist_bank_open(out, h->store, PyBytes_AS_STRING(self->name), &self->opt);
        PyEval_RestoreThread(thread);
        forked = rc == KIST_EFORK && h->born != fork_count;
        if (rc < 0 && !forked)
            raise_code(self->st, rc);
        handle_drop(self->st, h);
        if (!forked)
            return rc < 0 ? -1 : 0;
        if (store_reborn(self->store) < 0)
            return -1;
    }
}

int bank_reborn(Bank *self)
{
    struct handle *old = self->handle, *new;
    kist_bank *bank;

    if (!old) {
        bank_is_closed(self);
        return -1;
    }
    if (old->born == fork_count)
        return 0;
    if (open_kist(self, &bank) < 0)
        return -1;
    new = handle_new(NULL, bank);
    if (!new)
        return -1;
    if (self->handle != old) { /* another thread was faster, or closed it */
        handle_drop(self->st, new);
        return 0;
    }
    handle_set(self, new);
    handle_drop(self->st, old);
    return 0;
}

int bank_wait(Bank *self, bank_call *call, void *arg)
{
    for (;;) {
        struct handle *h = self->handle;
        PyThreadState *thread;
        bool forked;
        int rc;

        if (UNLIKELY(!h))
            return bank_is_closed(self);
        h->holders++;
        thread = PyEval_SaveThread();
        rc = call(h->bank, arg);
        PyEval_RestoreThread(thread);
        if (LIKELY(rc != KIST_EFORK && h->holders > 1)) {
            h->holders--;
            return rc;
        }
        forked = rc == KIST_EFORK && h->born != fork_count && !self->snapshot;
        /* the last on it, when another thread closed it meanwhile */
        if (handle_release(self->st, h) < 0 || (forked && bank_reborn(self) < 0))
            return NO_CALL;
        if (!forked)
            return rc;
    }
}

/* ---- keys and values -------------------------------------------------- */

int key_wrong(struct state *st, PyObject *key)
{
    (void)st;
    PyErr_Format(PyExc_TypeError, "a key is bytes or str, not %.100s", Py_TYPE(key)->tp_name);
    return -1;
}

/* Bytes that nobody can change: bytes, and views of a bank. The library puts a
 * checksum over the value and copies it, without the GIL; if it changed between
 * the two, it would be damaged. */
static bool is_constant(struct state *st, PyObject *owner)
{
    return owner && (PyBytes_CheckExact(owner) || view_is(st, owner));
}

static PyObject *base_of(PyObject *object)
{
    return PyMemoryView_Check(object) ? PyMemoryView_GET_BASE(object) : NULL;
}

int value_take(struct state *st, PyObject *object, struct value *out)
{
    PyObject *base;

    out->copy = NULL;
    out->buffer.obj = NULL;
    if (LIKELY(PyBytes_CheckExact(object))) {
        out->bytes =
            (kist_bytes){ PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object) };
        return 0;
    }
    if (!PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_TypeError, "a value is bytes or another buffer, not %.100s%s",
                     Py_TYPE(object)->tp_name,
                     PyUnicode_Check(object) ? "; encode it first" : "");
        return -1;
    }
    if (PyObject_GetBuffer(object, &out->buffer, PyBUF_SIMPLE) < 0)
        return -1;
    base = base_of(object);
    if (is_constant(st, out->buffer.obj) || is_constant(st, base) ||
        (size_t)out->buffer.len > KIST_VALUE_MAX) { /* refused unread */
        out->bytes = (kist_bytes){ out->buffer.buf, (size_t)out->buffer.len };
        return 0;
    }
    out->copy = PyBytes_FromStringAndSize(out->buffer.buf, out->buffer.len);
    PyBuffer_Release(&out->buffer);
    if (!out->copy)
        return -1;
    out->bytes =
        (kist_bytes){ PyBytes_AS_STRING(out->copy), (size_t)PyBytes_GET_SIZE(out->copy) };
    return 0;
}

void value_release(struct value *v)
{
    Py_XDECREF(v->copy);
    if (v->buffer.obj)
        PyBuffer_Release(&v->buffer);
}

/* ---- opening and closing ---------------------------------------------- */

/* More banks than kist keeps mapped: each call may have to open files. */
static void count_banks(Store *store, int more)
{
    store->banks += (uint32_t)more;
    store->crowded = store->banks > store->opt.max_open_banks;
}

static PyObject *bank_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    kist_bank_options o = { .size = sizeof o };
    unsigned long long expect;
    PyObject *name, *store;
    kist_bank *bank;
    Store *s;
    Bank *self;

    if (kwargs && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "use Store.bank()");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OSIIIKIIIi", &store, &name, &o.flags, &o.index,
                          &o.segment_bytes, &expect, &o.durability, &o.interval_ms, &o.verify,
                          &o.deadline_ms))
        return NULL;
    o.expect_entries = expect;
    if (!PyObject_TypeCheck(store, state_of(type, bank_new)->store)) {
        PyErr_Format(PyExc_TypeError, "a bank is opened in a kist.Store, not in %.100s",
                     Py_TYPE(store)->tp_name);
        return NULL;
    }
    s = (Store *)store;
    self = (Bank *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = s->st;
    self->careful = CLOSED;
    Py_INCREF(store);
    self->store = s;
    Py_INCREF(name);
    self->name = name;
    self->opt = o;
    if (open_kist(self, &bank) < 0)
        goto failed;
    handle_set(self, handle_new(NULL, bank));
    if (!self->handle)
        goto failed;
    self->opt.flags &= ~(uint32_t)(KIST_BANK_CREATE | KIST_BANK_EXCLUSIVE);
    count_banks(s, 1);
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

int bank_adopt(Bank *to, Bank *from, kist_bank *bank)
{
    to->st = from->st;
    to->careful = CLOSED;
    to->store = (Store *)Py_NewRef((PyObject *)from->store);
    to->name = Py_NewRef(from->name);
    to->opt = from->opt;
    to->snapshot = true;
    handle_set(to, handle_new(NULL, bank));
    if (!to->handle)
        return -1;
    count_banks(to->store, 1);
    return 0;
}

static struct handle *bank_shut(Bank *self)
{
    struct handle *h = self->handle;

    if (h)
        count_banks(self->store, -1);
    self->careful = CLOSED;
    handle_set(self, NULL);
    return h;
}

static PyObject *bank_close(Bank *self, PyObject *Py_UNUSED(none))
{
    if (handle_release(self->st, bank_shut(self)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int bank_traverse(Bank *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->store);
    return 0;
}

static int bank_clear(Bank *self)
{
    (void)self; /* a store leads to no bank: it breaks no cycle */
    return 0;
}

static void bank_dealloc(Bank *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->store) {
        handle_drop(self->st, bank_shut(self));
        Py_DECREF(self->store);
    }
    Py_XDECREF(self->name);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- the type --------------------------------------------------------- */

static PyObject *bank_name(Bank *self, void *Py_UNUSED(closure))
{
    return PyUnicode_DecodeFSDefaultAndSize(PyBytes_AS_STRING(self->name),
                                            PyBytes_GET_SIZE(self->name));
}

static PyObject *bank_store(Bank *self, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)self->store);
}

static PyObject *bank_closed(Bank *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!self->handle || !self->store->handle);
}

static PyGetSetDef bank_getset[] = {
    { "name", (getter)bank_name, NULL, "The bank's name.", NULL },
    { "store", (getter)bank_store, NULL, "The store that it was opened in.", NULL },
    { "closed", (getter)bank_closed, NULL, "Whether it, or its store, was closed.", NULL },
    { 0 },
};

extern Py_ssize_t bank_len(Bank *self);
extern PyObject *bank_subscript(Bank *self, PyObject *key);
extern int bank_contains(Bank *self, PyObject *key);
extern int bank_assign(Bank *self, PyObject *key, PyObject *value);

static PyObject *bank_iter(Bank *self)
{
    return walk_open(self, WALK_KEYS);
}

static PyObject *bank_walk(Bank *self, PyObject *kind)
{
    long k = PyLong_AsLong(kind);

    return k == -1 && PyErr_Occurred() ? NULL : walk_open(self, (enum walk_kind)k);
}

static PyMethodDef own_methods[] = {
    { "close", (PyCFunction)bank_close, METH_NOARGS,
      "close($self, /)\n--\n\n"
      "Close the bank. The last handle of a bank that was written syncs it.\n"
      "Closing twice does nothing." },
    { "_walk", (PyCFunction)bank_walk, METH_O, NULL },
    { 0 },
};

static PyType_Slot bank_slots[] = {
    { Py_tp_new, bank_new },
    { Py_tp_dealloc, bank_dealloc },
    { Py_tp_traverse, bank_traverse },
    { Py_tp_clear, bank_clear },
    { Py_tp_iter, bank_iter },
    { Py_tp_getset, bank_getset },
    { Py_tp_doc, "What kist.Bank is made of." },
    { Py_tp_methods, NULL }, /* all, see bank_methods_join() */
    { Py_mp_length, bank_len },
    { Py_mp_subscript, bank_subscript },
    { Py_mp_ass_subscript, bank_assign },
    { Py_sq_contains, bank_contains },
    { 0, NULL },
};
PyType_Spec bank_spec = {
    .name = "kist._core.Bank",
    .basicsize = sizeof(Bank),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = bank_slots,
};

/* One list of methods from those of the four files. */
void bank_methods_join(void)
{
    static PyMethodDef all[64];
    PyMethodDef *lists[] = { own_methods, bank_read_methods, bank_write_methods,
                             bank_care_methods, bank_snapshot_methods };
    size_t n = 0;

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (PyMethodDef *m = lists[i]; m->ml_name; m++)
            all[n++] = *m;
    for (PyType_Slot *s = bank_slots; s->slot; s++)
        if (s->slot == Py_tp_methods)
            s->pfunc = all;
}
