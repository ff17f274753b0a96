/*
 * walk.c - iterators over all entries of a bank.
 *
 * Entries are gathered by many, without the GIL, into a buffer of the walk's
 * own, and handed out from there.
 */
#include "core.h"

enum {
    GATHER = 256,             /* entries at once */
    GATHER_BYTES = 256 << 10, /* and no more once there are so many bytes */
};

struct entry {
    size_t key_at, key_len, value_at, value_len;
    kist_meta meta;
};

typedef struct {
    PyObject_HEAD
    Bank *bank;
    struct handle *handle; /* held: the iterator is closed before its bank */
    kist_iter *iter;     /* one of the two */
    kist_cursor *cursor;
    enum walk_kind kind;
    bool busy; /* a thread gathers */
    int ended; /* KIST_END or a failure; 0: go on */
    int n, at; /* entries gathered, handed out */
    char *bytes;
    size_t len, room;
    struct entry *entries;
} Walk;

struct opening {
    const kist_cursor_options *range; /* NULL: all, by an iterator */
    kist_iter *iter;
    kist_cursor *cursor;
};

static void walk_close(Walk *self)
{
    if (self->iter)
        kist_iter_close(self->iter);
    kist_cursor_close(self->cursor);
    self->iter = NULL;
    self->cursor = NULL;
}

static int call_open(kist_bank *bank, void *arg)
{
    struct opening *o = arg;

    return o->range ? kist_cursor_open(&o->cursor, bank, o->range)
                    : kist_iter_open(&o->iter, bank);
}

PyObject *walk_open(Bank *bank, enum walk_kind kind)
{
    return walk_scan(bank, kind, NULL);
}

PyObject *walk_scan(Bank *bank, enum walk_kind kind, const kist_cursor_options *range)
{
    struct opening o = { .range = range };
    Walk *self;
    int rc;

    if (kind > WALK_ENTRIES) {
        PyErr_SetString(PyExc_ValueError, "no such kind of walk");
        return NULL;
    }
    self = PyObject_GC_New(Walk, bank->st->walk);
    if (!self)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    Py_INCREF(bank);
    self->bank = bank;
    self->kind = kind;
    PyObject_GC_Track(self);
    self->entries = PyMem_Malloc(GATHER * sizeof *self->entries);
    if (!self->entries) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    rc = bank_wait(bank, call_open, &o);
    if (rc < 0) {
        if (rc != NO_CALL)
            raise_code(bank->st, rc);
        Py_DECREF(self);
        return NULL;
    }
    self->iter = o.iter;
    self->cursor = o.cursor;
    self->handle = bank->handle;
    if (self->handle) {
        self->handle->holders++;
        return (PyObject *)self;
    }
    walk_close(self); /* closed by another thread meanwhile */
    Py_DECREF(self);
    raise_says(bank->st, KIST_ECLOSED, "the bank was closed");
    return NULL;
}

/* ---- gathering, without the GIL --------------------------------------- */

static bool keep(Walk *w, kist_bytes b, size_t *at)
{
    if (w->room - w->len < b.len) {
        size_t room = 2 * w->room + b.len + 4096;
        char *more = PyMem_RawRealloc(w->bytes, room);

        if (!more)
            return false;
        w->bytes = more;
        w->room = room;
    }
    if (b.len > 0)
        memcpy(w->bytes + w->len, b.data, b.len);
    *at = w->len;
    w->len += b.len;
    return true;
}

static int gather(Walk *w)
{
    w->n = w->at = 0;
    w->len = 0;
    while (w->n < GATHER && w->len < GATHER_BYTES) {
        struct entry *to = &w->entries[w->n];
        kist_entry e;
        int rc = w->iter ? kist_iter_next(w->iter, &e) : kist_cursor_next(w->cursor, &e);

        if (rc != KIST_OK)
            return rc;
        to->key_len = e.key.len;
        to->value_len = e.value.len;
        to->meta = e.meta;
        if (w->kind != WALK_VALUES && !keep(w, e.key, &to->key_at))
            return KIST_ENOMEM;
        if (w->kind != WALK_KEYS && !keep(w, e.value, &to->value_at))
            return KIST_ENOMEM;
        w->n++;
    }
    return KIST_OK;
}

/* ---- handing out ------------------------------------------------------ */

static PyObject *bytes_at(const Walk *w, size_t at, size_t len)
{
    return PyBytes_FromStringAndSize(w->bytes + at, (Py_ssize_t)len);
}

static PyObject *entry_make(Walk *w, const struct entry *e)
{
    PyObject *key, *value, *meta = NULL, *all = NULL;

    if (w->kind == WALK_KEYS)
        return bytes_at(w, e->key_at, e->key_len);
    if (w->kind == WALK_VALUES)
        return bytes_at(w, e->value_at, e->value_len);
    key = bytes_at(w, e->key_at, e->key_len);
    value = bytes_at(w, e->value_at, e->value_len);
    if (w->kind == WALK_ENTRIES)
        meta = meta_make(w->bank->st, &e->meta);
    if (key && value && (meta || w->kind == WALK_ITEMS))
        all = meta ? PyTuple_Pack(3, key, value, meta) : PyTuple_Pack(2, key, value);
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(meta);
    return all;
}

/* What ended the walk, once. */
static PyObject *walk_over(Walk *self)
{
    int rc = self->ended;

    if (rc == KIST_ECORRUPT)
        self->ended = 0; /* it can go on behind the damaged entry */
    else
        self->ended = KIST_END;
    return rc == KIST_END ? NULL : raise_code(self->bank->st, rc);
}

static PyObject *walk_next(Walk *self)
{
    while (self->at == self->n) {
        PyThreadState *thread;
        int rc;

        if (self->busy) {
            PyErr_SetString(PyExc_RuntimeError, "another thread is inside of this iterator");
            return NULL;
        }
        if (self->ended)
            return walk_over(self);
        self->busy = true;
        thread = PyEval_SaveThread();
        rc = gather(self);
        PyEval_RestoreThread(thread);
        self->busy = false;
        self->ended = rc;
        if (rc < 0 && self->n == 0)
            return walk_over(self);
    }
    return entry_make(self, &self->entries[self->at++]);
}

static PyObject *walk_iter(PyObject *self)
{
    return Py_NewRef(self);
}

static int walk_traverse(Walk *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->bank);
    return 0;
}

static int walk_clear(Walk *self)
{
    (void)self; /* a bank leads to no walk */
    return 0;
}

static void walk_dealloc(Walk *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    walk_close(self);
    if (self->bank) {
        handle_drop(self->bank->st, self->handle);
        Py_DECREF(self->bank);
    }
    PyMem_RawFree(self->bytes);
    PyMem_Free(self->entries);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot walk_slots[] = {
    { Py_tp_dealloc, walk_dealloc },
    { Py_tp_traverse, walk_traverse },
    { Py_tp_clear, walk_clear },
    { Py_tp_iter, walk_iter },
    { Py_tp_iternext, walk_next },
    { Py_tp_doc, "An iterator over a bank." },
    { 0, NULL },
};
PyType_Spec walk_spec = {
    .name = "kist._core.Walk",
    .basicsize = sizeof(Walk),
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
#else
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
#endif
    .slots = walk_slots,
};
