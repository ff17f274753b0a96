/*
 * bank_read.c - gets.
 *
 * The hot path: one read section, one kist_get(), one bytes object, the GIL
 * kept. It is left for get_waiting() when the bank is not known to be warm, or
 * known to have large values (`careful`), and when kist_get() fails.
 */
#include "core.h"

/* ---- a get that may wait ---------------------------------------------- */

struct get {
    kist_bytes key, value;
};

/* Leaves its read section open when it found something. */
static int call_get(kist_bank *bank, void *arg)
{
    struct get *g = arg;
    int rc = kist_read_begin();

    if (rc == KIST_OK) {
        rc = kist_get(bank, g->key, &g->value);
        if (rc != KIST_OK)
            kist_read_end();
    }
    return rc;
}

/* A copy, without the GIL where it is large. In a read section. */
static PyObject *copy_out(kist_bytes value)
{
    PyObject *bytes;
    PyThreadState *thread;

    if (LIKELY(value.len < LARGE))
        return PyBytes_FromStringAndSize(value.data, (Py_ssize_t)value.len);
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)value.len);
    if (!bytes)
        return NULL;
    thread = PyEval_SaveThread();
    memcpy(PyBytes_AS_STRING(bytes), value.data, value.len);
    PyEval_RestoreThread(thread);
    return bytes;
}

static void note_size(Bank *self, size_t len)
{
    if (len >= LARGE)
        self->careful |= BIG;
}

/* rc <= KIST_MISS as kist_get(); *value is a new reference with KIST_OK. NO_CALL:
 * an exception was set. */
static int get_waiting(Bank *self, kist_bytes key, PyObject **value)
{
    struct get g = { .key = key };
    int rc = bank_wait(self, call_get, &g);

    if (rc != KIST_OK) {
        if (rc == KIST_MISS)
            self->careful &= ~(unsigned)COLD;
        else if (rc != NO_CALL)
            raise_code(self->st, rc);
        return rc < 0 ? NO_CALL : rc;
    }
    self->careful &= ~(unsigned)COLD;
    note_size(self, g.value.len);
    *value = copy_out(g.value);
    kist_read_end();
    return *value ? KIST_OK : NO_CALL;
}

static __attribute__((noinline)) int get_slowly(Bank *self, kist_bytes key, PyObject **value)
{
    return get_waiting(self, key, value);
}

/* KIST_OK, KIST_MISS, or NO_CALL: an exception was set. */
static inline __attribute__((always_inline)) int get(Bank *self, kist_bytes key, PyObject **value)
{
    kist_bytes found;
    int rc;

    if (UNLIKELY(self->careful | self->store->crowded))
        return get_slowly(self, key, value);
    rc = kist_read_begin();
    if (LIKELY(rc == KIST_OK)) {
        rc = kist_get(self->kist, key, &found);
        if (LIKELY(rc == KIST_OK)) {
            if (UNLIKELY(found.len >= LARGE)) {
                kist_read_end();
                self->careful |= BIG;
                return get_slowly(self, key, value);
            }
            *value = PyBytes_FromStringAndSize(found.data, (Py_ssize_t)found.len);
            rc = LIKELY(*value != NULL) ? KIST_OK : NO_CALL;
        }
        kist_read_end();
    }
    if (UNLIKELY(rc < 0 && rc != NO_CALL))
        return get_slowly(self, key, value); /* opened again, or the error once more */
    return rc;
}

/* ---- bank[key], bank.get(), key in bank ------------------------------- */

PyObject *bank_subscript(Bank *self, PyObject *key)
{
    kist_bytes k;
    PyObject *value;
    int rc;

    if (UNLIKELY(key_take(self->st, key, &k) < 0))
        return NULL;
    rc = get(self, k, &value);
    if (LIKELY(rc == KIST_OK))
        return value;
    if (rc == KIST_MISS)
        PyErr_SetObject(PyExc_KeyError, key);
    return NULL;
}

static PyObject *bank_get(Bank *self, PyObject *const *args, Py_ssize_t n)
{
    kist_bytes k;
    PyObject *value;
    int rc;

    if (UNLIKELY(n < 1 || n > 2)) {
        PyErr_Format(PyExc_TypeError, "get() takes a key and a default, %zd arguments were given",
                     n);
        return NULL;
    }
    if (UNLIKELY(key_take(self->st, args[0], &k) < 0))
        return NULL;
    rc = get(self, k, &value);
    if (LIKELY(rc == KIST_OK))
        return value;
    if (rc == KIST_MISS)
        return Py_NewRef(n > 1 ? args[1] : Py_None);
    return NULL;
}

