/* bank_write.c - puts and deletes. Each may have to wait for another writer, in
 * this process or another: the GIL is always let go. */
#include "core.h"

struct put {
    kist_bytes key, value;
    enum { ALWAYS, IF_ABSENT, IF_SEQUENCE } when;
    uint64_t sequence;
};

static int call_put(kist_bank *bank, void *arg)
{
    struct put *p = arg;

    return kist_put(bank, p->key, p->value);
}

static int call_put_if(kist_bank *bank, void *arg)
{
    struct put *p = arg;

    if (p->when == IF_ABSENT)
        return kist_get_or_insert(bank, p->key, p->value, NULL);
    return kist_put_if_sequence(bank, p->key, p->value, p->sequence);
}

static int call_delete(kist_bank *bank, void *arg)
{
    struct put *p = arg;

    return kist_delete(bank, p->key);
}

static int put(Bank *self, struct put *p, PyObject *value, bank_call *call)
{
    struct value v;
    int rc;

    if (UNLIKELY(value_take(self->st, value, &v) < 0))
        return NO_CALL;
    p->value = v.bytes;
    rc = bank_wait(self, call, p);
    if (UNLIKELY(rc < 0 && rc != NO_CALL)) {
        raise_code(self->st, rc);
        rc = NO_CALL;
    }
    if (UNLIKELY(v.bytes.len >= LARGE))
        self->careful |= BIG;
    value_release(&v);
    return rc;
}

/* bank[key] = value, del bank[key] */
int bank_assign(Bank *self, PyObject *key, PyObject *value)
{
    struct put p;
    int rc;

    if (UNLIKELY(key_take(self->st, key, &p.key) < 0))
        return -1;
    if (LIKELY(value != NULL))
        return put(self, &p, value, call_put) == KIST_OK ? 0 : -1;
    rc = bank_wait(self, call_delete, &p);
    if (rc == KIST_MISS)
        PyErr_SetObject(PyExc_KeyError, key);
    else if (rc < 0 && rc != NO_CALL)
        raise_code(self->st, rc);
    return rc == KIST_OK ? 0 : -1;
}

static PyObject *bank_discard(Bank *self, PyObject *key)
{
    struct put p;
    int rc;

    if (key_take(self->st, key, &p.key) < 0)
        return NULL;
    rc = bank_wait(self, call_delete, &p);
    if (rc >= 0)
        return PyBool_FromLong(rc == KIST_OK);
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

/* The options of put(). 0, or -1: exception. */
static int put_options(struct put *p, PyObject *const *values, PyObject *names)
{
    p->when = ALWAYS;
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);

        if (PyUnicode_CompareWithASCIIString(name, "if_absent") == 0) {
            int is = PyObject_IsTrue(values[i]);

            if (is < 0)
                return -1;
            if (!is)
                continue;
            if (p->when == IF_SEQUENCE)
                goto both;
            p->when = IF_ABSENT;
        } else if (PyUnicode_CompareWithASCIIString(name, "if_seq") == 0) {
            if (values[i] == Py_None)
                continue;
            if (p->when == IF_ABSENT)
                goto both;
            p->when = IF_SEQUENCE;
            p->sequence = PyLong_AsUnsignedLongLong(values[i]);
            if (PyErr_Occurred())
                return -1;
        } else {
            PyErr_Format(PyExc_TypeError, "put() has no option '%U'; it has if_absent and if_seq",
                         name);
            return -1;
        }
    }
    return 0;
both:
    PyErr_SetString(PyExc_ValueError, "put() takes if_absent or if_seq, not both");
    return -1;
}

static PyObject *bank_put(Bank *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    struct put p;
    int rc;

    if (n != 2) {
        PyErr_Format(PyExc_TypeError, "put() takes a key and a value, %zd arguments were given", n);
        return NULL;
    }
    if (key_take(self->st, args[0], &p.key) < 0 || put_options(&p, args + 2, names) < 0)
        return NULL;
    rc = put(self, &p, args[1], p.when == ALWAYS ? call_put : call_put_if);
    return rc == NO_CALL ? NULL : PyBool_FromLong(rc == KIST_OK);
}

/* ---- setdefault ------------------------------------------------------- */

struct insert {
    struct put put;
    kist_view *existing;
};

static int call_insert(kist_bank *bank, void *arg)
{
    struct insert *i = arg;

    return kist_get_or_insert(bank, i->put.key, i->put.value, &i->existing);
}

