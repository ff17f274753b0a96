"""The cache driver for Salt beside a file for each key, as localfs writes it; and beside
the msgpack call that is inside of both, on the same data."""
import os
import shutil

import msgpack
from bench import Goal, Row

from kist.salt import cache, handles
from engines import PARTS, Files

BANK = "minions"


def minion(size):
    """What a master keeps of a minion: a dict of small values, of about so many bytes."""
    data = {"id": "minion000001", "uid": 0, "groups": ["web", "db"], "grains": {}}
    for i in range(10_000):
        if len(msgpack.packb(data, use_bin_type=True)) + 30 > size:
            return data
        data["grains"][f"grain_{i:03}"] = f"value {i:03}" if i % 3 else i
    raise AssertionError("the size is too large")


class Driver:
    """The driver's functions, called as salt.cache does."""

    def __init__(self, folder, durability):
        self.folder, self.kwargs, self.durability = folder, {"cachedir": folder}, durability

    def opts(self):
        cache.__opts__ = {"cachedir": self.folder, "kist_durability": self.durability}

    def store(self, keys, data):
        store, kwargs = cache.store, self.kwargs
        for key in keys:
            store(BANK, key, data, expires=None, **kwargs)

    def fetch(self, keys):
        fetch, kwargs = cache.fetch, self.kwargs
        for key in keys:
            fetch(BANK, key, **kwargs)

    def updated(self, keys):
        updated, kwargs = cache.updated, self.kwargs
        for key in keys:
            updated(BANK, key, **kwargs)

    def list(self):
        return cache.list_(BANK, **self.kwargs)

    def list_all(self):
        return cache.list_all(BANK, include_data=True, **self.kwargs)

    def tidy(self):
        cache._caches[self.folder, BANK].compact()

    def close(self):
        handles.close_store(self.folder)


class Msgpack:
    """The call inside of store and fetch alone, with values in a dict."""

    def __init__(self):
        self.values = {}

    def store(self, keys, data):
        packb = msgpack.packb
        for key in keys:
            packb(data, use_bin_type=True)

    def fetch(self, keys):
        unpackb, values = msgpack.unpackb, self.values
        for key in keys:
            unpackb(values[key], raw=False)

    def list_all(self):
        unpackb = msgpack.unpackb
        return {key: unpackb(raw, raw=False) for key, raw in self.values.items()}

    def tidy(self):
        pass

    def close(self):
        self.values.clear()


def rows(bench):
    for label, size in (("200 B", 200), ("10 KB", 10_000)):
        yield from sized_rows(bench, label, size)
    yield from durable_row(bench)


def sized_rows(bench, label, size):
    folder = bench.folder / f"salt{size}"
    folder.mkdir()
    keys, data = [f"minion{i:06}" for i in range(bench.entries)], minion(size)
    raw = msgpack.packb(data, use_bin_type=True)
    driver, files, inside = Driver(str(folder / "kist"), "none"), Files(str(folder / "files")), Msgpack()
    driver.opts()
    inside.values = {key: bytes(bytearray(raw)) for key in keys}  # each its own bytes
    for engine in (driver, files):
        engine.store(keys, data)
    order, n = keys, len(keys)
    engines = {"kist": driver, "msgpack": inside, "file per key": files}

    def part(column):
        return order[:n // PARTS.get(column, 1)]

    def before_store(column):
        nonlocal order
        order = bench.shuffled(keys)
        engines[column].tidy()

    def before_fetch(column):
        """Warm: each was read before."""
        nonlocal order
        order = bench.shuffled(keys)
        engines[column].fetch(part(column))

    def write_one(column):
        if column == "kist":
            driver.store(keys[:1], data)

    yield Row(f"driver store, {label}",
              {name: (lambda name=name, engine=engine: engine.store(part(name), data))
               for name, engine in engines.items()}, n, before_store, PARTS)
    for engine in engines.values():
        engine.tidy()
    yield Row(f"driver fetch, {label}",
              {name: (lambda name=name, engine=engine: engine.fetch(part(name)))
               for name, engine in engines.items()}, n, before_fetch, PARTS)
    yield Row(f"driver updated, {label}",
              {name: (lambda name=name: engines[name].updated(part(name)))
               for name in ("kist", "file per key")}, n, before_fetch, PARTS)
    plain = dict.fromkeys(keys)
    lists = {"kist": driver.list, "file per key": files.list, "dict": lambda: list(plain)}
    yield Row(f"driver list, {label}", lists, n)
    yield Row(f"driver list after a write, {label}", lists, n, write_one)
    yield Row(f"driver list_all with data, {label}",
              {"kist": driver.list_all, "msgpack": inside.list_all}, n)
    for engine in engines.values():
        engine.close()
    shutil.rmtree(folder)


def durable_row(bench):
    """As the bank's own row: the yardstick is one pwrite and one fdatasync of as many bytes
    as the record has, into a file that was written before."""
    folder = bench.folder / "saltdurable"
    folder.mkdir()
    n, data, keys = 50, minion(200), ["minion000001"]
    driver = Driver(str(folder / "kist"), "always")
    driver.opts()
    driver.store(keys, data)
    size = 40 + len(keys[0]) + len(msgpack.packb(data, use_bin_type=True))
    record = os.urandom(-(-size // 16) * 16)
    fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"\xff" * (8 << 20))
    os.fsync(fd)
    at = 0

    def pwrite():
        nonlocal at
        for _ in range(n):
            os.pwrite(fd, record, at)
            os.fdatasync(fd)
            at += len(record)

    yield Row("driver durable store, 200 B",
              {"kist": lambda: driver.store(keys * n, data), "pwrite+sync": pwrite}, n)
    os.close(fd)
    driver.close()


def goals(rows):
    def goal(what, row, over, under, bound):
        found = rows.get(row)
        return Goal(what, found.median(over) / found.median(under), bound) if found else None

    for label in ("200 B", "10 KB"):
        for call in ("store", "fetch"):
            yield goal(f"driver's {call}, {label}: time / the msgpack call's inside",
                       f"driver {call}, {label}", "kist", "msgpack", 3)
        yield goal(f"driver's list, {label}: time / a dict's",
                   f"driver list, {label}", "kist", "dict", 3)
    yield goal("driver's durable store: time / pwrite and fdatasync's",
               "driver durable store, 200 B", "kist", "pwrite+sync", 1.3)