struct meta {
    kist_bytes key;
    kist_meta meta;
};

static int call_meta(kist_bank *bank, void *arg)
{
    struct meta *m = arg;

    return kist_get_meta(bank, m->key, &m->meta);
}

/* As get(). */
static int meta_waiting(Bank *self, struct meta *m)
{
    int rc = bank_wait(self, call_meta, m);

    if (rc >= 0)
        self->careful &= ~(unsigned)COLD;
    else if (rc != NO_CALL)
        raise_code(self->st, rc);
    return rc < 0 ? NO_CALL : rc;
}

int bank_contains(Bank *self, PyObject *key)
{
    struct meta m;
    kist_bytes value;
    int rc;

    if (UNLIKELY(key_take(self->st, key, &m.key) < 0))
        return -1;
    rc = KIST_EFORK;
    if (LIKELY(!(self->careful | self->store->crowded)) && kist_read_begin() == KIST_OK) {
        rc = kist_get(self->kist, m.key, &value);
        kist_read_end();
    }
    if (UNLIKELY(rc < 0)) /* kist_get_meta() leaves large values alone */
        rc = meta_waiting(self, &m);
    return rc == NO_CALL ? -1 : rc == KIST_OK;
}

static PyObject *bank_meta(Bank *self, PyObject *key)
{
    struct meta m;
    int rc = KIST_EFORK;

    if (key_take(self->st, key, &m.key) < 0)
        return NULL;
    if (LIKELY(!((self->careful & ~(unsigned)BIG) | self->store->crowded)))
        rc = kist_get_meta(self->kist, m.key, &m.meta);
    if (rc < 0)
        rc = meta_waiting(self, &m);
    if (rc == KIST_OK)
        return meta_make(self->st, &m.meta);
    return rc == NO_CALL ? NULL : Py_NewRef(Py_None);
}

static int call_count(kist_bank *bank, void *arg)
{
    return kist_count(bank, arg);
}

Py_ssize_t bank_len(Bank *self)
{
    uint64_t entries;
    int rc = KIST_EFORK;

    if (LIKELY(!((self->careful & ~(unsigned)BIG) | self->store->crowded)))
        rc = kist_count(self->kist, &entries);
    if (rc < 0)
        rc = bank_wait(self, call_count, &entries);
    if (rc == KIST_OK)
        return (Py_ssize_t)entries;
    if (rc != NO_CALL)
        raise_code(self->st, rc);
    return -1;
}

/* ---- views ------------------------------------------------------------ */

struct hold {
    kist_bytes key;
    kist_view *view;
};

static int call_view(kist_bank *bank, void *arg)
{
    struct hold *h = arg;

    return kist_get_view(bank, h->key, &h->view);
}

