"""What snapshot_test and make_snapshots share: the library, seen from Python."""
import ctypes
import os
from pathlib import Path

from golden import short


class Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("len", ctypes.c_size_t)]


class StoreOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("rest", ctypes.c_uint64 * 5)]


class BankOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("index", ctypes.c_uint32),
                ("rest", ctypes.c_uint32 * 7)]


class Meta(ctypes.Structure):
    _fields_ = [("value_bytes", ctypes.c_uint64), ("sequence", ctypes.c_uint64), ("mtime_ns", ctypes.c_int64),
                ("expiry_ns", ctypes.c_int64)]


class Entry(ctypes.Structure):
    _fields_ = [("key", ctypes.c_void_p), ("key_len", ctypes.c_size_t), ("value", ctypes.c_void_p),
                ("value_len", ctypes.c_size_t), ("meta", Meta)]


class Info(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("index", ctypes.c_uint32), ("bank_id", ctypes.c_uint8 * 16),
                ("sequence", ctypes.c_uint64), ("taken_ns", ctypes.c_int64), ("entries", ctypes.c_uint64),
                ("payload_bytes", ctypes.c_uint64), ("saved_bytes", ctypes.c_uint64)]


lib = ctypes.CDLL(Path(os.environ["KIST"]).parent.parent / "libkist.so.0")
WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
READ = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
pointer = ctypes.c_void_p
lib.kist_put.argtypes = [pointer, Bytes, Bytes]
lib.kist_bank_open.argtypes = [pointer, pointer, ctypes.c_char_p, pointer]
lib.kist_snapshot_save.argtypes = [pointer, WRITE, pointer]
lib.kist_snapshot_restore.argtypes = [pointer, READ, pointer]
lib.kist_snapshot_info_read.argtypes = [READ, pointer, pointer]
lib.kist_iter_open.argtypes = lib.kist_iter_next.argtypes = [pointer, pointer]
lib.kist_iter_close.argtypes = lib.kist_bank_close.argtypes = lib.kist_store_close.argtypes = [pointer]


class Bank:
    """In memory, of the kind `index`."""

    def __init__(self, index):
        self.store, self.bank = ctypes.c_void_p(), ctypes.c_void_p()
        store = StoreOptions(ctypes.sizeof(StoreOptions), 8)
        bank = BankOptions(ctypes.sizeof(BankOptions), 1, index)
        assert lib.kist_store_open(ctypes.byref(self.store), None, ctypes.byref(store)) == 0
        assert lib.kist_bank_open(ctypes.byref(self.bank), self.store, b"bank", ctypes.byref(bank)) == 0

    def close(self):
        assert lib.kist_bank_close(self.bank) == 0 and lib.kist_store_close(self.store) == 0

    def put(self, key, value):
        assert lib.kist_put(self.bank, Bytes(key, len(key)), Bytes(value, len(value))) == 0

    def save(self):
        pieces = []
        write = WRITE(lambda data, n, _: pieces.append(ctypes.string_at(data, n)) or 0)
        assert lib.kist_snapshot_save(self.bank, write, None) == 0
        return b"".join(pieces)

    def restore(self, saved):
        return lib.kist_snapshot_restore(self.bank, reader(saved), None)

    def entries(self):
        """{key: [value, mtime_ns]}, in the order of the walk."""
        walk, entry, found = ctypes.c_void_p(), Entry(), {}
        assert lib.kist_iter_open(ctypes.byref(walk), self.bank) == 0
        while lib.kist_iter_next(walk, ctypes.byref(entry)) == 0:
            key, value = (ctypes.string_at(p, n) if n else b"" for p, n in
                          ((entry.key, entry.key_len), (entry.value, entry.value_len)))
            found[short(key)] = [short(value), entry.meta.mtime_ns]
        lib.kist_iter_close(walk)
        return found


def reader(saved):
    left = [saved]

    def give(buf, n, _):
        piece, left[0] = left[0][:n], left[0][n:]
        ctypes.memmove(buf, piece, len(piece))
        return len(piece)

    return READ(give)


def info(saved):
    """The result, and what it says of it."""
    got = Info(ctypes.sizeof(Info))
    rc = lib.kist_snapshot_info_read(reader(saved), None, ctypes.byref(got))
    return rc, {name: bytes(got.bank_id).hex() if name == "bank_id" else getattr(got, name)
                for name, _ in Info._fields_[1:]}