static PyObject *bank_setdefault(Bank *self, PyObject *const *args, Py_ssize_t n)
{
    struct insert i = { .existing = NULL };
    PyObject *value;
    kist_bytes there;

    if (n != 2) {
        PyErr_Format(PyExc_TypeError,
                     "setdefault() takes a key and a value, %zd arguments were given", n);
        return NULL;
    }
    if (key_take(self->st, args[0], &i.put.key) < 0)
        return NULL;
    if (put(self, &i.put, args[1], call_insert) == NO_CALL)
        return NULL;
    if (!i.existing)
        return PyBytes_CheckExact(args[1]) ? Py_NewRef(args[1]) : PyBytes_FromObject(args[1]);
    there = kist_view_bytes(i.existing);
    value = PyBytes_FromStringAndSize(there.data, (Py_ssize_t)there.len);
    kist_view_release(i.existing);
    return value;
}

/* ---- everything at once ----------------------------------------------- */

static int call_clear(kist_bank *bank, void *arg)
{
    (void)arg;
    return kist_clear(bank);
}

static PyObject *bank_clear_all(Bank *self, PyObject *Py_UNUSED(none))
{
    int rc = bank_wait(self, call_clear, NULL);

    if (rc == KIST_OK)
        Py_RETURN_NONE;
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

struct replace {
    struct state *st;
    PyObject *items;      /* an iterator over (key, value) */
    PyObject *pair;       /* the present one */
    struct value value;   /* its value */
    bool raised;
};

static void pair_release(struct replace *r)
{
    if (r->pair) {
        value_release(&r->value);
        Py_CLEAR(r->pair);
    }
}

static int next_pair(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct replace *r = arg;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *item;
    int rc = KIST_END;

    pair_release(r);
    item = PyIter_Next(r->items);
    if (item) {
        rc = 0;
        r->pair = PySequence_Tuple(item);
        Py_DECREF(item);
        if (r->pair && PyTuple_GET_SIZE(r->pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "replace() takes pairs of a key and a value");
            Py_CLEAR(r->pair);
        }
        if (r->pair && value_take(r->st, PyTuple_GET_ITEM(r->pair, 1), &r->value) < 0)
            Py_CLEAR(r->pair);
        if (r->pair && key_take(r->st, PyTuple_GET_ITEM(r->pair, 0), key) < 0)
            pair_release(r);
        if (r->pair)
            *value = r->value.bytes;
    }
    if (PyErr_Occurred()) {
        r->raised = true;
        rc = KIST_EINVAL;
    }
    PyGILState_Release(gil);
    return rc;
}

static int call_replace(kist_bank *bank, void *arg)
{
    return kist_replace(bank, next_pair, arg);
}

static PyObject *bank_replace(Bank *self, PyObject *items)
{
    struct replace r = { .st = self->st };
    int rc;

    if (PyMapping_Check(items) && PyObject_HasAttrString(items, "items"))
        items = PyObject_CallMethod(items, "items", NULL);
    else
        Py_INCREF(items);
    if (!items)
        return NULL;
    r.items = PyObject_GetIter(items);
    Py_DECREF(items);
    if (!r.items)
        return NULL;
    rc = bank_wait(self, call_replace, &r);
    pair_release(&r);
    Py_DECREF(r.items);
    if (r.raised || rc == NO_CALL)
        return NULL;
    if (rc < 0)
        return raise_code(self->st, rc);
    Py_RETURN_NONE;
}

PyMethodDef bank_write_methods[] = {
    { "put", (PyCFunction)(void (*)(void))bank_put, METH_FASTCALL | METH_KEYWORDS,
      "put($self, key, value, /, *, if_absent=False, if_seq=None)\n--\n\n"
      "Store a value; with a condition only if it holds, in one step against other\n"
      "writers. Returns whether it was stored.\n\n"
      "if_absent: the key has no value. if_seq: the key's sequence is still this, as\n"
      "meta() told it; 0: the key has no value." },
    { "discard", (PyCFunction)bank_discard, METH_O,
      "discard($self, key, /)\n--\n\n"
      "Remove a key. Returns whether it had a value." },
    { "setdefault", (PyCFunction)(void (*)(void))bank_setdefault, METH_FASTCALL,
      "setdefault($self, key, value, /)\n--\n\n"
      "Store `value` if the key has none. Returns the value that the key has then.\n"
      "One step against other writers." },
    { "clear", (PyCFunction)bank_clear_all, METH_NOARGS,
      "clear($self, /)\n--\n\n"
      "Remove all entries, in one step." },
    { "replace", (PyCFunction)bank_replace, METH_O,
      "replace($self, items, /)\n--\n\n"
      "Make the content exactly `items`, a mapping or an iterable of pairs, all at\n"
      "once: no reader sees a mixture, and a failure leaves the old content. Of a\n"
      "key that comes twice the last value stays." },
    { 0 },
};