static PyObject *bank_get_view(Bank *self, PyObject *const *args, Py_ssize_t n)
{
    struct hold h;
    int rc = KIST_EFORK;

    if (n < 1 || n > 2) {
        PyErr_Format(PyExc_TypeError,
                     "get_view() takes a key and a default, %zd arguments were given", n);
        return NULL;
    }
    if (key_take(self->st, args[0], &h.key) < 0)
        return NULL;
    if (LIKELY(!(self->careful | self->store->crowded)))
        rc = kist_get_view(self->kist, h.key, &h.view);
    if (rc < 0) {
        rc = bank_wait(self, call_view, &h);
        if (rc >= 0)
            self->careful &= ~(unsigned)COLD;
    }
    if (rc == KIST_OK) {
        note_size(self, kist_view_bytes(h.view).len);
        return view_export(self->st, h.view);
    }
    if (rc == KIST_MISS)
        return Py_NewRef(n > 1 ? args[1] : Py_None);
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

/* ---- many at once ----------------------------------------------------- */

enum { GROUP = 128 };

struct many {
    size_t n;
    kist_bytes key[GROUP], value[GROUP];
    int rc[GROUP];
};

/* Leaves its read section open unless it fails. */
static int call_get_many(kist_bank *bank, void *arg)
{
    struct many *m = arg;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = kist_get_many(bank, m->key, m->n, m->value, m->rc);
    if (rc < 0)
        kist_read_end();
    return rc;
}

/* Values of a group into a list, from `at` on. Ends the read section. */
static int take_group(Bank *self, const struct many *m, PyObject *list, Py_ssize_t at)
{
    int bad = KIST_OK;

    for (size_t i = 0; i < m->n; i++) {
        PyObject *value = Py_None;

        if (m->rc[i] == KIST_OK) {
            note_size(self, m->value[i].len);
            value = copy_out(m->value[i]);
            if (!value)
                bad = NO_CALL;
        } else {
            Py_INCREF(value);
            if (m->rc[i] < 0)
                bad = m->rc[i];
        }
        if (bad != KIST_OK) {
            Py_XDECREF(value);
            break;
        }
        PyList_SET_ITEM(list, at + (Py_ssize_t)i, value);
    }
    kist_read_end();
    return bad;
}

static int get_group(Bank *self, struct many *m, PyObject *const *keys, PyObject *list,
                     Py_ssize_t at)
{
    int rc = KIST_EFORK;

    for (size_t i = 0; i < m->n; i++)
        if (key_take(self->st, keys[i], &m->key[i]) < 0)
            return -1;
    if (LIKELY(!(self->careful | self->store->crowded)))
        rc = call_get_many(self->kist, m);
    if (rc < 0) {
        rc = bank_wait(self, call_get_many, m);
        if (rc >= 0)
            self->careful &= ~(unsigned)COLD;
    }
    if (rc >= 0) {
        rc = take_group(self, m, list, at);
        /* one key's failure: ask for it alone, to have its sentence */
        for (size_t i = 0; i < m->n && rc < 0 && rc != NO_CALL; i++)
            if (m->rc[i] == rc) {
                PyObject *value = bank_subscript(self, keys[i]);

                Py_XDECREF(value);
                if (!value)
                    return -1;
                return get_group(self, m, keys, list, at);
            }
    } else if (rc != NO_CALL) {
        raise_code(self->st, rc);
    }
    return rc == KIST_OK ? 0 : -1;
}

static PyObject *bank_get_many(Bank *self, PyObject *keys)
{
    PyObject *all, *list;
    struct many *m;

    if (PyUnicode_Check(keys) || PyBytes_Check(keys)) {
        PyErr_SetString(PyExc_TypeError, "get_many() takes an iterable of keys, not one key");
        return NULL;
    }
    all = PySequence_Tuple(keys); /* ours alone: nobody changes it meanwhile */
    if (!all)
        return NULL;
    list = PyList_New(PyTuple_GET_SIZE(all));
    m = PyMem_Malloc(sizeof *m);
    if (!m)
        PyErr_NoMemory();
    if (!list || !m)
        Py_CLEAR(list);
    for (Py_ssize_t at = 0; list && at < PyTuple_GET_SIZE(all); at += GROUP) {
        Py_ssize_t left = PyTuple_GET_SIZE(all) - at;

        m->n = (size_t)(left < GROUP ? left : GROUP);
        if (get_group(self, m, &PyTuple_GET_ITEM(all, at), list, at) < 0)
            Py_CLEAR(list);
    }
    PyMem_Free(m);
    Py_DECREF(all);
    return list;
}

PyMethodDef bank_read_methods[] = {
    { "get", (PyCFunction)(void (*)(void))bank_get, METH_FASTCALL,
      "get($self, key, default=None, /)\n--\n\n"
      "The value of `key`, or `default`." },
    { "get_view", (PyCFunction)(void (*)(void))bank_get_view, METH_FASTCALL,
      "get_view($self, key, default=None, /)\n--\n\n"
      "The value as a read-only memoryview of the mapped file: nothing is copied.\n\n"
      "It stays readable, with the same bytes, as long as it or any slice of it\n"
      "lives: also when the key is written or deleted, the bank dropped, the store\n"
      "closed. It keeps the file of its value mapped, and so its disk space in use." },
    { "get_many", (PyCFunction)bank_get_many, METH_O,
      "get_many($self, keys, /)\n--\n\n"
      "A list with the value of each key, or None; faster than one by one." },
    { "meta", (PyCFunction)bank_meta, METH_O,
      "meta($self, key, /)\n--\n\n"
      "Size, sequence and times of a key's value as a Meta, or None if it has none.\n"
      "Does not touch values over 4 KiB." },
    { 0 },
};
